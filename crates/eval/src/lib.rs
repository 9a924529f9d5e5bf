//! Metrics, their intervals, tables and reports. No tensors, no training.

pub mod agreement;
pub mod annotator;
pub mod best_of_n;
pub mod bootstrap;
pub mod calibration;
pub mod comparison;
pub mod diversity;
pub mod exact;
pub mod explained;
pub mod figure;
pub mod ifeval;
pub mod length_controlled;
pub mod over_optimisation;
pub mod paired;
pub mod questions;
pub mod refusal;
pub mod report;
pub mod safety;

pub use bootstrap::{Interval, mean_interval, paired_difference, resampled};
pub use comparison::{Comparison, System};

/// What cannot be measured.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// There is nothing to measure.
    #[error("`{0}` has no values")]
    Empty(String),
    /// Paired values that do not pair up.
    #[error("`{what}` has {found} values where there are {expected} prompts")]
    Length {
        /// What has the wrong number of values.
        what: String,
        /// How many it has.
        found: usize,
        /// How many it should have.
        expected: usize,
    },
    /// A value is NaN or infinite.
    #[error("`{what}` is not finite at index {index}")]
    NotFinite {
        /// What is not finite.
        what: String,
        /// Where.
        index: usize,
    },
    /// A value that these data leave undefined, such as an agreement beyond chance where chance
    /// alone agrees always.
    #[error("`{what}` is not defined: {reason}")]
    Undefined {
        /// What is not defined.
        what: String,
        /// Why not.
        reason: String,
    },
    /// A figure could not be drawn.
    #[error("figure `{name}`: {reason}")]
    Figure {
        /// The figure.
        name: String,
        /// Why not.
        reason: String,
    },
    /// An instruction that no program can check.
    #[error("instruction `{id}`: `{field}` {reason}")]
    Instruction {
        /// Its id.
        id: String,
        /// The argument that is wrong.
        field: String,
        /// Why.
        reason: String,
    },
    /// A line of a set of prompts that cannot be read.
    #[error("line {number}: {reason}")]
    Line {
        /// Which one, from 1.
        number: usize,
        /// Why not.
        reason: String,
    },
}

impl EvalError {
    fn line(number: usize, reason: impl Into<String>) -> Self {
        Self::Line {
            number,
            reason: reason.into(),
        }
    }

    fn undefined(what: &str, reason: impl Into<String>) -> Self {
        Self::Undefined {
            what: what.to_owned(),
            reason: reason.into(),
        }
    }
}
