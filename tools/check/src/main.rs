//! Validates record files
fn main() {}
