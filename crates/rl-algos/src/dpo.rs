//! Direct Preference Optimization and its closest relatives (Rafailov et al. 2023).

use burn::tensor::Tensor;

use crate::{
    check::{positive, within},
    error::AlgoError,
    pair::{PairLogps, cross_entropy, log_ratios, log_sigmoid, per_token, smoothed},
};

/// The margin `s_w - s_l` of log-ratios, `[batch]`, unscaled.
///
/// # Errors
/// On tensors of different lengths or with non-finite values.
pub fn margin(policy: &PairLogps, reference: &PairLogps) -> Result<Tensor<1>, AlgoError> {
    let (chosen, rejected) = log_ratios(policy, reference)?;
    Ok(chosen - rejected)
}

/// Implicit rewards `beta · s` of chosen and rejected, `[batch]` each, for logging.
///
/// # Errors
/// As [`margin`]; `beta` not positive.
pub fn implicit_rewards(
    policy: &PairLogps,
    reference: &PairLogps,
    beta: f64,
) -> Result<(Tensor<1>, Tensor<1>), AlgoError> {
    positive("beta", beta)?;
    let (chosen, rejected) = log_ratios(policy, reference)?;
    Ok((chosen.detach() * beta, rejected.detach() * beta))
}

/// DPO with conservative label smoothing (cDPO), one value a pair.
///
/// `-(1-ε) log σ(β h) - ε log σ(-β h)`, `h = s_w - s_l`; ε = 0 is eq. 7 of Rafailov et al. 2023,
/// ε > 0 is Mitchell 2023, "A note on DPO with noisy preferences".
///
/// # Shapes and units
/// Log-probabilities `[batch]` in nats, summed over completion tokens; the result `[batch]`.
/// Gradients flow into `policy` only.
///
/// # Errors
/// `beta` not positive, `label_smoothing` outside [0, 0.5], shapes, non-finite values.
pub fn sigmoid_loss(
    policy: &PairLogps,
    reference: &PairLogps,
    beta: f64,
    label_smoothing: f64,
) -> Result<Tensor<1>, AlgoError> {
    positive("beta", beta)?;
    within("label_smoothing", label_smoothing, 0.0..=0.5, "in [0, 0.5]")?;
    Ok(smoothed(margin(policy, reference)? * beta, label_smoothing))
}

/// DPO on soft labels, one value a pair: the cross-entropy of `σ(β h)` with each pair's own probability
/// `p` that the chosen answer is the better one, `-p log σ(β h) - (1-p) log σ(-β h)`.
///
/// The labels of an AI judge (Lee et al. 2023, "RLAIF", section 2.1) in eq. 7 of Rafailov et al. 2023;
/// `p = 1` is [`sigmoid_loss`].
///
/// # Shapes and units
/// As [`sigmoid_loss`]; `probability` `[batch]`, without gradient.
///
/// # Errors
/// `beta` not positive, a probability outside [0, 1], shapes, non-finite values.
pub fn soft_label_loss(
    policy: &PairLogps,
    reference: &PairLogps,
    probability: &Tensor<1>,
    beta: f64,
) -> Result<Tensor<1>, AlgoError> {
    positive("beta", beta)?;
    cross_entropy(margin(policy, reference)? * beta, probability)
}

/// Robust DPO: unbiased under labels that are flipped with probability ε, one value a pair.
///
/// `[-(1-ε) log σ(β h) + ε log σ(-β h)] / (1 - 2ε)`; Chowdhury et al. 2024. It may be negative.
///
/// # Errors
/// As [`sigmoid_loss`], with ε in [0, 0.5).
pub fn robust_loss(
    policy: &PairLogps,
    reference: &PairLogps,
    beta: f64,
    label_smoothing: f64,
) -> Result<Tensor<1>, AlgoError> {
    positive("beta", beta)?;
    within(
        "label_smoothing",
        label_smoothing,
        0.0..=0.499_999,
        "in [0, 0.5)",
    )?;
    let x = margin(policy, reference)? * beta;
    let right = log_sigmoid(x.clone()).neg() * (1.0 - label_smoothing);
    let wrong = log_sigmoid(x.neg()) * label_smoothing;
    Ok((right + wrong) / (1.0 - 2.0 * label_smoothing))
}

/// Hinge loss on the margin, one value a pair: `max(0, 1 - β h)`.
///
/// TRL offers it as `hinge` and describes it as SLiC-like; it is not SLiC-HF, which has no
/// reference model (see [`crate::slic`]). The form is eq. 10 of Liu et al. 2023 (RSO).
///
/// # Errors
/// As [`sigmoid_loss`].
pub fn hinge_loss(
    policy: &PairLogps,
    reference: &PairLogps,
    beta: f64,
) -> Result<Tensor<1>, AlgoError> {
    positive("beta", beta)?;
    Ok((margin(policy, reference)? * -beta + 1.0).clamp_min(0.0))
}

/// DPO on log-ratios averaged over completion tokens, one value a pair: `-log σ(β (s_w/n_w -
/// s_l/n_l))`; TRL's `sigmoid_norm`. The averages are small, so `beta` is larger than DPO's.
///
/// # Shapes
/// Log-probabilities `[batch]`, summed; `chosen_tokens` and `rejected_tokens` `[batch]`.
///
/// # Errors
/// As [`sigmoid_loss`]; token counts below 1.
pub fn length_normalised_loss(
    policy: &PairLogps,
    reference: &PairLogps,
    chosen_tokens: &Tensor<1>,
    rejected_tokens: &Tensor<1>,
    beta: f64,
) -> Result<Tensor<1>, AlgoError> {
    positive("beta", beta)?;
    let ratios = log_ratios(policy, reference)?;
    let (chosen, rejected) = per_token(ratios, chosen_tokens, rejected_tokens)?;
    Ok(log_sigmoid((chosen - rejected) * beta).neg())
}
