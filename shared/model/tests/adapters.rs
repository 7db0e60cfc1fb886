//! Adapters and frozen tensors: what is trained moves as it should, and nothing else does.

#[expect(dead_code, reason = "shared with the tests of the model")]
mod reference;

use cognate_model::{
    AdamW, AdamWConfig, Batch, LlamaConfig, Lora, LoraConfig, Model, ModelError, Objective, Trainer,
};
use reference::{Named, forward, named};

const STARTS: [u32; 3] = [0, 8, 14];

fn model() -> Model {
    let config = LlamaConfig {
        vocab_size: 29,
        hidden_size: 16,
        intermediate_size: 24,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 6,
        rope_theta: 100.0,
        initializer_range: 0.3,
        ..LlamaConfig::default()
    };
    Model::init(&config, 11).unwrap()
}

fn config(targets: &[&str]) -> LoraConfig {
    LoraConfig { rank: 3, alpha: 6.0, targets: targets.iter().map(|t| (*t).to_owned()).collect() }
}

fn tokens() -> Vec<u32> {
    (0..14).map(|t| (t * t * 7 + t * 13 + 5) % 29).collect()
}

fn weights() -> Vec<f32> {
    (0..14).map(|t| f32::from(u8::from(t != 0 && t != 8))).collect()
}

fn objective() -> Objective {
    Objective { cross_entropy_count: 12.0, ..Objective::default() }
}

fn accumulate(model: &Model, trainer: &mut Trainer) -> f64 {
    let (tokens, weights) = (tokens(), weights());
    let batch = Batch { tokens: &tokens, starts: &STARTS, cross_entropy: &weights, policy: None };
    trainer.accumulate(model, &batch, &objective()).unwrap().loss
}

fn bits(model: &Model) -> Vec<u32> {
    model.weights().tensors().iter().flat_map(|t| t.f32().iter().map(|x| x.to_bits())).collect()
}

#[test]
fn adapters_learn_and_only_their_matrices_move() {
    let base = model();
    let mut model = base.clone();
    let mut lora = Lora::new(&model, config(&["q_proj", "down_proj"]), 1).unwrap();
    assert_eq!(lora.parameters(), 2 * (3 * (16 + 24) + 3 * (24 + 16)));
    lora.merge(&mut model);
    assert!(bits(&model) == bits(&base), "B is zero at first");
    let mut trainer = Trainer::new(&model, 0);
    let mut losses = Vec::new();
    for _ in 0..40 {
        losses.push(accumulate(&model, &mut trainer));
        let report = lora.step(&mut model, &mut trainer, AdamWConfig::default(), 1e-2, Some(1.0));
        assert!(report.gradient_norm > 0.0);
    }
    assert!(losses[39] < 0.7 * losses[0], "{losses:?}");
    let (before, after) = (named(&base), named(&model));
    for (name, values) in &after {
        let adapted = name.contains("q_proj") || name.contains("down_proj");
        assert_eq!(*values != before[name], adapted, "{name}");
    }
}

/// The loss with one adapted matrix `W0 + d`.
fn loss64(config: &LlamaConfig, weights: &Named) -> f64 {
    let tokens = tokens();
    let mut loss = 0.0;
    for span in STARTS.windows(2) {
        let document = &tokens[span[0] as usize..span[1] as usize];
        let (_, logits) = forward(config, weights, document);
        for (l, &t) in logits.iter().zip(&document[1..]) {
            loss -= l[t as usize] - l.iter().map(|x| x.exp()).sum::<f64>().ln();
        }
    }
    loss / 12.0
}

