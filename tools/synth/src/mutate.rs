//! Wrong programs: a pipeline with one plausible mistake in it.

use crate::ir::{Form, Op, Pipeline, Scalar, Sink, Source};

/// A mistaken pipeline and the name of its mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutant {
    pub pipeline: Pipeline,
    pub mistake: &'static str,
}

/// All well-typed mutants of a pipeline in a fixed order. Some may behave as the original does: the caller compares.
pub fn mutants(original: &Pipeline) -> Vec<Mutant> {
    let mut found: Vec<Mutant> = Vec::new();
    let mut add = |mistake, pipeline: Pipeline| {
        if pipeline != *original
            && !pipeline.ops.is_empty()
            && pipeline.is_well_typed()
            && pipeline.is_portable()
            && !repeats(&pipeline)
            && !found.iter().any(|m| m.pipeline == pipeline)
        {
            found.push(Mutant { pipeline, mistake });
        }
    };
    if let Source::Range { first, beyond } = original.source {
        add(
            "off-by-one",
            Pipeline { source: Source::Range { first, beyond: beyond - 1 }, ..original.clone() },
        );
        add(
            "off-by-one",
            Pipeline { source: Source::Range { first: first - 1, beyond: beyond - 1 }, ..original.clone() },
        );
    }
    for i in 0..original.ops.len() {
        for (mistake, op) in wrong(original.ops[i]) {
            let mut pipeline = original.clone();
            pipeline.ops[i] = op;
            add(mistake, pipeline);
        }
        add("dropped-operation", without(original, i));
        if i + 1 < original.ops.len() {
            let mut pipeline = original.clone();
            pipeline.ops.swap(i, i + 1);
            add("wrong-order", pipeline);
        }
    }
    for sink in wrong_sinks(original.sink) {
        add("wrong-result", Pipeline { sink, ..original.clone() });
    }
    if let Some(scalar) = original.scalar {
        let next = match scalar {
            Scalar::Plus(k) => Scalar::Plus(k + 1),
            Scalar::Minus(k) => Scalar::Plus(k),
            Scalar::Times(k) => Scalar::Times(k + 1),
            Scalar::Modulo(k) => Scalar::Modulo(k + 1),
        };
        add("off-by-one", Pipeline { scalar: Some(next), ..original.clone() });
        add("dropped-operation", Pipeline { scalar: None, ..original.clone() });
    }
    found
}

/// The pipeline without its `i`-th operation.
pub fn without(original: &Pipeline, i: usize) -> Pipeline {
    let mut pipeline = original.clone();
    pipeline.ops.remove(i);
    pipeline
}

/// The same list operation twice: emitters give its helpers one name.
fn repeats(pipeline: &Pipeline) -> bool {
    let lists: Vec<_> =
        pipeline.ops.iter().filter(|op| op.form() == Form::List).map(std::mem::discriminant).collect();
    (1..lists.len()).any(|i| lists[..i].contains(&lists[i]))
}

