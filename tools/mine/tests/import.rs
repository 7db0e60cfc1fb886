//! Import: a folder a problem, field maps over JSONL and Parquet, the suite's own records; what is refused and why.

mod tool;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tool::{done, lines, mine, reference, text, workspace};

#[test]
fn a_folder_a_problem_gives_problems_tests_programs_and_claims() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("corpus");
    done(&["import", text(&workspace().join("testdata/folder")), "-o", text(&out)]);
    let problems = lines(&out.join("problems.jsonl"));
    let ids: Vec<_> = problems.iter().map(|p| p["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["add", "reverse"]);
    assert_eq!(problems[0]["statement"], "Read two integers from one line and print their sum.\n");
    let tests: Vec<_> =
        problems[0]["tests"].as_array().unwrap().iter().map(|t| (&t["id"], &t["visibility"])).collect();
    // Smallest input first.
    assert_eq!(
        json!(tests),
        json!([["data/sample/1", "public"], ["data/secret/1", "hidden"], ["data/secret/2", "hidden"]])
    );
    let programs = lines(&out.join("programs.jsonl"));
    let of = |problem: &str, language: &str| -> Vec<String> {
        let claims = programs.iter().filter(|p| p["problem"] == problem && p["language"] == language);
        claims.map(|p| p["claim"].as_str().unwrap_or("none").to_owned()).collect()
    };
    assert_eq!(of("add", "python"), ["accepted", "wrong"]);
    assert_eq!(of("add", "cpp"), ["accepted"]);
    assert_eq!(of("reverse", "lua"), ["accepted"]);
    assert_eq!(programs.len(), 9);
    assert_eq!(programs[0]["origin"]["corpus"], "folder");
    assert_eq!(programs[0]["origin"]["path"], "add/accepted/a.cc");
}

/// Writes files below `root`.
fn plant(root: &Path, files: &[(&str, &[u8])]) {
    for (name, bytes) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

#[test]
fn duplicates_empty_large_and_foreign_sources_are_counted_out() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("in");
    let large = vec![b'#'; 70_000];
    plant(
        &root,
        &[
            ("p/a.py", b"print(1)\n"),
            ("p/b.py", b"\xef\xbb\xbfprint(1)  \r\n\r\n"),
            ("p/c.py", b"print( 1)\n"),
            ("p/empty.py", b" \n\n"),
            ("p/large.py", &large),
            ("q/a.py", b"print(1)\n"),
            ("q/notes.xyz", b"not a language"),
        ],
    );
    std::os::unix::fs::symlink("/etc/passwd", root.join("q/link.py")).unwrap();
    let (out, report) = (dir.path().join("out"), dir.path().join("report.json"));
    done(&["import", text(&root), "-o", text(&out), "--report", text(&report)]);
    let counts: Value = serde_json::from_str(&fs::read_to_string(report).unwrap()).unwrap();
    assert_eq!(
        counts["languages"]["python"],
        json!({"read": 6, "written": 3, "rejected": {"duplicate": 1, "empty": 1, "too large": 1}})
    );
    let ids: Vec<_> =
        lines(&out.join("programs.jsonl")).iter().map(|p| p["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids.iter().collect::<std::collections::HashSet<_>>().len(), 3, "{ids:?}");
}

#[test]
fn a_submission_that_is_a_folder_has_the_claim_of_the_folder_above() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("accepted");
    plant(
        &root,
        &[
            ("p/submissions/accepted/7/a.py", b"print(1)\n"),
            ("p/submissions/wrong_answer/src/b.py", b"print(2)\n"),
            ("p/notes/c.py", b"print(3)\n"),
        ],
    );
    let out = dir.path().join("out");
    done(&["import", text(&root), "-o", text(&out)]);
    let programs = lines(&out.join("programs.jsonl"));
    let claims: Vec<_> = programs.iter().map(|p| json!([p["source"], p["claim"]])).collect();
    let expected = json!([["print(3)\n", null], ["print(1)\n", "accepted"], ["print(2)\n", "wrong"]]);
    assert_eq!(json!(claims), expected);
}

#[test]
fn a_test_without_output_is_refused_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("in");
    plant(&root, &[("p/a.py", b"print(1)\n"), ("p/1.in", b"1\n"), ("p/1.ans", b"1\n"), ("p/2.in", b"2\n")]);
    let out = dir.path().join("out");
    let outcome = mine(&["import", text(&root), "-o", text(&out)]);
    assert_eq!(outcome.code, Some(3), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("p/2.in: test without output"), "{}", outcome.stderr);
    assert_eq!(fs::read_dir(&out).map_or(0, Iterator::count), 0);
    done(&["import", "--keep-going", text(&root), "-o", text(&out)]);
    assert_eq!(lines(&out.join("problems.jsonl"))[0]["tests"].as_array().unwrap().len(), 1);
}

const ROWS: &str = r#"{"name": "p1", "text": "Say hi.", "limit": {"seconds": 2}, "public": {"input": ["long input\n", "i\n"], "output": ["a\n", "b\n"]}, "good": {"language": [3, 2], "solution": ["print('hi')", "int main(){}"]}, "bad": {"language": [3, 9], "solution": ["print('ho')", "?"]}, "year": 2020}
"#;

const MAP: &str = r#"
corpus = "contests"
licence = "CC-BY-4.0"
[problem]
id = "name"
statement = "text"
cpu_seconds = "limit.seconds"
keep = ["year"]
[[problem.tests]]
zip = "public"
input = "input"
output = "output"
visibility = "public"
[[programs]]
zip = "good"
language = "language"
source = "solution"
claim = { value = "accepted" }
[[programs]]
zip = "bad"
language = "language"
source = { template = "{solution} // {/name} {@key}" }
claim = { value = "wrong" }
[languages]
3 = "Python 3"
2 = "GNU C++17"
"#;

#[test]
fn parallel_lists_numbers_for_languages_and_several_lists_of_programs() {
    let dir = tempfile::tempdir().unwrap();
    let (rows, map, out) =
        (dir.path().join("rows.jsonl"), dir.path().join("map.toml"), dir.path().join("out"));
    fs::write(&rows, ROWS).unwrap();
    fs::write(&map, MAP).unwrap();
    let outcome = done(&["import", "--map", text(&map), text(&rows), "-o", text(&out)]);
    assert!(outcome.stderr.contains("unknown languages: 9 1"), "{}", outcome.stderr);
    let problem = &lines(&out.join("problems.jsonl"))[0];
    assert_eq!(problem["limits"], json!({"cpu_ms": 2000}));
    assert_eq!(problem["year"], 2020);
    assert_eq!(problem["tests"][0]["input"], "i\n");
    let programs = lines(&out.join("programs.jsonl"));
    let brief: Vec<_> = programs.iter().map(|p| json!([p["language"], p["source"], p["claim"]])).collect();
    assert_eq!(
        json!(brief),
        json!([
            ["python", "print('hi')\n", "accepted"],
            ["cpp", "int main(){}\n", "accepted"],
            ["python", "print('ho') // p1 0\n", "wrong"],
        ])
    );
    assert_eq!(programs[0]["origin"], json!({"corpus": "contests", "licence": "CC-BY-4.0"}));
}

#[test]
fn parquet_rows_and_pairs_on_the_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    // The suite's own Parquet serves as a table of somebody else's.
    done(&[
        "import",
        text(&workspace().join("testdata/folder")),
        "-o",
        text(&at("a")),
        "--format",
        "parquet",
    ]);
    let pairs = "source=source,language=language,problem=problem,claim=claim,id=id";
    done(&["import", "--map", pairs, text(&at("a/programs.parquet")), "-o", text(&at("b"))]);
    let programs = lines(&at("b/programs.jsonl"));
    assert_eq!(programs.len(), 9);
    // As records they come through the same gate with all they carry.
    done(&["import", text(&at("a/programs.parquet")), text(&at("a/problems.jsonl")), "-o", text(&at("c"))]);
    let again = lines(&at("c/programs.jsonl"));
    assert_eq!(json!(again[0]["source"]), json!(programs[0]["source"]));
    assert_eq!(again[0]["origin"]["corpus"], "folder");
    assert_eq!(fs::read(at("a/problems.jsonl")).unwrap(), fs::read(at("c/problems.jsonl")).unwrap());
    assert!(fs::read_to_string(at("c/programs.jsonl.provenance.json")).unwrap().contains("programs.parquet"));
}

