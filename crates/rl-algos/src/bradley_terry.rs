//! Reward models from comparisons (Bradley & Terry 1952; Stiennon et al. 2020).

use burn::tensor::Tensor;

use crate::{
    check::{finite, not_negative, same_shape, within},
    error::AlgoError,
    pair::{cross_entropy, smoothed},
};

/// Negative log-likelihood of the preferences, one value a pair:
/// `-(1-ε) log σ(d) - ε log σ(-d) + c (r_w + r_l)²`, `d = r_w - r_l - m`.
///
/// `label_smoothing` `ε` is the probability that an annotator's label is wrong. `margin` `m` `[batch]` is Llama 2's (Touvron et al. 2023, eq. 2); `centering` `c` keeps rewards
/// around zero (Eisenstein et al. 2023). A margin takes no gradient.
///
/// # Shapes
/// `chosen` and `rejected` scores `[batch]`; the result `[batch]`.
///
/// # Errors
/// `centering` negative, `label_smoothing` outside [0, 0.5], shapes, non-finite values.
pub fn bradley_terry_loss(
    chosen: &Tensor<1>,
    rejected: &Tensor<1>,
    margin: Option<&Tensor<1>>,
    centering: f64,
    label_smoothing: f64,
) -> Result<Tensor<1>, AlgoError> {
    not_negative("centering", centering)?;
    within("label_smoothing", label_smoothing, 0.0..=0.5, "in [0, 0.5]")?;
    same_shape("rejected", rejected.dims(), chosen.dims())?;
    finite("chosen", chosen)?;
    finite("rejected", rejected)?;
    let mut difference = chosen.clone() - rejected.clone();
    if let Some(margin) = margin {
        same_shape("margin", margin.dims(), chosen.dims())?;
        finite("margin", margin)?;
        difference = difference - margin.clone().detach();
    }
    let loss = smoothed(difference, label_smoothing);
    if centering == 0.0 {
        return Ok(loss);
    }
    Ok(loss + (chosen.clone() + rejected.clone()).square() * centering)
}

/// The same on soft labels, one value a pair: `-p log σ(d) - (1-p) log σ(-d) + c (r_w + r_l)²`,
/// `d = r_w - r_l`, with each pair's own probability `p` that the chosen answer is the better one, as an AI
/// judge gives it (Lee et al. 2023, "RLAIF", section 2.2).
///
/// # Shapes
/// Scores and `probability` `[batch]`; the result `[batch]`.
///
/// # Errors
/// `centering` negative, a probability outside [0, 1], shapes, non-finite values.
pub fn soft_label_loss(
    chosen: &Tensor<1>,
    rejected: &Tensor<1>,
    probability: &Tensor<1>,
    centering: f64,
) -> Result<Tensor<1>, AlgoError> {
    not_negative("centering", centering)?;
    same_shape("rejected", rejected.dims(), chosen.dims())?;
    finite("chosen", chosen)?;
    finite("rejected", rejected)?;
    let loss = cross_entropy(chosen.clone() - rejected.clone(), probability)?;
    Ok(loss + (chosen.clone() + rejected.clone()).square() * centering)
}
