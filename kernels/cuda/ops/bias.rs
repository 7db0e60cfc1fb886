//! Biases.

use super::{Done, PARTIAL_ROWS, line, packs, plane, run};
use crate::cuda::launch::{Arguments, Element, Engine, Matrix};

/// `y += b`.
pub fn bias_forward(on: &dyn Engine, y: Matrix, b: Matrix) -> Done {
    let e = y.element;
    b.expect("b", e, 1, y.cols);
    let arguments = Arguments::default().matrix(y).matrix(b).size(y.rows).size(y.cols);
    run(on, "bias", &format!("bias_forward_{}", e.suffix()), line(packs(y), 256), arguments)
}

/// `db += Σ_t dy[t]`; `partial` is scratch of `PARTIAL_ROWS * N` fp32.
pub fn bias_backward(on: &dyn Engine, db: Matrix, partial: Matrix, dy: Matrix) -> Done {
    let (e, blocks) = (dy.element, PARTIAL_ROWS.min(dy.rows));
    db.expect("db", e, 1, dy.cols);
    partial.at_least("partial", Element::F32, blocks * dy.cols);
    packs(dy);
    let arguments = Arguments::default().matrix(partial).matrix(dy).size(dy.rows).size(dy.cols);
    run(on, "bias", &format!("bias_backward_{}", e.suffix()), plane(blocks, dy.cols, e), arguments)?;
    let arguments = Arguments::default().matrix(db).matrix(partial).size(blocks).size(dy.cols);
    run(on, "bias", &format!("bias_columns_{}", e.suffix()), line(dy.cols, 256), arguments)
}
