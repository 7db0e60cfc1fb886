//! Where judged lines go: JSONL of any types, or Parquet of one.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use cognate_records::{
    Error, Line, LineWriter, Lines, Program, Provenance, Record, Result, Rollout, Writer, WriterOptions,
};

pub enum Sink {
    Lines(LineWriter),
    Parquet(Box<Columns>),
}

/// A Parquet file whose type the first record decides.
pub struct Columns {
    path: PathBuf,
    provenance: Option<Provenance>,
    writer: Option<Typed>,
}

enum Typed {
    Programs(Writer<Program>),
    Rollouts(Writer<Rollout>),
}

pub fn is_parquet(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "parquet")
}

impl Sink {
    /// By the extension. `provenance` is written into Parquet; beside JSONL it is the caller's to write.
    ///
    /// # Errors
    /// When the output cannot be created.
    pub fn create(path: &Path, provenance: Option<Provenance>) -> Result<Self> {
        if is_parquet(path) {
            let columns = Columns { path: path.to_path_buf(), provenance, writer: None };
            return Ok(Self::Parquet(Box::new(columns)));
        }
        Ok(Self::Lines(LineWriter::create(path)?))
    }

    /// # Errors
    /// When the output cannot be written, or Parquet gets a record that its first one is not like.
    pub fn write(&mut self, text: &str) -> Result<()> {
        match self {
            Self::Lines(out) => out.write_raw(text),
            Self::Parquet(columns) => columns.write(text),
        }
    }

    /// # Errors
    /// When the output cannot be written.
    pub fn flush(&mut self) -> Result<()> {
        match self {
            Self::Lines(out) => out.flush(),
            Self::Parquet(_) => Ok(()),
        }
    }

    /// Puts the file into place.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn finish(self) -> Result<()> {
        match self {
            Self::Lines(out) => out.finish(),
            Self::Parquet(mut columns) => match columns.writer()? {
                Typed::Programs(writer) => writer.finish(),
                Typed::Rollouts(writer) => writer.finish(),
            },
        }
    }
}

impl Columns {
    fn create<T: Record>(&mut self) -> Result<Writer<T>> {
        Writer::create(&self.path, WriterOptions { provenance: self.provenance.take(), ..Default::default() })
    }

    /// The writer; without records one of programs.
    fn writer(&mut self) -> Result<Typed> {
        match self.writer.take() {
            Some(writer) => Ok(writer),
            None => Ok(Typed::Programs(self.create()?)),
        }
    }

    fn write(&mut self, text: &str) -> Result<()> {
        let line = as_line(&self.path, text)?;
        if self.writer.is_none() {
            let rollouts = match line.schema() {
                Some(schema) => schema == Rollout::SCHEMA,
                None => !text.contains("\"source\""),
            };
            self.writer = Some(if rollouts {
                Typed::Rollouts(self.create()?)
            } else {
                Typed::Programs(self.create()?)
            });
        }
        match &mut self.writer {
            Some(Typed::Programs(writer)) => writer.write(&line.decode()?),
            Some(Typed::Rollouts(writer)) => writer.write(&line.decode()?),
            None => Ok(()),
        }
    }
}

fn as_line(path: &Path, text: &str) -> Result<Line> {
    let name = path.display().to_string();
    let mut lines = Lines::new(&name, Cursor::new(format!("{text}\n")));
    lines.next().unwrap_or_else(|| Err(Error::data(name, "an empty line")))
}
