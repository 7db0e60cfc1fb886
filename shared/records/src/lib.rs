//! The records that cross every pipe and file of the suite.
//!
//! A record type is a struct, a name with a version (`rollout/1`), a column list for Parquet and a specification
//! under `spec/`. JSONL and Parquet carry the same columns. Fields that a type does not know are kept: inline in
//! JSONL, in one JSON column `extra` in Parquet.
//!
//! - [`Reader`] and [`Writer`] stream records of one type in either format.
//! - [`Lines`] and [`LineWriter`] stream JSONL of mixed types, as the RL pipe carries them.
//! - [`Provenance`] is a file's history, in the Parquet footer or in a sidecar beside JSONL.

mod arrow_columns;
mod error;
mod lines;
mod provenance;
mod reader;
mod types;
mod validate;
mod writer;

pub use arrow_columns::column_names;
pub use error::{Error, Result};
pub use lines::{Line, LineWriter, Lines};
pub use provenance::{Input, Provenance, Step};
pub use reader::{Format, Reader, batch_rows, detect_format, is_stream};
pub use types::*;
pub use writer::{Writer, WriterOptions};

/// Fields that the type does not know, kept as they came.
pub type Extra = serde_json::Map<String, serde_json::Value>;

/// One record type.
pub trait Record: serde::Serialize + serde::de::DeserializeOwned + Send + Clone + 'static {
    /// Name and major version, as it stands in the field `schema`: `rollout/1`.
    const SCHEMA: &'static str;
    /// Parquet columns, in order, without `extra`.
    fn columns() -> Vec<arrow::datatypes::Field>;
    /// What identifies the record within its file, for messages.
    fn key(&self) -> String;
    /// What a type system cannot say: ranges, lengths that must agree, values that must not be empty.
    ///
    /// # Errors
    /// The reason, a lower-case fragment without place.
    fn validate(&self) -> std::result::Result<(), String>;
    fn extra(&self) -> &Extra;
    fn extra_mut(&mut self) -> &mut Extra;
}
