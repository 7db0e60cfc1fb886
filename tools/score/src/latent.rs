//! `cog-score latent`: does the hidden space order programs by what they do, and more so after parallel SFT?

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use cognate_cli::{Common, rejected, usage};
use cognate_records::Metric;

use crate::bootstrap::{deviation, mean};
use crate::cli::Latent;
use crate::figure::{Line, LinePanel, LinePlot, Series};
use crate::labels::{self, Labels, natural};
use crate::markdown::{MISSING, Table, escape, minus};
use crate::metrics;
use crate::names::{BASE, Names, order_arms, pairs};
use crate::outputs::Report;

/// What cog-probe measures, as it stands in the table.
struct Measure {
    name: &'static str,
    title: &'static str,
    how: How,
    reading: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// A share, printed in per cent; arms differ in points.
    Share,
    /// Printed with three decimals; arms differ by that unit.
    Plain,
    /// Printed with three decimals; arms differ in per cent of the second.
    Ratio,
}

const MEASURES: [Measure; 4] = [
    Measure {
        name: "retrieval@1",
        title: "Retrieval@1, %",
        how: How::Share,
        reading: "how often the nearest program of another language solves the same problem, mean over ordered pairs \
                  of languages; differences in points",
    },
    Measure {
        name: "cosine_gap",
        title: "Cosine gap",
        how: How::Plain,
        reading: "mean cosine of programs of two languages for one problem, less that for different problems",
    },
    Measure {
        name: "intra_cluster_distance",
        title: "Intra-cluster distance",
        how: How::Ratio,
        reading: "mean distance of programs to their problem's centroid over the mean distance of all pairs; lower is \
                  nearer to what programs do; differences in per cent",
    },
    Measure {
        name: "language_cluster_distance",
        title: "Language-cluster distance",
        how: How::Ratio,
        reading: "the same with the language's centroid; lower is nearer to the language; differences in per cent",
    },
];

const CHANCE: &str = "retrieval@1_chance";

/// # Errors
/// When the input is at fault or a result cannot be written.
pub fn run(common: &Common, latent: &Latent) -> anyhow::Result<()> {
    latent.outputs.check(common)?;
    let names = Names::new(&latent.arms.names).map_err(usage)?;
    let contrasts = pairs(&latent.arms.contrast).map_err(usage)?;
    let wanted = |m: &Metric| m.name == CHANCE || MEASURES.iter().any(|w| w.name == m.name);
    let metrics = metrics::read(common, &latent.files, "metric of cog-probe", wanted)?;
    let space = Space::new(&metrics)?;
    let (models, left_out) = space.models(&latent.arms.arms);
    let view = View { names: &names, space: &space, models, contrasts };
    let title = latent.title.clone().unwrap_or_else(|| "Latent space by layer".into());
    let mut markdown = view.page(&title);
    if !left_out.is_empty() {
        let _ =
            writeln!(markdown, "\nNot in the tables, though there are metrics: arm {}.", left_out.join(", "));
    }
    let svg = match &latent.outputs.svg {
        Some(_) => Some(view.plot(&title).svg()?),
        None => None,
    };
    let report = Report { markdown, metrics: view.export(), svg };
    latent.outputs.write(common, &latent.files, &report)
}

/// An arm at a stage.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Model {
    arm: String,
    stage: String,
}

/// What is read and how: document, pooling, centring.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Reading {
    document: String,
    pooling: String,
    centre: String,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    reading: Reading,
    layer: u32,
    model: Model,
    measure: String,
}

/// Values by place and seed; where a file has pairs of languages only, the mean over pairs.
#[derive(Debug, Default)]
struct Space {
    values: BTreeMap<Place, BTreeMap<String, f64>>,
}

