//! Model directories: written, read, in shards, broken, unsupported.

use std::path::Path;

use cognate_model::{Dtype, LlamaConfig, Model, ModelError, Scaling};

use crate::reference::named;
use crate::{model, shapes};

#[test]
fn directories_round_trip() {
    for (i, mut config) in shapes().into_iter().enumerate() {
        config.eos_token_id = (0..i as u32).collect();
        config.extra.insert("use_cache".into(), true.into());
        config.rope_scaling = [
            Scaling::None,
            Scaling::Linear { factor: 2.0 },
            Scaling::Llama3 {
                factor: 8.0,
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_max_position: 32.0,
            },
        ][i];
        let model = model(&config);
        let dir = tempfile::tempdir().unwrap();
        model.save(dir.path(), Dtype::F32).unwrap();
        let bytes = std::fs::read(dir.path().join("model.safetensors")).unwrap();
        let again = Model::open(dir.path()).unwrap();
        assert_eq!(again.config(), &config.clone());
        assert!(named(&again) == named(&model));
        let other = tempfile::tempdir().unwrap();
        again.save(other.path(), Dtype::F32).unwrap();
        assert!(std::fs::read(other.path().join("model.safetensors")).unwrap() == bytes, "same bytes");
        again.save(other.path(), Dtype::Bf16).unwrap();
        let half = Model::open(other.path()).unwrap();
        for (name, values) in named(&half) {
            for (a, b) in values.iter().zip(&named(&model)[&name]) {
                assert!((a - b).abs() <= b.abs() / 256.0, "{name}: {a} against {b}");
            }
        }
    }
}

/// Splits a saved model into two shards with an index, leaving out what `keep` refuses.
fn shard(dir: &Path, keep: impl Fn(&str) -> bool) {
    use safetensors::tensor::{SafeTensors, serialize_to_file};
    let bytes = std::fs::read(dir.join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let (mut map, mut shards) = (serde_json::Map::new(), [Vec::new(), Vec::new()]);
    for (i, (name, view)) in tensors.iter().filter(|(name, _)| keep(name)).enumerate() {
        map.insert(name.to_owned(), format!("model-{}.safetensors", i % 2).into());
        shards[i % 2].push((name.to_owned(), view));
    }
    for (i, shard) in shards.into_iter().enumerate() {
        serialize_to_file(shard, None, &dir.join(format!("model-{i}.safetensors"))).unwrap();
    }
    let index = serde_json::json!({ "weight_map": map }).to_string();
    std::fs::write(dir.join("model.safetensors.index.json"), index).unwrap();
    std::fs::remove_file(dir.join("model.safetensors")).unwrap();
}

#[test]
fn shards_are_read_and_faults_are_named() {
    let config = &shapes()[0];
    let model = model(config);
    let saved = || {
        let dir = tempfile::tempdir().unwrap();
        model.save(dir.path(), Dtype::F32).unwrap();
        dir
    };
    let dir = saved();
    shard(dir.path(), |_| true);
    assert!(named(&Model::open(dir.path()).unwrap()) == named(&model));

    let dir = saved();
    shard(dir.path(), |name| name != "model.layers.1.mlp.up_proj.weight");
    let error = Model::open(dir.path()).unwrap_err();
    assert!(
        matches!(&error, ModelError::MissingTensor { name, .. } if name == "model.layers.1.mlp.up_proj.weight")
    );
    assert!(error.is_data());

    // A config of another shape: the tensor and both shapes are named.
    let dir = saved();
    let other = LlamaConfig { intermediate_size: 48, ..config.clone() };
    std::fs::write(dir.path().join("config.json"), other.to_json().to_string()).unwrap();
    let error = Model::open(dir.path()).unwrap_err().to_string();
    assert!(
        error.contains("mlp.gate_proj.weight has shape [40, 24]") && error.contains("[48, 24]"),
        "{error}"
    );

    let dir = saved();
    let other = LlamaConfig { num_hidden_layers: 1, ..config.clone() };
    std::fs::write(dir.path().join("config.json"), other.to_json().to_string()).unwrap();
    assert!(matches!(Model::open(dir.path()).unwrap_err(), ModelError::ExtraTensor { .. }));

    let dir = saved();
    let path = dir.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let error = Model::open(dir.path()).unwrap_err();
    assert!(matches!(error, ModelError::Format { .. }) && error.is_data());

    std::fs::remove_file(&path).unwrap();
    let error = Model::open(dir.path()).unwrap_err();
    assert!(error.is_data() && error.to_string().contains("model.safetensors"), "{error}");
}

#[test]
fn unsupported_configurations_are_refused_by_key() {
    let good = shapes()[0].to_json();
    let read = |key: &str, value: serde_json::Value| {
        let mut config = good.clone();
        config[key] = value;
        LlamaConfig::from_json(&config.to_string(), Path::new("config.json"))
    };
    assert!(read("use_cache", true.into()).is_ok());
    for (key, value) in [
        ("architectures", serde_json::json!(["GPT2LMHeadModel"])),
        ("attention_bias", true.into()),
        ("mlp_bias", true.into()),
        ("attention_dropout", 0.1.into()),
        ("partial_rotary_factor", 0.5.into()),
        ("pretraining_tp", 2.into()),
        ("layer_types", serde_json::json!(["full_attention", "sliding_attention"])),
        ("hidden_act", "gelu".into()),
        ("rope_scaling", serde_json::json!({"rope_type": "yarn", "factor": 4.0})),
        ("rope_scaling", serde_json::json!({"rope_type": "linear"})),
        ("quantization_config", serde_json::json!({})),
        ("num_key_value_heads", 3.into()),
        ("head_dim", 7.into()),
        ("vocab_size", "many".into()),
        ("hidden_size", serde_json::Value::Null),
    ] {
        let error = read(key, value).unwrap_err();
        assert!(
            error.is_data() && error.to_string().starts_with(&format!("config.json: {key}: ")),
            "{error}"
        );
    }
    let newer = r#"{"model_type": "llama", "vocab_size": 8, "hidden_size": 8, "intermediate_size": 8,
        "num_hidden_layers": 1, "num_attention_heads": 2,
        "rope_parameters": {"rope_theta": 500000.0, "rope_type": "linear", "factor": 4.0}}"#;
    let config = LlamaConfig::from_json(newer, Path::new("x")).unwrap();
    assert_eq!((config.rope_theta, config.rope_scaling), (5e5, Scaling::Linear { factor: 4.0 }));
    assert_eq!((config.head_dim, config.num_key_value_heads), (4, 2));
}
