//! The shape of a model, read from and written to Hugging Face's `config.json`. What is not
//! supported is refused by the name of its key, never ignored.

use std::path::Path;

use cognate_kernels::attention::Heads;
use cognate_kernels::rope::Scaling;
use serde_json::{Map, Value, json};

use crate::ModelError;

/// Which of the Llama-shaped architectures this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Architecture {
    #[default]
    Llama,
    /// As Llama, with a bias on queries, keys and values.
    Qwen2,
}

/// The shape of a Llama-architecture model. Field names are those of `config.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct LlamaConfig {
    pub architecture: Architecture,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: usize,
    /// Channels a head; even, and not always `hidden_size / num_attention_heads`.
    pub head_dim: usize,
    pub rms_norm_eps: f32,
    pub rope_theta: f64,
    pub rope_scaling: Scaling,
    pub max_position_embeddings: usize,
    pub tie_word_embeddings: bool,
    /// Standard deviation of fresh weights.
    pub initializer_range: f64,
    pub bos_token_id: Option<u32>,
    pub eos_token_id: Vec<u32>,
    pub pad_token_id: Option<u32>,
    /// Keys of the file that this crate does not read; written back.
    pub extra: Map<String, Value>,
}

impl Default for LlamaConfig {
    /// The shape of the `tiny` preset: 0.93 M parameters.
    fn default() -> Self {
        LlamaConfig {
            architecture: Architecture::Llama,
            vocab_size: 1024,
            hidden_size: 128,
            intermediate_size: 352,
            num_hidden_layers: 4,
            num_attention_heads: 4,
            num_key_value_heads: 4,
            head_dim: 32,
            rms_norm_eps: 1e-5,
            rope_theta: 1000.0,
            rope_scaling: Scaling::None,
            max_position_embeddings: 1024,
            tie_word_embeddings: true,
            initializer_range: 0.02,
            bos_token_id: None,
            eos_token_id: Vec::new(),
            pad_token_id: None,
            extra: Map::new(),
        }
    }
}

/// Keys that this file reads; every other one goes to `extra`.
const READ: &[&str] = &[
    "architectures",
    "model_type",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "rms_norm_eps",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "max_position_embeddings",
    "tie_word_embeddings",
    "initializer_range",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "hidden_act",
    "torch_dtype",
    "dtype",
];

impl LlamaConfig {
    /// Reads `config.json` in `dir`.
    pub fn read(dir: &Path) -> Result<Self, ModelError> {
        let path = dir.join("config.json");
        let text = std::fs::read_to_string(&path).map_err(ModelError::io(&path))?;
        Self::from_json(&text, &path)
    }

    /// Reads the text of a `config.json`; `origin` is named in errors.
    pub fn from_json(text: &str, origin: &Path) -> Result<Self, ModelError> {
        let value: Value = serde_json::from_str(text)
            .map_err(|e| ModelError::Format { path: origin.into(), reason: e.to_string() })?;
        let Value::Object(map) = value else {
            return Err(ModelError::Format { path: origin.into(), reason: "not a JSON object".into() });
        };
        let keys = Keys { map: &map, origin };
        let architecture = keys.architecture()?;
        keys.refuse_unsupported(architecture)?;
        let hidden_size = keys.size("hidden_size")?;
        let num_attention_heads = keys.size("num_attention_heads")?;
        let head_dim = match keys.optional_size("head_dim")? {
            Some(dim) => dim,
            None if hidden_size.is_multiple_of(num_attention_heads) => hidden_size / num_attention_heads,
            None => {
                return Err(keys.error("head_dim", "is missing, and hidden_size is no multiple of the heads"));
            }
        };
        let (rope_theta, rope_scaling) = keys.rope()?;
        let config = LlamaConfig {
            architecture,
            vocab_size: keys.size("vocab_size")?,
            hidden_size,
            intermediate_size: keys.size("intermediate_size")?,
            num_hidden_layers: keys.size("num_hidden_layers")?,
            num_attention_heads,
            num_key_value_heads: keys.optional_size("num_key_value_heads")?.unwrap_or(num_attention_heads),
            head_dim,
            rms_norm_eps: keys.number("rms_norm_eps")?.unwrap_or(1e-6) as f32,
            rope_theta,
            rope_scaling,
            max_position_embeddings: keys.optional_size("max_position_embeddings")?.unwrap_or(2048),
            tie_word_embeddings: keys.flag("tie_word_embeddings")?,
            initializer_range: keys.number("initializer_range")?.unwrap_or(0.02),
            bos_token_id: keys.tokens("bos_token_id")?.first().copied(),
            eos_token_id: keys.tokens("eos_token_id")?,
            pad_token_id: keys.tokens("pad_token_id")?.first().copied(),
            extra: map
                .iter()
                .filter(|(key, _)| !READ.contains(&key.as_str()))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
        };
        config.validate(origin)?;
        Ok(config)
    }

