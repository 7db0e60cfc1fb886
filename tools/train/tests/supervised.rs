//! `cog-train lm` and `sft` from the outside: learning, determinism, resume, bad input.

#[expect(dead_code, reason = "shared with the tests of rl")]
mod toy;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cognate_records::{Packed, Writer, WriterOptions};

struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        toy::tokenizer(dir.path());
        toy::config_file(dir.path());
        toy::counting(&dir.path().join("data.parquet"), 50);
        let preset = "batch = 4\nlr = 1e-2\nwarmup = 5\nschedule = \"cosine\"\nseed = 0\n";
        fs::write(dir.path().join("lm.toml"), preset).unwrap();
        Self { dir }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn lm(&self, output: &str, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cog-train"));
        command.current_dir(self.dir.path());
        command.args([
            "lm",
            "--init-config",
            "model.json",
            "--tokenizer",
            "tokenizer",
            "--data",
            "data.parquet",
        ]);
        command.args(["--config", "lm.toml", "-q"]);
        command.args(["-o", output, "--metrics", &format!("{output}.metrics.jsonl")]).args(more);
        command
    }

    fn train(&self, output: &str, more: &[&str]) -> Vec<(String, Vec<u8>)> {
        succeeded(&self.lm(output, more).output().unwrap());
        assert!(!self.at(&format!("{output}.ckpt")).exists(), "the state of a complete run goes");
        toy::contents(&self.at(output))
    }

    fn weights(&self, output: &str) -> Vec<u8> {
        fs::read(self.at(output).join("model.safetensors")).unwrap()
    }
}

fn succeeded(out: &Output) {
    assert!(out.status.success(), "{}: {}", out.status, String::from_utf8_lossy(&out.stderr));
}

/// Exit code and message of a run that must fail.
fn failed(out: &Output) -> (i32, String) {
    assert!(!out.status.success());
    (out.status.code().unwrap_or(-1), String::from_utf8_lossy(&out.stderr).into_owned())
}

#[test]
fn it_learns_to_count_and_does_not_without_a_learning_rate() {
    let w = World::new();
    w.train("a", &["--epochs", "20"]);
    let loss = toy::series(&w.at("a.metrics.jsonl"), "loss");
    assert_eq!(loss.len(), 250);
    assert!(loss[0] > 2.0 && loss[249] < 0.1, "{} -> {}", loss[0], loss[249]);
    // Negative control: the same run at learning rate 0 stays where it began.
    w.train("control", &["--epochs", "20", "--lr", "0"]);
    let control = toy::series(&w.at("control.metrics.jsonl"), "loss");
    assert!(control.iter().all(|l| *l > 2.0), "{control:?}");
    let names: Vec<_> = toy::contents(&w.at("a")).into_iter().map(|f| f.0).collect();
    let expected = [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "provenance.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "training.json",
    ];
    assert_eq!(names, expected);
    let mode = |name: &str| fs::metadata(w.at("a").join(name)).unwrap().permissions();
    assert_eq!(mode("model.safetensors"), mode("config.json"), "readable by whoever may read the rest");
    let generation = fs::read_to_string(w.at("a/generation_config.json")).unwrap();
    assert!(generation.contains("\"eos_token_id\": 0"), "{generation}");
}

#[test]
fn runs_threads_and_output_names_do_not_change_a_byte() {
    let w = World::new();
    let first = w.train("a", &["--epochs", "2", "-j", "1"]);
    assert_eq!(w.train("b", &["--epochs", "2", "-j", "2"]).len(), first.len());
    assert_eq!(w.weights("a"), w.weights("b"));
    toy::same_metrics(&w.at("a.metrics.jsonl"), &w.at("b.metrics.jsonl"));
    fs::rename(w.at("a"), w.at("earlier")).unwrap();
    assert_eq!(w.train("a", &["--epochs", "2", "-j", "2"]), first, "the same command, the same directory");
    w.train("c", &["--epochs", "2", "--seed", "1"]);
    assert_ne!(w.weights("a"), w.weights("c"), "the seed must matter");
}

