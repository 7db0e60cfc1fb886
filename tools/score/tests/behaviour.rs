//! What the tool does whatever the table: order and threads change no byte, bad input is refused with its place.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cognate_records::{Reader, Rollout, Writer, WriterOptions};

fn score(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cog-score")).args(arguments).current_dir(folder).output().unwrap()
}

fn case(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(path)
}

fn rollouts() -> Vec<String> {
    let text = std::fs::read_to_string(case("transfer/rollouts.jsonl")).unwrap();
    text.lines().map(ToString::to_string).collect()
}

fn refused(output: &Output, code: i32, words: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(output.stdout.is_empty());
    for word in words {
        assert!(stderr.contains(word), "{word:?} is not in {stderr}");
    }
}

/// Every output of the transfer table for these files.
fn tables(folder: &Path, files: &[&str], threads: &str) -> Vec<Vec<u8>> {
    let mut arguments = vec!["transfer", "-q", "-j", threads, "--resamples", "300"];
    arguments.extend(["-o", "t.md", "--csv", "t.csv", "--svg", "t.svg", "--metrics", "t.jsonl"]);
    arguments.extend(files);
    let output = score(folder, &arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    ["t.md", "t.csv", "t.svg", "t.jsonl"].map(|f| std::fs::read(folder.join(f)).unwrap()).into()
}

#[test]
fn order_of_lines_and_files_and_threads_change_no_byte() {
    let dir = tempfile::tempdir().unwrap();
    let lines = rollouts();
    let (first, second) = lines.split_at(20);
    let reversed: Vec<String> = lines.iter().rev().cloned().collect();
    let mut spoilt = lines.clone();
    spoilt[9] = spoilt[9].replace("\"WA\"", "\"AC\"");
    assert_ne!(spoilt, lines);
    for (name, lines) in
        [("all", &lines[..]), ("one", first), ("two", second), ("reversed", &reversed), ("spoilt", &spoilt)]
    {
        std::fs::write(dir.path().join(name), lines.join("\n") + "\n").unwrap();
    }
    let expected = tables(dir.path(), &["all"], "1");
    assert_eq!(expected, tables(dir.path(), &["all"], "2"));
    assert_eq!(expected, tables(dir.path(), &["reversed"], "2"));
    assert_eq!(expected, tables(dir.path(), &["one", "two"], "1"));
    assert_eq!(expected, tables(dir.path(), &["two", "one"], "1"));
    // One verdict more changes all of them.
    for (a, b) in expected.iter().zip(tables(dir.path(), &["spoilt"], "1")) {
        assert_ne!(*a, b);
    }
}

#[test]
fn parquet_and_a_pipe_read_as_lines_do() {
    let dir = tempfile::tempdir().unwrap();
    let source = case("transfer/rollouts.jsonl");
    let path = dir.path().join("r.parquet");
    let mut writer = Writer::create(&path, WriterOptions::default()).unwrap();
    for rollout in Reader::<Rollout>::open(&source).unwrap() {
        writer.write(&rollout.unwrap()).unwrap();
    }
    writer.finish().unwrap();
    let from_lines = score(dir.path(), &["transfer", "-q", source.to_str().unwrap()]);
    let from_parquet = score(dir.path(), &["transfer", "-q", "r.parquet"]);
    assert!(from_lines.status.success() && !from_lines.stdout.is_empty());
    assert_eq!(from_lines.stdout, from_parquet.stdout);
    let mut piped = Command::new(env!("CARGO_BIN_EXE_cog-score"));
    let piped =
        piped.args(["transfer", "-q", "-"]).stdin(std::fs::File::open(&source).unwrap()).output().unwrap();
    assert_eq!(from_lines.stdout, piped.stdout);
}

#[test]
fn json_prints_the_numbers_of_the_page() {
    let dir = tempfile::tempdir().unwrap();
    let source = case("transfer/rollouts.jsonl");
    let output = score(dir.path(), &["transfer", "-q", "--json", source.to_str().unwrap()]);
    let text = String::from_utf8(output.stdout).unwrap();
    let find = |labels: &str| {
        let line =
            text.lines().find(|l| l.contains(labels)).unwrap_or_else(|| panic!("{labels} not in {text}"));
        serde_json::from_str::<serde_json::Value>(line).unwrap()
    };
    // Both seeds of arm nonparallel gain in Python: 50 → 75 % and 25 → 75 %.
    let gain = find(
        r#""name":"pass@1_gain","value":0.375,"labels":{"arm":"nonparallel","language":"python","temperature":"0"}"#,
    );
    assert_eq!(gain["schema"], "metric/1");
    assert!(gain["low"].as_f64().unwrap() <= 0.375 && gain["high"].as_f64().unwrap() >= 0.375);
    find(r#""labels":{"arm":"nonparallel","language":"python","seed":"1","temperature":"0"}"#);
}

#[test]
fn bad_rollouts_are_refused_with_their_place() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let lines = rollouts();
    let good = format!("{}\n", lines.join("\n"));
    let cut = lines[3].split(", \"verdict\"").next().unwrap().to_string() + "}";
    write("unjudged.jsonl", &format!("{}\n{}\n{cut}\n{}\n", lines[0], lines[1], lines[2]));
    write("empty.jsonl", "");
    write("twice.jsonl", &format!("{good}{}\n", lines[5]));
    write("unlabelled.jsonl", &good.replace("arm=base,stage=base,seed=0", "llama"));
    write("cold.jsonl", &good.replacen("\"parameters\"", "\"spoilt\"", 1));
    write("kobol.jsonl", &good.replacen("\"language\": \"ruby\"", "\"language\": \"kobol\"", 1));
    write("dev.jsonl", &format!("{good}{}\n", lines[0].replace("\"eval\"", "\"dev\"").replace("p0", "q0")));
    write("good.jsonl", &good);
    for command in ["pass", "transfer"] {
        let run = |file: &str| score(dir.path(), &[command, "-q", file]);
        refused(&run("unjudged.jsonl"), 3, &["unjudged.jsonl:3: ", "without verdict", "run cog-judge"]);
        refused(&run("empty.jsonl"), 3, &["empty.jsonl", "no rollouts"]);
        refused(&run("twice.jsonl"), 3, &["twice.jsonl:", "counted already"]);
        refused(&run("kobol.jsonl"), 3, &["kobol.jsonl:", "unknown language \"kobol\""]);
        refused(&run("absent.jsonl"), 1, &["absent.jsonl"]);
        assert!(run("good.jsonl").status.success());
        let going = score(dir.path(), &[command, "--keep-going", "unjudged.jsonl"]);
        assert!(going.status.success());
        assert!(String::from_utf8_lossy(&going.stderr).contains("1 bad record skipped"));
    }
    refused(
        &score(dir.path(), &["transfer", "-q", "unlabelled.jsonl"]),
        3,
        &["llama", "no label arm", "--label"],
    );
    refused(&score(dir.path(), &["transfer", "-q", "cold.jsonl"]), 3, &["cold.jsonl:1", "--temperature"]);
    assert!(score(dir.path(), &["transfer", "-q", "--temperature", "0", "cold.jsonl"]).status.success());
    refused(&score(dir.path(), &["transfer", "-q", "dev.jsonl"]), 3, &["--split"]);
    assert!(score(dir.path(), &["transfer", "-q", "--split", "eval", "dev.jsonl"]).status.success());
    refused(&score(dir.path(), &["transfer", "-q", "--targets", "kobol", "good.jsonl"]), 2, &["kobol"]);
    refused(
        &score(dir.path(), &["pass", "-q", "--json", "--csv", "-", "good.jsonl"]),
        2,
        &["standard output"],
    );
    refused(&score(dir.path(), &["latent", "good.jsonl"]), 3, &["good.jsonl:1", "rollout/1"]);
}

#[test]
fn text_from_files_cannot_drive_a_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let hostile = rollouts().join("\n").replace("arm=parallel", "arm=\\u001b[2J|x");
    std::fs::write(dir.path().join("r.jsonl"), hostile).unwrap();
    let output = score(dir.path(), &["transfer", "-q", "--svg", "t.svg", "r.jsonl"]);
    assert!(output.status.success());
    let svg = std::fs::read(dir.path().join("t.svg")).unwrap();
    for bytes in [&output.stdout, &svg] {
        assert!(!bytes.contains(&0x1b) && String::from_utf8_lossy(bytes).contains("[2J"));
    }
    let rows: Vec<_> = String::from_utf8(output.stdout).unwrap().lines().map(ToString::to_string).collect();
    let bars = |line: &str| line.replace("\\|", "").matches('|').count();
    let table: Vec<_> =
        rows.iter().skip_while(|l| !l.starts_with("| arm")).take_while(|l| l.starts_with('|')).collect();
    assert!(table.len() > 3 && table.iter().all(|l| bars(l) == bars(table[0])));
}

#[test]
fn figures_of_the_other_subcommands_are_drawn() {
    let dir = tempfile::tempdir().unwrap();
    let metrics = case("latent/metrics.jsonl");
    let pass = case("pass/rollouts.jsonl");
    let series = (0..4)
        .map(|s| format!("{{\"schema\":\"metric/1\",\"name\":\"reward\",\"value\":0.{s},\"step\":{s}}}\n"));
    std::fs::write(dir.path().join("m.jsonl"), series.collect::<String>()).unwrap();
    for arguments in [
        vec!["latent", metrics.to_str().unwrap(), "-o", "l.md", "--svg", "f.svg"],
        vec!["pass", "-q", pass.to_str().unwrap(), "-o", "p.md", "--svg", "f.svg"],
        vec!["curve", "m.jsonl", "-o", "f.svg"],
    ] {
        let output = score(dir.path(), &arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let svg = std::fs::read_to_string(dir.path().join("f.svg")).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>") && svg.contains("<circle"));
        std::fs::remove_file(dir.path().join("f.svg")).unwrap();
    }
}
