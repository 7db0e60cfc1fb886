//! Writes records of one type as JSONL or Parquet; a file appears whole or not at all.

use std::io;
use std::path::{Path, PathBuf};

use arrow::datatypes::SchemaRef;
use arrow::json::ReaderBuilder;
use cognate_output::AtomicFile;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use serde_json::Value;

use crate::arrow_columns::schema_of;
use crate::reader::{Format, PROVENANCE_KEY, SCHEMA_KEY};
use crate::{Error, LineWriter, Provenance, Record, Result};

/// Rows gathered before they become an Arrow batch.
const BATCH: usize = 256;
/// Bytes of text gathered before they do, however few the rows: a record may hold megabytes, a batch not 2 GiB.
const BATCH_BYTES: usize = 16 << 20;
/// A row group is closed at this many encoded bytes, a bound on memory.
const ROW_GROUP_BYTES: usize = 32 << 20;

#[derive(Debug, Clone, Default)]
pub struct WriterOptions {
    /// By the extension when absent: `.parquet` is Parquet, all else JSONL.
    pub format: Option<Format>,
    pub provenance: Option<Provenance>,
}

enum Sink {
    Jsonl(LineWriter),
    Parquet { writer: Box<ArrowWriter<AtomicFile>>, schema: SchemaRef, rows: Vec<Value>, gathered: usize },
}

/// Dropped without [`Writer::finish`], it leaves no file.
pub struct Writer<T> {
    sink: Sink,
    path: PathBuf,
    provenance: Option<Provenance>,
    count: u64,
    marker: std::marker::PhantomData<fn(T)>,
}

fn parquet_error(path: &Path, e: ParquetError) -> Error {
    match e {
        ParquetError::External(inner) => match inner.downcast::<io::Error>() {
            Ok(e) => Error::io(path, *e),
            Err(e) => Error::io(path, io::Error::other(e.to_string())),
        },
        e => Error::io(path, io::Error::other(e.to_string())),
    }
}

impl<T: Record> Writer<T> {
    /// `-` is stdout, JSONL.
    ///
    /// # Errors
    /// When the output cannot be created, or Parquet is asked for on stdout.
    pub fn create(path: &Path, options: WriterOptions) -> Result<Self> {
        let to_stdout = path.as_os_str() == "-";
        let by_extension =
            if path.extension().is_some_and(|e| e == "parquet") { Format::Parquet } else { Format::Jsonl };
        let format = options.format.unwrap_or(by_extension);
        let sink = match format {
            Format::Jsonl => Sink::Jsonl(LineWriter::create(path)?),
            Format::Parquet if to_stdout => {
                return Err(Error::data("stdout", "Parquet needs a file; name one with -o"));
            }
            Format::Parquet => {
                let schema = schema_of::<T>();
                let mut pairs = vec![KeyValue::new(SCHEMA_KEY.into(), T::SCHEMA.to_string())];
                if let Some(p) = &options.provenance {
                    pairs.push(KeyValue::new(PROVENANCE_KEY.into(), p.to_text()));
                }
                let properties = WriterProperties::builder()
                    .set_compression(Compression::ZSTD(ZstdLevel::default()))
                    .set_created_by(concat!("cognate ", env!("CARGO_PKG_VERSION")).to_string())
                    .set_key_value_metadata(Some(pairs))
                    .build();
                let file = AtomicFile::create(path).map_err(|e| Error::io(path, e))?;
                let writer = ArrowWriter::try_new(file, schema.clone(), Some(properties))
                    .map_err(|e| parquet_error(path, e))?;
                Sink::Parquet {
                    writer: Box::new(writer),
                    schema,
                    rows: Vec::with_capacity(BATCH),
                    gathered: 0,
                }
            }
        };
        Ok(Self {
            sink,
            path: path.to_path_buf(),
            provenance: options.provenance,
            count: 0,
            marker: std::marker::PhantomData,
        })
    }

    /// Records written so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// # Errors
    /// When the output cannot be written, or the record is not valid (a fault of the tool, caught before it reaches
    /// the next one).
    pub fn write(&mut self, record: &T) -> Result<()> {
        self.count += 1;
        record.validate().map_err(|reason| {
            Error::data(format!("{}: record {}", self.path.display(), record.key()), reason)
        })?;
        match &mut self.sink {
            Sink::Jsonl(out) => out.write_record(record),
            Sink::Parquet { rows, gathered, .. } => {
                let row = row_of(record);
                *gathered += size_of_value(&row);
                rows.push(row);
                if rows.len() >= BATCH || *gathered >= BATCH_BYTES { self.flush_rows() } else { Ok(()) }
            }
        }
    }