#[test]
fn accumulation_over_1_4_or_16_micro_batches_changes_rounding_only() {
    let w = World::new();
    // Sequences of 15 to 19 tokens, sixteen a step.
    for (name, tokens) in [("1", "4096"), ("4", "76"), ("16", "1")] {
        w.train(name, &["--steps", "12", "--batch", "16", "--micro-tokens", tokens]);
    }
    let whole = w.weights("1");
    for name in ["4", "16"] {
        let parts = w.weights(name);
        assert_ne!(whole, parts, "micro-batches round otherwise; if not, the flag does nothing");
        let (a, b) = (toy::tensors(&whole), toy::tensors(&parts));
        let norm = |x: &[f32]| x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        let difference: Vec<f32> = a.iter().zip(&b).map(|(x, y)| x - y).collect();
        assert!(norm(&difference) < 1e-4 * norm(&a), "{name}: {} of {}", norm(&difference), norm(&a));
        let (a, b) = (w.at("1.metrics.jsonl"), w.at(&format!("{name}.metrics.jsonl")));
        for (x, y) in toy::series(&a, "loss").iter().zip(toy::series(&b, "loss")) {
            assert!((x - y).abs() < 1e-4, "{x} {y}");
        }
    }
}

#[test]
fn killed_at_any_step_it_ends_with_the_same_bytes() {
    let w = World::new();
    let length = ["--epochs", "120", "--checkpoint-every", "37"];
    let whole = w.train("a", &length);
    let metrics = toy::exact_metrics(&w.at("a.metrics.jsonl"));
    fs::rename(w.at("a"), w.at("whole")).unwrap();
    fs::remove_file(w.at("a.metrics.jsonl")).unwrap();
    let mut killed = 0;
    // Before the first checkpoint, right after one, between two, and twice in the same stretch.
    for step in [3, 38, 90, 91, 300, 777] {
        let mut child = w.lm("a", &length).spawn().unwrap();
        toy::wait_for_step(&w.at("a.ckpt"), step);
        killed += u32::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!w.at("a").exists() && !w.at("a.metrics.jsonl").exists(), "no output before the end");
    }
    assert_eq!(killed, 6, "the run must still have been going when it was killed");
    assert_eq!(w.train("a", &length), whole);
    assert_eq!(toy::exact_metrics(&w.at("a.metrics.jsonl")), metrics);
}

#[test]
fn sigterm_saves_and_another_setting_is_refused() {
    let w = World::new();
    let length = ["--epochs", "400", "--checkpoint-every", "0"];
    let child = w.lm("a", &length).stderr(std::process::Stdio::piped()).spawn().unwrap();
    toy::wait_for_step(&w.at("a.ckpt"), 5);
    // SAFETY: a signal to our own child.
    unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&out.stderr).contains("the same command goes on"));
    assert!(!w.at("a").exists());
    let saved = fs::read_dir(w.at("a.ckpt")).unwrap();
    assert_eq!(
        saved.filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with("step-")).count(),
        1
    );
    let (code, text) = failed(&w.lm("a", &["--epochs", "400", "--batch", "5"]).output().unwrap());
    assert!(code == 3 && text.contains("batch was 4, is 5"), "{code}: {text}");
    let shape = fs::read_to_string(w.at("model.json")).unwrap();
    let theta = shape.replacen("\"rope_theta\":", "\"rope_theta\": 5000.0, \"was\":", 1);
    assert_ne!(theta, shape);
    fs::write(w.at("model.json"), theta).unwrap();
    let (code, text) = failed(&w.lm("a", &length).output().unwrap());
    assert!(code == 3 && text.contains("config was"), "another shape: {code}: {text}");
    fs::write(w.at("model.json"), shape).unwrap();
    toy::counting(&w.at("data.parquet"), 51);
    let (code, text) = failed(&w.lm("a", &length).output().unwrap());
    assert!(code == 3 && text.contains("data was"), "{code}: {text}");
    w.train("a", &["--epochs", "1", "--restart"]);
}

