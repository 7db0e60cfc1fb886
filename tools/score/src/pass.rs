//! `cog-score pass`: a row for each model, language and temperature.

use std::collections::BTreeSet;
use std::fmt::Write;

use cognate_cli::Common;
use cognate_records::{Metric, Status};

use crate::bootstrap::{Bootstrap, Interval, Over};
use crate::cell::{CORRECTNESS, Cell, OPTIMISATION, STATUSES, Slot, Tally};
use crate::cli::Pass;
use crate::figure::{Dot, DotPanel, DotPlot, Series};
use crate::intake::{self, Choice, Samples};
use crate::labels::{natural, ordered};
use crate::markdown::{MISSING, Table, escape, percent, percent_interval};
use crate::names;
use crate::outputs::Report;

/// # Errors
/// When the input is at fault or a result cannot be written.
pub fn run(common: &Common, pass: &Pass) -> anyhow::Result<()> {
    pass.outputs.check(common)?;
    let choice = Choice {
        splits: pass.which.split.clone(),
        tasks: pass.task.clone(),
        temperature: pass.which.temperature,
    };
    let table = names::languages(pass.which.languages_table.as_deref())?;
    let samples = intake::read(common, &pass.which.files, &choice, &table)?;
    let mut ks = pass.ks.clone();
    ks.sort_unstable();
    ks.dedup();
    let intervals = &pass.intervals;
    let mut bootstrap = Bootstrap::new(
        common.seed,
        usize::try_from(intervals.resamples)?,
        intervals.confidence,
        Over::Problems,
    );
    let rows = rows(&samples, &ks, &mut bootstrap);
    let svg = match &pass.outputs.svg {
        Some(_) => Some(figure(&rows, &ks)?),
        None => None,
    };
    let report = Report {
        markdown: page(&rows, &ks, pass, samples.left_out),
        metrics: rows.iter().flat_map(|row| metrics(row, &ks)).collect(),
        svg,
    };
    pass.outputs.write(common, &pass.which.files, &report)
}

struct Row<'a> {
    slot: &'a Slot,
    cell: &'a Cell,
    total: Tally,
    /// For each k: the value, its interval, and how many problems it is over; nothing where no problem has k samples.
    passes: Vec<Option<(f64, Interval, usize)>>,
    /// For each k: problems with fewer samples.
    short: Vec<usize>,
}

impl Row<'_> {
    fn label(&self, key: &str) -> String {
        self.slot.labels.get(key).cloned().unwrap_or_else(|| MISSING.into())
    }

    fn temperature(&self) -> String {
        self.slot.temperature.map_or_else(|| MISSING.into(), |t| t.to_string())
    }
}

fn rows<'a>(samples: &'a Samples, ks: &[u64], bootstrap: &mut Bootstrap) -> Vec<Row<'a>> {
    let mut rows: Vec<Row> = samples
        .cells
        .iter()
        .map(|(slot, cell)| {
            let mut row = Row { slot, cell, total: cell.total(), passes: Vec::new(), short: Vec::new() };
            for &k in ks {
                let (panel, short) = cell.pass(k);
                row.passes.push(panel.map(|p| (p.mean(), bootstrap.interval(&p), p.problems())));
                row.short.push(short);
            }
            row
        })
        .collect();
    let keys = label_keys(&rows);
    rows.sort_by(|a, b| {
        let by_label = keys.iter().map(|k| natural(&a.label(k), &b.label(k)));
        let by_label = by_label.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then);
        by_label
            .then_with(|| a.slot.language.cmp(&b.slot.language))
            .then_with(|| a.slot.temperature.cmp(&b.slot.temperature))
    });
    rows
}

/// The labels that tell rows apart. Split and task are shown only where there are several.
fn label_keys(rows: &[Row]) -> Vec<String> {
    let keys: BTreeSet<&str> = rows.iter().flat_map(|r| r.slot.labels.keys().map(String::as_str)).collect();
    let varies = |key: &str| rows.iter().map(|r| r.label(key)).collect::<BTreeSet<_>>().len() > 1;
    let shown = keys.into_iter().filter(|k| !matches!(*k, "split" | "task") || varies(k));
    ordered(shown).into_iter().map(ToString::to_string).collect()
}

fn identity(keys: &[String], row: &Row) -> Vec<String> {
    let labels = keys.iter().map(|k| row.label(k));
    labels.chain([row.slot.language.clone(), row.temperature()]).collect()
}

