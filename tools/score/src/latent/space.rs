//! Metrics of the probe by what is read, layer, model and measure.

use std::collections::{BTreeMap, BTreeSet};

use cognate_cli::rejected;
use cognate_records::Metric;

use crate::bootstrap::{Interval, mean};
use crate::labels::{self, Labels, natural};
use crate::markdown::MISSING;
use crate::names::{BASE, order_arms};

/// An arm at a stage.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Model {
    pub arm: String,
    pub stage: String,
}

/// Stages of the main experiment in their order.
pub const STAGES: [&str; 3] = ["base", "sft", "rl"];

impl Model {
    /// The base model as such, which every stage is compared with.
    pub fn is_reference(&self) -> bool {
        self.arm == BASE && self.stage != "sft" && self.stage != "rl"
    }
}

/// What is read and how: document, pooling, centring.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reading {
    pub document: String,
    pub pooling: String,
    pub centre: String,
}

/// What one value belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub reading: Reading,
    pub layer: u32,
    pub model: Model,
    pub measure: String,
}

/// Values by place and seed; where a file has pairs of languages only, the mean over pairs.
#[derive(Debug, Default)]
pub struct Space {
    pub values: BTreeMap<Place, BTreeMap<String, f64>>,
    /// Where a measure came with an interval and has one seed.
    pub intervals: BTreeMap<Place, Interval>,
}

impl Space {
    pub fn new(metrics: &[Metric]) -> anyhow::Result<Self> {
        let mut space = Self::default();
        let mut averages: BTreeMap<(Place, String), f64> = BTreeMap::new();
        let mut pairs: BTreeMap<(Place, String), Vec<f64>> = BTreeMap::new();
        for m in metrics {
            let wrong =
                |reason: String| rejected(anyhow::anyhow!("metric {} of {:?}: {reason}", m.name, m.labels));
            let mut known: Labels = m.labels.clone();
            if let Some(model) = m.labels.get("model") {
                known.extend(labels::parse(model).map_err(wrong)?);
            }
            let label = |key: &str, default: &str| known.get(key).cloned().unwrap_or_else(|| default.into());
            let layer = label("layer", "");
            let layer = layer.parse().map_err(|_| wrong(format!("layer {layer:?} is not a number")))?;
            let arm =
                known.get("arm").or_else(|| known.get("model")).cloned().unwrap_or_else(|| "model".into());
            let place = Place {
                reading: Reading {
                    document: label("document", "source"),
                    pooling: label("pooling", MISSING),
                    centre: label("centre", "none"),
                },
                layer,
                model: Model { arm, stage: label("stage", "") },
                measure: m.name.clone(),
            };
            let key = (place, label("seed", "0"));
            if m.labels.contains_key("source") {
                pairs.entry(key).or_default().push(m.value);
                continue;
            }
            if let (Some(low), Some(high)) = (m.low, m.high) {
                space.intervals.insert(key.0.clone(), Interval { low, high });
            }
            if averages.insert(key, m.value).is_some() {
                return Err(wrong("two values for one arm, stage, seed and layer".into()));
            }
        }
        for (key, values) in pairs {
            averages.entry(key).or_insert_with(|| mean(&values));
        }
        for ((place, seed), value) in averages {
            space.values.entry(place).or_default().insert(seed, value);
        }
        space.intervals.retain(|place, _| space.values.get(place).is_some_and(|v| v.len() == 1));
        Ok(space)
    }

    pub fn models(&self, asked: &[String]) -> (Vec<Model>, Vec<String>) {
        let found: BTreeSet<Model> = self.values.keys().map(|p| p.model.clone()).collect();
        let arms: Vec<String> = found.iter().map(|m| m.arm.clone()).collect();
        let (arms, left_out) = order_arms(asked, &arms);
        let mut models = Vec::new();
        for arm in arms {
            let mut of_arm: Vec<Model> = found.iter().filter(|m| m.arm == arm).cloned().collect();
            of_arm.sort_by_key(|m| STAGES.iter().position(|s| *s == m.stage));
            models.extend(of_arm);
        }
        (models, left_out)
    }

    pub fn readings(&self) -> BTreeSet<&Reading> {
        self.values.keys().map(|p| &p.reading).collect()
    }

    pub fn layers(&self, reading: &Reading) -> BTreeSet<u32> {
        self.values.keys().filter(|p| p.reading == *reading).map(|p| p.layer).collect()
    }

    /// By seed.
    pub fn at(&self, place: &Place) -> Option<&BTreeMap<String, f64>> {
        self.values.get(place)
    }
}

/// In the order of the seeds.
pub fn collect(values: &BTreeMap<String, f64>) -> Vec<f64> {
    let mut by_seed: Vec<_> = values.iter().collect();
    by_seed.sort_by(|a, b| natural(a.0, b.0));
    by_seed.into_iter().map(|(_, v)| *v).collect()
}
