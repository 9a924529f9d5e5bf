//! Keys and values of sequences that are being generated, and attention over them, on a GPU.

use burn::tensor::{DType, Device, Int, Tensor, s};
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{
    extension,
    heads::{Layout, indices},
    last::Last,
    launch::{UNITS, empty_like, for_each_row, max_of_cube, own, rows, sum_of_cube},
};
use crate::attention::AttentionShape;

/// Keys and values of one layer, `[slots, capacity, kv_heads, head_dim]`; none only while they are written to, so that
/// they have one owner then and are written in place.
#[derive(Debug)]
pub(crate) struct Cache {
    keys: Option<Tensor<1>>,
    values: Option<Tensor<1>>,
    layout: Layout,
}

static LAST: Last<Of, Tensor<1, Int>> = Last::new();

/// What places are made of.
type Of = (Vec<(usize, usize)>, Device);

/// Slot and position of each row.
fn places_of(rows: &[(usize, usize)], device: &Device) -> Tensor<1, Int> {
    LAST.or_make(
        |(of, on)| of == rows && on == device,
        || {
            let places = rows
                .iter()
                .flat_map(|(slot, position)| [*slot as i32, *position as i32]);
            let places = indices(places.collect(), device);
            ((rows.to_vec(), device.clone()), places)
        },
    )
}

impl Cache {
    pub(crate) fn new(
        slots: usize,
        capacity: usize,
        shape: AttentionShape,
        device: &Device,
    ) -> Self {
        let size = slots * capacity * shape.kv_heads * shape.head_dim;
        let zeros = || Some(Tensor::zeros([size], (device, DType::F32)));
        Self {
            keys: zeros(),
            values: zeros(),
            layout: Layout {
                len: capacity,
                shape,
            },
        }
    }

    /// [`KvCache::write`](crate::KvCache::write).
    pub(crate) fn write(&mut self, slot: usize, position: usize, key: Tensor<2>, value: Tensor<2>) {
        for (store, new) in [(&mut self.keys, key), (&mut self.values, value)] {
            let [tokens, width] = new.dims();
            let start = (slot * self.layout.len + position) * width;
            let size = tokens * width;
            let old = store.take().expect("put back after each write");
            *store = Some(old.slice_assign(s![start..start + size], new.reshape([size])));
        }
    }

    /// [`KvCache::step`](crate::KvCache::step).
    pub(crate) fn step(
        &mut self,
        query: Tensor<2>,
        key: Tensor<2>,
        value: Tensor<2>,
        rows: &[(usize, usize)],
    ) -> Tensor<2> {
        let places = places_of(rows, &query.device());
        let [keys, values] =
            [&mut self.keys, &mut self.values].map(|x| x.take().expect("put back after each step"));
        let (out, keys, values) =
            extension::attend([query, key, value], [keys, values], places, self.layout);
        (self.keys, self.values) = (Some(keys), Some(values));
        out
    }
}

