//! The trainer dies between any two phases of the protocol, at every step, and goes on: the result is the same.

use std::path::Path;

use clap::Parser;

use super::*;
use crate::cli::{Cli, Command};

fn parsed(dir: &Path) -> Cli {
    let at = |name: &str| dir.join(name).into_os_string();
    let mut line: Vec<std::ffi::OsString> = vec!["cog-train".into(), "rl".into(), "-q".into()];
    for (flag, value) in
        [("--model", "initial"), ("--policy", "policy"), ("-o", "out"), ("--metrics", "out.jsonl")]
    {
        line.extend([flag.into(), at(value)]);
    }
    let groups = toy::GROUPS.to_string();
    for (flag, value) in
        [("--steps", "4"), ("--groups", &groups), ("--lr", "1e-2"), ("--checkpoint-every", "2")]
    {
        line.extend([flag.into(), value.into()]);
    }
    Cli::parse_from(line)
}

/// One life of the trainer with its own sampler, cut short after `death`. Whether it came to the end.
fn life(dir: &Path, death: Option<(u64, Phase)>) -> bool {
    let cli = parsed(dir);
    let Command::Rl(flags) = &cli.command else { panic!("rl") };
    let mut run = Run::begin(&cli.common, flags).unwrap();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let policy = flags.policy.clone();
    let sampler = std::thread::spawn(move || {
        let follower = cognate_policy::Follower::new(policy);
        let Ok(first) = follower.first() else { return };
        for step in first.step..=4 {
            let Ok(cognate_policy::Next::Sample(v)) = follower.wait(step) else { return };
            let text = toy::step(&v.path, v.number, step, (step - 1) * toy::GROUPS);
            if std::io::Write::write_all(&mut writer, text.as_bytes()).is_err() {
                return;
            }
        }
    });
    let intake = Intake::spawn(Lines::new("pipe", reader));
    let end = run.drive(&cli.common, &intake, |step, phase| {
        if death == Some((step, phase)) { Err(anyhow!("dies here")) } else { Ok(()) }
    });
    match &end {
        Ok(()) => run.finish(&cli.common).unwrap(),
        Err(e) => {
            assert_eq!(e.to_string(), "dies here");
            // Gives up the lock, as death does; nothing else is left to clean up.
            drop(run);
        }
    }
    drop(intake);
    sampler.join().unwrap();
    end.is_ok()
}

#[test]
fn dying_between_any_two_phases_changes_no_byte() {
    let whole = tempfile::tempdir().unwrap();
    toy::model(whole.path(), 3);
    assert!(life(whole.path(), None));
    let expected = toy::contents(&whole.path().join("out"));
    use Phase::{Arrived, Asked, Checkpointed, Journaled, Published, Stepped};
    let mut deaths = 0;
    for step in 1..=4 {
        for phase in [Asked, Arrived, Journaled, Stepped, Published, Checkpointed] {
            let dir = tempfile::tempdir().unwrap();
            toy::model(dir.path(), 3);
            let ended = life(dir.path(), Some((step, phase)));
            assert_eq!(ended, phase == Checkpointed && step != 2, "step {step}, {phase:?}");
            deaths += u32::from(!ended);
            assert!(ended || life(dir.path(), None));
            let found = toy::contents(&dir.path().join("out"));
            for ((name, found), (_, expected)) in found.iter().zip(&expected) {
                // Provenance names the arguments, which hold this test's own folders.
                assert!(
                    name == "provenance.json" || found == expected,
                    "{name} after step {step}, {phase:?}"
                );
            }
            toy::same_metrics(&dir.path().join("out.jsonl"), &whole.path().join("out.jsonl"));
        }
    }
    assert_eq!(deaths, 21);
}
