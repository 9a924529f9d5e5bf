//! What can be wrong with feedback: which file, line and field.

use std::path::PathBuf;

use togi_data::DataError;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FeedbackError {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The data could not be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A row of the data has nothing to judge, or a line of a log is damaged.
    #[error("{place}: {reason}")]
    Row {
        /// File and line.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// An option has a value that means nothing.
    #[error("{name}: {reason}")]
    Option {
        /// What it is called.
        name: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Somebody who is not on the list of annotators.
    #[error("{0}")]
    Annotator(String),
    /// Input or output is a file or a pipe.
    #[error("{0} is not a terminal: people judge in one, so run this in a terminal, without pipes")]
    NotATerminal(&'static str),
    /// The terminal could not be read or drawn.
    #[error("terminal: {0}")]
    Terminal(std::io::Error),
}

impl FeedbackError {
    /// True if what the user gave is at fault, not what happened while running.
    pub fn is_input(&self) -> bool {
        match self {
            Self::Io { source, .. } => togi_data::error::is_input(source),
            Self::Data(error) => error.is_input(),
            Self::Terminal(_) => false,
            _ => true,
        }
    }

    pub(crate) fn row(place: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Row {
            place: place.into(),
            reason: reason.into(),
        }
    }

    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
