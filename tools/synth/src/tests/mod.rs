//! Tests of what the world promises.

mod runners;

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use cognate_random::Key;
use rayon::prelude::*;

use crate::draw::{self, Difficulty, Level};
use crate::emit::{EMITTERS, emit};
use crate::inputs;
use crate::interpret::interpret;
use crate::ir::{Form, Op, Pipeline, Scalar, Sink, Source};
use crate::rivals;
use crate::split::Shares;
use crate::statement::statement;
use crate::world::{self, Options, Problem, Rejection, World};

const RANGE: Source = Source::Range { first: 1, beyond: 0 };

fn options(problems: usize, level: Level) -> Options {
    let shares: Vec<String> = ["base=55", "sft=15", "rl=15", "dev=5", "eval=10"].map(String::from).to_vec();
    Options {
        seed: 7,
        problems,
        public: 2,
        hidden: 6,
        variety: 3,
        difficulty: Difficulty { level, min_ops: 1, max_ops: 3, scalar_share: 0.25 },
        shares: Shares::parse(&shares).unwrap(),
    }
}

/// One world serves all tests.
fn small_world() -> &'static World {
    static WORLD: LazyLock<World> =
        LazyLock::new(|| world::make(&options(1200, Level::Tiny), |_| {}).unwrap());
    &WORLD
}

fn rich_world() -> &'static World {
    static WORLD: LazyLock<World> = LazyLock::new(|| {
        let mut options = options(1500, Level::Rich);
        options.difficulty.max_ops = 4;
        world::make(&options, |_| {}).unwrap()
    });
    &WORLD
}

fn both() -> impl Iterator<Item = &'static Problem> {
    small_world().problems.iter().chain(&rich_world().problems)
}

fn pipeline(source: Source, ops: &[Op], sink: Sink, scalar: Option<Scalar>) -> Pipeline {
    Pipeline { source, ops: ops.to_vec(), sink, scalar }
}

/// Names of the parts of a pipeline, without their constants.
fn concepts(pipeline: &Pipeline) -> Vec<String> {
    let name = |part: String| part.split(['(', ' ']).next().unwrap_or_default().to_owned();
    let mut names = vec![name(format!("{:?}", pipeline.source))];
    names.extend(pipeline.ops.iter().zip(pipeline.kinds()).map(|(op, kind)| match op.form() {
        Form::List => format!("{} {kind:?}", name(format!("{op:?}"))),
        _ => name(format!("{op:?}")),
    }));
    names.push(format!("{:?} {:?}", pipeline.sink, pipeline.kinds()[pipeline.ops.len()]));
    names.extend(pipeline.scalar.map(|scalar| format!("Scalar {}", name(format!("{scalar:?}")))));
    names
}

#[test]
fn the_worlds_hold_all_their_concepts() {
    let count = |world: &World| {
        let names: HashSet<String> = world.problems.iter().flat_map(|p| concepts(&p.pipeline)).collect();
        let ops: HashSet<_> =
            world.problems.iter().flat_map(|p| &p.pipeline.ops).map(std::mem::discriminant).collect();
        (names.len(), ops.len())
    };
    assert_eq!(count(small_world()).1, 17, "13 element-wise operations, 4 on lists");
    assert_eq!(count(rich_world()).1, 48);
    assert!(count(rich_world()).0 > 2 * count(small_world()).0);
}

#[test]
fn the_interpreter_answers_as_worked_out_by_hand() {
    let cases = [
        (pipeline(Source::Ints, &[Op::Odd, Op::Square], Sink::Sum, Some(Scalar::Plus(2))), "1 2 3\n", "12"),
        (pipeline(RANGE, &[Op::MultipleOf(3)], Sink::Joined(','), None), "10\n", "3,6,9"),
        (
            pipeline(Source::Ints, &[Op::Dedup, Op::Reverse, Op::Take(2)], Sink::Lines, None),
            "4 4 5 6\n",
            "6\n5",
        ),
        (pipeline(Source::Words, &[Op::Longer(3), Op::Length], Sink::Max, None), "tea lemon leaf\n", "5"),
        (pipeline(Source::Words, &[Op::Upper, Op::Sort], Sink::Joined(' '), None), "b a\n", "A B"),
        (
            pipeline(Source::Ints, &[Op::Above(9)], Sink::Count, Some(Scalar::Modulo(3))),
            "1 10 20 30 40\n",
            "1",
        ),
        (pipeline(Source::Ints, &[Op::Above(9)], Sink::Joined(' '), None), "1 2\n", ""),
    ];
    for (pipeline, input, output) in cases {
        assert_eq!(interpret(&pipeline, input).as_deref(), Some(output), "{pipeline}");
    }
    assert_eq!(interpret(&pipeline(Source::Ints, &[Op::Above(9)], Sink::Max, None), "1 2\n"), None);
    assert_eq!(interpret(&pipeline(Source::Ints, &[Op::Even], Sink::Sum, None), "one\n"), None);
}

