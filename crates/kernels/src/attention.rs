//! Causal attention over packed sequences, with grouped key/value heads.

use std::{cell::RefCell, sync::Arc};

use burn::backend::flex::FlexTensor;
use burn::tensor::{Bool, Tensor, TensorData, activation};
use rayon::prelude::*;

#[cfg(feature = "gpu")]
use crate::gpu::{self, on_gpu};
use crate::{
    cpu::{Mat, SharedMut, product},
    op::{CpuOp, View, apply, on_cpu, tensor_of},
    runs::{Run, Span, families, spans},
    simd::{LANES, dot, exp, fma, multiversion, sum_lanes},
};

/// Heads of an attention layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; each serves `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
}

impl AttentionShape {
    pub(crate) fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    pub(crate) fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }
}

/// Scores that a GPU makes at a time, where a single run does not have more.
pub const SCORES_AT_ONCE: usize = 1 << 27;

/// `softmax(q kᵀ / sqrt(head_dim), causal) v` in each run and head; on the CPU the scores are never held as
/// a whole (Dao et al. 2022), on a GPU those of a group of runs are, and are made again for the backward pass. A run that continues another sees all rows of that one too.
///
/// # Shapes
/// `q` `[tokens, heads * head_dim]`, `k` and `v` `[tokens, kv_heads * head_dim]`, `runs` the
/// packed sequences (their lengths add up to `tokens`; empty ones are allowed). The result is
/// shaped as `q`.
///
/// # Panics
/// When the shapes do not fit together.
pub fn attention(
    q: Tensor<2>,
    k: Tensor<2>,
    v: Tensor<2>,
    runs: &Arc<[Run]>,
    shape: AttentionShape,
) -> Tensor<2> {
    let tokens: usize = runs.iter().map(|run| run.len).sum();
    assert_eq!(
        shape.heads % shape.kv_heads,
        0,
        "attention: heads is not a multiple of kv_heads"
    );
    assert_eq!(
        q.dims(),
        [tokens, shape.heads * shape.head_dim],
        "attention: shape of q"
    );
    let kv = [tokens, shape.kv_heads * shape.head_dim];
    assert_eq!(k.dims(), kv, "attention: shape of k");
    assert_eq!(v.dims(), kv, "attention: shape of v");
    if on_cpu(&q) && on_cpu(&k) && on_cpu(&v) {
        let op = Attention {
            runs: runs.clone(),
            shape,
        };
        apply(
            op,
            [q.into_dispatch(), k.into_dispatch(), v.into_dispatch()],
        )
    } else {
        #[cfg(feature = "gpu")]
        if on_gpu(&q) && on_gpu(&k) && on_gpu(&v) {
            return gpu::attention::attention(q, k, v, runs, shape);
        }
        attention_composed(q, k, v, runs, shape)
    }
}

/// [`attention`] composed of Burn's operations, one run after the other.
pub fn attention_composed(
    q: Tensor<2>,
    k: Tensor<2>,
    v: Tensor<2>,
    runs: &Arc<[Run]>,
    shape: AttentionShape,
) -> Tensor<2> {
    let AttentionShape {
        heads,
        kv_heads,
        head_dim,
    } = shape;
    let width = heads * head_dim;
    let mut outputs = Vec::with_capacity(runs.len());
    for span in spans(runs).into_iter().filter(|span| span.len > 0) {
        let (prefix_start, prefix) = span.prefix;
        let (len, seen) = (span.len, prefix + span.len);
        let key_value = |x: &Tensor<2>| -> Tensor<3> {
            let own = x.clone().narrow(0, span.start, len);
            let rows = if prefix > 0 {
                Tensor::cat(vec![x.clone().narrow(0, prefix_start, prefix), own], 0)
            } else {
                own
            };
            let x: Tensor<4> = rows
                .reshape([seen, kv_heads, head_dim])
                .swap_dims(0, 1)
                .unsqueeze_dim(1);
            x.expand([kv_heads, heads / kv_heads, seen, head_dim])
                .reshape([heads, seen, head_dim])
        };
        let query = q.clone().narrow(0, span.start, len);
        let query: Tensor<3> = query.reshape([len, heads, head_dim]).swap_dims(0, 1);
        let scores = query.matmul(key_value(&k).swap_dims(1, 2)) * shape.scale();
        let later: Vec<bool> = (0..len * seen)
            .map(|i| i % seen > prefix + i / seen)
            .collect();
        let later = Tensor::<2, Bool>::from_data(TensorData::new(later, [len, seen]), &q.device());
        let later: Tensor<3, Bool> = later.unsqueeze();
        let scores = scores.mask_fill(later.expand([heads, len, seen]), f32::NEG_INFINITY);
        let out = activation::softmax(scores, 2).matmul(key_value(&v));
        outputs.push(out.swap_dims(0, 1).reshape([len, width]));
    }
    if outputs.is_empty() {
        return q;
    }
    Tensor::cat(outputs, 0)
}

