//! One training document: token ids with their loss weights, and what it is.

use std::sync::Arc;

use cognate_chat::{Chat, ChatError, Masked};
use cognate_languages::Language;
use cognate_records::Message;

use crate::format::{Format, message};

#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    pub id: String,
    pub problem: String,
    /// `generation`, `verification`, `replay`, or `text`.
    pub task: &'static str,
    pub ids: Vec<u32>,
    /// As in packed/1: weight of each token as a target, the first 0.
    pub weights: Vec<f32>,
    /// Tokens with loss, by language.
    pub answers: Vec<(String, u64)>,
}

pub type Shared = Arc<Document>;

impl Document {
    pub fn answer_tokens(&self) -> u64 {
        self.answers.iter().map(|(_, n)| n).sum()
    }

    /// A conversation with loss on its answers; `languages` names the language of each.
    pub fn conversation(
        id: String,
        problem: &str,
        task: &'static str,
        masked: Masked,
        languages: &[&str],
    ) -> Self {
        let answers = masked
            .answers
            .iter()
            .zip(languages)
            .map(|(range, language)| {
                let tokens = masked.weights[range.clone()].iter().filter(|&&w| w > 0.0).count();
                ((*language).to_owned(), tokens as u64)
            })
            .collect();
        Self { id, problem: problem.into(), task, ids: masked.ids, weights: masked.weights, answers }
    }

    /// A document with loss on every token but the first.
    pub fn text(id: String, problem: &str, task: &'static str, ids: Vec<u32>, language: &str) -> Self {
        let mut weights = vec![1.0; ids.len()];
        if let Some(first) = weights.first_mut() {
            *first = 0.0;
        }
        let answers = vec![(language.to_owned(), ids.len().saturating_sub(1) as u64)];
        Self { id, problem: problem.into(), task, ids, weights, answers }
    }
}

/// The messages of a prompt with an answer behind them.
pub fn answered(mut messages: Vec<Message>, answer: String) -> Vec<Message> {
    messages.push(message("assistant", answer));
    messages
}

/// Turns the renderer's errors into this tool's, exit code 3 where the data is at fault.
pub fn chat_error(error: ChatError) -> anyhow::Error {
    if error.is_data() { cognate_cli::rejected(error) } else { error.into() }
}

/// Statement to program.
pub fn generation(
    chat: &Chat,
    format: &Format,
    statement: &str,
    problem: &str,
    language: &Language,
    program: (&str, &str),
) -> anyhow::Result<Document> {
    let (id, text) = program;
    let messages = answered(format.generation(statement, language)?, format.answer(text, language));
    let masked = chat.conversation(&messages).map_err(chat_error)?;
    Ok(Document::conversation(format!("generation/{id}"), problem, "generation", masked, &[&language.name]))
}
