//! Prints training and decoding speed in tokens/s at two sizes: `cargo run --release -p
//! cognate-model --example speed [seconds a measurement]`.

use std::time::{Duration, Instant};

use cognate_model::{
    AdamW, AdamWConfig, Batch, Decoder, LlamaConfig, Model, ModelError, Objective, Request, SampleOptions,
    Trainer,
};

fn main() -> Result<(), ModelError> {
    let seconds = std::env::args().nth(1).and_then(|s| s.parse().ok()).unwrap_or(2.0);
    let tiny = LlamaConfig { vocab_size: 1000, ..LlamaConfig::default() };
    println!("tiny: {} parameters, {} threads", tiny.parameters(), rayon::current_num_threads());
    train("tiny, 16 documents of about 100 tokens", &tiny, &lengths(16, 100), seconds)?;
    train("tiny, 8 documents of about 100 tokens", &tiny, &lengths(8, 100), seconds)?;
    decode("tiny, 24 prompts x 8 samples, 26 + 60 tokens", &tiny, 24, 8)?;
    decode("tiny, 192 prompts x 1 sample, 26 + 60 tokens", &tiny, 192, 1)?;
    let ten = LlamaConfig {
        vocab_size: 8192,
        hidden_size: 256,
        intermediate_size: 688,
        num_hidden_layers: 8,
        num_attention_heads: 8,
        num_key_value_heads: 8,
        ..LlamaConfig::default()
    };
    println!("10M: {} parameters", ten.parameters());
    train("10M, 4 documents of 512 tokens", &ten, &[512; 4], 2.0 * seconds)
}

/// Lengths spread around `mean`, always the same.
fn lengths(documents: usize, mean: usize) -> Vec<usize> {
    (0..documents).map(|d| mean - 20 + (d * 17) % 41).collect()
}

fn train(name: &str, config: &LlamaConfig, lengths: &[usize], seconds: f64) -> Result<(), ModelError> {
    let mut model = Model::init(config, 1)?;
    let mut starts = vec![0u32];
    for length in lengths {
        starts.push(starts[starts.len() - 1] + *length as u32);
    }
    let total = starts[lengths.len()] as usize;
    let tokens: Vec<u32> = (0..total).map(|t| (t * 7919 % config.vocab_size) as u32).collect();
    let mut weights = vec![1.0; total];
    starts[..lengths.len()].iter().for_each(|&s| weights[s as usize] = 0.0);
    let objective = Objective { cross_entropy_count: (total - lengths.len()) as f64, ..Objective::default() };
    let mut trainer = Trainer::new(&model, total);
    let mut optimizer = AdamW::new(&model, AdamWConfig::default());
    let batch = Batch { tokens: &tokens, starts: &starts, cross_entropy: &weights, policy: None };
    let mut step = || -> Result<f64, ModelError> {
        let sums = trainer.accumulate(&model, &batch, &objective)?;
        optimizer.step(&mut model, &mut trainer, 1e-3, Some(1.0));
        Ok(sums.loss)
    };
    step()?;
    let (start, mut steps, mut loss) = (Instant::now(), 0, 0.0);
    while start.elapsed() < Duration::from_secs_f64(seconds) {
        loss = step()?;
        steps += 1;
    }
    let rate = (steps * total) as f64 / start.elapsed().as_secs_f64();
    let context = lengths.iter().map(|l| l * l).sum::<usize>() as f64 / total as f64 / 2.0;
    let flops = rate * config.flops_per_token(context) / 1e9;
    println!("  train {name}: {rate:.0} tokens/s, {flops:.0} GFLOP/s (loss {loss:.3} after {steps} steps)");
    Ok(())
}

fn decode(name: &str, config: &LlamaConfig, prompts: usize, samples: usize) -> Result<(), ModelError> {
    const NEW: usize = 60;
    let model = Model::init(config, 1)?;
    let mut decoder = Decoder::new(&model, prompts * samples, 128);
    let prompt: Vec<u32> = (0..26).collect();
    let requests = vec![Request { prompt: &prompt, samples }; prompts];
    let uniforms: Vec<f32> = (0..prompts * samples).map(|i| (i as f32 * 0.618).fract()).collect();
    for round in 0..3 {
        decoder.clear();
        let start = Instant::now();
        decoder.start(&model, &requests)?;
        let prefill = start.elapsed().as_secs_f64();
        for t in 0..NEW {
            decoder.sample(&[SampleOptions::default()], &uniforms);
            if t + 1 < NEW {
                decoder.step(&model)?;
            }
        }
        let rate = (NEW * prompts * samples) as f64 / start.elapsed().as_secs_f64();
        if round == 2 {
            println!("  decode {name}: {rate:.0} tokens/s (prefill {:.1} ms)", prefill * 1e3);
        }
    }
    Ok(())
}
