//! Trainer and sampler meet: versions, requests, death of the trainer, restarts.

use std::fs;
use std::path::Path;
use std::time::Duration;

use cognate_policy::{Follower, Next, PolicyDir, PolicyError, Publisher, Request};

fn build(text: &'static str) -> impl FnOnce(&Path) -> Result<(), PolicyError> {
    move |dir| {
        fs::write(dir.join("model.safetensors"), text).unwrap();
        Ok(())
    }
}

fn ask(step: u64) -> Request {
    Request { step, version: step - 1, groups: 4, prompts_done: 4 * (step - 1), ..Request::default() }
}

fn follower(dir: &Path, staleness: u64) -> Follower {
    let mut f = Follower::new(dir);
    f.max_staleness = staleness;
    f.start_timeout = Duration::from_millis(300);
    f.timeout = Some(Duration::from_millis(300));
    f
}

#[test]
fn versions_appear_whole_and_only_the_last_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut p = Publisher::open(dir.path(), 3).unwrap();
    for v in 0..6u64 {
        p.publish(v, build("w")).unwrap();
        p.request(ask(v + 1)).unwrap();
    }
    let seen = PolicyDir::new(dir.path());
    assert_eq!(seen.versions().unwrap(), [3, 4, 5]);
    assert_eq!(seen.current().unwrap(), Some(5));
    assert_eq!(seen.request().unwrap().unwrap().step, 6);
    let failed: Result<_, PolicyError> = p.publish(6, |d| {
        fs::write(d.join("model.safetensors"), "half").unwrap();
        Err(PolicyError::Data { path: d.into(), reason: "full".into() })
    });
    assert!(failed.is_err());
    assert_eq!(seen.versions().unwrap(), [3, 4, 5], "a version that failed must not appear");
    assert_eq!(seen.current().unwrap(), Some(5));
    assert!(matches!(Publisher::open(dir.path(), 3), Err(PolicyError::Busy { .. })));
}

#[test]
fn the_version_asked_for_survives_pruning() {
    let dir = tempfile::tempdir().unwrap();
    let mut p = Publisher::open(dir.path(), 2).unwrap();
    p.publish(0, build("w")).unwrap();
    p.request(ask(1)).unwrap();
    for v in 1..5 {
        p.publish(v, build("w")).unwrap();
    }
    assert_eq!(PolicyDir::new(dir.path()).versions().unwrap(), [0, 3, 4]);
}

#[test]
fn staleness_decides_the_version_not_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut p = Publisher::open(dir.path(), 4).unwrap();
    for v in 0..3u64 {
        p.publish(v, build("w")).unwrap();
    }
    p.request(ask(3)).unwrap();
    let number = |staleness, step| match follower(dir.path(), staleness).wait(step).unwrap() {
        Next::Sample(v) => v.number,
        Next::Done => panic!("not done"),
    };
    assert_eq!(number(0, 3), 2);
    assert_eq!(number(1, 3), 1);
    assert_eq!(number(1, 4), 2);
    assert!(matches!(follower(dir.path(), 0).wait(4), Err(PolicyError::Timeout { version: 3, .. })));
    p.request(Request { done: true, ..ask(4) }).unwrap();
    assert_eq!(follower(dir.path(), 0).wait(4).unwrap(), Next::Done);
}

#[test]
fn a_dead_trainer_and_its_last_request_are_noticed() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(follower(dir.path(), 0).first(), Err(PolicyError::NoTrainer { .. })));
    let mut p = Publisher::open(dir.path(), 4).unwrap();
    p.publish(0, build("w")).unwrap();
    p.request(ask(1)).unwrap();
    assert_eq!(follower(dir.path(), 0).first().unwrap().step, 1);
    drop(p);
    // The request is still there, its writer is not.
    assert!(matches!(follower(dir.path(), 0).first(), Err(PolicyError::NoTrainer { .. })));
    assert!(matches!(follower(dir.path(), 0).wait(2), Err(PolicyError::TrainerGone { version: 1, .. })));
    // A second trainer takes the old request away before it asks for anything.
    let mut p = Publisher::open(dir.path(), 4).unwrap();
    assert_eq!(PolicyDir::new(dir.path()).request().unwrap(), None);
    p.publish(0, build("again")).unwrap();
    p.request(ask(1)).unwrap();
    assert_eq!(follower(dir.path(), 0).first().unwrap().session, Some(2));
    assert_eq!(fs::read_to_string(dir.path().join("0/model.safetensors")).unwrap(), "again");
    p.clear().unwrap();
    assert!(PolicyDir::new(dir.path()).versions().unwrap().is_empty());
}

/// Between its lock and its own session number a trainer's directory still holds the request of the one before.
#[test]
fn a_dead_trainers_request_is_not_taken_for_that_of_one_that_has_just_locked() {
    let dir = tempfile::tempdir().unwrap();
    let mut p = Publisher::open(dir.path(), 4).unwrap();
    p.request(ask(20)).unwrap();
    drop(p);
    let follower = follower(dir.path(), 0);
    let lock = fs::File::options().write(true).open(dir.path().join("trainer.lock")).unwrap();
    lock.try_lock().unwrap();
    let at = |name: &str| dir.path().join(name);
    let (old, session, new) = (at("request.json"), at("trainer.lock"), at("new.json"));
    let next = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        fs::remove_file(&old).unwrap();
        fs::write(session, "2\n").unwrap();
        fs::write(&new, r#"{"step":1,"version":0,"groups":4,"prompts_done":0,"session":2}"#).unwrap();
        fs::rename(new, old).unwrap();
        lock
    });
    assert_eq!(follower.first().unwrap().step, 1);
    next.join().unwrap();
}

#[test]
fn a_damaged_request_is_a_data_error() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("request.json"), "{\"step\":").unwrap();
    assert!(follower(dir.path(), 0).wait(1).unwrap_err().is_data());
}
