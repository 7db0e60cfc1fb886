//! Checks a record file line by line, or row by row.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use cognate_languages::Languages;
use cognate_records::{
    Conversation, Embedding, Error, Format, Group, Line, Lines, Metric, Packed, Problem, Program, Prompt,
    Reader, Rollout, StepEnd, VerdictRecord, detect_format,
};
use xxhash_rust::xxh3::xxh3_128;

use crate::facts::Examined;
use crate::report::{Report, count};

/// Calls a generic function for the record type of a schema's name; `None` for a name that is no type of the suite.
macro_rules! dispatch {
    ($schema:expr, $call:ident($($argument:expr),*)) => {
        match $schema.split('/').next().unwrap_or_default() {
            "problem" => Some($call::<Problem>($($argument),*)),
            "program" => Some($call::<Program>($($argument),*)),
            "group" => Some($call::<Group>($($argument),*)),
            "conversation" => Some($call::<Conversation>($($argument),*)),
            "packed" => Some($call::<Packed>($($argument),*)),
            "prompt" => Some($call::<Prompt>($($argument),*)),
            "rollout" => Some($call::<Rollout>($($argument),*)),
            "verdict" => Some($call::<VerdictRecord>($($argument),*)),
            "embedding" => Some($call::<Embedding>($($argument),*)),
            "metric" => Some($call::<Metric>($($argument),*)),
            "step_end" => Some($call::<StepEnd>($($argument),*)),
            _ => None,
        }
    };
}

/// Every type of the suite, for messages.
const TYPES: &str =
    "problem, program, group, conversation, packed, prompt, rollout, verdict, embedding, metric, step_end";

pub struct Options {
    /// For records without a field `schema`.
    pub schema: Option<String>,
    pub max_errors: u64,
    pub provenance: bool,
    pub allow_empty: bool,
}

/// What has been seen: in one file, or in all of them where they are checked together.
#[derive(Default)]
pub struct Seen {
    identities: HashSet<u128>,
    /// Problem → split, hashed; the split's name for the message.
    splits: HashMap<u128, String>,
    splits_reported: HashSet<u128>,
}

pub struct Checker<'a> {
    pub table: &'a Languages,
    pub options: &'a Options,
    /// Hashes of the ids in `--problems`.
    pub problems: Option<HashSet<u128>>,
    pub seen: Seen,
}

pub fn hash(text: &str) -> u128 {
    xxh3_128(text.as_bytes())
}

impl Checker<'_> {
    /// # Errors
    /// When the file cannot be read at all; everything that is wrong inside it is in the report.
    pub fn file(&mut self, path: &Path) -> anyhow::Result<Report> {
        let stdin = path.as_os_str() == "-";
        let format = if stdin { Format::Jsonl } else { detect_format(path)? };
        let mut report = match format {
            Format::Jsonl => self.jsonl(path, stdin)?,
            Format::Parquet => self.parquet(path),
        };
        if report.records == 0 && report.faults == 0 && !self.options.allow_empty {
            let place = report.file.clone();
            report.fault(&format!("{place}: no record in the file"));
        }
        Ok(report)
    }

    fn jsonl(&mut self, path: &Path, stdin: bool) -> anyhow::Result<Report> {
        let name = if stdin { "stdin".to_owned() } else { path.display().to_string() };
        let mut report = Report::new(&name, "jsonl", self.options.max_errors);
        if self.options.provenance && !stdin && !cognate_records::is_stream(path) {
            self.provenance_of_jsonl(path, &mut report);
        }
        let mut unnamed = false;
        let mut last = 0;
        for line in Lines::open(path)? {
            let line = match line {
                Ok(line) => line,
                Err(e @ Error::Data { .. }) => {
                    report.fault(&e.to_string());
                    continue;
                }
                Err(e) => return Err(e.into()),
            };
            last = line.number();
            let Some(schema) = line.schema().map(str::to_owned).or_else(|| self.options.schema.clone())
            else {
                if !unnamed {
                    report.fault(&format!("{}: no field schema; name the type with --schema", line.place()));
                }
                unnamed = true;
                continue;
            };
            let checked = dispatch!(schema, line_of(self, &line, &mut report));
            if checked.is_none() {
                report.fault(&format!("{}: unknown schema {schema:?}; the types are {TYPES}", line.place()));
            }
        }
        if !stdin && report.faults == 0 && !ends_with_newline(path)? {
            report.fault(&format!("{name}:{last}: truncated: the last line has no line end"));
        }
        Ok(report)
    }

    fn provenance_of_jsonl(&self, path: &Path, report: &mut Report) {
        // Any record type serves to open the file; its sidecar is the same for all.
        match Reader::<Metric>::open(path) {
            Ok(reader) => report.provenance = history(reader.provenance()),
            Err(e) => report.fault(&e.to_string()),
        }
    }

    fn parquet(&mut self, path: &Path) -> Report {
        let name = path.display().to_string();
        let mut report = Report::new(&name, "parquet", self.options.max_errors);
        let schema = match footer_schema(path) {
            Ok(found) => found.or_else(|| self.options.schema.clone()),
            Err(e) => {
                report.fault(&e.to_string());
                return report;
            }
        };
        let Some(schema) = schema else {
            report.fault(&format!("{name}: the footer names no schema; name the type with --schema"));
            return report;
        };
        if dispatch!(schema, rows_of(self, path, &mut report)).is_none() {
            report.fault(&format!("{name}: unknown schema {schema:?}; the types are {TYPES}"));
        }
        report
    }

    /// What holds for a record whatever file it is from.
    fn record<T: Examined>(&mut self, place: &str, record: &T, report: &mut Report) {
        report.records += 1;
        count(&mut report.schemas, T::SCHEMA);
        for name in record.extra().keys() {
            count(&mut report.unknown_fields, name);
        }
        let facts = record.facts();
        for fault in &facts.faults {
            report.fault(&format!("{place}: {fault}"));
        }
        for language in &facts.languages {
            count(&mut report.languages, language);
            if self.table.get(language).is_none() {
                report.fault(&format!("{place}: unknown language {language:?}"));
            }
        }
        if let Some(status) = facts.status {
            count(&mut report.verdicts, &format!("{status:?}"));
        }
        if let Some(identity) = &facts.identity
            && !self.seen.identities.insert(hash(&format!("{} {identity}", T::SCHEMA)))
        {
            report.fault(&format!("{place}: {} is there twice", record.key()));
        }
        let Some(problem) = &facts.problem else { return };
        if self.problems.as_ref().is_some_and(|known| !known.contains(&hash(problem))) {
            report.fault(&format!("{place}: problem {problem:?} is not in the problems file"));
        }
        let Some(split) = &facts.split else { return };
        count(&mut report.splits, split);
        let key = hash(problem);
        let other = self.seen.splits.entry(key).or_insert_with(|| split.clone());
        if other != split && self.seen.splits_reported.insert(key) {
            report.fault(&format!("{place}: problem {problem:?} is in split {split:?} and in {other:?}"));
        }
    }
}

