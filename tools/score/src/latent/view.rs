//! The metrics as tables by layer, as a figure and as metric/1 again.

use std::collections::BTreeSet;
use std::fmt::Write;

use cognate_records::Metric;

use super::measure::{CHANCE, How, MEASURES, Measure, difference, level};
use super::space::{Model, Place, Reading, STAGES, Space, collect};
use crate::bootstrap::mean;
use crate::figure::{Line, LinePanel, LinePlot, Series};
use crate::labels::{Labels, natural};
use crate::markdown::{MISSING, Table, escape};
use crate::names::{BASE, Names};

fn place(reading: &Reading, layer: u32, model: &Model, measure: &str) -> Place {
    Place { reading: reading.clone(), layer, model: model.clone(), measure: measure.into() }
}

/// A comparison of two models of one stage.
pub struct Change {
    pub name: String,
    pub first: Model,
    pub second: Model,
}

pub struct View<'a> {
    pub names: &'a Names,
    pub space: &'a Space,
    pub models: Vec<Model>,
    pub contrasts: Vec<(String, String)>,
}

impl View<'_> {
    /// The stages to show one by one; the base model stands in each.
    fn stages(&self) -> Vec<String> {
        let arms = self.models.iter().filter(|m| !m.is_reference());
        let mut stages: Vec<String> = arms.map(|m| m.stage.clone()).collect();
        stages.sort_by_key(|s| (STAGES.iter().position(|k| k == s).unwrap_or(STAGES.len()), s.clone()));
        stages.dedup();
        if stages.is_empty() { vec![String::new()] } else { stages }
    }

    fn models_at(&self, stage: &str) -> Vec<&Model> {
        self.models.iter().filter(|m| m.is_reference() || m.stage == stage).collect()
    }

    /// Each asked pair, and the first of each pair against the base model.
    pub fn changes(&self, stage: &str) -> Vec<Change> {
        let mut pairs = self.contrasts.clone();
        for (first, _) in &self.contrasts {
            let against_base = (first.clone(), BASE.to_string());
            if !pairs.contains(&against_base) {
                pairs.push(against_base);
            }
        }
        let models = self.models_at(stage);
        let find = |arm: &str| models.iter().find(|m| m.arm == arm).map(|m| (*m).clone());
        let change = |(first, second): (String, String)| {
            let name = format!("{first} − {second}");
            Some(Change { name, first: find(&first)?, second: find(&second)? })
        };
        pairs.into_iter().filter_map(change).collect()
    }

    /// Of each seed that both have; a base model with one seed is compared with every seed.
    pub fn change(
        &self,
        reading: &Reading,
        layer: u32,
        measure: &Measure,
        change: &Change,
    ) -> Option<Vec<f64>> {
        let of = |model: &Model| self.space.at(&place(reading, layer, model, measure.name));
        let (first, second) = (of(&change.first)?, of(&change.second)?);
        let one = change.second.is_reference() && second.len() == 1;
        let only = one.then(|| second.values().next().copied()).flatten();
        let mut changes = Vec::new();
        for (seed, a) in first {
            let Some(b) = second.get(seed).copied().or(only) else { continue };
            match measure.how {
                How::Ratio if b == 0.0 => {}
                How::Ratio => changes.push(a / b - 1.0),
                How::Share | How::Plain => changes.push(a - b),
            }
        }
        (!changes.is_empty()).then_some(changes)
    }

    pub fn page(&self, title: &str) -> String {
        let mut text = format!(
            "# {}\n\nHidden states of accepted programs, one for each problem and language. Layer 0 is the embedding \
             and the control: what stands there is shared spelling, so only what a deeper layer adds to it speaks of \
             function. ± is the standard deviation over seeds, where there are several; brackets hold an interval \
             over problems, where there is one seed. As measured; differences have no interval, so small ones mean \
             nothing.\n\n",
            escape(title)
        );
        for measure in &MEASURES {
            let _ = writeln!(text, "- {}: {}.", measure.title, measure.reading);
        }
        let missing = self.missing();
        if !missing.is_empty() {
            let _ = writeln!(
                text,
                "\nNot measured: {}. A level is the mean over the seeds that there are, a difference that over those \
                 which both have.",
                escape(&missing.join("; "))
            );
        }
        for stage in self.stages() {
            for reading in self.space.readings() {
                let _ = write!(text, "\n## {}{}\n", escape(&prefix(&stage)), escape(&heading(reading)));
                text += &self.summary(reading, &stage);
                for measure in &MEASURES {
                    text += &self.table(reading, &stage, measure);
                }
            }
        }
        text
    }

    /// The seeds that other models have and one has not.
    fn missing(&self) -> Vec<String> {
        let models = || self.models.iter().filter(|m| !m.is_reference());
        let seeds = |model: &Model| -> BTreeSet<&str> {
            let values = self.space.values.iter().filter(|(place, _)| place.model == *model);
            values.flat_map(|(_, by_seed)| by_seed.keys().map(String::as_str)).collect()
        };
        let all: BTreeSet<&str> = models().flat_map(seeds).collect();
        let of = |model: &Model| {
            let found = seeds(model);
            let mut missing: Vec<&str> = all.difference(&found).copied().collect();
            missing.sort_by(|a, b| natural(a, b));
            let place = format!("arm {}, stage {}, seed {}", model.arm, model.stage, missing.join(", "));
            (!missing.is_empty()).then_some(place)
        };
        models().filter_map(of).collect()
    }

    fn table(&self, reading: &Reading, stage: &str, measure: &Measure) -> String {
        let layers = self.space.layers(reading);
        let models = self.models_at(stage);
        let measured =
            |m: &&Model| layers.iter().any(|l| self.space.at(&place(reading, *l, m, measure.name)).is_some());
        if !models.iter().any(measured) {
            return String::new();
        }
        let changes = self.changes(stage);
        let mut header = vec!["layer".to_string()];
        header.extend(models.iter().map(|m| self.names.arm(&m.arm)));
        if measure.how == How::Share {
            header.push("chance".into());
        }
        header.extend(changes.iter().map(|c| c.name.clone()));
        let mut table = Table::new(header, 1);
        for layer in layers {
            let mut row = vec![if layer == 0 { "0 (control)".into() } else { layer.to_string() }];
            for model in &models {
                let at = place(reading, layer, model, measure.name);
                let values = self.space.at(&at);
                let mut cell = values.map_or_else(|| MISSING.into(), |v| level(measure.how, &collect(v)));
                if let Some(interval) = self.space.intervals.get(&at) {
                    let ends = [interval.low, interval.high].map(|v| level(measure.how, &[v]));
                    let _ = write!(cell, " [{}]", ends.join(", "));
                }
                row.push(cell);
            }
            if measure.how == How::Share {
                row.push(self.chance(reading, layer));
            }
            for change in &changes {
                let values = self.change(reading, layer, measure, change);
                row.push(values.map_or_else(|| MISSING.into(), |v| difference(measure.how, &v)));
            }
            table.row(row);
        }
        format!("\n### {}\n\n{table}", measure.title)
    }

    fn chance(&self, reading: &Reading, layer: u32) -> String {
        let of = |m: &Model| self.space.at(&place(reading, layer, m, CHANCE)).map(collect);
        let all: Vec<f64> = self.models.iter().filter_map(of).flatten().collect();
        if all.is_empty() { MISSING.into() } else { level(How::Share, &[mean(&all)]) }
    }

    /// The comparisons at the last layer beside the control, in words.
    fn summary(&self, reading: &Reading, stage: &str) -> String {
        let Some(last) = self.space.layers(reading).last().copied().filter(|l| *l > 0) else {
            return String::new();
        };
        let mut text = String::new();
        for change in self.changes(stage) {
            let mut parts = Vec::new();
            for measure in MEASURES.iter().filter(|m| m.name != "language_cluster_distance") {
                let at = |layer| {
                    let values = self.change(reading, layer, measure, &change)?;
                    Some(difference(measure.how, &values))
                };
                if let Some(deep) = at(last) {
                    let control = at(0).unwrap_or_else(|| MISSING.into());
                    let unit = if measure.how == How::Share { " points" } else { "" };
                    parts.push(format!(
                        "{} {deep}{unit} (control {control})",
                        measure.title.trim_end_matches(", %")
                    ));
                }
            }
            if !parts.is_empty() {
                let _ = write!(text, "\n- {}, layer {last}: {}.", escape(&change.name), parts.join("; "));
            }
        }
        if text.is_empty() { text } else { text + "\n" }
    }

    pub fn export(&self) -> Vec<Metric> {
        let mut all = Vec::new();
        let labels_of = |reading: &Reading, layer: u32| -> Labels {
            [
                ("document", reading.document.clone()),
                ("pooling", reading.pooling.clone()),
                ("centre", reading.centre.clone()),
                ("layer", layer.to_string()),
            ]
            .map(|(k, v)| (k.to_string(), v))
            .into()
        };
        for (at, values) in &self.space.values {
            if !self.models.contains(&at.model) {
                continue;
            }
            let mut labels = labels_of(&at.reading, at.layer);
            labels.insert("arm".into(), at.model.arm.clone());
            labels.insert("stage".into(), at.model.stage.clone());
            let values = collect(values);
            all.push(Metric {
                name: at.measure.clone(),
                value: mean(&values),
                labels,
                low: self.space.intervals.get(at).map(|i| i.low),
                high: self.space.intervals.get(at).map(|i| i.high),
                count: Some(values.len() as u64),
                ..Metric::default()
            });
        }
        for reading in self.space.readings() {
            for layer in self.space.layers(reading) {
                for measure in &MEASURES {
                    for change in self.stages().iter().flat_map(|s| self.changes(s)) {
                        let Some(values) = self.change(reading, layer, measure, &change) else { continue };
                        let mut labels = labels_of(reading, layer);
                        labels
                            .insert("contrast".into(), format!("{}:{}", change.first.arm, change.second.arm));
                        labels.insert("stage".into(), change.first.stage.clone());
                        all.push(Metric {
                            name: format!("{}_contrast", measure.name),
                            value: mean(&values),
                            labels,
                            count: Some(values.len() as u64),
                            ..Metric::default()
                        });
                    }
                }
            }
        }
        all
    }

    /// A row of panels a reading and measure, a panel a stage, a line an arm.
    pub fn plot(&self, title: &str) -> LinePlot {
        let mut arms: Vec<&str> = self.models.iter().map(|m| m.arm.as_str()).collect();
        arms.dedup();
        let mut panels = Vec::new();
        for reading in self.space.readings() {
            for measure in MEASURES.iter().filter(|m| m.name != "language_cluster_distance") {
                let scale = if measure.how == How::Share { 100.0 } else { 1.0 };
                for stage in self.stages() {
                    let line = |model: &Model| {
                        let point = |layer: u32| {
                            let values = self.space.at(&place(reading, layer, model, measure.name))?;
                            Some((f64::from(layer), mean(&collect(values)) * scale))
                        };
                        let points: Vec<_> =
                            self.space.layers(reading).into_iter().filter_map(point).collect();
                        let series = arms.iter().position(|a| *a == model.arm)?;
                        (!points.is_empty()).then_some(Line { series, points })
                    };
                    let lines: Vec<Line> = self.models_at(&stage).into_iter().filter_map(line).collect();
                    let title = format!("{}{}: {}", prefix(&stage), heading(reading), measure.title);
                    panels.push(LinePanel { title, lines });
                }
            }
        }
        LinePlot {
            title: title.into(),
            x_axis: "layer (0 is the embedding, the control)".into(),
            series: arms.iter().enumerate().map(|(i, a)| Series::new(self.names.arm(a), i)).collect(),
            panels,
            columns: self.stages().len().max(2),
        }
    }
}

