//! The world: distinct, non-trivial problems with tests, statements and splits.

use std::collections::{BTreeMap, HashSet};

use cognate_random::{Key, Stream};
use rayon::prelude::*;

use crate::draw::{self, Difficulty};
use crate::inputs;
use crate::interpret::interpret;
use crate::ir::{Pipeline, Source};
use crate::mutate::{Mutant, mutants};
use crate::rivals::{neighbours, reductions};
use crate::split::Shares;
use crate::statement::statement;

/// Inputs tried for a problem's tests, of these sizes: mostly small, and some in which rare elements come up more than
/// once.
const SIZES: [usize; 32] = [
    1, 1, 1, 2, 2, 3, 3, 4, 4, 4, 5, 5, 6, 6, 7, 7, 7, 8, 8, 9, 9, 10, 10, 10, 11, 11, 12, 12, 15, 24, 33, 40,
];
/// Tests that must tell a problem from the same without one of its operations.
const WITNESSES: usize = 2;
/// Candidates are drawn in batches of this size, each batch in parallel.
const BATCH: u64 = 4096;

#[derive(Debug, Clone)]
pub struct Options {
    pub seed: u64,
    pub problems: usize,
    pub public: usize,
    pub hidden: usize,
    pub variety: usize,
    pub difficulty: Difficulty,
    pub shares: Shares,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    pub input: String,
    pub output: String,
    pub size: u64,
    pub public: bool,
}

#[derive(Debug, Clone)]
pub struct Problem {
    pub id: String,
    pub pipeline: Pipeline,
    pub statement: String,
    pub split: String,
    /// By size.
    pub tests: Vec<Case>,
}

impl Problem {
    /// Mutants that some test tells from the original, and that print something for every test.
    pub fn wrong(&self) -> Vec<Mutant> {
        mutants(&self.pipeline).into_iter().filter(|m| fails(&m.pipeline, &self.tests)).collect()
    }
}

fn fails(pipeline: &Pipeline, tests: &[Case]) -> bool {
    let outputs: Option<Vec<String>> = tests.iter().map(|t| interpret(pipeline, &t.input)).collect();
    outputs.is_some_and(|outputs| outputs.iter().zip(tests).any(|(o, t)| !same(o, &t.output)))
}

/// The comparison of the checker `lines`.
fn same(a: &str, b: &str) -> bool {
    a.trim_end().lines().map(str::trim_end).eq(b.trim_end().lines().map(str::trim_end))
}

/// Why a drawn pipeline is not a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rejection {
    /// Without one of its operations it still passes its tests.
    Redundant,
    /// Its outputs hardly vary.
    Constant,
    /// Too few inputs have an answer.
    Undefined,
    /// It behaves as an earlier one.
    Duplicate,
    /// An earlier problem has the same statement.
    SameStatement,
}

impl Rejection {
    pub fn name(self) -> &'static str {
        match self {
            Rejection::Redundant => "redundant",
            Rejection::Constant => "constant",
            Rejection::Undefined => "undefined",
            Rejection::Duplicate => "duplicate",
            Rejection::SameStatement => "same-statement",
        }
    }
}

#[derive(Debug, Default)]
pub struct World {
    pub problems: Vec<Problem>,
    pub drawn: u64,
    pub rejected: BTreeMap<&'static str, u64>,
}

/// Draws until there are as many problems as asked for, or until too many draws in a row bring nothing new.
///
/// # Errors
/// The number found, when the world is too small for what was asked.
pub fn make(options: &Options, mut progress: impl FnMut(u64)) -> Result<World, usize> {
    let mut world = World::default();
    let mut behaviours: HashSet<u64> = HashSet::new();
    let mut statements: HashSet<String> = HashSet::new();
    let mut batteries: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in draw::SOURCES {
        batteries.insert(format!("{source:?}"), inputs::battery(source));
    }
    while world.problems.len() < options.problems {
        let before = world.problems.len();
        let first = world.drawn;
        let drawn: Vec<_> = (first..first + BATCH)
            .into_par_iter()
            .map(|i| {
                let key = Key::new(options.seed).with("problem").with(i);
                let pipeline = draw::pipeline(&options.difficulty, &mut key.with("pipeline").stream());
                let battery = &batteries[&format!("{:?}", pipeline.source)];
                let behaviour = behaviour(&pipeline, battery);
                // Most draws repeat what an earlier batch found; the dearer half is spared for them.
                let tests = if behaviours.contains(&behaviour) {
                    Err(Rejection::Duplicate)
                } else {
                    tests(&pipeline, options.public, options.hidden, &mut key.with("tests").stream())
                };
                (key, pipeline, behaviour, tests)
            })
            .collect();
        for (key, pipeline, behaviour, tests) in drawn {
            if world.problems.len() == options.problems {
                break;
            }
            world.drawn += 1;
            let outcome = tests.and_then(|tests| {
                if !behaviours.insert(behaviour) {
                    return Err(Rejection::Duplicate);
                }
                let statement = (0..8u64)
                    .map(|i| {
                        statement(&pipeline, options.variety, &mut key.with("statement").with(i).stream())
                    })
                    .find(|s| !statements.contains(s))
                    .ok_or(Rejection::SameStatement)?;
                Ok((tests, statement))
            });
            match outcome {
                Err(why) => *world.rejected.entry(why.name()).or_default() += 1,
                Ok((tests, statement)) => {
                    statements.insert(statement.clone());
                    let split = options.shares.of(behaviour).to_owned();
                    let id = format!("w{:06}", world.problems.len());
                    world.problems.push(Problem { id, pipeline, statement, split, tests });
                    progress(1);
                }
            }
        }
        if (world.problems.len() - before) * 400 < BATCH as usize && world.problems.len() < options.problems {
            return Err(world.problems.len());
        }
    }
    Ok(world)
}

