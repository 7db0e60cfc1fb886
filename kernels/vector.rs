//! Sixteen-lane arithmetic that the compiler turns into the widest registers of the machine it
//! runs on, and fixed-order reductions. Everything here is inlined into a body passed to
//! [`dispatch`], which is compiled once per instruction set, so no `target-cpu` flag is needed.

/// Lanes of one vector: an AVX-512 register, two AVX2 ones, four NEON ones.
pub(crate) const LANES: usize = 16;

/// One vector of floats.
pub(crate) type V = [f32; LANES];

/// Runs `body` compiled for the best instruction set present. `body` must be `#[inline(always)]`
/// through and through for its loops to be compiled so.
#[inline(always)]
pub(crate) fn dispatch<R>(body: impl FnOnce() -> R) -> R {
    struct Body<F>(F);
    impl<R, F: FnOnce() -> R> pulp::NullaryFnOnce for Body<F> {
        type Output = R;
        #[inline(always)]
        fn call(self) -> R {
            (self.0)()
        }
    }
    pulp::Arch::new().dispatch(Body(body))
}

#[inline(always)]
pub(crate) fn splat(x: f32) -> V {
    [x; LANES]
}

/// The first sixteen values of `x`.
#[inline(always)]
pub(crate) fn load(x: &[f32]) -> V {
    let mut v = [0.0; LANES];
    v.copy_from_slice(&x[..LANES]);
    v
}

/// `a * b + c`, rounded once.
#[inline(always)]
pub(crate) fn fma(a: V, b: V, c: V) -> V {
    let mut v = [0.0; LANES];
    for i in 0..LANES {
        v[i] = a[i].mul_add(b[i], c[i]);
    }
    v
}

/// Applies `f` lane by lane.
#[inline(always)]
pub(crate) fn map(a: V, f: impl Fn(f32) -> f32) -> V {
    let mut v = [0.0; LANES];
    for i in 0..LANES {
        v[i] = f(a[i]);
    }
    v
}

/// The lanes' sum, in one fixed order: halves added pairwise.
#[inline(always)]
pub(crate) fn sum(a: V) -> f32 {
    let mut half = 8;
    let mut a = a;
    while half > 0 {
        for i in 0..half {
            a[i] += a[i + half];
        }
        half /= 2;
    }
    a[0]
}

/// The lanes' maximum.
#[inline(always)]
pub(crate) fn max(a: V) -> f32 {
    let mut half = 8;
    let mut a = a;
    while half > 0 {
        for i in 0..half {
            a[i] = if a[i] > a[i + half] { a[i] } else { a[i + half] };
        }
        half /= 2;
    }
    a[0]
}

/// Folds `x` into one vector accumulator, the tail padded with `pad`.
#[inline(always)]
pub(crate) fn fold(x: &[f32], init: V, pad: f32, f: impl Fn(V, V) -> V) -> V {
    let mut acc = init;
    let chunks = x.chunks_exact(LANES);
    let tail = chunks.remainder();
    for chunk in chunks {
        acc = f(acc, load(chunk));
    }
    if !tail.is_empty() {
        let mut v = splat(pad);
        v[..tail.len()].copy_from_slice(tail);
        acc = f(acc, v);
    }
    acc
}

/// Folds two slices of one length, the tail padded with zeros.
#[inline(always)]
pub(crate) fn fold2(x: &[f32], y: &[f32], init: V, f: impl Fn(V, V, V) -> V) -> V {
    let mut acc = init;
    let (cx, cy) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    let (tx, ty) = (cx.remainder(), cy.remainder());
    for (a, b) in cx.zip(cy) {
        acc = f(acc, load(a), load(b));
    }
    if !tx.is_empty() {
        let (mut a, mut b) = (splat(0.0), splat(0.0));
        a[..tx.len()].copy_from_slice(tx);
        b[..ty.len()].copy_from_slice(ty);
        acc = f(acc, a, b);
    }
    acc
}

/// `Σ x·y` in one fixed order.
#[inline(always)]
pub(crate) fn dot(x: &[f32], y: &[f32]) -> f32 {
    sum(fold2(
        x,
        y,
        splat(0.0),
        #[inline(always)]
        |acc, a, b| fma(a, b, acc),
    ))
}

