//! Normalisation of advantages and rewards over the tokens that count.

use burn::tensor::{Bool, Tensor};

use crate::error::{AlgoError, finite, host, mask_rows, same_shape};

/// Mean and unbiased variance over the mask.
fn moments(x: &Tensor<2>, mask: &Tensor<2, Bool>) -> Result<(f64, f64), AlgoError> {
    same_shape("mask", mask.dims(), x.dims())?;
    finite("x", x)?;
    let counted: Vec<f64> = mask_rows("mask", mask)?
        .concat()
        .into_iter()
        .zip(host(x))
        .filter_map(|(counts, x)| counts.then_some(x))
        .collect();
    let n = counted.len() as f64;
    let mean = counted.iter().sum::<f64>() / n;
    let squares: f64 = counted.iter().map(|x| (x - mean).powi(2)).sum();
    // One token has no spread: its variance is 0, not 0/0.
    Ok((mean, squares / (n - 1.0).max(1.0)))
}

fn masked(x: Tensor<2>, mask: &Tensor<2, Bool>) -> Tensor<2> {
    x.mask_fill(mask.clone().bool_not(), 0.0)
}

/// `(x - mean) / sqrt(var + 1e-8)` over the mask, 0 outside: what PPO does to advantages. The
/// variance is Bessel-corrected.
///
/// # Errors
/// Shapes, non-finite values, an empty row.
pub fn whiten(x: &Tensor<2>, mask: &Tensor<2, Bool>) -> Result<Tensor<2>, AlgoError> {
    let (mean, variance) = moments(x, mask)?;
    Ok(masked((x.clone() - mean) / (variance + 1e-8).sqrt(), mask))
}

/// `(x - mean) / sqrt(var + 1e-8) + mean` over the mask, 0 outside: scale without shift, what PPO
/// optionally does to rewards.
///
/// # Errors
/// As [`whiten`].
pub fn whiten_keep_mean(x: &Tensor<2>, mask: &Tensor<2, Bool>) -> Result<Tensor<2>, AlgoError> {
    let (mean, variance) = moments(x, mask)?;
    Ok(masked((x.clone() - mean) / (variance + 1e-8).sqrt() + mean, mask))
}
