//! `rl`: policy gradients on scored rollouts, one end of the pipe cog-sample | cog-judge | cog-train rl.
//!
//! For each step: read the batch whole, journal it durably, step, publish the new version, ask for the next. What is
//! on disk between any two of these is enough to go on: the last checkpoint, the journal since, and nothing else. A
//! batch that the journal has already is skipped when it comes again; one from the future is refused.

use std::time::Instant;

use anyhow::{Result, anyhow, bail};
use cognate_cli::Common;
use cognate_model::StepSums;
use cognate_model::cuda::Purpose;
use cognate_model::placed::Model;
use cognate_policy::{PolicyError, Publisher, Request};
use cognate_random::Key;
use cognate_records::{Lines, Provenance};
use serde_json::{Map, Value, json};
use xxhash_rust::xxh3::xxh3_128;

use crate::algorithm::Recipe;
use crate::cli::Reinforce;
use crate::intake::{Arrival, Intake, StepBatch};
use crate::metrics::MetricsLog;
use crate::micro_batch::Row;
use crate::optimise::Learner;
use crate::planning;
use crate::returns::{estimate, mean_kl};
use crate::rollouts::{Prepared, answer_tokens, policy_count, prepare};
use crate::run_dir::RunDir;
use crate::schedule::Schedule;
use crate::start::{self, Origin, Stop};
use crate::supervised::flops;

const CHECKPOINT_EVERY: u64 = 10;

pub fn run(common: &Common, flags: &Reinforce) -> Result<()> {
    if let Some(device) = flags.planning.plan {
        return planning::reinforce(common, flags, device);
    }
    common.threads();
    let mut run = Run::begin(common, flags)?;
    let setup = planning::reinforce_setup(common, flags, &run.origin.config, run.origin.plan_device());
    planning::announce(common, &run.origin.config, &setup);
    cognate_output::hold_signals();
    let intake = Intake::spawn(Lines::open(&flags.input)?);
    let trace = |step: u64, phase: Phase| {
        if common.verbose > 1 {
            common.note(format!("step {step}: {phase:?}"));
        }
        Ok(())
    };
    run.drive(common, &intake, trace)?;
    run.finish(common)
}

/// What has just been done for a step; between any two of these the process may die.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Asked,
    Arrived,
    Journaled,
    Stepped,
    Published,
    Checkpointed,
}

/// A run between two protocol steps.
struct Run<'a> {
    flags: &'a Reinforce,
    origin: Origin,
    seed: u64,
    learner: Learner,
    reference: Option<Model>,
    recipe: Recipe,
    schedule: Schedule,
    publisher: Publisher,
    state: RunDir,
    log: MetricsLog,
    /// Optimizer steps done, and so the version of the present weights.
    step: u64,
    /// Tokens trained on.
    tokens: u64,
    quiet: bool,
    asked: Option<u64>,
    warned: bool,
}

