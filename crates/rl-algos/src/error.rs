//! What can be wrong with an argument.

use burn::tensor::{Bool, Tensor};

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
    /// A row of a mask counts no token.
    #[error("row {row} of `{argument}` is empty: no token counts")]
    EmptyRow {
        /// The argument.
        argument: &'static str,
        /// The row.
        row: usize,
    },
}

pub(crate) fn positive(argument: &'static str, value: f64) -> Result<(), AlgoError> {
    if value.is_finite() && value > 0.0 {
        return Ok(());
    }
    Err(AlgoError::Range { argument, value, must: "finite and above 0" })
}

pub(crate) fn within(
    argument: &'static str,
    value: f64,
    range: std::ops::RangeInclusive<f64>,
    must: &'static str,
) -> Result<(), AlgoError> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(AlgoError::Range { argument, value, must })
}

pub(crate) fn same_shape<const D: usize>(
    argument: &'static str,
    found: [usize; D],
    expected: [usize; D],
) -> Result<(), AlgoError> {
    if found == expected {
        return Ok(());
    }
    Err(AlgoError::Shape { argument, found: found.to_vec(), expected: expected.to_vec() })
}

/// The values on the host, as f64.
pub(crate) fn host<const D: usize>(x: &Tensor<D>) -> Vec<f64> {
    x.clone().detach().into_data().convert::<f64>().iter::<f64>().collect()
}

pub(crate) fn finite<const D: usize>(
    argument: &'static str,
    x: &Tensor<D>,
) -> Result<(), AlgoError> {
    match host(x).iter().enumerate().find(|(_, v)| !v.is_finite()) {
        None => Ok(()),
        Some((index, value)) => Err(AlgoError::NotFinite { argument, index, value: *value }),
    }
}

/// The mask's rows on the host; each must count a token.
pub(crate) fn mask_rows(
    argument: &'static str,
    mask: &Tensor<2, Bool>,
) -> Result<Vec<Vec<bool>>, AlgoError> {
    let [rows, time] = mask.dims();
    let all: Vec<bool> = mask.clone().into_data().iter::<bool>().collect();
    let rows: Vec<Vec<bool>> = (0..rows).map(|r| all[r * time..(r + 1) * time].to_vec()).collect();
    match rows.iter().position(|row| !row.contains(&true)) {
        None => Ok(rows),
        Some(row) => Err(AlgoError::EmptyRow { argument, row }),
    }
}
