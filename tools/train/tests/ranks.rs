//! `cog-train lm` by several processes: the same result as by one, and no process waits for a dead one.

#[expect(dead_code, reason = "shared with the other tests")]
mod toy;

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        toy::tokenizer(dir.path());
        toy::config_file(dir.path());
        toy::counting(&dir.path().join("data.parquet"), 50);
        Self { dir }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn rank(&self, output: &str, rank: usize, size: usize, more: &[&str]) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cog-train"));
        command.current_dir(self.dir.path()).args(["lm", "--init-config", "model.json"]);
        command.args(["--tokenizer", "tokenizer", "--data", "data.parquet", "--batch", "5", "--lr", "1e-2"]);
        command.args(["--weight-decay", "0.1", "--micro-tokens", "40", "-q", "-o", output]);
        command.args(["--metrics", &format!("{output}.metrics.jsonl")]);
        command.args(["--world-size", &size.to_string(), "--rank", &rank.to_string()]).args(more);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Runs all ranks to their end.
    fn all(&self, output: &str, size: usize, more: &[&str]) -> Vec<Output> {
        let ranks: Vec<_> = (0..size).map(|rank| self.rank(output, rank, size, more)).collect();
        ranks.into_iter().map(|rank| rank.wait_with_output().unwrap()).collect()
    }

    fn train(&self, output: &str, size: usize, more: &[&str]) -> Vec<u8> {
        for out in self.all(output, size, more) {
            assert!(out.status.success(), "{}: {}", out.status, said(&out));
        }
        assert!(
            !self.at(&format!("{output}.ckpt")).exists()
                && !self.at(&format!("{output}.ckpt.ranks")).exists()
        );
        fs::read(self.at(output).join("model.safetensors")).unwrap()
    }
}

fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

#[test]
fn two_and_three_ranks_are_one_within_rounding_and_each_bitwise_itself() {
    let w = World::new();
    let one = w.train("one", 1, &["--steps", "12", "--freeze", "layers.0.mlp"]);
    let loss = toy::series(&w.at("one.metrics.jsonl"), "loss");
    for size in [2, 3] {
        let name = size.to_string();
        let flags = ["--steps", "12", "--freeze", "layers.0.mlp", "-j", "1"];
        let several = w.train(&name, size, &flags);
        let again = w.train(&format!("{name}-again"), size, &[&flags[..4], &["-j", "2"]].concat());
        assert!(several == again, "{size} ranks: two runs, other threads");
        assert!(several != one, "{size} ranks add up otherwise; if not, the flag does nothing");
        let (a, b) = (toy::tensors(&one), toy::tensors(&several));
        let norm = |x: &[f32]| x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        let difference: Vec<f32> = a.iter().zip(&b).map(|(x, y)| x - y).collect();
        assert!(norm(&difference) < 1e-4 * norm(&a), "{size}: {} of {}", norm(&difference), norm(&a));
        let losses = toy::series(&w.at(&format!("{name}.metrics.jsonl")), "loss");
        assert_eq!(losses.len(), 12);
        assert!(loss.iter().zip(&losses).all(|(x, y)| (x - y).abs() < 1e-4), "{loss:?} {losses:?}");
    }
}

#[test]
fn a_dead_rank_stops_the_others_and_the_same_commands_go_on() {
    let w = World::new();
    let flags = ["--epochs", "60", "--checkpoint-every", "7"];
    let whole = w.train("whole", 2, &flags);
    for victim in [1, 0] {
        let mut ranks: Vec<_> = (0..2).map(|rank| w.rank("broken", rank, 2, &flags)).collect();
        toy::wait_for_step(&w.at("broken.ckpt"), if victim == 1 { 9 } else { 30 });
        ranks[victim].kill().unwrap();
        let begun = Instant::now();
        let other = ranks.remove(1 - victim).wait_with_output().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
        let reason = format!("rank {victim} has ended while others waited for it");
        assert!(other.status.code() == Some(1) && said(&other).contains(&reason), "{}", said(&other));
        ranks.remove(0).wait().unwrap();
        assert!(!w.at("broken").exists());
    }
    assert!(w.train("broken", 2, &flags) == whole, "resumed from sharded checkpoints");
}

#[test]
fn a_signal_to_one_rank_saves_the_whole_run() {
    let w = World::new();
    let flags = ["--epochs", "300", "--checkpoint-every", "0"];
    let ranks: Vec<_> = (0..2).map(|rank| w.rank("a", rank, 2, &flags)).collect();
    toy::wait_for_step(&w.at("a.ckpt"), 5);
    // SAFETY: a signal to our own child.
    unsafe { libc::kill(ranks[1].id() as i32, libc::SIGTERM) };
    for (rank, child) in ranks.into_iter().enumerate() {
        let out = child.wait_with_output().unwrap();
        let cause = if rank == 0 { "stopped by another rank" } else { "stopped by signal 15" };
        assert!(out.status.success() && said(&out).contains(cause), "{rank}: {}", said(&out));
    }
    let checkpoints = fs::read_dir(w.at("a.ckpt")).unwrap().map(|e| e.unwrap().path());
    let checkpoint = checkpoints.into_iter().find(|p| p.to_string_lossy().contains("step-")).unwrap();
    for part in ["optimizer-00001-of-00002.safetensors", "optimizer-00002-of-00002.safetensors"] {
        assert!(checkpoint.join(part).exists(), "{part}");
    }
    // Another number of ranks adds up in another order: another run.
    let alone = w.rank("a", 0, 1, &flags).wait_with_output().unwrap();
    assert!(alone.status.code() == Some(3) && said(&alone).contains("world-size was 2"), "{}", said(&alone));
}

#[test]
fn ranks_that_do_not_belong_together_say_so() {
    let w = World::new();
    let flags = ["--steps", "3"];
    let first = w.rank("a", 0, 2, &flags);
    let other = w.rank("a", 1, 2, &["--steps", "3", "--seed", "4"]).wait_with_output().unwrap();
    let reason = "rank 1 was started with other settings or other data than rank 0";
    assert!(other.status.code() == Some(3) && said(&other).contains(reason), "{}", said(&other));
    let first = first.wait_with_output().unwrap();
    assert!(first.status.code() == Some(1) && said(&first).contains("rank 1 has ended"), "{}", said(&first));
    let alone = w.rank("b", 0, 2, &["--steps", "3", "--rank-timeout", "0"]).wait_with_output().unwrap();
    assert!(
        alone.status.code() == Some(1) && said(&alone).contains("rank 1 has not come"),
        "{}",
        said(&alone)
    );
    // Said before anybody is waited for.
    for device in ["cpu", "cuda:9999"] {
        let beyond = [&flags[..], &["--device", device]].concat();
        let beyond = w.rank("b", 2, 2, &beyond).wait_with_output().unwrap();
        assert!(
            beyond.status.code() == Some(2) && said(&beyond).contains("count from 0"),
            "{}",
            said(&beyond)
        );
    }
    let absent = w.rank("b", 0, 2, &["--steps", "3", "--device", "cuda:9999"]).wait_with_output().unwrap();
    assert!(absent.status.code() == Some(3) && said(&absent).contains("CUDA d"), "{}", said(&absent));
    let adapters = w.rank("c", 0, 2, &["--steps", "1", "--lora-rank", "2"]).wait_with_output().unwrap();
    assert!(adapters.status.code() == Some(2), "{}", said(&adapters));
    assert!(said(&adapters).contains("adapters are trained by one process"), "{}", said(&adapters));
}