impl<'a> Run<'a> {
    /// Opens the last checkpoint, or the initial model, and replays the journal.
    fn begin(common: &Common, flags: &'a Reinforce) -> Result<Self> {
        flags.keeping.check()?;
        // First of all, so that a sampler sees that a trainer lives, and asks nothing of a dead one's request.
        let mut publisher = Publisher::open(&flags.policy, flags.keep_versions).map_err(fault)?;
        let origin = Origin::of_model(&flags.model, common.seed)?.on(common, &flags.optimisation)?;
        let schedule = Schedule::new(&flags.optimisation, flags.steps);
        let recipe = Recipe::of(flags)?;
        let keeping = &flags.keeping;
        let path = keeping.checkpoint.clone().unwrap_or_else(|| start::state_path(&keeping.output));
        let identity = Value::Object(identity(flags, &recipe, &origin, &schedule)?);
        let state = RunDir::open(&path, &identity, keeping.restart, keeping.keep)?;
        publisher
            .belong_to(&format!("{:032x}\n", xxh3_128(identity.to_string().as_bytes())))
            .map_err(fault)?;
        let latest = state.latest()?;
        let checkpoint = latest.as_ref().map(|c| c.path.as_path());
        let mut learner = Learner::start(&origin, checkpoint, &flags.optimisation, None)?;
        let (step, tokens) =
            latest.as_ref().map_or((0, 0), |c| (c.step, c.state["tokens"].as_u64().unwrap_or(0)));
        if recipe.values() {
            let peak = flags.optimisation.lr;
            let lr = flags.value_lr.map_or(1.0, |lr| if peak == 0.0 { 0.0 } else { lr / peak });
            learner.add_value_head(checkpoint, lr)?;
        }
        let journal = state.journal()?;
        if step == 0 && journal.is_empty() {
            publisher.clear().map_err(fault)?;
        }
        let reference = match (&flags.reference, flags.kl > 0.0) {
            (_, false) => None,
            (Some(directory), true) => Some(origin.open(directory, Purpose::Inference)?),
            (None, true) => Some(origin.placed(Purpose::Inference)?),
        };
        let log = MetricsLog::of(keeping, &state.metrics_path(), step, "rl")?;
        let mut run = Self {
            flags,
            origin,
            seed: common.seed,
            learner,
            reference,
            recipe,
            schedule,
            publisher,
            state,
            log,
            step,
            tokens,
            quiet: common.quiet,
            asked: None,
            warned: false,
        };
        run.replay(&journal)?;
        Ok(run)
    }

    /// Does the steps that are left. `trace` hears of every phase, and ends the run with its error.
    fn drive(
        &mut self,
        common: &Common,
        intake: &Intake,
        mut trace: impl FnMut(u64, Phase) -> Result<()>,
    ) -> Result<()> {
        let steps = self.flags.steps;
        let started = Instant::now();
        let progress = common.progress("rl (steps)", Some(steps - self.step));
        self.publish()?;
        while self.step < steps {
            let step = self.step + 1;
            self.ask()?;
            trace(step, Phase::Asked)?;
            let begun = Instant::now();
            let batch = match self.await_batch(intake)? {
                Arrival::Batch(batch) => batch,
                Arrival::End => {
                    bail!("the input ended after step {} of {steps}; the same pipe goes on there", self.step)
                }
                Arrival::Signal(signal) => {
                    self.checkpoint()?;
                    start::leave(Stop::Signal(signal), self.state.path(), self.step, steps)
                }
            };
            let waited = begun.elapsed().as_secs_f64();
            trace(step, Phase::Arrived)?;
            // What cannot be trained on must not reach the journal, where the same pipe would find it for ever.
            let prepared = self.prepare(&batch)?;
            self.journal(&batch)?;
            trace(step, Phase::Journaled)?;
            let said = self.optimise(&batch, &prepared)?;
            self.log.measured(step, "wait_seconds", waited);
            // Before the checkpoint: a resumed run says nothing of the steps that it does not do again.
            self.log.flush()?;
            trace(step, Phase::Stepped)?;
            self.publish()?;
            trace(step, Phase::Published)?;
            if self.due() {
                // The sampler is at work on the next step while this is written.
                self.ask()?;
                self.checkpoint()?;
                trace(step, Phase::Checkpointed)?;
            }
            progress.message(said);
            progress.inc(1);
            if let (Some(why), true) = (start::stop(&self.flags.keeping, started), self.step < steps) {
                self.checkpoint()?;
                start::leave(why, self.state.path(), self.step, steps)
            }
        }
        progress.finish();
        Ok(())
    }

    fn replay(&mut self, journal: &[u64]) -> Result<()> {
        let checkpoint = self.step;
        for &entry in journal.iter().filter(|s| **s > checkpoint) {
            let path = self.state.journal_path(entry);
            if entry != self.step + 1 {
                let reason = format!("{}: step {} is missing before it", path.display(), self.step + 1);
                return Err(cognate_cli::rejected(anyhow!(reason)));
            }
            // A sampler that lags behind by design may still want the versions in between.
            if !self.publisher.dir().version_path(self.step).is_dir() {
                self.publish()?;
            }
            let batch = StepBatch::replay(&path, entry)?;
            let prepared = self.prepare(&batch)?;
            self.optimise(&batch, &prepared)?;
        }
        if self.step > 0 {
            self.note(format!(
                "{}: going on after step {} (checkpoint {checkpoint}, {} from the journal)",
                self.state.path().display(),
                self.step,
                self.step - checkpoint
            ));
        }
        if self.step > self.flags.steps {
            bail!("{} steps are done already, {} were asked for", self.step, self.flags.steps);
        }
        self.log.flush()
    }

