//! Supervised fine-tuning: the negative log-likelihood of demonstrations.

use burn::tensor::{Bool, Tensor};

use crate::{
    check::{Rows, finite, masked},
    error::AlgoError,
    pair::token_counts,
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

/// `-log π(y | x) / n`, one value an answer: the likelihood term that preference losses are mixed
/// with (MPO, Wang et al. 2024). TRL's `sft` loss type averages over all tokens of a batch instead,
/// where long answers weigh more.
///
/// # Shapes
/// `logps` `[batch]`, summed over completion tokens; `tokens` `[batch]`.
///
/// # Errors
/// Shapes, non-finite values, token counts below 1.
pub fn mean_nll_loss(logps: &Tensor<1>, tokens: &Tensor<1>) -> Result<Tensor<1>, AlgoError> {
    finite("logps", logps)?;
    token_counts("tokens", tokens, logps.dims())?;
    Ok(logps.clone().neg() / tokens.clone().detach())
}
