//! A folder a problem: `<problem>/<anything>.<ext>` with `NAME.in` and `NAME.ans` (or `.out`) beside them, at any
//! depth below the problem's folder, as Kattis packages and many private archives keep them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use cognate_languages::Languages;
use cognate_records::{Error, Origin, Problem, Test, Visibility};

use crate::intake::{Found, Intake};

/// Names (without extension, lower case) of files that hold a statement, best first.
const STATEMENTS: [&str; 6] =
    ["problem", "statement", "problem.en", "description", "00description", "readme"];
const STATEMENT_EXTENSIONS: [&str; 5] = ["md", "txt", "tex", "html", ""];

/// What one problem's folder holds, by its paths below the root, sorted.
#[derive(Default)]
struct Files {
    inputs: BTreeMap<PathBuf, PathBuf>,
    answers: BTreeMap<PathBuf, PathBuf>,
    programs: Vec<(PathBuf, String)>,
    statement: Option<(usize, PathBuf)>,
}

/// Reads every problem's folder below `root`, in order of their names.
///
/// # Errors
/// When a folder cannot be read, or a test has no answer and `skip` says so.
pub fn import(
    root: &Path,
    corpus: Option<&str>,
    table: &Languages,
    intake: &mut Intake,
    mut skip: impl FnMut(anyhow::Error) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let corpus = match corpus {
        Some(name) => name.to_owned(),
        None => root
            .canonicalize()
            .ok()
            .and_then(|p| Some(p.file_name()?.to_string_lossy().into_owned()))
            .unwrap_or_default(),
    };
    for folder in entries(root)? {
        if !folder.is_dir() {
            continue;
        }
        let mut files = Files::default();
        walk(&folder, table, &mut files)?;
        if files.programs.is_empty() && files.inputs.is_empty() {
            continue;
        }
        if let Err(e) = deliver(root, &folder, &corpus, &files, intake, &mut skip) {
            skip(e)?;
        }
    }
    Ok(())
}

fn language_of<'l>(extension: &str, table: &'l Languages) -> Option<&'l str> {
    if extension.is_empty() {
        return None;
    }
    table.by_extension(extension).or_else(|| table.by_spelling(extension)).map(|l| l.name.as_str())
}

/// Sorted by name, links left out: they may lead outside the corpus or in circles.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |e| Error::io(folder, e);
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if !entry.file_type().map_err(failed)?.is_symlink()
            && !entry.file_name().to_string_lossy().starts_with('.')
        {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

fn walk(folder: &Path, table: &Languages, files: &mut Files) -> Result<(), Error> {
    for path in entries(folder)? {
        if path.is_dir() {
            walk(&path, table, files)?;
            continue;
        }
        let extension = path.extension().map_or_else(String::new, |e| e.to_string_lossy().to_lowercase());
        let stem = path.with_extension("");
        match extension.as_str() {
            "in" => drop(files.inputs.insert(stem, path)),
            "ans" | "out" => drop(files.answers.insert(stem, path)),
            _ => {
                if let Some(language) = language_of(&extension, table) {
                    files.programs.push((path, language.to_owned()));
                } else if STATEMENT_EXTENSIONS.contains(&extension.as_str()) {
                    let name =
                        stem.file_name().map_or_else(String::new, |n| n.to_string_lossy().to_lowercase());
                    if let Some(rank) = STATEMENTS.iter().position(|s| *s == name)
                        && files.statement.as_ref().is_none_or(|(best, _)| rank < *best)
                    {
                        files.statement = Some((rank, path));
                    }
                }
            }
        }
    }
    Ok(())
}

fn deliver(
    root: &Path,
    folder: &Path,
    corpus: &str,
    files: &Files,
    intake: &mut Intake,
    skip: &mut impl FnMut(anyhow::Error) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let below = |path: &Path| path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned();
    let origin = |path: &Path| {
        Some(Origin { corpus: Some(corpus.to_owned()), path: Some(below(path)), ..Origin::default() })
    };
    let id = below(folder);
    let mut tests = Vec::new();
    for (stem, input) in &files.inputs {
        match test_of(folder, stem, input, files) {
            Ok(test) => tests.push(test),
            Err(e) => skip(e.into())?,
        }
    }
    tests.sort_by_key(|t| t.size);
    let statement = match &files.statement {
        Some((_, path)) => text(path)?,
        None => String::new(),
    };
    let problem = Problem { id: id.clone(), statement, tests, origin: origin(folder), ..Problem::default() };
    intake.problem(&problem, &folder.display().to_string())?;
    for (path, language) in &files.programs {
        let source = match text(path) {
            Ok(source) => source,
            Err(e) => {
                skip(e.into())?;
                continue;
            }
        };
        let (claim, claim_spelling) = claim_of(path.strip_prefix(folder).unwrap_or(path));
        intake.program(Found {
            problem: id.clone(),
            language: language.clone(),
            source: Some(source),
            claim,
            claim_spelling,
            origin: origin(path),
            ..Found::default()
        })?;
    }
    Ok(())
}

fn test_of(folder: &Path, stem: &Path, input: &Path, files: &Files) -> Result<Test, Error> {
    let answer = files.answers.get(stem).ok_or_else(|| {
        Error::data(
            input.display().to_string(),
            "test without output: neither .ans nor .out stands beside it",
        )
    })?;
    let inside = stem.strip_prefix(folder).unwrap_or(stem).to_string_lossy().into_owned();
    let secret = inside.split('/').any(|part| part == "secret" || part == "hidden");
    let stdin = text(input)?;
    Ok(Test {
        id: Some(inside),
        size: Some(stdin.len() as u64),
        input: Some(stdin),
        output: Some(text(answer)?),
        visibility: if secret { Visibility::Hidden } else { Visibility::Public },
        ..Test::default()
    })
}

/// Kattis packages sort submissions into folders named for what they should get; a submission may itself be a folder.
fn claim_of(below: &Path) -> (Option<String>, Option<String>) {
    for folder in below.ancestors().skip(1).filter_map(|p| p.file_name()?.to_str()) {
        match folder {
            "accepted" => return (Some("accepted".to_owned()), None),
            "wrong_answer" | "run_time_error" | "time_limit_exceeded" | "compile_error" => {
                return (Some("wrong".to_owned()), Some(folder.to_owned()));
            }
            _ => {}
        }
    }
    (None, None)
}

fn text(path: &Path) -> Result<String, Error> {
    let bytes = fs::read(path).map_err(|e| Error::io(path, e))?;
    String::from_utf8(bytes).map_err(|e| {
        Error::data(
            path.display().to_string(),
            format!("not valid UTF-8 at byte {}", e.utf8_error().valid_up_to()),
        )
    })
}
