//! RMSNorm, with the residual branch before it.

use super::{Done, PARTIAL_ROWS, line, packs, run};
use crate::cuda::launch::{Arguments, Element, Engine, Matrix, Shape};

/// The residual branch of a norm: `s = x + b` is written.
#[derive(Clone, Copy, Debug)]
pub struct Residual {
    pub s: Matrix,
    pub b: Matrix,
}

/// Threads, and packs a thread, for rows of one norm.
fn norm_shape(x: Matrix) -> (usize, usize) {
    let packs = packs(x) / x.rows.max(1);
    let each = packs.div_ceil(256).next_power_of_two();
    assert!(each <= 4, "rows of {} values are beyond what a block holds", x.cols);
    (packs.div_ceil(each).next_multiple_of(32), each)
}

/// `y = rmsnorm(x + b) ⊙ w`, `rstd` `[1, T]` fp32.
pub fn rmsnorm_forward(
    on: &dyn Engine,
    y: Matrix,
    rstd: Matrix,
    x: Matrix,
    residual: Option<Residual>,
    w: Matrix,
    eps: f32,
) -> Done {
    let e = x.element;
    y.expect("y", e, x.rows, x.cols);
    w.expect("w", e, 1, x.cols);
    rstd.at_least("rstd", Element::F32, x.rows);
    if let Some(r) = residual {
        r.s.expect("s", e, x.rows, x.cols);
        r.b.expect("b", e, x.rows, x.cols);
    }
    let (threads, each) = norm_shape(x);
    let arguments = Arguments::default()
        .optional(residual.map(|r| r.s))
        .matrix(y)
        .matrix(rstd)
        .matrix(x)
        .optional(residual.map(|r| r.b))
        .matrix(w)
        .size(x.cols)
        .value(eps);
    let shape = Shape { grid: [x.rows as u32, 1, 1], block: threads as u32, shared: 0 };
    run(on, "rmsnorm", &format!("rmsnorm_forward_{}_{each}", e.suffix()), shape, arguments)
}

/// What [`rmsnorm_backward`] reads.
#[derive(Clone, Copy, Debug)]
pub struct NormInputs {
    pub dy: Matrix,
    pub x: Matrix,
    pub rstd: Matrix,
    pub w: Matrix,
}

/// `dx += …`, `dw += …`; `partial` is scratch of `PARTIAL_ROWS * C` fp32.
pub fn rmsnorm_backward(
    on: &dyn Engine,
    dx: Matrix,
    dw: Matrix,
    partial: Matrix,
    inputs: NormInputs,
) -> Done {
    let NormInputs { dy, x, rstd, w } = inputs;
    let (e, blocks) = (x.element, PARTIAL_ROWS.min(x.rows));
    for (name, m) in [("dx", dx), ("dy", dy)] {
        m.expect(name, e, x.rows, x.cols);
    }
    for (name, m) in [("dw", dw), ("w", w)] {
        m.expect(name, e, 1, x.cols);
    }
    rstd.at_least("rstd", Element::F32, x.rows);
    partial.at_least("partial", Element::F32, blocks * x.cols);
    let (threads, each) = norm_shape(x);
    let arguments = Arguments::default()
        .matrix(dx)
        .matrix(partial)
        .matrix(dy)
        .matrix(x)
        .matrix(rstd)
        .matrix(w)
        .size(x.rows)
        .size(x.cols);
    let shape = Shape { grid: [blocks as u32, 1, 1], block: threads as u32, shared: 0 };
    run(on, "rmsnorm", &format!("rmsnorm_backward_{}_{each}", e.suffix()), shape, arguments)?;
    let arguments = Arguments::default().matrix(dw).matrix(partial).size(blocks).size(x.cols);
    run(on, "rmsnorm", &format!("rmsnorm_columns_{}", e.suffix()), line(x.cols, 256), arguments)
}
