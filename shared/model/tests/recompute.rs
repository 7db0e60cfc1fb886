//! What the backward computes again is what the forward would have kept: the same bits, less memory.

use cognate_model::{Architecture, Batch, LlamaConfig, Model, Objective, Recompute, Trainer};

/// Log-probabilities and every gradient, as bits, and the bytes of the activations.
fn learned(model: &Model, lengths: &[usize], recompute: Recompute) -> (Vec<u32>, usize) {
    let total: usize = lengths.iter().sum();
    let vocabulary = model.config().vocab_size;
    let tokens: Vec<u32> = (0..total).map(|t| ((t * t * 7 + t * 13 + 5) % vocabulary) as u32).collect();
    let mut starts = vec![0u32];
    lengths.iter().for_each(|n| starts.push(starts[starts.len() - 1] + *n as u32));
    let mut weights = vec![1.0; total];
    starts[..lengths.len()].iter().for_each(|&s| weights[s as usize] = 0.0);
    let batch = Batch { tokens: &tokens, starts: &starts, cross_entropy: &weights, policy: None };
    let mut trainer = Trainer::with(model, total, recompute);
    // Twice, so that what an earlier batch left in the arena would show.
    for _ in 0..2 {
        trainer.accumulate(model, &batch, &Objective::default()).unwrap();
    }
    let gradients = trainer.gradients().tensors();
    let values = gradients.iter().flat_map(|g| g.f32()).chain(trainer.logprobs());
    let bits = values.map(|x| x.to_bits()).collect();
    (bits, trainer.activation_bytes())
}

#[test]
fn every_level_gives_the_same_bits_in_less_memory() {
    for (architecture, layers, key_heads, tied) in [
        (Architecture::Llama, 4, 2, true),
        (Architecture::Qwen2, 3, 4, false),
        (Architecture::Llama, 1, 1, true),
    ] {
        let config = LlamaConfig {
            architecture,
            vocab_size: 131,
            num_hidden_layers: layers,
            num_key_value_heads: key_heads,
            tie_word_embeddings: tied,
            initializer_range: 0.2,
            ..LlamaConfig::default()
        };
        let model = Model::init(&config, 5).unwrap();
        let lengths = [70, 1, 33, 96];
        let (kept, all) = learned(&model, &lengths, Recompute::None);
        assert!(kept.iter().any(|bits| *bits != 0), "there is something to compare");
        let (half, less) = learned(&model, &lengths, Recompute::FeedForward);
        let (block, least) = learned(&model, &lengths, Recompute::Block);
        assert!(kept == half && kept == block, "{layers} layers: gradients are the same bits");
        if layers > 1 {
            assert!(least < less && less < all, "{layers} layers: {all}, {less}, {least} bytes");
        }
    }
}
