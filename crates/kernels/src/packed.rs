//! Weight matrices laid out for sampling.
//!
//! A matrix `[out, in]` in one piece is read row after row: a product with few rows of activations
//! then needs a horizontal sum for each result, and reads the activations as often as the weights.
//! Here up to 48 outputs lie side by side for each input, so that a register holds 16 results,
//! weights are one stream, and activations are broadcast.

use std::{ops::Range, sync::Arc};

use burn::tensor::Tensor;
use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use crate::simd::STREAMS;
use crate::{
    bf16::{self, PairLine},
    cpu::{Mat, Out, SharedMut},
    op::{View, from_flex, into_flex, on_cpu, tensor_of},
    precision::Precision,
};

/// Sixteen numbers on a cache line of their own.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

const LINE: usize = 16;
/// Lines of outputs side by side.
const WIDE: usize = 3;
/// Rows of activations that are met at a time.
const TALL: usize = 8;
/// Below this many multiply-adds a product runs on the calling thread.
const PARALLEL: usize = 1 << 17;

/// One or several weight matrices of the same input, for [`PackedLinear::apply`].
///
/// Each result is a sum in the order of the inputs, whatever the other rows are: a row's result does
/// not depend on its batch.
#[derive(Clone, Debug)]
pub struct PackedLinear {
    inner: usize,
    outers: Vec<usize>,
    panels: Arc<[Panel]>,
    store: Store,
}

/// Sixteen numbers in eight bits.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(16))]
struct ByteLine([i8; LINE]);

/// How weights are held for sampling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightFormat {
    /// As they are.
    F32,
    /// Rounded to bfloat16, and so are the activations that they meet.
    Bf16,
    /// Whole numbers from -127 to 127, and a factor for each output: its largest weight over 127. Activations
    /// stay float32 (weight-only quantisation by channels, as in `torchao`).
    Int8,
}

impl WeightFormat {
    /// The format that a precision computes with; `None` without a fused form.
    pub fn of(precision: Precision) -> Option<Self> {
        match precision {
            Precision::F32 => Some(Self::F32),
            Precision::Bf16 => Some(Self::Bf16),
            Precision::F16 => None,
        }
    }

    /// Bytes of a weight.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
            Self::Int8 => 1,
        }
    }

    /// Lines that a panel has for each line of outputs.
    fn deep(self, inner: usize) -> usize {
        match self {
            Self::F32 | Self::Int8 => inner,
            Self::Bf16 => bf16::pairs(inner),
        }
    }
}

/// A line of weights, each one input's.
trait Weights: Copy + Send + Sync {
    const IS_INT8: bool;

    fn numbers(&self) -> [f32; LINE];
}

impl Weights for Line {
    const IS_INT8: bool = false;

    #[inline(always)]
    fn numbers(&self) -> [f32; LINE] {
        self.0
    }
}

impl Weights for ByteLine {
    const IS_INT8: bool = true;

    #[inline(always)]
    fn numbers(&self) -> [f32; LINE] {
        self.0.map(f32::from)
    }
}

/// Lines in one piece or several.
#[derive(Clone, Debug)]
enum Store {
    F32(Arc<[Vec<Line>]>),
    /// With a factor for each output of each matrix.
    Int8(Arc<[Vec<ByteLine>]>, Arc<[Vec<f32>]>),
    /// Two inputs in a word, as [`crate::bf16`] has them.
    Bf16(Arc<[Vec<PairLine>]>),
}

/// Some consecutive outputs of one matrix: line `first + k * wide + j` of a piece has outputs
/// `column + 16 j ..` for input `k`, or for inputs `2 k` and `2 k + 1`.
#[derive(Clone, Copy, Debug)]
struct Panel {
    part: usize,
    column: usize,
    columns: usize,
    piece: usize,
    first: usize,
}

impl Panel {
    fn wide(&self) -> usize {
        self.columns.div_ceil(LINE)
    }
}

