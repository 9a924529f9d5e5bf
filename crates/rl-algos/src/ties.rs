//! Reward models from comparisons that may end in a tie (Rao & Kupper 1967; for reward models, Liu
//! et al. 2024, "Reward modeling with ties").

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::{
    check::{constant, finite, same_len, same_shape, within},
    error::AlgoError,
    pair::log_sigmoid,
};

/// How a comparison of two answers ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The first is better.
    First,
    /// The second is better.
    Second,
    /// Neither is.
    Tie,
}

/// Negative log-likelihood of the outcomes, one value a comparison: with `d = r_1 - r_2` and
/// `η = ln θ`, `P(first) = σ(d - η)`, `P(second) = σ(-d - η)`, and a tie has what is left, `(θ² - 1)
/// σ(d - η) σ(-d - η)`. With `θ` towards 1 it is Bradley-Terry.
///
/// # Shapes
/// Scores `[batch]`; one outcome a comparison; the result `[batch]`.
///
/// # Errors
/// `theta` not above 1, shapes, non-finite values.
pub fn rao_kupper_loss(
    first: &Tensor<1>,
    second: &Tensor<1>,
    outcomes: &[Outcome],
    theta: f64,
) -> Result<Tensor<1>, AlgoError> {
    within("theta", theta, 1.000_001..=f64::MAX, "above 1")?;
    same_shape("second", second.dims(), first.dims())?;
    same_len("outcomes", outcomes.len(), first.dims()[0])?;
    finite("first", first)?;
    finite("second", second)?;
    let eta = theta.ln();
    let difference = first.clone() - second.clone();
    let wins = log_sigmoid(difference.clone() - eta);
    let loses = log_sigmoid(difference.neg() - eta);
    // What each outcome takes of the two, and the constant of a tie.
    let weights = |of: fn(Outcome) -> f64| {
        let values = outcomes.iter().map(|o| of(*o)).collect();
        constant(values, first.dims(), first)
    };
    let first_counts = weights(|o| f64::from(u8::from(o != Outcome::Second)));
    let second_counts = weights(|o| f64::from(u8::from(o != Outcome::First)));
    let ties = weights(|o| f64::from(u8::from(o == Outcome::Tie)));
    let log_likelihood =
        wins * first_counts + loses * second_counts + ties * (theta.powi(2) - 1.0).ln();
    Ok(log_likelihood.neg())
}
