//! Against transformers: random tiny models that it saved, and what it computed of them (`pipelines/parity.py`).
//! Each thing that could be left out of a model must break the comparison.

#[expect(dead_code, reason = "shared with the tests of the model")]
mod reference;

use std::path::{Path, PathBuf};

use cognate_model::{
    AdamW, AdamWConfig, Batch, Decoder, Dtype, Hidden, LlamaConfig, Model, Objective, Request, Scaling,
    Tensor, Trainer,
};
use reference::{forward_masked, named};
use safetensors::SafeTensors;
use serde_json::Value;

/// Relative norm of the difference that single precision may make (seen: 3e-6 at most).
const TOLERANCE: f64 = 2e-5;
/// What a part that is left out must make at least.
const BROKEN: f64 = 1e-2;

struct Fixture {
    dir: PathBuf,
    expected: Vec<u8>,
    run: Value,
    tokens: Vec<u32>,
    weights: Vec<f32>,
    starts: Vec<u32>,
}

impl Fixture {
    fn all() -> Vec<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/parity");
        let mut dirs: Vec<PathBuf> = std::fs::read_dir(root).unwrap().map(|e| e.unwrap().path()).collect();
        dirs.sort();
        assert_eq!(dirs.len(), 7);
        dirs.iter().map(|dir| Self::read(dir)).collect()
    }

    fn named(name: &str) -> Self {
        Self::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/parity").join(name))
    }

    fn read(dir: &Path) -> Self {
        let run: Value = serde_json::from_slice(&std::fs::read(dir.join("run.json")).unwrap()).unwrap();
        let list = |key: &str| run[key].as_array().unwrap().iter().map(|x| x.as_f64().unwrap());
        let mut starts = vec![0u32];
        list("documents").for_each(|n| starts.push(starts[starts.len() - 1] + n as u32));
        Fixture {
            dir: dir.into(),
            expected: std::fs::read(dir.join("expected.safetensors")).unwrap(),
            tokens: list("tokens").map(|t| t as u32).collect(),
            weights: list("weights").map(|w| w as f32).collect(),
            starts,
            run,
        }
    }

    fn name(&self) -> String {
        self.dir.file_name().unwrap().to_string_lossy().into_owned()
    }

    fn expected(&self, name: &str) -> Vec<f32> {
        let file = SafeTensors::deserialize(&self.expected).unwrap();
        let data = file.tensor(name).unwrap().data().to_vec();
        data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    fn number(&self, key: &str) -> f64 {
        self.run[key].as_f64().unwrap()
    }

    fn series(&self, key: &str) -> Vec<f64> {
        self.run[key].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
    }

    fn model(&self) -> Model {
        Model::open(&self.dir).unwrap()
    }

    fn objective(&self) -> Objective {
        Objective { cross_entropy_count: self.number("count"), ..Objective::default() }
    }

    fn batch(&self) -> Batch<'_> {
        Batch { tokens: &self.tokens, starts: &self.starts, cross_entropy: &self.weights, policy: None }
    }

    /// Distance of the logits of `model`, as this crate computes them, from transformers'.
    fn logits_apart(&self, model: &Model, starts: &[u32]) -> f64 {
        distance(&logits(model, &self.tokens, starts), &self.expected("logits"))
    }
}

/// Relative norm of the difference.
fn distance(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let square = |x: f64| x * x;
    let error: f64 = got.iter().zip(want).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    let norm: f64 = want.iter().map(|b| square(f64::from(*b))).sum();
    (error / norm).sqrt()
}

/// Logits `[T, V]`: the last hidden states times the head.
fn logits(model: &Model, tokens: &[u32], starts: &[u32]) -> Vec<f32> {
    let (config, weights) = (model.config(), model.weights());
    let head = weights.head.as_ref().unwrap_or(&weights.embedding);
    let mut out = Tensor::zeros(model.device(), tokens.len(), config.vocab_size);
    let last = config.num_hidden_layers;
    Hidden::new(model, 0)
        .run(model, tokens, starts, |layer, states| {
            if layer == last {
                cognate_kernels::matmul::forward(&mut out, states, head);
            }
        })
        .unwrap();
    out.f32().to_vec()
}

