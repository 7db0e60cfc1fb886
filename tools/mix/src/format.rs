//! How a problem is put into words: the messages of a prompt and the text of an answer.
//!
//! The same functions serve base documents, SFT conversations and RL prompts, so that a model is asked exactly as it
//! was taught.

use std::path::Path;

use anyhow::Context;
use cognate_cli::rejected;
use cognate_languages::Language;
use cognate_records::Message;
use minijinja::{Environment, Value};

use crate::cli::{self, AnswerStyle};

#[derive(Debug)]
pub enum Format {
    /// System message: the language's name. User message: the statement as a comment.
    Comment,
    /// A plain request for a fenced program.
    Instruct,
    File {
        environment: Box<Environment<'static>>,
        place: String,
        answer: AnswerStyle,
    },
}

pub fn message(role: &str, content: impl Into<String>) -> Message {
    Message { role: role.into(), content: content.into() }
}

impl Format {
    pub fn open(options: &cli::Format) -> anyhow::Result<Self> {
        match options.format.as_str() {
            "comment" => Ok(Self::Comment),
            "instruct" => Ok(Self::Instruct),
            file => {
                let source = std::fs::read_to_string(Path::new(file))
                    .with_context(|| format!("--format {file}: neither `comment`, `instruct` nor a file"))?;
                let mut environment = Environment::new();
                environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
                environment.set_unknown_method_callback(minijinja_pycompat());
                environment
                    .add_template_owned("prompt", source)
                    .map_err(|e| rejected(anyhow::anyhow!("{file}: {e}")))?;
                Ok(Self::File {
                    environment: Box::new(environment),
                    place: file.into(),
                    answer: options.answer,
                })
            }
        }
    }

    /// The messages that ask for a program.
    pub fn generation(&self, statement: &str, language: &Language) -> anyhow::Result<Vec<Message>> {
        match self {
            Self::Comment => {
                Ok(vec![message("system", &*language.display), message("user", comment(statement, language))])
            }
            Self::Instruct => Ok(vec![message(
                "user",
                format!(
                    "Solve the following problem in {display}. Read from standard input, write to standard output. \
                     Answer with one complete program in a ```{name} block.\n\n{statement}",
                    display = language.display,
                    name = language.name,
                ),
            )]),
            Self::File { .. } => self.render("generation", statement, language, None),
        }
    }

    /// The messages that ask whether a program is right; the answer is `yes` or `no`.
    pub fn verification(
        &self,
        statement: &str,
        language: &Language,
        program: &str,
    ) -> anyhow::Result<Vec<Message>> {
        match self {
            Self::Comment => Ok(vec![
                message("system", &*language.display),
                message(
                    "user",
                    format!(
                        "{}\n{}\n{}",
                        comment(statement, language),
                        program.trim_end(),
                        comment("correct?", language)
                    ),
                ),
            ]),
            Self::Instruct => Ok(vec![message(
                "user",
                format!(
                    "Does the following {display} program solve the problem? Answer yes or no.\n\n\
                     Problem:\n{statement}\n\nProgram:\n{program}",
                    display = language.display,
                    program = fence(program, language),
                ),
            )]),
            Self::File { .. } => self.render("verification", statement, language, Some(program)),
        }
    }

    /// A program as an answer.
    pub fn answer(&self, program: &str, language: &Language) -> String {
        match self {
            Self::Comment | Self::File { answer: AnswerStyle::Whole, .. } => program.trim_end().to_owned(),
            Self::Instruct | Self::File { answer: AnswerStyle::Fence, .. } => fence(program, language),
        }
    }

    fn render(
        &self,
        task: &str,
        statement: &str,
        language: &Language,
        program: Option<&str>,
    ) -> anyhow::Result<Vec<Message>> {
        let Self::File { environment, place, .. } = self else { return Ok(Vec::new()) };
        let comment = comment(statement, language);
        let names: [(&str, Value); 7] = [
            ("task", task.into()),
            ("statement", statement.into()),
            ("language", language.name.as_str().into()),
            ("display", language.display.as_str().into()),
            ("extension", language.extension.as_str().into()),
            ("comment", comment.as_str().into()),
            ("program", program.map_or(Value::from(()), Value::from)),
        ];
        let template = environment.get_template("prompt")?;
        let text = template
            .render(Value::from_pairs(names))
            .map_err(|e| rejected(anyhow::anyhow!("{place}: {e}")))?;
        Ok(vec![message("user", text)])
    }
}

type Callback = fn(&mut minijinja::State, &Value, &str, &[Value]) -> Result<Value, minijinja::Error>;

fn minijinja_pycompat() -> Callback {
    minijinja_contrib::pycompat::unknown_method_callback
}

/// Text in the language's line comments, one for each line.
pub fn comment(text: &str, language: &Language) -> String {
    let lines: Vec<String> = text
        .trim_end()
        .lines()
        .map(|line| format!("{} {line}", language.line_comment).trim_end().to_owned())
        .collect();
    lines.join("\n")
}

/// A fenced block, its fence longer than any run of backticks inside.
fn fence(program: &str, language: &Language) -> String {
    let longest = program.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let ticks = "`".repeat(longest.max(2) + 1);
    format!("{ticks}{}\n{}\n{ticks}", language.name, program.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cognate_languages::Languages;

    #[test]
    fn comments_cover_every_line() {
        let languages = Languages::builtin();
        let lua = languages.get("lua").unwrap();
        assert_eq!(comment("a\n\nb\n", lua), "-- a\n--\n-- b");
        let messages = Format::Comment.verification("s", lua, "print(1)\n").unwrap();
        assert_eq!(messages[1].content, "-- s\nprint(1)\n-- correct?");
    }

    #[test]
    fn a_fence_is_longer_than_what_it_holds() {
        let languages = Languages::builtin();
        let python = languages.get("python").unwrap();
        assert_eq!(fence("x\n", python), "```python\nx\n```");
        assert_eq!(fence("'```'", python), "````python\n'```'\n````");
    }
}
