//! Packed sequences and the order in which they are trained on.
//!
//! Tokens stand in an unlinked file beside the output, read sequence by sequence, so that memory does not grow with the
//! data; an entry a sequence stays in memory.
//!
//! The order is a pure function of (seed, epoch), and a step's sequences a pure function of the step, so the data
//! cursor of a resumed run is the step alone. The last batch may be smaller; nothing is dropped.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use cognate_cli::Common;
use cognate_model::LlamaConfig;
use cognate_random::Key;
use cognate_records::{Error, Packed, Reader};
use xxhash_rust::xxh3::Xxh3;

use crate::micro_batch::{Policy, Row};

/// All sequences.
pub struct Dataset {
    /// Of each sequence its token ids, their weights and where its documents start: words of four bytes.
    words: File,
    rows: Vec<Bounds>,
    tokens: usize,
    hash: u128,
}

struct Bounds {
    name: String,
    /// First word.
    at: u64,
    tokens: u32,
    starts: u32,
}

/// A data set that grows.
struct Spill {
    words: BufWriter<File>,
    written: u64,
    rows: Vec<Bounds>,
    hash: Xxh3,
    weighted: bool,
}

impl Dataset {
    /// Reads every file, checks each sequence against the model and puts them away in a file without a name in
    /// `folder`.
    ///
    /// # Errors
    /// With file and record (exit code 3) when a token is beyond the vocabulary, a document longer than the context,
    /// a weight not a number, or nothing is there to learn from. With --keep-going such
    /// sequences are skipped.
    pub fn read(common: &Common, files: &[PathBuf], config: &LlamaConfig, folder: &Path) -> Result<Self> {
        let mut spill = Spill::new(folder)?;
        for file in files {
            for packed in Reader::<Packed>::open(file)? {
                let checked = packed.and_then(|packed| match check(&packed, config) {
                    Ok(()) => Ok(packed),
                    Err(reason) => {
                        Err(Error::data(file.display().to_string(), format!("{}: {reason}", packed.id)))
                    }
                });
                match checked {
                    Ok(packed) => spill.push(packed).with_context(|| folder.display().to_string())?,
                    Err(error) => common.skip(error)?,
                }
            }
        }
        let named = || files.iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join(", ");
        if spill.rows.is_empty() {
            return Err(cognate_cli::rejected(anyhow!("{}: no sequences to train on", named())));
        }
        if !spill.weighted {
            return Err(cognate_cli::rejected(anyhow!("{}: every token has loss weight 0", named())));
        }
        spill.finish().with_context(|| folder.display().to_string())
    }

    /// Number of sequences.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Tokens of all sequences.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// XXH3 of tokens, weights and document starts, in order.
    pub fn hash(&self) -> String {
        format!("{:032x}", self.hash)
    }

    fn length(&self, index: usize) -> usize {
        self.rows[index].tokens as usize
    }

    /// The sequence, with loss on the tokens that the data weights.
    fn row(&self, index: usize) -> Result<Row> {
        let &Bounds { ref name, at, tokens, starts } = &self.rows[index];
        let (tokens, starts) = (tokens as usize, starts as usize);
        let mut words = vec![0u32; 2 * tokens + starts];
        self.words
            .read_exact_at(bytemuck::cast_slice_mut(&mut words), 4 * at)
            .with_context(|| format!("{name}: reading a sequence back"))?;
        let starts = words.split_off(2 * tokens);
        let weights = words.split_off(tokens);
        let cross_entropy = bytemuck::cast_slice(&weights).to_vec();
        Ok(Row { id: name.clone(), tokens: words, starts, cross_entropy, policy: Policy::default() })
    }
}

impl Spill {
    fn new(folder: &Path) -> Result<Self> {
        let file = std::fs::create_dir_all(folder).and_then(|()| tempfile::tempfile_in(folder));
        let words = BufWriter::with_capacity(1 << 16, file.with_context(|| folder.display().to_string())?);
        Ok(Self { words, written: 0, rows: Vec::new(), hash: Xxh3::new(), weighted: false })
    }

