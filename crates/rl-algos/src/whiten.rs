//! Normalisation of advantages and rewards over the tokens that count.

use burn::tensor::{Bool, Tensor};

use crate::{
    check::{Rows, constant},
    error::AlgoError,
};

/// Under the root of the denominator, as TRL, lm-human-preferences and Huang et al. 2024 have it.
const EPSILON: f64 = 1e-8;

/// `(x - mean) / sqrt(var + 1e-8)` over the mask, 0 outside: what PPO does to advantages.
///
/// Mean and variance are those of all tokens that count; the variance is Bessel-corrected. A
/// single token has variance 0. The result is a constant for autodiff, computed in f64.
///
/// torchtune's `whiten(shift_mean=True)` adds the mean back, which is the opposite of its name and
/// of this function; see [`whiten_keep_mean`].
///
/// # Shapes
/// `x`, `mask` and the result `[batch, time]`.
///
/// # Errors
/// Shapes, non-finite values, an empty row.
pub fn whiten(x: &Tensor<2>, mask: &Tensor<2, Bool>) -> Result<Tensor<2>, AlgoError> {
    whitened(x, mask, false)
}

/// `(x - mean) / sqrt(var + 1e-8) + mean` over the mask, 0 outside: scale without shift, what PPO
/// optionally does to rewards (`shift_mean=False` in TRL).
///
/// # Errors
/// As [`whiten`].
pub fn whiten_keep_mean(x: &Tensor<2>, mask: &Tensor<2, Bool>) -> Result<Tensor<2>, AlgoError> {
    whitened(x, mask, true)
}

fn whitened(
    x: &Tensor<2>,
    mask: &Tensor<2, Bool>,
    keep_mean: bool,
) -> Result<Tensor<2>, AlgoError> {
    let rows = Rows::read(mask, x.dims())?;
    let mut values = rows.finite("x", x)?;
    let (mean, variance) = moments(
        values
            .iter()
            .zip(rows.flat())
            .filter(|v| *v.1)
            .map(|v| *v.0),
    );
    let scale = (variance + EPSILON).sqrt();
    let shift = if keep_mean { mean } else { 0.0 };
    for (value, counts) in values.iter_mut().zip(rows.flat()) {
        *value = if *counts {
            (*value - mean) / scale + shift
        } else {
            0.0
        };
    }
    Ok(constant(values, x.dims(), x))
}

/// Mean and Bessel-corrected variance; the variance of one value is 0.
pub(crate) fn moments(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let n = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / n;
    let squares: f64 = values.map(|x| (x - mean).powi(2)).sum();
    (mean, squares / (n - 1.0).max(1.0))
}
