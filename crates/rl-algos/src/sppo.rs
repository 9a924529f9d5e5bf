//! Self-play preference optimisation (Wu et al. 2024).

use burn::tensor::Tensor;

use crate::{
    check::positive,
    error::AlgoError,
    pair::{PairLogps, log_ratios},
};

/// SPPO with hard labels, one value a pair: the log-ratio of the winner is drawn to `½/β`, that of
/// the loser to `-½/β`.
///
/// `(s_w - ½/β)² + (s_l + ½/β)²`; eq. 4.7 of Wu et al. 2024 with win probabilities 1 and 0, and
/// `β = 1/η`; TRL's `sppo_hard`.
///
/// # Shapes and units
/// Log-probabilities `[batch]` in nats, summed; the result `[batch]`. Gradients flow into `policy`
/// only.
///
/// # Errors
/// `beta` not positive, shapes, non-finite values.
pub fn sppo_hard_loss(
    policy: &PairLogps,
    reference: &PairLogps,
    beta: f64,
) -> Result<Tensor<1>, AlgoError> {
    positive("beta", beta)?;
    let (chosen, rejected) = log_ratios(policy, reference)?;
    let target = 0.5 / beta;
    Ok((chosen - target).square() + (rejected + target).square())
}