#[test]
fn fine_tuning_carries_tokenizer_and_history() {
    let w = World::new();
    w.train("base", &["--epochs", "1"]);
    let mut sft = Command::new(env!("CARGO_BIN_EXE_cog-train"));
    sft.current_dir(w.dir.path()).args([
        "sft",
        "--model",
        "base",
        "--data",
        "data.parquet",
        "-o",
        "sft",
        "-q",
    ]);
    succeeded(&sft.output().unwrap());
    for name in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
        assert_eq!(fs::read(w.at("base").join(name)).unwrap(), fs::read(w.at("sft").join(name)).unwrap());
    }
    let history: serde_json::Value =
        serde_json::from_slice(&fs::read(w.at("sft/provenance.json")).unwrap()).unwrap();
    let steps: Vec<_> =
        history["steps"].as_array().unwrap().iter().map(|s| s["arguments"][0].clone()).collect();
    assert_eq!(steps, ["lm", "sft"]);
    assert_ne!(w.weights("base"), w.weights("sft"));
}

#[test]
fn bad_input_is_refused_with_place_and_cause() {
    let w = World::new();
    let packed = |id: u32, len: usize| Packed {
        id: "s7".into(),
        ids: vec![id; len],
        weights: (0..len).map(|t| f32::from(u8::from(t > 0))).collect(),
        starts: vec![0],
        ..Packed::default()
    };
    let silent = Packed { weights: vec![0.0; 4], ..packed(1, 4) };
    for (name, record, reason) in [
        ("token", Some(packed(16, 4)), "s7: token id 16 is beyond the vocabulary of 16"),
        ("long", Some(packed(1, 33)), "s7: a document of 33 tokens is longer than the context of 32"),
        ("silent", Some(silent), "every token has loss weight 0"),
        ("empty", None, "no sequences to train on"),
    ] {
        let file = format!("{name}.jsonl");
        let mut out = Writer::<Packed>::create(&w.at(&file), WriterOptions::default()).unwrap();
        record.iter().for_each(|r| out.write(r).unwrap());
        out.finish().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_cog-train"));
        command.current_dir(w.dir.path()).args([
            "lm",
            "--init-config",
            "model.json",
            "--tokenizer",
            "tokenizer",
        ]);
        command.args(["--data", &file, "-o", "bad", "-q"]);
        let (code, text) = failed(&command.output().unwrap());
        assert!(code == 3 && text.contains(reason) && text.contains(&file), "{name}: {code}: {text}");
        assert!(!w.at("bad").exists());
    }
    let cut = fs::read(w.at("data.parquet")).unwrap();
    fs::write(w.at("data.parquet"), &cut[..cut.len() / 2]).unwrap();
    let (code, text) = failed(&w.lm("bad", &[]).output().unwrap());
    assert!(code == 3 && text.contains("data.parquet"), "{code}: {text}");
}

