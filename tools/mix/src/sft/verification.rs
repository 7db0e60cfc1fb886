//! Verification documents: statement and program, then yes or no. As many of either answer, in every arm and language.

use std::collections::HashMap;
use std::sync::Arc;

use cognate_chat::Chat;
use cognate_cli::rejected;
use rayon::prelude::*;

use crate::corpus::{Corpus, Source};
use crate::document::{Document, Shared, answered, chat_error};
use crate::format::Format;

/// Documents by problem, language and answer.
pub struct Verification {
    documents: HashMap<(String, String, bool), Vec<Shared>>,
    /// Problems in the order in which they are used.
    order: Vec<String>,
}

impl Verification {
    /// `order` is that in which problems are used.
    pub fn write(
        chat: &Chat,
        format: &Format,
        corpus: &Corpus,
        sources: &[&Source],
        order: Vec<String>,
        context: usize,
        too_long: &mut u64,
    ) -> anyhow::Result<Self> {
        let written: Vec<anyhow::Result<Option<Document>>> = sources
            .par_iter()
            .map(|source| {
                let (Some(statement), Some(language)) =
                    (corpus.problems.get(&source.problem), corpus.languages.get(&source.language))
                else {
                    return Ok(None);
                };
                let asked = format.verification(&statement.text, language, &source.text)?;
                let answer = if source.accepted { "yes" } else { "no" };
                let masked = chat.conversation(&answered(asked, answer.into())).map_err(chat_error)?;
                let id = format!("verification/{}", source.id);
                Ok(Some(Document::conversation(
                    id,
                    &source.problem,
                    "verification",
                    masked,
                    &[&language.name],
                )))
            })
            .collect();
        let mut documents: HashMap<(String, String, bool), Vec<Shared>> = HashMap::new();
        for (source, document) in sources.iter().zip(written) {
            let Some(document) = document? else { continue };
            if document.ids.len() > context {
                *too_long += 1;
                continue;
            }
            let place = (source.problem.clone(), source.language.clone(), source.accepted);
            documents.entry(place).or_default().push(Arc::new(document));
        }
        Ok(Self { documents, order })
    }

    fn of(&self, problem: &str, language: &str, answer: bool) -> &[Shared] {
        self.documents.get(&(problem.to_owned(), language.to_owned(), answer)).map_or(&[], Vec::as_slice)
    }

    /// `pairs` problems with yes and as many others with no, each in every language.
    pub fn parallel(&self, arm: &str, languages: &[String], pairs: usize) -> anyhow::Result<Vec<Shared>> {
        let mut chosen = Vec::new();
        let mut counts = [0usize; 2];
        for problem in &self.order {
            // The answer of which fewer were taken comes first.
            let first = counts[1] <= counts[0];
            for answer in [first, !first] {
                let members: Vec<&Shared> =
                    languages.iter().filter_map(|l| self.of(problem, l, answer).first()).collect();
                if counts[usize::from(answer)] < pairs && members.len() == languages.len() {
                    chosen.extend(members.into_iter().cloned());
                    counts[usize::from(answer)] += 1;
                    break;
                }
            }
        }
        enough(arm, &languages.join("+"), counts, pairs)?;
        Ok(chosen)
    }

    /// `pairs` documents with yes and as many with no in one language, from problems that `allowed` admits; another
    /// program of a problem only after every problem had one.
    pub fn single(
        &self,
        arm: &str,
        language: &str,
        pairs: usize,
        allowed: impl Fn(&str) -> bool,
    ) -> anyhow::Result<Vec<Shared>> {
        let mut chosen: Vec<Shared> = Vec::new();
        let mut counts = [0usize; 2];
        let mut used: HashMap<(&str, bool), usize> = HashMap::new();
        loop {
            let before = chosen.len();
            for problem in self.order.iter().filter(|p| allowed(p)) {
                let first = counts[1] <= counts[0];
                for answer in [first, !first] {
                    let next = used.entry((problem, answer)).or_default();
                    if counts[usize::from(answer)] < pairs
                        && let Some(document) = self.of(problem, language, answer).get(*next)
                    {
                        chosen.push(Arc::clone(document));
                        *next += 1;
                        counts[usize::from(answer)] += 1;
                        break;
                    }
                }
            }
            if chosen.len() == before {
                break;
            }
        }
        enough(arm, language, counts, pairs)?;
        Ok(chosen)
    }
}

fn enough(arm: &str, languages: &str, counts: [usize; 2], pairs: usize) -> anyhow::Result<()> {
    if counts == [pairs; 2] {
        return Ok(());
    }
    Err(rejected(anyhow::anyhow!(
        "arm {arm:?}: verification in {languages}: {} accepted and {} wrong programs of different problems, {pairs} of \
         each asked; lower --verification or --tokens, or give more --programs",
        counts[1],
        counts[0],
    )))
}
