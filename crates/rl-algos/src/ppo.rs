//! The pieces of PPO for language models (Schulman et al. 2017; Stiennon et al. 2020), with the
//! conventions of Huang et al. 2024, "The N+ implementation details of RLHF with PPO".

use burn::tensor::{Bool, Tensor};

use crate::{
    check::{Rows, constant, finite, masked, not_negative, positive, same_shape},
    error::AlgoError,
};

/// Per-token rewards, `[batch, time]`: `-kl_coef · KL_t`, and the score of the sequence added at
/// its last token. 0 outside the mask; constants for autodiff.
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
    not_negative("kl_coef", kl_coef)?;
    let [batch, time] = kl.dims();
    same_shape("scores", scores.dims(), [batch])?;
    let rows = Rows::read(mask, [batch, time])?;
    finite("scores", scores)?;
    let kl_values = rows.finite("kl", kl)?;
    let mut rewards: Vec<f64> = kl_values
        .iter()
        .zip(rows.flat())
        .map(|(kl, counts)| if *counts { -kl_coef * kl } else { 0.0 })
        .collect();
    for ((row, counts), score) in rows.iter().enumerate().zip(crate::check::host(scores)) {
        if let Some(last) = counts.iter().rposition(|counts| *counts) {
            rewards[row * time + last] += score;
        }
    }
    Ok(constant(rewards, [batch, time], kl))
}

/// The clipped surrogate and what is logged about it.
#[derive(Clone, Debug)]
pub struct PolicyLoss {
    /// `max(-A ρ, -A clip(ρ, 1 - ε_low, 1 + ε_high))`, `[batch, time]`, 0 outside the mask.
    pub loss: Tensor<2>,
    /// `ρ = exp(log π - log π_old)`, `[batch, time]`, detached, 1 outside the mask.
    pub ratio: Tensor<2>,
    /// `(log π - log π_old)² / 2`, `[batch, time]`, detached, 0 outside the mask.
    pub approx_kl: Tensor<2>,
    /// 1 where the clipped form is the larger, `[batch, time]`, detached, 0 outside the mask.
    pub clipped: Tensor<2>,
}

/// How far the ratio may move: to `1 - low` and to `1 + high`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClipRange {
    /// In (0, 1].
    pub low: f64,
    /// Above 0; DAPO's clip-higher (Yu et al. 2025) makes it larger than `low`.
    pub high: f64,
}

/// Eq. 7 of Schulman et al. 2017 as a loss, one value a token.
///
/// # Shapes
/// All `[batch, time]`. Gradients flow into `logps` only.
///
/// # Errors
/// `clip_eps` not positive, shapes, an empty row, non-finite values where the mask counts.
pub fn policy_loss(
    logps: &Tensor<2>,
    old_logps: &Tensor<2>,
    advantages: &Tensor<2>,
    mask: &Tensor<2, Bool>,
    clip_eps: f64,
) -> Result<PolicyLoss, AlgoError> {
    positive("clip_eps", clip_eps)?;
    let clip = ClipRange {
        low: clip_eps,
        high: clip_eps,
    };
    let difference = log_ratio(logps, old_logps, advantages, mask)?;
    Ok(surrogate(difference, advantages, mask, clip))
}

/// As [`policy_loss`], with bounds of their own below and above 1.
///
/// # Errors
/// As [`policy_loss`], for either bound.
pub fn asymmetric_policy_loss(
    logps: &Tensor<2>,
    old_logps: &Tensor<2>,
    advantages: &Tensor<2>,
    mask: &Tensor<2, Bool>,
    clip: ClipRange,
) -> Result<PolicyLoss, AlgoError> {
    clip.check()?;
    let difference = log_ratio(logps, old_logps, advantages, mask)?;
    Ok(surrogate(difference, advantages, mask, clip))
}

impl ClipRange {
    pub(crate) fn check(&self) -> Result<(), AlgoError> {
        positive("clip.low", self.low)?;
        positive("clip.high", self.high)
    }
}

/// `log π - log π_old`, 0 outside the mask, with everything checked that a surrogate reads.
pub(crate) fn log_ratio(
    logps: &Tensor<2>,
    old_logps: &Tensor<2>,
    advantages: &Tensor<2>,
    mask: &Tensor<2, Bool>,
) -> Result<Tensor<2>, AlgoError> {
    let rows = Rows::read(mask, logps.dims())?;
    rows.finite("logps", logps)?;
    rows.finite("old_logps", old_logps)?;
    rows.finite("advantages", advantages)?;
    Ok(masked(logps.clone(), mask) - masked(old_logps.clone().detach(), mask))
}

/// The clipped surrogate of a log-ratio that is 0 outside the mask.
pub(crate) fn surrogate(
    difference: Tensor<2>,
    advantages: &Tensor<2>,
    mask: &Tensor<2, Bool>,
    clip: ClipRange,
) -> PolicyLoss {
    let ratio = difference.clone().exp();
    let advantages = masked(advantages.clone().detach(), mask);
    let plain = ratio.clone() * advantages.clone().neg();
    let bounded = ratio.clone().clamp(1.0 - clip.low, 1.0 + clip.high) * advantages.neg();
    let larger = bounded.clone().greater(plain.clone());
    PolicyLoss {
        loss: plain.clone().mask_where(larger.clone(), bounded),
        clipped: plain.detach().zeros_like().mask_fill(larger, 1.0),
        ratio: ratio.detach(),
        approx_kl: difference.detach().square() / 2.0,
    }
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
    let rows = Rows::read(mask, values.dims())?;
    rows.finite("values", values)?;
    rows.finite("old_values", old_values)?;
    rows.finite("returns", returns)?;
    let values = masked(values.clone(), mask);
    let old = masked(old_values.clone().detach(), mask);
    let returns = masked(returns.clone().detach(), mask);
    let moved = (values.clone() - old.clone()).clamp(-clip_eps, clip_eps) + old;
    let plain = (values - returns.clone()).square();
    let bounded = (moved - returns).square();
    Ok(plain.max_pair(bounded) * 0.5)
}
