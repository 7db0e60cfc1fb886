//! AdamW and its state on a device.

use bytemuck::{NoUninit, Zeroable};

use super::{Done, line, run};
use crate::cuda::launch::{Arguments, Element, Engine, Matrix};

/// What one update of AdamW is about, as the kernel reads it; see `adamw::Update`.
#[derive(Clone, Copy, Debug, Zeroable, NoUninit)]
#[repr(C)]
pub struct Step {
    pub lr: f32,
    pub beta1: f32,
    pub beta2: f32,
    pub eps: f32,
    pub weight_decay: f32,
    pub bias1: f32,
    pub bias2: f32,
    /// Counter of the random bits, with the place in the tensor.
    pub step: u32,
    /// Key of the random bits; give each tensor its own.
    pub seed: u64,
    /// 16-byte packs of weights in the tensor before what is updated: the random bits are those of the whole.
    pub first: u64,
}

/// One tensor's state. Lengths agree and are whole 16 bytes, padded with zeros.
#[derive(Clone, Copy, Debug)]
pub struct State {
    /// bf16 or fp32.
    pub w: Matrix,
    /// 16 bits a weight, which make the bf16 weight an exact fp32 master; without them bf16 weights
    /// are rounded at random.
    pub remainder: Option<Matrix>,
    /// The gradient, in the weight's type; cleared.
    pub g: Matrix,
    /// Moments, bf16 or fp32.
    pub m: Matrix,
    pub v: Matrix,
}

/// Updates one tensor, the gradient times the clip factor that [`grad_norm`] left in `norm`.
pub fn adamw(on: &dyn Engine, state: State, norm: Matrix, step: Step) -> Done {
    let State { w, remainder, g, m, v } = state;
    let n = w.len();
    assert!(n.is_multiple_of(w.element.pack()), "tensors are padded to 16 bytes");
    g.expect("g", w.element, w.rows, w.cols);
    v.expect("v", m.element, w.rows, w.cols);
    m.expect("m", m.element, w.rows, w.cols);
    norm.expect("norm", Element::F32, 1, 2);
    if let Some(rest) = remainder {
        rest.expect("remainder", Element::U16, w.rows, w.cols);
    }
    let name = match (w.element, m.element, remainder) {
        (Element::F32, Element::F32, None) => "adamw_f32",
        (Element::Bf16, Element::Bf16, Some(_)) => "adamw_bf16",
        (Element::Bf16, Element::F32, Some(_)) => "adamw_bf16_f32",
        (Element::Bf16, Element::Bf16, None) => "adamw_bf16_stochastic",
        (w, m, _) => panic!("no AdamW for weights in {w:?} and moments in {m:?}"),
    };
    let mut arguments = Arguments::default().matrix(w);
    if let Some(rest) = remainder {
        arguments = arguments.matrix(rest);
    }
    let factor = norm.address() + Element::F32.size() as u64;
    let arguments = arguments.matrix(g).matrix(m).matrix(v).value(factor).value(n as u64).value(step);
    run(on, "adamw", name, line(n / w.element.pack(), 256), arguments)
}
