//! Prints the tables and figures of a run
fn main() {}
