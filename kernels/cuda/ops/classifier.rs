//! The classifier: log-probabilities, and logits into their gradient.

use super::{Done, line, packs, plane, run};
use crate::cuda::launch::{Arguments, Element, Engine, Matrix, Shape};

/// `rows` `[R, 3]` fp32 (log-probability of the target, entropy, log-sum-exp) of `logits` `[R, *]`,
/// the first `vocabulary` of a row used.
pub fn classifier_forward(
    on: &dyn Engine,
    rows: Matrix,
    logits: Matrix,
    targets: Matrix,
    vocabulary: usize,
    temperature: f32,
) -> Done {
    let e = logits.element;
    rows.expect("rows", Element::F32, logits.rows, 3);
    targets.expect("targets", Element::U32, 1, logits.rows);
    packs(logits);
    assert!(vocabulary <= logits.cols, "the vocabulary lies within the row");
    let arguments = Arguments::default()
        .matrix(rows)
        .matrix(logits)
        .matrix(targets)
        .size(vocabulary)
        .size(logits.cols)
        .value(1.0 / temperature);
    let shape = Shape { grid: [logits.rows as u32, 1, 1], block: 512, shared: 0 };
    run(on, "classifier", &format!("classifier_forward_{}", e.suffix()), shape, arguments)
}

/// What [`classifier_backward`] reads beside the logits.
#[derive(Clone, Copy, Debug)]
pub struct ClassifierInputs {
    /// `[R, 3]` as the forward left them.
    pub rows: Matrix,
    /// `[1, R]` fp32: derivative of the loss by each target's log-probability.
    pub dlogp: Matrix,
    /// `[1, R]` fp32: by the log-sum-exp; absent: 0.
    pub dz: Option<Matrix>,
    pub targets: Matrix,
}

/// Turns `logits` in place into their gradient; beyond the vocabulary zeros.
pub fn classifier_backward(
    on: &dyn Engine,
    logits: Matrix,
    inputs: ClassifierInputs,
    vocabulary: usize,
    temperature: f32,
) -> Done {
    let ClassifierInputs { rows, dlogp, dz, targets } = inputs;
    let e = logits.element;
    rows.expect("rows", Element::F32, logits.rows, 3);
    for (name, m) in [("dlogp", Some(dlogp)), ("dz", dz)] {
        m.map(|m| m.expect(name, Element::F32, 1, logits.rows));
    }
    targets.expect("targets", Element::U32, 1, logits.rows);
    packs(logits);
    let arguments = Arguments::default()
        .matrix(logits)
        .matrix(rows)
        .matrix(dlogp)
        .optional(dz)
        .matrix(targets)
        .size(vocabulary)
        .size(logits.cols)
        .value(1.0 / temperature);
    let shape = plane(logits.rows, logits.cols, e);
    run(on, "classifier", &format!("classifier_backward_{}", e.suffix()), shape, arguments)
}

/// `g += sum`, `sum = 0`: the head's gradient, summed in fp32 over the chunks, joins the bf16 one.
pub fn classifier_fold(on: &dyn Engine, g: Matrix, sum: Matrix) -> Done {
    g.expect("g", Element::Bf16, sum.rows, sum.cols);
    sum.expect("sum", Element::F32, g.rows, g.cols);
    let arguments = Arguments::default().matrix(g).matrix(sum).value(g.len() as u64);
    run(on, "classifier", "classifier_fold", line(packs(g), 256), arguments)
}