#[derive(Clone, Debug)]
struct Attention {
    runs: Arc<[Run]>,
    shape: AttentionShape,
}

/// Tokens whose queries are worked on together, those of all heads that share keys.
const BLOCK: usize = 32;

/// The backward pass is cut into about so many tasks: more where there are more families of sequences or key heads, fewer
/// where sequences are short.
pub const TASKS: usize = 12;

/// What the backward pass needs: the result, and the log-sum-exp of each head and token
/// `[heads, tokens]`.
#[derive(Clone, Debug)]
struct Saved {
    out: FlexTensor,
    log_sums: Arc<Vec<f32>>,
}

/// Consecutive tokens of a run.
#[derive(Clone, Copy)]
struct Block {
    span: Span,
    /// The first, counted from the run's.
    first: usize,
    rows: usize,
}

impl Block {
    fn of(span: Span) -> impl Iterator<Item = Self> {
        let firsts = (0..span.len).step_by(BLOCK);
        firsts.map(move |first| Self {
            span,
            first,
            rows: BLOCK.min(span.len - first),
        })
    }

    /// Its first row among all.
    fn row(&self) -> usize {
        self.span.start + self.first
    }

    /// Rows of keys that its last query sees.
    fn seen(&self) -> usize {
        self.span.prefix.1 + self.first + self.rows
    }

