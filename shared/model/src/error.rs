//! What can go wrong with a model, its files and its batches.

use std::path::PathBuf;

use cognate_collective::CollectiveError;
use cognate_kernels::cuda::launch::CudaError;

/// An error of this crate. Texts are fragments that name the place and the cause.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A file that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    /// A file that is not what its name says.
    #[error("{}: {reason}", path.display())]
    Format { path: PathBuf, reason: String },
    /// A configuration that this suite does not support, or that contradicts itself.
    #[error("{}: {key}: {reason}", path.display())]
    Config { path: PathBuf, key: String, reason: String },
    /// A tensor that the configuration asks for and no file has.
    #[error("{}: tensor {name} is missing", path.display())]
    MissingTensor { path: PathBuf, name: String },
    /// A tensor that the configuration knows nothing of.
    #[error("{}: tensor {name} does not belong to this architecture", path.display())]
    ExtraTensor { path: PathBuf, name: String },
    /// A tensor of another shape than the configuration gives.
    #[error("{}: tensor {name} has shape {found:?}, config.json asks for {expected:?}", path.display())]
    Shape { path: PathBuf, name: String, expected: Vec<usize>, found: Vec<usize> },
    /// A tensor of a type that is not read.
    #[error("{}: tensor {name} has dtype {dtype}, not F32, BF16 or F16", path.display())]
    TensorType { path: PathBuf, name: String, dtype: String },
    /// A token beyond the vocabulary.
    #[error("token {token} at position {index} is beyond the vocabulary of {vocabulary}")]
    Token { index: usize, token: u32, vocabulary: usize },
    /// A document or sequence beyond the context.
    #[error("document {document} has {length} tokens, more than the context of {context}")]
    TooLong { document: usize, length: usize, context: usize },
    /// A batch that contradicts itself.
    #[error("batch: {0}")]
    Batch(String),
    /// A decoder asked for more than it was made for.
    #[error("decoder: {0}")]
    Capacity(String),
    /// A device that is not there, that failed, or that has too little memory.
    #[error(transparent)]
    Device(#[from] CudaError),
    /// Another process of a data-parallel run that has ended, or the way to it.
    #[error(transparent)]
    Ranks(#[from] CollectiveError),
}

impl ModelError {
    /// Whether the data are at fault (exit 3) rather than the machine (exit 1).
    pub fn is_data(&self) -> bool {
        match self {
            ModelError::Io { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
            ModelError::Device(error) => matches!(error, CudaError::Missing(_) | CudaError::NoDevice { .. }),
            ModelError::Ranks(error) => matches!(error, CollectiveError::Missing(_)),
            ModelError::Capacity(_) => false,
            _ => true,
        }
    }

    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> ModelError {
        let path = path.into();
        move |source| ModelError::Io { path, source }
    }
}
