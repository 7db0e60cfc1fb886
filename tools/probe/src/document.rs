//! What the model reads of a program: the program alone, or the program where training puts it.

use std::collections::HashMap;
use std::ops::Range;

use anyhow::{Context, anyhow};
use clap::ValueEnum;
use cognate_chat::Chat;
use cognate_cli::rejected;
use cognate_languages::Languages;
use cognate_records::{Message, Program};

/// How a program stands in its document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// The program alone.
    Source,
    /// The program, then the start of a comment line of its language: the last token is where a description follows.
    Description,
    /// The program as the answer to a prompt that states nothing.
    Answer,
    /// The program as the answer to its problem's statement (needs --problems). All languages share the statement, so
    /// this is an upper bound, not evidence.
    Statement,
}

impl Form {
    pub fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Description => "description",
            Self::Answer => "answer",
            Self::Statement => "statement",
        }
    }
}

/// Token ids of a document and where in it the program stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    pub ids: Vec<u32>,
    pub program: Range<usize>,
}

/// Makes documents.
pub struct Documents<'a> {
    pub chat: &'a Chat,
    pub languages: &'a Languages,
    /// Statement of each problem, for [`Form::Statement`].
    pub statements: HashMap<String, String>,
}

impl Documents<'_> {
    /// # Errors
    /// A data error for a language that the table does not know, a problem without statement, a failing template, or
    /// a program without tokens.
    pub fn make(&self, form: Form, program: &Program) -> anyhow::Result<Document> {
        let place = || format!("program {:?}", program.id);
        let language = self
            .languages
            .get(&program.language)
            .ok_or_else(|| rejected(anyhow!("{}: unknown language {:?}", place(), program.language)))?;
        let comment = &language.line_comment;
        let mut ids = match form {
            Form::Source | Form::Description => self.chat.bos_id().into_iter().collect(),
            Form::Answer => self.prompt(&language.display, &format!("{comment} ")).with_context(place)?,
            Form::Statement => {
                let statement = self.statements.get(&program.problem).ok_or_else(|| {
                    rejected(anyhow!("{}: no statement for problem {:?}", place(), program.problem))
                })?;
                let commented: Vec<String> =
                    statement.lines().map(|line| format!("{comment} {line}")).collect();
                self.prompt(&language.display, &commented.join("\n")).with_context(place)?
            }
        };
        let start = ids.len();
        ids.extend(self.chat.encode(&program.source));
        let span = start..ids.len();
        if span.is_empty() {
            return Err(rejected(anyhow!("{}: the source is empty", place())));
        }
        if form == Form::Description {
            let newline = if program.source.ends_with('\n') { "" } else { "\n" };
            ids.extend(self.chat.encode(&format!("{newline}{comment}")));
        }
        Ok(Document { ids, program: span })
    }

    fn prompt(&self, display: &str, question: &str) -> anyhow::Result<Vec<u32>> {
        let message = |role: &str, content: &str| Message { role: role.into(), content: content.into() };
        let rendered =
            self.chat.prompt(&[message("system", display), message("user", question)]).map_err(rejected)?;
        Ok(rendered.ids)
    }
}
