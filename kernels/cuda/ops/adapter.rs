//! Low-rank adapters: a factor as an operand, and its merge into frozen weights.

use super::{Done, line, run};
use crate::cuda::launch::{Arguments, Element, Engine, Matrix};

/// Exact fp32 weights: bf16, and the 16 bits that it leaves of each.
#[derive(Clone, Copy, Debug)]
pub struct Master {
    pub weight: Matrix,
    pub remainder: Matrix,
}

impl Master {
    fn expect(self, name: &str, like: Matrix) -> Self {
        self.weight.expect(name, Element::Bf16, like.rows, like.cols);
        self.remainder.expect(name, Element::U16, like.rows, like.cols);
        self
    }
}

/// `out = scale x` in bf16 of fp32, of the same shape.
pub fn adapter_operand(on: &dyn Engine, out: Matrix, x: Matrix, scale: f32) -> Done {
    x.expect("x", Element::F32, out.rows, out.cols);
    out.expect("out", Element::Bf16, x.rows, x.cols);
    let n = out.len();
    assert!(n.is_multiple_of(Element::Bf16.pack()), "factors are padded to 16 bytes");
    let arguments = Arguments::default().matrix(out).matrix(x).value(scale).value(n as u64);
    run(on, "adapter", "adapter_operand", line(n / Element::Bf16.pack(), 256), arguments)
}

/// `w = base + scale delta`, `delta` in fp32, all of the same shape.
pub fn adapter_merge(on: &dyn Engine, w: Master, base: Master, delta: Matrix, scale: f32) -> Done {
    delta.expect("delta", Element::F32, w.weight.rows, w.weight.cols);
    let (w, base) = (w.expect("w", delta), base.expect("base", delta));
    let n = delta.len();
    assert!(n.is_multiple_of(Element::Bf16.pack()), "rows are whole 16 bytes");
    let arguments = Arguments::default()
        .matrix(w.weight)
        .matrix(w.remainder)
        .matrix(base.weight)
        .matrix(base.remainder)
        .matrix(delta)
        .value(scale)
        .value(n as u64);
    run(on, "adapter", "adapter_merge", line(n / Element::Bf16.pack(), 256), arguments)
}
