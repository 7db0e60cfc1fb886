//! Reads a tokenizer directory in Hugging Face layout, as `transformers` does.

use std::path::Path;

use serde_json::Value;

use crate::{ChatError, Result};

/// Every file that belongs to a tokenizer, in the order in which they are copied and fingerprinted.
pub const FILES: [&str; 9] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
];

/// What the files say, before anything is interpreted by the tokenizer.
#[derive(Debug)]
pub struct Directory {
    pub tokenizer: Vec<u8>,
    /// Source of the chat template and the file it came from.
    pub template: Option<(String, String)>,
    pub bos: Option<String>,
    pub eos: Option<String>,
    pub pad: Option<String>,
    /// `eos_token_id` of `generation_config.json`: one or several ids that end an answer.
    pub generation_stops: Vec<u32>,
}

impl Directory {
    pub fn read(path: &Path) -> Result<Self> {
        let file = path.join("tokenizer.json");
        let tokenizer = std::fs::read(&file).map_err(|e| ChatError::io(&file, e))?;
        let config = json(&path.join("tokenizer_config.json"))?.unwrap_or(Value::Null);
        let map = json(&path.join("special_tokens_map.json"))?.unwrap_or(Value::Null);
        let special = |name: &str| token_text(&config[name]).or_else(|| token_text(&map[name]));
        let generation = json(&path.join("generation_config.json"))?.unwrap_or(Value::Null);
        Ok(Self {
            tokenizer,
            template: template(path, &config)?,
            bos: special("bos_token"),
            eos: special("eos_token"),
            pad: special("pad_token"),
            generation_stops: ids(&generation["eos_token_id"]),
        })
    }
}

fn read_optional(path: &Path) -> Result<Option<String>> {
    match std::fs::read(path) {
        Ok(bytes) => String::from_utf8(bytes)
            .map(Some)
            .map_err(|e| ChatError::file(path, format!("not UTF-8: {}", e.utf8_error()))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(ChatError::io(path, e)),
    }
}

fn json(path: &Path) -> Result<Option<Value>> {
    let Some(text) = read_optional(path)? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|e| ChatError::file(path, format!("not JSON: {e}")))
}

/// A special token is written as a string or as an object with `content`.
fn token_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Object(object) => object.get("content")?.as_str().map(str::to_owned),
        _ => None,
    }
}

fn ids(value: &Value) -> Vec<u32> {
    let one = |v: &Value| v.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Value::Array(list) => list.iter().filter_map(one).collect(),
        other => one(other).into_iter().collect(),
    }
}

/// The template stands in a file of its own, or in `tokenizer_config.json` as one string or as a list of named ones.
fn template(path: &Path, config: &Value) -> Result<Option<(String, String)>> {
    if let Some(source) = read_optional(&path.join("chat_template.jinja"))? {
        return Ok(Some((source, "chat_template.jinja".into())));
    }
    if let Some(value) = json(&path.join("chat_template.json"))? {
        let Some(source) = named(&value["chat_template"]) else {
            return Err(ChatError::file(&path.join("chat_template.json"), "no text under `chat_template`"));
        };
        return Ok(Some((source, "chat_template.json".into())));
    }
    match &config["chat_template"] {
        Value::Null => Ok(None),
        value => match named(value) {
            Some(source) => Ok(Some((source, "tokenizer_config.json".into()))),
            None => Err(ChatError::file(
                &path.join("tokenizer_config.json"),
                "`chat_template` is neither text nor a list with one named `default`",
            )),
        },
    }
}

fn named(value: &Value) -> Option<String> {
    match value {
        Value::String(source) => Some(source.clone()),
        Value::Array(list) => list
            .iter()
            .find(|entry| entry["name"] == "default")
            .and_then(|entry| entry["template"].as_str())
            .map(str::to_owned),
        _ => None,
    }
}
