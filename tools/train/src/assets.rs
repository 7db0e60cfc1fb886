//! What a model directory holds beside the weights: tokenizer, chat template, generation settings, history.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use cognate_model::LlamaConfig;
use cognate_records::Provenance;
use serde_json::{Map, Value, json};

/// Files carried along from the input, where they exist.
const CARRIED: [&str; 11] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "LICENSE",
];

/// Copies tokenizer and templates from `from` into the model directory `to`.
pub fn carry(from: &Path, to: &Path) -> Result<()> {
    for name in CARRIED {
        let source = from.join(name);
        if source.is_file() {
            fs::copy(&source, to.join(name)).with_context(|| source.display().to_string())?;
        }
    }
    Ok(())
}

/// Writes `generation_config.json` where none was carried: the ids that begin, end and pad a text.
pub fn generation_config(config: &LlamaConfig, to: &Path) -> Result<()> {
    let path = to.join("generation_config.json");
    if path.exists() {
        return Ok(());
    }
    let mut fields = Map::new();
    if let Some(id) = config.bos_token_id {
        fields.insert("bos_token_id".into(), id.into());
    }
    match config.eos_token_id.as_slice() {
        [] => {}
        [id] => drop(fields.insert("eos_token_id".into(), (*id).into())),
        ids => drop(fields.insert("eos_token_id".into(), json!(ids))),
    }
    if let Some(id) = config.pad_token_id {
        fields.insert("pad_token_id".into(), id.into());
    }
    let text = serde_json::to_string_pretty(&Value::Object(fields))? + "\n";
    fs::write(&path, text).with_context(|| path.display().to_string())
}

/// Writes the model's history into its directory.
pub fn provenance(provenance: &Provenance, to: &Path) -> Result<()> {
    let path = to.join("provenance.json");
    fs::write(&path, provenance.to_text() + "\n").with_context(|| path.display().to_string())
}

/// Reads a config.json and fills in, from the tokenizer, the vocabulary and the ids of the special tokens that it
/// leaves open.
pub fn shape(file: &Path, tokenizer: &Path) -> Result<LlamaConfig> {
    let mut fields = object(file)?;
    let vocabulary = object(&tokenizer.join("tokenizer.json"))?;
    let size = vocabulary_size(&vocabulary)
        .ok_or_else(|| rejected(&tokenizer.join("tokenizer.json"), "no vocabulary found"))?;
    match fields.get("vocab_size").and_then(Value::as_u64) {
        None => drop(fields.insert("vocab_size".into(), size.into())),
        Some(stated) if stated < size => {
            let reason = format!("vocab_size {stated} is smaller than the tokenizer's {size}");
            return Err(rejected(file, &reason));
        }
        Some(_) => {}
    }
    let settings = tokenizer.join("tokenizer_config.json");
    if settings.is_file() {
        let settings = object(&settings)?;
        for name in ["bos", "eos", "pad"] {
            let key = format!("{name}_token_id");
            let token = settings.get(&format!("{name}_token"));
            let token = token.and_then(|t| t.as_str().or_else(|| t.get("content")?.as_str()));
            if let (false, Some(id)) =
                (fields.contains_key(&key), token.and_then(|t| token_id(&vocabulary, t)))
            {
                fields.insert(key, id.into());
            }
        }
    }
    LlamaConfig::from_json(&Value::Object(fields).to_string(), file).map_err(crate::optimise::fault)
}

fn object(path: &Path) -> Result<Map<String, Value>> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    match serde_json::from_str(&text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(rejected(path, "not a JSON object")),
        Err(e) => Err(rejected(path, &e.to_string())),
    }
}

fn rejected(path: &Path, reason: &str) -> anyhow::Error {
    cognate_cli::rejected(anyhow!("{}: {reason}", path.display()))
}

/// One more than the largest id of a tokenizer.json.
fn vocabulary_size(tokenizer: &Map<String, Value>) -> Option<u64> {
    let model = match tokenizer.get("model")?.get("vocab")? {
        Value::Object(vocab) => vocab.values().filter_map(Value::as_u64).max(),
        Value::Array(vocab) => (vocab.len() as u64).checked_sub(1),
        _ => None,
    };
    let added = tokenizer.get("added_tokens").and_then(Value::as_array);
    let added = added.and_then(|list| list.iter().filter_map(|t| t.get("id")?.as_u64()).max());
    model.max(added).map(|last| last + 1)
}

fn token_id(tokenizer: &Map<String, Value>, token: &str) -> Option<u64> {
    let added = tokenizer.get("added_tokens").and_then(Value::as_array);
    let named = |t: &&Value| t.get("content").and_then(Value::as_str) == Some(token);
    added
        .and_then(|list| list.iter().find(named)?.get("id")?.as_u64())
        .or_else(|| tokenizer.get("model")?.get("vocab")?.get(token)?.as_u64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_fields_of_the_shape_come_from_the_tokenizer() {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        let tokenizer = json!({"model": {"vocab": {"a": 0, "b": 1}},
            "added_tokens": [{"id": 2, "content": "<end>"}, {"id": 3, "content": "<pad>"}]});
        fs::write(at("tokenizer.json"), tokenizer.to_string()).unwrap();
        fs::write(
            at("tokenizer_config.json"),
            json!({"eos_token": {"content": "<end>"}, "pad_token": "<pad>", "bos_token": null}).to_string(),
        )
        .unwrap();
        let mut fields = LlamaConfig::default().to_json();
        let map = fields.as_object_mut().unwrap();
        for key in ["vocab_size", "eos_token_id", "bos_token_id", "pad_token_id"] {
            map.shift_remove(key);
        }
        fs::write(at("model.json"), fields.to_string()).unwrap();
        let config = shape(&at("model.json"), temp.path()).unwrap();
        assert_eq!((config.vocab_size, config.eos_token_id, config.pad_token_id), (4, vec![2], Some(3)));
        fields["vocab_size"] = 3.into();
        fs::write(at("model.json"), fields.to_string()).unwrap();
        let refused = shape(&at("model.json"), temp.path()).unwrap_err().to_string();
        assert!(refused.contains("vocab_size 3 is smaller than the tokenizer's 4"), "{refused}");
    }
}
