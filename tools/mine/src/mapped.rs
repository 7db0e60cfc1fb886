//! Applies a field map to rows: problems and programs out of somebody else's JSONL or Parquet.

use std::path::Path;

use cognate_records::{Error, Limits, Origin, Problem, Test, TestKind};

use crate::intake::{Found, Intake};
use crate::map::{FieldMap, ProblemMap, ProgramMap, TestMap};
use crate::rows::{Row, Rows};
use crate::value::{Field, Scope};

/// Reads one file; `skip` decides whether a bad row ends the run.
///
/// # Errors
/// When the file cannot be read, a row does not fit the map and `skip` says so, or the output cannot be written.
pub fn import(
    path: &Path,
    map: &FieldMap,
    intake: &mut Intake,
    mut skip: impl FnMut(anyhow::Error) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    for row in Rows::open(path)? {
        let taken = match row {
            Ok(row) => take_row(&row, map, intake),
            Err(e) => Err(e.into()),
        };
        if let Err(e) = taken {
            skip(e)?;
        }
    }
    Ok(())
}

fn take_row(row: &Row, map: &FieldMap, intake: &mut Intake) -> anyhow::Result<()> {
    let data = |reason: String| Error::data(&row.place, reason);
    let scope = Scope::of_row(&row.value, row.number);
    let mut own_problem = None;
    if let Some(problem_map) = &map.problem {
        let problem = problem_of(&scope, problem_map, map, intake).map_err(data)?;
        intake.problem(&problem, &row.place)?;
        own_problem = Some(problem);
    }
    for program_map in &map.programs {
        for element in
            elements(&scope, program_map.each.as_deref(), program_map.zip.as_deref()).map_err(data)?
        {
            let found =
                program_of(&element, program_map, map, own_problem.as_ref(), intake).map_err(|reason| {
                    data(match &element.key {
                        Some(key) => format!("program {key}: {reason}"),
                        None => reason,
                    })
                })?;
            intake.program(found)?;
        }
    }
    Ok(())
}

fn elements<'a>(scope: &Scope<'a>, each: Option<&str>, zip: Option<&str>) -> Result<Vec<Scope<'a>>, String> {
    match (each, zip) {
        (Some(path), _) => scope.each(path),
        (None, Some(path)) => scope.zip(path),
        (None, None) => Ok(vec![scope.clone()]),
    }
}

/// The canonical name, the map's own spellings first.
fn canonical(spelling: &str, map: &FieldMap, intake: &mut Intake) -> Option<String> {
    let spelling = map.languages.get(spelling).map_or(spelling, String::as_str);
    intake.language(spelling)
}

fn problem_of(
    scope: &Scope,
    fields: &ProblemMap,
    map: &FieldMap,
    intake: &mut Intake,
) -> Result<Problem, String> {
    let mut tests = Vec::new();
    for list in &fields.tests {
        for element in elements(scope, list.each.as_deref(), list.zip.as_deref())? {
            let at = |reason| format!("test {}: {reason}", element.key.as_deref().unwrap_or("0"));
            tests.extend(test_of(&element, list, map, intake).map_err(at)?);
        }
    }
    // The record promises tests ordered by size; equal sizes keep the order of the corpus.
    tests.sort_by_key(|t| t.size);
    let cpu = scope.number(fields.cpu_seconds.as_ref())?.map(|s| (s * 1000.0).round() as u64);
    let megabytes = scope.number(fields.memory_mb.as_ref())?.map(|m| m.round() as u64);
    let bytes = scope.number(fields.memory_bytes.as_ref())?.map(|b| (b / 1_048_576.0).ceil() as u64);
    let limits = Limits { cpu_ms: cpu, memory_mb: megabytes.or(bytes), ..Limits::default() };
    let tags = match &fields.tags {
        Some(path) => scope
            .each(path)?
            .iter()
            .filter_map(|t| t.text(&".".into()).transpose())
            .collect::<Result<_, _>>()?,
        None => Vec::new(),
    };
    Ok(Problem {
        id: scope.required(&fields.id)?,
        statement: scope.optional(fields.statement.as_ref())?.unwrap_or_default(),
        title: scope.optional(fields.title.as_ref())?,
        split: scope.optional(fields.split.as_ref())?,
        limits: (limits != Limits::default()).then_some(limits),
        checker: fields.checker.clone(),
        tests,
        groups: Vec::new(),
        tags,
        origin: origin(map, scope, [fields.licence.as_ref(), fields.url.as_ref(), None])?,
        extra: scope.keep(&fields.keep).into_iter().collect(),
    })
}

fn test_of(
    scope: &Scope,
    fields: &TestMap,
    map: &FieldMap,
    intake: &mut Intake,
) -> Result<Option<Test>, String> {
    let mut test = Test {
        id: scope.optional(fields.id.as_ref())?,
        group: scope.optional(fields.group.as_ref())?,
        visibility: fields.visibility,
        ..Test::default()
    };
    if let Some(spelling) = scope.optional(fields.language.as_ref())? {
        // A test for a language that is not in the table can judge nothing.
        match canonical(&spelling, map, intake) {
            Some(name) => test.language = Some(name),
            None => return Ok(None),
        }
    }
    let special = test.language.as_ref().and_then(|l| fields.by_language.get(l)).map(|c| &c.code);
    if let Some(code) = special.or(fields.code.as_ref()) {
        test.kind = TestKind::Assert;
        test.code = Some(scope.required(code)?);
    } else {
        let input = scope.optional(fields.input.as_ref())?.unwrap_or_default();
        test.size = Some(input.len() as u64);
        test.input = Some(input);
        let output = fields.output.as_ref().ok_or("the map gives tests neither output nor code")?;
        test.output = Some(scope.required(output)?);
    }
    Ok(Some(test))
}

fn program_of(
    scope: &Scope,
    fields: &ProgramMap,
    map: &FieldMap,
    own_problem: Option<&Problem>,
    intake: &mut Intake,
) -> Result<Found, String> {
    let spelling = scope.required(&fields.language)?;
    let spelling = map.languages.get(&spelling).cloned().unwrap_or(spelling);
    let special = intake.language(&spelling).and_then(|l| fields.by_language.get(&l)).map(|s| &s.source);
    let problem = match (&fields.problem, own_problem) {
        (Some(field), _) => scope.required(field)?,
        (None, Some(problem)) => problem.id.clone(),
        (None, None) => return Err("no problem is mapped".to_owned()),
    };
    let claim_spelling = scope.optional(fields.claim.as_ref())?;
    let split = match &fields.split {
        Some(field) => scope.text(field)?,
        None => own_problem.and_then(|p| p.split.clone()),
    };
    Ok(Found {
        id: scope.optional(fields.id.as_ref())?,
        problem,
        language: spelling,
        source: scope.text(special.unwrap_or(&fields.source))?,
        claim: claim_spelling.as_deref().map(|s| map.claims.translate(s)),
        claim_spelling,
        split,
        origin: origin(map, scope, [fields.licence.as_ref(), fields.url.as_ref(), fields.path.as_ref()])?,
        extra: scope.keep(&fields.keep).into_iter().collect(),
    })
}

/// Corpus and licence of the map, overridden by what the element says itself.
fn origin(map: &FieldMap, scope: &Scope, fields: [Option<&Field>; 3]) -> Result<Option<Origin>, String> {
    let [licence, url, path] = fields;
    let origin = Origin {
        corpus: map.corpus.clone(),
        licence: scope.optional(licence)?.or_else(|| map.licence.clone()),
        url: scope.optional(url)?,
        path: scope.optional(path)?,
    };
    Ok((origin != Origin::default()).then_some(origin))
}
