//! Mines groups of parallel programs from corpora
fn main() {}
