//! Every number of the table: levels before and after RL, gains, contrasts of arms, with their intervals.

use cognate_records::Status;

use super::study::{CommonGround, Side, Study};
use crate::bootstrap::{Bootstrap, Interval, deviation};
use crate::cell::{Tally, Temperature};
use crate::names::BASE;

/// What is compared.
#[derive(Debug)]
pub struct Plan {
    /// Row order; the base model first where there is one.
    pub arms: Vec<String>,
    /// The source first.
    pub languages: Vec<String>,
    pub temperatures: Vec<Temperature>,
    /// Stages that may stand before RL, in order of preference.
    pub before: Vec<String>,
    pub after: String,
    pub contrasts: Vec<(String, String)>,
}

impl Plan {
    /// The columns: each language, then the mean over targets where there are several.
    pub fn columns(&self) -> Vec<Column> {
        let single = |l: &String| Column { name: l.clone(), languages: vec![l.clone()] };
        let mut columns: Vec<Column> = self.languages.iter().map(single).collect();
        if self.languages.len() > 2 {
            columns.push(Column { name: TARGETS.into(), languages: self.languages[1..].to_vec() });
        }
        columns
    }

    /// The stage before RL of an arm: the first that it has.
    pub fn before_of(&self, study: &Study, arm: &str) -> String {
        let found = self.before.iter().find(|stage| study.has(Side { arm, stage }));
        found.or(self.before.first()).cloned().unwrap_or_default()
    }

    /// Whether RL is expected of this arm: of all but the base model, which is the starting point of the others.
    pub fn expects_after(&self, study: &Study, arm: &str) -> bool {
        arm != BASE || study.has(Side { arm, stage: &self.after })
    }
}

/// Name of the column that averages the targets.
pub const TARGETS: &str = "targets";

#[derive(Debug)]
pub struct Column {
    pub name: String,
    pub languages: Vec<String>,
}

/// A mean over seeds and problems.
#[derive(Debug, Clone)]
pub struct Value {
    pub mean: f64,
    pub interval: Interval,
    /// In the order of `seeds`.
    pub seed_means: Vec<f64>,
    pub seeds: Vec<String>,
    pub problems: usize,
}

impl Value {
    /// Standard deviation over seeds, where there are two or more.
    pub fn spread(&self) -> Option<f64> {
        deviation(&self.seed_means)
    }

    /// Whether the interval leaves out zero.
    pub fn is_clear(&self) -> bool {
        !self.interval.covers(0.0)
    }
}

/// One arm in one column at one temperature.
#[derive(Debug, Default)]
pub struct Entry {
    pub before: Option<Value>,
    pub after: Option<Value>,
    pub gain: Option<Value>,
    /// Problems left out because one of the stages or seeds has no counted sample of them.
    pub dropped: usize,
}

#[derive(Debug)]
pub struct Contrast {
    pub first: String,
    pub second: String,
    /// A column each.
    pub entries: Vec<ContrastEntry>,
}

#[derive(Debug, Default)]
pub struct ContrastEntry {
    /// gain(first) − gain(second).
    pub gain: Option<Value>,
    /// after(first) − after(second).
    pub after: Option<Value>,
}

#[derive(Debug)]
pub struct Block {
    pub temperature: Temperature,
    /// A row an arm of the plan, a cell a column of the plan.
    pub rows: Vec<Vec<Entry>>,
    pub contrasts: Vec<Contrast>,
}

#[derive(Debug)]
pub struct Results {
    pub blocks: Vec<Block>,
    /// Cells of the plan without rollouts, as text.
    pub missing: Vec<String>,
    pub judge_faults: u64,
    /// Samples counted in the plan's cells.
    pub samples: u64,
}

pub fn results(study: &Study, plan: &Plan, bootstrap: &mut Bootstrap) -> Results {
    let columns = plan.columns();
    let mut blocks = Vec::new();
    for &temperature in &plan.temperatures {
        let mut rows = Vec::new();
        for arm in &plan.arms {
            let before = plan.before_of(study, arm);
            let sides = [Side { arm, stage: &plan.after }, Side { arm, stage: &before }];
            let entry = |c: &Column| entry(study, bootstrap, sides, c, temperature);
            rows.push(columns.iter().map(entry).collect());
        }
        let mut contrasts = Vec::new();
        for (first, second) in &plan.contrasts {
            let (before_first, before_second) = (plan.before_of(study, first), plan.before_of(study, second));
            let sides = [
                Side { arm: first, stage: &plan.after },
                Side { arm: first, stage: &before_first },
                Side { arm: second, stage: &plan.after },
                Side { arm: second, stage: &before_second },
            ];
            let entry = |c: &Column| contrast(study, bootstrap, sides, c, temperature);
            let entries = columns.iter().map(entry).collect();
            contrasts.push(Contrast { first: first.clone(), second: second.clone(), entries });
        }
        blocks.push(Block { temperature, rows, contrasts });
    }
    let total = total(study, plan);
    Results {
        blocks,
        missing: missing(study, plan),
        judge_faults: total.count(Status::IE),
        samples: total.samples(),
    }
}

