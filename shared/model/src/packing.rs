//! Checks of packed batches: documents one after another without padding.

use crate::{LlamaConfig, ModelError};

/// Checks `starts` (`[0, len0, len0 + len1, …, T]`) and `tokens` against the model, and fills
/// `positions` with each token's place in its document.
pub(crate) fn check(
    config: &LlamaConfig,
    tokens: &[u32],
    starts: &[u32],
    positions: &mut Vec<u32>,
) -> Result<(), ModelError> {
    if starts.first() != Some(&0) || starts.last().is_none_or(|&end| end as usize != tokens.len()) {
        let (first, last, n) = (starts.first(), starts.last(), tokens.len());
        return Err(ModelError::Batch(format!(
            "starts must run from 0 to the {n} tokens, they run from {first:?} to {last:?}"
        )));
    }
    for (index, &token) in tokens.iter().enumerate() {
        if token as usize >= config.vocab_size {
            return Err(ModelError::Token { index, token, vocabulary: config.vocab_size });
        }
    }
    positions.clear();
    for (document, span) in starts.windows(2).enumerate() {
        let Some(length) = span[1].checked_sub(span[0]) else {
            return Err(ModelError::Batch(format!("starts fall after document {document}")));
        };
        if length as usize > config.max_position_embeddings {
            return Err(ModelError::TooLong {
                document,
                length: length as usize,
                context: config.max_position_embeddings,
            });
        }
        positions.extend(0..length);
    }
    Ok(())
}
