//! Rows of tokens laid out by head on a GPU, as products want them, and back.

use burn::tensor::{Device, Int, Shape, Tensor, TensorData};
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{
    extension,
    launch::{empty, for_each, rows},
};

/// Sequences side by side, all of `len` places, by head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(super) len: usize,
    pub(super) kv_heads: usize,
    /// Heads of a key head: they lie one after the other, as more places of it.
    pub(super) together: usize,
    pub(super) head_dim: usize,
}

impl Layout {
    /// Numbers of a token.
    fn width(self) -> usize {
        self.kv_heads * self.together * self.head_dim
    }

    /// `[sequences, kv_heads, together * len, head_dim]` for so many places in all.
    pub(super) fn by_head(self, places: usize) -> Shape {
        let sequences = places / self.len;
        let len = self.together * self.len;
        Shape::new([sequences, self.kv_heads, len, self.head_dim])
    }

    /// `[tokens, kv_heads * together * head_dim]`.
    pub(super) fn by_token(self, tokens: usize) -> Shape {
        Shape::new([tokens, self.width()])
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

fn indices(of: Vec<i32>, device: &Device) -> Tensor<1, Int> {
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

    /// The way back: the sum of each token's places.
    pub(super) fn by_token(&self, x: Tensor<4>) -> Tensor<2> {
        let (starts, places) = (self.starts.clone(), self.places.clone());
        extension::by_token(x, starts, places, self.layout)
    }
}

#[cube(launch)]
fn lay_by_head(
    x: &[f32],
    tokens: &[i32],
    out: &mut [f32],
    len: usize,
    #[comptime] kv_heads: usize,
    #[comptime] together: usize,
    #[comptime] head_dim: usize,
) {
    let i = ABSOLUTE_POS;
    if i < out.len() {
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
            x.into_buffer_arg(),
            tokens.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            layout.len,
            layout.kv_heads,
            layout.together,
            layout.head_dim,
        );
    }
    out
}

#[cube(launch)]
fn add_by_token(
    x: &[f32],
    starts: &[i32],
    places: &[i32],
    out: &mut [f32],
    len: usize,
    #[comptime] kv_heads: usize,
    #[comptime] together: usize,
    #[comptime] head_dim: usize,
) {
    let i = ABSOLUTE_POS;
    if i < out.len() {
        let (at, j) = (i / head_dim, i % head_dim);
        let (at, head) = (at / together, at % together);
        let (token, kv_head) = (at / kv_heads, at % kv_heads);
        let mut sum = 0.0f32;
        let mut n = starts[token] as usize;
        let end = starts[token + 1] as usize;
        while n < end {
            let place = places[n] as usize;
            let (sequence, place) = (place / len, place % len);
            let head = (sequence * kv_heads + kv_head) * together + head;
            sum += x[(head * len + place) * head_dim + j];
            n += 1;
        }
        out[i] = sum;
    }
}

/// [`Places::by_token`].
pub(super) fn by_token(
    x: CubeTensor,
    starts: CubeTensor,
    places: CubeTensor,
    layout: Layout,
) -> CubeTensor {
    let (x, starts, places) = (rows(x), rows(starts), rows(places));
    let out = empty(&x, layout.by_token(starts.meta.num_elements() - 1));
    let count = out.meta.num_elements();
    if count > 0 {
        let (cubes, dim) = for_each(&x, count);
        add_by_token::launch(
            &x.client.clone(),
            cubes,
            dim,
            x.into_buffer_arg(),
            starts.into_buffer_arg(),
            places.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            layout.len,
            layout.kv_heads,
            layout.together,
            layout.head_dim,
        );
    }
    out
}
