//! `lm` and `sft`: epochs over packed sequences with cross-entropy where the data weights it.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, bail};
use cognate_cli::Common;
use cognate_model::{LlamaConfig, Objective};
use serde_json::{Map, Value, json};

use crate::cli::Supervised;
use crate::dataset::{Dataset, Length, Plan};
use crate::metrics::MetricsLog;
use crate::micro_batch::Row;
use crate::optimise::Learner;
use crate::planning;
use crate::ranks::{self, Ranks};
use crate::run_dir::{self, RunDir};
use crate::schedule::Schedule;
use crate::start::{self, Origin, Stop};

const CHECKPOINT_EVERY: u64 = 200;

pub fn run(common: &Common, stage: &str, flags: &Supervised) -> Result<()> {
    if let Some(device) = flags.planning.plan {
        return planning::supervised(common, flags, device);
    }
    ranks::check(&flags.parallel, &flags.optimisation)?;
    common.threads();
    let keeping = &flags.keeping;
    keeping.check()?;
    let state = keeping.checkpoint.clone().unwrap_or_else(|| start::state_path(&keeping.output));
    let among = (flags.parallel.rank, flags.parallel.world_size);
    let origin = Origin::new(&flags.start, common.seed)?.on_rank(common, &flags.optimisation, among)?;
    let setup = planning::supervised_setup(common, flags, &origin.config, origin.plan_device());
    planning::announce(common, &origin.config, &setup);
    let folder = state.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let data = Dataset::read(common, &flags.data, &origin.config, folder)?;
    let mut plan = Plan::new(&data, common.seed, flags.batch, length(flags))?;
    let schedule = Schedule::new(&flags.optimisation, plan.steps);
    let identity = Value::Object(identity(stage, flags, &origin, &data, &schedule)?);
    let mut ranks = Ranks::join(&flags.parallel, &state, origin.place())?;
    let rank = ranks.as_ref().map_or(0, Ranks::rank);
    // Rank 0 alone keeps the state; the others hear from it where to begin.
    let run = match rank {
        0 => Some(RunDir::open(&state, &identity, keeping.restart, keeping.keep)?),
        _ => None,
    };
    let latest = run.as_ref().map_or(Ok(None), RunDir::latest)?;
    let (mut first, mut tokens) =
        latest.as_ref().map_or((0, 0), |c| (c.step, c.state["tokens"].as_u64().unwrap_or(0)));
    if let Some(ranks) = &mut ranks {
        first = ranks.agree(&identity, first)?;
        ranks.join_devices(origin.place())?;
    }
    let checkpoint = (first > 0).then(|| run_dir::checkpoint_path(&state, first));
    let mut learner = Learner::start(&origin, checkpoint.as_deref(), &flags.optimisation, ranks.as_ref())?;
    if first > 0 && rank == 0 {
        common.note(format!("{}: going on after step {first}", state.display()));
    }
    if first > plan.steps {
        bail!("{}: {first} steps are done already, {} were asked for", state.display(), plan.steps);
    }
    let mut log = match &run {
        Some(run) => Some(MetricsLog::of(keeping, &run.metrics_path(), first, stage)?),
        None => None,
    };
    let started = Instant::now();
    let every = keeping.checkpoint_every.unwrap_or(CHECKPOINT_EVERY);
    let left = plan.tokens - tokens.min(plan.tokens);
    let progress = (rank == 0).then(|| common.progress(&format!("{stage} (tokens)"), Some(left)));
    cognate_output::hold_signals();
    let mut loss = f64::NAN;
    for step in first + 1..=plan.steps {
        let begun = Instant::now();
        let rows = plan.rows(&data, step)?;
        let (lr, count) = (schedule.at(step), targets(&rows));
        let objective = Objective {
            cross_entropy_count: count.max(1) as f64,
            z_loss: flags.z_loss,
            ..Objective::default()
        };
        let batches = learner.join(ranks.as_ref().map_or(&rows[..], |ranks| ranks.part(&rows)));
        let outcome = learner
            .step(&batches, &objective, lr, ranks.as_mut())
            .map_err(|e| run_dir::not_finite(&state, rank, step, lr, e))?;
        let seen: u64 = rows.iter().map(|r| r.tokens.len() as u64).sum();
        tokens += seen;
        loss = outcome.sums.loss;
        if let Some(log) = &mut log {
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
            log.peak_memory(step);
            log.flush()?;
        }
        if let Some(progress) = &progress {
            progress.message(format!("step {step}/{} loss {loss:.4}", plan.steps));
            progress.inc(seen);
        }
        let mut stop = start::stop(keeping, started);
        if let Some(ranks) = &mut ranks
            && ranks.any(stop.is_some())?
        {
            stop = stop.or(Some(Stop::Rank));
        }
        if step < plan.steps && (stop.is_some() || (every > 0 && step.is_multiple_of(every))) {
            save(run.as_ref(), ranks.as_mut(), &mut learner, step, tokens)?;
        }
        if let (Some(why), true) = (stop, step < plan.steps) {
            start::leave(why, &state, step, plan.steps);
        }
    }
    if let Some(progress) = progress {
        progress.finish();
    }
    if let Some(ranks) = &mut ranks {
        learner.gather(ranks)?;
    }
    if let (Some(run), Some(mut log)) = (run, log) {
        log.deliver(keeping)?;
        origin.deliver_adapter(&learner, keeping)?;
        let mut history = origin.history(common)?;
        for file in &flags.data {
            history = history.input(file)?;
        }
        let summary = json!({"stage": stage, "steps": plan.steps, "tokens": tokens, "sequences": data.len(),
            "loss": loss, "parameters": learner.model.parameters()});
        origin.deliver(&learner.model, keeping.dtype, &history, &summary, &keeping.output)?;
        run.finish()?;
    }
    ranks.map_or(Ok(()), Ranks::leave)
}

/// Every setting and input that decides the result of a run.
fn identity(
    stage: &str,
    flags: &Supervised,
    origin: &Origin,
    data: &Dataset,
    schedule: &Schedule,
) -> Result<Map<String, Value>> {
    let mut identity = origin.identity()?;
    identity.insert("stage".into(), stage.into());
    identity.insert("data".into(), data.hash().into());
    identity.insert("batch".into(), flags.batch.into());
    if flags.z_loss != 0.0 {
        identity.insert("z-loss".into(), flags.z_loss.into());
    }
    // Their number decides in which order gradients are added up.
    if flags.parallel.world_size > 1 {
        identity.insert("world-size".into(), flags.parallel.world_size.into());
    }
    identity.extend(start::optimisation_identity(&flags.optimisation, schedule));
    Ok(identity)
}

/// A checkpoint: every rank writes its part, rank 0 puts all into place, and none goes on before it stands.
fn save(
    run: Option<&RunDir>,
    mut ranks: Option<&mut Ranks>,
    learner: &mut Learner,
    step: u64,
    tokens: u64,
) -> Result<()> {
    if let Some(ranks) = &mut ranks {
        learner.gather(ranks)?;
        learner.save_part(&ranks.draft(ranks.rank()))?;
        ranks.barrier()?;
    }
    if let Some(run) = run {
        run.save(step, &json!({"step": step, "tokens": tokens}), |dir| {
            learner.save(dir)?;
            ranks.as_ref().map_or(Ok(()), |ranks| ranks.collect(dir))
        })?;
    }
    ranks.map_or(Ok(()), |ranks| Ok(ranks.barrier()?))
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
