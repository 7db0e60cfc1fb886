//! Rotary positions.

use super::{Done, line, packs, run};
use crate::cuda::launch::{Arguments, Element, Engine, Matrix};

/// Which way [`rope`] turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    Forward,
    Backward,
}

/// Rotates the first `heads` heads of each row of `qkv` by `positions`; `cos`, `sin` `[P, D/2]` fp32.
pub fn rope(
    on: &dyn Engine,
    qkv: Matrix,
    heads: usize,
    positions: Matrix,
    (cos, sin): (Matrix, Matrix),
    rotation: Rotation,
) -> Done {
    let (e, dim) = (qkv.element, cos.cols * 2);
    assert!(cos.cols.is_multiple_of(e.pack()) && heads * dim <= qkv.cols, "heads lie within the row");
    cos.expect("cos", Element::F32, cos.rows, cos.cols);
    sin.expect("sin", Element::F32, cos.rows, cos.cols);
    positions.expect("positions", Element::U32, 1, qkv.rows);
    packs(qkv);
    let arguments = Arguments::default()
        .matrix(qkv)
        .matrix(positions)
        .matrix(cos)
        .matrix(sin)
        .size(qkv.rows)
        .size(qkv.cols)
        .size(heads)
        .size(dim)
        .value(if rotation == Rotation::Forward { 1.0f32 } else { -1.0 });
    let work = qkv.rows * heads * (dim / 2 / e.pack());
    run(on, "rope", &format!("rope_{}", e.suffix()), line(work, 256), arguments)
}
