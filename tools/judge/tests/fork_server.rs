//! A program that is forked from a waiting interpreter behaves as one whose interpreter was started for it: the same
//! output, exit status, signal and messages, on programs that look at exactly what could differ.

mod common;

use std::path::Path;

use common::{Case, can_judge, language_of, program, programs_in, records, sum_problem};

#[test]
fn a_forked_interpreter_is_a_fresh_one() {
    for language in ["python", "ruby", "php", "perl", "lua", "bash"] {
        if !can_judge(&[language]) {
            continue;
        }
        let case = Case::new();
        case.lines("problems.jsonl", &[sum_problem()]);
        let files = programs_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/odd"));
        let programs: Vec<_> = files
            .iter()
            .filter(|f| language_of(f) == Some(language))
            .map(|f| {
                program(
                    &f.file_name().unwrap().to_string_lossy(),
                    language,
                    &std::fs::read_to_string(f).unwrap(),
                )
            })
            .collect();
        assert!(!programs.is_empty());
        case.lines("programs.jsonl", &programs);
        let judge = |flag: &[&str]| {
            let flags = [&["programs.jsonl", "--excerpts", "--cpu-ms", "5000", "-j1"], flag].concat();
            let output = case.judge(&flags, "");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let notes = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!notes.contains("no fork server"), "{notes}");
            records(&output.stdout)
        };
        let (forked, fresh) = (judge(&[]), judge(&["--no-fork-server"]));
        for (a, b) in forked.iter().zip(&fresh) {
            // The number of the process that a message names, and the time, may differ; nothing else.
            assert_eq!(a["verdict"], b["verdict"], "{}", a["id"]);
        }
        assert_eq!(forked.len(), programs.len());
    }
}
