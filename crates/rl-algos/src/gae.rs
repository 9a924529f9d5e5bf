//! Generalised advantage estimation (Schulman et al. 2015).

use burn::tensor::{Bool, Tensor};

use crate::{
    check::{Rows, constant, within},
    error::AlgoError,
};

/// Advantages and returns, `[batch, time]`, 0 outside the mask; constants for autodiff.
#[derive(Clone, Debug)]
pub struct Advantages {
    /// `A_t`.
    pub advantages: Tensor<2>,
    /// `A_t + V_t`, what the value function is fitted to.
    pub returns: Tensor<2>,
}

/// `δ_t = r_t + γ V_{t+1} - V_t`, `A_t = δ_t + γ λ A_{t+1}`; `V` and `A` are 0 after a row's last
/// token. Time is counted in tokens that the mask counts: what lies between them (observations of
/// a tool, say) takes no step.
///
/// # Shapes
/// `rewards`, `values` and `mask` `[batch, time]`. Computed in f64 on the host.
///
/// # Errors
/// `gamma` or `lambda` outside [0, 1], shapes, non-finite values, an empty row.
pub fn gae(
    rewards: &Tensor<2>,
    values: &Tensor<2>,
    mask: &Tensor<2, Bool>,
    gamma: f64,
    lambda: f64,
) -> Result<Advantages, AlgoError> {
    within("gamma", gamma, 0.0..=1.0, "in [0, 1]")?;
    within("lambda", lambda, 0.0..=1.0, "in [0, 1]")?;
    let [batch, time] = rewards.dims();
    let rows = Rows::read(mask, [batch, time])?;
    let (r, v) = (
        rows.finite("rewards", rewards)?,
        rows.finite("values", values)?,
    );
    let mut advantages = vec![0.0; batch * time];
    let mut returns = vec![0.0; batch * time];
    for (row, counts) in rows.iter().enumerate() {
        let (mut next_value, mut next_advantage) = (0.0, 0.0);
        for t in (0..time).rev().filter(|t| counts[*t]) {
            let at = row * time + t;
            let delta = r[at] + gamma * next_value - v[at];
            next_advantage = delta + gamma * lambda * next_advantage;
            next_value = v[at];
            advantages[at] = next_advantage;
            returns[at] = next_advantage + v[at];
        }
    }
    Ok(Advantages {
        advantages: constant(advantages, [batch, time], rewards),
        returns: constant(returns, [batch, time], rewards),
    })
}

/// Discounted returns `G_t = r_t + γ G_{t+1}`, `[batch, time]`, 0 outside the mask: advantages
/// without a value function, as REINFORCE++ takes them (Hu 2025). Constants for autodiff.
///
/// # Errors
/// As [`gae`].
pub fn discounted_returns(
    rewards: &Tensor<2>,
    mask: &Tensor<2, Bool>,
    gamma: f64,
) -> Result<Tensor<2>, AlgoError> {
    Ok(gae(rewards, &rewards.zeros_like(), mask, gamma, 1.0)?.returns)
}
