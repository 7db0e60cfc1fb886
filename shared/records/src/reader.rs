//! Reads records of one type from JSONL or Parquet; the format is recognised from the bytes.

use std::fs::File;
use std::io::{self, Seek};
use std::panic::AssertUnwindSafe;
use std::path::Path;

use arrow::array::RecordBatch;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};

use crate::lines::{Lines, check_schema, describe_json};
use crate::{Error, Provenance, Record, Result};

pub(crate) const SCHEMA_KEY: &str = "cognate.schema";
pub(crate) const PROVENANCE_KEY: &str = "cognate.provenance";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Jsonl,
    Parquet,
}

/// Whether the path is a pipe or a device (`<(command)`, `/dev/stdin`), which can be opened and read only once.
pub fn is_stream(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|m| !m.is_file() && !m.is_dir())
}

/// The format of a file by its first bytes; of a stream nothing is read, it carries JSONL.
///
/// # Errors
/// When the file cannot be read.
pub fn detect_format(path: &Path) -> Result<Format> {
    if is_stream(path) {
        return Ok(Format::Jsonl);
    }
    let mut magic = [0; 4];
    let mut file = File::open(path).map_err(|e| Error::io(path, e))?;
    match io::Read::read_exact(&mut file, &mut magic) {
        Ok(()) if &magic == b"PAR1" => Ok(Format::Parquet),
        Ok(()) => Ok(Format::Jsonl),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(Format::Jsonl),
        Err(e) => Err(Error::io(path, e)),
    }
}

enum Source {
    Jsonl(Lines),
    Parquet { batches: Box<ParquetRecordBatchReader>, rows: std::vec::IntoIter<String>, row: u64 },
}

/// Iterates over the records of a file or of stdin (`-`, JSONL only). After a data error in JSONL iteration can go
/// on with the next line.
pub struct Reader<T> {
    source: Source,
    name: String,
    provenance: Option<Provenance>,
    ended: bool,
    marker: std::marker::PhantomData<fn() -> T>,
}

impl<T: Record> Reader<T> {
    /// # Errors
    /// When the file cannot be opened, is a damaged Parquet file, or a Parquet file of another schema.
    pub fn open(path: &Path) -> Result<Self> {
        if path.as_os_str() == "-" {
            return Ok(Self::new(Source::Jsonl(Lines::open(path)?), "stdin".into(), None));
        }
        let name = path.display().to_string();
        if detect_format(path)? == Format::Parquet {
            return Self::from_parquet(path, name);
        }
        let provenance = Provenance::beside(path)?;
        Ok(Self::new(Source::Jsonl(Lines::open(path)?), name, provenance))
    }

    fn new(source: Source, name: String, provenance: Option<Provenance>) -> Self {
        Self { source, name, provenance, ended: false, marker: std::marker::PhantomData }
    }

    fn from_parquet(path: &Path, name: String) -> Result<Self> {
        let mut file = File::open(path).map_err(|e| Error::io(path, e))?;
        let length = file.seek(io::SeekFrom::End(0)).map_err(|e| Error::io(path, e))?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| {
            Error::data(&name, format!("truncated or damaged Parquet file of {length} bytes: {e}"))
        })?;
        let find = |key: &str| {
            let pairs = builder.metadata().file_metadata().key_value_metadata()?;
            pairs.iter().find(|p| p.key == key)?.value.clone()
        };
        if let Some(found) = find(SCHEMA_KEY) {
            check_schema(&found, T::SCHEMA).map_err(|reason| Error::data(&name, reason))?;
        }
        let provenance = match find(PROVENANCE_KEY) {
            Some(text) => Some(Provenance::parse(&text).map_err(|e| Error::data(&name, e))?),
            None => None,
        };
        let batch = batch_rows(builder.metadata(), 256);
        let built = unless_it_panics(|| builder.with_batch_size(batch).build().map_err(|e| e.to_string()));
        let batches = built.and_then(|b| b).map_err(|e| Error::data(&name, e))?;
        let source = Source::Parquet { batches: Box::new(batches), rows: Vec::new().into_iter(), row: 0 };
        Ok(Self::new(source, name, provenance))
    }

    /// The file's history, where it carries one.
    pub fn provenance(&self) -> Option<&Provenance> {
        self.provenance.as_ref()
    }
}

/// Rows to decode at a time, at most `most`: few where they are wide, so that a batch stays near 16 MiB.
pub fn batch_rows(metadata: &ParquetMetaData, most: usize) -> usize {
    const BYTES: i64 = 16 << 20;
    let wide = |group: &RowGroupMetaData| group.total_byte_size() / group.num_rows().max(1);
    let widest = metadata.row_groups().iter().map(wide).max().unwrap_or(0).max(1);
    usize::try_from(BYTES / widest).unwrap_or(1).clamp(1, most)
}

/// The Parquet decoder trusts some numbers of a footer, and panics where they are damaged.
fn unless_it_panics<R>(decode: impl FnOnce() -> R) -> std::result::Result<R, String> {
    std::panic::catch_unwind(AssertUnwindSafe(decode)).map_err(|_| "damaged Parquet file".to_owned())
}

/// One JSON object a row.
fn rows_of(batch: &RecordBatch) -> std::result::Result<Vec<String>, String> {
    let mut writer = arrow::json::LineDelimitedWriter::new(Vec::new());
    writer.write(batch).and_then(|()| writer.finish()).map_err(|e| e.to_string())?;
    let text = String::from_utf8(writer.into_inner()).map_err(|e| e.to_string())?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// Puts the fields of the JSON column `extra` back beside the others.
fn decode_row<T: Record>(text: &str) -> std::result::Result<T, String> {
    let mut record: T = serde_json::from_str(text).map_err(|e| describe_json(&e, true))?;
    record.extra_mut().shift_remove("schema");
    if let Some(packed) = record.extra_mut().shift_remove("extra") {
        let text = packed.as_str().ok_or("column extra does not hold text")?;
        let fields: crate::Extra =
            serde_json::from_str(text).map_err(|e| format!("column extra: {}", describe_json(&e, true)))?;
        record.extra_mut().extend(fields);
    }
    record.validate()?;
    Ok(record)
}

impl<T: Record> Iterator for Reader<T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        match &mut self.source {
            Source::Jsonl(lines) => match lines.next()? {
                Ok(line) => Some(line.decode()),
                Err(e) => Some(Err(e)),
            },
            Source::Parquet { batches, rows, row } => loop {
                if let Some(text) = rows.next() {
                    *row += 1;
                    return Some(
                        decode_row(&text).map_err(|e| Error::data(format!("{}: row {row}", self.name), e)),
                    );
                }
                let batch = match unless_it_panics(|| batches.next()).transpose()? {
                    Ok(Ok(batch)) => rows_of(&batch),
                    Ok(Err(e)) => Err(e.to_string()),
                    Err(e) => Err(e),
                };
                match batch {
                    Ok(texts) => *rows = texts.into_iter(),
                    Err(e) => {
                        self.ended = true;
                        return Some(Err(Error::data(format!("{}: after row {row}", self.name), e)));
                    }
                }
            },
        }
    }
}
