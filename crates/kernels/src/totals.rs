//! Gradients of matrices over several backward passes, added up where they are.
//!
//! A backward pass would make a gradient as large as the matrix, and another pass over memory would add
//! it to the sum. Here the product that makes the gradient adds it to the sum itself.

use std::{cell::RefCell, collections::HashMap};

use burn::backend::{autodiff::NodeId, flex::FlexTensor};
use burn::tensor::{Gradients, Tensor};

use crate::op::{from_flex, into_flex, node_of, on_cpu, tensor_of};

thread_local! {
    /// Sums of the leaves of the backward pass that this thread is in.
    static SUMS: RefCell<HashMap<NodeId, FlexTensor>> = RefCell::default();
}

/// A matrix on autodiff, and the sum of its gradients so far: of its shape, off autodiff.
#[derive(Debug)]
pub struct GradientTotal {
    leaf: Tensor<2>,
    sum: Tensor<2>,
}

impl GradientTotal {
    /// Zeros where products can add to a sum; `None` on other backends, whose passes make gradients of
    /// their own.
    pub fn zeros(leaf: &Tensor<2>) -> Option<Self> {
        if !on_cpu(leaf) {
            return None;
        }
        let shape = leaf.dims();
        // Burn's zeros are written, then copied to another place.
        let zeros = from_flex(tensor_of(vec![0.0; shape[0] * shape[1]], shape));
        Self::new(leaf, zeros).ok()
    }

    /// A sum so far.
    ///
    /// # Errors
    /// Gives the sum back on other backends, and where the matrix is not a leaf on autodiff.
    pub fn new(leaf: &Tensor<2>, sum: Tensor<2>) -> Result<Self, Box<Tensor<2>>> {
        if on_cpu(leaf) && on_cpu(&sum) && node_of(leaf).is_some() && leaf.dims() == sum.dims() {
            let leaf = leaf.clone();
            return Ok(Self { leaf, sum });
        }
        Err(Box::new(sum))
    }

    /// The sum.
    pub fn into_sum(self) -> Tensor<2> {
        self.sum
    }
}

/// `loss.backward()`, but gradients of some matrices are added to their totals. Where an operation has no
/// form for that, the gradient is among those returned, and for the caller to add.
pub fn backward_into(loss: Tensor<1>, totals: &mut [GradientTotal]) -> Gradients {
    let mut nodes = Vec::with_capacity(totals.len());
    SUMS.with_borrow_mut(|sums| {
        for total in totals.iter_mut() {
            // Taken out, so that the sum has one owner and is written in place.
            let gone = Tensor::zeros([0, 0], &total.sum.device());
            let sum = std::mem::replace(&mut total.sum, gone);
            let node = node_of(&total.leaf).expect("`GradientTotal::new` saw it");
            sums.insert(node, into_flex(sum).to_contiguous());
            nodes.push(node);
        }
    });
    let grads = loss.backward();
    SUMS.with_borrow_mut(|sums| {
        for (total, node) in totals.iter_mut().zip(nodes) {
            let sum = sums.remove(&node).expect("it was put there before");
            total.sum = from_flex(sum);
        }
    });
    grads
}

/// Lets `add` have the sums of some leaves, where there are any, while it runs.
pub(crate) fn with_sums<const N: usize, T>(
    nodes: [Option<NodeId>; N],
    add: impl FnOnce([Option<&mut [f32]>; N]) -> T,
) -> T {
    let mut taken =
        nodes.map(|node| node.and_then(|node| SUMS.with_borrow_mut(|sums| sums.remove(&node))));
    let result = add(taken.each_mut().map(|sum| sum.as_mut().map(numbers)));
    SUMS.with_borrow_mut(|sums| {
        for (node, sum) in nodes.into_iter().zip(taken) {
            if let (Some(node), Some(sum)) = (node, sum) {
                sums.insert(node, sum);
            }
        }
    });
    result
}

fn numbers(sum: &mut FlexTensor) -> &mut [f32] {
    // A contiguous tensor may still be a view into a larger buffer: keep to its range.
    let (start, end) = sum
        .layout()
        .contiguous_offsets()
        .expect("`backward_into` made it contiguous");
    &mut sum.storage_mut::<f32>()[start..end]
}