fn value(bootstrap: &mut Bootstrap, ground: &CommonGround, weights: &[f64]) -> Value {
    let panel = ground.panel(weights);
    Value {
        mean: panel.mean(),
        interval: bootstrap.interval(&panel),
        seed_means: panel.seed_means(),
        seeds: ground.seeds.clone(),
        problems: ground.problems,
    }
}

/// Where a stage is missing altogether the other stands alone.
fn entry(
    study: &Study,
    bootstrap: &mut Bootstrap,
    sides: [Side; 2],
    column: &Column,
    temperature: Temperature,
) -> Entry {
    if let Some(ground) = study.common(&sides, &column.languages, temperature) {
        return Entry {
            before: Some(value(bootstrap, &ground, &[0.0, 1.0])),
            after: Some(value(bootstrap, &ground, &[1.0, 0.0])),
            gain: Some(value(bootstrap, &ground, &[1.0, -1.0])),
            dropped: ground.dropped,
        };
    }
    let mut alone = |side: Side| {
        let ground = study.common(&[side], &column.languages, temperature)?;
        Some(value(bootstrap, &ground, &[1.0]))
    };
    Entry { after: alone(sides[0]), before: alone(sides[1]), ..Entry::default() }
}

fn contrast(
    study: &Study,
    bootstrap: &mut Bootstrap,
    sides: [Side; 4],
    column: &Column,
    temperature: Temperature,
) -> ContrastEntry {
    let Some(ground) = study.common(&sides, &column.languages, temperature) else {
        return ContrastEntry::default();
    };
    ContrastEntry {
        gain: Some(value(bootstrap, &ground, &[1.0, -1.0, -1.0, 1.0])),
        after: Some(value(bootstrap, &ground, &[1.0, 0.0, -1.0, 0.0])),
    }
}

/// The sides of an arm that the plan expects, before first.
pub fn stages(study: &Study, plan: &Plan, arm: &str) -> Vec<String> {
    let mut stages = vec![plan.before_of(study, arm)];
    if plan.expects_after(study, arm) {
        stages.push(plan.after.clone());
    }
    stages
}

fn total(study: &Study, plan: &Plan) -> Tally {
    let mut total = Tally::default();
    for arm in &plan.arms {
        for stage in stages(study, plan, arm) {
            for language in &plan.languages {
                for &temperature in &plan.temperatures {
                    let here = study.total(Side { arm, stage: &stage }, Some(language), Some(temperature));
                    total.merge(&here.unwrap_or_default());
                }
            }
        }
    }
    total
}

