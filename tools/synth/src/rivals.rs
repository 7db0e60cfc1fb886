//! Rivals: pipelines so close to a problem's own that a good test is one that tells them apart.

use crate::ir::{Op, Pipeline};
use crate::mutate::{mutants, without};

/// The pipeline without one of its operations, for each that can be left out and leave a well-typed one.
pub fn reductions(pipeline: &Pipeline) -> Vec<Pipeline> {
    let mut reduced: Vec<Pipeline> =
        (0..pipeline.ops.len()).map(|i| without(pipeline, i)).filter(Pipeline::is_well_typed).collect();
    if pipeline.scalar.is_some() {
        reduced.push(Pipeline { scalar: None, ..pipeline.clone() });
    }
    reduced
}

/// Operations that leave many lists as they are.
const UNSEEN: [Op; 10] = [
    Op::Dedup,
    Op::Take(5),
    Op::Sort,
    Op::Reverse,
    Op::Add(1),
    Op::Above(2),
    Op::Below(9),
    Op::Longer(3),
    Op::Lacks('r'),
    Op::Contains('e'),
];

/// Mutants, and the pipeline with one operation too many, of those that change few lists and so go unseen.
pub fn neighbours(pipeline: &Pipeline) -> Vec<Pipeline> {
    let mut near: Vec<Pipeline> = mutants(pipeline).into_iter().map(|m| m.pipeline).collect();
    for at in 0..=pipeline.ops.len() {
        for op in UNSEEN {
            let mut longer = pipeline.clone();
            longer.ops.insert(at, op);
            if longer.is_well_typed() {
                near.push(longer);
            }
        }
    }
    near
}
