//! Builds SFT mixtures, prompts and tokenizers
fn main() {}