    /// Refuses shapes that no model can have; `origin` is named in the error.
    pub fn validate(&self, origin: &Path) -> Result<(), ModelError> {
        let error = |key: &str, reason: String| {
            Err(ModelError::Config { path: origin.into(), key: key.into(), reason })
        };
        for (key, value) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("head_dim", self.head_dim),
            ("max_position_embeddings", self.max_position_embeddings),
        ] {
            if value == 0 {
                return error(key, "must not be 0".into());
            }
        }
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            let (q, k) = (self.num_attention_heads, self.num_key_value_heads);
            return error("num_key_value_heads", format!("{k} does not divide num_attention_heads {q}"));
        }
        if !self.head_dim.is_multiple_of(2) {
            return error("head_dim", format!("{} is odd; rotary embedding needs pairs", self.head_dim));
        }
        if self.rms_norm_eps.is_nan() || self.rms_norm_eps < 0.0 {
            return error("rms_norm_eps", format!("{} is no small positive number", self.rms_norm_eps));
        }
        if self.rope_theta.is_nan() || self.rope_theta <= 0.0 {
            return error("rope_theta", format!("{} is not positive", self.rope_theta));
        }
        Ok(())
    }

    /// The `config.json` of this model, without a dtype (the writer adds it).
    pub fn to_json(&self) -> Value {
        let (name, kind) = match self.architecture {
            Architecture::Llama => ("LlamaForCausalLM", "llama"),
            Architecture::Qwen2 => ("Qwen2ForCausalLM", "qwen2"),
        };
        let mut map = Map::new();
        let mut put = |key: &str, value: Value| map.insert(key.into(), value);
        put("architectures", json!([name]));
        put("model_type", json!(kind));
        put("vocab_size", json!(self.vocab_size));
        put("hidden_size", json!(self.hidden_size));
        put("intermediate_size", json!(self.intermediate_size));
        put("num_hidden_layers", json!(self.num_hidden_layers));
        put("num_attention_heads", json!(self.num_attention_heads));
        put("num_key_value_heads", json!(self.num_key_value_heads));
        put("head_dim", json!(self.head_dim));
        put("hidden_act", json!("silu"));
        // Through its shortest decimal form: 1e-5, not 9.999999747378752e-6.
        put("rms_norm_eps", json!(self.rms_norm_eps.to_string().parse::<f64>().unwrap_or(1e-6)));
        put("rope_theta", json!(self.rope_theta));
        put("rope_scaling", scaling_to_json(self.rope_scaling));
        put("max_position_embeddings", json!(self.max_position_embeddings));
        put("tie_word_embeddings", json!(self.tie_word_embeddings));
        put("initializer_range", json!(self.initializer_range));
        put("bos_token_id", json!(self.bos_token_id));
        put(
            "eos_token_id",
            match self.eos_token_id.as_slice() {
                [] => Value::Null,
                [one] => json!(one),
                many => json!(many),
            },
        );
        put("pad_token_id", json!(self.pad_token_id));
        for (key, value) in &self.extra {
            map.insert(key.clone(), value.clone());
        }
        Value::Object(map)
    }

    /// Number of trained values.
    pub fn parameters(&self) -> usize {
        let (c, f, row) = (self.hidden_size, self.intermediate_size, self.heads().row());
        let bias = if self.has_bias() { row } else { 0 };
        let layer = 2 * c + row * c + bias + c * self.heads().out() + 3 * c * f;
        let embeddings = if self.tie_word_embeddings { 1 } else { 2 } * self.vocab_size * c;
        embeddings + self.num_hidden_layers * layer + c
    }

    /// Floating-point operations of forward and backward for one token at mean context `context`:
    /// three times the forward's two a multiply-add, the classifier counted.
    pub fn flops_per_token(&self, context: f64) -> f64 {
        let (c, f) = (self.hidden_size, self.intermediate_size);
        let layer = c * self.heads().row() + c * self.heads().out() + 3 * c * f;
        let dense = self.num_hidden_layers * layer + self.vocab_size * c;
        let attention = (2 * self.num_hidden_layers * self.heads().out()) as f64 * context;
        6.0 * (dense as f64 + attention)
    }

    /// Whether queries, keys and values have a bias.
    pub fn has_bias(&self) -> bool {
        self.architecture == Architecture::Qwen2
    }

    /// The heads of an attention layer.
    pub fn heads(&self) -> Heads {
        Heads { query: self.num_attention_heads, key: self.num_key_value_heads, dim: self.head_dim }
    }
}

