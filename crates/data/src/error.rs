//! What can be wrong with data: which file, line and field.

use std::path::PathBuf;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A row can be read but not used.
    #[error("{place}: {reason}")]
    Row {
        /// File and line.
        place: String,
        /// What is wrong, and with which field.
        reason: String,
    },
    /// A row cannot be read: bad JSON, or no object.
    #[error("{place}: {reason}")]
    Malformed {
        /// File and line.
        place: String,
        /// What is wrong, and where in the line.
        reason: String,
    },
    /// A file as a whole is wrong.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A tokenizer could not be read or used.
    #[error("tokenizer{place}: {reason}")]
    Tokenizer {
        /// The file, after ` of `, or nothing.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// A chat template could not be used.
    #[error("chat template: {reason}")]
    Template {
        /// What is wrong.
        reason: String,
    },
    /// The lab was asked about a text that is not its own.
    #[error("lab: {reason}")]
    Lab {
        /// What is wrong.
        reason: String,
    },
}

impl DataError {
    pub(crate) fn row(place: &str, reason: impl Into<String>) -> Self {
        Self::Row {
            place: place.to_owned(),
            reason: reason.into(),
        }
    }

    pub(crate) fn malformed(place: &str, reason: impl Into<String>) -> Self {
        Self::Malformed {
            place: place.to_owned(),
            reason: reason.into(),
        }
    }

    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
