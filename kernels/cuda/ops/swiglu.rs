//! SwiGLU.

use super::{Done, line, packs, run};
use crate::cuda::launch::{Arguments, Engine, Matrix};

/// `y` `[T, F]` from `gate_up` `[T, 2F]`.
pub fn swiglu_forward(on: &dyn Engine, y: Matrix, gate_up: Matrix) -> Done {
    let e = y.element;
    gate_up.expect("gate_up", e, y.rows, 2 * y.cols);
    let arguments = Arguments::default().matrix(y).matrix(gate_up).size(y.rows).size(y.cols);
    run(on, "swiglu", &format!("swiglu_forward_{}", e.suffix()), line(packs(y), 256), arguments)
}

/// `dgate_up` (overwritten; may be `gate_up` itself) from `dy`.
pub fn swiglu_backward(on: &dyn Engine, dgate_up: Matrix, dy: Matrix, gate_up: Matrix) -> Done {
    let e = dy.element;
    gate_up.expect("gate_up", e, dy.rows, 2 * dy.cols);
    dgate_up.expect("dgate_up", e, dy.rows, 2 * dy.cols);
    let arguments =
        Arguments::default().matrix(dgate_up).matrix(dy).matrix(gate_up).size(dy.rows).size(dy.cols);
    run(on, "swiglu", &format!("swiglu_backward_{}", e.suffix()), line(packs(dy), 256), arguments)
}