fn scaling_to_json(scaling: Scaling) -> Value {
    match scaling {
        Scaling::None => Value::Null,
        Scaling::Linear { factor } => json!({"rope_type": "linear", "factor": factor}),
        Scaling::Dynamic { factor } => json!({"rope_type": "dynamic", "factor": factor}),
        Scaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position } => json!({
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low_freq_factor,
            "high_freq_factor": high_freq_factor,
            "original_max_position_embeddings": original_max_position as u64,
        }),
    }
}

/// Typed access to the keys of one file.
struct Keys<'a> {
    map: &'a Map<String, Value>,
    origin: &'a Path,
}

impl Keys<'_> {
    fn error(&self, key: &str, reason: impl Into<String>) -> ModelError {
        ModelError::Config { path: self.origin.into(), key: key.into(), reason: reason.into() }
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    fn optional_size(&self, key: &str) -> Result<Option<usize>, ModelError> {
        self.get(key)
            .map(|value| {
                let size = value.as_u64().and_then(|n| usize::try_from(n).ok());
                size.ok_or_else(|| self.error(key, format!("{value} is not a whole number")))
            })
            .transpose()
    }

    fn size(&self, key: &str) -> Result<usize, ModelError> {
        match self.optional_size(key)? {
            Some(0) => Err(self.error(key, "must not be 0")),
            Some(size) => Ok(size),
            None => Err(self.error(key, "is missing")),
        }
    }

    fn number(&self, key: &str) -> Result<Option<f64>, ModelError> {
        self.get(key)
            .map(|value| value.as_f64().ok_or_else(|| self.error(key, format!("{value} is not a number"))))
            .transpose()
    }

    fn flag(&self, key: &str) -> Result<bool, ModelError> {
        self.get(key).map_or(Ok(false), |value| {
            value.as_bool().ok_or_else(|| self.error(key, format!("{value} is neither true nor false")))
        })
    }

    /// One token id or a list of them.
    fn tokens(&self, key: &str) -> Result<Vec<u32>, ModelError> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let token = |value: &Value| {
            let id = value.as_u64().and_then(|n| u32::try_from(n).ok());
            id.ok_or_else(|| self.error(key, format!("{value} is not a token id")))
        };
        match value {
            Value::Array(list) => list.iter().map(token).collect(),
            one => Ok(vec![token(one)?]),
        }
    }

    fn architecture(&self) -> Result<Architecture, ModelError> {
        let name = match self.get("architectures") {
            Some(Value::Array(list)) => list.first().and_then(Value::as_str),
            Some(_) => None,
            None => match self.get("model_type").and_then(Value::as_str) {
                Some("llama") => Some("LlamaForCausalLM"),
                Some("qwen2") => Some("Qwen2ForCausalLM"),
                _ => None,
            },
        };
        match name {
            Some("LlamaForCausalLM") => Ok(Architecture::Llama),
            Some("Qwen2ForCausalLM") => Ok(Architecture::Qwen2),
            Some(other) => {
                let reason = format!("{other} is not supported (LlamaForCausalLM, Qwen2ForCausalLM are)");
                Err(self.error("architectures", reason))
            }
            None => Err(self.error("architectures", "is missing")),
        }
    }

    fn refuse_unsupported(&self, architecture: Architecture) -> Result<(), ModelError> {
        let refused: &[&str] = match architecture {
            Architecture::Llama => &["attention_bias", "mlp_bias"],
            Architecture::Qwen2 => &["use_sliding_window"],
        };
        for key in refused {
            if self.flag(key)? {
                return Err(self.error(key, "true is not supported"));
            }
        }
        // What would change the result where it has another value than the usual one.
        for (key, usual) in
            [("attention_dropout", 0.0), ("partial_rotary_factor", 1.0), ("pretraining_tp", 1.0)]
        {
            if let Some(x) = self.number(key)?.filter(|x| *x != usual) {
                return Err(self.error(key, format!("{x} is not supported, only {usual}")));
            }
        }
        if let Some(Value::Array(layers)) = self.get("layer_types")
            && let Some(other) = layers.iter().find(|kind| kind.as_str() != Some("full_attention"))
        {
            return Err(self.error("layer_types", format!("{other} is not supported, only full_attention")));
        }
        if let Some(act) = self.get("hidden_act").filter(|act| act.as_str() != Some("silu")) {
            return Err(self.error("hidden_act", format!("{act} is not supported, only \"silu\"")));
        }
        if self.get("quantization_config").is_some() {
            return Err(self.error("quantization_config", "quantized weights are not supported"));
        }
        Ok(())
    }

    /// Base and scaling, from `rope_theta` and `rope_scaling` or from `rope_parameters`, which
    /// newer files have instead.
    fn rope(&self) -> Result<(f64, Scaling), ModelError> {
        let nested = |key| match self.get(key) {
            Some(Value::Object(map)) => Ok(Some(Keys { map, origin: self.origin })),
            Some(other) => Err(self.error(key, format!("{other} is not an object"))),
            None => Ok(None),
        };
        let parameters = nested("rope_parameters")?;
        let theta = match &parameters {
            Some(keys) => keys.number("rope_theta")?,
            None => None,
        };
        let theta = match theta {
            Some(theta) => theta,
            None => self.number("rope_theta")?.unwrap_or(10_000.0),
        };
        let key = if parameters.is_some() { "rope_parameters" } else { "rope_scaling" };
        let Some(keys) = (match parameters {
            Some(keys) => Some(keys),
            None => nested("rope_scaling")?,
        }) else {
            return Ok((theta, Scaling::None));
        };
        if let Some(x) = keys.number("partial_rotary_factor")?.filter(|x| *x != 1.0) {
            return Err(self.error(key, format!("partial_rotary_factor {x} is not supported, only 1")));
        }
        let kind = keys.get("rope_type").or_else(|| keys.get("type")).and_then(Value::as_str);
        let need = |name: &str| match keys.number(name)? {
            Some(x) if x > 0.0 => Ok(x),
            _ => Err(self.error(key, format!("{name} is missing or not positive"))),
        };
        let scaling = match kind {
            None | Some("default") => Scaling::None,
            Some("linear") => Scaling::Linear { factor: need("factor")? },
            Some("dynamic") => Scaling::Dynamic { factor: need("factor")? },
            Some("llama3") => Scaling::Llama3 {
                factor: need("factor")?,
                low_freq_factor: need("low_freq_factor")?,
                high_freq_factor: need("high_freq_factor")?,
                original_max_position: need("original_max_position_embeddings")?,
            },
            Some(other) => {
                let reason = format!("type {other:?} is not supported (linear, dynamic and llama3 are)");
                return Err(self.error(key, reason));
            }
        };
        Ok((theta, scaling))
    }
}
