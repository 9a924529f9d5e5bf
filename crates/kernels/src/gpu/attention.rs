//! Attention on GPUs: runs of similar lengths side by side, padded, with a backward pass of its own.
//!
//! One run after the other, of Burn's operations, was some fifty kernels for each run and layer, and the processor takes
//! longer to ask for one than the GPU to run it.

use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{Device, Int, Tensor, TensorData};

use super::{GpuOp, apply, extension::softmax_backward, matmul::Factor};
use crate::{
    attention::{AttentionShape, SCORES_AT_ONCE, softmax_up_to},
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
    let plan = plan_of(runs, shape, &q.device().without_autodiff());
    apply(Batched { plan, shape }, [q, k, v])
}

/// Runs side by side.
#[derive(Debug)]
struct Group {
    rows: usize,
    /// Queries and keys of the longest.
    len: usize,
    seen: usize,
    /// The row of each padded query and key; of padding, some row.
    queries: Tensor<1, Int>,
    keys: Tensor<1, Int>,
    /// 1 of a query, 0 of padding, `[rows * len, 1]`.
    is_query: Tensor<2>,
    /// The last key that a query sees, `[rows, together * len]` with `together` query heads for a key head.
    last_seen: Tensor<2, Int>,
}

/// Where everything lies, for all layers of a batch.
#[derive(Debug)]
struct Plan {
    groups: Vec<Group>,
    /// The place of each row among all padded queries.
    queries: Tensor<1, Int>,
    /// Its places among all padded keys, in its own run and as a beginning of others; where it has fewer than
    /// another row, the one after all of them, which is zero.
    keys: Vec<Tensor<1, Int>>,
}

/// A plan and what it is for.
type Planned = (Arc<[Run]>, AttentionShape, Device, Arc<Plan>);

/// The plan of the layer before, which is that of the next.
static LAST: Mutex<Option<Planned>> = Mutex::new(None);

fn plan_of(runs: &Arc<[Run]>, shape: AttentionShape, device: &Device) -> Arc<Plan> {
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((of, for_shape, on, plan)) = &*last
        && Arc::ptr_eq(of, runs)
        && *for_shape == shape
        && on == device
    {
        return plan.clone();
    }
    let plan = Arc::new(Plan::new(runs, shape, device));
    *last = Some((runs.clone(), shape, device.clone(), plan.clone()));
    plan
}

