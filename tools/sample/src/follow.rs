//! Samples step after step from a policy that is being trained. The only things read from the trainer are its request
//! and the versions that it publishes; the rollouts go down the pipe, each step closed by a `step_end/1`.

use std::path::Path;

use anyhow::{Context, anyhow, bail};
use cognate_cli::rejected;
use cognate_model::LlamaConfig;
use cognate_model::placed::Model;
use cognate_policy::{Follower, Next, PolicyError, Version};
use cognate_records::{LineWriter, Prompt, StepEnd};

use crate::cli::Cli;
use crate::once::{device, fault, open_chat, open_model, sampler};
use crate::prompts;
use crate::sampler::Round;
use crate::schedule::prompts_of_step;

/// Ends after the last step, or earlier if the trainer says that it is done.
///
/// # Errors
/// Data errors of the prompts or of a published model; a trainer that never comes or goes away; failing outputs.
pub fn follow(cli: &Cli, policy: &Path) -> anyhow::Result<()> {
    cli.common.threads();
    let steps = cli.steps.context("--steps is needed")?;
    let mut follower = Follower::new(policy);
    follower.max_staleness = cli.max_staleness;
    let first = follower.first().map_err(of_policy)?;
    let groups = match (cli.groups, first.groups) {
        (Some(ours), theirs) if theirs != 0 && ours != theirs => {
            return Err(rejected(anyhow!(
                "{}: the trainer asks for {theirs} prompts a step, --groups says {ours}",
                policy.display()
            )));
        }
        (Some(ours), _) => ours,
        (None, 0) => bail!("neither the trainer nor --groups says how many prompts a step takes"),
        (None, theirs) => theirs,
    } as usize;
    let Some(version) = next(cli, &follower, first.step, steps)? else { return Ok(()) };
    let mut model = open_model(&version.path, &device(cli, &version.path)?)?;
    let chat = open_chat(cli.tokenizer.as_deref().unwrap_or(&version.path))?;
    let prompts = prompts::read(&cli.prompts, cli.limit, &chat, model.config(), &cli.common)?;
    if groups > prompts.len() {
        let (path, count) = (cli.prompts.display(), prompts.len());
        return Err(rejected(anyhow!("{path}: a step takes {groups} prompts, there are {count}")));
    }
    let sampler = sampler(cli, &chat);
    let mut decoder = sampler.decoder(&model, &prompts)?;
    let mut output = LineWriter::create(&cli.output)?;
    let progress = cli.common.progress("sample steps", Some(steps.saturating_sub(first.step - 1)));
    let mut version = Some(version);
    let mut step = first.step;
    while let Some(present) = version {
        if step != first.step {
            reload(&present, &mut model)?;
        }
        let chosen: Vec<&Prompt> = prompts_of_step(cli.common.seed, step - 1, groups, prompts.len())
            .into_iter()
            .map(|i| &prompts[i])
            .collect();
        let round = Round { number: step, version: Some(present.number) };
        let mut rollouts = 0;
        sampler.round(&model, &mut decoder, &chosen, round, None, |rollout| {
            rollouts += 1;
            Ok(output.write_record(rollout).and_then(|()| output.flush())?)
        })?;
        let end =
            StepEnd { step, version: present.number, groups: groups as u64, rollouts, ..StepEnd::default() };
        output.write_record(&end).and_then(|()| output.flush())?;
        progress.inc(1);
        step += 1;
        version = next(cli, &follower, step, steps)?;
    }
    progress.finish();
    Ok(output.finish()?)
}

/// The version for `step`, or none if there is nothing left to sample.
fn next(cli: &Cli, follower: &Follower, step: u64, steps: u64) -> anyhow::Result<Option<Version>> {
    if step > steps {
        return Ok(None);
    }
    let Next::Sample(version) = follower.wait(step).map_err(of_policy)? else { return Ok(None) };
    let wanted = follower.version_for(step);
    if version.number != wanted {
        cli.common.note(format_args!(
            "step {step}: version {wanted} is no longer kept, {} takes its place; cog-train rl --keep-versions keeps more",
            version.number
        ));
    }
    Ok(Some(version))
}

fn of_policy(e: PolicyError) -> anyhow::Error {
    if e.is_data() { rejected(e) } else { e.into() }
}

/// Takes over a version, which must have the shape of the one before, for which the decoder was made.
fn reload(version: &Version, model: &mut Model) -> anyhow::Result<()> {
    let config = LlamaConfig::read(&version.path).map_err(fault)?;
    if config.to_json() != model.config().to_json() {
        let path = version.path.display();
        return Err(rejected(anyhow!("{path}: its config.json differs from that of the version before")));
    }
    model.reload(&version.path).map_err(fault)
}
