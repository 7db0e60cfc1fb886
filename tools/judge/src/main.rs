//! Judges programs and rollouts in sandboxes
fn main() {}
