//! Rows of JSONL or Parquet files that are not records of this suite, as JSON values, a batch at a time.

use std::fs::File;
use std::path::Path;

use cognate_records::{Error, Format, Lines, Result, batch_rows, detect_format};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use serde_json::Value;

/// Most rows of a Parquet batch; fewer where they are wide, for one may hold every test of a problem.
const BATCH: usize = 64;

enum Source {
    Jsonl(Lines),
    Parquet { batches: Box<ParquetRecordBatchReader>, rows: std::vec::IntoIter<Value> },
}

/// Iterates over (place, row); the place is `file:line` or `file: row N`. After a data error in JSONL it can go on.
pub struct Rows {
    source: Source,
    name: String,
    number: u64,
    ended: bool,
}

pub struct Row {
    pub value: Value,
    /// From 1.
    pub number: u64,
    pub place: String,
}

impl Rows {
    /// # Errors
    /// When the file cannot be read or is a damaged Parquet file.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let stdin = path.as_os_str() == "-";
        let source = if stdin || detect_format(path)? == Format::Jsonl {
            Source::Jsonl(Lines::open(path)?)
        } else {
            let file = File::open(path).map_err(|e| Error::io(path, e))?;
            let builder = ParquetRecordBatchReaderBuilder::try_new(file)
                .map_err(|e| Error::data(&name, format!("truncated or damaged Parquet file: {e}")))?;
            let batch = batch_rows(builder.metadata(), BATCH);
            let batches =
                builder.with_batch_size(batch).build().map_err(|e| Error::data(&name, e.to_string()))?;
            Source::Parquet { batches: Box::new(batches), rows: Vec::new().into_iter() }
        };
        Ok(Self { source, name, number: 0, ended: false })
    }
}

fn values_of(batch: &arrow::array::RecordBatch) -> Result<Vec<Value>, String> {
    let mut writer = arrow::json::LineDelimitedWriter::new(Vec::new());
    writer.write(batch).and_then(|()| writer.finish()).map_err(|e| e.to_string())?;
    let bytes = writer.into_inner();
    serde_json::Deserializer::from_slice(&bytes)
        .into_iter()
        .collect::<Result<_, _>>()
        .map_err(|e| e.to_string())
}

impl Iterator for Rows {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        match &mut self.source {
            Source::Jsonl(lines) => {
                let line = match lines.next()? {
                    Ok(line) => line,
                    Err(e) => return Some(Err(e)),
                };
                let value = match serde_json::from_str(line.text()) {
                    Ok(value @ Value::Object(_)) => value,
                    Ok(_) => return Some(Err(line.error("not a JSON object"))),
                    Err(e) => return Some(Err(line.error(e.to_string()))),
                };
                Some(Ok(Row { value, number: line.number(), place: line.place() }))
            }
            Source::Parquet { batches, rows } => loop {
                if let Some(value) = rows.next() {
                    self.number += 1;
                    let place = format!("{}: row {}", self.name, self.number);
                    return Some(Ok(Row { value, number: self.number, place }));
                }
                let batch = match batches.next()? {
                    Ok(batch) => values_of(&batch),
                    Err(e) => Err(e.to_string()),
                };
                match batch {
                    Ok(values) => *rows = values.into_iter(),
                    Err(reason) => {
                        self.ended = true;
                        let place = format!("{}: after row {}", self.name, self.number);
                        return Some(Err(Error::data(place, reason)));
                    }
                }
            },
        }
    }
}
