//! What can go wrong with a model.

use std::path::PathBuf;

/// An error of this crate: where, what, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// A file or folder could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file is not what its name says.
    #[error("{}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where in the file.
        reason: String,
    },
    /// A field of a model's configuration is missing or out of range.
    #[error("{place}: field `{field}`: {reason}")]
    Config {
        /// The file or source.
        place: String,
        /// The field.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The model asks for something that is not implemented.
    #[error("{place}: {what} is not supported; supported: {supported}")]
    Unsupported {
        /// The file or source.
        place: String,
        /// What it asks for.
        what: String,
        /// What there is.
        supported: String,
    },
    /// Tensors that the configuration asks for are not there.
    #[error("{place}: missing tensors: {}", list(names))]
    MissingTensors {
        /// The file or source.
        place: String,
        /// Their names.
        names: Vec<String>,
    },
    /// Tensors that the configuration does not know.
    #[error(
        "{place}: tensors that a model of this configuration does not have: {}",
        list(names)
    )]
    ExtraTensors {
        /// The file or source.
        place: String,
        /// Their names.
        names: Vec<String>,
    },
    /// A tensor has another shape than the configuration asks for.
    #[error(
        "{place}: tensor `{name}` has shape {found:?}, the configuration asks for {expected:?}"
    )]
    Shape {
        /// The file or source.
        place: String,
        /// The tensor.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape asked for.
        expected: Vec<usize>,
    },
    /// The tokenizer has more tokens than the model.
    #[error(
        "{place}: the tokenizer has {tokens} tokens but the model's vocabulary is {vocab_size}; \
         they do not belong together"
    )]
    Vocabulary {
        /// The file or source.
        place: String,
        /// Tokens of the tokenizer.
        tokens: usize,
        /// Rows of the model's embedding.
        vocab_size: usize,
    },
    /// A token id outside the vocabulary.
    #[error("token id {id} is outside the model's vocabulary of {vocab_size}")]
    TokenOutsideVocabulary {
        /// The id.
        id: u32,
        /// Size of the vocabulary.
        vocab_size: usize,
    },
    /// A sequence longer than the model's positions.
    #[error("a sequence of {tokens} tokens is longer than the model's {limit} positions")]
    TooLong {
        /// Tokens of the sequence.
        tokens: usize,
        /// Positions of the model.
        limit: usize,
    },
    /// An empty sequence where a token is needed.
    #[error("sequence {index} of the batch is empty")]
    EmptySequence {
        /// Its place in the batch.
        index: usize,
    },
    /// A sampling field is out of range.
    #[error("sampling: `{field}`: {reason}")]
    Sampling {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// An adapter's field is out of range or does not fit the model.
    #[error("lora: `{field}`: {reason}")]
    Lora {
        /// The field.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A model could not be brought here.
    #[error("{spec}: {reason}")]
    Fetch {
        /// What was to be fetched.
        spec: String,
        /// Why it is not to be had.
        reason: String,
    },
    /// A model source is not what it should be.
    #[error("{spec}: {reason}")]
    Source {
        /// What was asked for.
        spec: String,
        /// Why it is not to be had, and what to do.
        reason: String,
    },
    /// The tokenizer could not be read or written.
    #[error(transparent)]
    Data(#[from] togi_data::DataError),
    /// The model computed something that is not a number.
    #[error("the model's logits for prompt {prompt} at position {position} are not finite")]
    NotFinite {
        /// The prompt's number.
        prompt: u64,
        /// The position.
        position: usize,
    },
    /// A completion cannot keep its constraint.
    #[error("the constraint of prompt {prompt}: {source}")]
    Constraint {
        /// The prompt's place in the request.
        prompt: usize,
        /// Why not.
        source: crate::constraint::ConstraintError,
    },
}

fn list(names: &[String]) -> String {
    const SHOWN: usize = 8;
    let mut text = names
        .iter()
        .take(SHOWN)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > SHOWN {
        text.push_str(&format!(" and {} more", names.len() - SHOWN));
    }
    text
}

impl PolicyError {
    /// True if what the user gave is at fault, not what happened while running.
    pub fn is_input(&self) -> bool {
        match self {
            Self::Io { source, .. } => togi_data::error::is_input(source),
            Self::Data(error) => error.is_input(),
            Self::Fetch { .. } | Self::NotFinite { .. } => false,
            _ => true,
        }
    }

    /// Wraps an I/O error with its path.
    pub fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    pub(crate) fn malformed(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Self::Malformed {
            path: path.into(),
            reason: reason.into(),
        }
    }
}