    fn note(&self, text: String) {
        if !self.quiet {
            cognate_cli::say(text);
        }
    }

    /// The batch of the next step; one of a step that is done is skipped.
    fn await_batch(&mut self, intake: &Intake) -> Result<Arrival> {
        loop {
            let arrival = intake.next()?;
            let Arrival::Batch(batch) = &arrival else { return Ok(arrival) };
            let (step, version) = (batch.end.step, batch.end.version);
            if step <= self.step {
                self.note(format!("step {step} came again; it is done already and is skipped"));
                continue;
            }
            let refuse = |reason: String| Err(cognate_cli::rejected(anyhow!(reason)));
            if step > self.step + 1 {
                return refuse(format!("step {step} came where step {} was asked for", self.step + 1));
            }
            let newest = batch.rollouts.iter().flat_map(|r| &r.versions).copied().max().unwrap_or(version);
            if version > self.step || newest > self.step {
                let version = version.max(newest);
                return refuse(format!("step {step}: version {version} has not been published yet"));
            }
            let staleness = self.step - version;
            if self.flags.max_staleness.is_some_and(|limit| staleness > limit) {
                return refuse(format!("step {step}: version {version} is {staleness} steps old"));
            }
            return Ok(arrival);
        }
    }

    /// Makes the batch durable: from here on the step will be done, whatever is killed.
    fn journal(&self, batch: &StepBatch) -> Result<()> {
        batch.journal(&self.state.journal_path(batch.end.step))
    }

    fn prepare(&self, batch: &StepBatch) -> Result<Prepared> {
        prepare(batch, &self.recipe, &self.origin.config, self.seed)
    }

    /// The optimizer step(s) on one batch. Depends on the state and the batch alone.
    fn optimise(&mut self, batch: &StepBatch, prepared: &Prepared) -> Result<String> {
        let begun = Instant::now();
        let step = batch.end.step;
        if prepared.report.without_logprobs > 0 && !std::mem::replace(&mut self.warned, true) {
            self.note(format!(
                "step {step}: {} rollouts lack the log-probabilities they were sampled with: no importance correction",
                prepared.report.without_logprobs
            ));
        }
        let inner = self.inner(step, prepared);
        let (sums, norms) = inner.map_err(|e| self.state.not_finite(step, self.schedule.at(step), e))?;
        self.step = step;
        let trained: usize = prepared.groups.iter().flatten().map(|r| r.tokens.len()).sum();
        self.tokens += trained as u64;
        self.report(batch, prepared, &sums, &norms);
        self.log.measured(step, "step_seconds", begun.elapsed().as_secs_f64());
        let seconds = begun.elapsed().as_secs_f64();
        self.log.measured(step, "tokens_per_second", trained as f64 / seconds);
        let passes = self.flags.inner_epochs as f64;
        let flops = passes * flops(&self.origin.config, &prepared.groups.concat());
        self.log.utilisation(step, flops, seconds, self.flags.keeping.peak_flops);
        self.log.peak_memory(step);
        let r = &prepared.report;
        Ok(format!("step {step} reward {:.3} dropped {}/{}", r.reward_mean(), r.dropped, r.prompts))
    }