#[test]
fn logits_logprobs_loss_and_every_gradient_agree() {
    for fixture in Fixture::all() {
        let name = fixture.name();
        let model = fixture.model();
        let apart = fixture.logits_apart(&model, &fixture.starts);
        assert!(apart < TOLERANCE, "{name}: logits {apart:e}");

        let mut trainer = Trainer::new(&model, 0);
        let sums = trainer.accumulate(&model, &fixture.batch(), &fixture.objective()).unwrap();
        let want = fixture.series("losses")[0];
        assert!((sums.loss - want).abs() < 1e-5 * want, "{name}: loss {} against {want}", sums.loss);
        let (norm, want) = (trainer.gradient_norm(), fixture.series("gradient_norms")[0]);
        assert!((norm - want).abs() < TOLERANCE * want, "{name}: gradient norm {norm} against {want}");
        let mut worst = 0.0f64;
        let gradients = trainer.gradients().tensors();
        for slot in model.weights().slots(model.config()) {
            let got = &gradients[slot.tensor].f32()[slot.offset..slot.offset + slot.len()];
            let apart = distance(got, &fixture.expected(&format!("gradient.{}", slot.name)));
            assert!(apart < TOLERANCE, "{name}: gradient of {} {apart:e}", slot.name);
            worst = worst.max(apart);
        }
        println!("{name}: logits {apart:.1e}, gradients up to {worst:.1e}, loss {:.6}", sums.loss);

        // The log-probabilities that sampling and RL go by are those of the same logits.
        trainer.score(&model, &fixture.tokens, &fixture.starts, 1.0).unwrap();
        let (logits, v) = (fixture.expected("logits"), model.config().vocab_size);
        for (t, &got) in trainer.logprobs().iter().enumerate() {
            if fixture.starts.contains(&(t as u32)) {
                continue;
            }
            let row = &logits[(t - 1) * v..t * v];
            let total: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
            let want = f64::from(row[fixture.tokens[t] as usize]) - total.ln();
            assert!((f64::from(got) - want).abs() < 2e-4, "{name}: token {t}: {got} against {want}");
        }
    }
}

#[test]
fn ten_steps_of_adamw_end_at_the_same_weights() {
    for fixture in Fixture::all() {
        let name = fixture.name();
        let before = fixture.model();
        let mut model = before.clone();
        let mut trainer = Trainer::new(&model, 0);
        let config = AdamWConfig {
            beta1: fixture.number("beta1") as f32,
            beta2: fixture.number("beta2") as f32,
            eps: fixture.number("adam_eps") as f32,
            weight_decay: fixture.number("weight_decay") as f32,
        };
        let mut optimizer = AdamW::new(&model, config);
        for (loss, norm) in fixture.series("losses").iter().zip(fixture.series("gradient_norms")) {
            let sums = trainer.accumulate(&model, &fixture.batch(), &fixture.objective()).unwrap();
            let (lr, clip) = (fixture.number("lr") as f32, fixture.number("clip") as f32);
            let report = optimizer.step(&mut model, &mut trainer, lr, Some(clip));
            assert!((sums.loss - loss).abs() < 1e-4 * loss, "{name}: loss {} against {loss}", sums.loss);
            assert!((report.gradient_norm - norm).abs() < 1e-3 * norm, "{name}: gradient norm");
            assert!(report.clipped, "{name}: the clip is a part of what is compared");
        }
        assert_eq!(fixture.series("losses").len(), 10);
        let (mut worst, mut least) = (0.0f64, f64::INFINITY);
        let (tensors, old) = (model.weights().tensors(), before.weights().tensors());
        for slot in model.weights().slots(model.config()) {
            let span = slot.offset..slot.offset + slot.len();
            let want = fixture.expected(&format!("trained.{}", slot.name));
            let apart = distance(&tensors[slot.tensor].f32()[span.clone()], &want);
            assert!(apart < TOLERANCE, "{name}: {} after ten steps {apart:e}", slot.name);
            let moved = distance(&old[slot.tensor].f32()[span], &want);
            (worst, least) = (worst.max(apart), least.min(moved));
        }
        // Ten steps move every tensor by much more than the tolerance, or the test would see nothing.
        assert!(least > 100.0 * TOLERANCE, "{name}: some tensor moved by {least:e} only");
        println!("{name}: after ten steps up to {worst:.1e} apart, moved by {least:.1e} at least");
    }
}

