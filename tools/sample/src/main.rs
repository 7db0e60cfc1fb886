//! Samples rollouts from a model
fn main() {}