impl Space {
    fn new(metrics: &[Metric]) -> anyhow::Result<Self> {
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
            } else if averages.insert(key, m.value).is_some() {
                return Err(wrong("two values for one arm, stage, seed and layer".into()));
            }
        }
        let mut space = Self::default();
        for (key, values) in pairs {
            averages.entry(key).or_insert_with(|| mean(&values));
        }
        for ((place, seed), value) in averages {
            space.values.entry(place).or_default().insert(seed, value);
        }
        Ok(space)
    }

    fn models(&self, asked: &[String]) -> (Vec<Model>, Vec<String>) {
        let found: BTreeSet<Model> = self.values.keys().map(|p| p.model.clone()).collect();
        let arms: Vec<String> = found.iter().map(|m| m.arm.clone()).collect();
        let (arms, left_out) = order_arms(asked, &arms);
        let mut models = Vec::new();
        for arm in arms {
            let mut of_arm: Vec<Model> = found.iter().filter(|m| m.arm == arm).cloned().collect();
            of_arm.sort_by_key(|m| ["base", "sft", "rl"].iter().position(|s| *s == m.stage));
            models.extend(of_arm);
        }
        (models, left_out)
    }

    fn readings(&self) -> BTreeSet<&Reading> {
        self.values.keys().map(|p| &p.reading).collect()
    }

    fn layers(&self, reading: &Reading) -> BTreeSet<u32> {
        self.values.keys().filter(|p| p.reading == *reading).map(|p| p.layer).collect()
    }

    fn at(
        &self,
        reading: &Reading,
        layer: u32,
        model: &Model,
        measure: &str,
    ) -> Option<&BTreeMap<String, f64>> {
        let (reading, model, measure) = (reading.clone(), model.clone(), measure.to_string());
        self.values.get(&Place { reading, layer, model, measure })
    }
}

/// A comparison of two models of one stage.
struct Change {
    name: String,
    first: Model,
    second: Model,
}

struct View<'a> {
    names: &'a Names,
    space: &'a Space,
    models: Vec<Model>,
    contrasts: Vec<(String, String)>,
}