#[test]
fn a_missing_tensor_is_named() {
    let w = World::new();
    let initial = toy::model(w.dir.path(), 1);
    let bytes = fs::read(initial.join("model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let gone = "model.layers.1.mlp.up_proj.weight";
    let left: Vec<_> = file.tensors().into_iter().filter(|(n, _)| n != gone).collect();
    assert_eq!(left.len() + 1, file.len());
    safetensors::serialize_to_file(left, None, &initial.join("model.safetensors")).unwrap();
    let mut sft = Command::new(env!("CARGO_BIN_EXE_cog-train"));
    sft.current_dir(w.dir.path()).args([
        "sft",
        "--model",
        "initial",
        "--data",
        "data.parquet",
        "-o",
        "sft",
        "-q",
    ]);
    let (code, text) = failed(&sft.output().unwrap());
    assert!(code == 3 && text.contains(gone), "{code}: {text}");
    assert!(!w.at("sft").exists());
}

#[test]
fn a_loss_that_is_no_number_stops_with_step_and_records() {
    let w = World::new();
    let (code, text) =
        failed(&w.lm("a", &["--lr", "1e30", "--clip", "0", "--epochs", "9"]).output().unwrap());
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains("step ") && text.contains("records s") && text.contains("not-finite.json"),
        "{text}"
    );
    assert!(!w.at("a").exists());
    let report: serde_json::Value =
        serde_json::from_slice(&fs::read(w.at("a.ckpt/not-finite.json")).unwrap()).unwrap();
    assert!(
        report["step"].as_u64().is_some_and(|s| s > 0) && report["learning_rate"].as_f64().is_some(),
        "{report}"
    );
    let records = report["records"].as_array().unwrap();
    assert_eq!(records.len(), 4, "the whole batch: {report}");
    assert!(records.iter().all(|r| r.as_str().is_some_and(|r| r.starts_with('s'))), "{report}");
    assert!(
        report["what"].as_str().unwrap().contains("is NaN")
            || report["what"].as_str().unwrap().contains("is inf")
    );
}

#[test]
fn adapters_train_resume_and_are_written_beside_the_merged_model() {
    let w = World::new();
    w.train("base", &["--epochs", "1"]);
    let sft = |output: &str, more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cog-train"));
        command.current_dir(w.dir.path()).args(["sft", "--model", "base", "--data", "data.parquet", "-q"]);
        command.args([
            "--lora-rank",
            "4",
            "--lora-targets",
            "q_proj,down_proj",
            "--lr",
            "1e-2",
            "--epochs",
            "6",
        ]);
        command.args(["--adapter", &format!("{output}.adapter"), "-o", output, "--checkpoint-every", "5"]);
        command.args(["--metrics", &format!("{output}.metrics.jsonl")]).args(more);
        command
    };
    succeeded(&sft("whole", &[]).output().unwrap());
    let loss = toy::series(&w.at("whole.metrics.jsonl"), "loss");
    assert!(loss[loss.len() - 1] < loss[0] - 0.05, "{loss:?}");
    // Stopped by the clock after every step, and taken up again: the same bytes.
    let mut lives = 0;
    while !w.at("broken").exists() {
        let out = sft("broken", &["--max-time", "0"]).output().unwrap();
        succeeded(&out);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(w.at("broken").exists() || said.contains("stopped by --max-time after step"), "{said}");
        lives += 1;
    }
    assert!(lives as usize == loss.len(), "{lives} lives for {} steps", loss.len());
    assert_eq!(w.weights("broken"), w.weights("whole"));
    toy::same_metrics(&w.at("broken.metrics.jsonl"), &w.at("whole.metrics.jsonl"));
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        let read = |run: &str| fs::read(w.at(&format!("{run}.adapter")).join(name)).unwrap();
        assert_eq!(read("whole"), read("broken"));
    }
    let (code, text) = failed(&sft("bad", &["--lora-targets", "query"]).output().unwrap());
    assert!(code == 3 && text.contains("target_modules") && text.contains("query"), "{code}: {text}");
}

#[test]
fn frozen_tensors_stay_and_z_loss_is_a_term() {
    let w = World::new();
    let initial = toy::model(w.dir.path(), 1);
    let run = |output: &str, more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cog-train"));
        command.current_dir(w.dir.path()).args(["sft", "--model", "initial", "--data", "data.parquet", "-q"]);
        command
            .args(["--steps", "3", "-o", output, "--metrics", &format!("{output}.metrics.jsonl")])
            .args(more);
        command.output().unwrap()
    };
    succeeded(&run("frozen", &["--freeze", "embed_tokens|layers\\.0\\."]));
    let read = |dir: &Path| fs::read(dir.join("model.safetensors")).unwrap();
    let (before, after) = (read(&initial), read(&w.at("frozen")));
    let (before, after) = [&before, &after].map(|b| safetensors::SafeTensors::deserialize(b).unwrap()).into();
    for (name, view) in after.tensors() {
        let same = view.data() == before.tensor(&name).unwrap().data();
        assert_eq!(same, name.contains("embed_tokens") || name.contains("layers.0."), "{name}");
    }
    for (names, reason) in
        [("no_such", "matches no tensor"), (".", "leaves nothing to train"), ("(", "--freeze")]
    {
        let (code, text) = failed(&run("bad", &["--restart", "--freeze", names]));
        assert!(code == 2 && text.contains(reason), "{code}: {text}");
    }
    succeeded(&run("plain", &[]));
    succeeded(&run("z", &["--z-loss", "0.1"]));
    assert_ne!(w.weights("plain"), w.weights("z"));
    let z = toy::series(&w.at("z.metrics.jsonl"), "z_loss");
    assert!(z.len() == 3 && z.iter().all(|z| *z > 0.0), "{z:?}");
    assert!(toy::series(&w.at("plain.metrics.jsonl"), "z_loss").is_empty());
}

