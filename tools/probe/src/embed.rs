//! Runs documents through the model and keeps one vector a document for each layer and pooling.

use anyhow::Context;
use clap::ValueEnum;
use cognate_cli::{Progress, rejected};
use cognate_kernels::{Device, Tensor, pooling};
use cognate_model::ModelError;
use cognate_model::placed::{Hidden, Model};

use crate::document::Document;

/// How the states of a document's tokens become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Pooling {
    /// Mean over the program's own tokens.
    Mean,
    /// The document's last token.
    Last,
}

impl Pooling {
    pub fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Last => "last",
        }
    }
}

/// The vectors of all documents under one layer and one pooling, `[documents, hidden]` row-major.
#[derive(Debug, Clone)]
pub struct Vectors {
    pub layer: usize,
    pub pooling: Pooling,
    pub values: Vec<f32>,
}

/// Most tokens of one forward pass, documents packed without padding; a longer document runs alone.
const BATCH_TOKENS: usize = 4096;

/// Reads every document once. Layer 0 is the embedding, layer l the output of block l (the last one after the final
/// norm).
///
/// # Errors
/// When the model fails.
pub fn embed(
    model: &Model,
    documents: &[Document],
    layers: &[usize],
    poolings: &[Pooling],
    progress: &Progress,
) -> anyhow::Result<Vec<Vectors>> {
    let longest = documents.iter().map(|d| d.ids.len()).max().unwrap_or(0);
    let mut hidden = Hidden::new(model, longest.max(BATCH_TOKENS)).map_err(fault)?;
    let mut all: Vec<Vectors> = layers
        .iter()
        .flat_map(|&layer| {
            poolings.iter().map(move |&pooling| Vectors { layer, pooling, values: Vec::new() })
        })
        .collect();
    let mut pooled = Tensor::zeros(Device::Cpu, 1, model.config().hidden_size);
    let mut rest = documents;
    while !rest.is_empty() {
        let (batch, later) = rest.split_at(fitting(rest));
        rest = later;
        let (mut tokens, mut starts, mut thirds) = (Vec::new(), vec![0u32], vec![0u32]);
        for document in batch {
            let start = tokens.len();
            tokens.extend_from_slice(&document.ids);
            // Head, program and tail of the document, so that the mean can be read off the middle.
            thirds.extend(
                [start + document.program.start, start + document.program.end, tokens.len()]
                    .map(|n| n as u32),
            );
            starts.push(tokens.len() as u32);
        }
        hidden
            .run(model, &tokens, &starts, |layer, states| {
                for vectors in all.iter_mut().filter(|v| v.layer == layer) {
                    match vectors.pooling {
                        Pooling::Mean => {
                            pooling::mean(&mut pooled, states, &thirds);
                            (0..batch.len())
                                .for_each(|d| vectors.values.extend_from_slice(pooled.row(3 * d + 1)));
                        }
                        Pooling::Last => {
                            pooling::last(&mut pooled, states, &starts);
                            vectors.values.extend_from_slice(pooled.f32());
                        }
                    }
                }
            })
            .map_err(fault)
            .context("reading programs")?;
        progress.inc(batch.len() as u64);
    }
    Ok(all)
}

/// What is the data's fault, and what is not.
pub fn fault(e: ModelError) -> anyhow::Error {
    if e.is_data() { rejected(e) } else { e.into() }
}

/// How many of the next documents go into one pass.
fn fitting(documents: &[Document]) -> usize {
    let mut tokens = 0;
    let fit = documents.iter().take_while(|d| {
        tokens += d.ids.len();
        tokens <= BATCH_TOKENS
    });
    fit.count().max(1)
}
