//! Discovered preference optimisation (Lu et al. 2024).

use burn::tensor::{Tensor, activation::sigmoid};

use crate::{
    check::positive,
    dpo::margin,
    error::AlgoError,
    pair::{PairLogps, log_sigmoid},
};

/// DiscoPOP (log-ratio modulated loss), one value a pair: a blend of DPO's loss and an exponential
/// one, which takes over as the margin grows.
///
/// `(1 - m)(-log σ(βh)) + m exp(-βh)`, `m = σ(βh / τ)`; eq. 5 of Lu et al. 2024, TRL's `discopop`.
/// The paper's τ is 0.05. The loss is not convex and has a second minimum at negative margins.
///
/// # Shapes and units
/// Log-probabilities `[batch]` in nats, summed; the result `[batch]`. Gradients flow into `policy`
/// only.
///
/// # Errors
/// `beta` or `tau` not positive, shapes, non-finite values.
pub fn discopop_loss(
    policy: &PairLogps,
    reference: &PairLogps,
    beta: f64,
    tau: f64,
) -> Result<Tensor<1>, AlgoError> {
    positive("beta", beta)?;
    positive("tau", tau)?;
    let x = margin(policy, reference)? * beta;
    let logistic = log_sigmoid(x.clone()).neg();
    let modulation = sigmoid(x.clone() / tau);
    // Where the margin is so negative that exp(-βh) overflows, the modulation is 0.
    let exponential = x.neg().clamp_max(80.0).exp();
    Ok(logistic.clone() + modulation * (exponential - logistic))
}