impl PackedLinear {
    /// Packs matrices `[out, in]` of one `in`; `None` where there is no fused form for them.
    ///
    /// # Panics
    /// When the inner sizes differ or are 0.
    pub fn new(matrices: &[Tensor<2>], format: WeightFormat) -> Option<Self> {
        let inner = matrices.first()?.dims()[1];
        assert!(inner > 0, "PackedLinear: no inputs");
        if !matrices.iter().all(on_cpu) {
            return None;
        }
        let mut panels = Vec::new();
        let mut outers = Vec::new();
        let mut first = 0;
        for (part, matrix) in matrices.iter().enumerate() {
            let [outer, width] = matrix.dims();
            assert_eq!(width, inner, "PackedLinear: inner sizes differ");
            panels.extend(panels_of(part, 0..outer, format.deep(inner), &mut first));
            outers.push(outer);
        }
        let views: Vec<View> = matrices
            .iter()
            .map(|m| View::new(into_flex(m.clone())))
            .collect();
        let rows = |panel: &Panel| &views[panel.part].data()[panel.column * inner..];
        let store = match format {
            WeightFormat::F32 => Store::F32([lay_f32(&panels, inner, rows)].into()),
            WeightFormat::Bf16 => Store::Bf16([lay_bf16(&panels, inner, rows)].into()),
            WeightFormat::Int8 => {
                let factors: Vec<Vec<f32>> =
                    views.iter().map(|v| factors(v.data(), inner)).collect();
                let lines = lay_int8(&panels, inner, rows, |panel| {
                    &factors[panel.part][panel.column..]
                });
                Store::Int8([lines].into(), factors.into())
            }
        };
        Some(Self {
            inner,
            outers,
            panels: panels.into(),
            store,
        })
    }

    /// [`PackedLinear::new`] of one matrix, which is freed part by part where nobody else holds it: at no
    /// time is there more than an eighth of it twice.
    ///
    /// # Errors
    /// Gives the matrix back where there is no fused form.
    ///
    /// # Panics
    /// When it has no inputs.
    pub fn consuming(matrix: Tensor<2>, format: WeightFormat) -> Result<Self, Box<Tensor<2>>> {
        let [outer, inner] = matrix.dims();
        assert!(inner > 0, "PackedLinear: no inputs");
        if !on_cpu(&matrix) {
            return Err(Box::new(matrix));
        }
        let mut rows: Vec<f32> = into_flex(matrix)
            .into_data()
            .try_into_vec()
            .expect("`on_cpu` saw float32");
        // From the end, which is what can be cut off.
        let part = outer.div_ceil(8).next_multiple_of(WIDE * LINE);
        let starts: Vec<usize> = (0..outer).step_by(part).collect();
        let mut panels = Vec::new();
        let (mut f32s, mut bf16s, mut int8s) = (Vec::new(), Vec::new(), Vec::new());
        let all_factors = match format {
            WeightFormat::Int8 => factors(&rows, inner),
            _ => Vec::new(),
        };
        for (piece, start) in starts.into_iter().rev().enumerate() {
            let end = (start + part).min(outer);
            let mut own = panels_of(0, start..end, format.deep(inner), &mut 0);
            let of = |panel: &Panel| &rows[panel.column * inner..];
            match format {
                WeightFormat::F32 => f32s.push(lay_f32(&own, inner, of)),
                WeightFormat::Bf16 => bf16s.push(lay_bf16(&own, inner, of)),
                WeightFormat::Int8 => {
                    let factors = |panel: &Panel| &all_factors[panel.column..];
                    int8s.push(lay_int8(&own, inner, of, factors));
                }
            }
            rows.truncate(start * inner);
            rows.shrink_to_fit();
            for panel in &mut own {
                panel.piece = piece;
            }
            panels.splice(0..0, own);
        }
        Ok(Self {
            inner,
            outers: vec![outer],
            panels: panels.into(),
            store: match format {
                WeightFormat::F32 => Store::F32(f32s.into()),
                WeightFormat::Bf16 => Store::Bf16(bf16s.into()),
                WeightFormat::Int8 => Store::Int8(int8s.into(), [all_factors].into()),
            },
        })
    }

