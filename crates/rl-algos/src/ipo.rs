//! Identity Preference Optimization (Azar et al. 2023).

use burn::tensor::Tensor;

use crate::{
    check::positive,
    dpo::margin,
    error::AlgoError,
    pair::{PairLogps, log_ratios, per_token},
};

/// IPO as in the paper, one value a pair: `(h - 1/(2τ))²`, `h = s_w - s_l` with `s` summed over
/// completion tokens; eq. 17 of Azar et al. 2023. The DPO authors' code and OpenRLHF sum too.
///
/// # Errors
/// `tau` not positive, shapes, non-finite values.
pub fn summed_loss(
    policy: &PairLogps,
    reference: &PairLogps,
    tau: f64,
) -> Result<Tensor<1>, AlgoError> {
    positive("tau", tau)?;
    Ok((margin(policy, reference)? - 1.0 / (2.0 * tau)).square())
}

/// IPO on log-ratios averaged over completion tokens, one value a pair:
/// `(s_w/n_w - s_l/n_l - 1/(2τ))²`, `n` counting the completion's tokens with its end token. The
/// convention of TRL, AReaL and LLaMA-Factory.
///
/// # Shapes
/// Log-probabilities `[batch]`, summed; `chosen_tokens` and `rejected_tokens` `[batch]`.
///
/// # Errors
/// As [`summed_loss`]; token counts below 1.
pub fn token_averaged_loss(
    policy: &PairLogps,
    reference: &PairLogps,
    chosen_tokens: &Tensor<1>,
    rejected_tokens: &Tensor<1>,
    tau: f64,
) -> Result<Tensor<1>, AlgoError> {
    positive("tau", tau)?;
    let ratios = log_ratios(policy, reference)?;
    let (chosen, rejected) = per_token(ratios, chosen_tokens, rejected_tokens)?;
    Ok((chosen - rejected - 1.0 / (2.0 * tau)).square())
}
