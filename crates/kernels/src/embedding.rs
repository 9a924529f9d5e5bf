//! Rows of the embedding matrix.

use std::sync::Arc;

use burn::backend::flex::FlexTensor;
use burn::tensor::{Int, Tensor, TensorData};

use crate::op::{CpuOp, View, apply, on_cpu, tensor_of};

/// The rows of `weight` that `ids` name.
///
/// # Shapes
/// `weight` `[vocabulary, width]`; the result `[ids, width]`.
///
/// # Panics
/// When an id is outside the vocabulary.
pub fn embedding(weight: Tensor<2>, ids: &Arc<[u32]>) -> Tensor<2> {
    let vocabulary = weight.dims()[0];
    assert!(
        ids.iter().all(|id| (*id as usize) < vocabulary),
        "embedding: an id is outside the vocabulary of {vocabulary}"
    );
    if on_cpu(&weight) {
        apply(Embedding { ids: ids.clone() }, [weight.into_dispatch()])
    } else {
        embedding_composed(weight, ids)
    }
}

/// [`embedding`] composed of Burn's operations.
pub fn embedding_composed(weight: Tensor<2>, ids: &Arc<[u32]>) -> Tensor<2> {
    let ids: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
    let count = ids.len();
    let ids = Tensor::<1, Int>::from_data(TensorData::new(ids, [count]), &weight.device());
    weight.select(0, ids)
}

#[derive(Clone, Debug)]
struct Embedding {
    ids: Arc<[u32]>,
}

impl CpuOp<1> for Embedding {
    type Saved = ();

    fn forward(&self, [weight]: [&View; 1]) -> (FlexTensor, ()) {
        let [_, width] = weight.dims();
        let rows = weight.data();
        let mut out = Vec::with_capacity(self.ids.len() * width);
        for id in self.ids.iter() {
            let start = *id as usize * width;
            out.extend_from_slice(&rows[start..start + width]);
        }
        (tensor_of(out, [self.ids.len(), width]), ())
    }

    fn backward(
        &self,
        [weight]: [&View; 1],
        (): &(),
        grad: &View,
        _: [bool; 1],
    ) -> [Option<FlexTensor>; 1] {
        let shape: [usize; 2] = weight.dims();
        let mut out = vec![0.0; shape[0] * shape[1]];
        self.add(grad.data(), shape[1], &mut out);
        [Some(tensor_of(out, shape))]
    }

    fn backward_into(
        &self,
        inputs: [&View; 1],
        (): &(),
        grad: &View,
        wanted: [bool; 1],
        [sum]: [Option<&mut [f32]>; 1],
    ) -> [Option<FlexTensor>; 1] {
        let Some(sum) = sum else {
            return self.backward(inputs, &(), grad, wanted);
        };
        let [_, width] = inputs[0].dims();
        self.add(grad.data(), width, sum);
        [None]
    }
}

impl Embedding {
    /// Adds each row of `grad` to the row of `out` that it was read from.
    fn add(&self, grad: &[f32], width: usize, out: &mut [f32]) {
        if width == 0 {
            return;
        }
        for (id, d) in self.ids.iter().zip(grad.chunks_exact(width)) {
            let start = *id as usize * width;
            for (y, d) in out[start..start + width].iter_mut().zip(d) {
                *y += *d;
            }
        }
    }
}
