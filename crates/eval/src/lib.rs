//! Metrics, their intervals, tables and reports. No tensors, no training.

pub mod best_of_n;
pub mod bootstrap;
pub mod calibration;
pub mod comparison;
pub mod diversity;
pub mod figure;
pub mod ifeval;
pub mod over_optimisation;
pub mod report;

pub use bootstrap::{Interval, mean_interval, paired_difference};
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
