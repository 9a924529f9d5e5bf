//! Odds ratio preference optimisation (Hong et al. 2024).

use burn::tensor::Tensor;

use crate::{
    check::{host, positive},
    error::AlgoError,
    pair::{PairLogps, log_sigmoid, per_token},
};

/// ORPO, one value a pair: supervised learning of the chosen answer, and the ratio of the two
/// answers' odds; no reference model.
///
/// `-p_w - λ log σ(log odds_w - log odds_l)`, `p = log π / n` and `log odds = p - log(1 - e^p)`;
/// eq. 6 and 7 of Hong et al. 2024 (TRL calls λ `beta`).
///
/// # Shapes and units
/// Log-probabilities `[batch]` in nats, summed; token counts `[batch]`, with the end token; the
/// result `[batch]`.
///
/// # Errors
/// `lambda` not positive, counts below 1, shapes, non-finite values, a log-probability that is not
/// below 0 (its odds are infinite).
pub fn orpo_loss(
    policy: &PairLogps,
    chosen_tokens: &Tensor<1>,
    rejected_tokens: &Tensor<1>,
    lambda: f64,
) -> Result<Tensor<1>, AlgoError> {
    positive("lambda", lambda)?;
    policy.check("policy.chosen", "policy.rejected")?;
    let sums = (policy.chosen.clone(), policy.rejected.clone());
    let (chosen, rejected) = per_token(sums, chosen_tokens, rejected_tokens)?;
    for (argument, p) in [("policy.chosen", &chosen), ("policy.rejected", &rejected)] {
        if let Some(value) = host(p).into_iter().find(|p| *p >= 0.0) {
            return Err(AlgoError::Range {
                argument,
                value,
                must: "below 0",
            });
        }
    }
    let odds = log_odds(chosen.clone()) - log_odds(rejected);
    Ok(chosen.neg() - log_sigmoid(odds) * lambda)
}

/// `p - log(1 - e^p)` for `p < 0`. Since `1 - e^p = tanh(-p/2) (1 + e^p)`, nothing cancels near 0.
fn log_odds(p: Tensor<1>) -> Tensor<1> {
    let one_minus = (p.clone() * -0.5).tanh().log() + p.clone().exp().log1p();
    p - one_minus
}
