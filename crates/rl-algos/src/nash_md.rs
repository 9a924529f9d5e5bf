//! Nash-MD: the policy learns to be preferred to a mixture of itself and its reference (Munos et al.
//! 2023, "Nash learning from human feedback").

use burn::tensor::Tensor;

use crate::{
    check::{finite, finite_values, not_negative, same_len, same_shape},
    error::AlgoError,
};

/// Nash-MD-PG, one value a completion: `-(P(y > y') - ½) log π(y) + τ sg(log π(y) - log ref(y)) log
/// π(y)`, where `y` is the policy's, `y'` the mixture's, and `P` the preference of a judge or a reward
/// model; section 7 of Munos et al. 2023. Its gradient is that of the regularised probability of
/// being preferred.
///
/// # Shapes and units
/// Log-probabilities `[batch]` in nats, summed; one preference a completion, in [0, 1]; the result
/// `[batch]`. Gradients flow into `policy` only.
///
/// # Errors
/// `tau` negative, a preference outside [0, 1], shapes, non-finite values.
pub fn nash_md_loss(
    policy: &Tensor<1>,
    reference: &Tensor<1>,
    preferences: &[f64],
    tau: f64,
) -> Result<Tensor<1>, AlgoError> {
    not_negative("tau", tau)?;
    same_shape("reference", reference.dims(), policy.dims())?;
    same_len("preferences", preferences.len(), policy.dims()[0])?;
    finite("policy", policy)?;
    finite("reference", reference)?;
    finite_values("preferences", preferences)?;
    if let Some(value) = preferences.iter().find(|p| !(0.0..=1.0).contains(*p)) {
        return Err(AlgoError::Range {
            argument: "preferences",
            value: *value,
            must: "in [0, 1]",
        });
    }
    let gains = preferences.iter().map(|p| p - 0.5).collect();
    let gains = crate::check::constant(gains, policy.dims(), policy);
    let ratio = (policy.clone() - reference.clone()).detach();
    Ok((ratio * tau - gains) * policy.clone())
}
