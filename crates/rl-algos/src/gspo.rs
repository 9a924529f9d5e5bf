//! Group sequence policy optimisation (Zheng et al. 2025).

use burn::tensor::{Bool, Tensor};

use crate::{
    check::{Rows, constant, finite, same_shape},
    error::AlgoError,
    ppo::{ClipRange, log_ratio},
};

/// GSPO's loss and what is logged about it, one value a sequence.
#[derive(Clone, Debug)]
pub struct SequenceLoss {
    /// `max(-A s, -A clip(s, 1 - ε_low, 1 + ε_high))`, `[batch]`.
    pub loss: Tensor<1>,
    /// `s`, `[batch]`, detached.
    pub ratio: Tensor<1>,
    /// 1 where the clipped form is the larger, `[batch]`, detached.
    pub clipped: Tensor<1>,
}

/// The clipped surrogate on a ratio of whole sequences, one value a sequence: `s = exp(mean over
/// tokens of log π - log π_old)`; eq. 5 to 7 of Zheng et al. 2025. Its clip is much narrower than
/// PPO's: 3e-4 below and 4e-4 above in the paper.
///
/// # Shapes
/// `logps`, `old_logps` and `mask` `[batch, time]`, `advantages` `[batch]`. Gradients flow into
/// `logps` only.
///
/// # Errors
/// A clip bound not positive, shapes, an empty row, non-finite values where the mask counts.
pub fn gspo_loss(
    logps: &Tensor<2>,
    old_logps: &Tensor<2>,
    advantages: &Tensor<1>,
    mask: &Tensor<2, Bool>,
    clip: ClipRange,
) -> Result<SequenceLoss, AlgoError> {
    clip.check()?;
    let [batch, time] = logps.dims();
    same_shape("advantages", advantages.dims(), [batch])?;
    finite("advantages", advantages)?;
    let rows = Rows::read(mask, [batch, time])?;
    let lens = constant(rows.lens(), [batch], logps);
    let difference = log_ratio(logps, old_logps, &logps.zeros_like(), mask)?;
    let ratio = (difference.sum_dim(1).reshape([batch]) / lens).exp();
    let advantages = advantages.clone().detach();
    let plain = ratio.clone() * advantages.clone().neg();
    let bounded = ratio.clone().clamp(1.0 - clip.low, 1.0 + clip.high) * advantages.neg();
    let larger = bounded.clone().greater(plain.clone());
    Ok(SequenceLoss {
        loss: plain.clone().mask_where(larger.clone(), bounded),
        clipped: plain.detach().zeros_like().mask_fill(larger, 1.0),
        ratio: ratio.detach(),
    })
}
