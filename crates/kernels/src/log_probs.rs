//! Output head, softmax and selection in one operation that never holds `[tokens, vocabulary]`.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use burn::backend::flex::FlexTensor;
use burn::tensor::{Int, Tensor, TensorData, activation};
use rayon::prelude::*;

#[cfg(feature = "gpu")]
use crate::gpu::{self, on_gpu};
use crate::{
    attention::maximum,
    cpu::Mat,
    linear::{add_product_in, linear_composed, product_with_rows},
    op::{CpuOp, View, apply, is_tracked, on_cpu, tensor_of},
    precision::Precision,
    simd::{LANES, exp, fma, multiversion, sum_lanes},
};

/// What [`selected_log_probs`] returns, `[tokens]` each, in nats.
#[derive(Clone, Debug)]
pub struct SelectedLogProbs {
    /// `log softmax(logits / temperature)[target]`.
    pub logps: Tensor<1>,
    /// Entropy of the whole distribution.
    pub entropy: Tensor<1>,
    /// `log Σ p²` of the whole distribution: the log-probability that two draws are the same token.
    /// Takes no gradient.
    pub collision: Tensor<1>,
}

/// Log-probability of one target a row, and the entropy, under
/// `softmax(hidden · headᵀ / temperature)`. Factors of the product are rounded to `precision`; what
/// follows it is float32.
///
/// The logits are made a block of rows at a time. On the CPU those of the first rows are kept for the backward pass,
/// [`KEPT_LOGITS`] numbers at most; all others are made again in it, so the memory does not grow with the
/// number of rows. `logps` and `entropy` are differentiable in
/// `hidden` and `head`.
///
/// # Shapes
/// `hidden` `[tokens, width]`, `head` `[vocabulary, width]`, one target a row.
///
/// # Panics
/// When the shapes do not fit, a target is outside the vocabulary, or the temperature is not
/// positive.
pub fn selected_log_probs(
    precision: Precision,
    hidden: Tensor<2>,
    head: Tensor<2>,
    targets: &Arc<[u32]>,
    temperature: f64,
) -> SelectedLogProbs {
    let [tokens, width] = hidden.dims();
    let [vocabulary, head_width] = head.dims();
    assert_eq!(
        width, head_width,
        "selected_log_probs: width of hidden and head differ"
    );
    assert_eq!(
        tokens,
        targets.len(),
        "selected_log_probs: one target a row"
    );
    assert!(
        targets.iter().all(|t| (*t as usize) < vocabulary),
        "selected_log_probs: a target is outside the vocabulary of {vocabulary}"
    );
    assert!(
        temperature > 0.0,
        "selected_log_probs: temperature must be positive"
    );
    #[cfg(feature = "gpu")]
    if on_gpu(&hidden) && on_gpu(&head) && tokens > 0 {
        return gpu::log_probs::selected_log_probs(precision, hidden, head, targets, temperature);
    }
    if !on_cpu(&hidden) || !on_cpu(&head) || precision == Precision::F16 {
        return selected_log_probs_composed(precision, hidden, head, targets, temperature);
    }
    let op = LogProbs {
        precision,
        targets: targets.clone(),
        scale: (1.0 / temperature) as f32,
        keeps_logits: is_tracked(&hidden) || is_tracked(&head),
    };
    SelectedLogProbs::of_rows(apply(op, [hidden.into_dispatch(), head.into_dispatch()]))
}

impl SelectedLogProbs {
    /// Of a tensor with a row for each, `[3, tokens]`.
    pub(crate) fn of_rows(all: Tensor<2>) -> Self {
        let [_, tokens] = all.dims();
        let row = |i: usize| all.clone().narrow(0, i, 1).reshape([tokens]);
        Self {
            logps: row(0),
            entropy: row(1),
            collision: row(2).detach(),
        }
    }
}

