//! Keys and values of sequences that are being generated, and attention over them.

use burn::backend::flex::FlexTensor;
use burn::tensor::{DType, Device, Tensor};
use rayon::prelude::*;

#[cfg(feature = "gpu")]
use crate::gpu::{self, on_gpu};
use crate::{
    attention::{AttentionShape, softmax_row},
    op::{View, from_flex, into_flex, on_cpu, tensor_of},
    simd::{LANES, fma, multiversion},
};

/// Preallocated keys and values of one layer for a number of slots, each holding one sequence.
///
/// Slots are independent: a sequence that ends gives its slot to another by [`KvCache::write`]
/// from position 0 on.
#[derive(Debug)]
pub struct KvCache {
    shape: AttentionShape,
    slots: usize,
    capacity: usize,
    store: Store,
}

#[derive(Debug)]
enum Store {
    /// Keys `[slots, kv_heads, capacity / 16, head_dim, 16]`: sixteen positions side by side, so that
    /// their scores need no horizontal sums. Values `[slots, kv_heads, capacity, head_dim]`.
    /// The capacity is rounded up to a multiple of 16.
    Cpu { keys: Vec<f32>, values: Vec<f32> },
    #[cfg(feature = "gpu")]
    Gpu(Box<gpu::kv_cache::Cache>),
}

impl KvCache {
    /// An empty cache for `slots` sequences of up to `capacity` tokens.
    ///
    /// # Panics
    /// On a device that is neither Burn's CPU backend nor one of its GPUs.
    pub fn new(slots: usize, capacity: usize, shape: AttentionShape, device: &Device) -> Self {
        let probe = Tensor::<2>::zeros([1, 1], (device, DType::F32));
        #[cfg(feature = "gpu")]
        if on_gpu(&probe) {
            return Self {
                shape,
                slots,
                capacity,
                store: Store::Gpu(Box::new(gpu::kv_cache::Cache::new(
                    slots, capacity, shape, device,
                ))),
            };
        }
        assert!(on_cpu(&probe), "KvCache: there is none for {device:?}");
        let width = shape.kv_heads * shape.head_dim;
        let size = slots * capacity.next_multiple_of(LANES) * width;
        Self {
            shape,
            slots,
            capacity,
            store: Store::Cpu {
                keys: vec![0.0; size],
                values: vec![0.0; size],
            },
        }
    }

    /// Writes the keys and values of consecutive positions of one slot. From position 0 on it begins a sequence.
    ///
    /// # Shapes
    /// `[tokens, kv_heads * head_dim]`.
    ///
    /// # Panics
    /// When the positions go past the capacity or the slot does not exist.
    pub fn write(&mut self, slot: usize, position: usize, key: Tensor<2>, value: Tensor<2>) {
        let [tokens, width] = key.dims();
        assert!(
            position + tokens <= self.capacity,
            "KvCache: position past the capacity"
        );
        assert!(slot < self.slots, "KvCache: no such slot");
        match &mut self.store {
            Store::Cpu { keys, values } => {
                let (key, value) = (View::new(into_flex(key)), View::new(into_flex(value)));
                let place = Place::new(self.shape, self.capacity);
                for i in 0..tokens {
                    let row = i * width..(i + 1) * width;
                    place.key(keys, slot, position + i, &key.data()[row.clone()]);
                    place.value(values, slot, position + i, &value.data()[row]);
                }
            }
            #[cfg(feature = "gpu")]
            Store::Gpu(cache) => cache.write(slot, position, key, value),
        }
    }

