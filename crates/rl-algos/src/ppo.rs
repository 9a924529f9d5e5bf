//! The pieces of PPO for language models (Schulman et al. 2017; Stiennon et al. 2020), with the
//! conventions of Huang et al. 2024, "The N+ implementation details of RLHF with PPO".

use burn::tensor::{Bool, Tensor};

use crate::error::{AlgoError, finite, mask_rows, positive, same_shape, within};

/// Per-token rewards, `[batch, time]`: `-kl_coef · KL_t`, and the score of the sequence added at
/// its last token.
///
/// # Shapes
/// `scores` `[batch]`, `kl` (from [`crate::kl::kl_per_token`]) and `mask` `[batch, time]`.
///
/// # Errors
/// `kl_coef` negative, shapes, non-finite values, an empty row.
pub fn token_rewards(
    scores: &Tensor<1>,
    kl: &Tensor<2>,
    mask: &Tensor<2, Bool>,
    kl_coef: f64,
) -> Result<Tensor<2>, AlgoError> {
    within("kl_coef", kl_coef, 0.0..=f64::MAX, "finite and not negative")?;
    let [batch, time] = kl.dims();
    same_shape("scores", scores.dims(), [batch])?;
    same_shape("mask", mask.dims(), [batch, time])?;
    finite("scores", scores)?;
    finite("kl", kl)?;
    let rows = mask_rows("mask", mask)?;
    let last: Vec<bool> = rows
        .iter()
        .flat_map(|row| {
            let last = row.iter().rposition(|counts| *counts);
            (0..time).map(move |t| Some(t) == last)
        })
        .collect();
    let device = kl.device();
    let last = burn::tensor::TensorData::new(last, [batch, time]);
    let last = Tensor::<2, Bool>::from_data(last, &device);
    let spread: Tensor<2> = scores.clone().reshape([batch, 1]).expand([batch, time]);
    let at_last = spread.mask_fill(last.bool_not(), 0.0);
    let penalty = (kl.clone() * -kl_coef).mask_fill(mask.clone().bool_not(), 0.0);
    Ok((at_last + penalty).detach())
}

/// The clipped surrogate and what is logged about it.
#[derive(Clone, Debug)]
pub struct PolicyLoss {
    /// `max(-A ρ, -A clip(ρ, 1 ± ε))`, `[batch, time]`, 0 outside the mask.
    pub loss: Tensor<2>,
    /// `ρ = exp(log π - log π_old)`, `[batch, time]`, detached, 1 outside the mask.
    pub ratio: Tensor<2>,
    /// `(log π - log π_old)² / 2`, `[batch, time]`, detached, 0 outside the mask.
    pub approx_kl: Tensor<2>,
    /// 1 where the clipped form is the larger, `[batch, time]`, detached.
    pub clipped: Tensor<2>,
}

/// Eq. 7 of Schulman et al. 2017 as a loss, one value a token.
///
/// # Shapes
/// All `[batch, time]`. Gradients flow into `logps` only.
///
/// # Errors
/// `clip_eps` not positive, shapes, non-finite values, an empty row.
pub fn policy_loss(
    logps: &Tensor<2>,
    old_logps: &Tensor<2>,
    advantages: &Tensor<2>,
    mask: &Tensor<2, Bool>,
    clip_eps: f64,
) -> Result<PolicyLoss, AlgoError> {
    positive("clip_eps", clip_eps)?;
    same_shape("old_logps", old_logps.dims(), logps.dims())?;
    same_shape("advantages", advantages.dims(), logps.dims())?;
    same_shape("mask", mask.dims(), logps.dims())?;
    finite("logps", logps)?;
    finite("old_logps", old_logps)?;
    finite("advantages", advantages)?;
    mask_rows("mask", mask)?;
    let outside = mask.clone().bool_not();
    let difference = logps.clone() - old_logps.clone().detach();
    let difference = difference.mask_fill(outside.clone(), 0.0);
    let ratio = difference.clone().exp();
    let advantages = advantages.clone().detach();
    let plain = ratio.clone() * advantages.clone().neg();
    let bounded = ratio.clone().clamp(1.0 - clip_eps, 1.0 + clip_eps) * advantages.neg();
    let clipped = bounded.clone().greater(plain.clone()).float();
    let loss = plain.clone().max_pair(bounded).mask_fill(outside.clone(), 0.0);
    Ok(PolicyLoss {
        loss,
        ratio: ratio.detach(),
        approx_kl: difference.detach().square() / 2.0,
        clipped: clipped.mask_fill(outside, 0.0).detach(),
    })
}

/// Clipped value loss, one value a token: `½ max((V - R)², (clip(V, V_old ± ε) - R)²)`.
///
/// # Shapes
/// All `[batch, time]`; 0 outside the mask. Gradients flow into `values` only.
///
/// # Errors
/// As [`policy_loss`].
pub fn value_loss(
    values: &Tensor<2>,
    old_values: &Tensor<2>,
    returns: &Tensor<2>,
    mask: &Tensor<2, Bool>,
    clip_eps: f64,
) -> Result<Tensor<2>, AlgoError> {
    positive("value_clip_eps", clip_eps)?;
    same_shape("old_values", old_values.dims(), values.dims())?;
    same_shape("returns", returns.dims(), values.dims())?;
    same_shape("mask", mask.dims(), values.dims())?;
    finite("values", values)?;
    finite("old_values", old_values)?;
    finite("returns", returns)?;
    mask_rows("mask", mask)?;
    let old = old_values.clone().detach();
    let returns = returns.clone().detach();
    let moved = (values.clone() - old.clone()).clamp(-clip_eps, clip_eps) + old;
    let plain = (values.clone() - returns.clone()).square();
    let bounded = (moved - returns).square();
    Ok((plain.max_pair(bounded) * 0.5).mask_fill(mask.clone().bool_not(), 0.0))
}
