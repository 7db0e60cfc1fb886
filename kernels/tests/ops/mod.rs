//! Every CUDA kernel against the CPU op, on whatever machine launches it: the shim in tests, a GPU
//! in `gpu-check`. Inputs are rounded to the kernel's type first, so that both sides read the same
//! numbers; outputs are full of NaN before the launch.

pub mod attention;
pub mod machine;
pub mod memory;
pub mod optimizer;
pub mod sampling;

/// How far a value may be from the CPU's, as a share of its size and of the typical size.
pub fn tolerance(element: cognate_kernels::cuda::launch::Element) -> f32 {
    match element {
        // Half a step of bf16 is 2^-9; two roundings.
        cognate_kernels::cuda::launch::Element::Bf16 => 8e-3,
        _ => 2e-5,
    }
}

/// `|got − want| ≤ tolerance (|want| + rms(want))`, value by value.
///
/// # Panics
/// Where a value is farther, or not a number.
pub fn close(name: &str, got: &[f32], want: &[f32], tolerance: f32) {
    assert_eq!(got.len(), want.len(), "{name}: lengths");
    let squares: f64 = want.iter().map(|w| f64::from(*w).powi(2)).sum();
    let typical = (squares / want.len().max(1) as f64).sqrt() as f32;
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let allowed = tolerance * (w.abs() + typical) + 1e-7;
        assert!((g - w).abs() <= allowed, "{name}[{i}] is {g}, the CPU says {w} (typical size {typical})");
    }
}

/// The bound for gradients that pass through several bf16 roundings: the error's norm is at most
/// 1 % of the whole, and no value is far off.
pub fn close_as_a_whole(name: &str, got: &[f32], want: &[f32]) {
    close(name, got, want, 8e-2);
    let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    let error = norm(&mut got.iter().zip(want).map(|(g, w)| g - w));
    let size = norm(&mut want.iter().copied());
    assert!(error <= 1e-2 * size + 1e-6, "{name}: an error of norm {error} of {size}");
}