    fn push(&mut self, packed: Packed) -> std::io::Result<()> {
        self.hash.update(&(packed.ids.len() as u64).to_le_bytes());
        for (id, weight) in packed.ids.iter().zip(&packed.weights) {
            self.hash.update(&id.to_le_bytes());
            self.hash.update(&weight.to_le_bytes());
        }
        packed.starts.iter().for_each(|s| self.hash.update(&s.to_le_bytes()));
        self.weighted |= packed.weights.iter().any(|w| *w != 0.0);
        self.words.write_all(bytemuck::cast_slice(&packed.ids))?;
        self.words.write_all(bytemuck::cast_slice(&packed.weights))?;
        self.words.write_all(bytemuck::cast_slice(&packed.starts))?;
        let (tokens, starts) = (packed.ids.len() as u32, packed.starts.len() as u32);
        self.rows.push(Bounds { name: packed.id, at: self.written, tokens, starts });
        self.written += 2 * u64::from(tokens) + u64::from(starts);
        Ok(())
    }

    fn finish(self) -> std::io::Result<Dataset> {
        let words = self.words.into_inner()?;
        let tokens = self.rows.iter().map(|row| row.tokens as usize).sum();
        Ok(Dataset { words, rows: self.rows, tokens, hash: self.hash.digest128() })
    }
}

/// When training on a data set ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Length {
    Epochs(f64),
    Steps(u64),
    Tokens(u64),
}

/// Batches of a data set, by step.
pub struct Plan {
    seed: u64,
    batch: u64,
    /// Sequences of the whole run.
    sequences: u64,
    pub steps: u64,
    /// Tokens of the whole run.
    pub tokens: u64,
    /// The order of one epoch, kept for the next step.
    epoch: Option<(u64, Vec<u32>)>,
}

impl Plan {
    pub fn new(data: &Dataset, seed: u64, batch: u64, length: Length) -> Result<Self> {
        let n = data.len() as u64;
        let mut plan = Self { seed, batch, sequences: 0, steps: 0, tokens: 0, epoch: None };
        plan.sequences = match length {
            Length::Epochs(e) if e > 0.0 && e.is_finite() => (n as f64 * e).round().max(1.0) as u64,
            Length::Epochs(e) => return Err(anyhow!("--epochs {e}: must be a positive number")),
            Length::Steps(0) | Length::Tokens(0) => {
                return Err(anyhow!("nothing to train: 0 steps or tokens"));
            }
            Length::Steps(s) => s.saturating_mul(batch),
            Length::Tokens(wanted) => plan.sequences_for(data, wanted),
        };
        plan.steps = plan.sequences.div_ceil(batch);
        let (whole, rest) = (plan.sequences / n, plan.sequences % n);
        let partial: usize = (0..rest).map(|i| data.length(plan.index(whole * n + i, n))).sum();
        plan.tokens = whole * data.tokens() as u64 + partial as u64;
        Ok(plan)
    }

    /// Sequences of the steps that it takes to see `wanted` tokens.
    fn sequences_for(&mut self, data: &Dataset, wanted: u64) -> u64 {
        let n = data.len() as u64;
        let whole = (wanted / data.tokens() as u64).saturating_sub(1);
        let (mut sequences, mut seen) = (whole * n, whole * data.tokens() as u64);
        while seen < wanted {
            seen += data.length(self.index(sequences, n)) as u64;
            sequences += 1;
        }
        sequences.next_multiple_of(self.batch)
    }

    /// Sequence at position `at` of the run, from 0.
    fn index(&mut self, at: u64, n: u64) -> usize {
        let epoch = at / n;
        if self.epoch.as_ref().is_none_or(|(e, _)| *e != epoch) {
            let mut order: Vec<u32> = (0..n as u32).collect();
            Key::new(self.seed).with("train").with("order").with(epoch).stream().shuffle(&mut order);
            self.epoch = Some((epoch, order));
        }
        self.epoch.as_ref().map_or(0, |(_, order)| order[(at % n) as usize] as usize)
    }

    /// The sequences of step `step`, from 1. A batch can reach over the end of an epoch.
    pub fn rows(&mut self, data: &Dataset, step: u64) -> Result<Vec<Row>> {
        let from = (step - 1) * self.batch;
        let to = (from + self.batch).min(self.sequences);
        (from..to).map(|at| data.row(self.index(at, data.len() as u64))).collect()
    }
}

