//! Chat template and tokenizer: the one renderer of SFT and sampling
