//! The one way in which losses are reduced.

use burn::tensor::{Bool, Tensor};

use crate::{
    check::{Rows, constant, finite, masked, positive, same_len},
    error::AlgoError,
};

/// What a loss is averaged over.
///
/// The denominator counts the *whole* batch, over all micro-batches and devices. So the reduced
/// losses of the parts are added, never averaged, and accumulating parts of any sizes gives the
/// gradient of the whole.
#[derive(Clone, Debug, PartialEq)]
pub enum Normalisation {
    /// Sum over tokens / denominator. With the number (or the total weight) of the whole batch's
    /// tokens it is the token mean (DAPO; supervised fine-tuning); with sequences times the
    /// longest length allowed it is Dr. GRPO's constant.
    Token {
        /// Tokens of the whole batch.
        denominator: f64,
    },
    /// Mean over sequences (or pairs), each the mean over its tokens (GRPO).
    Sequence {
        /// Sequences, or pairs, of the whole batch.
        denominator: f64,
    },
    /// Mean over prompts, each the mean over all tokens of all its completions: a prompt weighs
    /// the same however many and however long its completions are.
    Prompt {
        /// Prompts of the whole batch.
        denominator: f64,
        /// For each row, what its prompt has in the whole batch: tokens for
        /// [`tokens`](Normalisation::tokens), sequences for [`sequences`](Normalisation::sequences).
        counts: Vec<f64>,
    },
}

impl Normalisation {
    /// Reduces one value a token, `[batch, time]`, to `[1]`. What lies outside the mask does not
    /// matter, not even when it is not a number.
    ///
    /// # Errors
    /// A denominator that is not positive, shapes, an empty row, a value that is not finite.
    pub fn tokens(
        &self,
        values: Tensor<2>,
        mask: &Tensor<2, Bool>,
    ) -> Result<Tensor<1>, AlgoError> {
        let rows = Rows::read(mask, values.dims())?;
        rows.finite("values", &values)?;
        let values = masked(values, mask);
        match self {
            Self::Token { denominator } => divided(values.sum(), *denominator),
            Self::Sequence { denominator } => divided(each(values, rows.lens()), *denominator),
            Self::Prompt {
                denominator,
                counts,
            } => {
                same_len("counts", counts.len(), values.dims()[0])?;
                counts
                    .iter()
                    .try_for_each(|count| positive("counts", *count))?;
                divided(each(values, counts.clone()), *denominator)
            }
        }
    }

    /// Reduces one value a sequence or pair, `[batch]`, to `[1]`.
    ///
    /// # Errors
    /// A denominator that is not positive, a value that is not finite.
    pub fn sequences(&self, values: Tensor<1>) -> Result<Tensor<1>, AlgoError> {
        finite("values", &values)?;
        match self {
            Self::Token { denominator } | Self::Sequence { denominator } => {
                divided(values.sum(), *denominator)
            }
            Self::Prompt {
                denominator,
                counts,
            } => {
                let [batch] = values.dims();
                same_len("counts", counts.len(), batch)?;
                counts
                    .iter()
                    .try_for_each(|count| positive("counts", *count))?;
                divided(
                    each(values.reshape([batch, 1]), counts.clone()),
                    *denominator,
                )
            }
        }
    }
}

fn divided(sum: Tensor<1>, denominator: f64) -> Result<Tensor<1>, AlgoError> {
    positive("denominator", denominator)?;
    Ok(sum / denominator)
}

/// The sum over rows of row sum / count.
fn each(values: Tensor<2>, counts: Vec<f64>) -> Tensor<1> {
    let [batch, _] = values.dims();
    let counts = constant(counts, [batch, 1], &values);
    (values.sum_dim(1) / counts).sum()
}