    /// `x · weightᵀ` for each matrix.
    ///
    /// # Shapes
    /// `x` `[rows, in]`, not on autodiff; the results `[rows, out]`.
    ///
    /// # Panics
    /// When the inner sizes differ.
    pub fn apply(&self, x: Tensor<2>) -> Vec<Tensor<2>> {
        let [rows, inner] = x.dims();
        assert_eq!(inner, self.inner, "PackedLinear: inner sizes differ");
        let x = View::new(into_flex(x));
        let pairs = match &self.store {
            Store::F32(_) | Store::Int8(..) => Vec::new(),
            Store::Bf16(_) => bf16::pair_rows(x.data(), inner),
        };
        // Not zeroed first: every element is written below.
        let mut outs: Vec<Vec<f32>> = self
            .outers
            .iter()
            .map(|outer| Vec::with_capacity(rows * outer))
            .collect();
        let shared: Vec<SharedMut> = outs
            .iter_mut()
            .map(|out| SharedMut(out.as_mut_ptr()))
            .collect();
        let run = |panel: &Panel| {
            let out = Out {
                at: shared[panel.part].at(panel.column),
                row: self.outers[panel.part],
                columns: panel.columns,
            };
            // SAFETY: this call alone writes the panel's columns of its matrix's result, which has
            // `rows` rows of `out.row`.
            unsafe {
                match &self.store {
                    Store::F32(pieces) => {
                        let lines = &pieces[panel.piece][panel.first..][..panel.wide() * inner];
                        meet(x.data(), inner, lines, &[], out);
                    }
                    Store::Int8(pieces, factors) => {
                        let lines = &pieces[panel.piece][panel.first..][..panel.wide() * inner];
                        let factors = &factors[panel.part][panel.column..][..panel.columns];
                        meet(x.data(), inner, lines, factors, out);
                    }
                    Store::Bf16(pieces) => {
                        let width = bf16::pairs(inner);
                        let lines = &pieces[panel.piece][panel.first..][..panel.wide() * width];
                        let pairs = (&pairs[..], rows);
                        bf16::meet(pairs, width, lines, out, false);
                    }
                }
            }
        };
        let work = rows * inner * self.outers.iter().sum::<usize>();
        if work < PARALLEL {
            self.panels.iter().for_each(run);
        } else {
            // Halves, and smaller parts where one thread is ahead: a thread's panels follow each other.
            self.panels.par_iter().for_each(run);
        }
        outs.into_iter()
            .zip(&self.outers)
            .map(|(mut out, outer)| {
                // SAFETY: the panels cover every column of each matrix, and every row was met.
                unsafe { out.set_len(rows * outer) };
                from_flex(tensor_of(out, [rows, *outer]))
            })
            .collect()
    }

    /// Rows of the first matrix, as [`crate::embedding`].
    ///
    /// # Panics
    /// When an id is outside the matrix.
    pub fn rows(&self, ids: &[u32]) -> Tensor<2> {
        let mut out = Vec::with_capacity(ids.len() * self.inner);
        for id in ids {
            let id = *id as usize;
            assert!(id < self.outers[0], "PackedLinear: an id is outside");
            let panel = self.panels[id / (WIDE * LINE)];
            let at = id % (WIDE * LINE);
            let (first, wide, lane) = (panel.first + at / LINE, panel.wide(), at % LINE);
            match &self.store {
                Store::F32(pieces) => {
                    let lines = pieces[panel.piece][first..]
                        .iter()
                        .step_by(wide)
                        .take(self.inner);
                    out.extend(lines.map(|line| line.0[lane]));
                }
                Store::Int8(pieces, factors) => {
                    let factor = factors[0][id];
                    let lines = pieces[panel.piece][first..].iter().step_by(wide);
                    let numbers = lines.map(|line| f32::from(line.0[lane]) * factor);
                    out.extend(numbers.take(self.inner));
                }
                Store::Bf16(pieces) => {
                    let lines = pieces[panel.piece][first..].iter().step_by(wide);
                    let numbers = lines.flat_map(|line| bf16::unpair(line.0[lane]));
                    out.extend(numbers.take(self.inner));
                }
            }
        }
        from_flex(tensor_of(out, [ids.len(), self.inner]))
    }
}

