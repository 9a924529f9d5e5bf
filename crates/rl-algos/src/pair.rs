//! Preference pairs: log-probabilities and lengths of their completions.

use burn::tensor::{Tensor, activation};

use crate::{
    check::{finite, same_shape},
    error::AlgoError,
};

/// Log-probabilities of the completions of preference pairs, summed over completion tokens,
/// `[batch]`, in nats.
#[derive(Clone, Debug)]
pub struct PairLogps {
    /// Of the preferred completions.
    pub chosen: Tensor<1>,
    /// Of the others.
    pub rejected: Tensor<1>,
}

impl PairLogps {
    pub(crate) fn check(
        &self,
        chosen: &'static str,
        rejected: &'static str,
    ) -> Result<(), AlgoError> {
        same_shape(rejected, self.rejected.dims(), self.chosen.dims())?;
        finite(chosen, &self.chosen)?;
        finite(rejected, &self.rejected)
    }
}

/// Log-ratios of policy to reference: `(s_w, s_l)`. The reference takes no gradient.
pub(crate) fn log_ratios(
    policy: &PairLogps,
    reference: &PairLogps,
) -> Result<(Tensor<1>, Tensor<1>), AlgoError> {
    policy.check("policy.chosen", "policy.rejected")?;
    same_shape(
        "reference.chosen",
        reference.chosen.dims(),
        policy.chosen.dims(),
    )?;
    reference.check("reference.chosen", "reference.rejected")?;
    Ok((
        policy.chosen.clone() - reference.chosen.clone().detach(),
        policy.rejected.clone() - reference.rejected.clone().detach(),
    ))
}

/// `chosen / n_w` and `rejected / n_l`: values of a pair per token of its completions.
pub(crate) fn per_token(
    (chosen, rejected): (Tensor<1>, Tensor<1>),
    chosen_tokens: &Tensor<1>,
    rejected_tokens: &Tensor<1>,
) -> Result<(Tensor<1>, Tensor<1>), AlgoError> {
    token_counts("chosen_tokens", chosen_tokens, chosen.dims())?;
    token_counts("rejected_tokens", rejected_tokens, rejected.dims())?;
    Ok((
        chosen / chosen_tokens.clone().detach(),
        rejected / rejected_tokens.clone().detach(),
    ))
}

pub(crate) fn token_counts(
    argument: &'static str,
    tokens: &Tensor<1>,
    expected: [usize; 1],
) -> Result<(), AlgoError> {
    same_shape(argument, tokens.dims(), expected)?;
    finite(argument, tokens)?;
    match crate::check::host(tokens).into_iter().find(|n| *n < 1.0) {
        None => Ok(()),
        Some(value) => Err(AlgoError::Range {
            argument,
            value,
            must: "at least 1",
        }),
    }
}

/// `log σ(x) = -log(1 + exp(-x))`, without overflow and with the gradient `σ(-x)` everywhere, at
/// `x = 0` too, where every pair starts.
pub(crate) fn log_sigmoid(x: Tensor<1>) -> Tensor<1> {
    activation::log_sigmoid(x)
}

/// `-p log σ(x) - (1-p) log σ(-x)`: the cross-entropy of a label that is right with a probability of its
/// own.
pub(crate) fn cross_entropy(x: Tensor<1>, probability: &Tensor<1>) -> Result<Tensor<1>, AlgoError> {
    same_shape("probability", probability.dims(), x.dims())?;
    for value in crate::check::host(probability) {
        crate::check::within("probability", value, 0.0..=1.0, "in [0, 1]")?;
    }
    let p = probability.clone().detach();
    // -p log σ(x) - (1-p) log σ(-x) = (1-p) x - log σ(x).
    Ok((p.neg() + 1.0) * x.clone() - log_sigmoid(x))
}

/// `-(1-ε) log σ(x) - ε log σ(-x)`: the cross-entropy of a label that is right with probability
/// `1-ε`.
pub(crate) fn smoothed(x: Tensor<1>, label_smoothing: f64) -> Tensor<1> {
    let right = log_sigmoid(x.clone()).neg();
    if label_smoothing == 0.0 {
        return right;
    }
    let wrong = log_sigmoid(x.neg()).neg();
    right * (1.0 - label_smoothing) + wrong * label_smoothing
}
