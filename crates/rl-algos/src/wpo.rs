//! Weighted preference optimisation (Zhou et al. 2024): pairs that the policy would hardly write
//! count less, which brings off-policy data closer to on-policy learning.

use burn::tensor::Tensor;

use crate::{
    check::{finite, same_shape},
    error::AlgoError,
    pair::{PairLogps, per_token},
};

/// The weight of each pair's loss, at most 1 and constant for autodiff: `min(1, w(y_w) w(y_l))`,
/// `w(y) = exp(1/n Σ_t [log π(y_t) - log Σ_v π(v)²])`; eq. 5 and "sampled alignment" of Zhou et al.
/// 2024. The alignment makes a token as likely as a drawn one count 1. The bound is TRL's.
///
/// # Shapes and units
/// `policy` and `collisions` `[batch]`, summed over completion tokens, in nats: log-probabilities,
/// and `log Σ_v π(v)²`. Token counts `[batch]`.
///
/// # Errors
/// Shapes, non-finite values, token counts below 1.
pub fn wpo_weights(
    policy: &PairLogps,
    collisions: &PairLogps,
    chosen_tokens: &Tensor<1>,
    rejected_tokens: &Tensor<1>,
) -> Result<Tensor<1>, AlgoError> {
    policy.check("policy.chosen", "policy.rejected")?;
    let expected = policy.chosen.dims();
    same_shape("collisions.chosen", collisions.chosen.dims(), expected)?;
    collisions.check("collisions.chosen", "collisions.rejected")?;
    let relative = (
        policy.chosen.clone() - collisions.chosen.clone(),
        policy.rejected.clone() - collisions.rejected.clone(),
    );
    let (chosen, rejected) = per_token(relative, chosen_tokens, rejected_tokens)?;
    let weights = (chosen + rejected).detach().exp().clamp_max(1.0);
    finite("weights", &weights)?;
    Ok(weights)
}
