//! A tokenizer with its chat template.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use cognate_records::Message;
use tokenizers::Tokenizer;

use crate::directory::{Directory, FILES};
use crate::guard::{Guard, Piece, Placeholders, is_private};
use crate::template::Template;
use crate::{ChatError, Result};

/// A rendered prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    pub text: String,
    pub ids: Vec<u32>,
}

/// A conversation as SFT trains it.
#[derive(Debug, Clone, PartialEq)]
pub struct Masked {
    pub ids: Vec<u32>,
    /// Loss weight of each token as a target: 1 in answers, their end token included, else 0. The first is always 0.
    pub weights: Vec<f32>,
    /// Where in `ids` each answer stands, its end token included.
    pub answers: Vec<Range<usize>>,
}

#[derive(Debug)]
pub struct Chat {
    path: PathBuf,
    tokenizer: Tokenizer,
    template: Option<Template>,
    guard: Guard,
    /// Plain ids of each of the guard's strings.
    plain: Vec<Vec<u32>>,
    special: BTreeSet<u32>,
    bos: Option<u32>,
    end: u32,
    pad: Option<u32>,
    stops: Vec<u32>,
    vocab_size: usize,
}

impl Chat {
    /// Reads a tokenizer directory.
    ///
    /// # Errors
    /// `Data` when a file is malformed, a named special token does not exist, there is no end token, or a special
    /// token's text cannot be encoded without yielding the token itself.
    pub fn open(path: &Path) -> Result<Self> {
        let directory = Directory::read(path)?;
        let file = path.join("tokenizer.json");
        let mut tokenizer =
            Tokenizer::from_bytes(&directory.tokenizer).map_err(|e| ChatError::file(&file, e.to_string()))?;
        // A tokenizer saved after a training run may carry both; they would cut and fill silently.
        tokenizer.with_truncation(None).map_err(|e| ChatError::file(&file, e.to_string()))?;
        tokenizer.with_padding(None);
        // Encoding fails on unknown characters or never; U+10FFFF is in no vocabulary.
        tokenizer
            .encode_fast("\u{10FFFF}", false)
            .map_err(|e| ChatError::file(&file, format!("cannot encode every text: {e}")))?;
        let id_of = |name: &str, text: &Option<String>| match text {
            None => Ok(None),
            Some(text) => tokenizer.token_to_id(text).map(Some).ok_or_else(|| {
                ChatError::file(
                    &path.join("tokenizer_config.json"),
                    format!("{name} {text:?} is not in the vocabulary"),
                )
            }),
        };
        let bos = id_of("bos_token", &directory.bos)?;
        let eos = id_of("eos_token", &directory.eos)?;
        let pad = id_of("pad_token", &directory.pad)?;
        let end = eos.or_else(|| directory.generation_stops.first().copied()).ok_or_else(|| {
            ChatError::file(path, "no end token: `eos_token` is missing from tokenizer_config.json")
        })?;
        let mut stops = directory.generation_stops.clone();
        stops.push(end);
        stops.sort_unstable();
        stops.dedup();

        let mut special: BTreeSet<u32> =
            [bos, eos, pad].into_iter().flatten().chain(stops.iter().copied()).collect();
        for (id, token) in tokenizer.get_added_tokens_decoder() {
            if token.special {
                special.insert(id);
            }
        }
        let strings = special.iter().filter_map(|&id| tokenizer.id_to_token(id)).collect();
        let guard = Guard::new(strings).map_err(|e| ChatError::file(&file, e))?;
        let plain = plain_ids(&tokenizer, &guard, &special).map_err(|e| ChatError::file(&file, e))?;
        let vocab_size = tokenizer.get_vocab(true).values().max().map_or(0, |&id| id as usize + 1);

        let template = match directory.template {
            None => None,
            Some((source, name)) => {
                let place = path.join(name);
                let mut template = Template::new(&source, place.display().to_string())
                    .map_err(|e| ChatError::file(&place, format!("chat template: {e}")))?;
                for (name, text) in [
                    ("bos_token", &directory.bos),
                    ("eos_token", &directory.eos),
                    ("pad_token", &directory.pad),
                ] {
                    if let Some(text) = text {
                        template.variables.insert(name.into(), text.as_str().into());
                    }
                }
                Some(template)
            }
        };
        Ok(Self {
            path: path.to_path_buf(),
            tokenizer,
            template,
            guard,
            plain,
            special,
            bos,
            end,
            pad,
            stops,
            vocab_size,
        })
    }

