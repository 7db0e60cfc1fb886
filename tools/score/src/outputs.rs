//! Writes what was asked for: Markdown, CSV and metric/1 from one list of metrics, and the figure. All are computed
//! before the first is written.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use cognate_cli::{Common, usage};
use cognate_records::{LineWriter, Metric, Provenance, Writer, WriterOptions};

use crate::cli::Outputs;
use crate::labels::ordered;

/// Everything that a subcommand can say.
pub struct Report {
    pub markdown: String,
    pub metrics: Vec<Metric>,
    /// The figure's SVG, where one was asked for.
    pub svg: Option<String>,
}

fn is_stdout(path: &Path) -> bool {
    path.as_os_str() == "-"
}

impl Outputs {
    /// # Errors
    /// A usage error when two results would go to standard output.
    pub fn check(&self, common: &Common) -> anyhow::Result<()> {
        let named = [&self.output, &self.csv, &self.svg, &self.metrics];
        let to_stdout = named.into_iter().flatten().filter(|p| is_stdout(p)).count();
        if to_stdout + usize::from(common.json) > 1 {
            return Err(usage("only one result can go to standard output; give the others a file"));
        }
        Ok(())
    }

    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, common: &Common, inputs: &[PathBuf], report: &Report) -> anyhow::Result<()> {
        if let Some(path) = &self.csv {
            put(path, &csv(&report.metrics)?)?;
        }
        if let (Some(path), Some(svg)) = (&self.svg, &report.svg) {
            put(path, svg.as_bytes())?;
        }
        if let Some(path) = &self.metrics {
            write_metrics(path, &report.metrics, Some(history(common, inputs)?))?;
        }
        if let Some(path) = &self.output {
            put(path, report.markdown.as_bytes())?;
        }
        if common.json {
            return write_metrics(Path::new("-"), &report.metrics, None);
        }
        let taken = [&self.csv, &self.svg, &self.metrics].into_iter().flatten().any(|p| is_stdout(p));
        if self.output.is_none() && !taken {
            put(Path::new("-"), report.markdown.as_bytes())?;
        }
        Ok(())
    }
}

/// Inputs by name, so that the history does not depend on the order in which they were given.
fn history(common: &Common, inputs: &[PathBuf]) -> anyhow::Result<Provenance> {
    let mut sorted: Vec<&PathBuf> = inputs.iter().collect();
    sorted.sort_by_key(|p| (p.file_name().map(ToOwned::to_owned), (*p).clone()));
    let mut provenance = common.provenance("cog-score", env!("CARGO_PKG_VERSION"));
    for path in sorted {
        provenance = provenance.input(path)?;
    }
    Ok(provenance)
}

/// Writes bytes to a file, whole or not at all, or to standard output.
///
/// # Errors
/// When they cannot be written.
pub fn put(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    if is_stdout(path) {
        let mut out = std::io::stdout().lock();
        return out.write_all(bytes).and_then(|()| out.flush()).context("stdout");
    }
    cognate_output::write_file(path, bytes).with_context(|| path.display().to_string())
}

fn write_metrics(path: &Path, metrics: &[Metric], provenance: Option<Provenance>) -> anyhow::Result<()> {
    if is_stdout(path) {
        let mut out = LineWriter::stdout();
        metrics.iter().try_for_each(|m| out.write_record(m))?;
        return Ok(out.finish()?);
    }
    let mut out = Writer::create(path, WriterOptions { provenance, ..WriterOptions::default() })?;
    metrics.iter().try_for_each(|m| out.write(m))?;
    Ok(out.finish()?)
}

/// A row a metric; a column for every label that any of them has.
fn csv(metrics: &[Metric]) -> anyhow::Result<Vec<u8>> {
    let keys: BTreeSet<&str> = metrics.iter().flat_map(|m| m.labels.keys().map(String::as_str)).collect();
    let keys = ordered(keys);
    let mut out = csv::Writer::from_writer(Vec::new());
    let header = ["name"].into_iter().chain(keys.iter().copied()).chain(["value", "low", "high", "count"]);
    out.write_record(header)?;
    for m in metrics {
        let text = |v: Option<f64>| v.map_or_else(String::new, |v| format!("{v:.6}"));
        let mut row = vec![m.name.clone()];
        row.extend(keys.iter().map(|k| m.labels.get(*k).cloned().unwrap_or_default()));
        row.extend([text(Some(m.value)), text(m.low), text(m.high)]);
        row.push(m.count.map_or_else(String::new, |c| c.to_string()));
        out.write_record(&row)?;
    }
    Ok(out.into_inner()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_has_a_column_for_every_label_and_quotes_what_needs_it() {
        let metric = |name: &str, labels: &[(&str, &str)]| Metric {
            name: name.into(),
            value: 0.25,
            labels: labels.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
            ..Metric::default()
        };
        let text =
            csv(&[metric("pass@1", &[("arm", "a,b")]), metric("gain", &[("language", "php")])]).unwrap();
        let expected = "name,arm,language,value,low,high,count\n\
                        pass@1,\"a,b\",,0.250000,,,\ngain,,php,0.250000,,,\n";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }
}
