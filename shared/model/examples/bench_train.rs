//! One contender of `make bench-train`, driven by `pipelines/bench-train.py`: reads a number of
//! steps from each line of stdin, takes them, and prints `{"wall", "cpu", "loss"}` of each request.
//! `bench_train SHAPE THREADS`, the shape as JSON.

use std::io::BufRead;
use std::time::Instant;

use cognate_model::{AdamW, AdamWConfig, Batch, LlamaConfig, Model, Objective, Trainer};
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let shape: Value = serde_json::from_str(&args.next().ok_or("a shape is needed")?)?;
    let threads: usize = args.next().ok_or("a number of threads is needed")?.parse()?;
    let size = |key: &str| {
        shape[key].as_u64().map(|n| n as usize).ok_or_else(|| format!("{key} is missing from the shape"))
    };
    let config = LlamaConfig {
        vocab_size: size("vocabulary")?,
        hidden_size: size("hidden")?,
        intermediate_size: size("feed_forward")?,
        num_hidden_layers: size("layers")?,
        num_attention_heads: size("heads")?,
        num_key_value_heads: size("key_heads")?,
        head_dim: size("head_dim")?,
        max_position_embeddings: size("length")?,
        tie_word_embeddings: shape["tied"].as_bool().ok_or("tied is missing from the shape")?,
        ..LlamaConfig::default()
    };
    let (documents, length) = (size("batch")?, size("length")?);
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;

    let total = documents * length;
    let tokens: Vec<u32> = (0..total).map(|t| (t * 7919 % config.vocab_size) as u32).collect();
    let starts: Vec<u32> = (0..=documents).map(|d| (d * length) as u32).collect();
    let weights: Vec<f32> = (0..total).map(|t| if t % length == 0 { 0.0 } else { 1.0 }).collect();
    let batch = Batch { tokens: &tokens, starts: &starts, cross_entropy: &weights, policy: None };
    let objective = Objective { cross_entropy_count: (total - documents) as f64, ..Objective::default() };
    let mut model = Model::init(&config, 1)?;
    let mut trainer = Trainer::new(&model, total);
    let mut optimizer = AdamW::new(&model, AdamWConfig::default());
    let mut step = |model: &mut Model| -> Result<f64, Box<dyn std::error::Error>> {
        let sums = trainer.accumulate(model, &batch, &objective)?;
        optimizer.step(model, &mut trainer, 1e-3, Some(1.0));
        Ok(sums.loss)
    };
    for _ in 0..3 {
        step(&mut model)?;
    }
    let flops = config.flops_per_token(length as f64 / 2.0);
    println!("{}", json!({"parameters": config.parameters(), "flops_per_token": flops}));
    for line in std::io::stdin().lock().lines() {
        let (start, before, mut loss) = (Instant::now(), cpu_seconds(), 0.0);
        for _ in 0..line?.trim().parse::<usize>()? {
            loss = step(&mut model)?;
        }
        let (wall, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - before);
        println!("{}", json!({"wall": wall, "cpu": cpu, "loss": loss}));
    }
    Ok(())
}

/// User and system time of this process, all threads; 0 where there is no `/proc`.
fn cpu_seconds() -> f64 {
    /// `USER_HZ`, the unit of `/proc`, is 100 on every Linux.
    const TICKS: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Fields 14 and 15; the second one, a name in parentheses, may hold blanks.
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / TICKS
}
