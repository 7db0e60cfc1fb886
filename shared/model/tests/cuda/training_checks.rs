//! Training on a device against the CPU: the gradient of every tensor, the sums and the log-probabilities of a
//! batch, and the weights after optimizer steps.

use std::rc::Rc;

use cognate_model::cuda::{self, Accelerator, Purpose};
use cognate_model::{
    AdamW, AdamWConfig, Batch, KlEstimator, LlamaConfig, Model, Objective, PolicyTerms, RatioLevel, StepSums,
    Trainer, ValueHead,
};

use super::world::{Documents, distance, documents, model, on, values};

/// Relative error of a gradient that passes through two layers in bf16; half a step is 2^-9, and some
/// twenty roundings lie on the way.
const GRADIENT: f64 = 0.04;

/// Both sides' gradients, sums and log-probabilities of one batch.
fn compare(cpu: &Model, gpu: &cuda::Model, batch: &Batch<'_>, objective: &Objective, head: bool) -> f64 {
    let mut want = Trainer::new(cpu, 0);
    // Too small an arena, and chunks of fewer rows than there are: both must show nowhere.
    let mut got = cuda::Trainer::with_chunk(gpu, 8, Some(40)).unwrap();
    let valued = || {
        let mut head = ValueHead::new(cpu.config());
        head.weights_mut().iter_mut().enumerate().for_each(|(i, w)| *w = (i as f32).sin() * 0.3);
        head
    };
    if head {
        want.set_value_head(valued());
        got.set_value_head(valued());
    }
    let sums = want.accumulate(cpu, batch, objective).unwrap();
    let found = got.accumulate(gpu, batch, objective).unwrap();
    same_sums(&found, &sums);
    let close = |name: &str, got: &[f32], want: &[f32], allowed: f32| {
        for (t, (g, w)) in got.iter().zip(want).enumerate() {
            assert!((g - w).abs() < allowed, "{name} of token {t} is {g}, the CPU says {w}");
        }
        assert_eq!(got.len(), want.len());
    };
    close("log-probability", got.logprobs(), want.logprobs(), 0.15);
    close("entropy", got.entropies(), want.entropies(), 0.1);
    close("value", got.values(), want.values(), 0.1);
    let mut worst = 0.0f64;
    for slot in gpu.slots() {
        let want = &want.gradients().tensors()[slot.tensor].f32()[slot.offset..slot.offset + slot.len()];
        let error = distance(&got.gradient(gpu, &slot).unwrap(), want);
        assert!(error < GRADIENT, "the gradient of {} is {error:.4} away", slot.name);
        worst = worst.max(error);
    }
    if let (Some(got), Some(want)) = (got.value_head(), want.value_head()) {
        assert!(distance(got.gradient(), want.gradient()) < GRADIENT, "the value head's gradient");
    }
    println!("worst gradient {worst:.4}");
    worst
}

fn same_sums(got: &StepSums, want: &StepSums) {
    let pairs = [
        ("loss", got.loss, want.loss, 0.02),
        ("cross-entropy", got.cross_entropy, want.cross_entropy, 0.02),
        ("policy", got.policy, want.policy, 0.05),
        ("KL", got.kl, want.kl, 0.1),
        ("entropies", got.entropy_sum, want.entropy_sum, 0.02),
        ("log-probabilities", got.logprob_sum, want.logprob_sum, 0.02),
        ("z-loss", got.z_loss, want.z_loss, 0.02),
        ("value", got.value, want.value, 0.05),
        ("tokens", got.tokens, want.tokens, 0.0),
        ("policy tokens", got.policy_tokens, want.policy_tokens, 0.0),
        ("value tokens", got.value_tokens, want.value_tokens, 0.0),
    ];
    for (name, got, want, share) in pairs {
        assert!((got - want).abs() <= share * want.abs(), "{name}: {got}, the CPU says {want}");
    }
}

