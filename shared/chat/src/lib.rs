//! Chat template and tokenizer: the one renderer of SFT and sampling.
//!
//! What a model is trained on and what it is asked must be the same token ids, so both come from here. A [`Chat`] is
//! a Hugging Face tokenizer directory (`tokenizer.json`, `tokenizer_config.json`, a Jinja chat template in one of
//! its three places). [`Chat::prompt`] renders what a sampler is given, [`Chat::conversation`] what SFT trains: the
//! same prompt ids, then the answer tokenised on its own, with its loss weights.
//!
//! Text that is content (statements, programs, answers) never yields a control token: a special-token string inside
//! it is encoded as the characters it is made of.

mod chat;
mod directory;
mod error;
mod guard;
mod recipe;
mod template;

pub use chat::{Chat, Masked, Rendered};
pub use error::ChatError;
pub use recipe::{Special, TINY_TEMPLATE, TokenizerRecipe, byte_alphabet};

pub type Result<T, E = ChatError> = std::result::Result<T, E>;
