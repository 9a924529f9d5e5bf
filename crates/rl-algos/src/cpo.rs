//! Contrastive preference optimisation (Xu et al. 2024).

use burn::tensor::Tensor;

use crate::{
    check::{not_negative, positive, within},
    error::AlgoError,
    pair::{PairLogps, smoothed, token_counts},
};

/// CPO, one value a pair: DPO with a uniform reference, and a likelihood term on the chosen
/// answer that keeps it probable.
///
/// `-(1-ε) log σ(β d) - ε log σ(-β d) - α log π_w / n_w`, `d = log π_w - log π_l`; Xu et al. 2024.
/// The likelihood is averaged over the answer's tokens; TRL averages over all tokens of a batch.
///
/// # Shapes and units
/// Log-probabilities `[batch]` in nats, summed; `chosen_tokens` `[batch]`, with the end token; the
/// result `[batch]`.
///
/// # Errors
/// `beta` not positive, `alpha` negative, `label_smoothing` outside [0, 0.5], counts below 1,
/// shapes, non-finite values.
pub fn cpo_loss(
    policy: &PairLogps,
    chosen_tokens: &Tensor<1>,
    beta: f64,
    alpha: f64,
    label_smoothing: f64,
) -> Result<Tensor<1>, AlgoError> {
    positive("beta", beta)?;
    not_negative("alpha", alpha)?;
    within("label_smoothing", label_smoothing, 0.0..=0.5, "in [0, 0.5]")?;
    policy.check("policy.chosen", "policy.rejected")?;
    token_counts("chosen_tokens", chosen_tokens, policy.chosen.dims())?;
    let margin = policy.chosen.clone() - policy.rejected.clone();
    let likelihood = policy.chosen.clone() / chosen_tokens.clone().detach();
    Ok(smoothed(margin * beta, label_smoothing) - likelihood * alpha)
}
