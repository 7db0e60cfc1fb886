//! Trains Llama models: lm, sft, rl
fn main() {}