    /// One new token a row: stores its key and value at the row's position and attends from its
    /// query over the slot up to and with it.
    ///
    /// A row's result depends on its own slot alone.
    ///
    /// # Shapes
    /// `query` `[rows, heads * head_dim]`, `key` and `value` `[rows, kv_heads * head_dim]`;
    /// `rows[i]` is the slot and the position of row `i`, no slot twice. The result is shaped as `query`.
    ///
    /// # Panics
    /// When a position is past the capacity or a slot does not exist.
    pub fn step(
        &mut self,
        query: Tensor<2>,
        key: Tensor<2>,
        value: Tensor<2>,
        rows: &[(usize, usize)],
    ) -> Tensor<2> {
        let [count, _] = query.dims();
        assert_eq!(count, rows.len(), "KvCache: one slot and position a row");
        for (slot, position) in rows {
            assert!(
                *position < self.capacity,
                "KvCache: position past the capacity"
            );
            assert!(*slot < self.slots, "KvCache: no such slot");
        }
        match &mut self.store {
            Store::Cpu { keys, values } => {
                let place = Place::new(self.shape, self.capacity);
                let new = [query, key, value].map(|x| View::new(into_flex(x)));
                from_flex(step_on_cpu(self.shape, &place, new, keys, values, rows))
            }
            #[cfg(feature = "gpu")]
            Store::Gpu(cache) => cache.step(query, key, value, rows),
        }
    }
}

/// [`KvCache::step`] of keys and values that lie in [`Place`]s.
fn step_on_cpu(
    shape: AttentionShape,
    place: &Place,
    [query, key, value]: [View; 3],
    keys: &mut [f32],
    values: &mut [f32],
    rows: &[(usize, usize)],
) -> FlexTensor {
    let AttentionShape {
        heads,
        kv_heads,
        head_dim,
    } = shape;
    let (width, kv_width) = (heads * head_dim, kv_heads * head_dim);
    for (i, (slot, position)) in rows.iter().enumerate() {
        let row = i * kv_width..(i + 1) * kv_width;
        place.key(keys, *slot, *position, &key.data()[row.clone()]);
        place.value(values, *slot, *position, &value.data()[row]);
    }
    let (keys, values) = (&*keys, &*values);
    let mut out = vec![0.0; rows.len() * width];
    let group = heads / kv_heads;
    let scale = shape.scale();
    let run = |scores: &mut Vec<f32>, (i, out): (usize, &mut [f32])| {
        let (row, kv_head) = (i / kv_heads, i % kv_heads);
        let (slot, position) = rows[row];
        let at = place.head(slot, kv_head);
        let (keys, values) = (&keys[at..], &values[at..]);
        let q = &query.data()[row * width + kv_head * group * head_dim..];
        let seen = position + 1;
        // Query heads that share keys and values read them together.
        for first in (0..group).step_by(TOGETHER) {
            let heads = TOGETHER.min(group - first);
            let part = first * head_dim..(first + heads) * head_dim;
            let (q, out) = (&q[part.clone()], &mut out[part]);
            match heads {
                1 => attend_1(q, keys, values, seen, scale, scores, out),
                2 => attend_2(q, keys, values, seen, scale, scores, out),
                3 => attend_3(q, keys, values, seen, scale, scores, out),
                _ => attend_4(q, keys, values, seen, scale, scores, out),
            }
        }
    };
    let work: usize = rows.iter().map(|(_, position)| position + 1).sum();
    if work * width < 1 << 16 {
        let mut scores = Vec::new();
        for task in out.chunks_mut(group * head_dim).enumerate() {
            run(&mut scores, task);
        }
    } else {
        out.par_chunks_mut(group * head_dim)
            .enumerate()
            .for_each_init(Vec::new, run);
    }
    tensor_of(out, [rows.len(), width])
}

/// Where keys and values lie in [`Store::Cpu`].
#[derive(Clone, Copy)]
struct Place {
    kv_heads: usize,
    head_dim: usize,
    /// Positions of a slot, a multiple of 16.
    capacity: usize,
}

impl Place {
    fn new(shape: AttentionShape, capacity: usize) -> Self {
        Self {
            kv_heads: shape.kv_heads,
            head_dim: shape.head_dim,
            capacity: capacity.next_multiple_of(LANES),
        }
    }

    fn head(&self, slot: usize, head: usize) -> usize {
        (slot * self.kv_heads + head) * self.capacity * self.head_dim
    }

