//! Rotary position embedding, in the rotate-half layout of Hugging Face's models.

use std::sync::Arc;

use burn::backend::flex::FlexTensor;
use burn::tensor::{Tensor, TensorData};

#[cfg(feature = "gpu")]
use crate::gpu::{self, on_gpu};
use crate::{
    cpu::filled_rows,
    op::{CpuOp, View, apply, on_cpu, tensor_of},
};

/// Cosines and sines of every position and frequency.
#[derive(Clone, Debug)]
pub struct RotaryTable {
    head_dim: usize,
    positions: usize,
    cos: Arc<[f32]>,
    sin: Arc<[f32]>,
}

impl RotaryTable {
    /// A table for positions `0..positions` from the inverse frequencies, `[head_dim / 2]`.
    ///
    /// Angles are computed in f32 as `position * inverse_frequency`, as the reference
    /// implementation does.
    pub fn new(inverse_frequencies: &[f32], positions: usize) -> Self {
        let half = inverse_frequencies.len();
        let mut cos = Vec::with_capacity(positions * half);
        let mut sin = Vec::with_capacity(positions * half);
        for position in 0..positions {
            for frequency in inverse_frequencies {
                let angle = position as f32 * frequency;
                cos.push(angle.cos());
                sin.push(angle.sin());
            }
        }
        Self {
            head_dim: 2 * half,
            positions,
            cos: cos.into(),
            sin: sin.into(),
        }
    }

    /// The number of positions that the table covers.
    pub fn positions(&self) -> usize {
        self.positions
    }
}

/// Rotates each head of each token by its position: pairs `(x_i, x_{i + d/2})` turn by
/// `position * inverse_frequency_i` (Su et al. 2021).
///
/// # Shapes
/// `x` `[tokens, heads * head_dim]`, one position a token; the result as `x`.
///
/// # Panics
/// When a position is outside the table or the width is not a multiple of the head.
pub fn rotary(x: Tensor<2>, positions: &Arc<[u32]>, table: &RotaryTable) -> Tensor<2> {
    let [tokens, width] = x.dims();
    assert_eq!(tokens, positions.len(), "rotary: one position a token");
    assert_eq!(
        width % table.head_dim,
        0,
        "rotary: width is not a multiple of the head"
    );
    assert!(
        positions.iter().all(|p| (*p as usize) < table.positions),
        "rotary: a position is outside the table of {}",
        table.positions
    );
    if on_cpu(&x) {
        let op = Rotary {
            positions: positions.clone(),
            table: table.clone(),
        };
        apply(op, [x.into_dispatch()])
    } else {
        #[cfg(feature = "gpu")]
        if on_gpu(&x) {
            let (half, device) = (table.head_dim / 2, x.device().without_autodiff());
            let tables = [&table.cos, &table.sin];
            let op = gpu::rotary::Rotary::new(positions, tables, half, &device);
            return gpu::apply(op, [x]);
        }
        rotary_composed(x, positions, table)
    }
}

/// [`rotary`] composed of Burn's operations.
pub fn rotary_composed(x: Tensor<2>, positions: &Arc<[u32]>, table: &RotaryTable) -> Tensor<2> {
    let [tokens, width] = x.dims();
    let half = table.head_dim / 2;
    let device = x.device();
    let gather = |values: &[f32]| {
        let rows: Vec<f32> = positions
            .iter()
            .flat_map(|p| &values[*p as usize * half..(*p as usize + 1) * half])
            .copied()
            .collect();
        Tensor::<3>::from_data(TensorData::new(rows, [tokens, 1, half]), &device)
    };
    let (cos, sin) = (gather(&table.cos), gather(&table.sin));
    let x: Tensor<3> = x.reshape([tokens, width / table.head_dim, table.head_dim]);
    let first = x.clone().narrow(2, 0, half);
    let second = x.narrow(2, half, half);
    let turned_first = first.clone() * cos.clone() - second.clone() * sin.clone();
    let turned_second = second * cos + first * sin;
    Tensor::cat(vec![turned_first, turned_second], 2).reshape([tokens, width])
}

#[derive(Clone, Debug)]
struct Rotary {
    positions: Arc<[u32]>,
    table: RotaryTable,
}

impl Rotary {
    /// Turns forward for `sign` 1 and back for -1.
    fn turn(&self, x: &View, sign: f32) -> FlexTensor {
        let shape: [usize; 2] = x.dims();
        let width = shape[1];
        let half = self.table.head_dim / 2;
        let data = x.data();
        let out = filled_rows(data.len(), width, |first, block| {
            for (i, y) in block.chunks_exact_mut(width).enumerate() {
                let row = first + i;
                let angle = self.positions[row] as usize * half;
                let cos = &self.table.cos[angle..angle + half];
                let sin = &self.table.sin[angle..angle + half];
                let x = &data[row * width..(row + 1) * width];
                let heads = x.chunks_exact(2 * half).zip(y.chunks_exact_mut(2 * half));
                for (x, y) in heads {
                    let (a, b) = x.split_at(half);
                    let (ya, yb) = y.split_at_mut(half);
                    for j in 0..half {
                        let s = sign * sin[j];
                        ya[j] = a[j] * cos[j] - b[j] * s;
                        yb[j] = b[j] * cos[j] + a[j] * s;
                    }
                }
            }
        });
        tensor_of(out, shape)
    }
}

impl CpuOp<1> for Rotary {
    type Saved = ();

    fn keeps(&self) -> [bool; 1] {
        [false]
    }

    fn forward(&self, [x]: [&View; 1]) -> (FlexTensor, ()) {
        (self.turn(x, 1.0), ())
    }

    fn backward(
        &self,
        _: [&View; 1],
        (): &(),
        grad: &View,
        _: [bool; 1],
    ) -> [Option<FlexTensor>; 1] {
        [Some(self.turn(grad, -1.0))]
    }
}
