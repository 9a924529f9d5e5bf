//! Attention on GPUs: runs of similar lengths side by side, padded, with a backward pass of its own.
//!
//! One run after the other, of Burn's operations, was some fifty kernels for each run and layer, and the processor takes
//! longer to ask for one than the GPU to run it.

use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor, TensorData};

use super::{
    GpuOp, apply,
    extension::{softmax_backward, softmax_up_to},
    heads::{Layout, Places},
    last::Last,
    matmul::Factor,
};
use crate::{
    attention::{AttentionShape, SCORES_AT_ONCE},
    precision::Precision,
    runs::{Run, Span, spans},
};

/// [`attention`](crate::attention()) on a GPU.
pub(crate) fn attention(
    q: Tensor<2>,
    k: Tensor<2>,
    v: Tensor<2>,
    runs: &Arc<[Run]>,
    shape: AttentionShape,
) -> Tensor<2> {
    if runs.iter().all(|run| run.len == 0) {
        return q;
    }
    let groups = groups_of(runs, shape, &q.device().without_autodiff());
    apply(Batched { groups, shape }, [q, k, v])
}

/// Runs side by side.
#[derive(Debug)]
struct Group {
    queries: Places,
    keys: Places,
    /// The last key that a query sees, `[rows, together * len]` with `together` query heads for a key head.
    last_seen: Tensor<2, Int>,
}

static LAST: Last<Of, Arc<[Group]>> = Last::new();

/// What groups are made of.
type Of = (Arc<[Run]>, AttentionShape, Device);

fn groups_of(runs: &Arc<[Run]>, shape: AttentionShape, device: &Device) -> Arc<[Group]> {
    LAST.or_make(
        |(of, for_shape, on)| Arc::ptr_eq(of, runs) && *for_shape == shape && on == device,
        || {
            let tokens = runs.iter().map(|run| run.len).sum();
            let groups = grouped(runs, shape.heads)
                .into_iter()
                .map(|members| Group::new(&members, tokens, shape, device))
                .collect();
            ((runs.clone(), shape, device.clone()), groups)
        },
    )
}

/// Runs by length, in groups of which at most half is padding.
fn grouped(runs: &[Run], heads: usize) -> Vec<Vec<Span>> {
    let seen = |span: &Span| span.prefix.1 + span.len;
    let mut all: Vec<Span> = spans(runs).into_iter().filter(|s| s.len > 0).collect();
    all.sort_by_key(|span| std::cmp::Reverse((seen(span), span.len)));
    let mut groups: Vec<Vec<Span>> = Vec::new();
    for span in all {
        if let Some(group) = groups.last_mut() {
            let rows = group.len() + 1;
            let len = group.iter().map(|s| s.len).max().unwrap_or(0).max(span.len);
            let padded = rows * len * seen(&group[0]);
            let wanted: usize = group.iter().chain([&span]).map(|s| s.len * seen(s)).sum();
            if padded <= 2 * wanted && padded * heads <= SCORES_AT_ONCE {
                group.push(span);
                continue;
            }
        }
        groups.push(vec![span]);
    }
    groups
}

impl Group {
    /// Of runs among so many tokens.
    fn new(members: &[Span], tokens: usize, shape: AttentionShape, device: &Device) -> Self {
        let rows = members.len();
        let longest = |len: fn(&Span) -> usize| members.iter().map(len).max().unwrap_or(0);
        let (len, seen) = (longest(|s| s.len), longest(|s| s.prefix.1 + s.len));
        let (mut queries, mut keys, mut last_seen) = (Vec::new(), Vec::new(), Vec::new());
        for span in members {
            let (prefix_start, prefix) = span.prefix;
            let own = |i: usize| (i < span.len).then_some(span.start + i);
            queries.extend((0..len).map(own));
            keys.extend((0..seen).map(|j| match j.checked_sub(prefix) {
                Some(i) => own(i),
                None => Some(prefix_start + j),
            }));
            last_seen.extend((0..len).map(|i| (prefix + i.min(span.len - 1)) as i32));
        }
        let together = shape.group();
        let last_seen = TensorData::new(last_seen, [rows, 1, len]);
        let last_seen = Tensor::<3, Int>::from_data(last_seen, device)
            .expand([rows, together, len])
            .reshape([rows, together * len]);
        let places = |of: &[Option<usize>], len: usize, heads: usize| {
            let shape = AttentionShape { heads, ..shape };
            Places::new(of, tokens, Layout { len, shape }, device)
        };
        Self {
            queries: places(&queries, len, shape.heads),
            keys: places(&keys, seen, shape.kv_heads),
            last_seen,
        }
    }
}

#[derive(Clone, Debug)]
struct Batched {
    groups: Arc<[Group]>,
    shape: AttentionShape,
}

impl Batched {
    /// `softmax(q kᵀ / √d)` over what each query may see.
    fn shares(&self, q: &Factor<4>, k: &Factor<4>, group: &Group) -> Tensor<4> {
        let scores = q.product(&k.transpose());
        softmax_up_to(scores, group.last_seen.clone(), self.shape.scale())
    }
}

/// Attention is float32 in every precision.
fn factor(x: Tensor<4>) -> Factor<4> {
    Factor::new(Precision::F32, x)
}

impl GpuOp<3, 2> for Batched {
    fn forward(&self, [q, k, v]: [Tensor<2>; 3]) -> Tensor<2> {
        let mut out = None;
        for group in self.groups.iter() {
            let q = factor(group.queries.by_head(&q));
            let [k, v] = [&k, &v].map(|x| factor(group.keys.by_head(x)));
            let shares = factor(self.shares(&q, &k, group));
            group.queries.add_by_token(&mut out, shares.product(&v));
        }
        let out = out.expect("a run has tokens");
        out.reshape(q.shape())
    }

    fn backward(
        &self,
        inputs: [Option<Tensor<2>>; 3],
        grad: Tensor<2>,
        wanted: [bool; 3],
    ) -> [Option<Tensor<2>>; 3] {
        let [q, k, v] = inputs.map(|input| input.expect("all are kept"));
        let [mut to_q, mut to_k, mut to_v] = [None, None, None];
        for group in self.groups.iter() {
            let [d, q] = [&grad, &q].map(|x| factor(group.queries.by_head(x)));
            let [k, v] = [&k, &v].map(|x| factor(group.keys.by_head(x)));
            let shares = self.shares(&q, &k, group);
            if wanted[2] {
                let d_v = factor(shares.clone()).transpose().product(&d);
                group.keys.add_by_token(&mut to_v, d_v);
            }
            if wanted[0] || wanted[1] {
                let d_shares = d.product(&v.transpose());
                let d_scores = softmax_backward(shares, d_shares, self.shape.scale());
                let d_scores = factor(d_scores);
                if wanted[0] {
                    let d_q = d_scores.product(&k);
                    group.queries.add_by_token(&mut to_q, d_q);
                }
                if wanted[1] {
                    let d_k = d_scores.transpose().product(&q);
                    group.keys.add_by_token(&mut to_k, d_k);
                }
            }
        }
        [
            to_q.map(|sum| sum.reshape(q.shape())),
            to_k.map(|sum| sum.reshape(k.shape())),
            to_v.map(|sum| sum.reshape(v.shape())),
        ]
    }
}
