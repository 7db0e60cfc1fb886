//! What the stream's main thread (filter.rs) hears from its reader and its workers.

use cognate_records::Verdict;

use crate::desk::Done;

pub enum Event {
    /// A line that waits for no verdict.
    Line(Done),
    /// The program of this ticket has a verdict.
    Judged(u64, Box<Verdict>),
    /// The reader is done, after this many lines.
    End(u64),
    Failed(anyhow::Error),
}