/// For each row its largest size over 127; 1 where that is 0.
fn factors(rows: &[f32], inner: usize) -> Vec<f32> {
    let factor = |row: &[f32]| {
        let most = row.iter().fold(0.0, |most: f32, w| most.max(w.abs()));
        if most > 0.0 { most / 127.0 } else { 1.0 }
    };
    rows.par_chunks(inner).map(factor).collect()
}

/// The panels of some outputs of a matrix, in one piece from line `first` on.
fn panels_of(part: usize, outputs: Range<usize>, deep: usize, first: &mut usize) -> Vec<Panel> {
    let mut panels = Vec::new();
    for column in outputs.clone().step_by(WIDE * LINE) {
        let panel = Panel {
            part,
            column,
            columns: (WIDE * LINE).min(outputs.end - column),
            piece: 0,
            first: *first,
        };
        *first += panel.wide() * deep;
        panels.push(panel);
    }
    panels
}

/// The lines of panels in one piece; `rows` has the rows from a panel's first output on.
fn lay_f32<'a>(
    panels: &[Panel],
    inner: usize,
    rows: impl Fn(&Panel) -> &'a [f32] + Sync,
) -> Vec<Line> {
    let count: usize = panels.iter().map(Panel::wide).sum();
    let mut lines = vec![Line([0.0; LINE]); count * inner];
    each_panel(panels, inner, &mut lines, |panel, piece| {
        let rows = rows(panel).chunks(inner).take(panel.columns);
        for (o, row) in rows.enumerate() {
            let column = piece[o / LINE..].iter_mut().step_by(panel.wide());
            for (line, w) in column.zip(row) {
                line.0[o % LINE] = *w;
            }
        }
    });
    lines
}

/// As [`lay_f32`], as whole numbers of each output's factor.
fn lay_int8<'a>(
    panels: &[Panel],
    inner: usize,
    rows: impl Fn(&Panel) -> &'a [f32] + Sync,
    factors: impl Fn(&Panel) -> &'a [f32] + Sync,
) -> Vec<ByteLine> {
    let count: usize = panels.iter().map(Panel::wide).sum();
    let mut lines = vec![ByteLine([0; LINE]); count * inner];
    each_panel(panels, inner, &mut lines, |panel, piece| {
        let rows = rows(panel).chunks(inner).take(panel.columns);
        for (o, (row, factor)) in rows.zip(factors(panel)).enumerate() {
            let column = piece[o / LINE..].iter_mut().step_by(panel.wide());
            for (line, w) in column.zip(row) {
                // At most 127 in size, but for what is not finite, which the cast cuts.
                line.0[o % LINE] = (w / factor).round_ties_even() as i8;
            }
        }
    });
    lines
}

/// As [`lay_f32`], rounded to bfloat16.
fn lay_bf16<'a>(
    panels: &[Panel],
    inner: usize,
    rows: impl Fn(&Panel) -> &'a [f32] + Sync,
) -> Vec<PairLine> {
    let count: usize = panels.iter().map(Panel::wide).sum();
    let deep = bf16::pairs(inner);
    let mut lines = vec![PairLine([0; LINE]); count * deep];
    each_panel(panels, deep, &mut lines, |panel, piece| {
        let columns = Mat::rows(rows(panel), inner).transposed();
        // SAFETY: the matrix has `panel.columns` rows of `inner` from there on.
        unsafe { bf16::lay_panel(columns, inner, panel.columns, piece) };
    });
    lines
}

