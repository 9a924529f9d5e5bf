//! Products with a weight matrix on a GPU.

use burn::tensor::Tensor;

use super::{GpuOp, matmul::Factor};
use crate::precision::Precision;

/// `x · weightᵀ`, with both factors of each product in a precision.
///
/// As a product with a transposed matrix, the matrix' gradient would come out in columns, and be copied across all its
/// lines where the optimiser reads it.
#[derive(Clone, Debug)]
pub(crate) struct Linear(pub(crate) Precision);

impl Linear {
    fn factor(&self, x: Tensor<2>) -> Factor<2> {
        Factor::new(self.0, x)
    }
}

impl GpuOp<2, 2> for Linear {
    fn forward(&self, [x, weight]: [Tensor<2>; 2]) -> Tensor<2> {
        self.factor(x).product(&self.factor(weight).transpose())
    }

    fn keeps(&self, wanted: [bool; 2]) -> [bool; 2] {
        [wanted[1], wanted[0]]
    }

    fn backward(
        &self,
        [x, weight]: [Option<Tensor<2>>; 2],
        grad: Tensor<2>,
        _: [bool; 2],
    ) -> [Option<Tensor<2>>; 2] {
        let grad = self.factor(grad);
        [
            weight.map(|weight| grad.product(&self.factor(weight))),
            x.map(|x| grad.transpose().product(&self.factor(x))),
        ]
    }
}