/// One line for a language, a temperature or a side that is missing everywhere; else the missing cells of each seed.
fn missing(study: &Study, plan: &Plan) -> Vec<String> {
    let seeds = study.seeds();
    let (found_languages, found_temperatures) = (study.languages(), study.temperatures());
    let languages = || plan.languages.iter().filter(|l| found_languages.contains(l));
    let temperatures = || plan.temperatures.iter().filter(|t| found_temperatures.contains(t)).copied();
    let absent = plan.languages.iter().filter(|l| !found_languages.contains(l));
    let mut missing: Vec<String> = absent.map(|l| format!("language {l}: all cells")).collect();
    let absent = plan.temperatures.iter().filter(|t| !found_temperatures.contains(t));
    missing.extend(absent.map(|t| format!("temperature {t}: all cells")));
    for arm in &plan.arms {
        for stage in stages(study, plan, arm) {
            let side = Side { arm, stage: &stage };
            if !study.has(side) {
                missing.push(format!("arm {arm}, stage {stage}: all cells"));
                continue;
            }
            for seed in &seeds {
                let mut cells = Vec::new();
                for temperature in temperatures() {
                    for language in languages() {
                        if study.cell(side, seed, language, temperature).is_none() {
                            cells.push(format!("{language} at T {temperature}"));
                        }
                    }
                }
                let all = cells.len() == temperatures().count() * languages().count();
                if all {
                    missing.push(format!("arm {arm}, stage {stage}, seed {seed}: all cells"));
                } else if !cells.is_empty() {
                    missing.push(format!("arm {arm}, stage {stage}, seed {seed}: {}", cells.join(", ")));
                }
            }
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::Over;
    use crate::cell::{Cell, Slot};
    use crate::intake::Samples;

    /// One sample a problem: 1 is solved.
    fn samples(cells: &[(&str, &str, &[u8])]) -> Samples {
        let mut samples = Samples::default();
        for (model, language, solved) in cells {
            let mut cell = Cell::default();
            for (i, &s) in solved.iter().enumerate() {
                let status = match s {
                    0 => Status::WA,
                    1 => Status::AC,
                    _ => Status::IE,
                };
                cell.problems.entry(format!("p{i}")).or_default().add(status, None, None);
            }
            let labels = crate::labels::parse(model).unwrap();
            let slot = Slot { labels, language: (*language).into(), temperature: Temperature::new(0.0) };
            samples.cells.insert(slot, cell);
        }
        samples
    }

    fn plan(languages: &[&str]) -> Plan {
        Plan {
            arms: vec!["a".into(), "b".into()],
            languages: languages.iter().map(ToString::to_string).collect(),
            temperatures: vec![Temperature::new(0.0).unwrap()],
            before: vec!["sft".into(), "base".into()],
            after: "rl".into(),
            contrasts: vec![("a".into(), "b".into())],
        }
    }

    fn run(cells: &[(&str, &str, &[u8])], languages: &[&str]) -> Results {
        let study = Study::new(samples(cells)).unwrap();
        let mut bootstrap = Bootstrap::new(0, 200, 0.95, Over::ProblemsAndSeeds);
        results(&study, &plan(languages), &mut bootstrap)
    }

    #[test]
    fn seeds_and_contrasts_as_computed_by_hand() {
        let found = run(
            &[
                ("arm=a,stage=sft,seed=0", "ruby", &[0, 0, 0, 1]),
                ("arm=a,stage=rl,seed=0", "ruby", &[1, 1, 0, 1]),
                ("arm=a,stage=sft,seed=1", "ruby", &[0, 1, 0, 1]),
                ("arm=a,stage=rl,seed=1", "ruby", &[0, 1, 1, 1]),
                ("arm=b,stage=sft,seed=0", "ruby", &[1, 0, 0, 1]),
                ("arm=b,stage=rl,seed=0", "ruby", &[0, 0, 0, 1]),
                ("arm=b,stage=sft,seed=1", "ruby", &[0, 0, 0, 0]),
                ("arm=b,stage=rl,seed=1", "ruby", &[0, 0, 0, 1]),
            ],
            &["ruby"],
        );
        let a = &found.blocks[0].rows[0][0];
        let gain = a.gain.as_ref().unwrap();
        // Seed 0: 25 → 75 %, seed 1: 50 → 75 %.
        assert_eq!(gain.seed_means, [0.5, 0.25]);
        assert_eq!((a.before.as_ref().unwrap().mean, a.after.as_ref().unwrap().mean), (0.375, 0.75));
        assert_eq!(gain.mean, 0.375);
        assert!((gain.spread().unwrap() - 0.25 / 2f64.sqrt()).abs() < 1e-15);
        // Arm b: 50 → 25 %, 0 → 25 %: gains −0.25 and 0.25; so a − b is 0.75 and 0.
        let contrast = found.blocks[0].contrasts[0].entries[0].gain.as_ref().unwrap();
        assert_eq!(contrast.seed_means, [0.75, 0.0]);
        // After RL: 0.75 − 0.25 in both.
        assert_eq!(found.blocks[0].contrasts[0].entries[0].after.as_ref().unwrap().seed_means, [0.5, 0.5]);
        assert!(found.missing.is_empty());
        assert_eq!(found.samples, 32);
    }

    #[test]
    fn stages_are_compared_on_the_problems_that_both_have() {
        let found = run(
            &[
                ("arm=a,stage=sft,seed=0", "ruby", &[0, 0, 1, 2]),
                ("arm=a,stage=rl,seed=0", "ruby", &[2, 1, 1, 1]),
            ],
            &["ruby"],
        );
        let a = &found.blocks[0].rows[0][0];
        // Problems 1 and 2 alone have a counted sample in both: 50 → 100 %.
        assert_eq!((a.gain.as_ref().unwrap().mean, a.dropped), (0.5, 2));
        assert_eq!(a.gain.as_ref().unwrap().problems, 2);
        assert_eq!(found.judge_faults, 2);
        assert_eq!(found.missing, ["arm b, stage sft: all cells", "arm b, stage rl: all cells"]);
        assert!(found.blocks[0].contrasts[0].entries[0].gain.is_none());
    }

    #[test]
    fn targets_are_averaged_problem_by_problem_and_missing_cells_are_named() {
        let found = run(
            &[
                ("arm=a,stage=sft,seed=0", "python", &[0, 1]),
                ("arm=a,stage=sft,seed=0", "ruby", &[0, 1]),
                ("arm=a,stage=sft,seed=0", "php", &[1, 1]),
                ("arm=a,stage=rl,seed=0", "python", &[1, 1]),
                ("arm=a,stage=rl,seed=0", "ruby", &[1, 1]),
                ("arm=b,stage=base,seed=0", "php", &[0, 0]),
            ],
            &["python", "ruby", "php"],
        );
        let row = &found.blocks[0].rows[0];
        assert_eq!(row.len(), 4);
        assert_eq!(row[3].before.as_ref().unwrap().mean, 0.75);
        assert!(row[3].gain.is_none() && row[3].after.is_none() && row[2].after.is_none());
        assert_eq!(
            found.missing,
            [
                "arm a, stage rl, seed 0: php at T 0",
                "arm b, stage base, seed 0: python at T 0, ruby at T 0",
                "arm b, stage rl: all cells"
            ]
        );
    }
}
