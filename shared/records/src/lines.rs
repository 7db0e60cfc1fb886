//! JSONL whose lines may be of several types, as the RL pipe carries them.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::Path;

use cognate_output::AtomicFile;
use serde::{Deserialize, Serialize};

use crate::{Error, Provenance, Record, Result};

/// Longest accepted line, in bytes: a bound on memory whatever the input.
pub const MAX_LINE: usize = 1 << 28;

/// One line of JSONL, not yet decoded.
#[derive(Debug, Clone)]
pub struct Line {
    text: String,
    schema: Option<String>,
    file: std::sync::Arc<str>,
    number: u64,
    terminated: bool,
}

#[derive(Deserialize)]
struct SchemaOnly<'a> {
    #[serde(default, borrow)]
    schema: Option<Cow<'a, str>>,
}

impl Line {
    /// The field `schema`, if there is one.
    pub fn schema(&self) -> Option<&str> {
        self.schema.as_deref()
    }

    /// The line without its newline.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// From 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// `file:line`.
    pub fn place(&self) -> String {
        format!("{}:{}", self.file, self.number)
    }

    pub fn error(&self, reason: impl Into<String>) -> Error {
        Error::data(self.place(), reason)
    }

    /// The record of this line. A line without `schema` is taken to be of the type asked for.
    ///
    /// # Errors
    /// A data error with `file:line` when the schema is another one, a field is missing or of the wrong type, or
    /// [`Record::validate`] refuses it.
    pub fn decode<T: Record>(&self) -> Result<T> {
        self.require_schema(T::SCHEMA)?;
        let mut record: T = serde_json::from_str(&self.text).map_err(|e| self.json_error(&e))?;
        record.extra_mut().shift_remove("schema");
        record.validate().map_err(|reason| self.error(reason))?;
        Ok(record)
    }

    fn require_schema(&self, wanted: &str) -> Result<()> {
        match self.schema() {
            None => Ok(()),
            Some(found) => check_schema(found, wanted).map_err(|reason| self.error(reason)),
        }
    }

    fn json_error(&self, e: &serde_json::Error) -> Error {
        self.error(describe_json(e, self.terminated))
    }
}

/// Compares `name/version` strings.
pub(crate) fn check_schema(found: &str, wanted: &str) -> std::result::Result<(), String> {
    if found == wanted {
        return Ok(());
    }
    let same_type = found.split('/').next() == wanted.split('/').next();
    Err(if same_type {
        format!("schema {found:?} is not supported; this build reads {wanted:?}")
    } else {
        format!("expected a {wanted:?} record, found {found:?}")
    })
}

pub(crate) fn describe_json(e: &serde_json::Error, terminated: bool) -> String {
    let text = e.to_string();
    let reason = match text.rfind(" at line ") {
        Some(at) => text[..at].to_string(),
        None => text,
    };
    if !terminated && (e.is_eof() || e.is_syntax()) {
        format!("truncated record, the file ends inside it ({reason}, column {})", e.column())
    } else if e.is_data() {
        reason
    } else {
        format!("not valid JSON: {reason}, column {}", e.column())
    }
}

/// What a stream is that begins so, where it is known and no JSONL.
fn foreign(start: &[u8]) -> Option<&'static str> {
    match start {
        [b'P', b'A', b'R', b'1', ..] => Some("this is Parquet, which is read from a file; a stream is JSONL"),
        [0x1f, 0x8b, ..] => Some("compressed with gzip; unpack it first, as in zcat FILE | TOOL -"),
        [0xef, 0xbb, 0xbf, ..] => Some("begins with a byte order mark, which JSON must not"),
        _ => None,
    }
}

/// Iterates over the lines of a JSONL stream; blank lines are skipped. After a data error iteration can go on.
pub struct Lines {
    input: Box<dyn BufRead + Send>,
    file: std::sync::Arc<str>,
    number: u64,
    ended: bool,
}

impl Lines {
    /// `-` is stdin.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        if path.as_os_str() == "-" {
            return Ok(Self::new("stdin", io::stdin()));
        }
        let file = File::open(path).map_err(|e| Error::io(path, e))?;
        Ok(Self::new(&path.display().to_string(), file))
    }

    /// `name` stands in messages.
    pub fn new(name: &str, input: impl Read + Send + 'static) -> Self {
        let input = Box::new(BufReader::with_capacity(1 << 16, input));
        Self { input, file: name.into(), number: 0, ended: false }
    }

    fn next_line(&mut self) -> Option<Result<Line>> {
        loop {
            let mut bytes = Vec::new();
            let read = (&mut self.input).take(MAX_LINE as u64 + 1).read_until(b'\n', &mut bytes);
            match read {
                Err(e) => {
                    self.ended = true;
                    return Some(Err(Error::io(Path::new(&*self.file), e)));
                }
                Ok(0) => {
                    self.ended = true;
                    return None;
                }
                Ok(_) => self.number += 1,
            }
            let place = || format!("{}:{}", self.file, self.number);
            let terminated = bytes.last() == Some(&b'\n');
            if bytes.len() > MAX_LINE {
                self.ended = true;
                return Some(Err(Error::data(place(), format!("line longer than {MAX_LINE} bytes"))));
            }
            if bytes.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            if let (1, Some(reason)) = (self.number, foreign(&bytes)) {
                self.ended = true;
                return Some(Err(Error::data(format!("{}:1", self.file), reason)));
            }
            if terminated {
                bytes.pop();
            }
            let text = match String::from_utf8(bytes) {
                Ok(text) => text,
                Err(e) => {
                    let at = e.utf8_error().valid_up_to();
                    return Some(Err(Error::data(place(), format!("not valid UTF-8 at byte {at}"))));
                }
            };
            // Serde would take a list for a struct.
            if !text.trim_start().starts_with('{') {
                let reason = match serde_json::from_str::<serde::de::IgnoredAny>(&text) {
                    Ok(_) => "not a JSON object".to_owned(),
                    Err(e) => describe_json(&e, terminated),
                };
                return Some(Err(Error::data(place(), reason)));
            }
            let schema = match serde_json::from_str::<SchemaOnly>(&text) {
                Ok(s) => s.schema.map(Cow::into_owned),
                Err(e) => return Some(Err(Error::data(place(), describe_json(&e, terminated)))),
            };
            return Some(Ok(Line { text, schema, file: self.file.clone(), number: self.number, terminated }));
        }
    }
}

