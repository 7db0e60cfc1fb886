//! Checks a model directory in Hugging Face layout without loading it: the configuration, the headers and lengths of
//! the safetensors files, and that every tensor of a Llama is there with its shape.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::Value;

use crate::report::Report;

/// A safetensors header is JSON of at most this many bytes, by its specification.
const MAX_HEADER: u64 = 100_000_000;

type Shapes = BTreeMap<String, Vec<u64>>;

/// # Errors
/// When the directory cannot be read; what is wrong inside it is in the report.
pub fn check(dir: &Path, max_errors: u64) -> anyhow::Result<Report> {
    let mut report = Report::new(&dir.display().to_string(), "model", max_errors);
    let config = match read_json(&dir.join("config.json")) {
        Ok(config) => config,
        Err(reason) => {
            report.fault(&reason);
            return Ok(report);
        }
    };
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        if let Err(reason) = read_json(&dir.join(name)) {
            report.fault(&reason);
        }
    }
    let mut shapes = Shapes::new();
    for file in weight_files(dir).with_context(|| dir.display().to_string())? {
        if let Err(reason) = read_header(&file, &mut shapes) {
            report.fault(&format!("{}: {reason}", file.display()));
        }
    }
    report.tensors = Some(shapes.len() as u64);
    if shapes.is_empty() {
        report.fault(&format!("{}: no tensor; expected model.safetensors", dir.display()));
        return Ok(report);
    }
    let place = dir.join("config.json").display().to_string();
    match expected(&config) {
        Err(reason) => report.fault(&format!("{place}: {reason}")),
        Ok(expected) => {
            for (name, shape) in expected {
                match shapes.get(&name) {
                    None => report.fault(&format!("{}: tensor {name:?} is missing", dir.display())),
                    Some(found) if *found != shape => report.fault(&format!(
                        "{}: tensor {name:?} has shape {found:?}, {place} asks for {shape:?}",
                        dir.display()
                    )),
                    Some(_) => {}
                }
            }
        }
    }
    Ok(report)
}

fn read_json(path: &Path) -> Result<Value, String> {
    let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))
}

fn weight_files(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "safetensors") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The format: 8 bytes length of the header, little-endian; the header, JSON; the data.
fn read_header(path: &Path, shapes: &mut Shapes) -> Result<(), String> {
    let mut file = File::open(path).map_err(|e| e.to_string())?;
    let length = file.metadata().map_err(|e| e.to_string())?.len();
    let mut size = [0; 8];
    file.read_exact(&mut size).map_err(|_| format!("truncated: {length} bytes"))?;
    let size = u64::from_le_bytes(size);
    if size > MAX_HEADER || size + 8 > length {
        return Err(format!("truncated: the header has {size} bytes, the file {length}"));
    }
    let mut header = vec![0; size as usize];
    file.read_exact(&mut header).map_err(|e| e.to_string())?;
    let header: BTreeMap<String, Value> =
        serde_json::from_slice(&header).map_err(|e| format!("header is not valid JSON: {e}"))?;
    let mut end = 0;
    for (name, tensor) in header.into_iter().filter(|(name, _)| name != "__metadata__") {
        let numbers =
            |key: &str| -> Option<Vec<u64>> { tensor[key].as_array()?.iter().map(Value::as_u64).collect() };
        let shape = numbers("shape").ok_or_else(|| format!("tensor {name:?} has no shape"))?;
        let offsets = numbers("data_offsets").filter(|o| o.len() == 2 && o[0] <= o[1]);
        let offsets = offsets.ok_or_else(|| format!("tensor {name:?} has no data_offsets"))?;
        end = end.max(offsets[1]);
        shapes.insert(name, shape);
    }
    let want = 8 + size + end;
    if length < want {
        return Err(format!("truncated: {length} bytes of {want}"));
    }
    Ok(())
}

/// Every tensor of a Llama-family model by its configuration.
fn expected(config: &Value) -> Result<Shapes, String> {
    let number =
        |key: &str| config[key].as_u64().ok_or_else(|| format!("field {key} is missing or no number"));
    let (hidden, ffn, vocab) = (number("hidden_size")?, number("intermediate_size")?, number("vocab_size")?);
    let (layers, heads) = (number("num_hidden_layers")?, number("num_attention_heads")?);
    let kv_heads = config["num_key_value_heads"].as_u64().unwrap_or(heads);
    if heads == 0 || kv_heads == 0 {
        return Err("num_attention_heads and num_key_value_heads must be at least 1".to_owned());
    }
    let head = config["head_dim"].as_u64().unwrap_or(hidden / heads);
    let mut shapes = Shapes::from([
        ("model.embed_tokens.weight".to_owned(), vec![vocab, hidden]),
        ("model.norm.weight".to_owned(), vec![hidden]),
    ]);
    if config["tie_word_embeddings"].as_bool() != Some(true) {
        shapes.insert("lm_head.weight".to_owned(), vec![vocab, hidden]);
    }
    for layer in 0..layers {
        for (name, shape) in [
            ("input_layernorm", vec![hidden]),
            ("post_attention_layernorm", vec![hidden]),
            ("self_attn.q_proj", vec![heads * head, hidden]),
            ("self_attn.k_proj", vec![kv_heads * head, hidden]),
            ("self_attn.v_proj", vec![kv_heads * head, hidden]),
            ("self_attn.o_proj", vec![hidden, heads * head]),
            ("mlp.gate_proj", vec![ffn, hidden]),
            ("mlp.up_proj", vec![ffn, hidden]),
            ("mlp.down_proj", vec![hidden, ffn]),
        ] {
            shapes.insert(format!("model.layers.{layer}.{name}.weight"), shape);
        }
    }
    Ok(shapes)
}
