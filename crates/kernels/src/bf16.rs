//! Matrix products of bfloat16 numbers with float32 sums.
//!
//! Numbers are rounded and laid out first: rows of the left factor one after the other, columns of the
//! right one in panels of up to 48 side by side, both with two neighbours of the inner dimension in one
//! word, which is what the processor's dot product takes. Each result is a sum in a fixed order,
//! whatever else is computed beside it.

use rayon::prelude::*;

use crate::{
    cpu::{Mat, SharedMut},
    simd::{fma, multiversion},
};

/// Two neighbours of the inner dimension: the first in the low half.
pub(crate) type Pair = u32;

/// Sixteen pairs on a cache line of their own.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct PairLine(pub(crate) [Pair; LINE]);

pub(crate) const LINE: usize = 16;
/// Lines of columns side by side.
pub(crate) const WIDE: usize = 3;
/// Rows that are met at a time.
pub(crate) const TALL: usize = 8;
/// Pairs of the inner dimension that are met at a time: their rows fit the first cache, their panel
/// the second.
const DEEP: usize = 512;
/// Rows of a task.
const ROWS: usize = 256;
/// Below this many multiply-adds a product runs on the calling thread.
const PARALLEL: usize = 1 << 19;

/// The nearest bfloat16, ties to even, as the upper half of the bits of a float32.
#[inline(always)]
pub(crate) fn rounded(x: f32) -> u32 {
    let bits = x.to_bits();
    let up = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    // Rounding up could make infinity of a NaN: keep it one.
    if x.is_nan() { (bits >> 16) | 0x40 } else { up }
}

#[inline(always)]
pub(crate) fn pair(first: f32, second: f32) -> Pair {
    rounded(first) | rounded(second) << 16
}

/// The two numbers of a pair.
#[inline(always)]
pub(crate) fn unpair(pair: Pair) -> [f32; 2] {
    [
        f32::from_bits(pair << 16),
        f32::from_bits(pair & 0xffff_0000),
    ]
}

/// Words that a row of `inner` numbers takes.
pub(crate) fn pairs(inner: usize) -> usize {
    inner.div_ceil(2)
}

multiversion! {
    // One row that lies in one piece.
    fn pair_row<F>(row: &[f32], out: &mut [Pair]) {
        let (twos, last) = row.as_chunks::<2>();
        for (two, out) in twos.iter().zip(&mut *out) {
            *out = pair(two[0], two[1]);
        }
        if let (Some(x), Some(out)) = (last.first(), out.last_mut()) {
            *out = pair(*x, 0.0);
        }
    }
}

/// Rows `[rows, inner]` that lie one after the other.
pub(crate) fn pair_rows(x: &[f32], inner: usize) -> Vec<Pair> {
    let width = pairs(inner);
    let mut out = vec![0; x.len() / inner * width];
    let task = |(row, out): (&[f32], &mut [Pair])| pair_row(row, out);
    if x.len() < 1 << 15 {
        x.chunks_exact(inner)
            .zip(out.chunks_exact_mut(width))
            .for_each(task);
    } else {
        x.par_chunks_exact(inner)
            .zip(out.par_chunks_exact_mut(width))
            .for_each(task);
    }
    out
}

/// `lhs[m, k] · rhs[k, n]`, both rounded, into `out` with the given row stride.
///
/// # Safety
/// As for [`crate::cpu::product`].
pub(crate) unsafe fn product(
    [m, n, k]: [usize; 3],
    lhs: Mat,
    rhs: Mat,
    out: *mut f32,
    out_row: usize,
    accumulate: bool,
) {
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    let width = pairs(k);
    let mut rows: Vec<Pair> = vec![0; m * width];
    let mut panels = vec![PairLine([0; LINE]); n.div_ceil(LINE) * width];
    let parallel = m * n * k >= PARALLEL;
    // Columns of the right factor, a panel at a time.
    let lay = |(i, panel): (usize, &mut [PairLine])| {
        let columns = (WIDE * LINE).min(n - i * WIDE * LINE);
        // SAFETY: the caller's promise for `rhs`; the panel has these columns.
        unsafe { lay_panel(rhs.skip_columns(i * WIDE * LINE), k, columns, panel) };
    };
    let round = |(i, rows): (usize, &mut [Pair])| {
        // SAFETY: the caller's promise for `lhs`.
        unsafe { round_rows(lhs.skip_rows(i * TALL), k, rows) };
    };
    let panel_len = WIDE * width;
    if parallel {
        rayon::join(
            || panels.par_chunks_mut(panel_len).enumerate().for_each(lay),
            || {
                rows.par_chunks_mut(TALL * width)
                    .enumerate()
                    .for_each(round)
            },
        );
    } else {
        panels.chunks_mut(panel_len).enumerate().for_each(lay);
        rows.chunks_mut(TALL * width).enumerate().for_each(round);
    }
    let out = SharedMut(out);
    let task = |(i, panel): (usize, &[PairLine]), first_row: usize| {
        let column = i * WIDE * LINE;
        let columns = (WIDE * LINE).min(n - column);
        let rows = &rows[first_row * width..(first_row + ROWS).min(m) * width];
        let out = out.at(first_row * out_row + column);
        // SAFETY: this task alone writes these rows and columns, by the caller's promise.
        unsafe { meet(rows, width, panel, out, out_row, columns, accumulate) };
    };
    if parallel {
        let firsts: Vec<usize> = (0..m).step_by(ROWS).collect();
        panels.par_chunks(panel_len).enumerate().for_each(|panel| {
            firsts.par_iter().for_each(|first| task(panel, *first));
        });
    } else {
        for panel in panels.chunks(panel_len).enumerate() {
            for first in (0..m).step_by(ROWS) {
                task(panel, first);
            }
        }
    }
}

