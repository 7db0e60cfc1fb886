//! `lm` and `sft`: epochs over packed sequences with cross-entropy where the data weights it.

use std::time::Instant;

use anyhow::{Result, bail};
use cognate_cli::Common;
use cognate_model::{LlamaConfig, Objective};
use serde_json::{Value, json};

use crate::cli::Supervised;
use crate::dataset::{Dataset, Length, Plan};
use crate::metrics::MetricsLog;
use crate::micro_batch::Row;
use crate::optimise::Learner;
use crate::run_dir::RunDir;
use crate::schedule::Schedule;
use crate::start::{self, Origin};

const CHECKPOINT_EVERY: u64 = 200;

pub fn run(common: &Common, stage: &str, flags: &Supervised) -> Result<()> {
    common.threads();
    let origin = Origin::new(&flags.start, common.seed)?;
    let data = Dataset::read(&flags.data, &origin.config)?;
    let mut plan = Plan::new(&data, common.seed, flags.batch, length(flags))?;
    let schedule = Schedule::new(&flags.optimisation, plan.steps);

    let mut identity = origin.identity()?;
    identity.insert("stage".into(), stage.into());
    identity.insert("data".into(), data.hash().into());
    identity.insert("batch".into(), flags.batch.into());
    if flags.z_loss != 0.0 {
        identity.insert("z-loss".into(), flags.z_loss.into());
    }
    identity.extend(start::optimisation_identity(&flags.optimisation, &schedule));
    let keeping = &flags.keeping;
    let state = keeping.checkpoint.clone().unwrap_or_else(|| start::state_path(&keeping.output));
    let run = RunDir::open(&state, &Value::Object(identity), keeping.restart, keeping.keep)?;

    let latest = run.latest()?;
    let checkpoint = latest.as_ref().map(|c| c.path.as_path());
    let mut learner = Learner::start(&origin, checkpoint, &flags.optimisation)?;
    let (first, mut tokens) =
        latest.as_ref().map_or((0, 0), |c| (c.step, c.state["tokens"].as_u64().unwrap_or(0)));
    if first > 0 {
        common.note(format!("{}: going on after step {first}", state.display()));
    }
    if first > plan.steps {
        bail!("{}: {first} steps are done already, {} were asked for", state.display(), plan.steps);
    }
    let mut log = MetricsLog::of(keeping, &run.metrics_path(), first, stage)?;
    let started = Instant::now();
    let every = keeping.checkpoint_every.unwrap_or(CHECKPOINT_EVERY);
    let progress = common.progress(&format!("{stage} (tokens)"), Some(plan.tokens - tokens.min(plan.tokens)));
    cognate_output::hold_signals();
    let mut loss = f64::NAN;
    for step in first + 1..=plan.steps {
        let begun = Instant::now();
        let rows = plan.rows(&data, step);
        let (lr, count) = (schedule.at(step), targets(&rows));
        let objective = Objective {
            cross_entropy_count: count.max(1) as f64,
            z_loss: flags.z_loss,
            ..Objective::default()
        };
        let batches = learner.join(&rows);
        let outcome = learner.step(&batches, &objective, lr).map_err(|e| run.not_finite(step, lr, e))?;
        let seen: u64 = rows.iter().map(|r| r.tokens.len() as u64).sum();
        tokens += seen;
        loss = outcome.sums.loss;
        log.put(step, "loss", loss);
        log.put(step, "learning_rate", lr);
        log.put(step, "gradient_norm", outcome.gradient_norm);
        log.put(step, "tokens", tokens as f64);
        log.put(step, "target_tokens", count as f64);
        if outcome.sums.tokens > 0.0 {
            log.put(step, "entropy", outcome.sums.entropy_sum / outcome.sums.tokens);
        }
        if flags.z_loss != 0.0 {
            log.put(step, "z_loss", outcome.sums.z_loss);
        }
        let seconds = begun.elapsed().as_secs_f64();
        log.measured(step, "tokens_per_second", seen as f64 / seconds);
        log.utilisation(step, flops(&origin.config, &rows), seconds, keeping.peak_flops);
        log.flush()?;
        progress.message(format!("step {step}/{} loss {loss:.4}", plan.steps));
        progress.inc(seen);
        let stop = start::stop(keeping, started);
        if step < plan.steps && (stop.is_some() || (every > 0 && step.is_multiple_of(every))) {
            run.save(step, &json!({"step": step, "tokens": tokens}), |dir| learner.save(dir))?;
        }
        if let (Some(why), true) = (stop, step < plan.steps) {
            start::leave(why, &state, step, plan.steps);
        }
    }
    progress.finish();
    log.deliver(keeping)?;
    origin.deliver_adapter(&learner, keeping)?;
    let mut history = origin.history(common)?;
    for file in &flags.data {
        history = history.input(file)?;
    }
    let summary = json!({"stage": stage, "steps": plan.steps, "tokens": tokens, "sequences": data.len(),
        "loss": loss, "parameters": learner.model.parameters()});
    origin.deliver(&learner.model, keeping.dtype, &history, &summary, &keeping.output)?;
    run.finish()
}

fn length(flags: &Supervised) -> Length {
    match (flags.steps, flags.tokens) {
        (Some(steps), _) => Length::Steps(steps),
        (None, Some(tokens)) => Length::Tokens(tokens),
        (None, None) => Length::Epochs(flags.epochs),
    }
}

/// Tokens with a loss weight, over the whole step: the divisor of its loss.
fn targets(rows: &[Row]) -> usize {
    rows.iter().flat_map(|r| &r.cross_entropy).filter(|w| **w != 0.0).count()
}

/// Floating-point operations of forward and backward over `rows`: a token attends to half its document on the mean.
pub fn flops(config: &LlamaConfig, rows: &[Row]) -> f64 {
    let lengths = rows.iter().flat_map(|row| {
        let ends = row.starts.iter().skip(1).copied().chain([row.tokens.len() as u32]);
        row.starts.iter().zip(ends).map(|(start, end)| f64::from(end - start))
    });
    lengths.map(|n| n * config.flops_per_token(n / 2.0)).sum()
}
