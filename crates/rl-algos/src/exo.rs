//! Efficient exact optimisation (Ji et al. 2024).

use burn::tensor::Tensor;

use crate::{
    check::{positive, within},
    dpo::margin,
    error::AlgoError,
    pair::{PairLogps, log_sigmoid},
};

/// EXO on pairs, one value a pair: the *reverse* divergence of the policy's preference from the
/// label's, where DPO takes the forward one.
///
/// `KL([σ(βh), σ(-βh)] ‖ [1-ε, ε])`; eq. 16 of Ji et al. 2024, TRL's `exo_pair`. With ε = 0 the
/// divergence is infinite, so ε has to be positive.
///
/// # Shapes and units
/// Log-probabilities `[batch]` in nats, summed; the result `[batch]`. Gradients flow into `policy`
/// only.
///
/// # Errors
/// `beta` not positive, `label_smoothing` outside (0, 0.5], shapes, non-finite values.
pub fn exo_pair_loss(
    policy: &PairLogps,
    reference: &PairLogps,
    beta: f64,
    label_smoothing: f64,
) -> Result<Tensor<1>, AlgoError> {
    positive("beta", beta)?;
    within(
        "label_smoothing",
        label_smoothing,
        1e-12..=0.5,
        "in (0, 0.5]",
    )?;
    let x = margin(policy, reference)? * beta;
    let (right, wrong) = (log_sigmoid(x.clone()), log_sigmoid(x.neg()));
    let of = |log_q: Tensor<1>, p: f64| log_q.clone().exp() * (log_q - p.ln());
    Ok(of(right, 1.0 - label_smoothing) + of(wrong, label_smoothing))
}
