//! Rows of tokens laid out by head on a GPU, as products want them, and back.

use burn::tensor::{Device, Int, Shape, Tensor, TensorData};
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{
    extension,
    launch::{empty, for_each, own, rows},
};
use crate::attention::AttentionShape;

/// Sequences side by side, all of `len` places, and the heads of a place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(super) len: usize,
    /// The heads of a key head lie one after the other, as more places of it.
    pub(super) shape: AttentionShape,
}

impl Layout {
    /// Numbers of a token.
    fn width(self) -> usize {
        self.shape.heads * self.shape.head_dim
    }

    /// `[sequences, kv_heads, together * len, head_dim]` for so many places in all.
    pub(super) fn by_head(self, places: usize) -> Shape {
        let Self { len, shape } = self;
        let in_all = shape.group() * len;
        Shape::new([places / len, shape.kv_heads, in_all, shape.head_dim])
    }
}

/// Which token is at which place of a [`Layout`].
#[derive(Debug)]
pub(super) struct Places {
    layout: Layout,
    /// The token at each place, -1 of padding.
    tokens: Tensor<1, Int>,
    /// The places of a token: `places[starts[token]..starts[token + 1]]`.
    starts: Tensor<1, Int>,
    places: Tensor<1, Int>,
}

pub(super) fn indices(of: Vec<i32>, device: &Device) -> Tensor<1, Int> {
    let len = of.len();
    Tensor::from_data(TensorData::new(of, [len]), device)
}

impl Places {
    /// With the token at each place, none of padding; `count` tokens, each of which may be at several places or nowhere.
    pub(super) fn new(
        tokens: &[Option<usize>],
        count: usize,
        layout: Layout,
        device: &Device,
    ) -> Self {
        let mut of_token = vec![Vec::new(); count];
        for (place, token) in tokens.iter().enumerate() {
            if let Some(token) = token {
                of_token[*token].push(place as i32);
            }
        }
        let mut starts = vec![0];
        for places in &of_token {
            starts.push(starts[starts.len() - 1] + places.len() as i32);
        }
        let tokens = tokens.iter().map(|t| t.map_or(-1, |t| t as i32)).collect();
        Self {
            layout,
            tokens: indices(tokens, device),
            starts: indices(starts, device),
            places: indices(of_token.concat(), device),
        }
    }

    /// `x` `[tokens, width]` as `[sequences, kv_heads, together * len, head_dim]`, zeros where padding is.
    pub(super) fn by_head(&self, x: &Tensor<2>) -> Tensor<4> {
        extension::by_head(x.clone(), self.tokens.clone(), self.layout)
    }

    /// The way back: adds what is at a token's places to its sum, `[tokens * width]`; without a sum yet, the others' is 0.
    pub(super) fn add_by_token(&self, sum: &mut Option<Tensor<1>>, x: Tensor<4>) {
        let tokens = self.starts.dims()[0] - 1;
        let adds = sum.is_some();
        let old = sum
            .take()
            .unwrap_or_else(|| Tensor::empty([tokens * self.layout.width()], &x.device()));
        let places = [self.starts.clone(), self.places.clone()];
        *sum = Some(extension::add_by_token(old, x, places, self.layout, adds));
    }
}

#[cube(launch, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
fn lay_by_head(
    x: &[f32],
    tokens: &[i32],
    out: &mut [f32],
    count: usize,
    len: usize,
    #[comptime] kv_heads: usize,
    #[comptime] together: usize,
    #[comptime] head_dim: usize,
) {
    let i = ABSOLUTE_POS;
    if i < count {
        let (at, j) = (i / head_dim, i % head_dim);
        let (at, place) = (at / len, at % len);
        let (at, head) = (at / together, at % together);
        let (sequence, kv_head) = (at / kv_heads, at % kv_heads);
        let token = tokens[sequence * len + place];
        let mut value = 0.0f32;
        if token >= 0 {
            let head = (token as usize * kv_heads + kv_head) * together + head;
            value = x[head * head_dim + j];
        }
        out[i] = value;
    }
}

/// [`Places::by_head`].
pub(super) fn by_head(x: CubeTensor, tokens: CubeTensor, layout: Layout) -> CubeTensor {
    let (x, tokens) = (rows(x), rows(tokens));
    let out = empty(&x, layout.by_head(tokens.meta.num_elements()));
    let count = out.meta.num_elements();
    if count > 0 {
        let (cubes, dim) = for_each(&x, count);
        lay_by_head::launch(
            &x.client.clone(),
            cubes,
            dim,
            x.required_address_type().max(out.required_address_type()),
            x.into_buffer_arg(),
            tokens.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            count,
            layout.len,
            layout.shape.kv_heads,
            layout.shape.group(),
            layout.shape.head_dim,
        );
    }
    out
}

#[cube(launch, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
fn add_places(
    x: &[f32],
    starts: &[i32],
    places: &[i32],
    sum: &mut [f32],
    count: usize,
    len: usize,
    #[comptime] kv_heads: usize,
    #[comptime] together: usize,
    #[comptime] head_dim: usize,
    #[comptime] adds: bool,
) {
    let i = ABSOLUTE_POS;
    if i < count {
        let (at, j) = (i / head_dim, i % head_dim);
        let (at, head) = (at / together, at % together);
        let (token, kv_head) = (at / kv_heads, at % kv_heads);
        let mut n = starts[token] as usize;
        let end = starts[token + 1] as usize;
        if n < end {
            let mut of_token = 0.0f32;
            if adds {
                of_token = sum[i];
            }
            while n < end {
                let place = places[n] as usize;
                let (sequence, place) = (place / len, place % len);
                let head = (sequence * kv_heads + kv_head) * together + head;
                of_token += x[(head * len + place) * head_dim + j];
                n += 1;
            }
            sum[i] = of_token;
        } else if !adds {
            sum[i] = 0.0;
        }
    }
}

/// [`Places::add_by_token`]; `sum` is written over where it does not add.
pub(super) fn add_by_token(
    sum: CubeTensor,
    x: CubeTensor,
    [starts, places]: [CubeTensor; 2],
    layout: Layout,
    adds: bool,
) -> CubeTensor {
    let (sum, x, starts, places) = (own(sum), rows(x), rows(starts), rows(places));
    let count = sum.meta.num_elements();
    if count > 0 {
        let (cubes, dim) = for_each(&x, count);
        add_places::launch(
            &x.client.clone(),
            cubes,
            dim,
            x.required_address_type().max(sum.required_address_type()),
            x.into_buffer_arg(),
            starts.into_buffer_arg(),
            places.into_buffer_arg(),
            sum.clone().into_buffer_arg(),
            count,
            layout.len,
            layout.shape.kv_heads,
            layout.shape.group(),
            layout.shape.head_dim,
            adds,
        );
    }
    sum
}
