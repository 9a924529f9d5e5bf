//! Advantages from several completions of one prompt, without a value model. On the host, in f64:
//! there is one number a completion.

use serde::{Deserialize, Serialize};

use crate::{check::finite_values, error::AlgoError};

/// What group-relative advantages are divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupScale {
    /// The deviation of the completion's own group (GRPO, Shao et al. 2024).
    Group,
    /// The deviation of all scores of the batch.
    Batch,
    /// Nothing (Dr. GRPO, Liu et al. 2025): dividing gives easy and hard prompts too much weight.
    None,
}

/// Added to a deviation before it divides, as in TRL.
const SCALE_EPS: f64 = 1e-4;

/// `(r - mean of its group) / (deviation + 1e-4)`, one value a completion. Deviations are those of
/// a sample (`n - 1`). A group of equal scores has advantages of 0.
///
/// `scores` has groups of `group_size` one after the other.
///
/// # Errors
/// A group of one, scores that do not fill their groups, non-finite scores.
pub fn group_relative(
    scores: &[f64],
    group_size: usize,
    scale: GroupScale,
) -> Result<Vec<f64>, AlgoError> {
    check(scores, group_size)?;
    let batch = deviation(scores);
    let relative = |group: &[f64]| -> Vec<f64> {
        let mean = mean(group);
        let scale = match scale {
            GroupScale::Group => deviation(group) + SCALE_EPS,
            GroupScale::Batch => batch + SCALE_EPS,
            GroupScale::None => 1.0,
        };
        group.iter().map(|r| (r - mean) / scale).collect()
    };
    Ok(scores.chunks(group_size).flat_map(relative).collect())
}

/// `r_i - mean of the other scores of its group`, one value a completion (RLOO; Kool et al. 2019,
/// Ahmadian et al. 2024).
///
/// # Errors
/// As [`group_relative`].
pub fn leave_one_out(scores: &[f64], group_size: usize) -> Result<Vec<f64>, AlgoError> {
    check(scores, group_size)?;
    let others = (group_size - 1) as f64;
    let relative = |group: &[f64]| -> Vec<f64> {
        let sum: f64 = group.iter().sum();
        group.iter().map(|r| r - (sum - r) / others).collect()
    };
    Ok(scores.chunks(group_size).flat_map(relative).collect())
}

/// `r - baseline`, one value a completion: ReMax (Li et al. 2023) with the score of the greedy
/// completion of the same prompt, or any other baseline that does not see the completion.
///
/// # Errors
/// Lists of different lengths, non-finite values.
pub fn against_baseline(scores: &[f64], baseline: &[f64]) -> Result<Vec<f64>, AlgoError> {
    finite_values("scores", scores)?;
    finite_values("baseline", baseline)?;
    crate::check::same_len("baseline", baseline.len(), scores.len())?;
    Ok(scores.iter().zip(baseline).map(|(r, b)| r - b).collect())
}

fn check(scores: &[f64], group_size: usize) -> Result<(), AlgoError> {
    finite_values("scores", scores)?;
    if group_size < 2 {
        return Err(AlgoError::SmallGroup {
            argument: "scores",
            group: 0,
            size: group_size,
        });
    }
    let whole = scores.len().next_multiple_of(group_size);
    crate::check::same_len("scores", scores.len(), whole)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn deviation(values: &[f64]) -> f64 {
    let mean = mean(values);
    let squares: f64 = values.iter().map(|x| (x - mean).powi(2)).sum();
    (squares / (values.len() as f64 - 1.0).max(1.0)).sqrt()
}