/// A cube for each row and query head. Positions are taken [`UNITS`] at a time, with the largest score and the sum so far
/// (Milakov & Gimelshein 2018); a position of the cache that the row does not see is not read.
#[cube(launch, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
fn attend_to_slot(
    query: &[f32],
    key: &[f32],
    value: &[f32],
    places: &[i32],
    keys: &mut [f32],
    values: &mut [f32],
    out: &mut [f32],
    count: usize,
    capacity: usize,
    scale: f32,
    #[comptime] kv_heads: usize,
    #[comptime] together: usize,
    #[comptime] head_dim: usize,
    #[comptime] parts: usize,
) {
    let mut q = Shared::<[f32]>::new_slice(head_dim);
    let mut shares = Shared::<[f32]>::new_slice(UNITS);
    // Each unit's own: the sums of some numbers of the result, over every `parts`-th position.
    let mut sums = Shared::<[f32]>::new_slice(parts * head_dim);
    if CUBE_POS < count {
        let unit = UNIT_POS as usize;
        let (head, row) = (
            CUBE_POS % (kv_heads * together),
            CUBE_POS / (kv_heads * together),
        );
        let kv_head = head / together;
        let first = places[row * 2] as usize * capacity;
        let last = places[row * 2 + 1] as usize;
        // Where the new key and value are, and where they are kept. Other heads read the former.
        let new = (row * kv_heads + kv_head) * head_dim;
        let kept = ((first + last) * kv_heads + kv_head) * head_dim;
        let mut j = unit;
        while j < head_dim {
            q[j] = query[CUBE_POS * head_dim + j] * scale;
            if head % together == 0 {
                keys[kept + j] = key[new + j];
                values[kept + j] = value[new + j];
            }
            j += UNITS;
        }
        let mut i = unit;
        while i < parts * head_dim {
            sums[i] = 0.0;
            i += UNITS;
        }
        sync_cube();
        let mut largest = f32::min_value();
        let mut sum = 0.0f32;
        let mut start = 0;
        while start <= last {
            let position = start + unit;
            let mut score = f32::min_value();
            if position < last {
                let at = ((first + position) * kv_heads + kv_head) * head_dim;
                score = 0.0;
                for j in 0..head_dim {
                    score += q[j] * keys[at + j];
                }
            } else if position == last {
                score = 0.0;
                for j in 0..head_dim {
                    score += q[j] * key[new + j];
                }
            }
            let now_largest = max(largest, max_of_cube(score));
            let mut share = 0.0f32;
            if position <= last {
                share = (score - now_largest).exp();
            }
            shares[unit] = share;
            let smaller = (largest - now_largest).exp();
            // All shares are there after this.
            sum = sum * smaller + sum_of_cube(share);
            largest = now_largest;
            let end = min(UNITS, last + 1 - start);
            let mut i = unit;
            while i < parts * head_dim {
                let j = i % head_dim;
                let mut weighted = sums[i] * smaller;
                let mut n = i / head_dim;
                while n < end {
                    let position = start + n;
                    if position < last {
                        let at = ((first + position) * kv_heads + kv_head) * head_dim;
                        weighted += shares[n] * values[at + j];
                    } else {
                        weighted += shares[n] * value[new + j];
                    }
                    n += parts;
                }
                sums[i] = weighted;
                i += UNITS;
            }
            start += UNITS;
        }
        sync_cube();
        let mut j = unit;
        while j < head_dim {
            let mut whole = 0.0f32;
            for part in 0..parts {
                whole += sums[part * head_dim + j];
            }
            out[CUBE_POS * head_dim + j] = whole / sum;
            j += UNITS;
        }
    }
}

/// A step of [`Cache`], and its keys and values after it.
pub(super) fn attend(
    [query, key, value]: [CubeTensor; 3],
    [keys, values]: [CubeTensor; 2],
    places: CubeTensor,
    layout: Layout,
) -> (CubeTensor, CubeTensor, CubeTensor) {
    let [query, key, value, places] = [query, key, value, places].map(rows);
    let (keys, values) = (own(keys), own(values));
    let out = empty_like(&query);
    let Layout { len, shape } = layout;
    let count = out.meta.num_elements() / shape.head_dim;
    if count > 0 {
        let (cubes, dim) = for_each_row(count);
        attend_to_slot::launch(
            &out.client.clone(),
            cubes,
            dim,
            keys.required_address_type(),
            query.into_buffer_arg(),
            key.into_buffer_arg(),
            value.into_buffer_arg(),
            places.into_buffer_arg(),
            keys.clone().into_buffer_arg(),
            values.clone().into_buffer_arg(),
            out.clone().into_buffer_arg(),
            count,
            len,
            shape.scale(),
            shape.kv_heads,
            shape.group(),
            shape.head_dim,
            (UNITS / shape.head_dim).max(1),
        );
    }
    (out, keys, values)
}