impl Iterator for Lines {
    type Item = Result<Line>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended { None } else { self.next_line() }
    }
}

#[derive(Serialize)]
struct Tagged<'a, T> {
    schema: &'static str,
    #[serde(flatten)]
    record: &'a T,
}

/// The JSON text of a record with its `schema`, without newline.
pub(crate) fn to_json<T: Record>(record: &T) -> String {
    serde_json::to_string(&Tagged { schema: T::SCHEMA, record }).expect("records hold only JSON types")
}

enum Sink {
    Stdout(BufWriter<io::Stdout>),
    File(BufWriter<AtomicFile>),
}

/// Writes JSONL lines of any type. To a file, whole or not at all; to stdout, flushed when asked.
pub struct LineWriter {
    sink: Sink,
    path: std::path::PathBuf,
}

impl LineWriter {
    /// `-` is stdout.
    ///
    /// # Errors
    /// When the output cannot be created.
    pub fn create(path: &Path) -> Result<Self> {
        let sink = if path.as_os_str() == "-" {
            Sink::Stdout(BufWriter::with_capacity(1 << 16, io::stdout()))
        } else {
            Sink::File(BufWriter::with_capacity(
                1 << 16,
                AtomicFile::create(path).map_err(|e| Error::io(path, e))?,
            ))
        };
        let path = if path.as_os_str() == "-" { "stdout".into() } else { path.to_path_buf() };
        Ok(Self { sink, path })
    }

    pub fn stdout() -> Self {
        Self { sink: Sink::Stdout(BufWriter::with_capacity(1 << 16, io::stdout())), path: "stdout".into() }
    }

    /// # Errors
    /// When the output cannot be written.
    pub fn write_record<T: Record>(&mut self, record: &T) -> Result<()> {
        self.write_raw(&to_json(record))
    }

    /// Writes one line; `text` must be JSON without newline.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn write_raw(&mut self, text: &str) -> Result<()> {
        let out: &mut dyn Write = match &mut self.sink {
            Sink::Stdout(w) => w,
            Sink::File(w) => w,
        };
        out.write_all(text.as_bytes())
            .and_then(|()| out.write_all(b"\n"))
            .map_err(|e| Error::io(&self.path, e))
    }

    /// # Errors
    /// When the output cannot be written.
    pub fn flush(&mut self) -> Result<()> {
        let flushed = match &mut self.sink {
            Sink::Stdout(w) => w.flush(),
            Sink::File(w) => w.flush(),
        };
        flushed.map_err(|e| Error::io(&self.path, e))
    }

    /// Flushes and, for a file, puts it into place. The history beside an older file of that name goes first: a kill in
    /// between then leaves a file without a history, never one with another file's.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn finish(mut self) -> Result<()> {
        self.flush()?;
        match self.sink {
            Sink::Stdout(_) => Ok(()),
            Sink::File(w) => {
                Provenance::remove_beside(&self.path)?;
                w.into_inner()
                    .map_err(io::IntoInnerError::into_error)
                    .and_then(AtomicFile::commit)
                    .map_err(|e| Error::io(&self.path, e))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first_error(bytes: &[u8]) -> String {
        let found = Lines::new("x", io::Cursor::new(bytes.to_vec())).find_map(Result::err);
        found.map_or_else(String::new, |e| e.to_string())
    }

    #[test]
    fn what_is_no_jsonl_is_called_by_its_name() {
        assert_eq!(first_error(b"{}\n5\n"), "x:2: not a JSON object");
        assert_eq!(first_error(b"[\"program/1\"]\n"), "x:1: not a JSON object");
        assert_eq!(first_error(b"[1\n"), "x:1: not valid JSON: EOF while parsing a list, column 2");
        for (start, says) in [
            (&b"\x1f\x8b\x08\0"[..], "gzip"),
            (b"\xef\xbb\xbf{}\n", "byte order mark"),
            (b"PAR1\x15\x04", "Parquet"),
        ] {
            let error = first_error(start);
            assert!(error.starts_with("x:1: ") && error.contains(says), "{error}");
        }
        assert_eq!(first_error(b" {} \r\n{\"schema\":null}\n"), "");
    }
}