    fn parts(&self) -> impl Iterator<Item = Part> {
        parts(self.span, self.first + self.rows)
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Buffers of a thread, for all its tasks.
#[derive(Default)]
struct Scratch {
    scores: Vec<f32>,
    grads: Vec<f32>,
    /// Rows of queries one after the other, `[heads * rows, head_dim]`, and others like them.
    queries: Vec<f32>,
    outs: Vec<f32>,
    to_queries: Vec<f32>,
}

impl Attention {
    fn head(&self, data: &[f32], width: usize, token: usize, head: usize) -> Mat {
        Mat {
            base: data[token * width + head * self.shape.head_dim..].as_ptr(),
            row: width,
            col: 1,
        }
    }

    /// The places of a block's rows in the heads that share keys, one head after the other.
    fn places(&self, block: Block, kv_head: usize) -> impl Iterator<Item = usize> {
        let (dim, group) = (self.shape.head_dim, self.shape.group());
        let width = self.shape.heads * dim;
        (kv_head * group..(kv_head + 1) * group).flat_map(move |head| {
            (0..block.rows).map(move |i| (block.row() + i) * width + head * dim)
        })
    }

    /// Copies a block's rows in the heads that share keys, one after the other.
    fn gather(&self, data: &[f32], block: Block, kv_head: usize, to: &mut Vec<f32>) {
        to.clear();
        for at in self.places(block, kv_head) {
            to.extend_from_slice(&data[at..at + self.shape.head_dim]);
        }
    }

    /// The way back.
    ///
    /// # Safety
    /// `to` is a matrix of all queries, and nobody else touches those rows in those heads.
    unsafe fn scatter(&self, from: &[f32], block: Block, kv_head: usize, to: SharedMut) {
        let rows = from.chunks_exact(self.shape.head_dim);
        for (row, at) in rows.zip(self.places(block, kv_head)) {
            // SAFETY: the caller's promise.
            unsafe { std::slice::from_raw_parts_mut(to.at(at), row.len()) }.copy_from_slice(row);
        }
    }

    /// # Safety
    /// `out` is a matrix of all queries, `sums` one of heads and tokens, and nobody else touches this block's.
    unsafe fn forward_block(
        &self,
        [q, k, v]: [&[f32]; 3],
        (block, kv_head): (Block, usize),
        (out, sums): (SharedMut, SharedMut),
        scratch: &mut Scratch,
    ) {
        let AttentionShape {
            kv_heads, head_dim, ..
        } = self.shape;
        let (group, kv_width) = (self.shape.group(), kv_heads * head_dim);
        let (rows, seen) = (block.rows, block.seen());
        let tokens = k.len() / kv_width;
        self.gather(q, block, kv_head, &mut scratch.queries);
        scratch.scores.resize(group * rows * seen, 0.0);
        scratch.outs.resize(group * rows * head_dim, 0.0);
        let query = Mat::rows(&scratch.queries, head_dim);
        // SAFETY: the products write to this thread's scratch; the rest is the caller's promise.
        unsafe {
            for part in block.parts() {
                product(
                    [group * rows, part.rows, head_dim],
                    query,
                    self.head(k, kv_width, part.start, kv_head).transposed(),
                    scratch.scores.as_mut_ptr().add(part.column),
                    seen,
                    false,
                    self.shape.scale(),
                    false,
                );
            }
            let heads = scratch.scores.chunks_exact_mut(rows * seen);
            for (i, scores) in heads.enumerate() {
                let at = sums.at((kv_head * group + i) * tokens + block.row());
                let sums = std::slice::from_raw_parts_mut(at, rows);
                causal_softmax(scores, seen, seen - rows, sums);
            }
            for part in block.parts() {
                product(
                    [group * rows, head_dim, part.rows],
                    Mat::rows(&scratch.scores, seen).skip_columns(part.column),
                    self.head(v, kv_width, part.start, kv_head),
                    scratch.outs.as_mut_ptr(),
                    head_dim,
                    part.column > 0,
                    1.0,
                    false,
                );
            }
            self.scatter(&scratch.outs, block, kv_head, out);
        }
    }

    /// Adds to the gradients of keys and values, and writes those of the block's queries.
    ///
    /// # Safety
    /// The three are gradients of all rows; nobody else touches the block's queries in the heads that share keys, nor what
    /// they see in their key head.
    unsafe fn backward_block(
        &self,
        [q, k, v, d, out]: [&[f32]; 5],
        log_sums: &[f32],
        (block, kv_head): (Block, usize),
        [d_q, d_k, d_v]: [SharedMut; 3],
        scratch: &mut Scratch,
    ) {
        let AttentionShape {
            kv_heads, head_dim, ..
        } = self.shape;
        let (group, kv_width) = (self.shape.group(), kv_heads * head_dim);
        let (rows, seen, scale) = (block.rows, block.seen(), self.shape.scale());
        let all = group * rows;
        let tokens = k.len() / kv_width;
        let deltas: Vec<f32> = self
            .places(block, kv_head)
            .map(|at| row_dot(&d[at..at + head_dim], &out[at..at + head_dim]))
            .collect();
        self.gather(q, block, kv_head, &mut scratch.queries);
        self.gather(d, block, kv_head, &mut scratch.outs);
        let query = Mat::rows(&scratch.queries, head_dim);
        let d_out = Mat::rows(&scratch.outs, head_dim);
        scratch.scores.resize(all * seen, 0.0);
        scratch.grads.resize(all * seen, 0.0);
        let (p, ds) = (&mut scratch.scores, &mut scratch.grads);
        // SAFETY: products write to this thread's scratch, and to what the caller promises is this block's alone.
        unsafe {
            for part in block.parts() {
                let shape = [all, part.rows, head_dim];
                let key = self.head(k, kv_width, part.start, kv_head).transposed();
                let value = self.head(v, kv_width, part.start, kv_head).transposed();
                let pp = p.as_mut_ptr().add(part.column);
                let dp = ds.as_mut_ptr().add(part.column);
                product(shape, query, key, pp, seen, false, scale, false);
                product(shape, d_out, value, dp, seen, false, 1.0, false);
            }
            let heads = p
                .chunks_exact_mut(rows * seen)
                .zip(ds.chunks_exact_mut(rows * seen));
            for (i, ((p, ds), deltas)) in heads.zip(deltas.chunks_exact(rows)).enumerate() {
                let sums = &log_sums[(kv_head * group + i) * tokens + block.row()..][..rows];
                score_gradient(p, ds, seen, seen - rows, sums, deltas, scale);
            }
            scratch.to_queries.resize(all * head_dim, 0.0);
            let to_q = &mut scratch.to_queries;
            let (p, ds) = (Mat::rows(p, seen), Mat::rows(ds, seen));
            for part in block.parts() {
                let (p, ds) = (p.skip_columns(part.column), ds.skip_columns(part.column));
                let key = self.head(k, kv_width, part.start, kv_head);
                let (shape, to) = ([all, head_dim, part.rows], to_q.as_mut_ptr());
                product(shape, ds, key, to, head_dim, part.column > 0, 1.0, false);
                let shape = [part.rows, head_dim, all];
                let (ds, p) = (ds.transposed(), p.transposed());
                let at = part.start * kv_width + kv_head * head_dim;
                let (to_k, to_v) = (d_k.at(at), d_v.at(at));
                product(shape, ds, query, to_k, kv_width, true, 1.0, false);
                product(shape, p, d_out, to_v, kv_width, true, 1.0, false);
            }
            self.scatter(to_q, block, kv_head, d_q);
        }
    }

    /// The blocks of each family, in pieces of about the same work. So many that there are tasks enough, which does not
    /// depend on the number of threads: results do not either.
    fn pieces(&self) -> Vec<Vec<Vec<Block>>> {
        let families: Vec<Vec<Block>> = families(&self.runs)
            .into_iter()
            .map(|family| family.into_iter().flat_map(Block::of).collect())
            .collect();
        let one = |block: &Block| block.rows * block.seen();
        let work = |blocks: &[Block]| -> usize { blocks.iter().map(one).sum() };
        let all: usize = families.iter().map(|family| work(family)).sum();
        let wanted = TASKS.div_ceil(self.shape.kv_heads);
        let cut = |family: Vec<Block>| {
            let total = work(&family);
            let count = (wanted * total).div_ceil(all).min(family.len());
            let mut pieces = vec![Vec::new(); count];
            let mut before = 0;
            for block in family {
                pieces[before * count / total].push(block);
                before += one(&block);
            }
            pieces.retain(|piece| !piece.is_empty());
            pieces
        };
        families.into_iter().map(cut).collect()
    }
}

impl CpuOp<3> for Attention {
    type Saved = Saved;

    fn forward(&self, [q, k, v]: [&View; 3]) -> (FlexTensor, Saved) {
        let AttentionShape {
            heads, kv_heads, ..
        } = self.shape;
        let [tokens, width] = q.dims();
        let mut out = vec![0.0; tokens * width];
        let mut log_sums = vec![0.0; heads * tokens];
        let to = (
            SharedMut(out.as_mut_ptr()),
            SharedMut(log_sums.as_mut_ptr()),
        );
        let tasks: Vec<(Block, usize)> = spans(&self.runs)
            .into_iter()
            .flat_map(Block::of)
            .flat_map(|block| (0..kv_heads).map(move |head| (block, head)))
            .collect();
        let data = [q, k, v].map(View::data);
        for_tasks(tasks, tokens * width, |scratch, task| {
            // SAFETY: this task alone has this block and its heads.
            unsafe { self.forward_block(data, task, to, scratch) };
        });
        let out = tensor_of(out, [tokens, width]);
        let saved = Saved {
            out: out.clone(),
            log_sums: Arc::new(log_sums),
        };
        (out, saved)
    }

    fn backward(
        &self,
        [q, k, v]: [&View; 3],
        saved: &Saved,
        grad: &View,
        _: [bool; 3],
    ) -> [Option<FlexTensor>; 3] {
        let AttentionShape {
            kv_heads, head_dim, ..
        } = self.shape;
        let [tokens, width] = q.dims();
        let kv_width = kv_heads * head_dim;
        let out = View::new(saved.out.clone());
        let data = [q, k, v, grad, &out].map(View::data);
        let pieces = self.pieces();
        // The first pieces add to the results, others to buffers that are added to them.
        let buffers = pieces.iter().map(Vec::len).max().unwrap_or(0).max(1);
        let zeros =
            || -> Vec<Vec<f32>> { (0..buffers).map(|_| vec![0.0; tokens * kv_width]).collect() };
        let mut d_q = vec![0.0; tokens * width];
        let (mut d_k, mut d_v) = (zeros(), zeros());
        let to_q = SharedMut(d_q.as_mut_ptr());
        let shared = |buffers: &mut Vec<Vec<f32>>| -> Vec<SharedMut> {
            buffers
                .iter_mut()
                .map(|b| SharedMut(b.as_mut_ptr()))
                .collect()
        };
        let (to_k, to_v) = (shared(&mut d_k), shared(&mut d_v));
        let mut tasks: Vec<(&[Block], usize, usize)> = Vec::new();
        for family in &pieces {
            for (i, piece) in family.iter().enumerate() {
                tasks.extend((0..kv_heads).map(|head| (&piece[..], i, head)));
            }
        }
        for_tasks(tasks, tokens * width, |scratch, (piece, i, kv_head)| {
            for block in piece {
                let to = [to_q, to_k[i], to_v[i]];
                // SAFETY: blocks are of one task each; a family's rows, in this key head and the `i`th buffers, are
                // of this task alone.
                unsafe {
                    self.backward_block(data, &saved.log_sums, (*block, kv_head), to, scratch);
                }
            }
        });
        let sum = |buffers: Vec<Vec<f32>>| {
            let mut buffers = buffers.into_iter();
            let mut sum = buffers.next().expect("there is one at least");
            for buffer in buffers {
                let parts = sum.par_chunks_mut(1 << 14).zip(buffer.par_chunks(1 << 14));
                parts.for_each(|(sum, part)| {
                    for (x, y) in sum.iter_mut().zip(part) {
                        *x += *y;
                    }
                });
            }
            tensor_of(sum, [tokens, kv_width])
        };
        [
            Some(tensor_of(d_q, [tokens, width])),
            Some(sum(d_k)),
            Some(sum(d_v)),
        ]
    }
}

/// Rows of keys that a block of queries sees, and the column of the scores where they begin.
#[derive(Clone, Copy)]
struct Part {
    start: usize,
    rows: usize,
    column: usize,
}

/// What the run continues, and its own first `own` rows.
fn parts(span: Span, own: usize) -> impl Iterator<Item = Part> {
    let (start, rows) = span.prefix;
    let prefix = Part {
        start,
        rows,
        column: 0,
    };
    let own = Part {
        start: span.start,
        rows: own,
        column: rows,
    };
    [prefix, own].into_iter().filter(|part| part.rows > 0)
}

/// Runs the tasks, in parallel where there is enough to do, each thread with its own scratch.
fn for_tasks<T: Send + Sync + Copy>(
    tasks: Vec<T>,
    elements: usize,
    run: impl Fn(&mut Scratch, T) + Send + Sync,
) {
    if elements < 1 << 12 {
        let mut scratch = Scratch::default();
        for task in tasks {
            run(&mut scratch, task);
        }
    } else {
        let tasks = tasks.into_par_iter().with_max_len(1);
        tasks.for_each(|task| SCRATCH.with_borrow_mut(|scratch| run(scratch, task)));
    }
}

multiversion! {
    fn row_dot<F>(a: &[f32], b: &[f32]) -> f32 {
        dot::<F>(a, b)
    }
}

multiversion! {
    // Row `i` sees the first `first + i + 1` columns; the others become 0. Writes the log-sum-exp.
    fn causal_softmax<F>(scores: &mut [f32], seen: usize, first: usize, log_sums: &mut [f32]) {
        for (i, (row, log_sum)) in scores.chunks_exact_mut(seen).zip(log_sums).enumerate() {
            let (row, later) = row.split_at_mut(first + i + 1);
            later.fill(0.0);
            let (max, sum) = softmax_sums::<F>(row);
            let inverse = 1.0 / sum;
            for x in row.iter_mut() {
                *x *= inverse;
            }
            *log_sum = max + sum.ln();
        }
    }
}

/// The largest element.
#[inline(always)]
pub(crate) fn maximum(row: &[f32]) -> f32 {
    let mut maxima = [f32::NEG_INFINITY; LANES];
    let (chunks, tail) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for l in 0..LANES {
            maxima[l] = if chunk[l] > maxima[l] {
                chunk[l]
            } else {
                maxima[l]
            };
        }
    }
    let tail = tail.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    maxima.into_iter().fold(tail, f32::max)
}

multiversion! {
    /// Softmax of one row of logits, in place; returns the distribution's entropy in nats.
    pub fn softmax_in_place<F>(row: &mut [f32]) -> f32 {
        // With p = e / sum, H = log sum - Σ e (x - max) / sum.
        let max = maximum(row);
        let mut sums = [0.0f32; LANES];
        let mut weighted = [0.0f32; LANES];
        let (chunks, tail) = row.as_chunks_mut::<LANES>();
        for chunk in chunks {
            for l in 0..LANES {
                let shifted = chunk[l] - max;
                chunk[l] = exp::<F>(shifted);
                sums[l] += chunk[l];
                weighted[l] = fma::<F>(chunk[l], shifted.max(-88.0), weighted[l]);
            }
        }
        let mut sum = sum_lanes(sums);
        let mut moment = sum_lanes(weighted);
        for x in tail {
            let shifted = *x - max;
            *x = exp::<F>(shifted);
            sum += *x;
            moment += *x * shifted.max(-88.0);
        }
        let inverse = 1.0 / sum;
        for x in row.iter_mut() {
            *x *= inverse;
        }
        sum.ln() - moment * inverse
    }
}

/// Softmax of one row in place.
#[inline(always)]
pub(crate) fn softmax_row<const F: bool>(row: &mut [f32]) {
    let (_, sum) = softmax_sums::<F>(row);
    let inverse = 1.0 / sum;
    for x in row.iter_mut() {
        *x *= inverse;
    }
}

/// Replaces `row` by `exp(row - max)`; returns the maximum and the sum.
#[inline(always)]
fn softmax_sums<const F: bool>(row: &mut [f32]) -> (f32, f32) {
    let max = maximum(row);
    let mut lanes = [0.0; LANES];
    let (chunks, tail) = row.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for l in 0..LANES {
            chunk[l] = exp::<F>(chunk[l] - max);
            lanes[l] += chunk[l];
        }
    }
    let mut sum = sum_lanes(lanes);
    for x in tail {
        *x = exp::<F>(*x - max);
        sum += *x;
    }
    (max, sum)
}

multiversion! {
    // scores -> P = exp(scores - log_sum); dP -> dS = P (dP - delta) scale; 0 where not seen.
    fn score_gradient<F>(
        scores: &mut [f32], grads: &mut [f32], seen: usize, first: usize,
        log_sums: &[f32], deltas: &[f32], scale: f32,
    ) {
        let rows = scores.chunks_exact_mut(seen).zip(grads.chunks_exact_mut(seen));
        for (i, ((p, d), (log_sum, delta))) in rows.zip(log_sums.iter().zip(deltas)).enumerate() {
            let visible = first + i + 1;
            for (p, d) in p[..visible].iter_mut().zip(&mut d[..visible]) {
                *p = exp::<F>(*p - *log_sum);
                *d = *p * (*d - *delta) * scale;
            }
            p[visible..].fill(0.0);
            d[visible..].fill(0.0);
        }
    }
}
