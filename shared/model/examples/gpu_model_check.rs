//! Whole training steps and decode loops on the GPU against the CPU, a part of `make gpu-check`: gradients of
//! every tensor, three optimizer steps, four of adapters, steps of two ranks, sampled texts, hidden states; the steps twice, bitwise
//! the same.
//! `--small`: tiny shapes once, for compute-sanitizer. Exit 1 where a check fails, 3 where there is no GPU.

#[path = "../tests/cuda/adapter_checks.rs"]
mod adapter_checks;
#[path = "../tests/cuda/decoding_checks.rs"]
mod decoding_checks;
#[path = "../tests/cuda/sharding_checks.rs"]
mod sharding_checks;
#[path = "../tests/cuda/training_checks.rs"]
mod training_checks;
#[path = "../tests/cuda/world.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::rc::Rc;

use cognate_kernels::cuda::gpu::Cuda;
use cognate_model::cuda::Accelerator;
use cognate_model::{Architecture, LlamaConfig};

/// Heads of 128 channels, a vocabulary that divides by nothing.
fn larger() -> LlamaConfig {
    LlamaConfig {
        vocab_size: 32_003,
        hidden_size: 512,
        intermediate_size: 1376,
        num_hidden_layers: 4,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 128,
        initializer_range: 0.06,
        max_position_embeddings: 4096,
        ..world::config()
    }
}

/// A check and its name.
type Check<'c> = (&'c str, Box<dyn Fn() + 'c>);

fn main() -> ExitCode {
    let small = std::env::args().any(|argument| argument == "--small");
    let device: Rc<dyn Accelerator> = match Cuda::open(0) {
        Ok(gpu) => Rc::new(gpu),
        Err(error) => {
            eprintln!("gpu_model_check: NOT RUN: {error}");
            return ExitCode::from(3);
        }
    };
    println!("{}", device.name());
    let (tiny, larger) = (world::config(), larger());
    let biased = LlamaConfig { architecture: Architecture::Qwen2, tie_word_embeddings: true, ..tiny.clone() };
    // Two ranks on one GPU, each with a stream of its own; what they exchange goes through the host.
    let open = |_| -> Rc<dyn Accelerator> { Rc::new(Cuda::open(0).expect("the GPU opens again")) };
    let mut checks: Vec<Check> = Vec::new();
    let on = &device;
    checks.push(("supervised, tiny", Box::new(|| training_checks::supervised(on, &tiny, 1, true))));
    checks.push(("reinforced, tiny", Box::new(|| training_checks::reinforced(on, &tiny, 1))));
    checks.push(("decoding, tiny", Box::new(|| decoding_checks::decoding(on, &tiny, false))));
    if !small {
        checks.push(("biased, tiny", Box::new(|| training_checks::supervised(on, &biased, 1, false))));
        checks.push(("supervised", Box::new(|| training_checks::supervised(on, &larger, 12, false))));
        checks.push(("reinforced", Box::new(|| training_checks::reinforced(on, &larger, 8))));
        checks.push(("decoding", Box::new(|| decoding_checks::decoding(on, &larger, false))));
        checks.push(("hidden states", Box::new(|| decoding_checks::hidden(on, &larger))));
    }
    for (name, config, scale) in [("steps, tiny", &tiny, 1), ("steps", &larger, 6)] {
        if small && scale > 1 {
            continue;
        }
        checks.push((
            name,
            Box::new(move || {
                let steps = training_checks::Steps::new(config, scale);
                let first = steps.check(on);
                assert!(small || steps.check(on) == first, "two runs differ");
            }),
        ));
    }
    for (name, config, scale) in [("adapters, tiny", &tiny, 1), ("adapters", &larger, 6)] {
        if small && scale > 1 {
            continue;
        }
        checks.push((
            name,
            Box::new(move || {
                let steps = adapter_checks::Adapters::new(config, scale);
                let first = steps.check(on);
                assert!(small || steps.check(on) == first, "two runs differ");
            }),
        ));
    }
    if !small {
        checks.push(("two ranks", Box::new(|| drop(sharding_checks::two_are_one(&open, &tiny, 1)))));
        checks.push(("shares", Box::new(|| sharding_checks::shares_are_parts_of_the_whole(&open, &tiny, 2))));
        checks.push(("ranks from files", Box::new(|| sharding_checks::goes_on_from_files(&open, &tiny))));
        checks.push((
            "ranks and NaN",
            Box::new(|| sharding_checks::a_bad_gradient_is_skipped_by_all(&open, &tiny)),
        ));
    }
    let mut failures = 0;
    for (name, check) in &checks {
        let verdict = if catch_unwind(AssertUnwindSafe(check)).is_ok() { "ok" } else { "FAILED" };
        failures += usize::from(verdict != "ok");
        println!("{name:<18} {verdict}");
    }
    println!("{} checks of the model, {failures} failed", checks.len());
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