#[test]
fn packed_equals_separate() {
    for fixture in Fixture::all() {
        let model = fixture.model();
        let packed = logits(&model, &fixture.tokens, &fixture.starts);
        let (mut apart, mut parts) = (Vec::new(), Trainer::new(&model, 0));
        for span in fixture.starts.windows(2) {
            let span = span[0] as usize..span[1] as usize;
            let (tokens, starts) = (&fixture.tokens[span.clone()], [0, span.len() as u32]);
            apart.extend(logits(&model, tokens, &starts));
            let batch =
                Batch { tokens, starts: &starts, cross_entropy: &fixture.weights[span], policy: None };
            parts.accumulate(&model, &batch, &fixture.objective()).unwrap();
        }
        assert!(distance(&packed, &apart) < 1e-5, "{}", fixture.name());
        let mut whole = Trainer::new(&model, 0);
        whole.accumulate(&model, &fixture.batch(), &fixture.objective()).unwrap();
        for (a, b) in whole.gradients().tensors().iter().zip(parts.gradients().tensors()) {
            assert!(distance(a.f32(), b.f32()) < 1e-5, "{}", fixture.name());
        }
    }
}

/// A model of `config`, which need not fit its own, with the weights of `model`.
fn with_config(model: &Model, change: impl FnOnce(&mut LlamaConfig)) -> Model {
    let mut config = model.config().clone();
    change(&mut config);
    let mut other = Model::init(&config, 0).unwrap();
    let from = model.weights().tensors();
    for (to, from) in other.weights_mut().tensors_mut().into_iter().zip(from) {
        to.f32_mut().copy_from_slice(from.f32());
    }
    other
}

fn must_break(fixture: &Fixture, what: &str, broken: &Model) {
    let apart = fixture.logits_apart(broken, &fixture.starts);
    assert!(apart > BROKEN, "{}: without {what} the logits are only {apart:e} apart", fixture.name());
    println!("{}: without {what} {apart:.1e} apart", fixture.name());
}

#[test]
fn leaving_out_rope_scaling_breaks_it() {
    for (name, scaled) in
        [("llama-3.1", true), ("llama-3.2-tied", true), ("linear", true), ("llama-2", false)]
    {
        let fixture = Fixture::named(name);
        let model = fixture.model();
        assert_eq!(model.config().rope_scaling != Scaling::None, scaled);
        let plain = with_config(&model, |c| c.rope_scaling = Scaling::None);
        if scaled {
            must_break(&fixture, "rope scaling", &plain);
        } else {
            // The control of the control: where there is none, leaving it out changes nothing.
            assert!(fixture.logits_apart(&plain, &fixture.starts) < TOLERANCE);
        }
        must_break(&fixture, "its rope theta", &with_config(&model, |c| c.rope_theta *= 2.0));
    }
}

#[test]
fn leaving_out_eps_breaks_it() {
    for fixture in Fixture::all() {
        must_break(&fixture, "eps", &with_config(&fixture.model(), |c| c.rms_norm_eps = 0.0));
    }
}

#[test]
fn another_mapping_of_heads_to_groups_breaks_it() {
    let mut tried = 0;
    for fixture in Fixture::all() {
        let mut model = fixture.model();
        let heads = model.config().heads();
        if heads.key == 1 || heads.key == heads.query {
            continue;
        }
        // Head h reads keys h % G instead of h / (H / G): the same as moving head h to where h / (H / G) is h % G.
        let place = |h: usize| (h % heads.key) * (heads.query / heads.key) + h / heads.key;
        let (d, c) = (heads.dim, model.config().hidden_size);
        for layer in &mut model.weights_mut().layers {
            let (qkv, out) = (layer.qkv.f32().to_vec(), layer.out.f32().to_vec());
            let bias = layer.qkv_bias.as_ref().map(|b| b.f32().to_vec());
            for h in 0..heads.query {
                let (from, to) = (h * d, place(h) * d);
                layer.qkv.f32_mut()[to * c..(to + d) * c].copy_from_slice(&qkv[from * c..(from + d) * c]);
                for (row, old) in layer.out.f32_mut().chunks_mut(heads.out()).zip(out.chunks(heads.out())) {
                    row[to..to + d].copy_from_slice(&old[from..from + d]);
                }
                if let (Some(to_bias), Some(old)) = (&mut layer.qkv_bias, &bias) {
                    to_bias.f32_mut()[to..to + d].copy_from_slice(&old[from..from + d]);
                }
            }
        }
        must_break(&fixture, "the mapping of heads", &model);
        tried += 1;
    }
    assert_eq!(tried, 4);
}

