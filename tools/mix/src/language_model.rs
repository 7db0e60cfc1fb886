//! Documents of a language model: programs by themselves, under comments, under their statement, and described.

use cognate_chat::Chat;
use cognate_languages::Language;
use cognate_random::Key;

use crate::clauses::keep_clauses;
use crate::corpus::Source;
use crate::document::{Document, answered, chat_error};
use crate::format::{Format, comment, message};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Raw,
    Commented,
    Statement,
    Describe,
}

pub const KINDS: [&str; 4] = ["raw", "commented", "statement", "describe"];

impl Kind {
    pub fn named(name: &str) -> Option<Self> {
        [Self::Raw, Self::Commented, Self::Statement, Self::Describe].into_iter().find(|k| k.name() == name)
    }

    pub fn name(self) -> &'static str {
        KINDS[self as usize]
    }
}

/// What shapes the documents beside their kind.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub drop_clause: f64,
    pub keep_clause: f64,
    pub header: bool,
    /// `text`, or `replay` where it is mixed into SFT.
    pub task: &'static str,
}

pub struct Author<'a> {
    pub chat: &'a Chat,
    pub format: &'a Format,
    pub shape: Shape,
    pub key: Key,
}

impl Author<'_> {
    /// The document's id is `KIND/PROGRAM`, with `#PASS` from the second use on.
    ///
    /// # Errors
    /// When the chat template refuses the messages.
    pub fn write(
        &self,
        kind: Kind,
        pass: u32,
        source: &Source,
        statement: &str,
        language: &Language,
    ) -> anyhow::Result<Document> {
        let key = self.key.with(kind.name()).with(u64::from(pass)).with(&source.id);
        let program = source.text.trim_end();
        let partly = |keep: f64| keep_clauses(statement, keep, key);
        let opening = || vec![message("system", &*language.display)];
        // The comment format opens each of its documents with the language; elsewhere a document is plain text.
        let opened = matches!(self.format, Format::Comment);
        let messages = match kind {
            Kind::Raw if opened && self.shape.header => Some(answered(opening(), program.into())),
            Kind::Raw => None,
            Kind::Commented if opened => {
                let mut messages = opening();
                messages.push(message("user", comment(&partly(self.shape.keep_clause), language)));
                Some(answered(messages, program.into()))
            }
            Kind::Statement => {
                let statement = partly(1.0 - self.shape.drop_clause);
                let answer = self.format.answer(program, language);
                Some(answered(self.format.generation(&statement, language)?, answer))
            }
            Kind::Describe if opened => {
                let described = comment(&partly(1.0 - self.shape.drop_clause), language);
                Some(answered(opening(), format!("{program}\n{described}")))
            }
            Kind::Commented | Kind::Describe => None,
        };
        let ids = match messages {
            Some(messages) => self.chat.conversation(&messages).map_err(chat_error)?.ids,
            None => self.chat.document(&match kind {
                Kind::Commented => {
                    format!("{}\n{program}", comment(&partly(self.shape.keep_clause), language))
                }
                Kind::Describe => {
                    format!("{program}\n{}", comment(&partly(1.0 - self.shape.drop_clause), language))
                }
                Kind::Raw | Kind::Statement => program.to_owned(),
            }),
        };
        let id = match pass {
            0 => format!("{}/{}", kind.name(), source.id),
            n => format!("{}/{}#{n}", kind.name(), source.id),
        };
        Ok(Document::text(id, &source.problem, self.shape.task, ids, &language.name))
    }
}
