//! Selected log-probabilities on GPUs: logits are made a block of rows at a time, and made again for the backward
//! pass.

use std::{ops::Range, sync::Arc};

use burn::tensor::{Int, Tensor, TensorData, activation};

use super::{GpuOp, apply, matmul::Factor};
use crate::{
    log_probs::{LOGITS_AT_ONCE, SelectedLogProbs},
    precision::Precision,
};

/// [`selected_log_probs`](crate::selected_log_probs) on a GPU.
pub(crate) fn selected_log_probs(
    precision: Precision,
    hidden: Tensor<2>,
    head: Tensor<2>,
    targets: &Arc<[u32]>,
    temperature: f64,
) -> SelectedLogProbs {
    let op = Remade {
        precision,
        targets: targets.clone(),
        temperature,
    };
    SelectedLogProbs::of_rows(apply(op, [hidden, head]))
}

#[derive(Clone, Debug)]
struct Remade {
    precision: Precision,
    targets: Arc<[u32]>,
    temperature: f64,
}

impl Remade {
    fn blocks(&self, vocabulary: usize) -> impl Iterator<Item = Range<usize>> {
        let (tokens, rows) = (self.targets.len(), (LOGITS_AT_ONCE / vocabulary).max(1));
        let starts = (0..tokens).step_by(rows);
        starts.map(move |start| start..tokens.min(start + rows))
    }

    /// The targets of a block, `[rows, 1]`.
    fn ids(&self, block: &Range<usize>, like: &Tensor<2>) -> Tensor<2, Int> {
        let ids = self.targets[block.clone()].iter().map(|t| *t as i32);
        let ids = TensorData::new(ids.collect::<Vec<i32>>(), [block.len(), 1]);
        Tensor::from_data(ids, &like.device())
    }

    fn factor(&self, x: Tensor<2>) -> Factor<2> {
        Factor::new(self.precision, x)
    }

    /// Log-probabilities of all tokens in some rows.
    fn all(&self, rows: &Factor<2>, head: &Factor<2>) -> Tensor<2> {
        let logits = rows.product(&head.transpose());
        activation::log_softmax(logits / self.temperature, 1)
    }
}

fn entropy(all: &Tensor<2>) -> Tensor<2> {
    (all.clone().exp() * all.clone()).sum_dim(1).neg()
}

impl GpuOp<2, 2> for Remade {
    fn forward(&self, [hidden, head]: [Tensor<2>; 2]) -> Tensor<2> {
        let [vocabulary, _] = head.dims();
        let head = self.factor(head);
        let parts = self.blocks(vocabulary).map(|block| {
            let rows = self.factor(hidden.clone().slice([block.clone()]));
            let all = self.all(&rows, &head);
            let selected = all.clone().gather(1, self.ids(&block, &hidden));
            let collision = (all.clone() * 2.0).exp().sum_dim(1).log();
            Tensor::cat(vec![selected, entropy(&all), collision], 1)
        });
        Tensor::cat(parts.collect(), 0).transpose()
    }

    /// With `p = softmax(logits / T)` and `h` its entropy, the logits' gradient is
    /// `(g_logp (1_target - p) - g_entropy p (log p + h)) / T`.
    fn backward(
        &self,
        inputs: [Option<Tensor<2>>; 2],
        grad: Tensor<2>,
        wanted: [bool; 2],
    ) -> [Option<Tensor<2>>; 2] {
        let [hidden, head] = inputs.map(|input| input.expect("both are kept"));
        let ([vocabulary, _], device) = (head.dims(), head.device());
        let head = self.factor(head);
        let (mut to_hidden, mut to_head) = (Vec::new(), None);
        let grad = grad.transpose();
        let tokens = Tensor::<1, Int>::arange(0..vocabulary as i64, &device);
        for block in self.blocks(vocabulary) {
            let rows = self.factor(hidden.clone().slice([block.clone()]));
            let all = self.all(&rows, &head);
            let of = |column: usize| grad.clone().slice([block.clone(), column..column + 1]);
            let is_target = tokens
                .clone()
                .unsqueeze::<2>()
                .expand(all.dims())
                .equal(self.ids(&block, &hidden).expand(all.dims()))
                .float();
            let p = all.clone().exp();
            let d_logps = (is_target - p.clone()) * of(0);
            let d_entropy = p * (all.clone() + entropy(&all)) * of(1);
            let d = self.factor((d_logps - d_entropy) / self.temperature);
            if wanted[0] {
                to_hidden.push(d.product(&head));
            }
            if wanted[1] {
                let more = d.transpose().product(&rows);
                to_head = Some(match to_head.take() {
                    Some(sum) => sum + more,
                    None => more,
                });
            }
        }
        [wanted[0].then(|| Tensor::cat(to_hidden, 0)), to_head]
    }
}
