//! `cog-judge doctor` says what is true of this machine, in words and as JSON, and its exit status is the answer.

mod common;

use std::process::Command;

use common::{Case, JUDGE, is_root, program, sum_problem};
use serde_json::Value;

fn doctor(flags: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(JUDGE).arg("doctor").args(flags).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn named<'a>(report: &'a Value, list: &str, name: &str) -> &'a Value {
    report[list].as_array().unwrap().iter().find(|entry| entry["name"] == name).unwrap()
}

#[test]
fn the_report_is_true_and_so_is_the_exit_status() {
    let (code, text, said) = doctor(&["--json"]);
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["root"], is_root());
    let stands = |name: &str| named(&report, "sandboxes", name)["there"] == true;
    let full = ["container", "wasm"].into_iter().any(stands);
    assert_eq!((report["full"].as_bool(), code), (Some(full), Some(i32::from(!full))), "{said}");
    // What is missing comes with what is weaker and with a cure.
    for feature in report["features"].as_array().unwrap() {
        assert_eq!(feature["there"] == true, feature["missing"].is_null(), "{feature}");
        assert_eq!(feature["there"] == true, feature["weaker"].is_null(), "{feature}");
        assert!(feature["there"] == true || feature["fix"].is_string(), "{feature}");
    }
    // The judge itself agrees about the container.
    let case = Case::new();
    case.lines("problems.jsonl", &[sum_problem()]);
    let line = format!("{}\n", program("p", "bash", "read a b; echo $((a + b))\n"));
    let judged = case.judge(&["-", "--sandbox", "container", "-q"], &line);
    let reason = String::from_utf8_lossy(&judged.stderr).into_owned();
    assert_eq!(judged.status.success(), stands("container"), "{reason}");
    if !stands("container") {
        let missing = named(&report, "sandboxes", "container")["missing"].as_str().unwrap();
        assert!(reason.contains(missing), "{missing}: {reason}");
    }
}

#[test]
fn the_words_name_everything_that_the_json_names() {
    let (_, text, _) = doctor(&[]);
    let (_, json, _) = doctor(&["--json"]);
    let report: Value = serde_json::from_str(&json).unwrap();
    for entry in ["sandboxes", "features"].iter().flat_map(|list| report[*list].as_array().unwrap()) {
        let name = entry["name"].as_str().unwrap();
        assert!(text.lines().any(|line| line.trim_start().starts_with(name)), "{name}: {text}");
        let fix = entry["fix"].as_str();
        assert!(fix.is_none_or(|fix| text.contains(&format!("fix: {fix}"))), "{fix:?}: {text}");
    }
}

#[test]
fn where_namespaces_are_denied_the_container_is_not_claimed() {
    if !is_root() {
        eprintln!("SKIPPED: not root, so user.max_user_namespaces of a namespace cannot be set");
        return;
    }
    // In a user namespace of its own whose limit on further ones is 0: what a hardened machine gives.
    let script = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$0\" doctor --json";
    let output =
        Command::new("unshare").args(["--user", "--map-root-user", "sh", "-c", script, JUDGE]).output();
    let Ok(output) = output else {
        eprintln!("SKIPPED: unshare is not installed");
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    if output.stdout.is_empty() {
        eprintln!("SKIPPED: no user namespace to take namespaces away in: {said}");
        return;
    }
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    for (list, name) in [("sandboxes", "container"), ("features", "user-namespaces")] {
        let entry = named(&report, list, name);
        assert_eq!(entry["there"], false, "{entry}");
        assert!(entry["fix"].as_str().unwrap().contains("user.max_user_namespaces=15000"), "{entry}");
    }
    assert_eq!(output.status.code(), Some(i32::from(report["full"] == false)), "{said}");
}
