//! Checks of arguments, and the host's view of tensors that they need.

use std::ops::RangeInclusive;

use burn::tensor::{Bool, DType, Tensor, TensorData};

use crate::error::AlgoError;

pub(crate) fn positive(argument: &'static str, value: f64) -> Result<(), AlgoError> {
    if value.is_finite() && value > 0.0 {
        return Ok(());
    }
    Err(AlgoError::Range {
        argument,
        value,
        must: "finite and above 0",
    })
}

pub(crate) fn not_negative(argument: &'static str, value: f64) -> Result<(), AlgoError> {
    within(argument, value, 0.0..=f64::MAX, "finite and not negative")
}

pub(crate) fn within(
    argument: &'static str,
    value: f64,
    range: RangeInclusive<f64>,
    must: &'static str,
) -> Result<(), AlgoError> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(AlgoError::Range {
        argument,
        value,
        must,
    })
}

pub(crate) fn same_shape<const D: usize>(
    argument: &'static str,
    found: [usize; D],
    expected: [usize; D],
) -> Result<(), AlgoError> {
    if found == expected {
        return Ok(());
    }
    Err(AlgoError::Shape {
        argument,
        found: found.to_vec(),
        expected: expected.to_vec(),
    })
}

/// As [`same_shape`], for lists on the host.
pub(crate) fn same_len(
    argument: &'static str,
    found: usize,
    expected: usize,
) -> Result<(), AlgoError> {
    same_shape(argument, [found], [expected])
}

/// The values on the host.
pub(crate) fn host<const D: usize>(x: &Tensor<D>) -> Vec<f64> {
    x.clone().detach().into_data().iter::<f64>().collect()
}

pub(crate) fn finite_values(argument: &'static str, values: &[f64]) -> Result<(), AlgoError> {
    if values.is_empty() {
        return Err(AlgoError::Empty { argument });
    }
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(index) => Err(AlgoError::NotFinite {
            argument,
            index,
            value: values[index],
        }),
    }
}

/// Holds something, and nothing but finite numbers.
pub(crate) fn finite<const D: usize>(
    argument: &'static str,
    x: &Tensor<D>,
) -> Result<(), AlgoError> {
    finite_values(argument, &host(x))
}

/// A constant of the type and on the device of `like`.
pub(crate) fn constant<const D: usize, const E: usize>(
    values: Vec<f64>,
    shape: [usize; D],
    like: &Tensor<E>,
) -> Tensor<D> {
    let data = TensorData::new(values, shape);
    let dtype: DType = like.dtype();
    Tensor::from_data(data.convert_dtype(dtype), (&like.device(), dtype))
}

/// A completion mask on the host. Every row counts at least one token.
pub(crate) struct Rows {
    counts: Vec<bool>,
    shape: [usize; 2],
}

impl Rows {
    /// Reads `mask`, which has to have the shape `expected`.
    pub(crate) fn read(mask: &Tensor<2, Bool>, expected: [usize; 2]) -> Result<Self, AlgoError> {
        same_shape("mask", mask.dims(), expected)?;
        if expected.contains(&0) {
            return Err(AlgoError::Empty { argument: "mask" });
        }
        let counts: Vec<bool> = mask.clone().into_data().iter::<bool>().collect();
        match counts
            .chunks(expected[1])
            .position(|row| !row.contains(&true))
        {
            None => Ok(Self {
                counts,
                shape: expected,
            }),
            Some(row) => Err(AlgoError::EmptyRow {
                argument: "mask",
                row,
            }),
        }
    }

    /// The rows, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[bool]> {
        self.counts.chunks(self.shape[1])
    }

    /// The number of tokens that count in each row.
    pub(crate) fn lens(&self) -> Vec<f64> {
        self.iter()
            .map(|row| row.iter().filter(|counts| **counts).count() as f64)
            .collect()
    }

    /// Flags in row-major order.
    pub(crate) fn flat(&self) -> &[bool] {
        &self.counts
    }

    /// `x` has the mask's shape and is finite wherever the mask counts; its values on the host.
    pub(crate) fn finite(
        &self,
        argument: &'static str,
        x: &Tensor<2>,
    ) -> Result<Vec<f64>, AlgoError> {
        same_shape(argument, x.dims(), self.shape)?;
        let values = host(x);
        let bad = |i: &usize| self.counts[*i] && !values[*i].is_finite();
        match (0..values.len()).find(bad) {
            None => Ok(values),
            Some(index) => Err(AlgoError::NotFinite {
                argument,
                index,
                value: values[index],
            }),
        }
    }
}

/// `x` with 0 wherever the mask does not count; no gradient flows there.
pub(crate) fn masked(x: Tensor<2>, mask: &Tensor<2, Bool>) -> Tensor<2> {
    x.mask_fill(mask.clone().bool_not(), 0.0)
}
