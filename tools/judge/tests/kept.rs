//! Verdicts that outlive a run, outputs in other orders and forms, and verdicts that load does not change.

mod common;

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{Case, can_judge, program, records, sum_problem};
use serde_json::{Value, json};

const RIGHT: &str = "print(sum(map(int, input().split())))\n";

fn case(count: usize) -> Option<Case> {
    can_judge(&["python"]).then(|| {
        let case = Case::new();
        case.lines("problems.jsonl", &[sum_problem()]);
        let lines: Vec<_> =
            (0..count).map(|i| program(&format!("p{i}"), "python", &format!("# {i}\n{RIGHT}"))).collect();
        case.lines("programs.jsonl", &lines);
        case
    })
}

fn judge(case: &Case, flags: &[&str]) -> (Vec<u8>, String) {
    let output = case.judge(&[&["programs.jsonl"], flags].concat(), "");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    (output.stdout, said)
}

fn count_lines(path: &Path) -> usize {
    std::fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

#[test]
fn a_result_cache_repeats_verdicts_only_where_nothing_has_changed() {
    let Some(case) = case(6) else { return };
    let cache = case.path("cache.jsonl");
    let flags = ["--result-cache", "cache.jsonl"];
    let (first, _) = judge(&case, &flags);
    assert_eq!(count_lines(&cache), 6);
    // A verdict that nobody can have found anew shows where it came from.
    let text = std::fs::read_to_string(&cache).unwrap();
    std::fs::write(
        &cache,
        text.replace("\"status\":\"AC\",\"reward\":1.0", "\"status\":\"WA\",\"reward\":0.25"),
    )
    .unwrap();
    let (second, said) = judge(&case, &flags);
    assert!(said.contains("6 verdicts kept"), "{said}");
    assert!(records(&second).iter().all(|r| r["verdict"]["reward"] == 0.25));
    assert_eq!(count_lines(&cache), 6);
    // Other limits, rules or tests are another question.
    for more in [&["--cpu-ms", "1999"][..], &["--first-failure"], &["--excerpts"], &["--coverage", "0.5"]] {
        let before = count_lines(&cache);
        let (out, _) = judge(&case, &[&flags[..], more].concat());
        assert!(records(&out).iter().all(|r| r["verdict"]["status"] == "AC"), "{more:?}");
        assert_eq!(count_lines(&cache), before + 6, "{more:?}");
    }
    let table = case.text("table.toml", "[python]\nstartup_ms = 51\n");
    let (out, _) = judge(&case, &[&flags[..], &["--languages", table.to_str().unwrap()]].concat());
    assert_eq!(out, first);
    let mut problem = sum_problem();
    problem["tests"][0]["output"] = json!("4\n");
    case.lines("problems.jsonl", &[problem]);
    let (out, _) = judge(&case, &flags);
    assert!(records(&out).iter().all(|r| r["verdict"]["status"] == "WA" && r["verdict"]["reward"] == 0.0));
}

#[test]
fn a_killed_run_goes_on_where_it_stopped() {
    let Some(case) = case(400) else { return };
    let (whole, _) = judge(&case, &[]);
    let journal = case.path(".judged.jsonl.unfinished");
    let mut kills = 0;
    for _ in 0..3 {
        let before = count_lines(&journal);
        let mut child = case.command(&["programs.jsonl", "-o", "judged.jsonl", "--resume"]).spawn().unwrap();
        let until = Instant::now() + Duration::from_secs(60);
        while count_lines(&journal) < before + 20
            && Instant::now() < until
            && child.try_wait().unwrap().is_none()
        {
            std::thread::sleep(Duration::from_millis(5));
        }
        if child.try_wait().unwrap().is_none() {
            child.kill().unwrap();
            kills += 1;
        }
        child.wait().unwrap();
    }
    assert!(kills > 0, "every run was over before it could be killed");
    assert!(!case.path("judged.jsonl").exists());
    let kept = count_lines(&journal);
    assert!(kept >= 20);
    let (_, said) = judge(&case, &["-o", "judged.jsonl", "--resume"]);
    let found: usize =
        said.split(" verdicts kept").next().unwrap().rsplit(' ').next().unwrap().parse().unwrap();
    assert!(found + 1 >= kept && found > 0, "{said}");
    assert_eq!(std::fs::read(case.path("judged.jsonl")).unwrap(), whole);
    assert!(!journal.exists());
}

#[test]
fn unordered_lines_come_as_they_are_finished() {
    let Some(case) = case(0) else { return };
    let slow = program("slow", "python", &format!("import time; time.sleep(1.5)\n{RIGHT}"));
    let quick: Vec<_> =
        (0..8).map(|i| program(&format!("q{i}"), "python", &format!("# {i}\n{RIGHT}"))).collect();
    case.lines("programs.jsonl", &[&[slow][..], &quick].concat());
    let ids = |flags: &[&str]| -> Vec<String> {
        records(&judge(&case, flags).0).iter().map(|r| r["id"].as_str().unwrap().to_owned()).collect()
    };
    let ordered = ids(&["-j2"]);
    let mut unordered = ids(&["-j2", "--unordered"]);
    assert_eq!(ordered[0], "slow");
    assert_eq!(unordered.last().unwrap(), "slow");
    unordered.sort();
    let mut sorted = ordered;
    sorted.sort();
    assert_eq!(unordered, sorted);
}

#[test]
fn parquet_goes_in_and_out() {
    let Some(case) = case(3) else { return };
    let (lines, _) = judge(&case, &[]);
    judge(&case, &["-o", "judged.parquet"]);
    // Back through Parquet: the verdicts are replaced by equal ones, and nothing else changes.
    let again = case.judge(&["judged.parquet"], "");
    let verdicts = |bytes: &[u8]| -> Vec<Value> {
        records(bytes).iter().map(|r| json!([r["id"], r["source"], r["verdict"]])).collect()
    };
    assert_eq!(verdicts(&again.stdout), verdicts(&lines));
    let mixed =
        format!("{}\n{}\n", program("a", "python", RIGHT), json!({"schema": "step_end/1", "step": 0}));
    let refused = case.judge(&["-", "-o", "mixed.parquet"], &mixed);
    assert_eq!(refused.status.code(), Some(3));
    assert!(!case.path("mixed.parquet").exists());
}

#[test]
fn extraction_follows_the_rule_and_is_counted() {
    let Some(case) = case(0) else { return };
    let rollout = |text: &str| json!({"schema": "rollout/1", "prompt": "q", "index": 0, "text": text, "problem": "sum", "language": "python"});
    let fence = format!("```python\n{RIGHT}```\n");
    case.lines(
        "programs.jsonl",
        &[rollout(RIGHT), rollout(&fence), rollout(&format!("<answer>{RIGHT}</answer>")), rollout("")],
    );
    let of = |rule: &str| {
        let (out, said) = judge(&case, &["--extract", rule]);
        let pick = |r: &Value| {
            format!(
                "{} {}",
                r["verdict"]["extraction"].as_str().unwrap(),
                r["verdict"]["status"].as_str().unwrap()
            )
        };
        (records(&out).iter().map(pick).collect::<Vec<_>>(), said)
    };
    let (found, said) = of("auto");
    assert_eq!(found, ["whole AC", "fence AC", "whole RE", "none CE"]);
    assert!(said.contains("found: fence 1, none 1, whole 2"), "{said}");
    assert_eq!(of("fence").0, ["none CE", "fence AC", "none CE", "none CE"]);
    assert_eq!(of("whole").0, ["whole AC", "whole RE", "whole RE", "none CE"]);
    assert_eq!(of("tags:answer").0, ["none CE", "none CE", "tags AC", "none CE"]);
    assert_eq!(case.judge(&["-", "--extract", "guess"], "").status.code(), Some(2));
}

/// Programs whose CPU time lies well below, near and above the limit, at -j1 on a machine as it is, and at -j4 with
/// every processor busy twice over.
#[test]
fn load_does_not_change_verdicts() {
    let Some(case) = case(0) else { return };
    let mut problem = sum_problem();
    problem["limits"] = json!({"cpu_ms": 200});
    case.lines("problems.jsonl", &[problem]);
    let burn = |i: usize, ms: u64| {
        let source =
            format!("# {i}\nimport time\nwhile time.process_time() < {}: pass\n{RIGHT}", ms as f64 / 1000.0);
        program(&format!("{i}-{ms}"), "python", &source)
    };
    let lines: Vec<_> =
        [10, 100, 180, 320, 1000].iter().cycle().take(10).enumerate().map(|(i, ms)| burn(i, *ms)).collect();
    case.lines("programs.jsonl", &lines);
    let quiet = judge(&case, &["-j1", "--first-failure"]).0;
    let statuses: Vec<_> = records(&quiet)[..5].iter().map(|r| r["verdict"]["status"].clone()).collect();
    assert_eq!(statuses, ["AC", "AC", "AC", "TLE", "TLE"]);
    let processors = std::thread::available_parallelism().unwrap().get();
    let mut load: Vec<_> = (0..2 * processors)
        .map(|_| {
            let mut command = std::process::Command::new("sh");
            command.args(["-c", "while :; do :; done"]).stdin(Stdio::null()).spawn().unwrap()
        })
        .collect();
    let busy = judge(&case, &["-j4", "--first-failure"]).0;
    for child in &mut load {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(busy == quiet, "verdicts under load differ");
}
