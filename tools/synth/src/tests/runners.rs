//! Every emitted program, run by its own language, prints what the interpreter says.
//!
//! Starting 320 processes a language is too slow for some: Node runs all programs in one process, C++ and Go programs
//! are compiled into one executable. A language that is not installed is skipped, loudly.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cognate_random::Key;
use rayon::prelude::*;

use crate::emit::{Emitter, emit, emitter};
use crate::interpret::interpret;
use crate::ir::Pipeline;
use crate::world::Problem;

/// A program with what it must print for each input.
struct Expected {
    pipeline: Pipeline,
    source: String,
    cases: Vec<(String, String)>,
}

/// Problems of both worlds in which every concept stands at least `times` times.
fn covering(times: usize) -> Vec<&'static Problem> {
    let mut chosen = Vec::new();
    for world in [super::small_world(), super::rich_world()] {
        let mut seen: HashMap<String, usize> = HashMap::new();
        for problem in &world.problems {
            let concepts = super::concepts(&problem.pipeline);
            if concepts.iter().any(|c| seen.get(c).is_none_or(|&n| n < times)) {
                chosen.push(problem);
                for concept in concepts {
                    *seen.entry(concept).or_default() += 1;
                }
            }
        }
    }
    chosen
}

/// Programs of such problems, and of a mutant of every third.
fn programs(e: &dyn Emitter, times: usize) -> Vec<Expected> {
    let mut found = Vec::new();
    for (i, problem) in covering(times).into_iter().enumerate() {
        found.push(expected(e, &problem.pipeline, problem, i));
        let wrong = problem.wrong();
        if i % 3 == 0 && !wrong.is_empty() {
            found.push(expected(e, &wrong[i % wrong.len()].pipeline, problem, i));
        }
    }
    found
}

fn expected(e: &dyn Emitter, pipeline: &Pipeline, problem: &Problem, i: usize) -> Expected {
    let cases =
        problem.tests.iter().map(|t| (t.input.clone(), interpret(pipeline, &t.input).unwrap())).collect();
    let source = emit(e, pipeline, Key::new(i as u64).with("runners")).source;
    Expected { pipeline: pipeline.clone(), source, cases }
}

fn lines(text: &str) -> Vec<&str> {
    text.trim_end().lines().map(str::trim_end).collect()
}

fn check(program: &Expected, input: &str, output: &str, printed: &str) {
    assert_eq!(lines(printed), lines(output), "input {input:?} of {}\n{}", program.pipeline, program.source);
}

fn available(command: &str) -> bool {
    let exists = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(command).is_file()));
    if !exists {
        eprintln!("SKIPPED: {command} is not installed, so its programs were not run");
    }
    exists
}

fn run(mut command: Command, input: &str) -> String {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("starts");
    // A program that does not read all of its input closes the pipe.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("ends");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{command:?}: {errors}");
    String::from_utf8(output.stdout).expect("text")
}

/// One process a test.
fn interpreted(language: &str, command: &str, flags: &[&str], times: usize) {
    if !available(command) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let programs = programs(emitter(language).unwrap(), times);
    programs.par_iter().enumerate().for_each(|(i, program)| {
        let file = folder.path().join(format!("{i}.txt"));
        std::fs::write(&file, &program.source).unwrap();
        // Every second test: starting the process is what costs.
        for (input, output) in program.cases.iter().step_by(2) {
            let mut process = Command::new(command);
            process.args(flags).arg(&file);
            check(program, input, output, &run(process, input));
        }
    });
}

#[test]
fn python_programs_print_what_the_interpreter_says() {
    interpreted("python", "python3", &["-I", "-S"], 1);
}

#[test]
fn perl_programs_print_what_the_interpreter_says() {
    interpreted("perl", "perl", &["-w"], 2);
}

#[test]
fn lua_programs_print_what_the_interpreter_says() {
    interpreted("lua", "lua5.4", &[], 2);
}

#[test]
fn ruby_programs_print_what_the_interpreter_says() {
    interpreted("ruby", "ruby", &["--disable-gems"], 1);
}

#[test]
fn php_programs_print_what_the_interpreter_says() {
    interpreted("php", "php", &["-n"], 1);
}

/// Runs each program as the body of a function, with a `require` and a `console` of its own.
const NODE_DRIVER: &str = r#"
const jobs = JSON.parse(require("fs").readFileSync(0, "utf8"));
const answers = jobs.map(({ source, inputs }) => inputs.map((input) => {
  const printed = [];
  const file = { readFileSync: () => input };
  new Function("require", "console", source)(() => file, { log: (text) => printed.push(String(text)) });
  return printed.join("\n");
}));
process.stdout.write(JSON.stringify(answers));
"#;