/// # Safety
/// `rhs` has `k` rows of `columns` columns in live memory.
pub(crate) unsafe fn lay_panel(rhs: Mat, k: usize, columns: usize, panel: &mut [PairLine]) {
    let wide = columns.div_ceil(LINE);
    if rhs.col == 1 {
        for (p, lines) in panel.chunks_mut(wide).enumerate() {
            // SAFETY: rows `2 p` and, if there is one, `2 p + 1` have `columns` numbers in one piece.
            let row = |k: usize| unsafe { std::slice::from_raw_parts(rhs.at(k, 0), columns) };
            let first = row(2 * p);
            let second = if 2 * p + 1 < k { row(2 * p + 1) } else { &[] };
            lay_lines(first, second, lines);
        }
        return;
    }
    for column in 0..columns {
        let (line, lane) = (column / LINE, column % LINE);
        for p in 0..pairs(k) {
            // SAFETY: element `(2 p + i, column)` is in the matrix.
            let first = unsafe { *rhs.at(2 * p, column) };
            let second = if 2 * p + 1 < k {
                // SAFETY: as above.
                unsafe { *rhs.at(2 * p + 1, column) }
            } else {
                0.0
            };
            panel[p * wide + line].0[lane] = pair(first, second);
        }
    }
}

multiversion! {
    // One row of pairs, of two rows of numbers; the second may be missing.
    fn lay_lines<F>(first: &[f32], second: &[f32], lines: &mut [PairLine]) {
        for (i, line) in lines.iter_mut().enumerate() {
            let at = i * LINE;
            let (a, b) = (&first[at..], second.get(at..).unwrap_or(&[]));
            match (a.first_chunk::<LINE>(), b.first_chunk::<LINE>()) {
                (Some(a), Some(b)) => {
                    for l in 0..LINE {
                        line.0[l] = pair(a[l], b[l]);
                    }
                }
                _ => {
                    for (l, x) in a.iter().take(LINE).enumerate() {
                        line.0[l] = pair(*x, b.get(l).copied().unwrap_or(0.0));
                    }
                }
            }
        }
    }
}

/// # Safety
/// `lhs` has as many rows of `k` numbers as `rows` has of pairs, in live memory.
unsafe fn round_rows(lhs: Mat, k: usize, rows: &mut [Pair]) {
    let width = pairs(k);
    if lhs.col == 1 {
        for (i, out) in rows.chunks_exact_mut(width).enumerate() {
            // SAFETY: the row lies in one piece.
            pair_row(unsafe { std::slice::from_raw_parts(lhs.at(i, 0), k) }, out);
        }
        return;
    }
    let count = rows.len() / width;
    for p in 0..width {
        for i in 0..count {
            // SAFETY: elements `(i, 2 p)` and, if there is one, `(i, 2 p + 1)` are in the matrix.
            let first = unsafe { *lhs.at(i, 2 * p) };
            let second = if 2 * p + 1 < k {
                // SAFETY: as above.
                unsafe { *lhs.at(i, 2 * p + 1) }
            } else {
                0.0
            };
            rows[i * width + p] = pair(first, second);
        }
    }
}

