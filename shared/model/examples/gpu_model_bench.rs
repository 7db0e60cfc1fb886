//! Speed of whole training steps and of decoding on the GPU, a part of `make gpu-bench`: tokens/s and use of the
//! measured bf16 ceiling (6 N + attention, without what is computed again) for three shapes with random weights, full
//! fine-tuning at 4,096 packed tokens; tokens/s of the decode loop at mean context 1,000. Lines that begin with `| ` are
//! rows of the table that kernels/gpu.sh prints last. Exit 3 where there is no GPU.

use std::process::ExitCode;
use std::rc::Rc;
use std::time::Instant;

use cognate_kernels::cuda::accelerator::write;
use cognate_kernels::cuda::arena::Arena;
use cognate_kernels::cuda::cublaslt::Product;
use cognate_kernels::cuda::gpu::Cuda;
use cognate_kernels::cuda::launch::{CudaError, Element};
use cognate_model::cuda::{Accelerator, AdamW, Decoder, Model, Purpose, Trainer};
use cognate_model::{AdamWConfig, Batch, LlamaConfig, ModelError, Objective, Request, SampleOptions};
use cognate_random::Key;

const TOKENS: usize = 4096;

fn shapes() -> [(&'static str, LlamaConfig); 3] {
    let base = LlamaConfig {
        head_dim: 128,
        max_position_embeddings: 8192,
        rope_theta: 500_000.0,
        initializer_range: 0.02,
        ..LlamaConfig::default()
    };
    let small = LlamaConfig {
        vocab_size: 32_000,
        hidden_size: 768,
        intermediate_size: 2048,
        num_hidden_layers: 12,
        num_attention_heads: 12,
        num_key_value_heads: 12,
        head_dim: 64,
        tie_word_embeddings: false,
        ..base.clone()
    };
    let middle = LlamaConfig {
        vocab_size: 128_256,
        hidden_size: 2048,
        intermediate_size: 8192,
        num_hidden_layers: 20,
        num_attention_heads: 16,
        num_key_value_heads: 8,
        tie_word_embeddings: true,
        ..base.clone()
    };
    let large = LlamaConfig {
        vocab_size: 128_256,
        hidden_size: 4096,
        intermediate_size: 14_336,
        num_hidden_layers: 32,
        num_attention_heads: 32,
        num_key_value_heads: 8,
        tie_word_embeddings: false,
        ..base
    };
    [("125 M", small), ("1.5 B", middle), ("Llama-3.1-8B", large)]
}

/// Random weights: a block of normal values, repeated, since drawing billions would take longer than the run.
fn model(config: &LlamaConfig, on: &Rc<dyn Accelerator>, purpose: Purpose) -> Result<Model, ModelError> {
    let mut stream = Key::new(1).with("bench").stream();
    let block: Vec<f32> = (0..1 << 20).map(|_| stream.normal() as f32 * 0.02).collect();
    Model::filled(config, on, purpose, |slot, values| {
        if slot.shape.len() == 1 {
            return values.fill(1.0);
        }
        values.chunks_mut(block.len()).for_each(|part| part.copy_from_slice(&block[..part.len()]));
    })
}

/// FLOP/s of a bf16 product of 8192³.
fn ceiling(on: &Rc<dyn Accelerator>) -> Result<f64, ModelError> {
    let n = 8192;
    let (_arena, [x, w, y]) =
        Arena::new(on, "ceiling", |layout| [(); 3].map(|()| layout.take(Element::Bf16, n, n)))?;
    let ones: Vec<u16> =
        (0..n * n).map(|i| half::bf16::from_f32((i % 17) as f32 / 17.0 - 0.5).to_bits()).collect();
    write(&**on, x, &ones)?;
    write(&**on, w, &ones)?;
    let mut times = Vec::new();
    for _ in 0..13 {
        on.synchronize()?;
        let begun = Instant::now();
        on.product(Product::Forward, y, (x, w), false, None)?;
        on.synchronize()?;
        times.push(begun.elapsed().as_secs_f64());
    }
    Ok(2.0 * (n as f64).powi(3) / median(&mut times[3..]))
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn train(name: &str, config: &LlamaConfig, on: &Rc<dyn Accelerator>, ceiling: f64) -> Result<(), ModelError> {
    // A token attends to half the document in the mean.
    let flops = TOKENS as f64 * config.flops_per_token(TOKENS as f64 / 2.0);
    let mut model = model(config, on, Purpose::Training)?;
    let mut trainer = Trainer::new(&model, TOKENS)?;
    let mut optimizer = AdamW::new(&model, AdamWConfig::default())?;
    let (gradients, step) = trainer.bytes();
    println!(
        "{name}: {:.2} B parameters, GB: weights {:.1}, gradients {:.1}, moments {:.1}, step {:.1}",
        config.parameters() as f64 / 1e9,
        model.bytes() as f64 / 1e9,
        gradients as f64 / 1e9,
        optimizer.bytes() as f64 / 1e9,
        step as f64 / 1e9,
    );
    let mut stream = Key::new(2).with("tokens").stream();
    let tokens: Vec<u32> = (0..TOKENS).map(|_| stream.below(config.vocab_size as u64) as u32).collect();
    let mut weights = vec![1.0; TOKENS];
    weights[0] = 0.0;
    let starts = [0, TOKENS as u32];
    let batch = Batch { tokens: &tokens, starts: &starts, cross_entropy: &weights, policy: None };
    let objective = Objective { cross_entropy_count: (TOKENS - 1) as f64, ..Objective::default() };
    let mut times = Vec::new();
    let mut loss = f64::NAN;
    for _ in 0..11 {
        let begun = Instant::now();
        loss = trainer.accumulate(&model, &batch, &objective)?.loss;
        optimizer.step(&mut model, &mut trainer, 1e-5, Some(1.0))?;
        on.synchronize()?;
        times.push(begun.elapsed().as_secs_f64());
    }
    let time = median(&mut times[3..]);
    println!(
        "| training {name} | {:.0} tokens/s | {:.1} % MFU of {:.0} TFLOP/s | loss {loss:.3} |",
        TOKENS as f64 / time,
        100.0 * flops / time / ceiling,
        ceiling / 1e12,
    );
    Ok(())
}

/// New tokens between contexts of 936 and 1,064, all sequences with a prompt of their own.
fn decode(model: &Model, batch: usize) -> Result<(), ModelError> {
    let (prompt, steps) = (936usize, 128usize);
    let mut decoder = Decoder::new(model, batch, prompt + steps + 8)?;
    let vocabulary = model.config().vocab_size as u64;
    for sequence in 0..batch {
        let mut stream = Key::new(3).with(sequence).stream();
        let prompt: Vec<u32> = (0..prompt).map(|_| stream.below(vocabulary) as u32).collect();
        decoder.start(model, &[Request { prompt: &prompt, samples: 1 }])?;
    }
    let options = [SampleOptions::default()];
    let mut begun = Instant::now();
    for step in 0..steps + 4 {
        // Kernels are loaded and graphs recorded in the first steps.
        if step == 4 {
            model.device().synchronize()?;
            begun = Instant::now();
        }
        let numbers: Vec<(Key, u64)> = (0..batch).map(|s| (Key::new(4).with(s), step as u64)).collect();
        decoder.sample(model, &options, &numbers)?;
        decoder.step(model)?;
    }
    model.device().synchronize()?;
    let rate = (steps * batch) as f64 / begun.elapsed().as_secs_f64();
    println!("| decoding Llama-3.1-8B, batch {batch} | {rate:.0} tokens/s | context 1,000 | |");
    Ok(())
}

/// A shape that the device has no memory for was not run; anything else is a failure.
fn outcome(error: &ModelError) -> &'static str {
    match error {
        ModelError::Device(CudaError::Memory { .. }) => "NOT RUN",
        _ => "FAILED",
    }
}

fn main() -> ExitCode {
    let on: Rc<dyn Accelerator> = match Cuda::open(0) {
        Ok(gpu) => Rc::new(gpu),
        Err(error) => {
            eprintln!("gpu_model_bench: NOT RUN: {error}");
            return ExitCode::from(3);
        }
    };
    println!("{}", on.name());
    let ceiling = match ceiling(&on) {
        Ok(ceiling) => ceiling,
        Err(error) => {
            eprintln!("gpu_model_bench: {error}");
            return ExitCode::FAILURE;
        }
    };
    let [small, middle, large] = shapes();
    for (name, config) in [&small, &middle, &large] {
        if let Err(error) = train(name, config, &on, ceiling) {
            println!("| training {name} | {} | {error} | |", outcome(&error));
        }
    }
    match model(&large.1, &on, Purpose::Inference) {
        Err(error) => println!("| decoding Llama-3.1-8B | {} | {error} | |", outcome(&error)),
        Ok(model) => {
            for batch in [1, 64, 256] {
                if let Err(error) = decode(&model, batch) {
                    println!("| decoding Llama-3.1-8B, batch {batch} | {} | {error} | |", outcome(&error));
                }
            }
        }
    }
    ExitCode::SUCCESS
}
