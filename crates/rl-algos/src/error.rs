//! What can be wrong with an argument.

/// An error that names the argument.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AlgoError {
    /// A scalar argument is out of range.
    #[error("`{argument}` is {value}; it must be {must}")]
    Range {
        /// The argument.
        argument: &'static str,
        /// What it was.
        value: f64,
        /// What it has to be.
        must: &'static str,
    },
    /// Two tensors do not fit together.
    #[error("`{argument}` has shape {found:?}; expected {expected:?}")]
    Shape {
        /// The argument.
        argument: &'static str,
        /// Its shape.
        found: Vec<usize>,
        /// The shape it should have.
        expected: Vec<usize>,
    },
    /// A tensor holds NaN or an infinity.
    #[error("`{argument}` is not finite at index {index}: {value}")]
    NotFinite {
        /// The argument.
        argument: &'static str,
        /// Where, in row-major order.
        index: usize,
        /// The value.
        value: f64,
    },
    /// An argument holds nothing.
    #[error("`{argument}` is empty")]
    Empty {
        /// The argument.
        argument: &'static str,
    },
    /// A row of a mask counts no token.
    #[error("row {row} of `{argument}` is empty: no token counts")]
    EmptyRow {
        /// The argument.
        argument: &'static str,
        /// The row.
        row: usize,
    },
    /// A group has too few members to be compared with one another.
    #[error("group {group} of `{argument}` has {size} member(s); a baseline needs at least 2")]
    SmallGroup {
        /// The argument.
        argument: &'static str,
        /// The group.
        group: usize,
        /// Its size.
        size: usize,
    },
}