/// Rows of `width` words with one panel of `columns` columns.
///
/// # Safety
/// `out` is valid for reads and writes at `r * out_row + c` for each row `r` and `c < columns`.
pub(crate) unsafe fn meet(
    rows: &[Pair],
    width: usize,
    panel: &[PairLine],
    out: *mut f32,
    out_row: usize,
    columns: usize,
    accumulate: bool,
) {
    let (count, wide) = (rows.len() / width, columns.div_ceil(LINE));
    for from in (0..width).step_by(DEEP) {
        let deep = DEEP.min(width - from);
        let lines = &panel[from * wide..(from + deep) * wide];
        for row in (0..count).step_by(TALL) {
            let tall = TALL.min(count - row);
            let x = &rows[row * width + from..(row + tall - 1) * width + from + deep];
            let adds = accumulate || from > 0;
            // SAFETY: the caller's promise, with the numbers of rows and lines in the type.
            unsafe {
                let out = out.add(row * out_row);
                match wide {
                    1 => high::<1>(x, width, tall, lines, out, out_row, columns, adds),
                    2 => high::<2>(x, width, tall, lines, out, out_row, columns, adds),
                    _ => high::<WIDE>(x, width, tall, lines, out, out_row, columns, adds),
                }
            }
        }
    }
}

/// `tall` rows, `x_row` words apart, with some pairs of a panel.
///
/// # Safety
/// As for [`meet`].
#[allow(clippy::too_many_arguments)]
unsafe fn high<const N: usize>(
    x: &[Pair],
    x_row: usize,
    tall: usize,
    lines: &[PairLine],
    out: *mut f32,
    out_row: usize,
    columns: usize,
    adds: bool,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match tall {
            1 => tile::<1, N>(x, x_row, lines, out, out_row, columns, adds),
            2 => tile::<2, N>(x, x_row, lines, out, out_row, columns, adds),
            3 => tile::<3, N>(x, x_row, lines, out, out_row, columns, adds),
            4 => tile::<4, N>(x, x_row, lines, out, out_row, columns, adds),
            5 => tile::<5, N>(x, x_row, lines, out, out_row, columns, adds),
            6 => tile::<6, N>(x, x_row, lines, out, out_row, columns, adds),
            7 => tile::<7, N>(x, x_row, lines, out, out_row, columns, adds),
            _ => tile::<TALL, N>(x, x_row, lines, out, out_row, columns, adds),
        }
    }
}

/// # Safety
/// As for [`meet`], with `M` rows.
unsafe fn tile<const M: usize, const N: usize>(
    x: &[Pair],
    x_row: usize,
    lines: &[PairLine],
    out: *mut f32,
    out_row: usize,
    columns: usize,
    adds: bool,
) {
    let deep = lines.len() / N;
    assert!(x.len() >= (M - 1) * x_row + deep);
    let mut sums = [[[0.0; LINE]; N]; M];
    #[cfg(target_arch = "x86_64")]
    let fast = has_dot_product();
    #[cfg(not(target_arch = "x86_64"))]
    let fast = false;
    if fast {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the instruction set was detected; the lengths were checked above.
        unsafe {
            avx512::sums(x.as_ptr(), x_row, deep, lines.as_ptr(), &mut sums);
        }
    } else {
        for (m, sums) in sums.iter_mut().enumerate() {
            row_sums(&x[m * x_row..][..deep], lines, &mut sums[..]);
        }
    }
    for (m, sums) in sums.iter().enumerate() {
        let mut left = columns;
        for (j, line) in sums.iter().enumerate() {
            let count = left.min(LINE);
            // SAFETY: the caller's promise for `out`.
            unsafe {
                let to = out.add(m * out_row + j * LINE);
                if adds {
                    for (l, sum) in line.iter().take(count).enumerate() {
                        *to.add(l) += sum;
                    }
                } else {
                    std::ptr::copy_nonoverlapping(line.as_ptr(), to, count);
                }
            }
            left -= count;
        }
    }
}

