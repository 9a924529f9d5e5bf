//! Selected log-probabilities on GPUs: logits are made a block of rows at a time, and made again for the backward
//! pass.

use std::{ops::Range, sync::Arc};

use burn::tensor::{Int, Tensor};

use super::{
    GpuOp, apply,
    extension::{selected, selected_backward},
    heads::indices,
    matmul::Factor,
};
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
        scale: (1.0 / temperature) as f32,
    };
    SelectedLogProbs::of_rows(apply(op, [hidden, head]))
}

#[derive(Clone, Debug)]
struct Remade {
    precision: Precision,
    targets: Arc<[u32]>,
    scale: f32,
}

impl Remade {
    fn blocks(&self, vocabulary: usize) -> impl Iterator<Item = Range<usize>> {
        let (tokens, rows) = (self.targets.len(), (LOGITS_AT_ONCE / vocabulary).max(1));
        let starts = (0..tokens).step_by(rows);
        starts.map(move |start| start..tokens.min(start + rows))
    }

    fn ids(&self, block: &Range<usize>, like: &Tensor<2>) -> Tensor<1, Int> {
        let ids = self.targets[block.clone()].iter().map(|t| *t as i32);
        indices(ids.collect(), &like.device())
    }

    fn factor(&self, x: Tensor<2>) -> Factor<2> {
        Factor::new(self.precision, x)
    }
}

impl GpuOp<2, 2> for Remade {
    fn forward(&self, [hidden, head]: [Tensor<2>; 2]) -> Tensor<2> {
        let [vocabulary, _] = head.dims();
        let head = self.factor(head);
        let parts = self.blocks(vocabulary).map(|block| {
            let rows = self.factor(hidden.clone().slice([block.clone()]));
            let logits = rows.product(&head.transpose());
            selected(logits, self.ids(&block, &hidden), self.scale)
        });
        Tensor::cat(parts.collect(), 1)
    }

    fn backward(
        &self,
        inputs: [Option<Tensor<2>>; 2],
        grad: Tensor<2>,
        wanted: [bool; 2],
    ) -> [Option<Tensor<2>>; 2] {
        let [hidden, head] = inputs.map(|input| input.expect("both are kept"));
        let [vocabulary, _] = head.dims();
        let head = self.factor(head);
        let (mut to_hidden, mut to_head) = (Vec::new(), None);
        for block in self.blocks(vocabulary) {
            let rows = self.factor(hidden.clone().slice([block.clone()]));
            let logits = rows.product(&head.transpose()).flatten::<1>(0, 1);
            let grad = grad.clone().slice([0..3, block.clone()]);
            let ids = self.ids(&block, &hidden);
            let d = selected_backward(logits, ids, grad, self.scale);
            let d = self.factor(d.reshape([block.len(), vocabulary]));
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
