//! Keys and values of sequences that are being generated, and attention over them.

use burn::backend::flex::FlexTensor;
use burn::tensor::{DType, Device, Tensor, activation};
use rayon::prelude::*;

use crate::{
    attention::{AttentionShape, softmax_row},
    op::{View, from_flex, into_flex, on_cpu, tensor_of},
    simd::{dot, fma, multiversion},
};

/// Preallocated keys and values of one layer for a number of slots, each holding one sequence.
///
/// Slots are independent: a sequence that ends gives its slot to another by [`KvCache::write`]
/// from position 0 on.
#[derive(Debug)]
pub struct KvCache {
    shape: AttentionShape,
    capacity: usize,
    store: Store,
}

#[derive(Debug)]
enum Store {
    /// `[slots, capacity, kv_heads * head_dim]` each.
    Cpu { keys: Vec<f32>, values: Vec<f32> },
    /// One pair of `[capacity, kv_heads * head_dim]` tensors a slot.
    Tensors(Vec<(Tensor<2>, Tensor<2>)>),
}

impl KvCache {
    /// An empty cache for `slots` sequences of up to `capacity` tokens.
    pub fn new(slots: usize, capacity: usize, shape: AttentionShape, device: &Device) -> Self {
        let width = shape.kv_heads * shape.head_dim;
        let probe = Tensor::<2>::zeros([1, 1], (device, DType::F32));
        let store = if on_cpu(&probe) {
            Store::Cpu {
                keys: vec![0.0; slots * capacity * width],
                values: vec![0.0; slots * capacity * width],
            }
        } else {
            let empty = Tensor::zeros([capacity, width], (device, DType::F32));
            Store::Tensors(vec![(empty.clone(), empty); slots])
        };
        Self {
            shape,
            capacity,
            store,
        }
    }

    /// Writes the keys and values of consecutive positions of one slot.
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
        match &mut self.store {
            Store::Cpu { keys, values } => {
                let at = (slot * self.capacity + position) * width;
                let (key, value) = (View::new(into_flex(key)), View::new(into_flex(value)));
                keys[at..at + tokens * width].copy_from_slice(key.data());
                values[at..at + tokens * width].copy_from_slice(value.data());
            }
            Store::Tensors(slots) => {
                let (keys, values) = slots[slot].clone();
                let range = [position..position + tokens, 0..width];
                slots[slot] = (
                    keys.slice_assign(range.clone(), key),
                    values.slice_assign(range, value),
                );
            }
        }
    }

    /// One new token a row: stores its key and value at the row's position and attends from its
    /// query over the slot up to and with it.
    ///
    /// A row's result depends on its own slot alone.
    ///
    /// # Shapes
    /// `query` `[rows, heads * head_dim]`, `key` and `value` `[rows, kv_heads * head_dim]`;
    /// `rows[i]` is the slot and the position of row `i`. The result is shaped as `query`.
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
        let [count, width] = query.dims();
        assert_eq!(count, rows.len(), "KvCache: one slot and position a row");
        if let Store::Cpu { .. } = self.store {
            let (key, value) = (View::new(into_flex(key)), View::new(into_flex(value)));
            let query = View::new(into_flex(query));
            return from_flex(self.step_cpu(&query, &key, &value, rows, width));
        }
        let mut outputs = Vec::with_capacity(count);
        for (i, (slot, position)) in rows.iter().enumerate() {
            let row = |x: &Tensor<2>| x.clone().narrow(0, i, 1);
            self.write(*slot, *position, row(&key), row(&value));
            let Store::Tensors(slots) = &self.store else {
                continue;
            };
            let (keys, values) = slots[*slot].clone();
            outputs.push(attend(row(&query), keys, values, position + 1, self.shape));
        }
        Tensor::cat(outputs, 0)
    }

    fn step_cpu(
        &mut self,
        query: &View,
        key: &View,
        value: &View,
        rows: &[(usize, usize)],
        width: usize,
    ) -> FlexTensor {
        let AttentionShape {
            heads,
            kv_heads,
            head_dim,
        } = self.shape;
        let kv_width = kv_heads * head_dim;
        let Store::Cpu { keys, values } = &mut self.store else {
            unreachable!("the caller matched on the store")
        };
        for (i, (slot, position)) in rows.iter().enumerate() {
            assert!(
                *position < self.capacity,
                "KvCache: position past the capacity"
            );
            let at = (slot * self.capacity + position) * kv_width;
            let row = i * kv_width..(i + 1) * kv_width;
            keys[at..at + kv_width].copy_from_slice(&key.data()[row.clone()]);
            values[at..at + kv_width].copy_from_slice(&value.data()[row]);
        }
        let (keys, values) = (&*keys, &*values);
        let mut out = vec![0.0; rows.len() * width];
        let run = |scores: &mut Vec<f32>, (i, out): (usize, &mut [f32])| {
            let (row, head) = (i / heads, i % heads);
            let (slot, position) = rows[row];
            let at = slot * self.capacity * kv_width + (head / (heads / kv_heads)) * head_dim;
            let q = &query.data()[row * width + head * head_dim..][..head_dim];
            scores.resize(position + 1, 0.0);
            attend_row(
                q,
                &keys[at..],
                &values[at..],
                kv_width,
                self.shape.scale(),
                scores,
                out,
            );
        };
        if rows.len() * width < 1 << 10 {
            let mut scores = Vec::new();
            for task in out.chunks_mut(head_dim).enumerate() {
                run(&mut scores, task);
            }
        } else {
            out.par_chunks_mut(head_dim)
                .enumerate()
                .with_min_len(4)
                .for_each_init(Vec::new, run);
        }
        tensor_of(out, [rows.len(), width])
    }
}

multiversion! {
    fn attend_row<F>(
        q: &[f32], keys: &[f32], values: &[f32], stride: usize, scale: f32,
        scores: &mut [f32], out: &mut [f32],
    ) {
        let dim = q.len();
        for (j, s) in scores.iter_mut().enumerate() {
            *s = dot::<F>(q, &keys[j * stride..j * stride + dim]) * scale;
        }
        softmax_row::<F>(scores);
        for (j, p) in scores.iter().enumerate() {
            for (y, v) in out.iter_mut().zip(&values[j * stride..j * stride + dim]) {
                *y = fma::<F>(*p, *v, *y);
            }
        }
    }
}

/// One query row over the first `seen` positions, composed of Burn's operations.
fn attend(
    query: Tensor<2>,
    keys: Tensor<2>,
    values: Tensor<2>,
    seen: usize,
    shape: AttentionShape,
) -> Tensor<2> {
    let AttentionShape {
        heads,
        kv_heads,
        head_dim,
    } = shape;
    let group = heads / kv_heads;
    let split = |x: Tensor<2>| -> Tensor<3> {
        x.narrow(0, 0, seen)
            .reshape([seen, kv_heads, head_dim])
            .swap_dims(0, 1)
    };
    let query: Tensor<3> = query.reshape([kv_heads, group, head_dim]);
    let scores = query.matmul(split(keys).swap_dims(1, 2)) * shape.scale();
    let out = activation::softmax(scores, 2).matmul(split(values));
    out.reshape([1, heads * head_dim])
}