#[test]
fn superfluous_operations_and_constant_outputs_are_rejected() {
    let outcome = |ops: &[Op], sink| {
        let pipeline = pipeline(Source::Ints, ops, sink, None);
        world::tests(&pipeline, 2, 6, &mut Key::new(1).stream()).map(|tests| tests.len())
    };
    assert_eq!(outcome(&[Op::Even], Sink::Sum), Ok(8));
    assert_eq!(outcome(&[Op::Even, Op::Sort], Sink::Joined(' ')), Ok(8));
    // Order does not matter to a sum; numbers are never negative; nothing is below zero.
    assert_eq!(outcome(&[Op::Even, Op::Sort], Sink::Sum), Err(Rejection::Redundant));
    assert_eq!(outcome(&[Op::AtLeast(0), Op::Even], Sink::Sum), Err(Rejection::Redundant));
    assert_eq!(outcome(&[Op::Below(0)], Sink::Count), Err(Rejection::Constant));
    assert_eq!(outcome(&[Op::Below(0)], Sink::Max), Err(Rejection::Undefined));
}

#[test]
fn tests_are_ordered_agree_with_the_interpreter_and_tell_every_reduction() {
    for problem in both() {
        assert_eq!(problem.tests.len(), 8);
        assert_eq!(problem.tests.iter().filter(|t| t.public).count(), 2);
        assert!(problem.tests.windows(2).all(|w| w[0].size <= w[1].size), "{}", problem.id);
        for test in &problem.tests {
            assert_eq!(interpret(&problem.pipeline, &test.input).as_ref(), Some(&test.output));
        }
        for reduced in rivals::reductions(&problem.pipeline) {
            let told =
                problem.tests.iter().any(|t| interpret(&reduced, &t.input).as_ref() != Some(&t.output));
            assert!(told, "{reduced} passes the tests of {}", problem.pipeline);
        }
    }
}

/// With as few tests as the tiny preset has: a right answer to one problem is hardly ever taken for one to another.
#[test]
fn few_problems_pass_the_tests_of_others() {
    let mut options = options(4000, Level::Tiny);
    options.hidden = 4;
    let world = world::make(&options, |_| {}).unwrap();
    let passes = |rival: &Pipeline, problem: &Problem| {
        rival.source == problem.pipeline.source
            && rival != &problem.pipeline
            && problem.tests.iter().all(|t| interpret(rival, &t.input).as_ref() == Some(&t.output))
    };
    let mistaken: Vec<String> = world
        .problems
        .par_iter()
        .filter_map(|problem| {
            let rival = world.problems.iter().find(|rival| passes(&rival.pipeline, problem))?;
            Some(format!("{} passes the tests of {}", rival.pipeline, problem.pipeline))
        })
        .collect();
    assert!(mistaken.len() * 50 < world.problems.len(), "{}: {mistaken:#?}", mistaken.len());
}

/// The battery decides what is the same; inputs that it does not hold must not disagree with it.
#[test]
fn no_two_problems_behave_alike() {
    let mut stream = Key::new(99).with("other inputs").stream();
    let others: HashMap<String, Vec<String>> = draw::SOURCES
        .into_iter()
        .map(|s| (format!("{s:?}"), (0..200).map(|i| inputs::input(s, 1 + i % 20, &mut stream)).collect()))
        .collect();
    for world in [small_world(), rich_world()] {
        let mut seen = HashMap::new();
        for problem in &world.problems {
            let inputs = &others[&format!("{:?}", problem.pipeline.source)];
            let behaviour = world::behaviour(&problem.pipeline, inputs);
            if let Some(earlier) = seen.insert(behaviour, &problem.pipeline) {
                panic!("{earlier} and {} behave alike", problem.pipeline);
            }
        }
        let splits: HashSet<&str> = world.problems.iter().map(|p| p.split.as_str()).collect();
        assert_eq!(splits.len(), 5);
    }
}

/// Whatever the paraphrases, a statement means one behaviour.
#[test]
fn statements_are_unambiguous() {
    let mut meaning: HashMap<String, Pipeline> = HashMap::new();
    for problem in both() {
        for i in 0..12u64 {
            let text = statement(&problem.pipeline, 3, &mut Key::new(i).with(problem.id.as_str()).stream());
            let earlier = meaning.entry(text.clone()).or_insert_with(|| problem.pipeline.clone());
            assert_eq!(*earlier, problem.pipeline, "{text}");
        }
    }
}

#[test]
fn wrong_programs_fail_some_test_and_are_defined_on_all() {
    let mut without = 0;
    for problem in both() {
        let wrong = problem.wrong();
        without += usize::from(wrong.is_empty());
        for mutant in wrong {
            let outputs: Vec<Option<String>> =
                problem.tests.iter().map(|t| interpret(&mutant.pipeline, &t.input)).collect();
            assert!(outputs.iter().all(Option::is_some), "{}", mutant.pipeline);
            let failed = outputs.iter().zip(&problem.tests).any(|(o, t)| o.as_ref() != Some(&t.output));
            assert!(failed, "{} is right for {}", mutant.pipeline, problem.pipeline);
        }
    }
    assert_eq!(without, 0, "problems without any wrong program");
}

#[test]
fn emitters_are_in_the_languages_table_and_vary() {
    let table = cognate_languages::Languages::builtin();
    let pipeline = pipeline(Source::Words, &[Op::Upper, Op::Longer(3), Op::Sort], Sink::Lines, None);
    for e in EMITTERS {
        assert!(table.get(e.language()).is_some(), "{}", e.language());
        let texts: HashSet<String> = (0..40u64).map(|i| emit(e, &pipeline, Key::new(i)).source).collect();
        assert!(texts.len() >= 5, "{} has {} texts", e.language(), texts.len());
        assert!(texts.iter().all(|t| !t.contains("{x}") && !t.contains("{k}") && !t.contains("{a}")));
    }
}