    fn inner(&mut self, step: u64, prepared: &Prepared) -> Result<(StepSums, Vec<f64>)> {
        let f = self.flags;
        let (mut sums, mut norms) = (StepSums::default(), Vec::new());
        let mut groups = prepared.groups.clone();
        let several = f.minibatches * f.inner_epochs > 1;
        let recipe = self.recipe;
        for group in &mut groups {
            if self.reference.is_some() {
                let scored = scores(&mut self.learner, self.reference.as_ref(), group, prepared.temperature)?;
                group.iter_mut().zip(scored).for_each(|(row, s)| row.policy.reference = s.0);
            }
            if several || recipe.values() || recipe.kl_in_reward() {
                let scored = scores(&mut self.learner, None, group, prepared.temperature)?;
                for (row, (logprobs, values)) in group.iter_mut().zip(scored) {
                    (row.policy.old, row.policy.value_old) = (logprobs, values);
                }
            }
        }
        estimate(&mut groups, &recipe);
        if recipe.kl_in_reward() && !groups.is_empty() {
            self.log.put(step, "kl_reference", mean_kl(&groups, &recipe));
        }
        let lr = self.schedule.at(step);
        for epoch in 0..f.inner_epochs {
            let mut order: Vec<usize> = (0..groups.len()).collect();
            if several {
                let key = Key::new(self.seed).with("train").with("minibatches").with(step).with(epoch);
                key.stream().shuffle(&mut order);
            }
            let size = groups.len().div_ceil(f.minibatches as usize).max(1);
            for part in order.chunks(size) {
                let rows: Vec<Row> = part.iter().flat_map(|g| groups[*g].iter().cloned()).collect();
                let count = policy_count(rows.iter(), recipe.normalise, prepared.longest);
                let tokens = rows.iter().map(answer_tokens).sum();
                let objective = recipe.objective(count, tokens, prepared.temperature);
                let batches = self.learner.join(&rows);
                let outcome = self.learner.step(&batches, &objective, lr, None)?;
                sums += outcome.sums;
                norms.push(outcome.gradient_norm);
            }
        }
        Ok((sums, norms))
    }

    fn report(&mut self, batch: &StepBatch, prepared: &Prepared, sums: &StepSums, norms: &[f64]) {
        let (step, r, log) = (self.step, &prepared.report, &mut self.log);
        let share = |part: usize, whole: usize| part as f64 / whole.max(1) as f64;
        log.put(step, "reward_mean", r.reward_mean());
        log.put(step, "reward_std", r.reward_deviation());
        log.put(step, "groups", r.prompts as f64);
        log.put(step, "groups_dropped", share(r.dropped, r.prompts));
        log.put(step, "groups_equal", share(r.equal, r.prompts));
        log.put(step, "rollouts", r.rollouts as f64);
        log.put(step, "judge_errors", r.judge_errors as f64);
        log.put(step, "length_mean", share(r.tokens, r.rollouts));
        log.put(step, "truncated", share(r.truncated, r.rollouts));
        log.put(step, "staleness", (step - 1 - batch.end.version) as f64);
        log.put(step, "learning_rate", self.schedule.at(step));
        log.put(step, "tokens", self.tokens as f64);
        log.put(step, "optimizer_steps", norms.len() as f64);
        if sums.policy_tokens > 0.0 {
            let n = sums.policy_tokens;
            log.put(step, "loss", sums.loss / norms.len() as f64);
            log.put(step, "gradient_norm", norms.iter().sum::<f64>() / norms.len() as f64);
            log.put(step, "entropy", sums.entropy_sum / sums.tokens.max(1.0));
            log.put(step, "clipped_low", sums.clipped_low / n);
            log.put(step, "clipped_high", sums.clipped_high / n);
            log.put(step, "ratio_mean", sums.ratio_sum / n);
            log.put(step, "kl_old", sums.approx_kl_sum / n);
            if r.without_logprobs == 0 {
                log.put(step, "logprob_difference", sums.abs_delta_sum / n);
                log.put(step, "importance_truncated", sums.importance_truncated / n);
            }
            if sums.value_tokens > 0.0 {
                log.put(step, "value_loss", sums.value / norms.len() as f64);
                log.put(step, "value_clipped", sums.value_clipped / sums.value_tokens);
            }
            if self.recipe.kl_in_loss() {
                log.put(step, "kl_reference", sums.kl / f64::from(self.recipe.kl) / norms.len() as f64);
            }
        }
    }

    fn publish(&mut self) -> Result<()> {
        let (origin, model, dtype) = (&self.origin, &self.learner.model, self.flags.policy_dtype);
        self.publisher
            .publish(self.step, |dir| origin.write(model, dtype, dir).map_err(Fault))
            .map(drop)
            .map_err(|Fault(e)| e)
    }

