//! Makes a synthetic world of problems and parallel programs
fn main() {}