fn indices(of: &[usize], device: &Device) -> Tensor<1, Int> {
    let of: Vec<i32> = of.iter().map(|i| *i as i32).collect();
    let len = of.len();
    Tensor::from_data(TensorData::new(of, [len]), device)
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

impl Plan {
    fn new(runs: &[Run], shape: AttentionShape, device: &Device) -> Self {
        let tokens = runs.iter().map(|run| run.len).sum();
        let mut query_places = vec![0; tokens];
        let mut key_places = vec![Vec::new(); tokens];
        let (mut queries_before, mut keys_before) = (0, 0);
        let mut groups = Vec::new();
        for members in grouped(runs, shape.heads) {
            let rows = members.len();
            let len = members.iter().map(|s| s.len).max().unwrap_or(0);
            let seen = members
                .iter()
                .map(|s| s.prefix.1 + s.len)
                .max()
                .unwrap_or(0);
            let (mut queries, mut keys) = (Vec::new(), Vec::new());
            let (mut is_query, mut last_seen) = (Vec::new(), Vec::new());
            for (r, span) in members.iter().enumerate() {
                let (prefix_start, prefix) = span.prefix;
                for i in 0..len {
                    let row = span.start + i.min(span.len - 1);
                    queries.push(row);
                    is_query.push(if i < span.len { 1.0f32 } else { 0.0 });
                    last_seen.push((prefix + i.min(span.len - 1)) as i32);
                    if i < span.len {
                        query_places[row] = queries_before + r * len + i;
                    }
                }
                for j in 0..seen {
                    let own = (j.max(prefix) - prefix).min(span.len - 1);
                    let row = if j < prefix {
                        prefix_start + j
                    } else {
                        span.start + own
                    };
                    keys.push(row);
                    if j < prefix + span.len {
                        let place = keys_before + r * seen + j;
                        key_places[row].push(place);
                    }
                }
            }
            queries_before += rows * len;
            keys_before += rows * seen;
            let together = shape.group();
            let last_seen = TensorData::new(last_seen, [rows, 1, len]);
            let last_seen = Tensor::<3, Int>::from_data(last_seen, device)
                .expand([rows, together, len])
                .reshape([rows, together * len]);
            let is_query = TensorData::new(is_query, [rows * len, 1]);
            groups.push(Group {
                rows,
                len,
                seen,
                queries: indices(&queries, device),
                keys: indices(&keys, device),
                is_query: Tensor::from_data(is_query, device),
                last_seen,
            });
        }
        let most = key_places.iter().map(Vec::len).max().unwrap_or(0);
        let keys = (0..most).map(|n| {
            let place = |places: &Vec<usize>| places.get(n).copied().unwrap_or(keys_before);
            let places: Vec<usize> = key_places.iter().map(place).collect();
            indices(&places, device)
        });
        Self {
            keys: keys.collect(),
            queries: indices(&query_places, device),
            groups,
        }
    }
}

#[derive(Clone, Debug)]
struct Batched {
    plan: Arc<Plan>,
    shape: AttentionShape,
}

impl Batched {
    /// `[rows * len, heads * head_dim]` as `[rows, kv_heads, together * len, head_dim]`: the queries of the heads that
    /// share keys, one head after the other.
    fn by_key_head(&self, x: Tensor<2>, group: &Group) -> Tensor<4> {
        let AttentionShape {
            kv_heads, head_dim, ..
        } = self.shape;
        let together = self.shape.group();
        let x: Tensor<5> = x.reshape([group.rows, group.len, kv_heads, together, head_dim]);
        x.permute([0, 2, 3, 1, 4])
            .reshape([group.rows, kv_heads, together * group.len, head_dim])
    }

    /// The way back.
    fn by_query(&self, x: Tensor<4>, group: &Group) -> Tensor<2> {
        let AttentionShape {
            heads,
            kv_heads,
            head_dim,
        } = self.shape;
        let x: Tensor<5> = x.reshape([
            group.rows,
            kv_heads,
            self.shape.group(),
            group.len,
            head_dim,
        ]);
        x.permute([0, 3, 1, 2, 4])
            .reshape([group.rows * group.len, heads * head_dim])
    }

    /// Keys or values of a group, `[rows, kv_heads, seen, head_dim]`.
    fn of_keys(&self, x: &Tensor<2>, group: &Group) -> Tensor<4> {
        let shape = [
            group.rows,
            group.seen,
            self.shape.kv_heads,
            self.shape.head_dim,
        ];
        let x: Tensor<4> = x.clone().select(0, group.keys.clone()).reshape(shape);
        x.swap_dims(1, 2)
    }

    /// The way back.
    fn of_rows(&self, x: Tensor<4>, group: &Group) -> Tensor<2> {
        let width = self.shape.kv_heads * self.shape.head_dim;
        x.swap_dims(1, 2).reshape([group.rows * group.seen, width])
    }

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
        let of_group = |group: &Group| {
            let q = self.by_key_head(q.clone().select(0, group.queries.clone()), group);
            let [k, v] = [&k, &v].map(|x| factor(self.of_keys(x, group)));
            let shares = factor(self.shares(&factor(q), &k, group));
            self.by_query(shares.product(&v), group)
        };
        let all = self.plan.groups.iter().map(of_group).collect();
        Tensor::cat(all, 0).select(0, self.plan.queries.clone())
    }

    fn backward(
        &self,
        inputs: [Option<Tensor<2>>; 3],
        grad: Tensor<2>,
        wanted: [bool; 3],
    ) -> [Option<Tensor<2>>; 3] {
        let [q, k, v] = inputs.map(|input| input.expect("all are kept"));
        let [mut to_q, mut to_k, mut to_v] = [Vec::new(), Vec::new(), Vec::new()];
        for group in &self.plan.groups {
            let of_queries = |x: &Tensor<2>| x.clone().select(0, group.queries.clone());
            let d = of_queries(&grad) * group.is_query.clone();
            let d = factor(self.by_key_head(d, group));
            let q = factor(self.by_key_head(of_queries(&q), group));
            let [k, v] = [&k, &v].map(|x| factor(self.of_keys(x, group)));
            let shares = self.shares(&q, &k, group);
            if wanted[2] {
                let d_v = factor(shares.clone()).transpose().product(&d);
                to_v.push(self.of_rows(d_v, group));
            }
            if wanted[0] || wanted[1] {
                let d_shares = d.product(&v.transpose());
                let d_scores = softmax_backward(shares, d_shares, self.shape.scale());
                let d_scores = factor(d_scores);
                if wanted[0] {
                    to_q.push(self.by_query(d_scores.product(&k), group));
                }
                if wanted[1] {
                    to_k.push(self.of_rows(d_scores.transpose().product(&q), group));
                }
            }
        }
        let of_keys = |parts: Vec<Tensor<2>>| -> Tensor<2> {
            let mut parts = parts;
            if self.plan.keys.len() > 1 {
                parts.push(Tensor::zeros([1, k.dims()[1]], &k.device()));
            }
            let all = Tensor::cat(parts, 0);
            let mut places = self
                .plan
                .keys
                .iter()
                .map(|i| all.clone().select(0, i.clone()));
            let first = places.next().expect("there are rows, each with a place");
            places.fold(first, |sum, more| sum + more)
        };
        [
            wanted[0].then(|| Tensor::cat(to_q, 0).select(0, self.plan.queries.clone())),
            wanted[1].then(|| of_keys(to_k)),
            wanted[2].then(|| of_keys(to_v)),
        ]
    }
}