    /// Flushes JSONL to its reader; Parquet is flushed by `finish` alone.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn flush(&mut self) -> Result<()> {
        match &mut self.sink {
            Sink::Jsonl(out) => out.flush(),
            Sink::Parquet { .. } => Ok(()),
        }
    }

    fn flush_rows(&mut self) -> Result<()> {
        let Sink::Parquet { writer, schema, rows, gathered } = &mut self.sink else { return Ok(()) };
        if rows.is_empty() {
            return Ok(());
        }
        let fault = |e: arrow::error::ArrowError| Error::io(&self.path, io::Error::other(e.to_string()));
        let mut decoder =
            ReaderBuilder::new(schema.clone()).with_batch_size(rows.len()).build_decoder().map_err(fault)?;
        decoder.serialize(rows).map_err(fault)?;
        rows.clear();
        *gathered = 0;
        if let Some(batch) = decoder.flush().map_err(fault)? {
            writer.write(&batch).map_err(|e| parquet_error(&self.path, e))?;
        }
        if writer.in_progress_size() >= ROW_GROUP_BYTES {
            writer.flush().map_err(|e| parquet_error(&self.path, e))?;
        }
        Ok(())
    }

    /// Writes what is pending and puts the file into place, with its provenance.
    ///
    /// # Errors
    /// When the output cannot be written; then nothing stands under the final name.
    pub fn finish(mut self) -> Result<()> {
        self.flush_rows()?;
        match self.sink {
            Sink::Jsonl(out) => {
                out.finish()?;
                if let Some(p) = self.provenance.filter(|_| self.path.as_os_str() != "-") {
                    p.write_beside(&self.path)?;
                }
                Ok(())
            }
            Sink::Parquet { writer, .. } => {
                let file = writer.into_inner().map_err(|e| parquet_error(&self.path, e))?;
                file.commit().map_err(|e| Error::io(&self.path, e))
            }
        }
    }
}

/// About how many bytes it takes in a batch.
fn size_of_value(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(size_of_value).sum(),
        Value::Object(fields) => fields.values().map(size_of_value).sum(),
        _ => 8,
    }
}

/// The record as a JSON object whose unknown fields are gathered in the text column `extra`.
fn row_of<T: Record>(record: &T) -> Value {
    let mut known = record.clone();
    let unknown = std::mem::take(known.extra_mut());
    let mut value = serde_json::to_value(&known).expect("records hold only JSON types");
    if let (Value::Object(fields), false) = (&mut value, unknown.is_empty()) {
        fields.insert("extra".into(), Value::String(Value::Object(unknown).to_string()));
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Program, Reader};
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    /// 2 MiB of text that hardly shrinks (xorshift, 6 bits a letter).
    fn noise(mut x: u32) -> String {
        let letter = |_| {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            char::from(b'0' + (x >> 8) as u8 % 64)
        };
        (0..2 << 20).map(letter).collect()
    }

    #[test]
    fn wide_records_are_written_and_read_few_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("wide.parquet");
        let mut writer = Writer::<Program>::create(&path, WriterOptions::default()).unwrap();
        let program = |i: u8| Program {
            id: i.to_string(),
            problem: "p".into(),
            language: "c".into(),
            source: noise(u32::from(i) + 1),
            ..Program::default()
        };
        for i in 0..40 {
            writer.write(&program(i)).unwrap();
        }
        writer.finish().unwrap();
        let file = std::fs::File::open(&path).unwrap();
        let metadata = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().metadata().clone();
        // 80 MB in batches of 16, each 12 when compressed: a row group is closed after the third.
        assert_eq!(metadata.num_row_groups(), 2);
        assert!(
            (1..=16).contains(&crate::batch_rows(&metadata, BATCH)),
            "{}",
            crate::batch_rows(&metadata, BATCH)
        );
        let read: Vec<Program> = Reader::open(&path).unwrap().map(Result::unwrap).collect();
        assert!(read.iter().zip(0..).all(|(p, i)| *p == program(i)) && read.len() == 40);
    }
}
