//! Anchored preference optimisation (D'Oosterlinck et al. 2024).

use burn::tensor::{Tensor, activation::sigmoid};

use crate::{
    check::positive,
    error::AlgoError,
    pair::{PairLogps, log_ratios},
};

/// APO-zero, one value a pair: for chosen answers that are better than the model's own. It raises
/// the chosen likelihood and lowers the rejected one.
///
/// `1 - σ(β s_w) + σ(β s_l)`; eq. 7 of D'Oosterlinck et al. 2024, TRL's `apo_zero`.
///
/// # Shapes and units
/// Log-probabilities `[batch]` in nats, summed; the result `[batch]`. Gradients flow into `policy`
/// only.
///
/// # Errors
/// `beta` not positive, shapes, non-finite values.
pub fn apo_zero_loss(
    policy: &PairLogps,
    reference: &PairLogps,
    beta: f64,
) -> Result<Tensor<1>, AlgoError> {
    positive("beta", beta)?;
    let (chosen, rejected) = log_ratios(policy, reference)?;
    Ok(sigmoid(rejected * beta) - sigmoid(chosen * beta) + 1.0)
}

/// APO-down, one value a pair: for chosen answers that are worse than the model's own. It lowers
/// both likelihoods, the rejected one more.
///
/// `σ(β s_w) + 1 - σ(β (s_w - s_l))`; eq. 8 of D'Oosterlinck et al. 2024, TRL's `apo_down`.
///
/// # Errors
/// As [`apo_zero_loss`].
pub fn apo_down_loss(
    policy: &PairLogps,
    reference: &PairLogps,
    beta: f64,
) -> Result<Tensor<1>, AlgoError> {
    positive("beta", beta)?;
    let (chosen, rejected) = log_ratios(policy, reference)?;
    let margin = chosen.clone() - rejected;
    Ok(sigmoid(chosen * beta) - sigmoid(margin * beta) + 1.0)
}
