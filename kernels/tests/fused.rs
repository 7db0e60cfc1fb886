//! Products with what follows them row by row are, bit for bit, the product and then the op.

use cognate_kernels::rope::{Scaling, Table};
use cognate_kernels::{Device, Tensor, bias, matmul, rmsnorm, rope, swiglu};
use proptest::prelude::*;

fn tensor(rows: usize, cols: usize, seed: usize) -> Tensor {
    let values: Vec<f32> =
        (0..rows * cols).map(|i| ((i * 7 + i * i % 1013 + seed * 131) as f32 * 0.37).sin()).collect();
    Tensor::from_slice(Device::Cpu, rows, cols, &values)
}

fn zeros(rows: usize, cols: usize) -> Tensor {
    Tensor::zeros(Device::Cpu, rows, cols)
}

fn same(name: &str, a: &Tensor, b: &Tensor) {
    let bits = |t: &Tensor| t.f32().iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert!(bits(a) == bits(b), "{name}");
    assert!(a.f32().iter().any(|x| *x != 0.0), "{name}: there is something to compare");
}

fn compare(rows: usize, c: usize, f: usize) {
    let x = tensor(rows, c, 1);
    // SwiGLU forward and backward
    let (w, mut gate_up, mut y) = (tensor(2 * f, c, 2), zeros(rows, 2 * f), zeros(rows, f));
    matmul::forward(&mut gate_up, &x, &w);
    swiglu::forward(&mut y, &gate_up);
    let (mut gate_up2, mut y2) = (zeros(rows, 2 * f), zeros(rows, f));
    swiglu::forward_product(&mut y2, &mut gate_up2, &x, &w);
    same("gate and up", &gate_up, &gate_up2);
    same("swiglu", &y, &y2);
    let (down, mut dy, mut d) = (tensor(c, f, 3), zeros(rows, f), zeros(rows, 2 * f));
    matmul::backward_input(&mut dy, &x, &down);
    swiglu::backward(&mut d, &dy, &gate_up);
    let (mut dy2, mut d2) = (zeros(rows, f), zeros(rows, 2 * f));
    swiglu::backward_product(&mut d2, &mut dy2, &x, &down, &gate_up);
    same("swiglu's input gradient", &d, &d2);
    // Queries and keys, with and without a bias
    let (dim, heads) = (6, 3);
    let cols = dim * (heads + 1);
    let mut table = Table::new(Device::Cpu, dim, 100.0, Scaling::None);
    table.reserve(rows);
    let positions: Vec<u32> = (0..rows as u32).rev().collect();
    for b in [None, Some(tensor(1, cols, 4))] {
        let (w, mut qkv, mut qkv2) = (tensor(cols, c, 5), zeros(rows, cols), zeros(rows, cols));
        matmul::forward(&mut qkv, &x, &w);
        b.iter().for_each(|b| bias::forward(&mut qkv, b));
        rope::forward(&mut qkv, heads, &positions, &table);
        rope::forward_product(&mut qkv2, &x, &w, b.as_ref(), heads, &positions, &table);
        same("rope", &qkv, &qkv2);
    }
    // Residual and norm
    let (z, w, norm) = (tensor(rows, f, 6), tensor(c, f, 7), tensor(1, c, 8));
    let out = || (zeros(rows, c), zeros(rows, c), zeros(rows, 1), zeros(rows, c));
    let ((mut s, mut y, mut rstd, mut b), (mut s2, mut y2, mut rstd2, mut b2)) = (out(), out());
    matmul::forward(&mut b, &z, &w);
    rmsnorm::forward_residual(&mut s, &mut y, &mut rstd, &x, &b, &norm, 1e-5);
    rmsnorm::forward_residual_product(&mut s2, &mut y2, &mut rstd2, &x, &mut b2, &z, &w, &norm, 1e-5);
    same("stream", &s, &s2);
    same("normed", &y, &y2);
    same("rstd", &rstd, &rstd2);
}

#[test]
fn rows_few_and_many_narrow_and_wide() {
    // Few rows, more columns than rows, several blocks of rows, several packings of columns.
    for (rows, c, f) in [(1, 8, 5), (95, 24, 16), (96, 24, 300), (250, 40, 64), (130, 700, 800)] {
        compare(rows, c, f);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_shape(rows in 1usize..220, c in 1usize..70, f in 1usize..130) {
        compare(rows, c, f);
    }
}
