//! REINFORCE on tokens (Williams 1992). REINFORCE++ (Hu 2025) is this loss with discounted returns
//! ([`crate::gae::discounted_returns`]), whitened over the whole batch, as advantages.

use burn::tensor::{Bool, Tensor};

use crate::{
    check::{Rows, masked},
    error::AlgoError,
};

/// `-A_t log π_t`, one value a token: its gradient is that of the expected reward where the
/// completions were drawn from the policy itself.
///
/// # Shapes
/// All `[batch, time]`; 0 outside the mask. Gradients flow into `logps` only.
///
/// # Errors
/// Shapes, an empty row, non-finite values where the mask counts.
pub fn reinforce_loss(
    logps: &Tensor<2>,
    advantages: &Tensor<2>,
    mask: &Tensor<2, Bool>,
) -> Result<Tensor<2>, AlgoError> {
    let rows = Rows::read(mask, logps.dims())?;
    rows.finite("logps", logps)?;
    rows.finite("advantages", advantages)?;
    let advantages = masked(advantages.clone().detach(), mask);
    Ok((masked(logps.clone(), mask) * advantages).neg())
}