impl View<'_> {
    fn stages(&self) -> usize {
        let staged: BTreeSet<&str> =
            self.models.iter().filter(|m| m.arm != BASE).map(|m| m.stage.as_str()).collect();
        staged.len()
    }

    fn name(&self, model: &Model) -> String {
        let name = self.names.arm(&model.arm);
        if self.stages() > 1 && model.arm != BASE { format!("{name}, {}", model.stage) } else { name }
    }

    /// Each asked pair at every stage that both have, and each first arm against the base model.
    fn changes(&self) -> Vec<Change> {
        let mut pairs = self.contrasts.clone();
        for (first, _) in &self.contrasts {
            let against_base = (first.clone(), BASE.to_string());
            if !pairs.contains(&against_base) {
                pairs.push(against_base);
            }
        }
        let mut changes = Vec::new();
        for (first, second) in pairs {
            for a in self.models.iter().filter(|m| m.arm == first) {
                let same = |b: &&Model| b.arm == second && (b.stage == a.stage || second == BASE);
                if let Some(b) = self.models.iter().find(same) {
                    let stage = if self.stages() > 1 { format!(" ({})", a.stage) } else { String::new() };
                    let name = format!("{first} − {second}{stage}");
                    changes.push(Change { name, first: a.clone(), second: b.clone() });
                }
            }
        }
        changes
    }

    /// Of each seed that both have; a base model with one seed is compared with every seed.
    fn change(&self, reading: &Reading, layer: u32, measure: &Measure, change: &Change) -> Option<Vec<f64>> {
        let of = |model| self.space.at(reading, layer, model, measure.name);
        let (first, second) = (of(&change.first)?, of(&change.second)?);
        let only = (second.len() == 1).then(|| second.values().next().copied()).flatten();
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

    fn page(&self, title: &str) -> String {
        let mut text = format!(
            "# {}\n\nHidden states of accepted programs, one for each problem and language. Layer 0 is the embedding \
             and the control: what stands there is shared spelling, so only what a deeper layer adds to it speaks of \
             function. ± is the standard deviation over seeds, where there are several. As measured; no interval \
             is given for differences, so small ones mean nothing.\n\n",
            escape(title)
        );
        for measure in &MEASURES {
            let _ = writeln!(text, "- {}: {}.", measure.title, measure.reading);
        }
        for reading in self.space.readings() {
            let _ = write!(text, "\n## {}\n", escape(&heading(reading)));
            text += &self.summary(reading);
            for measure in &MEASURES {
                text += &self.table(reading, measure);
            }
        }
        text
    }

    fn table(&self, reading: &Reading, measure: &Measure) -> String {
        let layers = self.space.layers(reading);
        let measured =
            |m: &Model| layers.iter().any(|l| self.space.at(reading, *l, m, measure.name).is_some());
        if !self.models.iter().any(measured) {
            return String::new();
        }
        let changes = self.changes();
        let mut header = vec!["layer".to_string()];
        header.extend(self.models.iter().map(|m| self.name(m)));
        if measure.how == How::Share {
            header.push("chance".into());
        }
        header.extend(changes.iter().map(|c| c.name.clone()));
        let mut table = Table::new(header, 1);
        for layer in layers {
            let mut row = vec![if layer == 0 { "0 (control)".into() } else { layer.to_string() }];
            for model in &self.models {
                let values = self.space.at(reading, layer, model, measure.name);
                row.push(values.map_or_else(|| MISSING.into(), |v| level(measure.how, &collect(v))));
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
        let of = |m: &Model| self.space.at(reading, layer, m, CHANCE).map(collect);
        let all: Vec<f64> = self.models.iter().filter_map(of).flatten().collect();
        if all.is_empty() { MISSING.into() } else { level(How::Share, &[mean(&all)]) }
    }

    /// The first comparison at the last layer beside the control, in words.
    fn summary(&self, reading: &Reading) -> String {
        let Some(last) = self.space.layers(reading).last().copied().filter(|l| *l > 0) else {
            return String::new();
        };
        let mut text = String::new();
        for change in self.changes() {
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

    fn export(&self) -> Vec<Metric> {
        let mut all = Vec::new();
        let place = |reading: &Reading, layer: u32| -> Labels {
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
            let mut labels = place(&at.reading, at.layer);
            labels.insert("arm".into(), at.model.arm.clone());
            labels.insert("stage".into(), at.model.stage.clone());
            let values = collect(values);
            all.push(Metric {
                name: at.measure.clone(),
                value: mean(&values),
                labels,
                count: Some(values.len() as u64),
                ..Metric::default()
            });
        }
        for reading in self.space.readings() {
            for layer in self.space.layers(reading) {
                for measure in &MEASURES {
                    for change in self.changes() {
                        let Some(values) = self.change(reading, layer, measure, &change) else { continue };
                        let mut labels = place(reading, layer);
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

    fn plot(&self, title: &str) -> LinePlot {
        let mut panels = Vec::new();
        for reading in self.space.readings() {
            for measure in MEASURES.iter().filter(|m| m.name != "language_cluster_distance") {
                let scale = if measure.how == How::Share { 100.0 } else { 1.0 };
                let line = |(series, model): (usize, &Model)| {
                    let point = |layer: u32| {
                        let values = self.space.at(reading, layer, model, measure.name)?;
                        Some((f64::from(layer), mean(&collect(values)) * scale))
                    };
                    let points: Vec<_> = self.space.layers(reading).into_iter().filter_map(point).collect();
                    (!points.is_empty()).then_some(Line { series, points })
                };
                let lines: Vec<Line> = self.models.iter().enumerate().filter_map(line).collect();
                if !lines.is_empty() {
                    panels
                        .push(LinePanel { title: format!("{}: {}", measure.title, heading(reading)), lines });
                }
            }
        }
        let series = self.models.iter().enumerate().map(|(i, m)| Series::new(self.name(m), i)).collect();
        LinePlot {
            title: title.into(),
            x_axis: "layer (0 is the embedding, the control)".into(),
            series,
            panels,
        }
    }
}

fn collect(values: &BTreeMap<String, f64>) -> Vec<f64> {
    let mut by_seed: Vec<_> = values.iter().collect();
    by_seed.sort_by(|a, b| natural(a.0, b.0));
    by_seed.into_iter().map(|(_, v)| *v).collect()
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

fn spread(values: &[f64], print: impl Fn(f64) -> String) -> String {
    deviation(values).map_or_else(String::new, |s| format!(" ± {}", print(s)))
}

fn level(how: How, values: &[f64]) -> String {
    let print = |v: f64| match how {
        How::Share => format!("{:.1}", v * 100.0),
        How::Plain | How::Ratio => minus(format!("{v:.3}")),
    };
    format!("{}{}", print(mean(values)), spread(values, print))
}

fn difference(how: How, values: &[f64]) -> String {
    let signed = |v: f64| match how {
        How::Share => format!("{:+.1}", v * 100.0),
        How::Plain => format!("{v:+.3}"),
        How::Ratio => format!("{:+.1} %", v * 100.0),
    };
    let text = minus(signed(mean(values)));
    format!("{text}{}", spread(values, |s| signed(s).trim_start_matches('+').to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let names = Names::new(&[]).unwrap();
        let contrasts = vec![("parallel".to_string(), "nonparallel".to_string())];
        let view = View { names: &names, space: &space, models, contrasts };
        let reading = space.readings().into_iter().next().unwrap().clone();
        let change = &view.changes()[0];
        let found = view.change(&reading, 2, &MEASURES[2], change).unwrap();
        assert!((found[0] + 0.25).abs() < 1e-12 && (found[1] + 0.5).abs() < 1e-12);
        assert_eq!(difference(How::Ratio, &found), "−37.5 % ± 17.7 %");
        assert_eq!(space.at(&reading, 2, &change.first, "retrieval@1").unwrap()["0"], 0.5);
        assert!(view.change(&reading, 2, &MEASURES[0], change).is_none());
    }
}
