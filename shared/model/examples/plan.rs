//! Prints what a training step of a model takes: `plan CONFIG.JSON cpu|cuda TOKENS LENGTH [none|feed-forward|block]`.

use std::path::Path;

use cognate_model::{LlamaConfig, Plan, Recompute, Target};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [path, target, tokens, length, rest @ ..] = args.as_slice() else {
        return Err("plan CONFIG.JSON cpu|cuda TOKENS LENGTH [none|feed-forward|block]".into());
    };
    let config = LlamaConfig::from_json(&std::fs::read_to_string(path)?, Path::new(path))?;
    let target = match target.as_str() {
        "cpu" => Target::Cpu,
        "cuda" => Target::Cuda,
        other => return Err(format!("unknown device {other:?}").into()),
    };
    let recompute = match rest.first().map(String::as_str) {
        None | Some("none") => Recompute::None,
        Some("feed-forward") => Recompute::FeedForward,
        Some("block") => Recompute::Block,
        Some(other) => return Err(format!("unknown level {other:?}").into()),
    };
    println!("{}", Plan::new(&config, target, tokens.parse()?, length.parse()?, recompute));
    Ok(())
}
