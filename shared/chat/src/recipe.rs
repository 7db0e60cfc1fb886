//! Writes a tokenizer directory: a byte-level BPE with its special tokens and its chat template.

use std::path::Path;

use serde_json::{Value, json};

use crate::{ChatError, Result};

/// The template of the `comment` format: a system message holds the language's display name, the user message the
/// statement in that language's own comment syntax, so that a prompt reads `Python<code># statement` and a newline.
/// The marker `<code>` comes from the template alone; the same characters in a statement stay text.
pub const TINY_TEMPLATE: &str = "\
{%- for message in messages -%}
    {%- if message.role == 'system' -%}
        {{ message.content + '<code>' }}
    {%- elif message.role == 'user' -%}
        {{ message.content + '\\n' }}
    {%- elif message.role == 'assistant' -%}
        {{ message.content + eos_token }}
    {%- else -%}
        {{ raise_exception('unknown role ' + message.role) }}
    {%- endif -%}
{%- endfor -%}
";

/// A token that no text yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Special(pub String);

/// All that a byte-level BPE tokenizer directory is made of. Ids: special tokens first, then the 256 bytes, then one
/// id for each merge, in order.
#[derive(Debug, Clone)]
pub struct TokenizerRecipe {
    pub specials: Vec<Special>,
    /// Regular expression whose matches are never merged across; text between matches is a word of its own. `None`:
    /// one word.
    pub words: Option<String>,
    /// Pairs of tokens in the byte alphabet ([`byte_alphabet`]), first merge first.
    pub merges: Vec<(String, String)>,
    pub bos: Option<String>,
    pub end: String,
    pub pad: Option<String>,
    pub template: Option<String>,
    /// Longest sequence, for `model_max_length`.
    pub max_length: Option<usize>,
}

impl TokenizerRecipe {
    /// The 256 bytes and the special tokens `<|pad|>` (0), `<|end|>` (1), `<code>` (2), with [`TINY_TEMPLATE`].
    pub fn bytes() -> Self {
        Self {
            specials: ["<|pad|>", "<|end|>", "<code>"].map(|s| Special(s.into())).into(),
            words: None,
            merges: Vec::new(),
            bos: None,
            end: "<|end|>".into(),
            pad: Some("<|pad|>".into()),
            template: Some(TINY_TEMPLATE.into()),
            max_length: None,
        }
    }

    /// Number of ids.
    ///
    /// Two merges that spell the same token share its id.
    pub fn vocabulary(&self) -> Vec<String> {
        let mut tokens: Vec<String> = self.specials.iter().map(|s| s.0.clone()).collect();
        let mut seen: std::collections::BTreeSet<String> = tokens.iter().cloned().collect();
        let bytes = byte_alphabet().into_iter().map(String::from);
        for token in bytes.chain(self.merges.iter().map(|(a, b)| format!("{a}{b}"))) {
            if seen.insert(token.clone()) {
                tokens.push(token);
            }
        }
        tokens
    }

    fn tokenizer_json(&self) -> Value {
        let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
        let pre_tokenizer = match &self.words {
            None => byte_level.clone(),
            Some(pattern) => json!({"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false},
                byte_level,
            ]}),
        };
        let vocabulary: serde_json::Map<String, Value> =
            self.vocabulary().into_iter().enumerate().map(|(id, token)| (token, id.into())).collect();
        json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": self.specials.iter().enumerate().map(|(id, s)| json!({
                "id": id, "content": s.0, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true,
            })).collect::<Vec<_>>(),
            "normalizer": null,
            "pre_tokenizer": pre_tokenizer,
            "post_processor": null,
            "decoder": byte_level,
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                "vocab": vocabulary,
                "merges": self.merges,
            },
        })
    }

    fn config_json(&self) -> Value {
        let mut config = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": false,
            "eos_token": self.end,
        });
        let optional =
            [("bos_token", &self.bos), ("pad_token", &self.pad), ("chat_template", &self.template)];
        for (name, text) in optional {
            if let Some(text) = text {
                config[name] = text.as_str().into();
            }
        }
        if let Some(length) = self.max_length {
            config["model_max_length"] = length.into();
        }
        config
    }

    /// Writes `tokenizer.json` and `tokenizer_config.json` into an existing directory; the same bytes each time.
    ///
    /// # Errors
    /// `Io` when a file cannot be written; `Data` when `end`, `bos` or `pad` is not among the special tokens.
    pub fn write(&self, directory: &Path) -> Result<()> {
        for token in [Some(&self.end), self.bos.as_ref(), self.pad.as_ref()].into_iter().flatten() {
            if !self.specials.iter().any(|s| s.0 == *token) {
                return Err(ChatError::data(
                    "tokenizer",
                    format!("{token:?} is not one of the special tokens"),
                ));
            }
        }
        for (name, value) in
            [("tokenizer.json", self.tokenizer_json()), ("tokenizer_config.json", self.config_json())]
        {
            let path = directory.join(name);
            let text = format!("{value:#}\n");
            cognate_output::write_file(&path, text.as_bytes()).map_err(|e| ChatError::io(&path, e))?;
        }
        Ok(())
    }
}

/// The character that stands for each byte in a byte-level vocabulary (GPT-2's table): printable Latin-1 stands for
/// itself, the others take the code points from U+0100 on.
pub fn byte_alphabet() -> [char; 256] {
    let mut next = 0x100;
    std::array::from_fn(|byte| {
        let byte = byte as u32;
        let code = if matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF) {
            byte
        } else {
            next += 1;
            next - 1
        };
        char::from_u32(code).unwrap_or('\u{FFFD}')
    })
}
