//! The plan against what is allocated, and against the published shape of Llama-3.1-8B.

use cognate_model::{Batch, LlamaConfig, Model, Objective, Plan, Recompute, Setup, Target, Trainer};

const LEVELS: [Recompute; 3] = [Recompute::None, Recompute::FeedForward, Recompute::Block];

fn bytes(plan: &Plan, names: &[&str]) -> usize {
    plan.items.iter().filter(|i| names.contains(&i.name)).map(|i| i.bytes).sum()
}

#[test]
fn activations_are_planned_to_the_line() {
    for (layers, key_heads) in [(4, 4), (2, 1)] {
        let config = LlamaConfig {
            num_hidden_layers: layers,
            num_key_value_heads: key_heads,
            ..LlamaConfig::default()
        };
        let model = Model::init(&config, 1).unwrap();
        let tokens = vec![7; 200];
        let mut weights = vec![1.0; 200];
        weights[0] = 0.0;
        let batch = Batch { tokens: &tokens, starts: &[0, 200], cross_entropy: &weights, policy: None };
        for level in LEVELS {
            let mut trainer = Trainer::with(&model, tokens.len(), level);
            trainer.accumulate(&model, &batch, &Objective::default()).unwrap();
            let (tokens, length) = (tokens.len(), tokens.len());
            let plan = Plan::new(&config, &Setup { tokens, length, recompute: level, ..Setup::default() });
            let names =
                ["residual stream", "attention", "feed-forward", "norms and log-sum-exps", "final norm"];
            let (planned, held) = (bytes(&plan, &names), trainer.activation_bytes());
            // Each tensor ends on a line of 64 bytes.
            assert!(planned <= held && held < planned + 64 * 16 * layers, "{level:?}: {planned}, {held}");
        }
    }
}

#[test]
fn llama_8b_fits_one_gpu_of_141_gb_where_it_should() {
    let config = LlamaConfig {
        vocab_size: 128_256,
        hidden_size: 4096,
        intermediate_size: 14_336,
        num_hidden_layers: 32,
        num_attention_heads: 32,
        num_key_value_heads: 8,
        head_dim: 128,
        max_position_embeddings: 131_072,
        tie_word_embeddings: false,
        ..LlamaConfig::default()
    };
    assert_eq!(config.parameters(), 8_030_261_248);
    let plan = |tokens, recompute| {
        let setup = Setup { target: Target::Cuda, tokens, length: 4096, recompute, ..Setup::default() };
        Plan::new(&config, &setup)
    };
    let state = ["weights", "weights' remainder", "gradients", "moments"];
    assert_eq!(bytes(&plan(1, Recompute::None), &state), 80_302_612_480);
    // Eight ranks share out the moments, and nothing else.
    let setup = Setup { target: Target::Cuda, tokens: 1, length: 4096, ranks: 8, ..Setup::default() };
    let eighth = Plan::new(&config, &setup);
    assert_eq!(bytes(&eighth, &["moments"]), 4 * 8_030_261_248 / 8);
    assert_eq!(plan(1, Recompute::None).bytes() - eighth.bytes(), 4 * 8_030_261_248 / 8 * 7);
    let gigabytes = |tokens, level| plan(tokens, level).bytes() as f64 / 1e9;
    assert!(gigabytes(16_384, Recompute::None) < 141.0);
    assert!(gigabytes(32_768, Recompute::None) > 141.0, "and not without end");
    assert!(gigabytes(32_768, Recompute::FeedForward) < 141.0);
    assert!(gigabytes(131_072, Recompute::Block) > 141.0);
    // What is computed again is the work of one forward of the layers, at most.
    let block = plan(16_384, Recompute::Block);
    assert!(block.recomputed < block.flops / 3.0 && block.recomputed > block.flops / 5.0);
    assert_eq!(plan(16_384, Recompute::None).recomputed, 0.0);
    println!("{}", plan(16_384, Recompute::None));
}
