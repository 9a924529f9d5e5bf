//! Alignment via optimal transport (Melnyk et al. 2024): the *distribution* of the policy's margins
//! is to dominate another one, quantile by quantile.
//!
//! Both losses sort over the batch, so a value belongs to a quantile, not to a pair, and a batch
//! must not be cut into parts.

use burn::tensor::Tensor;

use crate::{
    check::{positive, within},
    error::AlgoError,
    pair::{PairLogps, log_ratios, smoothed},
};

/// AOT on pairs, one value a quantile: sorted policy margins against sorted reference margins.
///
/// `-(1-ε) log σ(β d) - ε log σ(-β d)`, `d = sort(log π_w - log π_l) - sort(log ref_w - log
/// ref_l)`; TRL's `aot`.
///
/// # Shapes and units
/// Log-probabilities `[batch]` in nats, summed; the result `[batch]`. Gradients flow into `policy`
/// only.
///
/// # Errors
/// `beta` not positive, `label_smoothing` outside [0, 0.5], shapes, non-finite values.
pub fn aot_loss(
    policy: &PairLogps,
    reference: &PairLogps,
    beta: f64,
    label_smoothing: f64,
) -> Result<Tensor<1>, AlgoError> {
    positive("beta", beta)?;
    within("label_smoothing", label_smoothing, 0.0..=0.5, "in [0, 0.5]")?;
    log_ratios(policy, reference)?;
    let ours = policy.chosen.clone() - policy.rejected.clone();
    let theirs = reference.chosen.clone() - reference.rejected.clone();
    let apart = ours.sort(0) - theirs.detach().sort(0);
    Ok(smoothed(apart * beta, label_smoothing))
}

/// AOT without pairs, one value a quantile: sorted log-ratios of the chosen answers against sorted
/// log-ratios of the rejected ones.
///
/// As [`aot_loss`] with `d = sort(s_w) - sort(s_l)`; TRL's `aot_unpaired`.
///
/// # Errors
/// As [`aot_loss`].
pub fn aot_unpaired_loss(
    policy: &PairLogps,
    reference: &PairLogps,
    beta: f64,
    label_smoothing: f64,
) -> Result<Tensor<1>, AlgoError> {
    positive("beta", beta)?;
    within("label_smoothing", label_smoothing, 0.0..=0.5, "in [0, 0.5]")?;
    let (chosen, rejected) = log_ratios(policy, reference)?;
    let apart = chosen.sort(0) - rejected.sort(0);
    Ok(smoothed(apart * beta, label_smoothing))
}
