//! Cells by arm, stage, seed, language and temperature, and values compared on the same problems and seeds.

use std::collections::{BTreeMap, BTreeSet};

use cognate_cli::rejected;

use crate::bootstrap::Panel;
use crate::cell::{Cell, Tally, Temperature};
use crate::intake::Samples;
use crate::labels::natural;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub arm: String,
    pub stage: String,
    pub seed: String,
    pub language: String,
    pub temperature: Temperature,
}

/// One side of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Side<'a> {
    pub arm: &'a str,
    pub stage: &'a str,
}

#[derive(Debug, Default)]
pub struct Study {
    cells: BTreeMap<Key, Cell>,
}

impl Study {
    /// # Errors
    /// When a label is missing, or two label sets claim one cell.
    pub fn new(samples: Samples) -> anyhow::Result<Self> {
        samples.require_temperature()?;
        let mut study = Self::default();
        for (slot, cell) in samples.cells {
            let text = slot.labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",");
            let label = |key: &str| {
                slot.labels.get(key).cloned().ok_or_else(|| {
                    rejected(anyhow::anyhow!(
                        "rollouts of model {text:?} have no label {key}; sample with --label \
                         arm=NAME,stage=base|sft|rl,seed=N"
                    ))
                })
            };
            let key = Key {
                arm: label("arm")?,
                stage: label("stage")?,
                seed: slot.labels.get("seed").cloned().unwrap_or_else(|| "0".into()),
                language: slot.language,
                temperature: slot.temperature.expect("required above"),
            };
            let place = format!("arm {}, stage {}, seed {}", key.arm, key.stage, key.seed);
            if study.cells.insert(key, cell).is_some() {
                return Err(rejected(anyhow::anyhow!(
                    "two kinds of rollouts are {place}, one of them {text:?}; choose one, as by --split"
                )));
            }
        }
        Ok(study)
    }

    fn distinct<T: Ord + Clone>(&self, of: impl Fn(&Key) -> &T) -> Vec<T> {
        let all: BTreeSet<&T> = self.cells.keys().map(of).collect();
        all.into_iter().cloned().collect()
    }

    pub fn arms(&self) -> Vec<String> {
        self.distinct(|k| &k.arm)
    }

    pub fn languages(&self) -> Vec<String> {
        self.distinct(|k| &k.language)
    }

    pub fn temperatures(&self) -> Vec<Temperature> {
        self.distinct(|k| &k.temperature)
    }

    /// Numbers by value.
    pub fn seeds(&self) -> Vec<String> {
        let mut seeds = self.distinct(|k| &k.seed);
        seeds.sort_by(|a, b| natural(a, b));
        seeds
    }

    pub fn has(&self, side: Side) -> bool {
        self.cells.keys().any(|k| k.arm == side.arm && k.stage == side.stage)
    }

    pub fn cell(&self, side: Side, seed: &str, language: &str, temperature: Temperature) -> Option<&Cell> {
        self.cells.get(&Key {
            arm: side.arm.into(),
            stage: side.stage.into(),
            seed: seed.into(),
            language: language.into(),
            temperature,
        })
    }

    /// All samples of a side over its seeds; `None` for a language or temperature admits all.
    pub fn total(
        &self,
        side: Side,
        language: Option<&str>,
        temperature: Option<Temperature>,
    ) -> Option<Tally> {
        let mut total = None;
        for (key, cell) in &self.cells {
            if key.arm == side.arm
                && key.stage == side.stage
                && language.is_none_or(|l| l == key.language)
                && temperature.is_none_or(|t| t == key.temperature)
            {
                total.get_or_insert_with(Tally::default).merge(&cell.total());
            }
        }
        total
    }

    /// pass@1 of each problem, averaged over languages, on the problems that have a sample in each of them.
    fn rates(
        &self,
        side: Side,
        seed: &str,
        languages: &[String],
        temperature: Temperature,
    ) -> Option<BTreeMap<&str, f64>> {
        let mut rates: Option<BTreeMap<&str, f64>> = None;
        for language in languages {
            let cell = self.cell(side, seed, language, temperature)?;
            let here = cell.problems.iter().filter_map(|(p, t)| Some((p.as_str(), t.pass(1)?)));
            rates = Some(match rates {
                None => here.collect(),
                Some(so_far) => here.filter_map(|(p, r)| Some((p, r + so_far.get(p)?))).collect(),
            });
        }
        let mut rates = rates?;
        rates.values_mut().for_each(|r| *r /= languages.len() as f64);
        Some(rates)
    }

    /// The seeds that all sides have, on the problems that all sides have in all these seeds.
    pub fn common(
        &self,
        sides: &[Side],
        languages: &[String],
        temperature: Temperature,
    ) -> Option<CommonGround> {
        let mut seeds = Vec::new();
        let mut rates = Vec::new();
        for seed in self.seeds() {
            let of_sides: Option<Vec<_>> =
                sides.iter().map(|s| self.rates(*s, &seed, languages, temperature)).collect();
            if let Some(of_sides) = of_sides {
                seeds.push(seed);
                rates.push(of_sides);
            }
        }
        let every = || rates.iter().flatten();
        let mut problems: BTreeSet<&str> = every().next()?.keys().copied().collect();
        let union: BTreeSet<&str> = every().flat_map(|r| r.keys().copied()).collect();
        for r in every() {
            problems.retain(|p| r.contains_key(p));
        }
        if problems.is_empty() {
            return None;
        }
        let rates = rates
            .iter()
            .map(|of_sides| of_sides.iter().map(|r| problems.iter().map(|p| r[p]).collect()).collect())
            .collect();
        Some(CommonGround { seeds, problems: problems.len(), dropped: union.len() - problems.len(), rates })
    }
}

/// pass@1 by seed, side and problem.
#[derive(Debug)]
pub struct CommonGround {
    pub seeds: Vec<String>,
    pub problems: usize,
    /// Problems that some side or seed has and another has not.
    pub dropped: usize,
    rates: Vec<Vec<Vec<f64>>>,
}

impl CommonGround {
    /// The weighted sum of the sides.
    pub fn panel(&self, weights: &[f64]) -> Panel {
        let rows = self.rates.iter().map(|sides| {
            let weigh = |p: usize| sides.iter().zip(weights).map(|(side, w)| w * side[p]).sum();
            (0..self.problems).map(weigh).collect()
        });
        Panel::new(rows.collect()).expect("at least one seed and one problem")
    }
}