fn wrong(op: Op) -> Vec<(&'static str, Op)> {
    use Op::*;
    match op {
        Even => vec![("wrong-comparison", Odd)],
        Odd => vec![("wrong-comparison", Even)],
        Above(k) => {
            vec![("off-by-one", AtLeast(k)), ("wrong-comparison", Below(k)), ("off-by-one", Above(k + 1))]
        }
        Below(k) => {
            vec![("off-by-one", AtMost(k)), ("wrong-comparison", Above(k)), ("off-by-one", Below(k - 1))]
        }
        AtLeast(k) => vec![("off-by-one", Above(k))],
        AtMost(k) => vec![("off-by-one", Below(k))],
        MultipleOf(k) => vec![("off-by-one", MultipleOf(k + 1)), ("wrong-operation", Above(k))],
        NotMultipleOf(k) => vec![("wrong-comparison", MultipleOf(k)), ("off-by-one", NotMultipleOf(k + 1))],
        Between(k, j) => vec![
            ("off-by-one", Between(k + 1, j)),
            ("off-by-one", Between(k, j - 1)),
            ("wrong-operation", AtLeast(k)),
        ],
        LastDigit(k) => {
            vec![("wrong-operation", MultipleOf(k.max(2))), ("off-by-one", LastDigit((k + 1) % 10))]
        }
        Not(k) => vec![("off-by-one", Not(k + 1)), ("wrong-comparison", Above(k))],
        Subtract(k) => vec![("off-by-one", Subtract(k + 1)), ("wrong-operation", Add(k))],
        Cube => vec![("wrong-operation", Square), ("wrong-operation", Times(3))],
        Modulo(k) => vec![("off-by-one", Modulo(k + 1)), ("wrong-operation", MultipleOf(k))],
        Halve => vec![("wrong-operation", Modulo(2)), ("wrong-operation", Times(2))],
        Distance(k) => vec![("wrong-operation", Subtract(k)), ("off-by-one", Distance(k + 1))],
        DigitSum => vec![("wrong-operation", Modulo(10))],
        Lacks(c) => vec![("wrong-comparison", Contains(c))],
        Shorter(k) => vec![("off-by-one", Shorter(k + 1)), ("wrong-comparison", Longer(k))],
        LengthIs(k) => vec![("off-by-one", LengthIs(k + 1)), ("wrong-comparison", Longer(k))],
        StartsWith(c) => vec![("wrong-operation", Contains(c)), ("wrong-operation", EndsWith(c))],
        EndsWith(c) => vec![("wrong-operation", Contains(c)), ("wrong-operation", StartsWith(c))],
        Palindrome => vec![("wrong-operation", Longer(4))],
        Capitalize => vec![("wrong-operation", Upper)],
        FirstLetter => vec![("wrong-operation", LastLetter)],
        LastLetter => vec![("wrong-operation", FirstLetter)],
        Twice => vec![("wrong-operation", Backwards)],
        Replace(c, d) => vec![("wrong-order", Replace(d, c))],
        CountOf(_) => vec![("wrong-operation", Length)],
        SortDescending => vec![("wrong-comparison", Sort)],
        SortByLength => vec![("wrong-operation", Sort)],
        Drop(k) => {
            vec![("off-by-one", Drop(k + 1)), ("off-by-one", Drop(k - 1)), ("wrong-operation", Take(k))]
        }
        Last(k) => vec![("off-by-one", Last(k + 1)), ("wrong-operation", Take(k))],
        EveryOther => vec![("wrong-operation", Dedup)],
        PrefixSums => vec![("wrong-operation", Differences)],
        Differences => vec![("wrong-operation", PrefixSums)],
        Add(k) => vec![("off-by-one", Add(k + 1)), ("wrong-operation", Times(k + 1))],
        Times(k) => vec![("off-by-one", Times(k + 1)), ("wrong-operation", Add(k))],
        Square => vec![("wrong-operation", Times(2))],
        Contains(_) => vec![("wrong-operation", Longer(3))],
        Longer(k) => vec![("off-by-one", Longer(k - 1)), ("off-by-one", Longer(k + 1))],
        Upper => vec![("wrong-operation", Backwards)],
        Backwards => vec![("wrong-operation", Reverse), ("wrong-operation", Upper)],
        Length => vec![],
        Sort => vec![("wrong-operation", Reverse), ("wrong-comparison", SortDescending)],
        Reverse => vec![("wrong-operation", Sort)],
        Dedup => vec![("wrong-operation", Sort)],
        Take(k) if k < 2 => vec![("off-by-one", Take(k + 1))],
        Take(k) => vec![("off-by-one", Take(k - 1)), ("off-by-one", Take(k + 1))],
    }
}

fn wrong_sinks(sink: Sink) -> Vec<Sink> {
    match sink {
        Sink::Joined(' ') => vec![Sink::Lines],
        Sink::Joined(_) => vec![Sink::Joined(' ')],
        Sink::Lines => vec![Sink::Joined(' ')],
        Sink::Sum => vec![Sink::Count, Sink::Max],
        Sink::Count => vec![Sink::Sum],
        Sink::Max => vec![Sink::Min, Sink::Sum],
        Sink::Min => vec![Sink::Max],
        Sink::Spread => vec![Sink::Max],
        Sink::Distinct => vec![Sink::Count],
        Sink::First => vec![Sink::Final],
        Sink::Final => vec![Sink::First],
    }
}
