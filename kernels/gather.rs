//! Rows picked out of a matrix and put back: the classifier runs on predicting positions only.

use crate::Tensor;

/// `y[i] = x[rows[i]]`.
pub fn forward(y: &mut Tensor, x: &Tensor, rows: &[u32]) {
    let cols = x.cols();
    assert!(y.rows() == rows.len() && y.cols() == cols, "shapes agree");
    let x = x.f32();
    for (y, &row) in y.f32_mut().chunks_exact_mut(cols).zip(rows) {
        y.copy_from_slice(&x[row as usize * cols..][..cols]);
    }
}

/// `dx[rows[i]] = dy[i]`, the other rows 0; `rows` must not repeat.
pub fn backward(dx: &mut Tensor, dy: &Tensor, rows: &[u32]) {
    let cols = dx.cols();
    assert!(dy.rows() == rows.len() && dy.cols() == cols, "shapes agree");
    let dx = dx.f32_mut();
    dx.fill(0.0);
    for (dy, &row) in dy.f32().chunks_exact(cols).zip(rows) {
        dx[row as usize * cols..][..cols].copy_from_slice(dy);
    }
}