#[test]
fn javascript_programs_print_what_the_interpreter_says() {
    if !available("node") {
        return;
    }
    let programs = programs(emitter("javascript").unwrap(), 3);
    let jobs: Vec<serde_json::Value> = programs
        .iter()
        .map(|p| {
            let inputs: Vec<&String> = p.cases.iter().map(|c| &c.0).collect();
            serde_json::json!({ "source": p.source, "inputs": inputs })
        })
        .collect();
    let mut node = Command::new("node");
    node.args(["-e", NODE_DRIVER]);
    let answers: Vec<Vec<String>> =
        serde_json::from_str(&run(node, &serde_json::to_string(&jobs).unwrap())).unwrap();
    for (program, answers) in programs.iter().zip(answers) {
        for ((input, output), printed) in program.cases.iter().zip(answers) {
            check(program, input, output, &printed);
        }
    }
    // One as it is, against the driver's own errors.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("program.js");
    std::fs::write(&file, &programs[0].source).unwrap();
    let (input, output) = &programs[0].cases[0];
    let mut node = Command::new("node");
    node.arg(file);
    check(&programs[0], input, output, &run(node, input));
}

/// Runs an executable that holds every program under its number.
fn run_all(executable: &Path, programs: &[Expected]) {
    programs.par_iter().enumerate().for_each(|(i, program)| {
        for (input, output) in &program.cases {
            let mut process = Command::new(executable);
            process.arg(i.to_string());
            check(program, input, output, &run(process, input));
        }
    });
}

#[test]
fn cpp_programs_print_what_the_interpreter_says() {
    if !available("g++") {
        return;
    }
    let programs = programs(emitter("cpp").unwrap(), 1);
    let (mut headers, mut text, mut calls) = (String::new(), String::new(), String::new());
    for (i, program) in programs.iter().enumerate() {
        text.push_str(&format!("namespace program{i} {{\n"));
        for line in program.source.lines() {
            let into = if line.starts_with("#include") { &mut headers } else { &mut text };
            into.push_str(&line.replace("int main() {", "void run() {"));
            into.push('\n');
        }
        text.push_str("}\n");
        calls.push_str(&format!("    case {i}: program{i}::run(); break;\n"));
    }
    let main =
        format!("int main(int, char **argv) {{\n    switch (std::stoi(argv[1])) {{\n{calls}    }}\n}}\n");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("all.cpp");
    std::fs::write(&file, format!("#include <string>\n{headers}{text}{main}")).unwrap();
    let executable = folder.path().join("all");
    let mut compiler = Command::new("g++");
    compiler.args(["-O0", "-o"]).arg(&executable).arg(&file);
    run(compiler, "");
    run_all(&executable, &programs);
    // Headers that one program lacks may have come from another: one is compiled alone.
    let longest = programs.iter().max_by_key(|p| p.source.len()).unwrap();
    std::fs::write(&file, &longest.source).unwrap();
    let mut compiler = Command::new("g++");
    compiler.args(["-fsyntax-only"]).arg(&file);
    run(compiler, "");
}

#[test]
fn go_programs_print_what_the_interpreter_says() {
    if !available("go") {
        return;
    }
    let programs = programs(emitter("go").unwrap(), 1);
    let folder = tempfile::tempdir().unwrap();
    let put = |path: PathBuf, text: String| {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let (mut imports, mut calls) = (String::new(), String::new());
    for (i, program) in programs.iter().enumerate() {
        let text = program.source.replace("package main", &format!("package p{i}"));
        let text = text.replace("func main() {", "func Main() {");
        put(folder.path().join(format!("p{i}/p.go")), text);
        imports.push_str(&format!("\t\"world/p{i}\"\n"));
        calls.push_str(&format!("\tcase \"{i}\":\n\t\tp{i}.Main()\n"));
    }
    let main = format!(
        "package main\n\nimport (\n\t\"os\"\n{imports})\n\nfunc main() {{\n\tswitch os.Args[1] {{\n{calls}\t}}\n}}\n"
    );
    put(folder.path().join("main.go"), main);
    put(folder.path().join("go.mod"), "module world\n\ngo 1.19\n".into());
    let mut compiler = Command::new("go");
    compiler.args(["build", "-o", "all.exe", "."]).current_dir(folder.path());
    run(compiler, "");
    run_all(&folder.path().join("all.exe"), &programs);
}
