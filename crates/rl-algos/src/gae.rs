//! Generalised advantage estimation (Schulman et al. 2015).

use burn::tensor::{Bool, Tensor, TensorData};

use crate::error::{AlgoError, finite, host, mask_rows, same_shape, within};

/// Advantages and returns, `[batch, time]`, 0 outside the mask; constants for autodiff.
#[derive(Clone, Debug)]
pub struct Advantages {
    /// `A_t`.
    pub advantages: Tensor<2>,
    /// `A_t + V_t`, what the value function is fitted to.
    pub returns: Tensor<2>,
}

/// `δ_t = r_t + γ V_{t+1} - V_t`, `A_t = δ_t + γ λ A_{t+1}`; `V` and `A` are 0 after a row's last
/// token.
///
/// # Shapes
/// `rewards`, `values` and `mask` `[batch, time]`; a row's tokens are left-aligned.
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
    same_shape("values", values.dims(), [batch, time])?;
    same_shape("mask", mask.dims(), [batch, time])?;
    finite("rewards", rewards)?;
    finite("values", values)?;
    let rows = mask_rows("mask", mask)?;
    let (r, v) = (host(rewards), host(values));
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
    let device = rewards.device().without_autodiff();
    let tensor = |data: Vec<f64>| {
        let data: Vec<f32> = data.into_iter().map(|x| x as f32).collect();
        Tensor::from_data(TensorData::new(data, [batch, time]), &device)
    };
    Ok(Advantages { advantages: tensor(advantages), returns: tensor(returns) })
}
