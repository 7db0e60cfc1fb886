//! Saves models again and writes `logits.safetensors` beside them, for `pipelines/parity.py --verify`.
//!
//! `logits OUT MODEL...`: OUT/NAME-f32 and OUT/NAME-bf16 for each model directory, tokenizer and templates copied.

use std::path::Path;

use cognate_model::{Dtype, Hidden, Model, Tensor};
use safetensors::tensor::{Dtype as Type, TensorView, serialize_to_file};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [out, models @ ..] = arguments.as_slice() else { return Err("OUT MODEL...".into()) };
    for from in models.iter().map(Path::new) {
        for (suffix, dtype) in [("f32", Dtype::F32), ("bf16", Dtype::Bf16)] {
            let name = from.file_name().ok_or("no name")?.to_string_lossy();
            let to = Path::new(out).join(format!("{name}-{suffix}"));
            std::fs::create_dir_all(&to)?;
            for entry in std::fs::read_dir(from)? {
                let path = entry?.path();
                let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                if ["tokenizer", "chat_template", "generation_config", "special_tokens"]
                    .iter()
                    .any(|p| file.starts_with(p))
                {
                    std::fs::copy(&path, to.join(file))?;
                }
            }
            Model::open(from)?.save(&to, dtype)?;
            write(&to)?;
            println!("{}", to.display());
        }
    }
    Ok(())
}

/// Logits of three documents under the model as it stands in `dir`.
fn write(dir: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let model = Model::open(dir)?;
    let (config, weights) = (model.config(), model.weights());
    let lengths = [7, 1, config.max_position_embeddings.min(150)];
    let starts: Vec<u32> = std::iter::once(0)
        .chain(lengths.iter().scan(0, |end, n| {
            *end += *n as u32;
            Some(*end)
        }))
        .collect();
    let total: usize = lengths.iter().sum();
    let tokens: Vec<u32> =
        (0..total).map(|t| ((t * t * 7 + t * 13 + 5) % config.vocab_size) as u32).collect();
    let head = weights.head.as_ref().unwrap_or(&weights.embedding);
    let mut logits = Tensor::zeros(model.device(), total, config.vocab_size);
    Hidden::new(&model, total).run(&model, &tokens, &starts, |layer, states| {
        if layer == config.num_hidden_layers {
            cognate_kernels::matmul::forward(&mut logits, states, head);
        }
    })?;
    let view = |dtype, shape: Vec<usize>, bytes| TensorView::new(dtype, shape, bytes);
    let parts = [
        ("tokens", view(Type::U32, vec![total], bytemuck::cast_slice(&tokens))?),
        ("starts", view(Type::U32, vec![starts.len()], bytemuck::cast_slice(&starts))?),
        ("logits", view(Type::F32, vec![total, config.vocab_size], bytemuck::cast_slice(logits.f32()))?),
    ];
    serialize_to_file(parts, None, &dir.join("logits.safetensors"))?;
    Ok(())
}
