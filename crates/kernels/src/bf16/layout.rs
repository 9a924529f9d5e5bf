//! How factors in bfloat16 lie in memory: two neighbours of the inner dimension in a word, sixteen words in a
//! line.

use rayon::prelude::*;

use crate::{cpu::Mat, simd::multiversion};

/// Two neighbours of the inner dimension: the first in the low half.
pub(crate) type Pair = u32;

/// Sixteen pairs on a cache line of their own.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct PairLine(pub(crate) [Pair; LINE]);

pub(crate) const LINE: usize = 16;
/// Lines of columns side by side.
pub(crate) const WIDE: usize = 3;
/// The least number of numbers that are laid out by several threads.
const PARALLEL: usize = 1 << 15;

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

/// Words that a row of `inner` numbers takes: whole lines, zeros at the end.
pub(crate) fn pairs(inner: usize) -> usize {
    inner.div_ceil(2).next_multiple_of(LINE)
}

/// Rows `[rows, inner]` that lie one after the other, filled up to whole lines of rows.
pub(crate) fn pair_rows(x: &[f32], inner: usize) -> Vec<Pair> {
    rows_of(Mat::rows(x, inner), x.len() / inner, inner)
}

/// The rows of a factor, filled up to whole lines of rows.
pub(super) fn rows_of(lhs: Mat, m: usize, k: usize) -> Vec<Pair> {
    let width = pairs(k);
    let mut out = vec![0; m.next_multiple_of(LINE) * width];
    let task = |(i, out): (usize, &mut [Pair])| {
        let count = LINE.min(m - i * LINE);
        // SAFETY: callers hold `m` rows of `k` numbers.
        unsafe { round_rows(lhs.skip_rows(i * LINE), count, k, out) };
    };
    if m * k < PARALLEL {
        out.chunks_mut(LINE * width).enumerate().for_each(task);
    } else {
        out.par_chunks_mut(LINE * width).enumerate().for_each(task);
    }
    out
}

/// Up to a line of rows.
///
/// # Safety
/// `lhs` has `count` rows of `k` numbers in live memory.
unsafe fn round_rows(lhs: Mat, count: usize, k: usize, rows: &mut [Pair]) {
    let width = pairs(k);
    if lhs.col == 1 {
        for (i, out) in rows.chunks_exact_mut(width).take(count).enumerate() {
            // SAFETY: the row lies in one piece.
            pair_row(unsafe { std::slice::from_raw_parts(lhs.at(i, 0), k) }, out);
        }
        return;
    }
    let mut block = [PairLine([0; LINE]); LINE];
    for from in (0..width).step_by(LINE) {
        for (p, line) in block.iter_mut().enumerate() {
            // SAFETY: column `k` of the rows lies in one piece, or number by number, inside the matrix.
            let column = |k: usize| unsafe { numbers(lhs.at(0, k), lhs.row, count) };
            let at = 2 * (from + p);
            let second = if at + 1 < k {
                column(at + 1)
            } else {
                [0.0; LINE]
            };
            let first = if at < k { column(at) } else { [0.0; LINE] };
            pair_line(&first, &second, line);
        }
        exchange(&mut block);
        for (row, line) in rows.chunks_exact_mut(width).zip(&block).take(count) {
            row[from..from + LINE].copy_from_slice(&line.0);
        }
    }
}

/// Up to a line of numbers, `apart` from one another, and zeros.
///
/// # Safety
/// They are in live memory.
unsafe fn numbers(at: *const f32, apart: usize, count: usize) -> [f32; LINE] {
    let mut all = [0.0; LINE];
    if apart == 1 {
        // SAFETY: the caller's promise.
        unsafe { std::ptr::copy_nonoverlapping(at, all.as_mut_ptr(), count) };
    } else {
        for (i, x) in all.iter_mut().take(count).enumerate() {
            // SAFETY: the caller's promise.
            *x = unsafe { *at.add(i * apart) };
        }
    }
    all
}

/// A panel: `columns` columns of the right factor, line after line of pairs.
///
/// # Safety
/// `rhs` has `k` rows of `columns` columns in live memory.
pub(crate) unsafe fn lay_panel(rhs: Mat, k: usize, columns: usize, panel: &mut [PairLine]) {
    let wide = columns.div_ceil(LINE);
    if rhs.col == 1 {
        for (p, lines) in panel.chunks_mut(wide).enumerate() {
            // SAFETY: rows `2 p` and `2 p + 1`, where there are, have `columns` numbers in one piece.
            let row = |k: usize| unsafe { std::slice::from_raw_parts(rhs.at(k, 0), columns) };
            let first = if 2 * p < k { row(2 * p) } else { &[] };
            let second = if 2 * p + 1 < k { row(2 * p + 1) } else { &[] };
            lay_lines(first, second, lines);
        }
        return;
    }
    let mut block = [PairLine([0; LINE]); LINE];
    for j in 0..wide {
        let count = LINE.min(columns - j * LINE);
        for from in (0..pairs(k)).step_by(LINE) {
            for (c, line) in block.iter_mut().enumerate() {
                let some = k.saturating_sub(2 * from).min(2 * LINE);
                if c < count && some == 2 * LINE && rhs.row == 1 {
                    // SAFETY: the column's numbers lie in one piece.
                    let column =
                        unsafe { std::slice::from_raw_parts(rhs.at(2 * from, j * LINE + c), some) };
                    pair_row(column, &mut line.0);
                    continue;
                }
                line.0 = [0; LINE];
                if c < count {
                    for (p, out) in line.0.iter_mut().enumerate().take(some.div_ceil(2)) {
                        let at = 2 * (from + p);
                        // SAFETY: elements `at` and, if there is one, `at + 1` are in the matrix.
                        let of = |k: usize| unsafe { *rhs.at(k, j * LINE + c) };
                        *out = pair(of(at), if at + 1 < k { of(at + 1) } else { 0.0 });
                    }
                }
            }
            exchange(&mut block);
            for (i, line) in block.iter().enumerate() {
                panel[(from + i) * wide + j] = *line;
            }
        }
    }
}

