//! Following a policy: a thread plays the trainer, publishing versions as the steps' rollouts come in.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::world::{World, trained_logprobs, world};
use cognate_chat::TokenizerRecipe;
use cognate_model::{Dtype, Model};
use cognate_policy::{PolicyError, Publisher, Request};
use cognate_records::{Lines, Rollout, StepEnd};

const GROUPS: u64 = 3;

fn publish(publisher: &mut Publisher, version: u64) {
    publisher
        .publish(version, |dir| -> Result<(), PolicyError> {
            Model::init(&crate::world::config(), 100 + version).unwrap().save(dir, Dtype::F32).unwrap();
            TokenizerRecipe::bytes().write(dir).unwrap();
            Ok(())
        })
        .unwrap();
}

fn request(publisher: &mut Publisher, step: u64, done: bool) {
    let request = Request {
        step,
        version: step - 1,
        groups: GROUPS,
        prompts_done: (step - 1) * GROUPS,
        done,
        session: None,
    };
    publisher.request(request).unwrap();
}

fn start(w: &World, policy: &Path, arguments: &[&str]) -> (Child, BufReader<ChildStdout>) {
    let mut child = crate::world::command()
        .arg("--follow")
        .arg(policy)
        .arg("--prompts")
        .arg(&w.file)
        .args(["-s", "2", "--max-tokens", "10", "--seed", "3"])
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    (child, stdout)
}

struct Step {
    text: String,
    rollouts: Vec<Rollout>,
    end: StepEnd,
}

/// Reads a step as the trainer would: rollouts until the step's end.
fn read_step(stdout: &mut impl BufRead) -> Step {
    let (mut text, mut rollouts) = (String::new(), Vec::new());
    loop {
        let mut line = String::new();
        assert!(stdout.read_line(&mut line).unwrap() > 0, "the stream ended inside a step");
        text += &line;
        let parsed = Lines::new("pipe", std::io::Cursor::new(line.into_bytes())).next().unwrap().unwrap();
        match parsed.schema() {
            Some("step_end/1") => return Step { text, rollouts, end: parsed.decode().unwrap() },
            _ => rollouts.push(parsed.decode().unwrap()),
        }
    }
}

/// A whole run from step `first`, the trainer publishing version s after the rollouts of step s.
fn run(w: &World, first: u64, steps: u64, arguments: &[&str]) -> Vec<Step> {
    let policy = tempfile::tempdir().unwrap();
    let mut publisher = Publisher::open(policy.path(), 4).unwrap();
    let count = steps.to_string();
    let (mut child, mut stdout) = start(w, policy.path(), &[&["--steps", &count], arguments].concat());
    publish(&mut publisher, first - 1);
    request(&mut publisher, first, false);
    let mut read = Vec::new();
    for step in first..=steps {
        read.push(read_step(&mut stdout));
        publish(&mut publisher, step);
        request(&mut publisher, step + 1, step == steps);
    }
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(stdout.fill_buf().unwrap().is_empty(), "nothing after the last step");
    read
}

#[test]
fn each_step_is_sampled_with_the_version_that_it_needs() {
    let w = world(10);
    let steps = run(&w, 1, 4, &[]);
    let mut asked = Vec::new();
    for (step, s) in (1..).zip(&steps) {
        let expected =
            StepEnd { step, version: step - 1, groups: GROUPS, rollouts: 2 * GROUPS, ..StepEnd::default() };
        assert_eq!(s.end, expected);
        assert_eq!(s.rollouts.len(), 6);
        let model = Model::init(&crate::world::config(), 100 + step - 1).unwrap();
        let other = Model::init(&crate::world::config(), 100 + step).unwrap();
        for r in &s.rollouts {
            assert_eq!(r.round, Some(step));
            assert_eq!(r.versions, vec![step - 1; r.ids.len()]);
            let error = |model: &Model| -> f32 {
                r.logprobs
                    .iter()
                    .zip(trained_logprobs(model, r))
                    .map(|(a, b)| (a - b).abs())
                    .fold(0.0, f32::max)
            };
            assert!(error(&model) < 1e-4, "the weights are those of the version");
            assert!(error(&other) > 1e-2, "and another version's would be noticed");
        }
        asked.extend(s.rollouts.iter().filter(|r| r.index == 0).map(|r| r.prompt.clone()));
    }
    // Three steps of three prompts are an epoch of ten, one passed over.
    let mut epoch = asked[..9].to_vec();
    epoch.sort();
    epoch.dedup();
    assert_eq!(epoch.len(), 9);
}