#[test]
fn leaving_out_a_bias_breaks_it() {
    for name in ["qwen2.5", "qwen2.5-tied"] {
        let fixture = Fixture::named(name);
        let heads = fixture.model().config().heads();
        let (q, k) = (heads.out(), heads.key * heads.dim);
        for (part, span) in [("q", 0..q), ("k", q..q + k), ("v", q + k..q + 2 * k)] {
            let mut model = fixture.model();
            let bias = model.weights_mut().layers[1].qkv_bias.as_mut().unwrap();
            bias.f32_mut()[span].fill(0.0);
            must_break(&fixture, &format!("the bias of {part}"), &model);
        }
    }
}

#[test]
fn leaving_out_the_mask_breaks_it() {
    for fixture in Fixture::all() {
        // Documents that see one another.
        let apart = fixture.logits_apart(&fixture.model(), &[0, fixture.tokens.len() as u32]);
        assert!(apart > BROKEN, "{}: {apart:e}", fixture.name());
        // The mask of the loss.
        let model = fixture.model();
        let mut trainer = Trainer::new(&model, 0);
        let weights: Vec<f32> = fixture.weights.iter().map(|w| f32::from(u8::from(*w != 0.0))).collect();
        let batch = Batch { cross_entropy: &weights, ..fixture.batch() };
        trainer.accumulate(&model, &batch, &fixture.objective()).unwrap();
        let dnorm = trainer.gradients().norm.f32();
        assert!(distance(dnorm, &fixture.expected("gradient.model.norm.weight")) > BROKEN);
    }
    // The causal mask, in the independent forward, since this crate cannot be told to leave it out.
    let fixture = Fixture::named("llama-2");
    let (config, weights) = (fixture.model().config().clone(), named(&fixture.model()));
    let run = |seen: &dyn Fn(usize, usize) -> usize| {
        let mut all = Vec::new();
        for span in fixture.starts.windows(2) {
            let document = &fixture.tokens[span[0] as usize..span[1] as usize];
            let (_, logits) = forward_masked(&config, &weights, document, |t| seen(t, document.len()));
            all.extend(logits.concat().iter().map(|x| *x as f32));
        }
        distance(&all, &fixture.expected("logits"))
    };
    let (causal, open) = (run(&|t, _| t + 1), run(&|_, n| n));
    assert!(causal < TOLERANCE && open > BROKEN, "causal {causal:e}, without the mask {open:e}");
}

#[test]
fn decoding_gives_transformers_logits() {
    for fixture in Fixture::all() {
        let model = fixture.model();
        let v = model.config().vocab_size;
        let want = fixture.expected("logits");
        let span = fixture.starts[2] as usize..fixture.starts[3] as usize;
        let document = &fixture.tokens[span.clone()];
        // A prompt of 100 tokens, then one at a time through the cache.
        for fed in [1, 100, document.len()] {
            let mut decoder = Decoder::new(&model, 1, document.len());
            decoder.start(&model, &[Request { prompt: &document[..fed], samples: 1 }]).unwrap();
            let at = span.start + fed - 1;
            let apart = distance(decoder.logits(0), &want[at * v..(at + 1) * v]);
            assert!(apart < TOLERANCE, "{}: after {fed} tokens {apart:e}", fixture.name());
        }
    }
}

#[test]
fn what_is_read_is_written_back() {
    for fixture in Fixture::all() {
        let model = fixture.model();
        let dir = tempfile::tempdir().unwrap();
        model.save(dir.path(), Dtype::F32).unwrap();
        let again = Model::open(dir.path()).unwrap();
        assert_eq!(again.config(), model.config(), "{}", fixture.name());
        assert!(named(&again) == named(&model));
        // Every key of the file that transformers wrote is there still, or is one that this crate spells otherwise.
        let read = |dir: &Path| -> Value {
            serde_json::from_slice(&std::fs::read(dir.join("config.json")).unwrap()).unwrap()
        };
        let (theirs, ours) = (read(&fixture.dir), read(dir.path()));
        for (key, value) in theirs.as_object().unwrap() {
            if !["rope_parameters", "dtype", "bos_token_id", "eos_token_id"].contains(&key.as_str()) {
                assert_eq!(&ours[key], value, "{}: {key}", fixture.name());
            }
        }
    }
}
