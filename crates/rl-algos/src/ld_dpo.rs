//! Length-desensitised DPO (Liu et al. 2024, "Length desensitization in direct preference
//! optimization").

use burn::tensor::{Bool, Tensor};

use crate::{
    check::{Rows, constant, masked, same_len, within},
    error::AlgoError,
};

/// Summed log-probabilities in which the tokens past the length that both answers of a pair have
/// count only `alpha`: `Σ_{t ≤ l} log π_t + α Σ_{t > l} log π_t`, `l = min(n_w, n_l)`; eq. 8 of Liu
/// et al. 2024. They go into [`crate::dpo::sigmoid_loss`] in place of the plain sums; α = 1 is DPO.
///
/// TRL does it to policy and reference, as the paper; LLaMA-Factory to the policy alone.
///
/// # Shapes
/// `token_logps` and `mask` `[batch, time]`; `public_lens` one a row: tokens of the shorter answer of
/// its pair. The result `[batch]`.
///
/// # Errors
/// `alpha` outside [0, 1], shapes, an empty row, non-finite values where the mask counts.
pub fn length_desensitised(
    token_logps: &Tensor<2>,
    mask: &Tensor<2, Bool>,
    public_lens: &[usize],
    alpha: f64,
) -> Result<Tensor<1>, AlgoError> {
    within("alpha", alpha, 0.0..=1.0, "in [0, 1]")?;
    let [batch, time] = token_logps.dims();
    let rows = Rows::read(mask, [batch, time])?;
    rows.finite("token_logps", token_logps)?;
    same_len("public_lens", public_lens.len(), batch)?;
    let mut weights = Vec::with_capacity(batch * time);
    for (counts, public) in rows.iter().zip(public_lens) {
        let mut seen = 0;
        for counts in counts {
            seen += usize::from(*counts);
            weights.push(if seen <= *public { 1.0 } else { alpha });
        }
    }
    let weights = constant(weights, [batch, time], token_logps);
    Ok((masked(token_logps.clone(), mask) * weights)
        .sum_dim(1)
        .reshape([batch]))
}
