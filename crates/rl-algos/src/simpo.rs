//! SimPO (Meng et al. 2024).

use burn::tensor::Tensor;

use crate::{
    check::{not_negative, positive},
    error::AlgoError,
    pair::{PairLogps, log_sigmoid, per_token},
};

/// SimPO, one value a pair: no reference model, log-probabilities averaged over tokens, and a
/// target margin.
///
/// `-log σ(β (log π_w / n_w - log π_l / n_l) - γ)`; eq. 6 of Meng et al. 2024. The paper takes β
/// from 2 to 10 and γ/β from 0.3 to 1.6.
///
/// # Shapes and units
/// Log-probabilities `[batch]` in nats, summed; token counts `[batch]`, with the end token; the
/// result `[batch]`.
///
/// # Errors
/// `beta` not positive, `gamma` negative, counts below 1, shapes, non-finite values.
pub fn simpo_loss(
    policy: &PairLogps,
    chosen_tokens: &Tensor<1>,
    rejected_tokens: &Tensor<1>,
    beta: f64,
    gamma: f64,
) -> Result<Tensor<1>, AlgoError> {
    positive("beta", beta)?;
    not_negative("gamma", gamma)?;
    policy.check("policy.chosen", "policy.rejected")?;
    let sums = (policy.chosen.clone(), policy.rejected.clone());
    let (chosen, rejected) = per_token(sums, chosen_tokens, rejected_tokens)?;
    Ok(log_sigmoid((chosen - rejected) * beta - gamma).neg())
}
