//! Reads program/1 from one or several files with the place of each record, and holds languages to the table.

use std::path::{Path, PathBuf};

use cognate_languages::Languages;
use cognate_records::{Error, Format, Lines, Problem, Program, Reader, Result, detect_format};

use crate::intake::{Found, Intake};

enum Source {
    Jsonl(Lines),
    Parquet { reader: Box<Reader<Program>>, name: String, row: u64 },
}

impl Source {
    fn open(path: &Path) -> Result<Self> {
        if path.as_os_str() == "-" || detect_format(path)? == Format::Jsonl {
            return Ok(Self::Jsonl(Lines::open(path)?));
        }
        Ok(Self::Parquet { reader: Box::new(Reader::open(path)?), name: path.display().to_string(), row: 0 })
    }

    fn next(&mut self) -> Option<Result<(String, Program)>> {
        match self {
            Self::Jsonl(lines) => Some(lines.next()?.and_then(|line| Ok((line.place(), line.decode()?)))),
            Self::Parquet { reader, name, row } => {
                *row += 1;
                Some(reader.next()?.map(|program| (format!("{name}: row {row}"), program)))
            }
        }
    }
}

/// Iterates over the programs of all files, in order. After a data error it can go on.
pub struct Programs<'l> {
    paths: std::vec::IntoIter<PathBuf>,
    source: Option<Source>,
    table: &'l Languages,
}

impl<'l> Programs<'l> {
    pub fn new(paths: Vec<PathBuf>, table: &'l Languages) -> Self {
        Self { paths: paths.into_iter(), source: None, table }
    }

    fn known(&self, place: String, program: Program) -> Result<(String, Program)> {
        if self.table.get(&program.language).is_some() {
            return Ok((place, program));
        }
        let hint = match self.table.by_spelling(&program.language) {
            Some(l) => format!("; its canonical name is {:?}", l.name),
            None => String::new(),
        };
        Err(Error::data(place, format!("unknown language {:?}{hint}", program.language)))
    }
}

impl Iterator for Programs<'_> {
    type Item = Result<(String, Program)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(source) = &mut self.source {
                match source.next() {
                    Some(Ok((place, program))) => return Some(self.known(place, program)),
                    Some(Err(e)) => return Some(Err(e)),
                    None => self.source = None,
                }
            }
            match Source::open(&self.paths.next()?) {
                Ok(source) => self.source = Some(source),
                Err(e) => return Some(Err(e)),
            }
        }
    }
}

/// The record type that a file names: in its first line, or in its Parquet footer.
///
/// # Errors
/// When the file cannot be read, or its beginning is damaged.
pub fn record_schema(path: &Path) -> Result<Option<String>> {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    if path.as_os_str() == "-" || cognate_records::is_stream(path) {
        return Ok(None);
    }
    if detect_format(path)? == Format::Jsonl {
        return match Lines::open(path)?.next() {
            Some(line) => Ok(line?.schema().map(str::to_owned)),
            None => Err(Error::data(path.display().to_string(), "the corpus is empty: no line in the file")),
        };
    }
    let file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
    let reader = SerializedFileReader::new(file).map_err(|e| {
        Error::data(path.display().to_string(), format!("truncated or damaged Parquet file: {e}"))
    })?;
    let pairs = reader.metadata().file_metadata().key_value_metadata();
    Ok(pairs.and_then(|p| p.iter().find(|p| p.key == "cognate.schema")?.value.clone()))
}

/// Passes the suite's own problems or programs through the intake: the same normalisation, refusals and counts as for
/// any other corpus.
///
/// # Errors
/// When the file cannot be read, holds other records, or a record is bad and `skip` says so.
pub fn import(
    path: &Path,
    schema: &str,
    intake: &mut Intake,
    mut skip: impl FnMut(anyhow::Error) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let place = path.display().to_string();
    let mut taken = |outcome: anyhow::Result<()>| outcome.or_else(&mut skip);
    match schema.split('/').next() {
        Some("problem") => {
            for problem in Reader::<Problem>::open(path)? {
                taken(problem.map_err(Into::into).and_then(|p| intake.problem(&p, &place)))?;
            }
        }
        Some("program") => {
            for program in Reader::<Program>::open(path)? {
                taken(program.map_err(Into::into).and_then(|p| intake.program(found(p))))?;
            }
        }
        _ => {
            return Err(Error::data(
                place,
                format!("expected problem/1 or program/1 records, found {schema:?}"),
            )
            .into());
        }
    }
    Ok(())
}

fn found(program: Program) -> Found {
    Found {
        id: Some(program.id),
        problem: program.problem,
        language: program.language,
        source: Some(program.source),
        claim: program.claim,
        claim_spelling: None,
        split: program.split,
        origin: program.origin,
        extra: program.extra,
    }
}
