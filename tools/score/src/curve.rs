//! `cog-score curve`: metrics over optimizer steps.

use std::collections::BTreeMap;

use cognate_cli::Common;
use cognate_records::Metric;

use crate::cli::Curve;
use crate::figure::{Line, LinePanel, LinePlot, Series};
use crate::labels::{Labels, natural};
use crate::{metrics, outputs};

/// # Errors
/// When the input is at fault or the figure cannot be written.
pub fn run(common: &Common, curve: &Curve) -> anyhow::Result<()> {
    let asked = |m: &Metric| m.step.is_some() && (curve.metric.is_empty() || curve.metric.contains(&m.name));
    let metrics =
        metrics::read(common, &curve.files, "metric/1 record with a step and an asked name", asked)?;
    let svg = plot(&metrics, curve).svg()?;
    outputs::put(&curve.output, svg.as_bytes())
}

fn plot(metrics: &[Metric], curve: &Curve) -> LinePlot {
    let mut lines: BTreeMap<(&str, &Labels), Vec<(f64, f64)>> = BTreeMap::new();
    for m in metrics {
        if let Some(step) = m.step {
            lines.entry((&m.name, &m.labels)).or_default().push((step as f64, m.value));
        }
    }
    let mut labels: Vec<&Labels> = lines.keys().map(|(_, l)| *l).collect();
    labels.sort_by(|a, b| natural(&text(a), &text(b)));
    labels.dedup();
    let mut names: Vec<&str> = lines.keys().map(|(n, _)| *n).collect();
    names.dedup();
    if !curve.metric.is_empty() {
        names.sort_by_key(|n| curve.metric.iter().position(|m| m == n));
    }
    let panel = |name: &&str| LinePanel {
        title: (*name).to_string(),
        lines: labels
            .iter()
            .enumerate()
            .filter_map(|(series, l)| {
                let points = lines.get(&(*name, *l))?;
                Some(Line { series, points: smooth(points, curve.smooth as usize) })
            })
            .collect(),
    };
    LinePlot {
        title: curve.title.clone(),
        x_axis: "optimizer step".into(),
        columns: 2,
        panels: names.iter().map(panel).collect(),
        series: labels.iter().enumerate().map(|(i, l)| Series::new(text(l), i)).collect(),
    }
}

fn text(labels: &Labels) -> String {
    if labels.is_empty() {
        return "all".into();
    }
    labels.iter().map(|(k, v)| format!("{k} {v}")).collect::<Vec<_>>().join(", ")
}

/// The mean of each value and the `window` − 1 before it.
fn smooth(points: &[(f64, f64)], window: usize) -> Vec<(f64, f64)> {
    let mean = |i: usize| {
        let of = &points[(i + 1).saturating_sub(window)..=i];
        of.iter().map(|p| p.1).sum::<f64>() / of.len() as f64
    };
    (0..points.len()).map(|i| (points[i].0, mean(i))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smoothing_looks_back_only() {
        let points = [(0.0, 2.0), (1.0, 4.0), (2.0, 12.0)];
        assert_eq!(smooth(&points, 2), [(0.0, 2.0), (1.0, 3.0), (2.0, 8.0)]);
        assert_eq!(smooth(&points, 1), points);
    }
}