fn check(packed: &Packed, config: &LlamaConfig) -> Result<(), String> {
    if packed.ids.is_empty() {
        return Err("a sequence without tokens".into());
    }
    if let Some(id) = packed.ids.iter().find(|id| **id as usize >= config.vocab_size) {
        return Err(format!("token id {id} is beyond the vocabulary of {}", config.vocab_size));
    }
    if let Some(w) = packed.weights.iter().find(|w| !w.is_finite()) {
        return Err(format!("loss weight {w}"));
    }
    let ends = packed.starts.iter().skip(1).copied().chain([packed.ids.len() as u32]);
    for (start, end) in packed.starts.iter().zip(ends) {
        if (end - start) as usize > config.max_position_embeddings {
            return Err(format!(
                "a document of {} tokens is longer than the context of {}",
                end - start,
                config.max_position_embeddings
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(n: usize) -> Dataset {
        let temp = tempfile::tempdir().unwrap();
        let mut set = Spill::new(temp.path()).unwrap();
        for i in 0..n {
            let len = 3 + i % 4;
            let p = Packed {
                id: i.to_string(),
                ids: vec![i as u32; len],
                weights: vec![1.0; len],
                starts: vec![0],
                ..Packed::default()
            };
            set.push(p).unwrap();
        }
        set.finish().unwrap()
    }

    fn seen(plan: &mut Plan, data: &Dataset) -> Vec<Vec<String>> {
        (1..=plan.steps).map(|s| plan.rows(data, s).unwrap().into_iter().map(|r| r.id).collect()).collect()
    }

    #[test]
    fn every_sequence_comes_once_an_epoch_in_an_order_of_its_own() {
        let data = set(10);
        let mut plan = Plan::new(&data, 1, 4, Length::Epochs(2.0)).unwrap();
        let steps = seen(&mut plan, &data);
        assert_eq!(steps.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 4, 4, 4]);
        let all: Vec<String> = steps.concat();
        for epoch in all.chunks(10) {
            let mut sorted: Vec<usize> = epoch.iter().map(|s| s.parse().unwrap()).collect();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..10).collect::<Vec<_>>());
        }
        assert_ne!(all[..10], all[10..]);
        assert_eq!(plan.tokens, 2 * data.tokens() as u64);
        // Any step by itself is what it is in the whole: the cursor is the step.
        let mut fresh = Plan::new(&data, 1, 4, Length::Epochs(2.0)).unwrap();
        assert_eq!(fresh.rows(&data, 3).unwrap().iter().map(|r| r.id.clone()).collect::<Vec<_>>(), steps[2]);
        assert_ne!(seen(&mut Plan::new(&data, 2, 4, Length::Epochs(2.0)).unwrap(), &data), steps);
    }

    #[test]
    fn a_sequence_is_read_back_as_it_was_and_leaves_no_file() {
        let temp = tempfile::tempdir().unwrap();
        let mut spill = Spill::new(temp.path()).unwrap();
        let packed = |id: &str, ids: &[u32], starts: &[u32]| Packed {
            id: id.into(),
            ids: ids.to_vec(),
            weights: ids.iter().map(|i| *i as f32 * 0.5 - 1.0).collect(),
            starts: starts.to_vec(),
            ..Packed::default()
        };
        let all =
            [packed("a", &[7, u32::MAX, 0], &[0]), packed("b", &[1], &[0]), packed("c", &[4, 5], &[0, 1])];
        all.iter().for_each(|p| spill.push(p.clone()).unwrap());
        let data = spill.finish().unwrap();
        for index in [2, 0, 1, 2] {
            let (row, p) = (data.row(index).unwrap(), &all[index]);
            assert_eq!(
                (&row.id, &row.tokens, &row.starts, &row.cross_entropy),
                (&p.id, &p.ids, &p.starts, &p.weights)
            );
        }
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_remainder_is_kept_and_budgets_are_met() {
        let data = set(10);
        let mut plan = Plan::new(&data, 1, 4, Length::Epochs(1.0)).unwrap();
        assert_eq!(seen(&mut plan, &data).iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 2]);
        for wanted in [1u64, 30, 43, 44, 45, 200] {
            let mut plan = Plan::new(&data, 1, 4, Length::Tokens(wanted)).unwrap();
            let by_step: Vec<u64> = (1..=plan.steps)
                .map(|s| plan.rows(&data, s).unwrap().iter().map(|r| r.tokens.len() as u64).sum())
                .collect();
            let total: u64 = by_step.iter().sum();
            assert_eq!(total, plan.tokens);
            assert!(total >= wanted && total - by_step.last().unwrap() < wanted, "{wanted}: {by_step:?}");
        }
        assert!(Plan::new(&data, 1, 4, Length::Epochs(0.0)).is_err());
    }
}