multiversion! {
    // One row that lies in one piece; what is left of `out` stays as it is.
    fn pair_row<F>(row: &[f32], out: &mut [Pair]) {
        let (lines, rest) = row.as_chunks::<{ 2 * LINE }>();
        let (outs, _) = out.as_chunks_mut::<LINE>();
        for (line, out) in lines.iter().zip(outs) {
            for i in 0..LINE {
                out[i] = pair(line[2 * i], line[2 * i + 1]);
            }
        }
        let out = &mut out[lines.len() * LINE..];
        let (twos, last) = rest.as_chunks::<2>();
        for (two, out) in twos.iter().zip(&mut *out) {
            *out = pair(two[0], two[1]);
        }
        if let (Some(x), Some(out)) = (last.first(), out.get_mut(twos.len())) {
            *out = pair(*x, 0.0);
        }
    }
}

multiversion! {
    fn pair_line<F>(first: &[f32; LINE], second: &[f32; LINE], line: &mut PairLine) {
        for i in 0..LINE {
            line.0[i] = pair(first[i], second[i]);
        }
    }
}

multiversion! {
    // One row of pairs, of two rows of numbers; either may be missing.
    fn lay_lines<F>(first: &[f32], second: &[f32], lines: &mut [PairLine]) {
        for (i, line) in lines.iter_mut().enumerate() {
            let at = i * LINE;
            let (a, b) = (first.get(at..).unwrap_or(&[]), second.get(at..).unwrap_or(&[]));
            match (a.first_chunk::<LINE>(), b.first_chunk::<LINE>()) {
                (Some(a), Some(b)) => {
                    for l in 0..LINE {
                        line.0[l] = pair(a[l], b[l]);
                    }
                }
                _ => {
                    line.0 = [0; LINE];
                    for (l, x) in a.iter().take(LINE).enumerate() {
                        line.0[l] = pair(*x, b.get(l).copied().unwrap_or(0.0));
                    }
                }
            }
        }
    }
}

/// Exchanges rows and columns of sixteen lines.
fn exchange(block: &mut [PairLine; LINE]) {
    #[cfg(target_arch = "x86_64")]
    if crate::simd::level() == crate::simd::Level::V4 {
        // SAFETY: `level` detected the instruction set.
        unsafe { avx512::exchange(block) };
        return;
    }
    for i in 0..LINE {
        for j in 0..i {
            let (a, b) = (block[i].0[j], block[j].0[i]);
            (block[i].0[j], block[j].0[i]) = (b, a);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    use super::{LINE, PairLine};

    /// In two steps of unpacking, groups of four lines become columns in each quarter of a register; two
    /// shuffles bring the quarters together.
    ///
    /// # Safety
    /// The processor has the features.
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
    pub(super) unsafe fn exchange(block: &mut [PairLine; LINE]) {
        // SAFETY: a line is 64 aligned bytes.
        let row = block
            .each_ref()
            .map(|line| unsafe { _mm512_load_si512(line.0.as_ptr().cast()) });
        let mut quads = [_mm512_setzero_si512(); LINE];
        for (rows, quads) in row.chunks_exact(4).zip(quads.chunks_exact_mut(4)) {
            let low = _mm512_unpacklo_epi32(rows[0], rows[1]);
            let high = _mm512_unpackhi_epi32(rows[0], rows[1]);
            let low2 = _mm512_unpacklo_epi32(rows[2], rows[3]);
            let high2 = _mm512_unpackhi_epi32(rows[2], rows[3]);
            quads[0] = _mm512_unpacklo_epi64(low, low2);
            quads[1] = _mm512_unpackhi_epi64(low, low2);
            quads[2] = _mm512_unpacklo_epi64(high, high2);
            quads[3] = _mm512_unpackhi_epi64(high, high2);
        }
        for c in 0..4 {
            // Quarter `q` of `quads[4 g + c]` is column `4 q + c` of rows `4 g ..`.
            let [a, b, d, e] = [quads[c], quads[4 + c], quads[8 + c], quads[12 + c]];
            let even = _mm512_shuffle_i32x4::<0x88>(a, b);
            let odd = _mm512_shuffle_i32x4::<0xdd>(a, b);
            let even2 = _mm512_shuffle_i32x4::<0x88>(d, e);
            let odd2 = _mm512_shuffle_i32x4::<0xdd>(d, e);
            let columns = [
                (c, _mm512_shuffle_i32x4::<0x88>(even, even2)),
                (c + 8, _mm512_shuffle_i32x4::<0xdd>(even, even2)),
                (c + 4, _mm512_shuffle_i32x4::<0x88>(odd, odd2)),
                (c + 12, _mm512_shuffle_i32x4::<0xdd>(odd, odd2)),
            ];
            for (at, column) in columns {
                // SAFETY: as above.
                unsafe { _mm512_store_si512(block[at].0.as_mut_ptr().cast(), column) };
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

    #[test]
    fn rows_and_columns_are_exchanged() {
        let number = |i: usize, j: usize| (i * LINE + j) as u32;
        let line = |i: usize| PairLine(std::array::from_fn(|j| number(i, j)));
        let mut block: [PairLine; LINE] = std::array::from_fn(line);
        exchange(&mut block);
        for (i, line) in block.iter().enumerate() {
            let expected: [u32; LINE] = std::array::from_fn(|j| number(j, i));
            assert_eq!(line.0, expected, "{i}");
        }
    }
}
