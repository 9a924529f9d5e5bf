//! Clipped importance sampling policy optimisation (MiniMax-M1, Chen et al. 2025).

use burn::tensor::{Bool, Tensor};

use crate::{check::positive, error::AlgoError, ppo::log_ratio, reinforce::reinforce_loss};

/// CISPO, one value a token: `-sg(min(ρ, 1 + ε)) A log π`. The ratio only weighs REINFORCE's
/// gradient; no token loses its gradient by clipping.
///
/// Projects write the bound in three ways: as an absolute number, as `1 + ε`, and as `1 +` the
/// clip-higher of DAPO. Here it is `1 + ε`, eq. 4 of the paper with its lower bound off.
///
/// # Shapes
/// All `[batch, time]`; 0 outside the mask. Gradients flow into `logps` only.
///
/// # Errors
/// `epsilon` not positive, shapes, an empty row, non-finite values where the mask counts.
pub fn cispo_loss(
    logps: &Tensor<2>,
    old_logps: &Tensor<2>,
    advantages: &Tensor<2>,
    mask: &Tensor<2, Bool>,
    epsilon: f64,
) -> Result<Tensor<2>, AlgoError> {
    positive("epsilon", epsilon)?;
    let difference = log_ratio(logps, old_logps, advantages, mask)?;
    let weight = difference.detach().exp().clamp_max(1.0 + epsilon);
    Ok(reinforce_loss(logps, advantages, mask)? * weight)
}