    /// Asks for the next step, once.
    fn ask(&mut self) -> Result<()> {
        if self.asked != Some(self.step) {
            self.request(false)?;
            self.asked = Some(self.step);
        }
        Ok(())
    }

    fn request(&mut self, done: bool) -> Result<()> {
        let groups = self.flags.sample_groups.unwrap_or(self.flags.groups);
        let request = Request {
            step: self.step + 1,
            version: self.step,
            groups,
            prompts_done: self.step * groups,
            done,
            session: None,
        };
        self.publisher.request(request).map_err(fault)
    }

    fn due(&self) -> bool {
        let every = self.flags.keeping.checkpoint_every.unwrap_or(CHECKPOINT_EVERY);
        every > 0 && self.step.is_multiple_of(every) && self.step < self.flags.steps
    }

    fn checkpoint(&self) -> Result<()> {
        if self.step == 0 {
            return Ok(());
        }
        let state = json!({"step": self.step, "tokens": self.tokens});
        self.state.save(self.step, &state, |dir| self.learner.save(dir))
    }

    /// Delivers the model, then tells the sampler that the run is done.
    fn finish(mut self, common: &Common) -> Result<()> {
        let keeping = &self.flags.keeping;
        self.log.deliver(keeping)?;
        self.origin.deliver_adapter(&self.learner, keeping)?;
        let mut history: Provenance = self.origin.history(common)?;
        if let Some(reference) = self.flags.reference.as_deref().filter(|_| self.recipe.kl > 0.0) {
            history = history.input(reference)?;
        }
        let summary = json!({"stage": "rl", "steps": self.step, "tokens": self.tokens,
            "parameters": self.learner.model.parameters()});
        self.origin.deliver(&self.learner.model, keeping.dtype, &history, &summary, &keeping.output)?;
        self.request(true)?;
        self.state.finish()
    }
}

/// Log-probabilities of every row's tokens, and their values.
fn scores(
    learner: &mut Learner,
    model: Option<&Model>,
    rows: &[Row],
    temperature: f32,
) -> Result<Vec<(Vec<f32>, Vec<f32>)>> {
    let mut found = Vec::with_capacity(rows.len());
    for micro in learner.join(rows) {
        let (mut logprobs, mut values) = learner.score(model, &micro, temperature)?;
        for _ in &micro.ids {
            let n = rows[found.len()].tokens.len();
            let rest = (logprobs.split_off(n), values.split_off(n.min(values.len())));
            found.push((std::mem::replace(&mut logprobs, rest.0), std::mem::replace(&mut values, rest.1)));
        }
    }
    Ok(found)
}

/// Every setting that decides the result of a run.
fn identity(
    flags: &Reinforce,
    recipe: &Recipe,
    origin: &Origin,
    schedule: &Schedule,
) -> Result<Map<String, Value>> {
    let mut map = origin.identity()?;
    map.insert("stage".into(), "rl".into());
    let mut settings = json!({
        "groups": flags.groups, "sample-groups": flags.sample_groups, "minibatches": flags.minibatches,
        "inner-epochs": flags.inner_epochs, "policy-dtype": flags.policy_dtype, "value-lr": flags.value_lr,
    });
    map.extend(settings.as_object_mut().map(std::mem::take).unwrap_or_default());
    map.extend(recipe.identity());
    map.extend(start::optimisation_identity(&flags.optimisation, schedule));
    Ok(map)
}

fn fault(error: PolicyError) -> anyhow::Error {
    if error.is_data() { cognate_cli::rejected(error) } else { anyhow::Error::new(error) }
}

/// Carries either error out of the publisher.
struct Fault(anyhow::Error);

impl From<PolicyError> for Fault {
    fn from(error: PolicyError) -> Self {
        Self(fault(error))
    }
}

#[cfg(test)]
#[path = "../tests/toy/mod.rs"]
#[expect(dead_code, reason = "shared with the tests from the outside")]
mod toy;

#[cfg(test)]
#[path = "reinforce_deaths.rs"]
mod deaths;
