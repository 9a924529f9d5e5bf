//! The one way in which losses are reduced.

use burn::tensor::{Bool, Tensor};

use crate::error::{AlgoError, mask_rows, positive, same_shape};

/// What a loss is averaged over. The denominator counts the *whole* batch, over all micro-batches
/// and devices, so that accumulating parts gives the gradient of the whole: the reduced losses of
/// the parts are added, never averaged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Normalisation {
    /// Mean over the tokens of the batch; the denominator is their number (or total weight).
    Token {
        /// Tokens of the whole batch.
        denominator: f64,
    },
    /// Mean over sequences (or pairs), each the mean over its tokens; the denominator is the
    /// number of sequences.
    Sequence {
        /// Sequences of the whole batch.
        denominator: f64,
    },
}

impl Normalisation {
    /// Reduces one value a token, `[batch, time]`, to `[1]`.
    ///
    /// # Errors
    /// When the denominator is not positive, the shapes differ or a row is empty.
    pub fn tokens(
        &self,
        values: Tensor<2>,
        mask: &Tensor<2, Bool>,
    ) -> Result<Tensor<1>, AlgoError> {
        same_shape("mask", mask.dims(), values.dims())?;
        let rows = mask_rows("mask", mask)?;
        let values = values.mask_fill(mask.clone().bool_not(), 0.0);
        match self {
            Self::Token { denominator } => {
                positive("denominator", *denominator)?;
                Ok(values.sum() / *denominator)
            }
            Self::Sequence { .. } => {
                let batch = rows.len();
                let lens: Vec<f32> = rows
                    .iter()
                    .map(|row| row.iter().filter(|counts| **counts).count() as f32)
                    .collect();
                let lens = burn::tensor::TensorData::new(lens, [batch]);
                let lens = Tensor::<1>::from_data(lens, &values.device());
                self.sequences(values.sum_dim(1).reshape([batch]) / lens)
            }
        }
    }

    /// Reduces one value a sequence or pair, `[batch]`, to `[1]`.
    ///
    /// # Errors
    /// When the denominator is not positive.
    pub fn sequences(&self, values: Tensor<1>) -> Result<Tensor<1>, AlgoError> {
        let (Self::Token { denominator } | Self::Sequence { denominator }) = self;
        positive("denominator", *denominator)?;
        Ok(values.sum() / *denominator)
    }
}
