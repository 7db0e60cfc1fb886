//! What the vectors are, and what the measures make of them.

use cognate_random::Key;
use cognate_records::{Embedding, Program};

use crate::world::{LANGUAGES, average, command, decode, identical, program, stdout, world, write_programs};

#[test]
fn bytes_do_not_depend_on_threads_or_on_the_order_of_the_programs() {
    let w = world(&identical(20));
    let text = w.probe(&["--limit", "12", "--centre", "none,language", "-j", "1"]);
    assert_eq!(text, w.probe(&["--limit", "12", "--centre", "none,language", "-j", "2"]));
    let mut programs = identical(20);
    Key::new(1).stream().shuffle(&mut programs);
    write_programs(&w.programs, &programs);
    assert_eq!(text, w.probe(&["--limit", "12", "--centre", "none,language"]));
    assert_ne!(text, w.probe(&["--limit", "12", "--centre", "none,language", "--seed", "1"]));
}

#[test]
fn identical_programs_are_found_and_shuffled_problems_are_not() {
    let w = world(&identical(30));
    let metrics = decode(&w.probe(&[]));
    for layer in ["0", "1", "2"] {
        assert_eq!(average(&metrics, "retrieval@1", layer, "mean"), 1.0);
        assert!((average(&metrics, "retrieval@1_chance", layer, "mean") - 1.0 / 30.0).abs() < 1e-12);
        assert!(average(&metrics, "intra_cluster_distance", layer, "mean") < 1e-6);
        assert!(average(&metrics, "cosine_gap", layer, "mean") > 0.01);
    }
    // The last token is a newline everywhere: its embedding tells nothing, and no more than chance is claimed.
    assert!((average(&metrics, "retrieval@1", "0", "last") - 1.0 / 30.0).abs() < 1e-12);
    assert_eq!(average(&metrics, "retrieval@1", "2", "last"), 1.0);
    // In each language the sources change their problems.
    let mut programs = identical(30);
    for (l, language) in LANGUAGES.iter().enumerate() {
        let mut sources: Vec<String> =
            programs.iter().filter(|p| p.language == *language).map(|p| p.source.clone()).collect();
        Key::new(l as u64).stream().shuffle(&mut sources);
        let of_language = programs.iter_mut().filter(|p| p.language == *language);
        of_language.zip(sources).for_each(|(p, source)| p.source = source);
    }
    write_programs(&w.programs, &programs);
    let metrics = decode(&w.probe(&[]));
    assert!(average(&metrics, "retrieval@1", "2", "mean") < 0.15);
    assert!(average(&metrics, "cosine_gap", "2", "mean").abs() < 0.05);
    assert!(average(&metrics, "intra_cluster_distance", "2", "mean") > 0.4);
}

fn find<'a>(all: &'a [Embedding], id: &str, layer: u32, pooling: &str) -> &'a [f32] {
    &all.iter().find(|e| e.id == id && e.layer == layer && e.pooling == pooling).unwrap().vector
}

fn far(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max)
}

#[test]
fn the_embedding_layer_sees_no_order_and_the_others_do() {
    let mut programs: Vec<Program> = LANGUAGES.map(|l| program(0, l, "print(12)".into())).into();
    programs[1].source = programs[0].source.chars().rev().collect();
    let w = world(&programs);
    let all = w.embeddings(&[]);
    assert_eq!(all.len(), 3 * 3 * 2);
    let pair =
        |layer, pooling| far(find(&all, "q0/python", layer, pooling), find(&all, "q0/ruby", layer, pooling));
    assert!(pair(0, "mean") < 1e-6);
    assert!(pair(2, "mean") > 1e-2);
    assert!(pair(0, "last") > 1e-2, "the last tokens differ");
}

#[test]
fn what_follows_the_program_changes_the_last_token_only() {
    let w = world(&identical(2));
    let (source, description) = (w.embeddings(&[]), w.embeddings(&["--document", "description"]));
    let answer = w.embeddings(&["--document", "answer"]);
    let id = "q1/php";
    assert!(far(find(&source, id, 2, "mean"), find(&description, id, 2, "mean")) < 1e-5);
    assert!(far(find(&source, id, 2, "last"), find(&description, id, 2, "last")) > 1e-2);
    // The head of a prompt is not averaged in, but it is read.
    assert!(far(find(&source, id, 0, "mean"), find(&answer, id, 0, "mean")) < 1e-5);
    assert!(far(find(&source, id, 2, "mean"), find(&answer, id, 2, "mean")) > 1e-3);
}

#[test]
fn statements_are_read_from_the_problems() {
    let w = world(&identical(4));
    let problems = w.path("problems.jsonl");
    let lines: String = (0..4).map(|p| format!("{{\"id\":\"q{p}\",\"statement\":\"do {p}\"}}\n")).collect();
    std::fs::write(&problems, lines).unwrap();
    let arguments = ["--document", "statement", "--problems", &problems];
    let (statement, answer) = (w.embeddings(&arguments), w.embeddings(&["--document", "answer"]));
    assert!(far(find(&statement, "q1/php", 2, "mean"), find(&answer, "q1/php", 2, "mean")) > 1e-3);
}

#[test]
fn stored_embeddings_measure_the_same() {
    let w = world(&identical(15));
    for name in ["e.parquet", "e.jsonl"] {
        let file = w.path(name);
        let direct = w.probe(&[
            "--centre",
            "none,language",
            "--label",
            "m",
            "--languages",
            "php,python",
            "--embeddings",
            &file,
        ]);
        let stored = stdout(command(&[
            "metrics",
            "-q",
            &file,
            "--centre",
            "none,language",
            "--languages",
            "php,python",
        ]));
        assert_eq!(direct, stored, "{name}");
    }
}

#[test]
fn somebody_elses_embeddings_may_be_incomplete_and_pooled_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("e.jsonl");
    let mut lines = String::new();
    for (problem, language, vector) in [
        ("a", "go", "1,0"),
        ("a", "perl", "2,0.1"),
        ("b", "perl", "0,1"),
        ("b", "go", "0.1,3"),
        ("c", "go", "-1,0"),
    ] {
        lines += &format!(
            "{{\"id\":\"{problem}{language}\",\"problem\":\"{problem}\",\"language\":\"{language}\",\"layer\":7,\"pooling\":\"max\",\"vector\":[{vector}]}}\n"
        );
    }
    std::fs::write(&file, lines).unwrap();
    let metrics = decode(&stdout(command(&["metrics", file.to_str().unwrap()])));
    assert_eq!(average(&metrics, "retrieval@1", "7", "max"), 1.0);
    let chance = average(&metrics, "retrieval@1_chance", "7", "max");
    assert!((chance - (1.0 / 2.0 + 1.0 / 3.0) / 2.0).abs() < 1e-12);
}
