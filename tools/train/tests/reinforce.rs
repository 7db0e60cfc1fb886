//! `cog-train rl` from the outside, with a toy sampler and judge in the place of the other two processes.

#[expect(dead_code, reason = "shared with the tests of lm and sft")]
mod toy;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cognate_policy::{Follower, Next, PolicyDir, PolicyError};
use cognate_random::Key;

struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        toy::model(dir.path(), 3);
        Self { dir }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn rl(&self, steps: u64, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cog-train"));
        command.current_dir(self.dir.path()).args(["rl", "--model", "initial", "--policy", "policy", "-q"]);
        command.args(["--steps", &steps.to_string(), "--groups", &toy::GROUPS.to_string()]);
        command.args(["-o", "out", "--metrics", "out.metrics.jsonl"]).args(more);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs trainer and toy sampler until one of them ends; `staleness` as `--max-staleness` of the sampler.
    fn pipe(&self, command: &mut Command, steps: u64, staleness: u64) -> Output {
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        let policy = self.at("policy");
        let over = Arc::new(AtomicBool::new(false));
        let sampler = {
            let over = over.clone();
            std::thread::spawn(move || sample(&policy, stdin, steps, staleness, &over))
        };
        let out = child.wait_with_output().unwrap();
        over.store(true, Ordering::SeqCst);
        sampler.join().unwrap();
        out
    }

    fn complete(&self, steps: u64, staleness: u64, more: &[&str]) {
        let out = self.pipe(&mut self.rl(steps, more), steps, staleness);
        assert!(out.status.success(), "{}: {}", out.status, String::from_utf8_lossy(&out.stderr));
        assert!(!self.at("out.ckpt").exists());
    }

    fn weights(&self) -> Vec<u8> {
        fs::read(self.at("out/model.safetensors")).unwrap()
    }

    fn metrics(&self) -> PathBuf {
        self.at("out.metrics.jsonl")
    }
}

