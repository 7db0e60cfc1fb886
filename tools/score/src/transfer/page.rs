//! The table as Markdown, with what is needed to read it and everything that was left out.

use std::fmt::Write;

use super::facts::Facts;
use super::results::{Block, Column, Entry, Plan, Results, TARGETS, Value, stages};
use super::study::{Side, Study};
use crate::cell::Temperature;
use crate::cli::{Draws, Transfer};
use crate::markdown::{MISSING, Table, escape, percent, points, points_interval};
use crate::names::Names;

pub struct Page<'a> {
    pub transfer: &'a Transfer,
    pub names: &'a Names,
    pub study: &'a Study,
    pub plan: &'a Plan,
    pub results: &'a Results,
    pub facts: Option<&'a [Facts]>,
    /// Splits of the problems.
    pub splits: Vec<String>,
    /// What was left out before the results were computed.
    pub notes: Vec<String>,
}

pub fn temperature_name(temperature: Temperature) -> String {
    if temperature.is_greedy() { "Greedy".into() } else { format!("Temperature {temperature}") }
}

fn or_missing(text: Option<String>) -> String {
    text.unwrap_or_else(|| MISSING.into())
}

/// `34.5 → 40.1`, or the one that is there.
fn arrow(before: Option<f64>, after: Option<f64>) -> String {
    match (before, after) {
        (None, None) => MISSING.into(),
        (Some(b), None) => percent(b),
        (b, Some(a)) => format!("{} → {}", or_missing(b.map(percent)), percent(a)),
    }
}

/// `**+3.5** [+0.2, +6.8] ± 1.1`: bold where the interval leaves out 0, ± over seeds.
fn change(value: &Value) -> String {
    let mean = points(value.mean);
    let mean = if value.is_clear() { format!("**{mean}**") } else { mean };
    let spread = value.spread().map_or_else(String::new, |s| format!(" ± {}", percent(s)));
    format!("{mean} {}{spread}", points_interval(value.interval))
}

/// What may be said of a difference.
fn reading(value: &Value) -> String {
    let size = percent(value.mean.abs());
    match (value.is_clear(), value.mean > 0.0) {
        (false, _) => "no difference shown".into(),
        (true, true) => format!("larger by {size}"),
        (true, false) => format!("smaller by {size}"),
    }
}