/// How a heading names a stage.
fn prefix(stage: &str) -> String {
    match stage {
        "" => String::new(),
        "sft" => "After SFT, ".into(),
        "rl" => "After RL, ".into(),
        other => format!("Stage {other}, "),
    }
}

fn heading(reading: &Reading) -> String {
    let pooling = match reading.pooling.as_str() {
        "mean" => "mean over tokens",
        "last" => "last token",
        other => other,
    };
    let centre = match reading.centre.as_str() {
        "none" => String::new(),
        "language" => ", each language's mean taken off".into(),
        other => format!(", centred by {other}"),
    };
    let document =
        if reading.document == "source" { String::new() } else { format!(", read as {}", reading.document) };
    format!("{pooling}{centre}{document}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latent::space::Space;
    use crate::names::{self, Names};

    fn metric(name: &str, value: f64, model: &str, more: &[(&str, &str)]) -> Metric {
        let mut labels: Labels =
            [("model", model), ("pooling", "mean"), ("centre", "none"), ("document", "source")]
                .map(|(k, v)| (k.to_string(), v.to_string()))
                .into();
        labels.extend(more.iter().map(|(k, v)| ((*k).to_string(), (*v).to_string())));
        Metric { name: name.into(), value, labels, ..Metric::default() }
    }

    #[test]
    fn changes_are_relative_by_seed_and_pairs_stand_in_for_averages() {
        let layer = [("layer", "2")];
        let pair = |source, target| [("layer", "2"), ("source", source), ("target", target)];
        let parallel = |seed| format!("arm=parallel,stage=sft,seed={seed}");
        let other = |seed| format!("arm=nonparallel,stage=sft,seed={seed}");
        let metrics = [
            metric("intra_cluster_distance", 0.6, &parallel(0), &layer),
            metric("intra_cluster_distance", 0.8, &other(0), &layer),
            metric("intra_cluster_distance", 0.5, &parallel(1), &layer),
            metric("intra_cluster_distance", 1.0, &other(1), &layer),
            metric("retrieval@1", 0.25, &parallel(0), &pair("python", "ruby")),
            metric("retrieval@1", 0.75, &parallel(0), &pair("ruby", "python")),
        ];
        let space = Space::new(&metrics).unwrap();
        let (models, left_out) = space.models(&[]);
        assert!(left_out.is_empty());
        let names = Names::new(&[], names::languages(None).unwrap()).unwrap();
        let contrasts = vec![("parallel".to_string(), "nonparallel".to_string())];
        let view = View { names: &names, space: &space, models, contrasts };
        let reading = space.readings().into_iter().next().unwrap().clone();
        let change = &view.changes("sft")[0];
        let found = view.change(&reading, 2, &MEASURES[2], change).unwrap();
        assert!((found[0] + 0.25).abs() < 1e-12 && (found[1] + 0.5).abs() < 1e-12);
        assert_eq!(difference(How::Ratio, &found), "−37.5 % ± 17.7 %");
        assert_eq!(space.at(&place(&reading, 2, &change.first, "retrieval@1")).unwrap()["0"], 0.5);
        assert!(view.change(&reading, 2, &MEASURES[0], change).is_none());
    }

    #[test]
    fn a_seed_is_compared_with_its_own_alone_and_one_base_model_with_every_seed() {
        let value = |v, model: &str| metric("cosine_gap", v, model, &[("layer", "1")]);
        let metrics = [
            value(0.1, "arm=base"),
            value(0.5, "arm=parallel,stage=sft,seed=0"),
            value(0.9, "arm=parallel,stage=sft,seed=1"),
            value(0.2, "arm=nonparallel,stage=sft,seed=0"),
        ];
        let space = Space::new(&metrics).unwrap();
        let names = Names::new(&[], names::languages(None).unwrap()).unwrap();
        let contrasts = vec![("parallel".to_string(), "nonparallel".to_string())];
        let view = View { names: &names, space: &space, models: space.models(&[]).0, contrasts };
        let reading = space.readings().into_iter().next().unwrap().clone();
        let rounded = |change: &Change| -> Vec<i64> {
            let found = view.change(&reading, 1, &MEASURES[1], change).unwrap();
            found.iter().map(|v| (v * 10.0).round() as i64).collect()
        };
        let found: Vec<_> = view.changes("sft").iter().map(|c| (c.name.clone(), rounded(c))).collect();
        assert_eq!(
            found,
            [("parallel − nonparallel".to_string(), vec![3]), ("parallel − base".to_string(), vec![4, 8])]
        );
        assert_eq!(view.missing(), ["arm nonparallel, stage sft, seed 1"]);
    }
}
