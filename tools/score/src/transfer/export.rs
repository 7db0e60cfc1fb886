//! The table's numbers as metric/1.

use cognate_records::{Metric, Status};

use super::results::{Plan, Results, Value, stages};
use super::study::{Side, Study};
use crate::cell::{STATUSES, Temperature};
use crate::labels::Labels;

/// `pass@1` by arm, stage, language and temperature; `pass@1_gain` by arm; `pass@1_gain_contrast` and
/// `pass@1_after_contrast` by pair of arms. A record without label `seed` is the mean over seeds and has the interval.
pub fn metrics(study: &Study, plan: &Plan, results: &Results) -> Vec<Metric> {
    let columns = plan.columns();
    let mut all = Vec::new();
    for block in &results.blocks {
        for (arm, row) in plan.arms.iter().zip(&block.rows) {
            let before = plan.before_of(study, arm);
            for (column, entry) in columns.iter().zip(row) {
                let labels = |stage: Option<&str>| {
                    let mut labels = place(&column.name, block.temperature);
                    labels.insert("arm".into(), arm.clone());
                    labels.extend(stage.map(|s| ("stage".into(), s.into())));
                    labels
                };
                push(&mut all, "pass@1", entry.before.as_ref(), &labels(Some(&before)));
                push(&mut all, "pass@1", entry.after.as_ref(), &labels(Some(&plan.after)));
                push(&mut all, "pass@1_gain", entry.gain.as_ref(), &labels(None));
            }
        }
        for contrast in &block.contrasts {
            for (column, entry) in columns.iter().zip(&contrast.entries) {
                let mut labels = place(&column.name, block.temperature);
                labels.insert("contrast".into(), format!("{}:{}", contrast.first, contrast.second));
                push(&mut all, "pass@1_gain_contrast", entry.gain.as_ref(), &labels);
                push(&mut all, "pass@1_after_contrast", entry.after.as_ref(), &labels);
            }
        }
    }
    for arm in &plan.arms {
        for stage in stages(study, plan, arm) {
            for language in &plan.languages {
                for &temperature in &plan.temperatures {
                    counts(&mut all, study, Side { arm, stage: &stage }, language, temperature);
                }
            }
        }
    }
    all
}

fn place(language: &str, temperature: Temperature) -> Labels {
    [("language".into(), language.into()), ("temperature".into(), temperature.to_string())].into()
}

fn push(all: &mut Vec<Metric>, name: &str, value: Option<&Value>, labels: &Labels) {
    let Some(value) = value else { return };
    let metric = |number: f64, labels: Labels| Metric {
        name: name.into(),
        value: number,
        labels,
        count: Some(value.problems as u64),
        ..Metric::default()
    };
    let mut mean = metric(value.mean, labels.clone());
    (mean.low, mean.high) = (Some(value.interval.low), Some(value.interval.high));
    all.push(mean);
    for (seed, number) in value.seeds.iter().zip(&value.seed_means) {
        let mut labels = labels.clone();
        labels.insert("seed".into(), seed.clone());
        all.push(metric(*number, labels));
    }
}

/// Verdicts, drift and truncation over all seeds.
fn counts(all: &mut Vec<Metric>, study: &Study, side: Side, language: &str, temperature: Temperature) {
    let Some(total) = study.total(side, Some(language), Some(temperature)) else { return };
    let mut labels = place(language, temperature);
    labels.insert("arm".into(), side.arm.into());
    labels.insert("stage".into(), side.stage.into());
    let metric = |name: &str, value: f64, count: u64| Metric {
        name: name.into(),
        value,
        labels: labels.clone(),
        count: Some(count),
        ..Metric::default()
    };
    let counted = total.samples();
    for (status, name) in STATUSES {
        let n = total.count(status);
        let of = if status == Status::IE { counted + n } else { counted };
        if of > 0 {
            let mut m = metric("verdict_share", n as f64 / of as f64, of);
            m.labels.insert("verdict".into(), name.into());
            all.push(m);
        }
    }
    all.extend(total.asked_share().map(|v| metric("asked_language", v, total.told)));
    all.extend(total.told_share().map(|v| metric("told_language", v, counted)));
    all.extend(total.truncated_share().map(|v| metric("truncated", v, total.ended)));
}