/// Cross-entropy at a temperature, with a z-loss; `wrong_angle`: the bounds see a rotation that is off.
pub fn supervised(device: &Rc<dyn Accelerator>, config: &LlamaConfig, scale: u32, wrong_angle: bool) {
    let d = documents(1, scale);
    let cross_entropy = d.weights(|t| 0.5 + (t % 7) as f32 / 10.0, |t| t % 9 > 1);
    let batch = Batch { tokens: &d.tokens, starts: &d.starts, cross_entropy: &cross_entropy, policy: None };
    let objective = Objective {
        cross_entropy_count: 100.0 * f64::from(scale),
        z_loss: 0.01,
        temperature: 0.9,
        ..Objective::default()
    };
    let cpu = model(config, 5);
    compare(&cpu, &on(&cpu, device, Purpose::Training), &batch, &objective, false);
    if wrong_angle {
        let wrong = LlamaConfig { rope_theta: 2.0 * config.rope_theta, ..config.clone() };
        let gpu = on(&model(&wrong, 5), device, Purpose::Training);
        let mut want = Trainer::new(&cpu, 0);
        want.accumulate(&cpu, &batch, &objective).unwrap();
        let mut got = cuda::Trainer::new(&gpu, d.tokens.len()).unwrap();
        got.accumulate(&gpu, &batch, &objective).unwrap();
        let query = &gpu.slots()[2];
        let want = &want.gradients().tensors()[query.tensor].f32()[query.offset..][..query.len()];
        assert!(distance(&got.gradient(&gpu, query).unwrap(), want) > 2.0 * GRADIENT);
    }
}

/// Every term of reinforcement learning, by token and by sequence; and scoring, which old and reference
/// policies are made of.
pub fn reinforced(device: &Rc<dyn Accelerator>, config: &LlamaConfig, scale: u32) {
    let cpu = model(config, 6);
    let gpu = on(&cpu, device, Purpose::Training);
    let d = documents(2, scale);
    let mut scored = Trainer::new(&cpu, 0);
    scored.score(&cpu, &d.tokens, &d.starts, 1.0).unwrap();
    let near = |reach: f32, k: f32| -> Vec<f32> {
        scored.logprobs().iter().enumerate().map(|(t, p)| p + reach * (t as f32 * k).sin()).collect()
    };
    let (sampler, old, reference) = (near(0.1, 0.7), near(0.1, 1.3), near(0.6, 2.1));
    let scale = scale as usize;
    let answers = |t: usize| (30 * scale..70 * scale).contains(&t) || (80 * scale..116 * scale).contains(&t);
    let weight = d.weights(|_| 1.0, answers);
    let advantage = d.weights(|t| if t < 70 * scale { 1.0 } else { -0.7 }, answers);
    let zeros = vec![0.0; d.tokens.len()];
    let policy = PolicyTerms {
        weight: &weight,
        advantage: &advantage,
        sampler: &sampler,
        old: &old,
        kl_weight: &weight,
        reference: &reference,
        value_weight: &weight,
        value_old: &zeros,
        value_target: &advantage,
    };
    let batch = Batch { tokens: &d.tokens, starts: &d.starts, cross_entropy: &[], policy: Some(policy) };
    let n = weight.iter().filter(|w| **w != 0.0).count() as f64;
    let plain = Objective {
        policy_count: n,
        kl_count: 20.0 * n,
        value_count: n,
        clip_low: 0.4,
        clip_high: 0.4,
        importance_cap: Some(2.0),
        kl: KlEstimator::K2,
        ..Objective::default()
    };
    compare(&cpu, &gpu, &batch, &plain, true);
    compare(&cpu, &gpu, &batch, &Objective { ratio: RatioLevel::Sequence, ..plain }, true);
    let mut got = cuda::Trainer::new(&gpu, 64).unwrap();
    got.score(&gpu, &d.tokens, &d.starts, 1.0).unwrap();
    let worst = got.logprobs().iter().zip(scored.logprobs()).map(|(g, w)| (g - w).abs());
    assert!(worst.fold(0.0, f32::max) < 0.15);
}

pub const ADAMW: AdamWConfig = AdamWConfig { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };

/// Two micro-batches of a step, cross-entropy on every token.
pub fn micro_batches(scale: u32) -> ([Documents; 2], Vec<f32>, Objective) {
    let both = [documents(3, scale), documents(4, scale)];
    let weights = both[0].weights(|_| 1.0, |_| true);
    let count = 2 * weights.iter().filter(|w| **w != 0.0).count();
    (both, weights, Objective { cross_entropy_count: count as f64, ..Objective::default() })
}

/// The gradients of a step's first `count` micro-batches of two.
pub fn accumulate(model: &cuda::Model, trainer: &mut cuda::Trainer, scale: u32, count: usize) {
    let (both, weights, objective) = micro_batches(scale);
    for d in &both[..count] {
        let batch = Batch { tokens: &d.tokens, starts: &d.starts, cross_entropy: &weights, policy: None };
        trainer.accumulate(model, &batch, &objective).unwrap();
    }
}

/// The same on the CPU.
pub fn cpu_accumulate(model: &Model, trainer: &mut Trainer, scale: u32) {
    let (both, weights, objective) = micro_batches(scale);
    for d in &both {
        let batch = Batch { tokens: &d.tokens, starts: &d.starts, cross_entropy: &weights, policy: None };
        trainer.accumulate(model, &batch, &objective).unwrap();
    }
}

/// One step; the gradient's norm.
pub fn step(
    model: &mut cuda::Model,
    trainer: &mut cuda::Trainer,
    optimizer: &mut cuda::AdamW,
    scale: u32,
) -> f64 {
    accumulate(model, trainer, scale, 2);
    optimizer.step(model, trainer, 2e-3, Some(1.0)).unwrap().gradient_norm
}

fn cpu_step(model: &mut Model, trainer: &mut Trainer, optimizer: &mut AdamW, scale: u32) -> f64 {
    cpu_accumulate(model, trainer, scale);
    optimizer.step(model, trainer, 2e-3, Some(1.0)).gradient_norm
}

pub fn start(cpu: &Model, device: &Rc<dyn Accelerator>) -> (cuda::Model, cuda::Trainer, cuda::AdamW) {
    let model = on(cpu, device, Purpose::Training);
    let trainer = cuda::Trainer::new(&model, 136).unwrap();
    let optimizer = cuda::AdamW::new(&model, ADAMW).unwrap();
    (model, trainer, optimizer)
}

/// Three optimizer steps on the CPU, to hold devices to.
pub struct Steps {
    scale: u32,
    first: Model,
    last: Model,
    norms: Vec<f64>,
}

impl Steps {
    pub fn new(config: &LlamaConfig, scale: u32) -> Self {
        let first = model(config, 7);
        let mut last = first.clone();
        let (mut trainer, mut optimizer) = (Trainer::new(&last, 136), AdamW::new(&last, ADAMW));
        let norms = (0..3).map(|_| cpu_step(&mut last, &mut trainer, &mut optimizer, scale)).collect();
        Steps { scale, first, last, norms }
    }

    /// The same steps on `device`; the bits of all weights after them.
    pub fn check(&self, device: &Rc<dyn Accelerator>) -> Vec<Vec<u32>> {
        let (mut model, mut trainer, mut optimizer) = start(&self.first, device);
        for (i, want) in self.norms.iter().enumerate() {
            let norm = step(&mut model, &mut trainer, &mut optimizer, self.scale);
            assert!((norm - want).abs() < 0.02 * want, "step {i}: norm {norm}, the CPU says {want}");
        }
        let (mut bits, mut worst) = (Vec::new(), 0.0f64);
        for slot in model.slots() {
            let got = model.values(&slot).unwrap();
            let (from, to) = (values(&self.first, &slot), values(&self.last, &slot));
            let moved = |to: &[f32]| -> Vec<f32> { to.iter().zip(from).map(|(t, f)| t - f).collect() };
            assert!(distance(to, from) > 1e-3, "{} has not moved on the CPU", slot.name);
            // AdamW makes much of small gradients, so a few of them go another way.
            let error = distance(&moved(&got), &moved(to));
            assert!(error < 0.25, "{} moved {error:.3} otherwise", slot.name);
            worst = worst.max(error);
            bits.push(got.iter().map(|x| x.to_bits()).collect());
        }
        println!("worst movement {worst:.4}");
        bits
    }
}