/// [`selected_log_probs`] composed of Burn's operations, blocks of rows at a time.
pub fn selected_log_probs_composed(
    precision: Precision,
    hidden: Tensor<2>,
    head: Tensor<2>,
    targets: &Arc<[u32]>,
    temperature: f64,
) -> SelectedLogProbs {
    let [tokens, _] = hidden.dims();
    let block = rows_per_block(head.dims()[0]);
    let (mut logps, mut entropies, mut collisions) = (Vec::new(), Vec::new(), Vec::new());
    for start in (0..tokens).step_by(block) {
        let rows = block.min(tokens - start);
        let part = hidden.clone().narrow(0, start, rows);
        let logits = linear_composed(precision, part, head.clone());
        let all = activation::log_softmax(logits / temperature, 1);
        let ids: Vec<i32> = targets[start..start + rows]
            .iter()
            .map(|t| *t as i32)
            .collect();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [rows, 1]), &hidden.device());
        logps.push(all.clone().gather(1, ids).reshape([rows]));
        let entropy = (all.clone().exp() * all.clone()).sum_dim(1).neg();
        entropies.push(entropy.reshape([rows]));
        let collision = (all.detach() * 2.0).exp().sum_dim(1).log();
        collisions.push(collision.reshape([rows]));
    }
    if logps.is_empty() {
        let none = hidden.reshape([0]);
        return SelectedLogProbs {
            logps: none.clone(),
            entropy: none.clone(),
            collision: none.detach(),
        };
    }
    SelectedLogProbs {
        logps: Tensor::cat(logps, 0),
        entropy: Tensor::cat(entropies, 0),
        collision: Tensor::cat(collisions, 0),
    }
}

/// Rows whose logits are held at a time: about 8 million numbers.
fn rows_per_block(vocabulary: usize) -> usize {
    ((1 << 23) / vocabulary.max(1)).clamp(16, 1024)
}

#[derive(Clone, Debug)]
struct LogProbs {
    precision: Precision,
    targets: Arc<[u32]>,
    scale: f32,
    /// There will be a backward pass.
    keeps_logits: bool,
}

/// Logits that a forward pass keeps at most: 128 MiB.
pub const KEPT_LOGITS: usize = 1 << 25;

/// Logits that a GPU makes at a time: 128 MiB of them.
pub const LOGITS_AT_ONCE: usize = 1 << 25;

/// From the forward pass.
#[derive(Clone, Debug)]
struct Saved {
    /// Per row: log-sum-exp of the scaled logits, and the entropy.
    sums: Arc<Vec<[f32; 2]>>,
    /// Logits of the first blocks of rows, until the backward pass takes them.
    logits: Arc<Mutex<VecDeque<Vec<f32>>>>,
}

impl CpuOp<2> for LogProbs {
    type Saved = Saved;

    fn forward(&self, [hidden, head]: [&View; 2]) -> (FlexTensor, Saved) {
        let [tokens, width] = hidden.dims();
        let [vocabulary, _] = head.dims();
        let block = rows_per_block(vocabulary);
        let mut out = vec![0.0; 3 * tokens];
        let mut sums = Vec::with_capacity(tokens);
        let (mut kept, mut room) = (VecDeque::new(), KEPT_LOGITS);
        for (i, rows) in hidden.data().chunks(block * width.max(1)).enumerate() {
            let count = rows.len() / width.max(1);
            let shape = [count, width, vocabulary];
            let logits = product_with_rows(self.precision, rows, head.data(), shape);
            let targets = &self.targets[i * block..i * block + count];
            let results: Vec<[f32; 4]> = logits
                .par_chunks(vocabulary)
                .zip(targets)
                .map(|(row, target)| select(row, *target as usize, self.scale))
                .collect();
            for (j, [logp, log_sum, entropy, collision]) in results.into_iter().enumerate() {
                out[i * block + j] = logp;
                out[tokens + i * block + j] = entropy;
                out[2 * tokens + i * block + j] = collision;
                sums.push([log_sum, entropy]);
            }
            if self.keeps_logits && logits.len() <= room {
                room -= logits.len();
                kept.push_back(logits);
            } else {
                room = 0;
            }
        }
        let saved = Saved {
            sums: Arc::new(sums),
            logits: Arc::new(Mutex::new(kept)),
        };
        (tensor_of(out, [3, tokens]), saved)
    }

    fn backward(
        &self,
        inputs: [&View; 2],
        saved: &Saved,
        grad: &View,
        wanted: [bool; 2],
    ) -> [Option<FlexTensor>; 2] {
        self.backward_into(inputs, saved, grad, wanted, [None, None])
    }