#[test]
fn a_resumed_run_goes_on_with_the_same_bytes() {
    let w = world(10);
    let whole = run(&w, 1, 4, &["--batch", "2", "-j", "1"]);
    let resumed = run(&w, 3, 4, &["-j", "2"]);
    assert_eq!(resumed.len(), 2);
    for (a, b) in whole[2..].iter().zip(&resumed) {
        assert_eq!(a.text, b.text);
    }
    assert_ne!(whole[0].text, whole[1].text);
}

#[test]
fn one_step_of_staleness_samples_ahead() {
    let w = world(10);
    let policy = tempfile::tempdir().unwrap();
    let mut publisher = Publisher::open(policy.path(), 4).unwrap();
    let (mut child, mut stdout) = start(&w, policy.path(), &["--steps", "3", "--max-staleness", "1"]);
    publish(&mut publisher, 0);
    request(&mut publisher, 1, false);
    // Two steps come out of version 0 before version 1 is there.
    let early: Vec<u64> = (0..2).map(|_| read_step(&mut stdout).end.version).collect();
    assert_eq!(early, [0, 0]);
    publish(&mut publisher, 1);
    request(&mut publisher, 2, false);
    assert_eq!(read_step(&mut stdout).end.version, 1);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_version_that_is_no_longer_kept_is_missed_aloud() {
    let w = world(10);
    for (staleness, missed) in [("1", false), ("4", true)] {
        let policy = tempfile::tempdir().unwrap();
        let mut publisher = Publisher::open(policy.path(), 2).unwrap();
        (0..6).for_each(|v| publish(&mut publisher, v));
        request(&mut publisher, 6, false);
        let mut command = Command::new(env!("CARGO_BIN_EXE_cog-sample"));
        command.arg("--follow").arg(policy.path()).arg("--prompts").arg(&w.file);
        command.args(["--max-tokens", "3", "--steps", "6", "--device", "cpu", "--max-staleness", staleness]);
        let out = command.output().unwrap();
        assert_eq!(out.status.code(), Some(0));
        assert_eq!(read_step(&mut &out.stdout[..]).end.version, 4);
        let said = String::from_utf8(out.stderr).unwrap();
        assert_eq!(said.contains("step 6: version 1 is no longer kept, 4 takes its place"), missed, "{said}");
    }
}

#[test]
fn a_trainer_that_is_done_early_ends_the_stream() {
    let w = world(10);
    let policy = tempfile::tempdir().unwrap();
    let mut publisher = Publisher::open(policy.path(), 4).unwrap();
    let (mut child, mut stdout) = start(&w, policy.path(), &["--steps", "9"]);
    publish(&mut publisher, 0);
    request(&mut publisher, 1, false);
    read_step(&mut stdout);
    request(&mut publisher, 2, true);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_trainer_that_dies_is_a_failure() {
    let w = world(10);
    let policy = tempfile::tempdir().unwrap();
    let mut publisher = Publisher::open(policy.path(), 4).unwrap();
    let (mut child, mut stdout) = start(&w, policy.path(), &["--steps", "9"]);
    publish(&mut publisher, 0);
    request(&mut publisher, 1, false);
    read_step(&mut stdout);
    std::thread::sleep(Duration::from_millis(50));
    assert!(child.try_wait().unwrap().is_none(), "it waits for version 1");
    drop(publisher);
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

#[test]
fn disagreement_about_groups_is_refused() {
    let w = world(10);
    for (arguments, code) in [(["--steps", "2", "--groups", "4"], 3), (["--steps", "2", "--limit", "2"], 3)] {
        let policy = tempfile::tempdir().unwrap();
        let mut publisher = Publisher::open(policy.path(), 4).unwrap();
        let (mut child, mut stdout) = start(&w, policy.path(), &arguments);
        publish(&mut publisher, 0);
        request(&mut publisher, 1, false);
        assert_eq!(child.wait().unwrap().code(), Some(code), "{arguments:?}");
        assert!(stdout.fill_buf().unwrap().is_empty());
    }
}
