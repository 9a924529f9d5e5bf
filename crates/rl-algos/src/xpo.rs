//! Exploratory preference optimisation (Xie et al. 2024): online DPO between an answer of the policy
//! and one of the reference, with a bonus for leaving the reference's answers.

use burn::tensor::Tensor;

use crate::{
    check::{finite, not_negative, same_shape},
    dpo::sigmoid_loss,
    error::AlgoError,
    pair::PairLogps,
};

/// XPO, one value a pair: DPO's loss `+ α log π(y_ref)`; line 7 of algorithm 1 of Xie et al. 2024.
/// `of_reference` is the policy's log-probability of the completion that the reference wrote: making
/// it less likely is the exploration.
///
/// # Shapes and units
/// As [`sigmoid_loss`]; `of_reference` `[batch]`. Gradients flow into `policy` and `of_reference`.
///
/// # Errors
/// As [`sigmoid_loss`]; `alpha` negative.
pub fn xpo_loss(
    policy: &PairLogps,
    reference: &PairLogps,
    of_reference: &Tensor<1>,
    beta: f64,
    alpha: f64,
) -> Result<Tensor<1>, AlgoError> {
    not_negative("alpha", alpha)?;
    same_shape("of_reference", of_reference.dims(), policy.chosen.dims())?;
    finite("of_reference", of_reference)?;
    let preference = sigmoid_loss(policy, reference, beta, 0.0)?;
    Ok(preference + of_reference.clone() * alpha)
}
