//! What is made of rows of logits on a GPU: a target's log-probability with the entropy, and the gradient, which is
//! written over them.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::launch::{UNITS, empty, for_each_row, max_of_cube, own, rows, sum_of_cube};

#[cube]
fn largest_of(logits: &[f32], row: usize, vocabulary: usize) -> f32 {
    let mut largest = logits[row];
    let mut i = UNIT_POS as usize;
    while i < vocabulary {
        largest = max(largest, logits[row + i]);
        i += UNITS;
    }
    max_of_cube(largest)
}

// With y = (logit - the largest) scale: log p = y - log Σ e^y, h = log Σ e^y - Σ y e^y / Σ e^y,
// log Σ p² = log Σ e^2y - 2 log Σ e^y.
#[cube(launch, address_type = "dynamic")]
fn select(
    logits: &[f32],
    targets: &[i32],
    out: &mut [f32],
    count: usize,
    vocabulary: usize,
    scale: f32,
) {
    if CUBE_POS < count {
        let row = CUBE_POS * vocabulary;
        let largest = largest_of(logits, row, vocabulary);
        let mut sum = 0.0f32;
        let mut weighted = 0.0f32;
        let mut squares = 0.0f32;
        let mut i = UNIT_POS as usize;
        while i < vocabulary {
            let y = (logits[row + i] - largest) * scale;
            let e = y.exp();
            sum += e;
            weighted += e * y;
            squares += e * e;
            i += UNITS;
        }
        let sum = sum_of_cube(sum);
        let weighted = sum_of_cube(weighted);
        let squares = sum_of_cube(squares);
        if UNIT_POS == 0 {
            let log_sum = sum.ln();
            let target = logits[row + targets[CUBE_POS] as usize];
            out[CUBE_POS] = (target - largest) * scale - log_sum;
            out[count + CUBE_POS] = log_sum - weighted / sum;
            out[2 * count + CUBE_POS] = squares.ln() - 2.0 * log_sum;
        }
    }
}

/// Of logits `[rows, vocabulary]` times `scale` and a target a row: log-probabilities, entropies and collisions,
/// `[3, rows]`.
pub(super) fn selected(logits: CubeTensor, targets: CubeTensor, scale: f32) -> CubeTensor {
    let (logits, targets) = (rows(logits), rows(targets));
    let [count, vocabulary] = logits.meta.shape().dims();
    let out = empty(&logits, [3, count].into());
    if count > 0 {
        let (cubes, dim) = for_each_row(count);
        select::launch(
            &out.client.clone(),
            cubes,
            dim,
            logits.required_address_type(),
            logits.into_buffer_arg(),
            targets.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            count,
            vocabulary,
            scale,
        );
    }
    out
}

// (g (1_target - p) - g_entropy p (log p + h)) scale, where log p + h = y - Σ y e^y / Σ e^y. A unit reads and writes the
// same numbers, but for the first of a row, which all read before they wait for each other.
#[cube(launch, address_type = "dynamic")]
fn differentiate(
    logits: &mut [f32],
    targets: &[i32],
    grad: &[f32],
    count: usize,
    vocabulary: usize,
    scale: f32,
) {
    if CUBE_POS < count {
        let row = CUBE_POS * vocabulary;
        let largest = largest_of(&*logits, row, vocabulary);
        let mut sum = 0.0f32;
        let mut weighted = 0.0f32;
        let mut i = UNIT_POS as usize;
        while i < vocabulary {
            let y = (logits[row + i] - largest) * scale;
            let e = y.exp();
            sum += e;
            weighted += e * y;
            i += UNITS;
        }
        let sum = sum_of_cube(sum);
        let mean = sum_of_cube(weighted) / sum;
        let target = targets[CUBE_POS] as usize;
        let to_logp = grad[CUBE_POS] * scale;
        let to_entropy = grad[count + CUBE_POS] * scale;
        let mut i = UNIT_POS as usize;
        while i < vocabulary {
            let y = (logits[row + i] - largest) * scale;
            let p = y.exp() / sum;
            let mut d = -p * (to_logp + to_entropy * (y - mean));
            if i == target {
                d += to_logp;
            }
            logits[row + i] = d;
            i += UNITS;
        }
    }
}

/// The gradient of [`selected`]'s logits, which come as a vector, from that of its rows, of which the third takes no
/// part.
pub(super) fn gradient(
    logits: CubeTensor,
    targets: CubeTensor,
    grad: CubeTensor,
    scale: f32,
) -> CubeTensor {
    let (logits, targets, grad) = (own(logits), rows(targets), rows(grad));
    let count = targets.meta.num_elements();
    let Some(vocabulary) = logits.meta.num_elements().checked_div(count) else {
        return logits;
    };
    let (cubes, dim) = for_each_row(count);
    differentiate::launch(
        &logits.client.clone(),
        cubes,
        dim,
        logits.required_address_type(),
        logits.clone().into_buffer_arg(),
        targets.into_buffer_arg(),
        grad.into_buffer_arg(),
        count,
        vocabulary,
        scale,
    );
    logits
}