/// What cog-sample and cog-judge do; ends quietly when the trainer does.
fn sample(policy: &Path, mut out: impl Write, steps: u64, staleness: u64, over: &AtomicBool) {
    let mut follower = Follower::new(policy);
    follower.max_staleness = staleness;
    follower.start_timeout = Duration::from_millis(100);
    // A trainer that was killed before it could be seen takes its sampler with it.
    let first = loop {
        match follower.first() {
            Ok(first) => break first,
            Err(PolicyError::NoTrainer { .. }) if !over.load(Ordering::SeqCst) => {}
            Err(_) => return,
        }
    };
    let mut prompts_done = first.prompts_done;
    for step in first.step..=steps {
        let Ok(Next::Sample(version)) = follower.wait(step) else { return };
        let text = toy::step(&version.path, version.number, step, prompts_done);
        prompts_done += toy::GROUPS;
        if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[test]
fn reward_rises_and_does_not_without_a_learning_rate() {
    let w = World::new();
    w.complete(40, 0, &["--lr", "2e-2"]);
    let reward = toy::series(&w.metrics(), "reward_mean");
    assert_eq!(reward.len(), 40);
    assert!(mean(&reward[..4]) < 0.5 && mean(&reward[30..]) > 0.8, "{reward:?}");
    // Sampler and trainer are the same model: what they think of a token differs by rounding.
    let delta = toy::series(&w.metrics(), "logprob_difference");
    assert!(delta.iter().all(|d| *d < 1e-5), "{delta:?}");
    let entropy = toy::series(&w.metrics(), "entropy");
    assert!(entropy.last() < entropy.first());
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        assert_eq!(fs::read(w.at("out").join(name)).unwrap(), fs::read(w.at("initial").join(name)).unwrap());
    }
    let policy = PolicyDir::new(w.at("policy"));
    assert_eq!((policy.current().unwrap(), policy.versions().unwrap().len()), (Some(40), 4));
    assert!(policy.request().unwrap().unwrap().done);
    assert_eq!(fs::read(w.at("policy/40/model.safetensors")).unwrap(), w.weights());

    let control = World::new();
    control.complete(12, 0, &["--lr", "0"]);
    let reward = toy::series(&control.metrics(), "reward_mean");
    assert!(reward.iter().all(|r| *r < 0.6), "{reward:?}");
    assert_eq!(control.weights(), fs::read(control.at("initial/model.safetensors")).unwrap());
}

#[test]
fn reward_rises_under_every_algorithm() {
    for (algorithm, lr) in [
        ("grpo", "2e-2"),
        ("dr-grpo", "2e-2"),
        ("gspo", "2e-2"),
        ("rloo", "2e-2"),
        ("reinforce++", "2e-2"),
        ("ppo", "2e-2"),
    ] {
        let w = World::new();
        let kl = if algorithm == "rloo" { "1e-6" } else { "0" };
        w.complete(30, 0, &["--algorithm", algorithm, "--lr", lr, "--kl", kl]);
        let reward = toy::series(&w.metrics(), "reward_mean");
        assert!(mean(&reward[24..]) > mean(&reward[..4]) + 0.2, "{algorithm}: {reward:?}");
        if algorithm == "rloo" {
            // The KL taken off the reward is said, and begins at nothing.
            let kl = toy::series(&w.metrics(), "kl_reference");
            assert!(kl[0].abs() < 1e-6 && kl[29] > 0.0, "{kl:?}");
        }
        if algorithm == "ppo" {
            let loss = toy::series(&w.metrics(), "value_loss");
            assert!(loss.len() == 30 && mean(&loss[24..]) < mean(&loss[..4]), "{loss:?}");
        }
    }
}

#[test]
fn threads_staleness_and_micro_batches() {
    let one = World::new();
    one.complete(6, 0, &["--lr", "1e-2", "-j", "1"]);
    let two = World::new();
    two.complete(6, 0, &["--lr", "1e-2", "-j", "2"]);
    assert_eq!(one.weights(), two.weights(), "threads must not change a byte");
    toy::same_metrics(&one.metrics(), &two.metrics());
    let [a, b] = [(); 2].map(|()| {
        let w = World::new();
        w.complete(6, 1, &["--lr", "1e-2"]);
        (w.weights(), toy::series(&w.metrics(), "staleness"))
    });
    assert_eq!(a, b, "overlapped sampling is as reproducible");
    assert_eq!(a.1, [0.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
    assert_ne!(a.0, one.weights());
}

#[test]
fn several_minibatches_move_the_ratio_and_are_clipped() {
    let w = World::new();
    w.complete(8, 0, &["--lr", "3e-2", "--minibatches", "2", "--inner-epochs", "2"]);
    let ratio = toy::series(&w.metrics(), "ratio_mean");
    assert!(ratio.iter().any(|r| (r - 1.0).abs() > 1e-3), "{ratio:?}");
    let clipped =
        [toy::series(&w.metrics(), "clipped_low"), toy::series(&w.metrics(), "clipped_high")].concat();
    assert!(clipped.iter().any(|c| *c > 0.0) && clipped.iter().all(|c| *c < 1.0), "{clipped:?}");
}

#[test]
fn a_kl_term_keeps_the_policy_near_its_reference() {
    let [free, held] = ["1e-6", "3"].map(|coefficient| {
        let w = World::new();
        w.complete(12, 0, &["--lr", "2e-2", "--kl", coefficient]);
        toy::series(&w.metrics(), "kl_reference")
    });
    // The first step is taken at the reference itself.
    assert!(free[0].abs() < 1e-6 && held[0].abs() < 1e-6, "{} {}", free[0], held[0]);
    assert!(free.last().unwrap() > &0.05 && mean(&held) < 0.5 * mean(&free), "{held:?} {free:?}");
}

/// Kills the trainer again and again, wherever it happens to be, and lets the pipe go on.
fn killed_often(seed: u64, steps: u64, staleness: u64, flags: &[&str]) -> (World, u32) {
    let w = World::new();
    let mut kills = 0;
    for round in 0..200u64 {
        let mut child: Child = w.rl(steps, flags).spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        let policy = w.at("policy");
        let over = Arc::new(AtomicBool::new(false));
        let sampler = {
            let over = over.clone();
            std::thread::spawn(move || sample(&policy, stdin, steps, staleness, &over))
        };
        // One in four while it starts, the others from its first request to some steps later.
        let key = Key::new(seed).with(round);
        let mut pause = 30.0 * f64::from(key.uniform(0));
        if key.uniform(1) > 0.25 {
            let policy = PolicyDir::new(w.at("policy"));
            while child.try_wait().unwrap().is_none()
                && !(policy.trainer_lives() == Some(true) && policy.request().unwrap().is_some())
            {
                std::thread::sleep(Duration::from_millis(1));
            }
            pause *= 1.0 + round as f64 / 10.0;
        }
        std::thread::sleep(Duration::from_micros((pause * 1000.0) as u64));
        let ended = child.try_wait().unwrap();
        if ended.is_none() {
            child.kill().unwrap();
            kills += 1;
        }
        let status = child.wait().unwrap();
        over.store(true, Ordering::SeqCst);
        sampler.join().unwrap();
        assert!(ended.is_none() || status.success(), "{status}");
        if status.success() {
            return (w, kills);
        }
        assert!(!w.at("out/config.json").exists() || w.at("out/model.safetensors").exists());
    }
    panic!("never done");
}

#[test]
fn killed_anywhere_no_step_is_lost_or_repeated() {
    for (steps, staleness, every, algorithm) in
        [(80, 0, "7", "dapo"), (80, 1, "4", "dapo"), (40, 0, "5", "ppo")]
    {
        let flags = ["--lr", "1e-2", "--checkpoint-every", every, "--algorithm", algorithm];
        let whole = World::new();
        whole.complete(steps, staleness, &flags);
        let (broken, kills) = killed_often(staleness, steps, staleness, &flags);
        assert!(kills >= 3, "{kills} kills prove little");
        assert_eq!(broken.weights(), whole.weights(), "after {kills} kills");
        toy::same_metrics(&broken.metrics(), &whole.metrics());
    }
}

#[test]
fn an_input_that_ends_early_is_a_failure_and_the_same_pipe_goes_on() {
    let whole = World::new();
    whole.complete(5, 0, &["--lr", "1e-2"]);
    let w = World::new();
    // The sampler dies after two steps.
    let out = w.pipe(&mut w.rl(5, &["--lr", "1e-2"]), 2, 0);
    assert_eq!(out.status.code(), Some(1));
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(text.contains("the input ended after step 2 of 5"), "{text}");
    assert!(!w.at("out").exists());
    w.complete(5, 0, &["--lr", "1e-2"]);
    assert_eq!(w.weights(), whole.weights());
}

/// A sampler that lags behind by design asks for versions that the run published before it was cut short: its own, not
/// those that another run has left there since.
#[test]
fn another_runs_versions_are_not_taken_for_those_of_a_run_that_goes_on() {
    let flags = ["--lr", "1e-2"];
    let whole = World::new();
    whole.complete(5, 1, &flags);
    let w = World::new();
    let ended =
        |w: &World, flags: &[&str]| assert_eq!(w.pipe(&mut w.rl(5, flags), 3, 1).status.code(), Some(1));
    ended(&w, &flags);
    let other = World::new();
    std::os::unix::fs::symlink(w.at("policy"), other.at("policy")).unwrap();
    ended(&other, &["--lr", "5e-2"]);
    w.complete(5, 1, &flags);
    assert_eq!(w.weights(), whole.weights());
}

/// Gives the trainer fixed input and returns how it ended.
fn fed(w: &World, flags: &[&str], text: &str) -> (i32, String) {
    let mut child = w.rl(5, flags).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let _ = stdin.write_all(text.as_bytes());
    drop(stdin);
    let out = child.wait_with_output().unwrap();
    (out.status.code().unwrap_or(-1), String::from_utf8_lossy(&out.stderr).into_owned())
}

#[test]
fn batches_that_are_not_what_was_asked_for_are_refused_or_skipped() {
    let w = World::new();
    let initial = w.at("initial");
    let first = toy::step(&initial, 0, 1, 0);
    let refused = |text: &str, flags: &[&str], reason: &str| {
        let (code, said) = fed(&World::new(), flags, text);
        assert!(code == 3 && said.contains(reason), "{code}: {said}");
    };
    refused(&toy::step(&initial, 0, 2, 0), &[], "step 2 came where step 1 was asked for");
    refused(&toy::step(&initial, 1, 1, 0), &[], "version 1 has not been published yet");
    let second = first.clone() + &toy::step(&initial, 0, 2, 0);
    refused(&second, &["--max-staleness", "0"], "version 0 is 1 steps old");
    refused(&first.replace("\"ids\":[", "\"ids\":[99,"), &[], "ids but");
    refused(&first.replace("rollout/1", "rollout/2"), &[], "rollout/2");
    let foreign = first.replace("\"prompt_ids\":[", "\"prompt_ids\":[99,");
    assert_ne!(foreign, first);
    refused(&foreign, &[], "p000#0: token id 99 is beyond the vocabulary of 16");
    let long = first.replace("\"prompt_ids\":[", &format!("\"prompt_ids\":[{}", "1,".repeat(40)));
    refused(&long, &[], "p000#0: 46 tokens are longer than the context of 32");
    // A batch that is cut off, even between two lines, is no batch.
    let cut = &first[..first[..first.len() - 2].rfind('\n').unwrap() + 1];
    let (code, said) = fed(&w, &[], cut);
    assert!(code == 1 && said.contains("ended inside a step"), "{code}: {said}");
    // A step that came twice is done once.
    let (code, said) = fed(&w, &["-v"], &(first.clone() + &first));
    assert!(code == 1 && said.contains("ended after step 1 of 5"), "{code}: {said}");
}

/// The judge forgotten, as by `cat` in its place: once it stands in the pipe, the same command goes on.
#[test]
fn a_refused_batch_leaves_nothing_that_is_refused_again() {
    let flags = ["--lr", "1e-2"];
    let whole = World::new();
    whole.complete(5, 0, &flags);
    let w = World::new();
    let unjudged: String = toy::step(&w.at("initial"), 0, 1, 0)
        .lines()
        .map(|line| {
            let mut record: serde_json::Value = serde_json::from_str(line).unwrap();
            record.as_object_mut().unwrap().remove("verdict");
            record.to_string() + "\n"
        })
        .collect();
    let (code, said) = fed(&w, &flags, &unjudged);
    assert!(
        code == 3 && said.contains("p000#0: no verdict; does cog-judge stand in the pipe?"),
        "{code}: {said}"
    );
    w.complete(5, 0, &flags);
    assert_eq!(w.weights(), whole.weights());
}

#[test]
fn a_damaged_journal_is_refused_by_name() {
    let w = World::new();
    let (code, said) = fed(&w, &[], &toy::step(&w.at("initial"), 0, 1, 0));
    assert!(code == 1 && said.contains("ended after step 1 of 5"), "{code}: {said}");
    let entry = w.at("out.ckpt/journal/000000000001.jsonl");
    let good = fs::read_to_string(&entry).unwrap();
    let last = good.trim_end().rfind('\n').unwrap() + 1;
    for (damaged, reason) in [
        (good[..last].to_owned(), "ended inside a step"),
        (good[..last - 9].to_owned(), "000000000001.jsonl:36: truncated record"),
        (String::new(), "it is empty"),
        (toy::step(&w.at("initial"), 0, 2, 0), "it holds step 2"),
    ] {
        fs::write(&entry, damaged).unwrap();
        let (code, said) = fed(&w, &[], "");
        let named = said.contains("out.ckpt/journal/000000000001.jsonl: not the journal's batch of step 1");
        assert!(code == 3 && named && said.contains(reason), "{code}: {said}");
    }
    fs::write(&entry, good).unwrap();
    let (code, said) = fed(&w, &[], "");
    assert!(code == 1 && said.contains("ended after step 1 of 5"), "{code}: {said}");
}

#[test]
fn two_trainers_do_not_share_a_policy() {
    let w = World::new();
    let mut child = w.rl(5, &[]).spawn().unwrap();
    let stdin = child.stdin.take();
    while PolicyDir::new(w.at("policy")).request().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(2));
    }
    let (code, said) = fed(&w, &[], "");
    assert!(code == 1 && said.contains("another trainer publishes here"), "{code}: {said}");
    // SAFETY: a signal to our own child.
    unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
    assert_eq!(child.wait().unwrap().code(), Some(0), "SIGTERM while waiting for rollouts");
    drop(stdin);
}