#[test]
fn pairs_read_the_problem_of_the_row_and_the_programs_of_its_list() {
    let dir = tempfile::tempdir().unwrap();
    let (rows, out) = (dir.path().join("rows.jsonl"), dir.path().join("out"));
    let row = json!({"task": "t", "about": "Say hi.", "solutions": [{"lang": "Ruby", "code": "puts 1"}]});
    fs::write(&rows, format!("{row}\n")).unwrap();
    let pairs = "problem=task,statement=about,each=solutions,source=code,language=lang";
    done(&["import", "--map", pairs, text(&rows), "-o", text(&out)]);
    assert_eq!(lines(&out.join("problems.jsonl"))[0]["statement"], "Say hi.");
    let program = &lines(&out.join("programs.jsonl"))[0];
    assert_eq!(json!([program["problem"], program["language"]]), json!(["t", "ruby"]));
}

#[test]
fn a_map_that_says_nothing_or_too_much_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (rows, map, out) =
        (dir.path().join("rows.jsonl"), dir.path().join("map.toml"), dir.path().join("out"));
    fs::write(&rows, ROWS).unwrap();
    for (text_of_map, reason) in [
        ("[problem]\nid = \"absent\"\n", "rows.jsonl:1: absent is missing"),
        ("[problem]\nid = \"name\"\nstatment = \"text\"\n", "unknown field `statment`"),
        (
            "[problem]\nid = \"name\"\n[[problem.tests]]\nzip = \"public\"\ninput = \"input\"\n",
            "neither output nor code",
        ),
        ("[problem]\nid = \"public\"\n", "an object where text was expected"),
        ("corpus = \"x\"\n", "neither [problem] nor [[programs]]"),
    ] {
        fs::write(&map, text_of_map).unwrap();
        let outcome = mine(&["import", "--map", text(&map), text(&rows), "-o", text(&out)]);
        assert_eq!(outcome.code, Some(3), "{text_of_map}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(reason), "{text_of_map}: {}", outcome.stderr);
    }
    let outcome =
        mine(&["import", "--map", "source=a,colour=b,language=c,problem=d", text(&rows), "-o", text(&out)]);
    assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
}

#[test]
fn the_committed_maps_read_the_reference_data() {
    for (name, problems, programs, tests) in [("kattis", 99, 465, 194), ("mbxp", 300, 2040, 2040)] {
        let Some(data) = reference(&format!("{name}/{name}.jsonl")) else { continue };
        let dir = tempfile::tempdir().unwrap();
        let map = workspace().join(format!("testdata/maps/{name}.toml"));
        done(&["import", "--map", text(&map), text(&data), "-o", text(dir.path())]);
        let read = lines(&dir.path().join("problems.jsonl"));
        assert_eq!(read.len(), problems, "{name}");
        assert_eq!(read.iter().map(|p| p["tests"].as_array().unwrap().len()).sum::<usize>(), tests, "{name}");
        assert_eq!(lines(&dir.path().join("programs.jsonl")).len(), programs, "{name}");
    }
}
