//! `lm` and `sft`: epochs over packed sequences with cross-entropy where the data weights it.

use std::time::Instant;

use anyhow::{Context, Result, bail};
use cognate_cli::Common;
use cognate_model::Objective;
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
    identity.extend(start::optimisation_identity(&flags.optimisation, &schedule));
    let keeping = &flags.keeping;
    let state = keeping.checkpoint.clone().unwrap_or_else(|| start::state_path(&keeping.output));
    let run = RunDir::open(&state, &Value::Object(identity), keeping.restart, keeping.keep)?;

    let (mut learner, first, mut tokens) = match run.latest()? {
        Some(c) => {
            common.note(format!("{}: going on after step {}", state.display(), c.step));
            (Learner::open(&c.path, &flags.optimisation)?, c.step, c.state["tokens"].as_u64().unwrap_or(0))
        }
        None => (Learner::new(origin.model()?, &flags.optimisation), 0, 0),
    };
    if first > plan.steps {
        bail!("{}: {first} steps are done already, {} were asked for", state.display(), plan.steps);
    }
    let mut log = MetricsLog::open(&run.metrics_path(), first, stage, keeping.label.as_deref())?;
    let every = keeping.checkpoint_every.unwrap_or(CHECKPOINT_EVERY);
    let progress = common.progress(&format!("{stage} (tokens)"), Some(plan.tokens - tokens.min(plan.tokens)));
    cognate_output::hold_signals();
    let mut loss = f64::NAN;
    for step in first + 1..=plan.steps {
        let begun = Instant::now();
        let rows = plan.rows(&data, step);
        let (lr, count) = (schedule.at(step), targets(&rows));
        let objective = Objective { cross_entropy_count: count.max(1) as f64, ..Objective::default() };
        let batches = learner.join(&rows);
        let outcome = learner
            .step(&batches, &objective, lr)
            .with_context(|| format!("step {step} (learning rate {lr:e})"))?;
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
        log.measured(step, "tokens_per_second", seen as f64 / begun.elapsed().as_secs_f64());
        log.flush()?;
        progress.message(format!("step {step}/{} loss {loss:.4}", plan.steps));
        progress.inc(seen);
        let signal = cognate_output::signal();
        if step < plan.steps && (signal.is_some() || (every > 0 && step.is_multiple_of(every))) {
            run.save(step, &json!({"step": step, "tokens": tokens}), |dir| learner.save(dir))?;
        }
        if let (Some(signal), true) = (signal, step < plan.steps) {
            start::leave(signal, &state, step, plan.steps);
        }
    }
    progress.finish();
    if let Some(path) = &keeping.metrics {
        log.deliver(path)?;
    }
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