/// `max x`, `-inf` of nothing.
#[inline(always)]
pub(crate) fn maximum(x: &[f32]) -> f32 {
    max(fold(
        x,
        splat(f32::NEG_INFINITY),
        f32::NEG_INFINITY,
        #[inline(always)]
        |acc, a| {
            let mut v = acc;
            for i in 0..LANES {
                v[i] = if a[i] > v[i] { a[i] } else { v[i] };
            }
            v
        },
    ))
}

/// `e^x` within 2 units in the last place on [-87.3, 88]; 0 below, `e^88` above; a NaN stays a NaN.
///
/// Cody and Waite's reduction `x = n ln 2 + r`, then a polynomial of degree 6 in `r`.
#[inline(always)]
pub(crate) fn exp1(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer
    let c = if x < -87.3 { -87.3 } else { x };
    let c = if c > 88.0 { 88.0 } else { c };
    let t = c.mul_add(std::f32::consts::LOG2_E, MAGIC);
    let n = t - MAGIC;
    let r = n.mul_add(-0.693_359_4, c);
    let r = n.mul_add(2.121_944_4e-4, r);
    let mut p = 1.388_887_8e-3_f32;
    p = p.mul_add(r, 8.333_31e-3);
    p = p.mul_add(r, 4.166_666_4e-2);
    p = p.mul_add(r, 1.666_666_7e-1);
    p = p.mul_add(r, 0.5);
    p = p.mul_add(r, 1.0);
    p = p.mul_add(r, 1.0);
    // The integer stands in the low bits of `t`.
    let n = (t.to_bits() as i32).wrapping_sub(MAGIC.to_bits() as i32);
    let y = p * f32::from_bits((n.wrapping_add(127) << 23) as u32);
    if x < -87.3 { 0.0 } else { y }
}

#[inline(always)]
pub(crate) fn exp(x: V) -> V {
    map(x, exp1)
}

/// Replaces every vector of `x` by `f` of it; the tail is padded with `pad`, so that it costs one
/// vector and not up to fifteen scalars.
#[inline(always)]
pub(crate) fn update(x: &mut [f32], pad: f32, mut f: impl FnMut(V) -> V) {
    let mut chunks = x.chunks_exact_mut(LANES);
    for chunk in &mut chunks {
        let v = f(load(chunk));
        chunk.copy_from_slice(&v);
    }
    let tail = chunks.into_remainder();
    if !tail.is_empty() {
        let mut v = splat(pad);
        v[..tail.len()].copy_from_slice(tail);
        let v = f(v);
        let n = tail.len();
        tail.copy_from_slice(&v[..n]);
    }
}

/// `x[i] = e^(x[i] - shift)`; returns their sum in one fixed order.
#[inline(always)]
pub(crate) fn exp_shifted(x: &mut [f32], shift: f32) -> f32 {
    let mut acc = splat(0.0);
    update(
        x,
        f32::NEG_INFINITY,
        #[inline(always)]
        |v| {
            let v = exp(map(
                v,
                #[inline(always)]
                |a| a - shift,
            ));
            for i in 0..LANES {
                acc[i] += v[i];
            }
            v
        },
    );
    sum(acc)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponential_is_accurate_over_its_range() {
        let mut worst = 0.0f64;
        let mut x = -87.0f32;
        while x < 88.0 {
            let (got, want) = (f64::from(dispatch(|| exp1(x))), f64::from(x).exp());
            worst = worst.max((got - want).abs() / want);
            x += 0.0137;
        }
        assert!(worst < 2.5e-7, "relative error {worst:e}");
        assert_eq!(exp1(-100.0), 0.0);
        assert_eq!(exp1(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp1(0.0), 1.0);
        assert!(exp1(f32::NAN).is_nan());
        assert!(exp1(1000.0) > 1.6e38);
    }

    #[test]
    fn reductions_cover_the_tail() {
        for n in [0, 1, 15, 16, 17, 31, 33, 100] {
            let x: Vec<f32> = (0..n).map(|i| (i as f32 * 0.37).sin()).collect();
            let want: f64 = x.iter().map(|&a| f64::from(a) * f64::from(a)).sum();
            assert!((f64::from(dispatch(|| dot(&x, &x))) - want).abs() < 1e-4);
            let top = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(dispatch(|| maximum(&x)), top);
            let mut e = x.clone();
            let total = dispatch(|| exp_shifted(&mut e, 0.5));
            let want: f64 = x.iter().map(|&a| (f64::from(a) - 0.5).exp()).sum();
            assert!((f64::from(total) - want).abs() < 1e-4);
        }
    }
}