    /// Hands the template one more variable (`date_string`, `enable_thinking`).
    #[must_use]
    pub fn with_variable(mut self, name: &str, value: &serde_json::Value) -> Self {
        if let Some(template) = &mut self.template {
            template.variables.insert(name.into(), minijinja::value::Serde(value).into());
        }
        self
    }

    /// Renders what a sampler is given: the messages and the opening of an answer.
    ///
    /// # Errors
    /// When there is no template, or it refuses the messages.
    pub fn prompt(&self, messages: &[Message]) -> Result<Rendered> {
        let (hidden, placeholders) = self.hide(messages)?;
        let rendered = self.render(&hidden, true)?;
        Ok(Rendered {
            ids: self.encode_rendered(&rendered, placeholders),
            text: self.text_of(&rendered, placeholders),
        })
    }

    /// Renders what SFT trains. For each message of role `assistant`, what stands before it is exactly
    /// [`Chat::prompt`] of the messages before it, and the rest of the rendering, tokenised on its own, is the
    /// answer; loss weight 1 from the answer's first token to its end token. What a template writes after the last
    /// end token is dropped, since a sampler stops there.
    ///
    /// # Errors
    /// When the rendering with an answer does not start with the rendering of its prompt, when no end token follows
    /// an answer, or when there is no answer at all.
    pub fn conversation(&self, messages: &[Message]) -> Result<Masked> {
        let (hidden, placeholders) = self.hide(messages)?;
        let place = || self.template.as_ref().map_or_else(String::new, |t| t.place.clone());
        let mut out = Masked { ids: Vec::new(), weights: Vec::new(), answers: Vec::new() };
        let mut done = String::new();
        for (i, message) in hidden.iter().enumerate() {
            if message.role != "assistant" {
                continue;
            }
            let prompt = self.render(&hidden[..i], true)?;
            let full = self.render(&hidden[..=i], false)?;
            let Some(context) = prompt.strip_prefix(done.as_str()) else {
                return Err(ChatError::data(
                    place(),
                    format!(
                        "the template changes earlier turns when message {i} is added; train its turns apart"
                    ),
                ));
            };
            let Some(answer) = full.strip_prefix(prompt.as_str()) else {
                return Err(ChatError::data(
                    place(),
                    format!(
                        "the rendering with answer {i} does not start with the rendering of its prompt, so training \
                         and sampling would differ"
                    ),
                ));
            };
            out.extend(&self.encode_rendered(context, placeholders), 0.0);
            let answer = self.encode_rendered(answer, placeholders);
            let Some(end) = answer.iter().position(|id| self.stops.binary_search(id).is_ok()) else {
                return Err(ChatError::data(
                    place(),
                    format!(
                        "the template puts no end token after answer {i}; what ends an answer is `eos_token`, or \
                         `eos_token_id` of generation_config.json beside it"
                    ),
                ));
            };
            let start = out.ids.len();
            out.extend(&answer[..=end], 1.0);
            out.answers.push(start..out.ids.len());
            out.extend(&answer[end + 1..], 0.0);
            done = full;
        }
        let Some(last) = out.answers.last() else {
            return Err(ChatError::data("messages", "no message of role \"assistant\" to train on"));
        };
        out.ids.truncate(last.end);
        out.weights.truncate(last.end);
        out.weights[0] = 0.0;
        Ok(out)
    }