/// Hash of the answers to the battery. It does not depend on the world's seed, so a problem is in the same split of
/// every world.
pub fn behaviour(pipeline: &Pipeline, battery: &[String]) -> u64 {
    let mut text = match pipeline.source {
        Source::Range { .. } => "range".to_owned(),
        source => format!("{source:?}"),
    };
    for input in battery {
        text.push('\u{1}');
        text.push_str(&interpret(pipeline, input).unwrap_or_else(|| "\u{2}".into()));
    }
    Key::new(0).with("behaviour").with(text.as_str()).bits(0)
}

/// Chooses tests that tell the pipeline from its rivals, smallest input first.
///
/// # Errors
/// When no tests show that every operation matters, or outputs hardly vary.
pub fn tests(
    pipeline: &Pipeline,
    public: usize,
    hidden: usize,
    stream: &mut Stream,
) -> Result<Vec<Case>, Rejection> {
    let total = public + hidden;
    let mut cases: Vec<Case> = Vec::new();
    for size in SIZES {
        let input = inputs::input(pipeline.source, size, stream);
        let size = inputs::size(pipeline.source, &input);
        if let Some(output) = interpret(pipeline, &input)
            && !cases.iter().any(|c| c.input == input)
        {
            cases.push(Case { input, output, size, public: false });
        }
    }
    if cases.len() < total {
        return Err(Rejection::Undefined);
    }
    let differs = |rival: &Pipeline| -> Vec<bool> {
        cases.iter().map(|c| interpret(rival, &c.input).is_none_or(|o| !same(&o, &c.output))).collect()
    };
    let reduced = reductions(pipeline);
    let mut witnesses: Vec<Vec<bool>> = reduced.iter().map(differs).collect();
    if witnesses.iter().any(|w| w.iter().filter(|&&w| w).count() < WITNESSES) {
        return Err(Rejection::Redundant);
    }
    witnesses.extend(neighbours(pipeline).iter().map(differs));

    // Greedy: the input that adds most evidence, where evidence for one rival is worth less the second time, and an
    // output seen before is worth less than a new one.
    let mut chosen: Vec<usize> = Vec::new();
    let mut seen = vec![0usize; witnesses.len()];
    while chosen.len() < total {
        let worth = |i: usize| -> usize {
            let repeated = chosen.iter().filter(|&&j| cases[j].output == cases[i].output).count();
            let evidence: usize = (0..witnesses.len())
                .filter(|&r| witnesses[r][i])
                .map(|r| match seen[r] {
                    0 if r < reduced.len() => 16,
                    0 => 8,
                    1 => 4,
                    _ => 1,
                })
                .sum();
            (4 + 4 * evidence) >> (2 * repeated).min(16)
        };
        let left = (0..cases.len()).filter(|i| !chosen.contains(i));
        let Some(best) = left.max_by_key(|&i| (worth(i), std::cmp::Reverse(i))) else { break };
        for r in 0..witnesses.len() {
            seen[r] += usize::from(witnesses[r][best]);
        }
        chosen.push(best);
    }
    if seen[..reduced.len()].iter().any(|&n| n < WITNESSES) {
        return Err(Rejection::Redundant);
    }
    chosen.sort_by_key(|&i| (cases[i].size, i));
    let mut tests: Vec<Case> = chosen.into_iter().map(|i| cases[i].clone()).collect();
    let commonest = tests.iter().map(|t| tests.iter().filter(|u| u.output == t.output).count()).max();
    if commonest.unwrap_or(0) * 2 > total {
        return Err(Rejection::Constant);
    }
    // An example that prints something tells more than one that does not.
    let mut shown: Vec<usize> = (0..tests.len()).collect();
    shown.sort_by_key(|&i| (tests[i].output.is_empty(), i));
    for i in shown.into_iter().take(public) {
        tests[i].public = true;
    }
    Ok(tests)
}