fn line_of<T: Examined>(checker: &mut Checker, line: &Line, report: &mut Report) {
    match line.decode::<T>() {
        Ok(record) => checker.record(&line.place(), &record, report),
        Err(e) => report.fault(&e.to_string()),
    }
}

fn rows_of<T: Examined>(checker: &mut Checker, path: &Path, report: &mut Report) {
    let reader = match Reader::<T>::open(path) {
        Ok(reader) => reader,
        Err(e) => return report.fault(&e.to_string()),
    };
    if checker.options.provenance {
        report.provenance = history(reader.provenance());
    }
    for (row, record) in (1..).zip(reader) {
        match record {
            Ok(record) => checker.record(&format!("{}: row {row}", path.display()), &record, report),
            Err(e) => report.fault(&e.to_string()),
        }
    }
}

fn history(provenance: Option<&cognate_records::Provenance>) -> Option<serde_json::Value> {
    provenance.and_then(|p| serde_json::from_str(&p.to_text()).ok())
}

/// The type that a Parquet file's footer names.
fn footer_schema(path: &Path) -> Result<Option<String>, Error> {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let length = file.metadata().map_err(|e| Error::io(path, e))?.len();
    let reader = SerializedFileReader::new(file).map_err(|e| {
        Error::data(
            path.display().to_string(),
            format!("truncated or damaged Parquet file of {length} bytes: {e}"),
        )
    })?;
    let pairs = reader.metadata().file_metadata().key_value_metadata();
    Ok(pairs.and_then(|p| p.iter().find(|p| p.key == "cognate.schema")?.value.clone()))
}

fn ends_with_newline(path: &Path) -> Result<bool, Error> {
    let read = || -> std::io::Result<bool> {
        let mut file = File::open(path)?;
        if !file.metadata()?.is_file() || file.seek(SeekFrom::End(0))? == 0 {
            return Ok(true);
        }
        file.seek(SeekFrom::End(-1))?;
        let mut last = [0];
        file.read_exact(&mut last)?;
        Ok(&last == b"\n")
    };
    read().map_err(|e| Error::io(path, e))
}

/// Hashes of the ids of a problems file.
///
/// # Errors
/// When the file cannot be read, or is empty.
pub fn problem_ids(path: &Path) -> Result<HashSet<u128>, Error> {
    let ids: HashSet<u128> =
        Reader::<Problem>::open(path)?.map(|p| Ok(hash(&p?.id))).collect::<Result<_, Error>>()?;
    if ids.is_empty() {
        return Err(Error::data(path.display().to_string(), "no problem in the file"));
    }
    Ok(ids)
}