#[test]
fn curves_go_to_tensorboard_and_to_a_plot_and_the_use_of_the_machine_is_measured() {
    let w = World::new();
    w.train("a", &["--steps", "9", "--tensorboard", "events", "--plot", "a.svg", "--peak-flops", "1e12"]);
    let events: Vec<_> = fs::read_dir(w.at("events")).unwrap().map(|e| e.unwrap().path()).collect();
    let bytes = fs::read(&events[0]).unwrap();
    assert_eq!(events.len(), 1);
    for tag in ["loss", "learning_rate", "gradient_norm", "tokens_per_second", "mfu"] {
        let found = bytes.windows(tag.len()).filter(|part| *part == tag.as_bytes()).count();
        assert_eq!(found, 9, "{tag}");
    }
    let mfu = toy::series(&w.at("a.metrics.jsonl"), "mfu");
    let rate = toy::series(&w.at("a.metrics.jsonl"), "tokens_per_second");
    // Operations a token are about six times the parameters, whatever the speed.
    let each: Vec<f64> = mfu.iter().zip(&rate).map(|(m, r)| m * 1e12 / r).collect();
    let parameters: serde_json::Value =
        serde_json::from_slice(&fs::read(w.at("a/training.json")).unwrap()).unwrap();
    let parameters = parameters["parameters"].as_f64().unwrap();
    assert!(each.iter().all(|f| (4.0..12.0).contains(&(f / parameters))), "{each:?} {parameters}");
    let svg = fs::read_to_string(w.at("a.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("gradient_norm") && svg.ends_with("</svg>\n"));
}

#[test]
fn a_device_that_is_not_there_is_refused_and_auto_says_so_once() {
    if cognate_kernels::cuda::driver::devices().is_ok_and(|n| n > 0) {
        eprintln!("NOT RUN: this machine has a GPU");
        return;
    }
    let w = World::new();
    for more in [&[][..], &["--lora-rank", "2"]] {
        let flags = [&["--steps", "2", "--device", "cuda:0"], more].concat();
        let (code, said) = failed(&w.lm("a", &flags).output().unwrap());
        assert!(
            code == 3 && (said.contains("not installed") || said.contains("no CUDA device 0")),
            "{code}: {said}"
        );
    }
    assert!(!w.at("a").exists() && !w.at("a.ckpt").exists());
    let (code, said) = failed(&w.lm("a", &["--steps", "2", "--device", "gpu"]).output().unwrap());
    assert!(code == 2 && said.contains("auto, cpu, cuda or cuda:N"), "{code}: {said}");
    for (output, more) in [("auto", &["--steps", "2"][..]), ("cpu", &["--steps", "2", "--device", "cpu"])] {
        w.train(output, more);
    }
    assert_eq!(w.weights("auto"), w.weights("cpu"), "the same without a GPU");
    let quiet = w.lm("loud", &["--steps", "2"]);
    let arguments: Vec<_> = quiet.get_args().filter(|a| *a != "-q").map(ToOwned::to_owned).collect();
    let mut loud = Command::new(quiet.get_program());
    let out = loud.current_dir(w.dir.path()).args(arguments).output().unwrap();
    succeeded(&out);
    assert_eq!(String::from_utf8_lossy(&out.stderr).matches(": using the CPU").count(), 1);
}
