//! Supervised fine-tuning: the negative log-likelihood of demonstrations.

use burn::tensor::{Bool, Tensor};

use crate::{
    check::{Rows, masked},
    error::AlgoError,
};

/// `-log π(y_t | x, y_<t)`, one value a token, 0 outside the mask.
///
/// Reduced with `Normalisation::Token` over all scored tokens of a batch it is the cross-entropy
/// that TRL and `transformers` report.
///
/// # Shapes
/// `token_logps` and `mask` `[batch, time]`; the result too.
///
/// # Errors
/// Shapes, an empty row, a counted value that is not finite.
pub fn nll_loss(token_logps: &Tensor<2>, mask: &Tensor<2, Bool>) -> Result<Tensor<2>, AlgoError> {
    Rows::read(mask, token_logps.dims())?.finite("token_logps", token_logps)?;
    Ok(masked(token_logps.clone(), mask).neg())
}

/// `-w_t log π(y_t | x, y_<t)`, one value a token, 0 outside the mask. The denominator of the mean
/// is the total weight.
///
/// # Shapes
/// All `[batch, time]`. Weights take no gradient.
///
/// # Errors
/// As [`nll_loss`]; a weight that is not finite.
pub fn weighted_nll_loss(
    token_logps: &Tensor<2>,
    weights: &Tensor<2>,
    mask: &Tensor<2, Bool>,
) -> Result<Tensor<2>, AlgoError> {
    let rows = Rows::read(mask, token_logps.dims())?;
    rows.finite("token_logps", token_logps)?;
    rows.finite("weights", weights)?;
    let weights = masked(weights.clone().detach(), mask);
    Ok(masked(token_logps.clone(), mask).neg() * weights)
}