    fn backward_into(
        &self,
        [hidden, head]: [&View; 2],
        saved: &Saved,
        grad: &View,
        wanted: [bool; 2],
        [_, sum]: [Option<&mut [f32]>; 2],
    ) -> [Option<FlexTensor>; 2] {
        let [tokens, width] = hidden.dims();
        let [vocabulary, _] = head.dims();
        let block = rows_per_block(vocabulary);
        let (d_logp, d_entropy) = grad.data().split_at(tokens);
        let d_entropy = &d_entropy[..tokens];
        let mut d_hidden: Vec<f32> = Vec::with_capacity(if wanted[0] { tokens * width } else { 0 });
        let is_new = sum.is_none();
        let fresh = if wanted[1] && is_new {
            vocabulary * width
        } else {
            0
        };
        let mut fresh = vec![0.0; fresh];
        let d_head = sum.unwrap_or(&mut fresh);
        for (i, rows) in hidden.data().chunks(block * width.max(1)).enumerate() {
            let count = rows.len() / width.max(1);
            let first = i * block;
            let shape = [count, width, vocabulary];
            let kept = || {
                let mut all = saved.logits.lock().unwrap_or_else(PoisonError::into_inner);
                all.pop_front()
            };
            let mut logits = kept()
                .unwrap_or_else(|| product_with_rows(self.precision, rows, head.data(), shape));
            logits
                .par_chunks_mut(vocabulary)
                .enumerate()
                .for_each(|(j, row)| {
                    let at = first + j;
                    let target = self.targets[at] as usize;
                    row_gradient(
                        row,
                        target,
                        self.scale,
                        saved.sums[at],
                        d_logp[at],
                        d_entropy[at],
                    );
                });
            let d_logits = Mat::rows(&logits, vocabulary);
            if wanted[0] {
                let out = d_hidden.as_mut_ptr().wrapping_add(first * width);
                let head = Mat::rows(head.data(), width);
                // SAFETY: there is room for `count` rows of `width` from row `first` on; the product writes
                // all of them, and the rows before were written in the turns before.
                unsafe {
                    let shape = [count, width, vocabulary];
                    add_product_in(self.precision, shape, d_logits, head, out, width, false);
                    d_hidden.set_len((first + count) * width);
                }
            }
            if wanted[1] {
                // SAFETY: `d_head` is `[vocabulary, width]`.
                unsafe {
                    add_product_in(
                        self.precision,
                        [vocabulary, width, count],
                        d_logits.transposed(),
                        Mat::rows(rows, width),
                        d_head.as_mut_ptr(),
                        width,
                        i > 0 || !is_new,
                    );
                }
            }
        }
        [
            wanted[0].then(|| tensor_of(d_hidden, [tokens, width])),
            (wanted[1] && is_new).then(|| tensor_of(fresh, [vocabulary, width])),
        ]
    }
}

multiversion! {
    // Log-probability of the target, log-sum-exp, entropy and log Σ p² of one row of logits. With p = e / sum, H = log sum - Σ e (x - max) / sum.
    fn select<F>(row: &[f32], target: usize, scale: f32) -> [f32; 4] {
        let chosen = row[target] * scale;
        let max = maximum(row) * scale;
        let mut sums = [0.0f32; LANES];
        let mut weighted = [0.0f32; LANES];
        let mut squares = [0.0f32; LANES];
        let (chunks, tail) = row.as_chunks::<LANES>();
        for chunk in chunks {
            for l in 0..LANES {
                let shifted = chunk[l] * scale - max;
                let e = exp::<F>(shifted);
                sums[l] += e;
                weighted[l] = fma::<F>(e, shifted.max(-88.0), weighted[l]);
                squares[l] = fma::<F>(e, e, squares[l]);
            }
        }
        let mut sum = sum_lanes(sums);
        let mut moment = sum_lanes(weighted);
        let mut square = sum_lanes(squares);
        for x in tail {
            let shifted = *x * scale - max;
            let e = exp::<F>(shifted);
            sum += e;
            moment += e * shifted.max(-88.0);
            square += e * e;
        }
        let log_sum = sum.ln();
        [
            chosen - max - log_sum,
            max + log_sum,
            log_sum - moment / sum,
            square.ln() - 2.0 * log_sum,
        ]
    }
}

multiversion! {
    // d logp/d x_j = [j = target] - p_j;  d H/d x_j = -p_j (log p_j + H);  x = scale * logit.
    fn row_gradient<F>(
        row: &mut [f32], target: usize, scale: f32, saved: [f32; 2], d_logp: f32, d_entropy: f32,
    ) {
        let [log_sum, entropy] = saved;
        if d_entropy == 0.0 {
            let factor = -d_logp * scale;
            for x in row.iter_mut() {
                *x = exp::<F>(fma::<F>(*x, scale, -log_sum)) * factor;
            }
        } else {
            for x in row.iter_mut() {
                let logp = fma::<F>(*x, scale, -log_sum);
                let p = exp::<F>(logp);
                *x = -p * (d_logp + d_entropy * (logp.max(-88.0) + entropy)) * scale;
            }
        }
        row[target] += d_logp * scale;
    }
}
