//! Scored batches from the pipe, one a step, and from the journal.
//!
//! A batch is complete when its `step_end/1` has come; an input that ends before that is a failure, never a smaller
//! batch. A thread reads ahead, so that the pipe drains while the trainer works and a signal is seen while it waits.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use cognate_records::{Error, Line, Lines, Record, Rollout, StepEnd};

/// All rollouts of one optimizer step.
#[derive(Debug, Clone)]
pub struct StepBatch {
    pub end: StepEnd,
    /// Sorted by prompt and index, so that nothing depends on the order of arrival.
    pub rollouts: Vec<Rollout>,
    /// The lines as they came, `step_end` last.
    lines: Vec<String>,
}

impl StepBatch {
    /// Writes the batch durably under `path`, whole or not at all.
    pub fn journal(&self, path: &Path) -> Result<()> {
        let mut text = self.lines.join("\n");
        text.push('\n');
        cognate_output::write_file(path, text.as_bytes()).with_context(|| path.display().to_string())
    }

    /// Reads the batch of step `step` back from the journal.
    ///
    /// # Errors
    /// Naming the file (exit code 3) when it does not hold that batch whole, as after a disk's fault.
    pub fn replay(path: &Path, step: u64) -> Result<Self> {
        let found = match gather(&mut Lines::open(path)?) {
            Ok(Some(batch)) if batch.end.step == step => return Ok(batch),
            Ok(Some(batch)) => anyhow!("it holds step {}", batch.end.step),
            Ok(None) => anyhow!("it is empty"),
            Err(e) => e,
        };
        let damaged = format!("{}: not the journal's batch of step {step}", path.display());
        Err(cognate_cli::rejected(found.context(damaged)))
    }

    fn new(mut rollouts: Vec<Rollout>, lines: Vec<String>, end_line: &Line) -> Result<Self> {
        let end: StepEnd = end_line.decode()?;
        let prompts: BTreeSet<&str> = rollouts.iter().map(|r| r.prompt.as_str()).collect();
        let (found, stated) = ((rollouts.len() as u64, prompts.len() as u64), (end.rollouts, end.groups));
        if found != stated {
            let reason = format!(
                "step {} ends with {} rollouts of {} prompts, but {} of {} have come",
                end.step, stated.0, stated.1, found.0, found.1
            );
            return Err(end_line.error(reason).into());
        }
        if let Some(r) = rollouts.iter().find(|r| r.round.is_some_and(|round| round != end.step)) {
            let reason = format!(
                "rollout {}#{} of round {} came in step {}",
                r.prompt,
                r.index,
                r.round.unwrap_or_default(),
                end.step
            );
            return Err(end_line.error(reason).into());
        }
        rollouts.sort_by(|a, b| (&a.prompt, a.index).cmp(&(&b.prompt, b.index)));
        if let Some(pair) =
            rollouts.windows(2).find(|p| p[0].prompt == p[1].prompt && p[0].index == p[1].index)
        {
            let reason =
                format!("rollout {}#{} came twice in step {}", pair[0].prompt, pair[0].index, end.step);
            return Err(end_line.error(reason).into());
        }
        Ok(Self { end, rollouts, lines })
    }
}

/// Reads up to the next `step_end`; `None` at the end of the input.
fn gather(lines: &mut dyn Iterator<Item = Result<Line, Error>>) -> Result<Option<StepBatch>> {
    let (mut rollouts, mut texts) = (Vec::new(), Vec::new());
    for line in lines {
        let line = line?;
        texts.push(line.text().to_owned());
        if line.schema() == Some(StepEnd::SCHEMA) {
            return StepBatch::new(rollouts, texts, &line).map(Some);
        }
        rollouts.push(line.decode::<Rollout>()?);
    }
    if !rollouts.is_empty() {
        bail!("the input ended inside a step: {} rollouts without their step_end", rollouts.len());
    }
    Ok(None)
}

/// What waiting for a batch ended with.
pub enum Arrival {
    Batch(Box<StepBatch>),
    /// The input ended between two steps.
    End,
    Signal(i32),
}

pub struct Intake {
    batches: Receiver<Result<StepBatch>>,
}

impl Intake {
    /// Reads ahead by one batch.
    pub fn spawn(mut lines: Lines) -> Self {
        let (sender, batches) = sync_channel(1);
        std::thread::spawn(move || {
            while let Some(batch) = gather(&mut lines).transpose() {
                let failed = batch.is_err();
                if sender.send(batch).is_err() || failed {
                    return;
                }
            }
        });
        Self { batches }
    }

    /// Waits for the next batch, for the end of the input, or for a signal.
    ///
    /// # Errors
    /// When a line is damaged, a batch is not what its `step_end` says, or the input ends inside one.
    pub fn next(&self) -> Result<Arrival> {
        loop {
            if let Some(signal) = cognate_output::signal() {
                return Ok(Arrival::Signal(signal));
            }
            match self.batches.recv_timeout(Duration::from_millis(100)) {
                Ok(batch) => return batch.map(|b| Arrival::Batch(Box::new(b))),
                Err(RecvTimeoutError::Disconnected) => return Ok(Arrival::End),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub fn batch(text: &str) -> Result<Option<StepBatch>> {
        gather(&mut Lines::new("test", std::io::Cursor::new(text.to_owned())))
    }

    fn rollout(prompt: &str, index: u32) -> String {
        format!(
            r#"{{"schema":"rollout/1","prompt":"{prompt}","index":{index},"text":"x","round":3,"ids":[1]}}"#
        )
    }

    fn end(groups: u64, rollouts: u64) -> String {
        format!(r#"{{"schema":"step_end/1","step":3,"version":2,"groups":{groups},"rollouts":{rollouts}}}"#)
    }

    fn refusal(lines: &[String]) -> String {
        format!("{:#}", batch(&(lines.join("\n") + "\n")).unwrap_err())
    }

    #[test]
    fn a_complete_batch_is_sorted_and_survives_the_journal() {
        let lines = [rollout("b", 1), rollout("a", 0), rollout("b", 0), end(2, 3)];
        let found = batch(&lines.join("\n")).unwrap().unwrap();
        let order: Vec<_> = found.rollouts.iter().map(|r| (r.prompt.as_str(), r.index)).collect();
        assert_eq!(order, [("a", 0), ("b", 0), ("b", 1)]);
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("3.jsonl");
        found.journal(&path).unwrap();
        let again = StepBatch::replay(&path, 3).unwrap();
        assert_eq!((again.rollouts, again.end), (found.rollouts, found.end));
        assert!(batch("").unwrap().is_none());
    }

    #[test]
    fn what_is_not_a_whole_batch_is_refused() {
        let (a, b) = (rollout("a", 0), rollout("b", 0));
        assert!(refusal(&[a.clone(), b.clone(), end(2, 3)]).contains("3 rollouts of 2 prompts, but 2 of 2"));
        assert!(refusal(&[a.clone(), a.clone(), end(1, 2)]).contains("a#0 came twice"));
        let late = a.replace("\"round\":3", "\"round\":2");
        assert!(refusal(&[late, end(1, 1)]).contains("of round 2 came in step 3"));
        assert!(refusal(&[a.clone(), b]).contains("ended inside a step: 2 rollouts"));
        assert!(refusal(&[a, "{\"schema\":\"metric/1\"}".into()]).contains("rollout/1"));
    }
}
