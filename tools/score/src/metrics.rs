//! metric/1 in: every record of several files, each key once.

use std::collections::BTreeSet;
use std::path::PathBuf;

use cognate_cli::{Common, rejected};
use cognate_records::{Error, Metric, Reader};

/// # Errors
/// A data error for a bad record or one given twice, and when no record passes `keep`.
pub fn read(
    common: &Common,
    files: &[PathBuf],
    what: &str,
    keep: impl Fn(&Metric) -> bool,
) -> anyhow::Result<Vec<Metric>> {
    let mut metrics = Vec::new();
    let mut seen = BTreeSet::new();
    for file in files {
        for metric in Reader::<Metric>::open(file)? {
            let metric = match metric {
                Ok(metric) if keep(&metric) => metric,
                Ok(_) => continue,
                Err(e) => {
                    common.skip(e)?;
                    continue;
                }
            };
            if !seen.insert((metric.name.clone(), metric.labels.clone(), metric.step)) {
                let labels: Vec<String> = metric.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
                let reason = format!("metric {} ({}) is given twice", metric.name, labels.join(","));
                common.skip(Error::data(file.display().to_string(), reason))?;
                continue;
            }
            metrics.push(metric);
        }
    }
    if metrics.is_empty() {
        let names: Vec<String> = files.iter().map(|f| f.display().to_string()).collect();
        return Err(rejected(anyhow::anyhow!("{}: no {what}", names.join(", "))));
    }
    metrics.sort_by(|a, b| (&a.name, &a.labels, a.step).cmp(&(&b.name, &b.labels, b.step)));
    Ok(metrics)
}