/// Calls `lay` with each panel's lines.
fn each_panel<L: Send>(
    panels: &[Panel],
    deep: usize,
    lines: &mut [L],
    lay: impl Fn(&Panel, &mut [L]) + Sync,
) {
    let mut rest = lines;
    let mut pieces = Vec::with_capacity(panels.len());
    for panel in panels {
        let (piece, after) = rest.split_at_mut(panel.wide() * deep);
        pieces.push((panel, piece));
        rest = after;
    }
    pieces
        .into_par_iter()
        .for_each(|(panel, piece)| lay(panel, piece));
}

/// Lines of the panel behind in memory that are asked for while a panel is met, of those of each input:
/// arithmetic and reading then overlap.
#[derive(Clone, Copy, Debug)]
struct Ask {
    first: usize,
    count: usize,
}

#[cfg(target_arch = "x86_64")]
impl Ask {
    /// The first of the lines that input `k` asks for, counted from the panel's first asked one: each of several
    /// parts of the panel in turn.
    #[inline(always)]
    fn line(self, k: usize, inner: usize) -> usize {
        let part = inner / STREAMS;
        let input = match k < part * STREAMS {
            true => k % STREAMS * part + k / STREAMS,
            false => k,
        };
        input * self.count
    }
}

/// All rows of `x` with one panel; results are multiplied by the `factors` of its columns, if there are any.
///
/// # Safety
/// `out.at` is valid for writes at `t * out.row + o` for each row `t` of `x` and each
/// `o < out.columns`; `lines` has `inner` times as many lines as the columns fill.
unsafe fn meet<L: Weights>(x: &[f32], inner: usize, lines: &[L], factors: &[f32], out: Out) {
    let wide = out.columns.div_ceil(LINE);
    let once = x.len() <= TALL * inner;
    for (i, x) in x.chunks(TALL * inner).enumerate() {
        // Two thirds the first time that the panel is met and the rest the second, or all at once.
        let part = 2.min(wide);
        let [first, count] = match i {
            0 if once => [0, wide],
            0 => [0, part],
            1 => [part, wide - part],
            _ => [0, 0],
        };
        let ask = Ask { first, count };
        // SAFETY: the caller's promise.
        unsafe {
            let at = out.at.add(i * TALL * out.row);
            let out = Out { at, ..out };
            match wide {
                1 => tall::<1, L>(x, inner, lines, factors, ask, out),
                2 => tall::<2, L>(x, inner, lines, factors, ask, out),
                _ => tall::<WIDE, L>(x, inner, lines, factors, ask, out),
            }
        }
    }
}

/// # Safety
/// As for [`meet`], with at most [`TALL`] rows and `N` lines an input.
unsafe fn tall<const N: usize, L: Weights>(
    x: &[f32],
    inner: usize,
    lines: &[L],
    factors: &[f32],
    ask: Ask,
    out: Out,
) {
    // SAFETY: the caller's promise, with the number of rows in the type.
    unsafe {
        match x.len() / inner {
            0 => {}
            1 => tile::<1, N, L>(x, inner, lines, factors, ask, out),
            2 => tile::<2, N, L>(x, inner, lines, factors, ask, out),
            3 => tile::<3, N, L>(x, inner, lines, factors, ask, out),
            4 => tile::<4, N, L>(x, inner, lines, factors, ask, out),
            5 => tile::<5, N, L>(x, inner, lines, factors, ask, out),
            6 => tile::<6, N, L>(x, inner, lines, factors, ask, out),
            7 => tile::<7, N, L>(x, inner, lines, factors, ask, out),
            _ => tile::<TALL, N, L>(x, inner, lines, factors, ask, out),
        }
    }
}

