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

/// True if a file that was named is not there or not to be used, rather than a disk that is full.
pub fn is_input(error: &std::io::Error) -> bool {
    use std::io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::NotFound
            | Kind::PermissionDenied
            | Kind::InvalidInput
            | Kind::InvalidData
            | Kind::UnexpectedEof
            | Kind::IsADirectory
            | Kind::NotADirectory
            | Kind::AlreadyExists
    )
}

impl DataError {
    /// True if what the user gave is at fault, not what happened while running.
    pub fn is_input(&self) -> bool {
        !matches!(self, Self::Io { source, .. } if !is_input(source))
    }

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
