//! What is wrong with the input is said with its place, ends with exit code 3, and leaves no half-written output.

mod common;

use common::{Case, can_judge, program, records, sum_problem};
use serde_json::json;

const RIGHT: &str = "print(sum(map(int, input().split())))\n";

fn refused(problems: &str, input: &str, flags: &[&str]) -> String {
    let case = Case::new();
    case.text("problems.jsonl", problems);
    let output = case.judge(&[&["-", "-o", "out.jsonl"], flags].concat(), input);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    let left: Vec<_> = std::fs::read_dir(case.dir.path()).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(left, ["problems.jsonl"], "{said}");
    said
}

#[test]
fn bad_records_are_refused_with_file_and_line() {
    let problems = format!("{}\n", sum_problem());
    let good = program("a", "python", RIGHT).to_string();
    for (input, reason) in [
        (format!("{}\n", program("a", "kobol", "x")), "stdin:1: unknown language \"kobol\""),
        (
            format!(
                "\n{}\n",
                json!({"schema": "program/1", "id": "a", "problem": "none", "language": "python", "source": ""})
            ),
            "stdin:2: unknown problem \"none\"",
        ),
        (good[..good.len() - 9].to_owned(), "stdin:1: truncated record"),
        ("{\"a\" 1}\n".to_owned(), "stdin:1: not valid JSON"),
        (good.replace("program/1", "program/9") + "\n", "stdin:1: schema \"program/9\" is not supported"),
        (good.replace("\"problem\"", "\"problme\"") + "\n", "stdin:1: field problem is missing"),
    ] {
        let said = refused(&problems, &input, &[]);
        assert!(said.contains(reason), "{said}");
    }
}

#[test]
fn bad_tests_are_refused_before_anything_runs() {
    let good = sum_problem();
    for (problems, reason) in [
        (json!({"id": "p", "statement": "", "tests": [{"input": "1"}]}).to_string(), "problems.jsonl:1: test 0: field output is missing"),
        (format!("{good}\n{good}"), "problems.jsonl:2: problem \"sum\" appears twice"),
        (good.to_string().replace("problem/1", "problem/2"), "problems.jsonl:1: schema \"problem/2\" is not supported"),
        (good.to_string()[..60].to_owned(), "problems.jsonl:1: truncated record"),
        (
            json!({"id": "p", "statement": "", "checker": {"kind": "program", "language": "kobol", "source": ""}, "tests": []}).to_string(),
            "problems.jsonl:1: problem \"p\": unknown language \"kobol\" of a checker",
        ),
    ] {
        let said = refused(&problems, "", &[]);
        assert!(said.contains(reason), "{said}");
    }
}

#[test]
fn a_language_without_toolchain_is_no_verdict() {
    let case = Case::new();
    let table = "[kobol]\ndisplay = \"Kobol\"\nextension = \"kob\"\nline_comment = \"*\"\nsource = \"main.kob\"\n\
                 run = [\"kobol-that-is-not-here\"]\nversion = [\"kobol-that-is-not-here\"]\npackages = [\"kobol\"]\n";
    let path = case.text("table.toml", table);
    let input = format!("{}\n", program("a", "kobol", "x"));
    let said = refused(&format!("{}\n", sum_problem()), &input, &["--languages", path.to_str().unwrap()]);
    assert!(said.contains("stdin:1: Kobol cannot be judged on this machine: kobol-that-is-not-here not found (apt install kobol)"), "{said}");
}

#[test]
fn bad_lines_can_be_skipped_and_earlier_lines_are_kept() {
    if !can_judge(&["python"]) {
        return;
    }
    let case = Case::new();
    case.lines("problems.jsonl", &[sum_problem()]);
    let input = format!("{}\n{{\n{}\n", program("a", "python", RIGHT), program("b", "python", "print(1)\n"));
    let output = case.judge(&["-", "--keep-going"], &input);
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stderr).contains("skipped: stdin:2:"));
    assert_eq!(records(&output.stdout).len(), 2);
    // Without it, what came before the bad line is still judged, on a stream.
    let output = case.judge(&["-"], &input);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(records(&output.stdout).len(), 1);
}

#[test]
fn a_user_adds_a_language_with_a_table() {
    let case = Case::new();
    case.lines("problems.jsonl", &[sum_problem()]);
    let path = case.text(
        "table.toml",
        "[shell]\ndisplay = \"POSIX shell\"\nextension = \"sh\"\nline_comment = \"#\"\nsource = \"main.sh\"\n\
         run = [\"sh\", \"/box/{source}\"]\nversion = [\"sh\", \"-c\", \"echo 1\"]\n",
    );
    let input = format!("{}\n", program("a", "shell", "read a b; echo $((a + b))\n"));
    let output = case.judge(&["-", "--languages", path.to_str().unwrap()], &input);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(records(&output.stdout)[0]["verdict"]["status"], "AC");
}

#[test]
fn odd_text_in_programs_is_harmless() {
    if !can_judge(&["python"]) {
        return;
    }
    let case = Case::new();
    case.lines("problems.jsonl", &[sum_problem()]);
    let source = "print('\u{1b}[31m\u{7} <|endoftext|> \u{0}')\n";
    let bytes = "import sys\nsys.stdout.buffer.write(b'\\xff\\xfe\\x1b]0;x\\x07')\n";
    let lines = [program("a", "python", source), program("b", "python", bytes)];
    let input: String = lines.iter().map(|l| format!("{l}\n")).collect();
    let output = case.judge(&["-", "--excerpts"], &input);
    assert!(output.status.success());
    assert!(!output.stdout.contains(&0x1b) && !output.stderr.contains(&0x1b));
    let judged = records(&output.stdout);
    assert_eq!(judged[0]["source"], source);
    assert_eq!(judged[1]["verdict"]["status"], "WA");
}