impl Page<'_> {
    pub fn title(&self) -> String {
        let given = self.transfer.title.clone();
        given.unwrap_or_else(|| format!("pass@1 before and after RL on {}", self.source()))
    }

    fn source(&self) -> String {
        self.names.language(&self.plan.languages[0])
    }

    fn column(&self, column: &Column) -> String {
        if column.name == TARGETS { "mean of targets".into() } else { self.names.language(&column.name) }
    }

    /// The name of a row, marked where its training data hold a target language.
    fn row(&self, arm: &str) -> String {
        let saw = |f: &Facts| f.arm == arm && f.saw(&self.plan.languages[1..]);
        let mark = if self.facts.is_some_and(|f| f.iter().any(saw)) { " †" } else { "" };
        format!("{}{mark}", self.names.arm(arm))
    }

    pub fn markdown(&self) -> String {
        let mut text = format!("# {}\n\n{}\n", escape(&self.title()), self.caption());
        for block in &self.results.blocks {
            let _ = write!(text, "\n## {}\n\n{}", temperature_name(block.temperature), self.table(block));
        }
        if self.study.seeds().len() > 1 {
            text += &self.seeds();
        }
        if !self.plan.contrasts.is_empty() {
            text += &self.contrasts();
        }
        text += &self.drift();
        if let Some(facts) = self.facts {
            text += &self.training(facts);
        }
        text += &self.counted();
        text
    }

    fn caption(&self) -> String {
        let seeds = self.study.seeds().len();
        let transfer = self.transfer;
        let drawn = if seeds > 1 && transfer.interval == Draws::Crossed {
            "problems crossed with training seeds, so it speaks of other problems and other training runs, as far as \
             so few seeds can"
        } else {
            "problems, so it speaks of other problems for these very models, not of other training runs"
        };
        let spread = if seeds > 1 { "; ± is the standard deviation over seeds" } else { "" };
        let mut text = format!(
            "Each cell is pass@1 in per cent before RL → after RL on {}, then the gain in points with a {} % \
             percentile bootstrap interval ({} resamples). A problem counts as solved when the program passes all of \
             its tests, hidden ones included. The interval is over {drawn}; before and after are compared problem by \
             problem{}{spread}. A gain is bold where its interval leaves out 0.",
            self.source(),
            transfer.intervals.confidence * 100.0,
            transfer.intervals.resamples,
            if seeds > 1 { " and seed by seed" } else { "" },
        );
        if !self.splits.is_empty() {
            let _ = write!(text, " Problems: split {}.", escape(&self.splits.join(", ")));
        }
        let targets: Vec<String> = self.plan.languages[1..].iter().map(|l| self.names.language(l)).collect();
        if !targets.is_empty() {
            let _ = write!(
                text,
                " RL trains on {} alone; the targets are {}.",
                self.source(),
                targets.join(", ")
            );
        }
        let saw = |f: &Facts| f.saw(&self.plan.languages[1..]);
        if self.facts.is_some_and(|f| f.iter().any(saw)) {
            text += " † marks arms whose SFT data hold a target language.";
        }
        let _ = write!(text, " {MISSING} is a cell without rollouts.");
        text
    }

    fn table(&self, block: &Block) -> Table {
        let columns = self.plan.columns();
        let mut header = vec!["arm".to_string()];
        for column in &columns {
            header.extend([self.column(column), "gain".into()]);
        }
        let mut table = Table::new(header, 1);
        for (arm, row) in self.plan.arms.iter().zip(&block.rows) {
            let mut cells = vec![self.row(arm)];
            for Entry { before, after, gain, .. } in row {
                cells.push(arrow(before.as_ref().map(|v| v.mean), after.as_ref().map(|v| v.mean)));
                cells.push(or_missing(gain.as_ref().map(change)));
            }
            table.row(cells);
        }
        table
    }

    fn seeds(&self) -> String {
        let seeds = self.study.seeds();
        let mut header: Vec<String> = ["decoding", "arm", "language"].map(String::from).into();
        header.extend(seeds.iter().map(|s| format!("seed {s}")));
        header.push("sd".into());
        let mut table = Table::new(header, 3);
        for block in &self.results.blocks {
            for (arm, row) in self.plan.arms.iter().zip(&block.rows) {
                for (column, entry) in self.plan.columns().iter().zip(row) {
                    let Some(gain) = &entry.gain else { continue };
                    let mut cells =
                        vec![temperature_name(block.temperature), self.row(arm), self.column(column)];
                    for seed in &seeds {
                        let at = gain.seeds.iter().position(|s| s == seed);
                        cells.push(or_missing(at.map(|i| points(gain.seed_means[i]))));
                    }
                    cells.push(or_missing(gain.spread().map(percent)));
                    table.row(cells);
                }
            }
        }
        format!("\n## Gain by seed\n\nPoints.\n\n{table}")
    }

    fn contrasts(&self) -> String {
        let header = [
            "decoding",
            "contrast",
            "language",
            "gain minus gain",
            "reading",
            "after RL minus after RL",
            "problems",
            "seeds",
        ];
        let mut table = Table::new(header.map(String::from).into(), 3);
        let (mut intervals, mut single) = (0, false);
        for block in &self.results.blocks {
            for contrast in &block.contrasts {
                for (column, entry) in self.plan.columns().iter().zip(&contrast.entries) {
                    intervals += [&entry.gain, &entry.after].into_iter().flatten().count();
                    single |= entry.gain.as_ref().is_some_and(|g| g.seeds.len() == 1);
                    table.row(vec![
                        temperature_name(block.temperature),
                        format!("{} − {}", contrast.first, contrast.second),
                        self.column(column),
                        or_missing(entry.gain.as_ref().map(change)),
                        or_missing(entry.gain.as_ref().map(reading)),
                        or_missing(entry.after.as_ref().map(change)),
                        or_missing(entry.gain.as_ref().map(|g| g.problems.to_string())),
                        or_missing(entry.gain.as_ref().map(|g| g.seeds.len().to_string())),
                    ]);
                }
            }
        }
        let mut text = "\n## Arms against each other\n\nThe gain of the first arm minus that of the second, in points, \
                        on the same problems and seeds. The reading claims nothing where the interval covers 0."
            .to_string();
        if intervals > 0 {
            let share = 1.0 - self.transfer.intervals.confidence;
            let _ = write!(
                text,
                " {intervals} differences are tested, one by one: were there none at all, about {:.1} intervals would \
                 still leave out 0.",
                share * intervals as f64
            );
            if single {
                text += " Where there is one seed, a difference may be one of the two training runs and not of the two arms.";
            }
        }
        format!("{text}\n\n{table}")
    }

    fn drift(&self) -> String {
        let mut header: Vec<String> = ["decoding", "arm"].map(String::from).into();
        for language in &self.plan.languages {
            let name = self.names.language(language);
            header.extend([format!("{name}: asked language"), format!("{name}: truncated")]);
        }
        let mut table = Table::new(header, 2);
        for block in &self.results.blocks {
            for arm in &self.plan.arms {
                let mut cells = vec![temperature_name(block.temperature), self.row(arm)];
                let stages = stages(self.study, self.plan, arm);
                for language in &self.plan.languages {
                    let mut totals = stages.iter().map(|stage| {
                        let side = Side { arm, stage };
                        self.study.total(side, Some(language), Some(block.temperature))
                    });
                    let (before, after) = (totals.next().flatten(), totals.next().flatten());
                    let both = |of: fn(&crate::cell::Tally) -> Option<f64>| {
                        arrow(before.as_ref().and_then(of), after.as_ref().and_then(of))
                    };
                    cells.push(both(crate::cell::Tally::asked_share));
                    cells.push(both(crate::cell::Tally::truncated_share));
                }
                table.row(cells);
            }
        }
        let mut text = format!(
            "\n## Language drift and truncation\n\nShare of samples, in per cent, before → after RL: whose program is in \
             the asked language by its own syntax, among those whose language could be told; and that the length limit \
             cut short. {MISSING} where the rollouts do not say.\n\n{table}"
        );
        if let Some((share, place)) = self.least_told().filter(|(share, _)| *share < 0.995) {
            let _ = writeln!(
                text,
                "\nThe language could be told of at least {} % of the samples of a cell, the fewest in {}.",
                percent(share),
                escape(&place)
            );
        }
        text
    }

    /// The cell in which the language of the fewest samples could be told.
    fn least_told(&self) -> Option<(f64, String)> {
        let mut least: Option<(f64, String)> = None;
        for &t in &self.plan.temperatures {
            for arm in &self.plan.arms {
                for stage in stages(self.study, self.plan, arm) {
                    for language in &self.plan.languages {
                        let total = self.study.total(Side { arm, stage: &stage }, Some(language), Some(t));
                        let Some(share) = total.and_then(|t| t.told_share()) else { continue };
                        if least.as_ref().is_none_or(|(s, _)| share < *s) {
                            let language = self.names.language(language);
                            least = Some((share, format!("{arm}, {stage}, {language} at T {t}")));
                        }
                    }
                }
            }
        }
        least
    }

    fn training(&self, facts: &[Facts]) -> String {
        let header =
            ["arm", "languages", "problems", "documents", "tokens", "tokens with loss", "steps an epoch"];
        let mut table = Table::new(header.map(String::from).into(), 2);
        let count = |n: Option<u64>| or_missing(n.map(|n| n.to_string()));
        for fact in facts {
            let answers: Vec<String> = fact
                .answer_tokens
                .iter()
                .filter(|(_, n)| *n > 0)
                .map(|(task, n)| format!("{task} {n}"))
                .collect();
            let answers = if answers.is_empty() { MISSING.to_string() } else { answers.join(", ") };
            table.row(vec![
                self.row(&fact.arm),
                fact.languages.join(", "),
                count(fact.problems),
                count(fact.documents),
                count(fact.tokens),
                answers,
                count(fact.steps),
            ]);
        }
        format!("\n## What the arms were trained on\n\n{table}")
    }

    fn counted(&self) -> String {
        let mut table =
            Table::new(["arm", "stage", "seeds", "problems", "samples", "IE"].map(String::from).into(), 2);
        let every_seed = self.study.seeds();
        for arm in &self.plan.arms {
            for stage in stages(self.study, self.plan, arm) {
                let side = Side { arm, stage: &stage };
                let cells = |seed: &str| {
                    let of = |l: &String| {
                        let found =
                            self.plan.temperatures.iter().filter_map(|t| self.study.cell(side, seed, l, *t));
                        found.map(|c| c.problems.len()).collect::<Vec<_>>()
                    };
                    self.plan.languages.iter().flat_map(of).collect::<Vec<_>>()
                };
                let counts: Vec<Vec<usize>> =
                    every_seed.iter().map(|s| cells(s)).filter(|c| !c.is_empty()).collect();
                let all = || counts.iter().flatten();
                let problems = match (all().min(), all().max()) {
                    (Some(a), Some(b)) if a == b => a.to_string(),
                    (Some(a), Some(b)) => format!("{a}–{b}"),
                    _ => MISSING.into(),
                };
                let mut total = crate::cell::Tally::default();
                for language in &self.plan.languages {
                    for &t in &self.plan.temperatures {
                        total.merge(&self.study.total(side, Some(language), Some(t)).unwrap_or_default());
                    }
                }
                table.row(vec![
                    self.row(arm),
                    stage.clone(),
                    counts.len().to_string(),
                    problems,
                    total.samples().to_string(),
                    total.count(cognate_records::Status::IE).to_string(),
                ]);
            }
        }
        let mut text = format!("\n## What was counted\n\n{table}");
        let mut notes = self.notes.clone();
        if self.results.judge_faults > 0 {
            notes.push(format!(
                "Samples left out because the judge itself failed (IE): {}; counted: {}.",
                self.results.judge_faults, self.results.samples
            ));
        }
        notes.extend(self.dropped());
        notes.extend(self.results.missing.iter().map(|m| format!("No rollouts: {m}.")));
        notes.extend(self.degenerate());
        if !notes.is_empty() {
            text.push('\n');
        }
        for note in notes {
            let _ = writeln!(text, "- {}", escape(&note));
        }
        text
    }

    fn entries(&self) -> impl Iterator<Item = (&Block, &String, Column, &Entry)> {
        self.results.blocks.iter().flat_map(move |block| {
            self.plan.arms.iter().zip(&block.rows).flat_map(move |(arm, row)| {
                self.plan.columns().into_iter().zip(row).map(move |(c, e)| (block, arm, c, e))
            })
        })
    }

    /// One line a temperature.
    fn dropped(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for block in &self.results.blocks {
            let here = |b: &Block| b.temperature == block.temperature;
            let uneven =
                self.entries().filter(|(b, _, column, e)| here(b) && e.dropped > 0 && column.name != TARGETS);
            let parts: Vec<String> = uneven
                .map(|(_, arm, column, e)| format!("{arm} {} {}", self.column(&column), e.dropped))
                .collect();
            if !parts.is_empty() {
                lines.push(format!(
                    "{}: problems of which some stage or seed has no counted sample are left out of the comparison: {}.",
                    temperature_name(block.temperature),
                    parts.join(", ")
                ));
            }
        }
        lines
    }

    /// The bootstrap of equal values has no width, which must not be read as certainty.
    fn degenerate(&self) -> Option<String> {
        let flat = |v: &Option<Value>| v.as_ref().is_some_and(|v| v.interval.low == v.interval.high);
        let any = self.entries().any(|(_, _, _, e)| flat(&e.before) || flat(&e.after) || flat(&e.gain));
        any.then(|| {
            "Where all problems agree (all failed, or all unchanged) the bootstrap interval has no width; n such \
             problems still allow a share of about 3/n."
                .to_string()
        })
    }
}
