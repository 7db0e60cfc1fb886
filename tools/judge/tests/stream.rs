//! The judge as a filter: order, bytes, pipes, kills.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::Duration;

use common::{Case, can_judge, program, records, sum_problem};
use serde_json::json;

const RIGHT: &str = "print(sum(map(int, input().split())))\n";

fn case() -> Option<Case> {
    can_judge(&["python"]).then(|| {
        let case = Case::new();
        case.lines("problems.jsonl", &[sum_problem()]);
        case
    })
}

#[test]
fn bytes_do_not_depend_on_the_number_of_workers_and_order_is_kept() {
    let Some(case) = case() else { return };
    let slow = "import time; time.sleep(0.1)\n";
    let mut lines =
        vec![json!({"schema": "step_end/1", "step": 0, "version": 0, "groups": 0, "rollouts": 0})];
    for i in 0..60 {
        let source = match i % 5 {
            0 => format!("{slow}{RIGHT}"),
            1 => RIGHT.to_owned(),
            2 => format!("print({i})\n"),
            3 => "1 / 0\n".to_owned(),
            _ => format!("# {i}\n{RIGHT}"),
        };
        lines.push(program(&format!("p{i}"), "python", &source));
        if i % 10 == 9 {
            lines.push(json!({"schema": "step_end/1", "step": i, "version": 0, "groups": 1, "rollouts": 10}));
        }
    }
    case.lines("programs.jsonl", &lines);
    let of = |flags: &[&str]| {
        let output = case.judge(&[&["programs.jsonl", "--excerpts"], flags].concat(), "");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let one = of(&["-j1"]);
    assert!(one == of(&["-j4"]), "-j1 and -j4 differ");
    assert!(one == of(&["-j2", "--no-result-cache"]), "remembered verdicts differ from new ones");
    let judged = records(&one);
    assert_eq!(judged.len(), lines.len());
    for (record, line) in judged.iter().zip(&lines) {
        assert_eq!((&record["id"], &record["step"]), (&line["id"], &line["step"]));
    }
    let status = |i: usize| records(&one)[i + 1]["verdict"]["status"].clone();
    assert_eq!([status(0), status(1), status(2), status(3)], ["AC", "AC", "WA", "RE"]);
}

#[test]
fn a_finished_record_does_not_wait_for_more_input() {
    let Some(case) = case() else { return };
    let mut child = case.command(&["-", "-q"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    let (send, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        while let Some(Ok(line)) = output.next() {
            let _ = send.send(line);
        }
    });
    for i in 0..3 {
        writeln!(input, "{}", program(&format!("p{i}"), "python", &format!("# {i}\n{RIGHT}"))).unwrap();
        writeln!(input, "{}", json!({"schema": "step_end/1", "step": i})).unwrap();
        let judged =
            lines.recv_timeout(Duration::from_secs(60)).expect("the record came back while stdin is open");
        assert!(judged.contains(&format!("\"p{i}\"")) && judged.contains("\"AC\""));
        let step = lines.recv_timeout(Duration::from_secs(60)).unwrap();
        assert_eq!(step, format!("{{\"schema\":\"step_end/1\",\"step\":{i}}}"));
    }
    drop(input);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_killed_judge_leaves_no_output() {
    let Some(case) = case() else { return };
    let lines: Vec<_> =
        (0..2000).map(|i| program(&format!("p{i}"), "python", &format!("# {i}\n{RIGHT}"))).collect();
    case.lines("programs.jsonl", &lines);
    for signal in [libc::SIGKILL, libc::SIGTERM] {
        let mut child = case.command(&["programs.jsonl", "-o", "out/judged.jsonl"]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(700));
        // SAFETY: a child of ours that has not been waited for.
        unsafe { libc::kill(child.id() as i32, signal) };
        assert!(!child.wait().unwrap().success());
        assert!(!case.path("out/judged.jsonl").exists());
    }
    // A healthy run afterwards.
    case.lines("programs.jsonl", &lines[..1]);
    let output = case.judge(&["programs.jsonl", "-o", "out/judged.jsonl"], "");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(records(&std::fs::read(case.path("out/judged.jsonl")).unwrap())[0]["verdict"]["status"], "AC");
    assert!(case.path("out/judged.jsonl.provenance.json").exists());
}

#[test]
fn rollouts_are_judged_by_the_program_that_is_found() {
    let Some(case) = case() else { return };
    let rollout = |index: u32, text: &str| json!({"schema": "rollout/1", "prompt": "q", "index": index, "text": text, "problem": "sum", "language": "python", "logprobs": [-0.25]});
    let check = |label: &str, text: &str| json!({"schema": "rollout/1", "prompt": "v", "index": 0, "text": text, "task": "verification", "label": label});
    let lines = [
        rollout(0, RIGHT),
        rollout(1, &format!("Here:\n```python\n{RIGHT}```\nDone.")),
        rollout(2, "  \n"),
        rollout(3, "puts gets.split.map(&:to_i).sum\n"),
        check("yes", "Yes."),
        check("no", "yes"),
        check("no", "I cannot tell"),
    ];
    let input: String = lines.iter().map(|l| format!("{l}\n")).collect();
    let output = case.judge(&["-", "--drift"], &input);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let judged = records(&output.stdout);
    let get = |field: &str| {
        judged.iter().map(|r| r["verdict"][field].as_str().unwrap_or("").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(get("status"), ["AC", "AC", "CE", "RE", "AC", "WA", "WA"]);
    assert_eq!(get("extraction"), ["whole", "fence", "none", "whole", "whole", "whole", "none"]);
    assert_eq!(get("detected_language")[..4], ["python", "python", "", "ruby"]);
    assert_eq!(judged[0]["logprobs"], json!([-0.25]));
    assert_eq!(judged[4]["verdict"]["reward"], 1.0);
}

#[test]
fn tests_are_chosen_by_coverage_first_failure_language_and_kind() {
    let Some(case) = case() else { return };
    let stdio = |size: u64, output: &str| json!({"input": "1 2\n", "output": output, "size": size});
    case.lines(
        "problems.jsonl",
        &[
            json!({"id": "sum", "statement": "", "tests": [stdio(9, "no"), stdio(1, "3"), stdio(2, "3"), stdio(3, "no")]}),
            json!({"id": "assert", "statement": "", "tests": [
                {"kind": "assert", "language": "python", "code": "assert f(1) == 2"},
                {"kind": "assert", "language": "python", "code": "assert f(2) == 2"},
                {"kind": "assert", "language": "ruby", "code": "raise"}]}),
        ],
    );
    let asserted =
        json!({"id": "a", "problem": "assert", "language": "python", "source": "def f(x):\n    return 2\n"});
    let half = json!({"id": "b", "problem": "assert", "language": "Python 3", "source": "def f(x):\n    return x + 1\n"});
    case.lines("programs.jsonl", &[program("s", "python", RIGHT), asserted, half]);
    let of = |flags: &[&str]| {
        let output = case.judge(&[&["programs.jsonl"], flags].concat(), "");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        records(&output.stdout)
            .iter()
            .map(|r| {
                let v = &r["verdict"];
                format!("{} {}/{}/{}", v["status"].as_str().unwrap(), v["passed"], v["run"], v["total"])
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(of(&[]), ["WA 2/4/4", "AC 2/2/2", "RE 1/2/2"]);
    assert_eq!(of(&["--first-failure"]), ["WA 0/1/4", "AC 2/2/2", "RE 1/2/2"]);
    assert_eq!(of(&["--coverage", "0.5"]), ["AC 2/2/2", "AC 1/1/1", "AC 1/1/1"]);
}
