//! Adapters on a device against the CPU's: norms, merged matrices and files after some steps.

use std::collections::HashMap;
use std::rc::Rc;

use cognate_model::cuda::{self, Accelerator, Purpose};
use cognate_model::{LlamaConfig, Lora, LoraConfig, Model, Slot, Trainer};

use super::training_checks::{ADAMW, accumulate, cpu_accumulate};
use super::world::{distance, model, on, values};

const STEPS: usize = 4;
const LR: f32 = 5e-3;

/// A rank that is not a multiple of 8; of the fused matrices a part, the whole, and none.
pub fn adapters() -> LoraConfig {
    let targets = ["q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
    LoraConfig { rank: 3, alpha: 6.0, targets: targets.map(str::to_owned).to_vec() }
}

fn adapted(slot: &Slot) -> bool {
    adapters().targets.iter().any(|target| slot.name.contains(target.as_str()))
}

/// The tensors of a safetensors file.
fn tensors(path: &std::path::Path) -> HashMap<String, Vec<f32>> {
    let bytes = std::fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let values = |data: &[u8]| data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    file.tensors().into_iter().map(|(name, view)| (name, values(view.data()))).collect()
}

/// `W0 + α/r B A` in double precision, from the files that PEFT reads.
fn merged(base: &[f32], slot: &Slot, factors: &HashMap<String, Vec<f32>>) -> Vec<f32> {
    let module = slot.name.strip_suffix(".weight").unwrap();
    let get = |letter| &factors[&format!("base_model.model.{module}.lora_{letter}.weight")];
    let (a, b, LoraConfig { rank, alpha, .. }) = (get('A'), get('B'), adapters());
    let cols = slot.shape[1];
    let value = |(i, w): (usize, &f32)| {
        let (row, col) = (i / cols, i % cols);
        let sum: f64 = (0..rank).map(|r| f64::from(b[row * rank + r]) * f64::from(a[r * cols + col])).sum();
        (f64::from(*w) + f64::from(alpha) / rank as f64 * sum) as f32
    };
    base.iter().enumerate().map(value).collect()
}

/// A model on a device with its adapters.
pub struct Learner {
    pub model: cuda::Model,
    pub trainer: cuda::Trainer,
    pub lora: cuda::Lora,
}

impl Learner {
    pub fn new(base: &Model, device: &Rc<dyn Accelerator>) -> Self {
        let model = on(base, device, Purpose::Training);
        let lora = cuda::Lora::new(&model, adapters(), 1).unwrap();
        let trainer = cuda::Trainer::new(&model, 136).unwrap();
        Learner { model, trainer, lora }
    }

    /// One step; the gradient's norm.
    pub fn step(&mut self, scale: u32) -> f64 {
        accumulate(&self.model, &mut self.trainer, scale, 2);
        self.update()
    }

    /// The optimizer's part of it.
    pub fn update(&mut self) -> f64 {
        let Learner { model, trainer, lora } = self;
        lora.step(model, trainer, ADAMW, LR, Some(1.0)).unwrap().gradient_norm
    }

    /// The bits of every weight.
    pub fn bits(&self) -> Vec<Vec<u32>> {
        let bits = |slot: &Slot| self.model.values(slot).unwrap().iter().map(|x| x.to_bits()).collect();
        self.model.slots().iter().map(bits).collect()
    }
}

/// Steps of adapters on the CPU, to hold devices to.
pub struct Adapters {
    scale: u32,
    base: Model,
    last: Model,
    norms: Vec<f64>,
}

impl Adapters {
    pub fn new(config: &LlamaConfig, scale: u32) -> Self {
        let base = model(config, 21);
        let mut last = base.clone();
        let (mut trainer, mut lora) = (Trainer::new(&last, 136), Lora::new(&last, adapters(), 1).unwrap());
        let mut step = || {
            cpu_accumulate(&last, &mut trainer, scale);
            lora.step(&mut last, &mut trainer, ADAMW, LR, Some(1.0)).gradient_norm
        };
        let norms = (0..STEPS).map(|_| step()).collect();
        Adapters { scale, base, last, norms }
    }

    /// The same steps on `device`; the bits of all weights after them.
    pub fn check(&self, device: &Rc<dyn Accelerator>) -> Vec<Vec<u32>> {
        let mut learner = Learner::new(&self.base, device);
        learner.lora.merge(&mut learner.model).unwrap();
        for slot in learner.model.slots() {
            let same = learner.model.values(&slot).unwrap() == values(&self.base, &slot);
            assert!(same, "{}: B is zero at first", slot.name);
        }
        for (i, want) in self.norms.iter().enumerate() {
            let norm = learner.step(self.scale);
            assert!((norm - want).abs() < 0.02 * want, "step {i}: norm {norm}, the CPU says {want}");
        }
        let dir = tempfile::tempdir().unwrap();
        learner.lora.save_adapter(dir.path(), "base").unwrap();
        let factors = tensors(&dir.path().join("adapter_model.safetensors"));
        assert_eq!(factors.len(), 2 * learner.model.slots().iter().filter(|slot| adapted(slot)).count());
        let mut worst = 0.0f64;
        for slot in learner.model.slots() {
            let got = learner.model.values(&slot).unwrap();
            let (from, to) = (values(&self.base, &slot), values(&self.last, &slot));
            if !adapted(&slot) {
                assert!(got == from, "{} is not adapted and has moved", slot.name);
                continue;
            }
            for (got, want) in got.iter().zip(merged(from, &slot, &factors)) {
                assert!((got - want).abs() <= 1e-6, "{}: {got} is not the files' {want}", slot.name);
            }
            let moved = |to: &[f32]| -> Vec<f32> { to.iter().zip(from).map(|(t, f)| t - f).collect() };
            assert!(distance(to, from) > 1e-3, "{} has not moved on the CPU", slot.name);
            // AdamW makes much of small gradients, so a few of them go another way.
            let error = distance(&moved(&got), &moved(to));
            assert!(error < 0.25, "{} moved {error:.3} otherwise", slot.name);
            worst = worst.max(error);
        }
        println!("worst movement {worst:.4}");
        learner.bits()
    }
}