fn page(rows: &[Row], ks: &[u64], pass: &Pass, left_out: u64) -> String {
    let keys = label_keys(rows);
    let identity_header = || keys.iter().cloned().chain(["language".to_string(), "T".to_string()]);
    let fixed = keys.len() + 2;
    let mut header: Vec<String> = identity_header().chain(["problems".into(), "samples".into()]).collect();
    header.extend(ks.iter().map(|k| format!("pass@{k} %")));
    let mut scores = Table::new(header, fixed);
    let mut failures = Table::new(
        identity_header()
            .chain(STATUSES.iter().map(|(_, name)| (*name).to_string()))
            .chain(["correctness %", "optimisation %", "asked language %", "truncated %"].map(String::from))
            .collect(),
        fixed,
    );
    let share = |value: Option<f64>| value.map_or_else(|| MISSING.into(), percent);
    let mut notes = Vec::new();
    for row in rows {
        let mut cells = identity(&keys, row);
        let (fewest, most) = row.cell.samples_per_problem();
        let per_problem = if fewest == most { format!("{most}") } else { format!("{fewest}–{most}") };
        cells.extend([
            row.cell.problems.len().to_string(),
            format!("{} ({per_problem})", row.total.samples()),
        ]);
        cells.extend(row.passes.iter().map(|p| match p {
            Some((value, interval, _)) => format!("{} {}", percent(*value), percent_interval(*interval)),
            None => MISSING.into(),
        }));
        scores.row(cells);
        let mut cells = identity(&keys, row);
        cells.extend(STATUSES.iter().map(|(s, _)| row.total.count(*s).to_string()));
        cells.push(share(kind_share(&row.total, &CORRECTNESS)));
        cells.push(share(kind_share(&row.total, &OPTIMISATION)));
        cells.extend([share(row.total.asked_share()), share(row.total.truncated_share())]);
        failures.row(cells);
    }
    for (i, k) in ks.iter().enumerate() {
        let partly = rows.iter().filter(|r| r.short[i] > 0 && r.passes[i].is_some()).map(|r| r.short[i]);
        if let Some(most) = partly.clone().max() {
            let rows = partly.count();
            notes.push(format!(
                "pass@{k}: problems with fewer than {k} samples are left out, at most {most} in a row (rows: {rows})."
            ));
        }
        if rows.iter().any(|r| r.passes[i].is_none()) {
            notes.push(format!("pass@{k}: {MISSING} where no problem has {k} samples."));
        }
    }
    let judge_faults: u64 = rows.iter().map(|r| r.total.count(Status::IE)).sum();
    let confidence = pass.intervals.confidence * 100.0;
    let mut text = format!(
        "# pass@k\n\nShare of problems solved by at least one of k samples, unbiased (Chen et al. 2021), in per cent, \
         with the {confidence} % percentile bootstrap interval over problems ({} resamples). Samples are all that \
         count, with those of one problem in brackets. Solved is what passes every test of its problem, hidden ones \
         included.\n\n{scores}\n## How samples fail\n\nVerdicts: AC accepted, WA wrong answer, PE presentation, RE \
         runtime error, OLE output limit, TLE time limit, MLE memory limit, CE no program or one that does not \
         compile, IE a fault of the judge, left out above and in the shares. Correctness is WA, PE, RE or OLE; \
         optimisation is TLE or MLE.\n\n{failures}",
        pass.intervals.resamples
    );
    if judge_faults > 0 {
        notes.push(format!("Samples left out because the judge itself failed (IE): {judge_faults}."));
    }
    if left_out > 0 {
        notes.push(format!("{left_out} rollouts of other splits or tasks are left out."));
    }
    if !notes.is_empty() {
        text.push('\n');
        for note in notes {
            let _ = writeln!(text, "- {}", escape(&note));
        }
    }
    text
}

fn kind_share(total: &Tally, kind: &[Status]) -> Option<f64> {
    let failed: u64 = kind.iter().map(|s| total.count(*s)).sum();
    (total.samples() > 0).then(|| failed as f64 / total.samples() as f64)
}

fn metrics(row: &Row, ks: &[u64]) -> Vec<Metric> {
    let mut labels = row.slot.labels.clone();
    labels.insert("language".into(), row.slot.language.clone());
    if let Some(t) = row.slot.temperature {
        labels.insert("temperature".into(), t.to_string());
    }
    let metric = |name: String, value: f64, count: u64| Metric {
        name,
        value,
        labels: labels.clone(),
        count: Some(count),
        ..Metric::default()
    };
    let mut all = Vec::new();
    for (k, pass) in ks.iter().zip(&row.passes) {
        if let Some((value, interval, problems)) = pass {
            let mut m = metric(format!("pass@{k}"), *value, *problems as u64);
            (m.low, m.high) = (Some(interval.low), Some(interval.high));
            all.push(m);
        }
    }
    let counted = row.total.samples();
    for (status, name) in STATUSES {
        let n = row.total.count(status);
        let of = if status == Status::IE { counted + n } else { counted };
        if of > 0 {
            let mut m = metric("verdict_share".into(), n as f64 / of as f64, of);
            m.labels.insert("verdict".into(), name.into());
            all.push(m);
        }
    }
    all.extend(row.total.asked_share().map(|v| metric("asked_language".into(), v, row.total.told)));
    all.extend(row.total.told_share().map(|v| metric("told_language".into(), v, counted)));
    all.extend(row.total.truncated_share().map(|v| metric("truncated".into(), v, row.total.ended)));
    all
}

fn figure(rows: &[Row], ks: &[u64]) -> anyhow::Result<String> {
    let keys = label_keys(rows);
    let mut languages: Vec<&str> = rows.iter().map(|r| r.slot.language.as_str()).collect();
    languages.sort_unstable();
    languages.dedup();
    let mut names: Vec<String> = Vec::new();
    let name_of = |row: &Row| {
        let named = |k: &String, v: &String| if k == "seed" { format!("seed {v}") } else { v.clone() };
        let labels = keys.iter().filter_map(|k| Some(named(k, row.slot.labels.get(k)?)));
        labels.chain([format!("T {}", row.temperature())]).collect::<Vec<_>>().join(", ")
    };
    for row in rows {
        let name = name_of(row);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let panel = |language: &&str| DotPanel {
        title: (*language).to_string(),
        dots: names
            .iter()
            .map(|name| {
                let row = rows.iter().find(|r| r.slot.language == **language && name_of(r) == *name);
                ks.iter()
                    .enumerate()
                    .filter_map(|(i, _)| {
                        let (value, interval, _) = row?.passes[i]?;
                        Some(Dot { series: i, value, interval: Some(interval) })
                    })
                    .collect()
            })
            .collect(),
    };
    DotPlot {
        title: "pass@k by model and language".into(),
        axis: "problems solved, %".into(),
        rows: names.clone(),
        series: ks.iter().enumerate().map(|(i, k)| Series::new(format!("pass@{k}"), i)).collect(),
        grid: vec![(String::new(), languages.iter().map(panel).collect())],
    }
    .svg()
}
