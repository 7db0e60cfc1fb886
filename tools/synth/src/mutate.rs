//! Wrong programs: a pipeline with one plausible mistake in it.

use crate::ir::{Op, Pipeline, Scalar, Sink, Source};

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
        let (Scalar::Plus(k) | Scalar::Modulo(k)) = scalar;
        let next = if scalar == Scalar::Plus(k) { Scalar::Plus(k + 1) } else { Scalar::Modulo(k + 1) };
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
        Add(k) => vec![("off-by-one", Add(k + 1)), ("wrong-operation", Times(k + 1))],
        Times(k) => vec![("off-by-one", Times(k + 1)), ("wrong-operation", Add(k))],
        Square => vec![("wrong-operation", Times(2))],
        Contains(_) => vec![("wrong-operation", Longer(3))],
        Longer(k) => vec![("off-by-one", Longer(k - 1)), ("off-by-one", Longer(k + 1))],
        Upper => vec![("wrong-operation", Backwards)],
        Backwards => vec![("wrong-operation", Reverse), ("wrong-operation", Upper)],
        Length => vec![],
        Sort => vec![("wrong-operation", Reverse)],
        Reverse => vec![("wrong-operation", Sort)],
        Dedup => vec![("wrong-operation", Sort)],
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
    }
}