#[test]
fn one_step_is_that_of_the_low_rank_gradient() {
    // With β1 = β2 = 0 and a large eps the step is lr g / (|g| + eps) ~ lr g / eps: it shows the gradient.
    let plain = AdamWConfig { beta1: 0.0, beta2: 0.0, eps: 1e3, weight_decay: 0.0 };
    let base = model();
    let mut model = base.clone();
    let mut lora = Lora::new(&model, config(&["v_proj"]), 1).unwrap();
    let mut trainer = Trainer::new(&model, 0);
    // Once so that B is not zero, then the step that is looked at.
    accumulate(&model, &mut trainer);
    lora.step(&mut model, &mut trainer, AdamWConfig::default(), 0.05, None);
    let dir = tempfile::tempdir().unwrap();
    let factors = |lora: &Lora| -> std::collections::HashMap<String, Vec<f64>> {
        lora.save_adapter(dir.path(), "base").unwrap();
        let bytes = std::fs::read(dir.path().join("adapter_model.safetensors")).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let values =
            |data: &[u8]| data.as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect();
        file.tensors().into_iter().map(|(name, view)| (name, values(view.data()))).collect()
    };
    let before = factors(&lora);
    let start = named(&base);
    let merged = |factors: &std::collections::HashMap<String, Vec<f64>>| {
        let mut weights = start.clone();
        for layer in 0..2 {
            let name = format!("model.layers.{layer}.self_attn.v_proj");
            let get = |letter| &factors[&format!("base_model.model.{name}.lora_{letter}.weight")];
            let (a, b) = (get('A'), get('B'));
            for (i, w) in weights.get_mut(&format!("{name}.weight")).unwrap().iter_mut().enumerate() {
                let (row, col) = (i / 16, i % 16);
                *w += 2.0 * (0..3).map(|r| b[row * 3 + r] * a[r * 16 + col]).sum::<f64>();
            }
        }
        weights
    };
    // What stands in the model is what PEFT makes of the files.
    for (name, values) in named(&model) {
        for (got, want) in values.iter().zip(&merged(&before)[&name]) {
            assert!((got - want).abs() < 1e-6, "{name}");
        }
    }
    accumulate(&model, &mut trainer);
    lora.step(&mut model, &mut trainer, plain, 1.0, None);
    let after = factors(&lora);
    for (name, values) in &before {
        let (mut error, mut norm) = (0.0, 0.0);
        for i in 0..values.len() {
            let at = |h: f64| {
                let mut moved = before.clone();
                moved.get_mut(name).unwrap()[i] += h;
                loss64(base.config(), &merged(&moved))
            };
            let want = (at(1e-5) - at(-1e-5)) / 2e-5;
            let got = (values[i] - after[name][i]) * 1e3;
            error += (got - want).powi(2);
            norm += want.powi(2);
        }
        // Weights of about 0.1 hold a step of 1e-5 to three digits.
        assert!(norm > 0.0 && error < 1e-4 * norm, "{name}: {error:e} of {norm:e}");
    }
}

#[test]
fn adapters_resume_bitwise() {
    let base = model();
    let all = config(&["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("adapters.safetensors");
    let run = |through_file: bool| {
        let mut model = base.clone();
        let mut lora = Lora::new(&model, all.clone(), 1).unwrap();
        let mut trainer = Trainer::new(&model, 0);
        for _ in 0..6 {
            accumulate(&model, &mut trainer);
            lora.step(&mut model, &mut trainer, AdamWConfig::default(), 1e-2, Some(1.0));
            if through_file {
                lora.save(&path).unwrap();
                model = base.clone();
                lora = Lora::open(&path, &mut model, all.clone()).unwrap();
            }
        }
        bits(&model)
    };
    assert!(run(true) == run(false));
    let other = LoraConfig { rank: 4, ..all };
    assert!(matches!(Lora::open(&path, &mut base.clone(), other), Err(ModelError::Shape { .. })));
    for wrong in
        [config(&["qproj"]), config(&["embed_tokens"]), LoraConfig { rank: 0, ..config(&["q_proj"]) }]
    {
        assert!(Lora::new(&base, wrong, 1).is_err_and(|e| e.is_data()));
    }
}

#[test]
fn frozen_tensors_keep_their_bits_and_the_rest_moves() {
    let base = model();
    let frozen =
        |name: &str| name.contains("layers.0.") || name.contains("k_proj") || name == "model.norm.weight";
    for weight_decay in [0.0, 0.1] {
        let mut model = base.clone();
        let mut trainer = Trainer::new(&model, 0);
        let mut optimizer = AdamW::new(&model, AdamWConfig { weight_decay, ..AdamWConfig::default() });
        assert!(optimizer.freeze(&model, frozen) > 0);
        for _ in 0..3 {
            accumulate(&model, &mut trainer);
            let all = trainer.gradient_norm();
            let report = optimizer.step(&mut model, &mut trainer, 1e-2, Some(1.0));
            assert!(report.gradient_norm < all, "frozen gradients are no part of the norm");
        }
        let (before, after) = (named(&base), named(&model));
        for (name, values) in &after {
            assert_eq!(*values == before[name], frozen(name), "{name}, decay {weight_decay}");
        }
    }
}
