//! What can end a run.

use std::path::PathBuf;

use togi_data::DataError;
use togi_policy::PolicyError;
use togi_rl_algos::AlgoError;

/// An error of a recipe. [`TrainError::is_input`] tells the user's mistakes (exit status 2) from
/// failures while running (1).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The configuration is wrong.
    #[error("{place}: {reason}")]
    Config {
        /// File, or `--set key`.
        place: String,
        /// What is wrong and what there is instead.
        reason: String,
    },
    /// The data is wrong.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The model is wrong, or failed.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// An objective got what it cannot work with.
    #[error(transparent)]
    Algo(#[from] AlgoError),
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The output folder cannot be used.
    #[error("{}: {reason}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why not, and what to do.
        reason: String,
    },
    /// There is too little memory to go on.
    #[error(
        "{stage}, step {step}: {reason}. All is kept up to this step: --resume goes on from it, with \
         another micro_batch_size, gradient_checkpointing or sampling.batch_size too"
    )]
    Memory {
        /// The stage.
        stage: String,
        /// The step.
        step: u64,
        /// What was estimated, what is used, and what would help.
        reason: String,
    },
    /// A GPU had no memory left within a step.
    #[error("{stage}, after step {step}: {reason}")]
    Refused {
        /// The stage.
        stage: String,
        /// The last step that was done.
        step: u64,
        /// What the device said and, where the run is watched, what was estimated, what was used, and what would help.
        reason: String,
    },
    /// Something that has to hold in every run does not.
    #[error("{stage}, step {step}: {reason}")]
    Run {
        /// The stage.
        stage: String,
        /// The step.
        step: u64,
        /// What is wrong.
        reason: String,
    },
}

impl TrainError {
    /// True if the user's input or configuration is at fault.
    pub fn is_input(&self) -> bool {
        match self {
            Self::Data(error) => error.is_input(),
            Self::Policy(error) => error.is_input(),
            Self::Io { source, .. } => togi_data::error::is_input(source),
            Self::Config { .. } | Self::Folder { .. } => true,
            Self::Run { .. } | Self::Memory { .. } | Self::Refused { .. } | Self::Algo(_) => false,
        }
    }

    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    pub(crate) fn config(place: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Config {
            place: place.into(),
            reason: reason.into(),
        }
    }
}