    /// Plain text to ids; special-token strings inside it stay text.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        self.encode_pieces(&self.guard.cut(text))
    }

    /// A document of a language model: beginning-of-text token if the tokenizer has one, text, end token.
    pub fn document(&self, text: &str) -> Vec<u32> {
        let mut ids: Vec<u32> = self.bos.into_iter().collect();
        ids.extend(self.encode(text));
        ids.push(self.end);
        ids
    }

    /// Ids to text, special tokens spelled out; what is not UTF-8 becomes U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        // The only failure of this call is a decoder that fails on every input.
        self.tokenizer.decode(ids, false).unwrap_or_default()
    }

    /// The text of an answer: up to its first stop token, without it.
    pub fn answer(&self, ids: &[u32]) -> String {
        let end = ids.iter().position(|id| self.stops.binary_search(id).is_ok()).unwrap_or(ids.len());
        self.decode(&ids[..end])
    }

    /// Ids that end an answer, ascending.
    pub fn stop_ids(&self) -> &[u32] {
        &self.stops
    }

    pub fn end_id(&self) -> u32 {
        self.end
    }

    pub fn bos_id(&self) -> Option<u32> {
        self.bos
    }

    pub fn pad_id(&self) -> Option<u32> {
        self.pad
    }

    /// Largest id plus one: the least `vocab_size` of a model.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    pub fn special_ids(&self) -> &BTreeSet<u32> {
        &self.special
    }

    pub fn has_template(&self) -> bool {
        self.template.is_some()
    }

    /// The directory it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The same for the same vocabulary, merges, special tokens and template, wherever they stand: the hash of the
    /// tokenizer's files (XXH3, 128 bits, hexadecimal).
    pub fn fingerprint(&self) -> String {
        let mut hasher = xxhash_rust::xxh3::Xxh3Default::new();
        for name in FILES {
            if let Ok(bytes) = std::fs::read(self.path.join(name)) {
                hasher.update(name.as_bytes());
                hasher.update(&(bytes.len() as u64).to_le_bytes());
                hasher.update(&bytes);
            }
        }
        format!("{:032x}", hasher.digest128())
    }

    /// Copies the tokenizer's files into a model directory that is being built.
    ///
    /// # Errors
    /// As the file system's.
    pub fn copy_to(&self, directory: &Path) -> std::io::Result<()> {
        for name in FILES {
            let from = self.path.join(name);
            if from.is_file() {
                std::fs::copy(&from, directory.join(name))?;
            }
        }
        Ok(())
    }

    fn template(&self) -> Result<&Template> {
        self.template.as_ref().ok_or_else(|| {
            ChatError::file(
                &self.path,
                "no chat template; add chat_template.jinja to the tokenizer directory",
            )
        })
    }

    fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let template = self.template()?;
        template
            .render(messages, add_generation_prompt)
            .map_err(|e| ChatError::data(&template.place, format!("chat template: {e}")))
    }

    fn hide(&self, messages: &[Message]) -> Result<(Vec<Message>, Placeholders)> {
        let template = self.template()?;
        let mut private = template.private.clone();
        for message in messages {
            private.extend(message.content.chars().filter(|&c| is_private(c)).map(u32::from));
        }
        let placeholders = self
            .guard
            .placeholders(|code| private.contains(&code))
            .ok_or_else(|| ChatError::data("messages", "every private-use character is in use"))?;
        let hidden = messages
            .iter()
            .map(|m| Message {
                role: m.role.clone(),
                content: self.guard.hide(&m.content, placeholders).into_owned(),
            })
            .collect();
        Ok((hidden, placeholders))
    }

    fn text_of(&self, rendered: &str, placeholders: Placeholders) -> String {
        self.guard
            .reveal(rendered, placeholders)
            .iter()
            .map(|piece| match piece {
                Piece::Text(text) => *text,
                Piece::Special(k) => &self.guard.strings()[*k],
            })
            .collect()
    }

    fn encode_rendered(&self, rendered: &str, placeholders: Placeholders) -> Vec<u32> {
        self.encode_pieces(&self.guard.reveal(rendered, placeholders))
    }

    fn encode_pieces(&self, pieces: &[Piece]) -> Vec<u32> {
        let mut ids = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Text(text) => ids.extend(encode(&self.tokenizer, text)),
                Piece::Special(k) => ids.extend(&self.plain[*k]),
            }
        }
        ids
    }
}

impl Masked {
    fn extend(&mut self, ids: &[u32], weight: f32) {
        self.ids.extend(ids);
        self.weights.resize(self.ids.len(), weight);
    }
}

/// Does not fail: a model that cannot encode every text was refused when the directory was opened.
fn encode(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    tokenizer.encode_fast(text, false).map(|encoding| encoding.get_ids().to_vec()).unwrap_or_default()
}

/// The plain ids of each special string: whole if that yields no special id, else character by character (a
/// vocabulary may hold the string as an ordinary merge).
fn plain_ids(tokenizer: &Tokenizer, guard: &Guard, special: &BTreeSet<u32>) -> Result<Vec<Vec<u32>>, String> {
    let mut blind = tokenizer.clone();
    blind.set_encode_special_tokens(true);
    let clean = |ids: &[u32]| !ids.is_empty() && !ids.iter().any(|id| special.contains(id));
    guard
        .strings()
        .iter()
        .map(|text| {
            let whole = encode(&blind, text);
            if clean(&whole) {
                return Ok(whole);
            }
            let apart: Vec<u32> =
                text.chars().flat_map(|c| encode(&blind, c.encode_utf8(&mut [0; 4]))).collect();
            clean(&apart)
                .then_some(apart)
                .ok_or_else(|| format!("special token {text:?} has no plain encoding"))
        })
        .collect()
}

/// Checked here because samplers and trainers share one across threads.
const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<Chat>();
    shared::<BTreeMap<String, Template>>();
};
