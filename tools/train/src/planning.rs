//! `--plan`: what a run would take, from the configuration alone. No weight and no record is read.

use std::path::Path;

use anyhow::{Context, Result};
use cognate_cli::Common;
use cognate_model::{LlamaConfig, Plan, Setup, Target};
use serde_json::json;

use crate::cli::{Optimisation, PlanDevice, Planning, Reinforce, Start, Supervised};
use crate::optimise::fault;
use crate::{assets, optimise};

/// Prints the plan of `lm` or `sft` on `device`.
pub fn supervised(common: &Common, flags: &Supervised, device: PlanDevice) -> Result<()> {
    let config = config(&flags.start)?;
    let setup = supervised_setup(common, flags, &config, device);
    let step = Some((flags.batch, flags.batch * setup.length as u64));
    show(common, &config, &setup, &flags.planning, step, flags.keeping.peak_flops)
}

/// With -v says what the run that begins takes.
pub fn announce(common: &Common, config: &LlamaConfig, setup: &Setup) {
    if common.verbose > 0 {
        Plan::new(config, setup).to_string().lines().for_each(|line| common.note(line));
    }
}

/// Prints the plan of `rl` on `device`; how long a step is depends on the answers.
pub fn reinforce(common: &Common, flags: &Reinforce, device: PlanDevice) -> Result<()> {
    let config = LlamaConfig::read(&flags.model).map_err(fault)?;
    let setup = reinforce_setup(common, flags, &config, device);
    show(common, &config, &setup, &flags.planning, None, flags.keeping.peak_flops)
}

pub fn supervised_setup(
    common: &Common,
    flags: &Supervised,
    config: &LlamaConfig,
    device: PlanDevice,
) -> Setup {
    let ranks = flags.parallel.world_size as usize;
    Setup { ranks, ..setup(common, &flags.planning, &flags.optimisation, config, device) }
}

pub fn reinforce_setup(
    common: &Common,
    flags: &Reinforce,
    config: &LlamaConfig,
    device: PlanDevice,
) -> Setup {
    let reference = flags.kl > 0.0;
    Setup { reference, ..setup(common, &flags.planning, &flags.optimisation, config, device) }
}

/// The shape, of which a tokenizer may give a part.
fn config(start: &Start) -> Result<LlamaConfig> {
    match (&start.model, &start.init_config, &start.tokenizer) {
        (Some(model), ..) => LlamaConfig::read(model).map_err(fault),
        (None, Some(shape), Some(tokenizer)) => assets::shape(shape, tokenizer),
        (None, Some(shape), None) => of_file(shape),
        _ => Err(cognate_cli::usage("give --model or --init-config")),
    }
}

fn of_file(path: &Path) -> Result<LlamaConfig> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    LlamaConfig::from_json(&text, path).map_err(fault)
}

fn setup(
    common: &Common,
    planning: &Planning,
    flags: &Optimisation,
    config: &LlamaConfig,
    device: PlanDevice,
) -> Setup {
    let tokens = flags.micro_tokens as usize;
    let length = planning.plan_length.map_or(config.max_position_embeddings, |n| n as usize);
    Setup {
        target: match device {
            PlanDevice::Cpu => Target::Cpu,
            PlanDevice::Cuda => Target::Cuda,
        },
        tokens,
        length: length.min(tokens),
        recompute: optimise::recompute(flags),
        adapters: optimise::lora(flags),
        reference: false,
        threads: common.threads(),
        ranks: 1,
    }
}

/// `step`: sequences and tokens of an optimizer step, where they are known.
fn show(
    common: &Common,
    config: &LlamaConfig,
    setup: &Setup,
    planning: &Planning,
    step: Option<(u64, u64)>,
    peak: Option<f64>,
) -> Result<()> {
    let plan = Plan::new(config, setup);
    let all = (plan.flops + plan.recomputed) / setup.tokens as f64;
    let room = planning.plan_memory.map(|gb| gb - plan.bytes() as f64 / 1e9);
    if common.json {
        let items: serde_json::Map<_, _> =
            plan.items.iter().map(|item| (item.name.to_owned(), item.bytes.into())).collect();
        let report = json!({"parameters": config.parameters(), "tokens": setup.tokens, "length": setup.length,
            "memory": items, "bytes": plan.bytes(), "fits": room.map(|gb| gb >= 0.0), "flops": plan.flops,
            "recomputed_flops": plan.recomputed});
        return print(&report.to_string());
    }
    let mut lines = vec![format!(
        "{:.3} billion parameters on {}; a micro-batch of {} tokens in documents of {}",
        config.parameters() as f64 / 1e9,
        if setup.target == Target::Cpu { "the CPU" } else { "a GPU" },
        setup.tokens,
        setup.length
    )];
    lines.push(plan.to_string());
    if let Some((sequences, tokens)) = step {
        let name = format!("a step of {sequences} sequences");
        lines.push(format!("{name:24} {:>12.3} TFLOP", all * tokens as f64 / 1e12));
    }
    if let Some(peak) = peak {
        lines.push(format!("{:24} {:>12.0} tokens/s", "at the stated peak", peak / all));
    }
    if let (Some(room), Some(gb)) = (room, planning.plan_memory) {
        let verdict = if room >= 0.0 { "it fits" } else { "it does not fit" };
        let rest = if room >= 0.0 { "are left" } else { "are missing" };
        lines.push(format!("{verdict} in {gb} GB: {:.1} GB {rest}", room.abs()));
    }
    print(&lines.join("\n"))
}

fn print(text: &str) -> Result<()> {
    use std::io::Write;
    Ok(writeln!(std::io::stdout().lock(), "{text}")?)
}
