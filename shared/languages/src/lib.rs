//! The languages table: what every tool knows about a programming language, in one TOML file.
//!
//! `languages.toml` describes its own keys. A user's file of the same form is merged over it, key by key.

mod identify;
mod table;
mod wasm;

pub use identify::{Scores, identify, scores};
pub use table::{Checkpoint, Error, Language, Languages};
pub use wasm::Wasm;