multiversion! {
    // One row, without the processor's dot product.
    fn row_sums<F>(x: &[Pair], lines: &[PairLine], sums: &mut [[f32; LINE]]) {
        let wide = sums.len();
        for (j, sum) in sums.iter_mut().enumerate() {
            for (x, line) in x.iter().zip(lines[j..].iter().step_by(wide)) {
                let [first, second] = unpair(*x);
                for (sum, w) in sum.iter_mut().zip(&line.0) {
                    let [a, b] = unpair(*w);
                    *sum = fma::<F>(second, b, fma::<F>(first, a, *sum));
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn has_dot_product() -> bool {
    is_x86_feature_detected!("avx512bf16") && crate::simd::level() == crate::simd::Level::V4
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    use super::{LINE, Pair, PairLine};

    /// Lines that are asked for ahead of their use: 4 KiB.
    const AHEAD: usize = 64;

    /// # Safety
    /// The processor has the features; `x` has `M` rows of `deep` words, `x_row` apart, `lines`
    /// `deep` times `N`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,avx2,fma")]
    pub(super) unsafe fn sums<const M: usize, const N: usize>(
        x: *const Pair,
        x_row: usize,
        deep: usize,
        lines: *const PairLine,
        out: &mut [[[f32; LINE]; N]; M],
    ) {
        let mut sums = [[_mm512_setzero_ps(); N]; M];
        for k in 0..deep {
            let at = lines.wrapping_add(k * N);
            let mut ws = [_mm512_setzero_si512(); N];
            for (j, w) in ws.iter_mut().enumerate() {
                // SAFETY: line `k * N + j` exists.
                *w = unsafe { _mm512_load_si512(at.add(j).cast()) };
                _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(AHEAD + j).cast());
            }
            for (m, sums) in sums.iter_mut().enumerate() {
                // SAFETY: row `m` of `x` has `deep` words.
                let x = _mm512_set1_epi32(unsafe { *x.add(m * x_row + k) } as i32);
                for (sum, w) in sums.iter_mut().zip(&ws) {
                    // SAFETY: both are 512 bits without a meaning of their own.
                    let (x, w) = unsafe {
                        (
                            std::mem::transmute::<__m512i, __m512bh>(x),
                            std::mem::transmute::<__m512i, __m512bh>(*w),
                        )
                    };
                    *sum = _mm512_dpbf16_ps(*sum, x, w);
                }
            }
        }
        for (out, sums) in out.iter_mut().zip(&sums) {
            for (out, sum) in out.iter_mut().zip(sums) {
                // SAFETY: a line is 16 numbers.
                unsafe { _mm512_storeu_ps(out.as_mut_ptr(), *sum) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(x: f32) -> f32 {
        f32::from_bits(rounded(x) << 16)
    }

    #[test]
    fn rounding_is_to_the_nearest_and_ties_go_to_even() {
        for (x, y) in [
            (1.0, 1.0),
            (1.0 + 1.0 / 256.0, 1.0),
            (1.0 + 3.0 / 256.0, 1.0 + 4.0 / 256.0),
            (1.0 + 1.001 / 256.0, 1.0 + 2.0 / 256.0),
            (-3.0, -3.0),
            (f32::INFINITY, f32::INFINITY),
            (f32::MAX, f32::INFINITY),
        ] {
            assert_eq!(exact(x), y, "{x}");
        }
        assert!(exact(f32::NAN).is_nan());
        assert!(exact(f32::from_bits(0x7f80_0001)).is_nan());
    }

    /// All layouts of both factors, ragged sizes, several blocks of the inner dimension.
    #[test]
    fn products_are_those_of_the_rounded_numbers() {
        let value = |i: usize| ((i * 7919 % 1013) as f32 / 1013.0 - 0.5) * 2.0;
        for [m, n, k] in [
            [1, 1, 1],
            [3, 50, 7],
            [9, 48, 64],
            [20, 97, 1031],
            [300, 33, 2050],
        ] {
            let (a, b): (Vec<f32>, Vec<f32>) = (
                (0..m * k).map(value).collect(),
                (0..k * n).map(|i| value(i + 17)).collect(),
            );
            let mut expected = vec![0.0_f64; m * n];
            for i in 0..m {
                for p in 0..k {
                    for j in 0..n {
                        expected[i * n + j] +=
                            f64::from(exact(a[i * k + p])) * f64::from(exact(b[p * n + j]));
                    }
                }
            }
            let flip = |x: &[f32], rows: usize, columns: usize| -> Vec<f32> {
                (0..columns * rows)
                    .map(|i| x[i % rows * columns + i / rows])
                    .collect()
            };
            let (a_flipped, b_flipped) = (flip(&a, m, k), flip(&b, k, n));
            for lhs in [Mat::rows(&a, k), Mat::rows(&a_flipped, m).transposed()] {
                for rhs in [Mat::rows(&b, n), Mat::rows(&b_flipped, k).transposed()] {
                    let mut out = vec![1.0; m * n];
                    for adds in [false, true] {
                        // SAFETY: `out` is `[m, n]`, the factors are alive.
                        unsafe { product([m, n, k], lhs, rhs, out.as_mut_ptr(), n, adds) };
                        let times = if adds { 2.0 } else { 1.0 };
                        for (x, y) in out.iter().zip(&expected) {
                            let off = (f64::from(*x) - times * y).abs();
                            assert!(off < 1e-5 * (k as f64), "{m} {n} {k}: {x} {y}");
                        }
                    }
                }
            }
        }
    }
}
