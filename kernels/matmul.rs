//! Matrix products in the three orientations of a linear layer `y = x wᵀ`, by crate `gemm`.
//!
//! Weights stand as Hugging Face stores them, `[N, K]` row-major. An element's sum runs in an
//! order that depends on `K` alone: the crate gives the same bits for any number of threads, and
//! for any number of rows from [`MIN_ROWS`] on (fewer would take its matrix-vector paths, so
//! [`forward`] pads them).

use gemm::Parallelism;

use crate::Tensor;

/// Rows below which the crate takes other paths, with sums in another order.
pub const MIN_ROWS: usize = 17;

/// Products below this many multiply-adds run on the calling thread.
const PARALLEL_WORK: usize = 1 << 18;

fn parallelism(work: usize) -> Parallelism {
    if work < PARALLEL_WORK || rayon::current_num_threads() == 1 {
        Parallelism::None
    } else {
        Parallelism::Rayon(0)
    }
}

/// `y = x wᵀ`: `y` `[T, N]`, `x` `[T, K]`, `w` `[N, K]`.
pub fn forward(y: &mut Tensor, x: &Tensor, w: &Tensor) {
    let (m, k, n) = (x.rows(), x.cols(), w.rows());
    assert!(y.rows() == m && y.cols() == n && w.cols() == k, "shapes agree");
    if m > 0 && m < MIN_ROWS {
        // Rows beyond the live ones are scratch of the same buffers: computed and dropped.
        let mut padded_x = Tensor::zeros(x.device(), MIN_ROWS, k);
        padded_x.f32_mut()[..m * k].copy_from_slice(x.f32());
        let mut padded_y = Tensor::zeros(y.device(), MIN_ROWS, n);
        product_nt(padded_y.f32_mut(), padded_x.f32(), w.f32(), MIN_ROWS, n, k);
        y.f32_mut().copy_from_slice(&padded_y.f32()[..m * n]);
        return;
    }
    product_nt(y.f32_mut(), x.f32(), w.f32(), m, n, k);
}

fn product_nt(y: &mut [f32], x: &[f32], w: &[f32], m: usize, n: usize, k: usize) {
    assert!(y.len() == m * n && x.len() == m * k && w.len() == n * k);
    // SAFETY: the lengths asserted above are what shapes and strides reach.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            y.as_mut_ptr(),
            1,
            n as isize,
            false,
            x.as_ptr(),
            1,
            k as isize,
            w.as_ptr(),
            k as isize,
            1,
            0.0,
            1.0,
            false,
            false,
            false,
            parallelism(m * n * k),
        );
    }
}

/// `dx = dy w`: `dx` `[T, K]`, `dy` `[T, N]`, `w` `[N, K]`.
pub fn backward_input(dx: &mut Tensor, dy: &Tensor, w: &Tensor) {
    let (m, n, k) = (dy.rows(), dy.cols(), w.cols());
    assert!(dx.rows() == m && dx.cols() == k && w.rows() == n, "shapes agree");
    let (dx, dy, w) = (dx.f32_mut(), dy.f32(), w.f32());
    assert!(dx.len() == m * k && dy.len() == m * n && w.len() == n * k);
    // SAFETY: the lengths asserted above are what shapes and strides reach.
    unsafe {
        gemm::gemm(
            m,
            k,
            n,
            dx.as_mut_ptr(),
            1,
            k as isize,
            false,
            dy.as_ptr(),
            1,
            n as isize,
            w.as_ptr(),
            1,
            k as isize,
            0.0,
            1.0,
            false,
            false,
            false,
            parallelism(m * n * k),
        );
    }
}

/// `dw += dyᵀ x`: `dw` `[N, K]`, `dy` `[T, N]`, `x` `[T, K]`.
pub fn backward_weight(dw: &mut Tensor, dy: &Tensor, x: &Tensor) {
    let (m, n, k) = (dy.rows(), dy.cols(), x.cols());
    assert!(x.rows() == m && dw.rows() == n && dw.cols() == k, "shapes agree");
    let (dw, dy, x) = (dw.f32_mut(), dy.f32(), x.f32());
    assert!(dw.len() == n * k && dy.len() == m * n && x.len() == m * k);
    // SAFETY: the lengths asserted above are what shapes and strides reach.
    unsafe {
        gemm::gemm(
            n,
            k,
            m,
            dw.as_mut_ptr(),
            1,
            k as isize,
            true,
            dy.as_ptr(),
            n as isize,
            1,
            x.as_ptr(),
            1,
            k as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism(m * n * k),
        );
    }
}