    fn key(&self, keys: &mut [f32], slot: usize, position: usize, row: &[f32]) {
        for (head, row) in row.chunks_exact(self.head_dim).enumerate() {
            let block = position / LANES * LANES * self.head_dim;
            let at = self.head(slot, head) + block + position % LANES;
            for (to, x) in keys[at..].iter_mut().step_by(LANES).zip(row) {
                *to = *x;
            }
        }
    }

    fn value(&self, values: &mut [f32], slot: usize, position: usize, row: &[f32]) {
        for (head, row) in row.chunks_exact(self.head_dim).enumerate() {
            let at = self.head(slot, head) + position * self.head_dim;
            values[at..at + self.head_dim].copy_from_slice(row);
        }
    }
}

/// Query heads that go through the keys and values together.
const TOGETHER: usize = 4;

macro_rules! attend_together {
    ($($name:ident: $heads:literal),*) => {$(
        multiversion! {
            fn $name<F>(
                q: &[f32], keys: &[f32], values: &[f32], seen: usize, scale: f32,
                scores: &mut Vec<f32>, out: &mut [f32],
            ) {
                attend_heads::<F, $heads>(q, keys, values, seen, scale, scores, out);
            }
        }
    )*};
}
attend_together!(attend_1: 1, attend_2: 2, attend_3: 3, attend_4: 4);

/// `G` query heads, one after the other in `q` and `out`, over the first `seen` positions.
#[inline(always)]
fn attend_heads<const F: bool, const G: usize>(
    q: &[f32],
    keys: &[f32],
    values: &[f32],
    seen: usize,
    scale: f32,
    scores: &mut Vec<f32>,
    out: &mut [f32],
) {
    let dim = q.len() / G;
    let padded = seen.next_multiple_of(LANES);
    scores.resize(G * padded, 0.0);
    for (b, block) in keys[..padded * dim].chunks_exact(LANES * dim).enumerate() {
        let mut sums = [[0.0; LANES]; G];
        let (lines, _) = block.as_chunks::<LANES>();
        for (d, line) in lines.iter().enumerate() {
            for g in 0..G {
                let x = q[g * dim + d];
                for l in 0..LANES {
                    sums[g][l] = fma::<F>(x, line[l], sums[g][l]);
                }
            }
        }
        for g in 0..G {
            let to = &mut scores[g * padded + b * LANES..][..LANES];
            for l in 0..LANES {
                to[l] = sums[g][l] * scale;
            }
        }
    }
    let mut shares = [&[][..]; G];
    for (scores, shares) in scores.chunks_exact_mut(padded).zip(&mut shares) {
        softmax_row::<F>(&mut scores[..seen]);
        *shares = &scores[..seen];
    }
    let mut first = 0;
    while first + 4 * LANES <= dim {
        weigh::<F, G, { 4 * LANES }>(shares, values, dim, first, out);
        first += 4 * LANES;
    }
    while first + LANES <= dim {
        weigh::<F, G, LANES>(shares, values, dim, first, out);
        first += LANES;
    }
    while first < dim {
        weigh::<F, G, 1>(shares, values, dim, first, out);
        first += 1;
    }
}

/// Values' columns `first .. first + W`, each times its share.
#[inline(always)]
fn weigh<const F: bool, const G: usize, const W: usize>(
    shares: [&[f32]; G],
    values: &[f32],
    dim: usize,
    first: usize,
    out: &mut [f32],
) {
    let mut sums = [[0.0; W]; G];
    for (j, value) in values.chunks_exact(dim).take(shares[0].len()).enumerate() {
        let Some(value) = value[first..].first_chunk::<W>() else {
            continue;
        };
        for g in 0..G {
            let share = shares[g][j];
            for l in 0..W {
                sums[g][l] = fma::<F>(share, value[l], sums[g][l]);
            }
        }
    }
    for g in 0..G {
        out[g * dim + first..][..W].copy_from_slice(&sums[g]);
    }
}
