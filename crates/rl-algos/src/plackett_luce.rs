//! Reward models from rankings of several answers.

use burn::tensor::Tensor;

use crate::{check::finite, error::AlgoError, pair::log_sigmoid};

/// Scores of ranked answers: `[batch, k]`, the best answer of each row first.
fn ranked(scores: &Tensor<2>) -> Result<[usize; 2], AlgoError> {
    let [batch, k] = scores.dims();
    finite("scores", scores)?;
    if k < 2 {
        return Err(AlgoError::SmallGroup {
            argument: "scores",
            group: 0,
            size: k,
        });
    }
    Ok([batch, k])
}

/// Negative log-likelihood of rankings under Plackett-Luce, one value a ranking: the best is chosen
/// among all, the next among those that are left, and so on.
///
/// `-Σ_i [r_i - log Σ_{j ≥ i} exp r_j]`; Luce 1959, Plackett 1975. With two answers it is
/// Bradley-Terry.
///
/// # Shapes
/// `scores` `[batch, k]`, best first; the result `[batch]`.
///
/// # Errors
/// Fewer than two answers, non-finite values.
pub fn plackett_luce_loss(scores: &Tensor<2>) -> Result<Tensor<1>, AlgoError> {
    let [batch, k] = ranked(scores)?;
    let mut loss = scores.zeros_like().narrow(1, 0, 1);
    for i in 0..k - 1 {
        let left = scores.clone().narrow(1, i, k - i);
        let best = left.clone().narrow(1, 0, 1);
        let largest = left.clone().detach().max_dim(1);
        let log_sum = (left - largest.clone()).exp().sum_dim(1).log() + largest;
        loss = loss + log_sum - best;
    }
    Ok(loss.reshape([batch]))
}

/// The ranking loss of InstructGPT, one value a ranking: the mean over all pairs of answers of
/// `-log σ(r_better - r_worse)`; eq. 1 of Ouyang et al. 2022.
///
/// # Shapes
/// `scores` `[batch, k]`, best first; the result `[batch]`.
///
/// # Errors
/// As [`plackett_luce_loss`].
pub fn all_pairs_loss(scores: &Tensor<2>) -> Result<Tensor<1>, AlgoError> {
    let [batch, k] = ranked(scores)?;
    let mut sum: Option<Tensor<2>> = None;
    for i in 0..k - 1 {
        let worse = scores.clone().narrow(1, i + 1, k - 1 - i);
        let better = scores.clone().narrow(1, i, 1);
        let count = batch * (k - 1 - i);
        let losses = log_sigmoid((better - worse).reshape([count])).neg();
        let row = losses.reshape([batch, k - 1 - i]).sum_dim(1);
        sum = Some(match sum {
            None => row,
            Some(sum) => sum + row,
        });
    }
    let pairs = (k * (k - 1)) as f64 / 2.0;
    // `ranked` has seen to at least one pair.
    let sum = sum.ok_or(AlgoError::Empty { argument: "scores" })?;
    Ok(sum.reshape([batch]) / pairs)
}
