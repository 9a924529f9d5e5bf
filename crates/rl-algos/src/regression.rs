//! Reward models from ratings of single answers.

use burn::tensor::Tensor;

use crate::{
    check::{finite, same_shape},
    error::AlgoError,
};

/// Squared error of scores against ratings, one value an answer: `(r - y)²`, for ratings of single
/// answers instead of comparisons (HelpSteer, Wang et al. 2023).
///
/// # Shapes
/// All `[batch]`. The ratings take no gradient.
///
/// # Errors
/// Shapes, non-finite values.
pub fn regression_loss(scores: &Tensor<1>, ratings: &Tensor<1>) -> Result<Tensor<1>, AlgoError> {
    same_shape("ratings", ratings.dims(), scores.dims())?;
    finite("scores", scores)?;
    finite("ratings", ratings)?;
    Ok((scores.clone() - ratings.clone().detach()).square())
}
