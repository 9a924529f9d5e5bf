//! Kahneman-Tversky optimisation (Ethayarajh et al. 2024): single answers with a thumb up or down.

use burn::tensor::Tensor;

use crate::{
    check::{constant, finite, finite_values, not_negative, positive, same_len, same_shape},
    error::AlgoError,
};

/// How KTO weighs answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KtoWeights {
    /// Of answers with a thumb up.
    pub desirable: f64,
    /// Of answers with a thumb down.
    pub undesirable: f64,
}

/// KTO, one value an answer.
///
/// `λ_D (1 - σ(β (s - z)))` for a desirable answer, `λ_U (1 - σ(β (z - s)))` for another one;
/// eq. 8 of Ethayarajh et al. 2024. `z` is the reference point (see [`reference_point`]) and takes
/// no gradient.
///
/// # Shapes and units
/// Log-probabilities `[batch]` in nats, summed over the completion; one label an answer; the
/// result `[batch]`. Gradients flow into `policy` only.
///
/// # Errors
/// `beta` not positive, a weight or `z` negative, shapes, non-finite values.
pub fn kto_loss(
    policy: &Tensor<1>,
    reference: &Tensor<1>,
    desirable: &[bool],
    z: f64,
    beta: f64,
    weights: KtoWeights,
) -> Result<Tensor<1>, AlgoError> {
    positive("beta", beta)?;
    not_negative("z", z)?;
    not_negative("weights.desirable", weights.desirable)?;
    not_negative("weights.undesirable", weights.undesirable)?;
    same_shape("reference", reference.dims(), policy.dims())?;
    same_len("desirable", desirable.len(), policy.dims()[0])?;
    finite("policy", policy)?;
    finite("reference", reference)?;
    let ratio = policy.clone() - reference.clone().detach();
    let each = |up: f64, down: f64| {
        let values = desirable.iter().map(|d| if *d { up } else { down });
        constant(values.collect(), policy.dims(), policy)
    };
    let gain = (ratio - z) * each(beta, -beta);
    // 1 - σ(x) = σ(-x), which keeps small values.
    let missed = burn::tensor::activation::sigmoid(gain.neg());
    Ok(missed * each(weights.desirable, weights.undesirable))
}

/// The reference point: `max(0, mean of log π/ref over mismatched answers)`, an estimate of the
/// divergence from the reference. A mismatched answer is another prompt's (in the paper, the next
/// one's in the batch).
///
/// # Errors
/// Without log-ratios, or with one that is not finite.
pub fn reference_point(mismatched: &[f64]) -> Result<f64, AlgoError> {
    finite_values("mismatched", mismatched)?;
    let mean = mismatched.iter().sum::<f64>() / mismatched.len() as f64;
    Ok(mean.max(0.0))
}
