//! The run's measurements as metric/1 records: a log that grows in the run's state and is delivered at the end.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cognate_records::{Metric, Record};

use crate::cli::Keeping;
use crate::plot;
use crate::tensorboard::Events;

pub struct MetricsLog {
    file: File,
    path: PathBuf,
    labels: BTreeMap<String, String>,
    pending: Vec<u8>,
    events: Option<Events>,
}

impl MetricsLog {
    /// Goes on with the log at `path`: what it says of steps after `step` will be said again.
    pub fn open(path: &Path, step: u64, stage: &str, label: Option<&str>) -> Result<Self> {
        let place = || path.display().to_string();
        let mut kept = Vec::new();
        match File::open(path) {
            Ok(file) => {
                for line in BufReader::new(file).lines() {
                    // A kill can leave half a line at the end.
                    let Ok(line) = line else { break };
                    let Ok(metric) = serde_json::from_str::<Metric>(&line) else { continue };
                    if metric.step.is_none_or(|s| s <= step) {
                        kept.extend_from_slice(line.as_bytes());
                        kept.push(b'\n');
                    }
                }
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(e).with_context(place),
        }
        cognate_output::write_file(path, &kept).with_context(place)?;
        let file = File::options().append(true).open(path).with_context(place)?;
        let mut labels = BTreeMap::from([("stage".to_owned(), stage.to_owned())]);
        labels.extend(label.map(|l| ("label".to_owned(), l.to_owned())));
        Ok(Self { file, path: path.to_path_buf(), labels, pending: Vec::new(), events: None })
    }

    /// As [`Self::open`], with what the flags ask for.
    pub fn of(flags: &Keeping, path: &Path, step: u64, stage: &str) -> Result<Self> {
        let mut log = Self::open(path, step, stage, flags.label.as_deref())?;
        log.events = flags.tensorboard.as_deref().map(|dir| Events::create(dir, step)).transpose()?;
        Ok(log)
    }

    /// A number that is a function of data and settings.
    pub fn put(&mut self, step: u64, name: &str, value: f64) {
        self.push(step, name, value, false);
    }

    /// A number that depends on the machine and the moment: labelled `measured`, never to be compared.
    pub fn measured(&mut self, step: u64, name: &str, value: f64) {
        self.push(step, name, value, true);
    }

    fn push(&mut self, step: u64, name: &str, value: f64, measured: bool) {
        let mut labels = self.labels.clone();
        if measured {
            labels.insert("measured".into(), "yes".into());
        }
        let metric = Metric { name: name.into(), value, labels, step: Some(step), ..Metric::default() };
        let mut value = serde_json::to_value(&metric).expect("plain data");
        if let Some(object) = value.as_object_mut() {
            object.shift_insert(0, "schema".into(), Metric::SCHEMA.into());
        }
        self.pending.extend_from_slice(value.to_string().as_bytes());
        self.pending.push(b'\n');
        if let Some(events) = &mut self.events {
            events.scalar(step, name, metric.value);
        }
    }

    /// The share of the machine's peak that `flops` in `seconds` are, where the peak is known.
    pub fn utilisation(&mut self, step: u64, flops: f64, seconds: f64, peak: Option<f64>) {
        if let Some(peak) = peak {
            self.measured(step, "mfu", flops / seconds / peak);
        }
    }

    /// The most memory that this process has had so far, in bytes, where the kernel says so.
    pub fn peak_memory(&mut self, step: u64) {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        if let Some(kib) = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<f64>().ok()) {
            self.measured(step, "peak_memory", kib * 1024.0);
        }
    }

    /// Writes what was put, so that it can be watched.
    pub fn flush(&mut self) -> Result<()> {
        self.file.write_all(&self.pending).with_context(|| self.path.display().to_string())?;
        self.pending.clear();
        self.events.as_mut().map_or(Ok(()), Events::flush)
    }

    /// Copies the log to its final name, and draws it, where the flags ask for it.
    pub fn deliver(&mut self, flags: &Keeping) -> Result<()> {
        self.flush()?;
        if let Some(to) = &flags.metrics {
            let bytes = fs::read(&self.path).with_context(|| self.path.display().to_string())?;
            cognate_output::write_file(to, &bytes).with_context(|| to.display().to_string())?;
        }
        if let Some(to) = &flags.plot {
            let metrics = cognate_records::Reader::open(&self.path)?.collect::<Result<Vec<Metric>, _>>()?;
            cognate_output::write_file(to, plot::draw(&metrics).as_bytes())
                .with_context(|| to.display().to_string())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resumed_log_says_each_step_once() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("metrics.jsonl");
        let mut log = MetricsLog::open(&path, 0, "lm", Some("a")).unwrap();
        for step in 1..=3 {
            log.put(step, "loss", step as f64);
        }
        log.flush().unwrap();
        log.file.write_all(b"{\"schema\":\"metric/1\",\"na").unwrap();
        let mut log = MetricsLog::open(&path, 2, "lm", Some("a")).unwrap();
        log.put(3, "loss", 3.0);
        log.measured(3, "tokens_per_second", 9.0);
        let out = temp.path().join("out.jsonl");
        log.flush().unwrap();
        fs::copy(&path, &out).unwrap();
        let read: Vec<Metric> = cognate_records::Reader::open(&out).unwrap().map(Result::unwrap).collect();
        let seen: Vec<_> = read.iter().map(|m| (m.step.unwrap(), m.name.as_str())).collect();
        assert_eq!(seen, [(1, "loss"), (2, "loss"), (3, "loss"), (3, "tokens_per_second")]);
        assert_eq!(read[0].labels["label"], "a");
        assert_eq!(read[3].labels["measured"], "yes");
    }
}
