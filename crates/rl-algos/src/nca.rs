//! Noise contrastive alignment (Chen et al. 2024).

use burn::tensor::Tensor;

use crate::{
    check::positive,
    error::AlgoError,
    pair::{PairLogps, log_ratios, log_sigmoid},
};

/// NCA on pairs, one value a pair: it raises the chosen answer's likelihood itself, not only above
/// the other's.
///
/// `-log σ(β s_w) - ½ log σ(-β s_w) - ½ log σ(-β s_l)`; Chen et al. 2024 for two answers, TRL's
/// `nca_pair`.
///
/// # Shapes and units
/// Log-probabilities `[batch]` in nats, summed; the result `[batch]`. Gradients flow into `policy`
/// only.
///
/// # Errors
/// `beta` not positive, shapes, non-finite values.
pub fn nca_pair_loss(
    policy: &PairLogps,
    reference: &PairLogps,
    beta: f64,
) -> Result<Tensor<1>, AlgoError> {
    positive("beta", beta)?;
    let (chosen, rejected) = log_ratios(policy, reference)?;
    let (chosen, rejected) = (chosen * beta, rejected * beta);
    let noise = log_sigmoid(chosen.clone().neg()) + log_sigmoid(rejected.neg());
    Ok(log_sigmoid(chosen).neg() - noise * 0.5)
}
