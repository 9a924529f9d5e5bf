//! Reward models from comparisons (Bradley & Terry 1952; Stiennon et al. 2020).

use burn::tensor::Tensor;

use crate::{
    check::{finite, not_negative, same_shape},
    error::AlgoError,
    pair::log_sigmoid,
};

/// Negative log-likelihood of the preferences, one value a pair:
/// `-log σ(r_w - r_l - m) + c (r_w + r_l)²`.
///
/// `margin` `m` `[batch]` is Llama 2's (Touvron et al. 2023, eq. 2); `centering` `c` keeps rewards
/// around zero (Eisenstein et al. 2023). A margin takes no gradient.
///
/// # Shapes
/// `chosen` and `rejected` scores `[batch]`; the result `[batch]`.
///
/// # Errors
/// `centering` negative, shapes, non-finite values.
pub fn bradley_terry_loss(
    chosen: &Tensor<1>,
    rejected: &Tensor<1>,
    margin: Option<&Tensor<1>>,
    centering: f64,
) -> Result<Tensor<1>, AlgoError> {
    not_negative("centering", centering)?;
    same_shape("rejected", rejected.dims(), chosen.dims())?;
    finite("chosen", chosen)?;
    finite("rejected", rejected)?;
    let mut difference = chosen.clone() - rejected.clone();
    if let Some(margin) = margin {
        same_shape("margin", margin.dims(), chosen.dims())?;
        finite("margin", margin)?;
        difference = difference - margin.clone().detach();
    }
    let loss = log_sigmoid(difference).neg();
    if centering == 0.0 {
        return Ok(loss);
    }
    Ok(loss + (chosen.clone() + rejected.clone()).square() * centering)
}