/// # Safety
/// As for [`tall`], with `M` rows.
unsafe fn tile<const M: usize, const N: usize, L: Weights>(
    x: &[f32],
    inner: usize,
    lines: &[L],
    factors: &[f32],
    ask: Ask,
    out: Out,
) {
    assert!(x.len() >= M * inner && lines.len() >= N * inner);
    let mut sums = [[Line([0.0; LINE]); N]; M];
    #[cfg(target_arch = "x86_64")]
    // SAFETY: `level` detected the instruction sets; the lengths were checked above.
    unsafe {
        use crate::simd::{Level, level};
        match level() {
            Level::V4 => avx512::sums(x.as_ptr(), inner, lines.as_ptr(), ask, &mut sums),
            Level::V3 => avx2::sums(x.as_ptr(), inner, lines.as_ptr(), ask, &mut sums),
            Level::Base => sums_by_row(x, inner, lines, &mut sums),
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    sums_by_row(x, inner, lines, &mut sums);
    if L::IS_INT8 {
        for sums in &mut sums {
            let sums = sums.iter_mut().flat_map(|line| &mut line.0);
            for (sum, factor) in sums.zip(factors) {
                *sum *= factor;
            }
        }
    }
    for (m, sums) in sums.iter().enumerate() {
        for (j, line) in sums.iter().enumerate() {
            let count = (out.columns - j * LINE).min(LINE);
            // SAFETY: the caller's promise for `out`.
            unsafe {
                let to = out.at.add(m * out.row + j * LINE);
                if count == LINE {
                    // A length that is known is one instruction.
                    to.cast::<[f32; LINE]>().write_unaligned(line.0);
                } else {
                    std::ptr::copy_nonoverlapping(line.0.as_ptr(), to, count);
                }
            }
        }
    }
}

/// The sums of [`tile`], one row after the other: where there is no AVX2.
fn sums_by_row<const N: usize, L: Weights>(
    x: &[f32],
    inner: usize,
    lines: &[L],
    out: &mut [[Line; N]],
) {
    for (x, sums) in x.chunks(inner).zip(out) {
        for (x, lines) in x.iter().zip(lines.chunks(N)) {
            for (sum, line) in sums.iter_mut().zip(lines) {
                for (sum, w) in sum.0.iter_mut().zip(line.numbers()) {
                    *sum += x * w;
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    use super::{Ask, Line, Weights};

    /// # Safety
    /// The processor has the features; `x` has `M` rows of `inner`, `lines` `inner` times `N`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
    pub(super) unsafe fn sums<const M: usize, const N: usize, L: Weights>(
        x: *const f32,
        inner: usize,
        lines: *const L,
        ask: Ask,
        out: &mut [[Line; N]; M],
    ) {
        let mut sums = [[_mm512_setzero_ps(); N]; M];
        let next = lines.wrapping_add(inner * N + ask.first * inner);
        for k in 0..inner {
            let at = lines.wrapping_add(k * N);
            let asked = next.wrapping_add(ask.line(k, inner));
            let mut ws = [_mm512_setzero_ps(); N];
            for (j, w) in ws.iter_mut().enumerate() {
                // SAFETY: line `k * N + j` exists, and is aligned to its size.
                *w = unsafe {
                    let line = at.add(j);
                    match L::IS_INT8 {
                        false => _mm512_load_ps(line.cast()),
                        true => {
                            let bytes = _mm_load_si128(line.cast());
                            _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes))
                        }
                    }
                };
                if j < ask.count {
                    // Asking for memory ahead reads nothing.
                    _mm_prefetch::<_MM_HINT_T0>(asked.wrapping_add(j).cast());
                }
            }
            for (m, sums) in sums.iter_mut().enumerate() {
                // SAFETY: `x` has `M` rows of `inner`.
                let x = _mm512_set1_ps(unsafe { *x.add(m * inner + k) });
                for (sum, w) in sums.iter_mut().zip(&ws) {
                    *sum = _mm512_fmadd_ps(x, *w, *sum);
                }
            }
        }
        for (out, sums) in out.iter_mut().zip(&sums) {
            for (out, sum) in out.iter_mut().zip(sums) {
                // SAFETY: a line is 16 numbers, aligned.
                unsafe { _mm512_store_ps(out.0.as_mut_ptr(), *sum) };
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::{arch::x86_64::*, ops::Range};

    use super::{Ask, Line, Weights};

    /// Numbers in a register; a line is two of them.
    const LANES: usize = 8;
    /// Rows that meet one line: their sums are half of the sixteen registers.
    const ROWS: usize = 4;
    /// Inputs that all rows meet before the next: three lines each are 12 KiB, which the first cache keeps.
    const DEEP: usize = 64;

    /// # Safety
    /// The processor has the features; `x` has a row of `inner` for each of `out`, `lines` `inner` times `N`.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn sums<const N: usize, L: Weights>(
        x: *const f32,
        inner: usize,
        lines: *const L,
        ask: Ask,
        out: &mut [[Line; N]],
    ) {
        let lines = Lines {
            inner,
            at: lines,
            next: lines.wrapping_add(inner * N + ask.first * inner),
            ask,
        };
        // One row alone is not faster for asking (Zen 3).
        let asks = out.len() > 1;
        for from in (0..inner).step_by(DEEP) {
            let inputs = || from..(from + DEEP).min(inner);
            for (i, out) in out.chunks_mut(ROWS).enumerate() {
                let asks = asks && i == 0;
                // SAFETY: the caller's promise; the rows lie inside.
                unsafe {
                    let x = x.add(i * ROWS * inner);
                    match out.len() {
                        1 => lines.rows::<1, N, N>(x, inputs(), 0, asks, out),
                        2 => lines.rows::<2, N, N>(x, inputs(), 0, asks, out),
                        3 => (0..N).for_each(|j| lines.rows::<3, 1, N>(x, inputs(), j, asks, out)),
                        _ => (0..N).for_each(|j| lines.rows::<4, 1, N>(x, inputs(), j, asks, out)),
                    }
                }
            }
        }
    }

    /// Lines of weights, and those behind them that are asked for.
    struct Lines<L> {
        inner: usize,
        at: *const L,
        next: *const L,
        ask: Ask,
    }

    impl<L: Weights> Lines<L> {
        /// Adds what some inputs of `M` rows make of lines `j .. j + W` of the `N` that each input has.
        ///
        /// # Safety
        /// As for [`sums`], with `M` rows at `x` and in `out`.
        // Within `sums` the compiler keeps too much in registers at once.
        #[inline(never)]
        #[target_feature(enable = "avx2,fma")]
        unsafe fn rows<const M: usize, const W: usize, const N: usize>(
            &self,
            x: *const f32,
            inputs: Range<usize>,
            j: usize,
            asks: bool,
            out: &mut [[Line; N]],
        ) {
            let mut sums = [[[_mm256_setzero_ps(); 2]; W]; M];
            for (sums, out) in sums.iter_mut().zip(out.iter()) {
                for (sums, out) in sums.iter_mut().zip(&out[j..]) {
                    for (sum, out) in sums.iter_mut().zip(out.0.chunks(LANES)) {
                        // SAFETY: eight numbers.
                        *sum = unsafe { _mm256_loadu_ps(out.as_ptr()) };
                    }
                }
            }
            for k in inputs {
                if asks {
                    let asked = self.next.wrapping_add(self.ask.line(k, self.inner));
                    for j in j..(j + W).min(self.ask.count) {
                        // Asking for memory ahead reads nothing.
                        _mm_prefetch::<_MM_HINT_T0>(asked.wrapping_add(j).cast());
                    }
                }
                // SAFETY: the lines exist and are aligned to their size; `x` has `M` rows of `inner`.
                unsafe {
                    let at = self.at.add(k * N + j);
                    let mut xs = [_mm256_setzero_ps(); M];
                    for (m, x_m) in xs.iter_mut().enumerate() {
                        *x_m = _mm256_set1_ps(*x.add(m * self.inner + k));
                    }
                    for w in 0..W {
                        for half in 0..2 {
                            let number = match L::IS_INT8 {
                                false => _mm256_load_ps(at.add(w).cast::<f32>().add(half * LANES)),
                                true => {
                                    let bytes = at.add(w).cast::<i8>().add(half * LANES);
                                    let bytes = _mm_loadl_epi64(bytes.cast());
                                    _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes))
                                }
                            };
                            for (sums, x) in sums.iter_mut().zip(&xs) {
                                sums[w][half] = _mm256_fmadd_ps(*x, number, sums[w][half]);
                            }
                        }
                    }
                }
            }
            for (sums, out) in sums.iter().zip(out) {
                for (sums, out) in sums.iter().zip(&mut out[j..]) {
                    for (sum, out) in sums.iter().zip(out.0.chunks_mut(LANES)) {
                        // SAFETY: eight numbers.
                        unsafe { _mm256_storeu_ps(out.as_mut_ptr(), *sum) };
                    }
                }
            }
        }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use crate::simd::Level;

    fn value(i: usize) -> f32 {
        (i * 7919 % 1013) as f32 / 1013.0 - 0.5
    }

    fn bits<const N: usize>(sums: &[[Line; N]]) -> Vec<u32> {
        let numbers = sums.iter().flatten().flat_map(|line| line.0);
        numbers.map(f32::to_bits).collect()
    }

    /// Sums by each instruction set that is here, with and without asking for memory ahead.
    fn all_ways<const M: usize, const N: usize, L: Weights>(
        inner: usize,
        line: impl Fn(usize) -> L,
    ) {
        let x: Vec<f32> = (0..M * inner).map(value).collect();
        let lines: Vec<L> = (0..N * inner).map(line).collect();
        let none = [[Line([0.0; LINE]); N]; M];
        let (mut fused, mut plain) = (none, none);
        for (m, sums) in fused.iter_mut().enumerate() {
            for (i, line) in lines.iter().enumerate() {
                for (sum, w) in sums[i % N].0.iter_mut().zip(line.numbers()) {
                    *sum = x[m * inner + i / N].mul_add(w, *sum);
                }
            }
        }
        sums_by_row(&x, inner, &lines, &mut plain);
        let numbers = lines.iter().flat_map(|line| line.numbers());
        let most = numbers.fold(0.0, |most: f32, w| most.max(w.abs()));
        for (plain, fused) in plain.iter().flatten().zip(fused.iter().flatten()) {
            for (x, y) in plain.0.iter().zip(&fused.0) {
                assert!(
                    (x - y).abs() <= 1e-7 * most * inner as f32,
                    "by row: {x} {y}"
                );
            }
        }
        let level = crate::simd::level();
        for count in [N, 0] {
            let ask = Ask { first: 0, count };
            let mut found = Vec::new();
            // SAFETY: the instruction sets were detected; `x` has `M` rows, `lines` `N` for each input.
            unsafe {
                if level != Level::Base {
                    let mut sums = none;
                    avx2::sums(x.as_ptr(), inner, lines.as_ptr(), ask, &mut sums);
                    found.push(("AVX2", sums));
                }
                if level == Level::V4 {
                    let mut sums = none;
                    avx512::sums(x.as_ptr(), inner, lines.as_ptr(), ask, &mut sums);
                    found.push(("AVX-512", sums));
                }
            }
            for (name, sums) in found {
                let same = bits(&sums) == bits(&fused);
                assert!(same, "{name}: {M} rows, {N} lines, {inner} inputs");
            }
        }
    }

    #[test]
    fn every_instruction_set_gives_the_same_sums() {
        fn of<L: Weights>(line: impl Fn(usize) -> L + Copy) {
            for inner in [1, 7, 64, 131, 576] {
                all_ways::<1, 1, L>(inner, line);
                all_ways::<1, 3, L>(inner, line);
                all_ways::<2, 2, L>(inner, line);
                all_ways::<3, 3, L>(inner, line);
                all_ways::<4, 1, L>(inner, line);
                all_ways::<5, 2, L>(inner, line);
                all_ways::<6, 3, L>(inner, line);
                all_ways::<7, 2, L>(inner, line);
                all_ways::<8, 3, L>(inner, line);
            }
        }
        of(|i| Line(std::array::from_fn(|j| value(17 * i + j))));
        of(|i| ByteLine(std::array::from_fn(|j| (254.0 * value(17 * i + j)) as i8)));
    }
}
