//! Reads prompts and makes sure that each can be sampled.

use std::collections::HashSet;
use std::path::Path;

use cognate_chat::Chat;
use cognate_cli::Common;
use cognate_model::LlamaConfig;
use cognate_records::{Error, Prompt, Reader};

/// Reads up to `limit` prompts, all with token ids and distinct ids of their own.
///
/// # Errors
/// A data error with its place for a bad record, for a prompt that is empty, repeated, outside of the vocabulary, or
/// leaves no room in the context. With --keep-going such prompts are skipped.
pub fn read(
    path: &Path,
    limit: Option<usize>,
    chat: &Chat,
    config: &LlamaConfig,
    common: &Common,
) -> anyhow::Result<Vec<Prompt>> {
    let mut prompts = Vec::new();
    let mut seen = HashSet::new();
    for record in Reader::<Prompt>::open(path)? {
        if limit.is_some_and(|limit| prompts.len() >= limit) {
            break;
        }
        let checked = record.and_then(|prompt| {
            let place = format!("{}: prompt {:?}", path.display(), prompt.id);
            check(prompt, chat, config, &mut seen).map_err(|reason| Error::data(place, reason))
        });
        match checked {
            Ok(prompt) => prompts.push(prompt),
            Err(e) => common.skip(e)?,
        }
    }
    if prompts.is_empty() {
        return Err(Error::data(path.display().to_string(), "no prompts").into());
    }
    Ok(prompts)
}

fn check(
    mut prompt: Prompt,
    chat: &Chat,
    config: &LlamaConfig,
    seen: &mut HashSet<String>,
) -> Result<Prompt, String> {
    if prompt.ids.is_empty() {
        if !prompt.messages.is_empty() {
            let rendered = chat.prompt(&prompt.messages).map_err(|e| e.to_string())?;
            (prompt.text, prompt.ids) = (rendered.text, rendered.ids);
        } else if !prompt.text.is_empty() {
            // Rendered by somebody else: plain text after the beginning token, if the tokenizer has one.
            prompt.ids = chat.bos_id().into_iter().chain(chat.encode(&prompt.text)).collect();
        } else {
            return Err("it has neither ids nor messages nor text".into());
        }
    }
    if let Some(id) = prompt.ids.iter().chain(&prompt.stop_ids).find(|&&id| id as usize >= config.vocab_size)
    {
        return Err(format!("token id {id} is outside of the model's vocabulary of {}", config.vocab_size));
    }
    if prompt.ids.len() >= config.max_position_embeddings {
        let (tokens, context) = (prompt.ids.len(), config.max_position_embeddings);
        return Err(format!(
            "its {tokens} tokens leave no room for an answer in the model's context of {context}"
        ));
    }
    if !seen.insert(prompt.id.clone()) {
        return Err(
            "the id was there before; randomness is keyed by it, so the samples would be the same".into()
        );
    }
    Ok(prompt)
}
