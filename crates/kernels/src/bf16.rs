//! Matrix products of bfloat16 numbers with float32 sums.
//!
//! Numbers are rounded and laid out first: rows of the left factor one after the other, columns of the
//! right one in panels of up to 48 side by side, both with two neighbours of the inner dimension in one
//! word, which is what the processor's instructions take. Each result is a sum in a fixed order,
//! whatever else is computed beside it.

#[cfg(target_arch = "x86_64")]
mod amx;
mod layout;

use rayon::prelude::*;

use crate::{
    cpu::{Mat, Out, SharedMut},
    simd::multiversion,
};

pub(crate) use layout::{LINE, Pair, PairLine, WIDE, lay_panel, pair_rows, pairs, unpair};

/// Rows that are met at a time, where there are no tiles.
const TALL: usize = 8;
/// Pairs of the inner dimension that are met at a time: their rows fit the first cache, their panel
/// the second.
const DEEP: usize = 512;
/// Rows of a task.
const ROWS: usize = 256;
/// Below this many multiply-adds a product runs on the calling thread.
const PARALLEL: usize = 1 << 19;

/// What a product is computed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// Tiles: AMX.
    Tiles,
    /// Dot products of pairs: AVX-512 BF16.
    Dot,
    /// Both numbers of a pair as float32: AVX2, and AVX-512 without BF16.
    Fma,
    /// None of these.
    Plain,
}

impl Unit {
    /// The best that is here.
    fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            use crate::simd::{Level, level};
            if amx::is_there() {
                return Self::Tiles;
            }
            if is_x86_feature_detected!("avx512bf16") && level() == Level::V4 {
                return Self::Dot;
            }
            if level() != Level::Base {
                return Self::Fma;
            }
        }
        Self::Plain
    }
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
    let mut panels = vec![PairLine([0; LINE]); n.div_ceil(LINE) * width];
    let parallel = m * n * k >= PARALLEL;
    // Columns of the right factor, a panel at a time.
    let lay = |(i, panel): (usize, &mut [PairLine])| {
        let columns = (WIDE * LINE).min(n - i * WIDE * LINE);
        // SAFETY: the caller's promise for `rhs`; the panel has these columns.
        unsafe { lay_panel(rhs.skip_columns(i * WIDE * LINE), k, columns, panel) };
    };
    let panel_len = WIDE * width;
    let rows = if parallel {
        let lay_all = || panels.par_chunks_mut(panel_len).enumerate().for_each(lay);
        rayon::join(lay_all, || layout::rows_of(lhs, m, k)).1
    } else {
        panels.chunks_mut(panel_len).enumerate().for_each(lay);
        layout::rows_of(lhs, m, k)
    };
    let out = SharedMut(out);
    let task = |(i, panel): (usize, &[PairLine]), first_row: usize| {
        let column = i * WIDE * LINE;
        let columns = (WIDE * LINE).min(n - column);
        let count = ROWS.min(m - first_row);
        let rows = &rows[first_row * width..(first_row + count.next_multiple_of(LINE)) * width];
        let out = Out {
            at: out.at(first_row * out_row + column),
            row: out_row,
            columns,
        };
        // SAFETY: this task alone writes these rows and columns, by the caller's promise.
        unsafe { meet((rows, count), width, panel, out, accumulate) };
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

/// Rows of `width` words, `count` of them and what fills up the last line of rows, with one panel.
///
/// # Safety
/// `out.at` is valid for reads and writes at `r * out.row + c` for each row `r` and `c < out.columns`.
pub(crate) unsafe fn meet(
    rows: (&[Pair], usize),
    width: usize,
    panel: &[PairLine],
    out: Out,
    accumulate: bool,
) {
    // SAFETY: the caller's promise.
    unsafe { meet_by(Unit::best(), rows, width, panel, out, accumulate) };
}

/// # Safety
/// As for [`meet`]; the unit is there.
unsafe fn meet_by(
    unit: Unit,
    (rows, count): (&[Pair], usize),
    width: usize,
    panel: &[PairLine],
    out: Out,
    accumulate: bool,
) {
    let wide = out.columns.div_ceil(LINE);
    assert!(rows.len() >= count.next_multiple_of(LINE) * width && panel.len() >= wide * width);
    #[cfg(target_arch = "x86_64")]
    if unit == Unit::Tiles {
        // SAFETY: the caller's promise; the lengths were checked above.
        unsafe { meet_tiles((rows, count), width, panel, out, accumulate) };
        return;
    }
    for from in (0..width).step_by(DEEP) {
        let deep = DEEP.min(width - from);
        let lines = &panel[from * wide..(from + deep) * wide];
        for row in (0..count).step_by(TALL) {
            let tall = TALL.min(count - row);
            let x = &rows[row * width + from..(row + tall - 1) * width + from + deep];
            let adds = accumulate || from > 0;
            // SAFETY: the caller's promise, with the numbers of rows and lines in the type.
            unsafe {
                let at = out.at.add(row * out.row);
                let out = Out { at, ..out };
                match wide {
                    1 => high::<1>(unit, x, width, tall, lines, out, adds),
                    2 => high::<2>(unit, x, width, tall, lines, out, adds),
                    _ => high::<WIDE>(unit, x, width, tall, lines, out, adds),
                }
            }
        }
    }
}

/// # Safety
/// As for [`meet_by`].
#[cfg(target_arch = "x86_64")]
unsafe fn meet_tiles(
    (rows, count): (&[Pair], usize),
    width: usize,
    panel: &[PairLine],
    out: Out,
    accumulate: bool,
) {
    let wide = out.columns.div_ceil(LINE);
    let mut sums = amx::Sums([[[0.0; LINE]; LINE]; 2 * WIDE]);
    // SAFETY: the unit is there.
    let _tiles = unsafe { amx::Tiles::new() };
    if count <= amx::TALL {
        // The panel is met once, and tiles load lines in an order that the processor does not foresee.
        amx::ask_for(&panel[..wide * width]);
    }
    for from in (0..width).step_by(DEEP) {
        let deep = DEEP.min(width - from);
        let lines = &panel[from * wide..(from + deep) * wide];
        let adds = accumulate || from > 0;
        for row in (0..count).step_by(amx::TALL) {
            let tall = amx::TALL.min(count - row);
            let first = rows[row * width + from..].as_ptr();
            // The second sixteen rows, or the first again.
            let second = match tall > LINE {
                true => rows[(row + LINE) * width + from..].as_ptr(),
                false => first,
            };
            // SAFETY: whole lines of rows are there, of `deep` pairs, which are whole lines too; the
            // caller's promise for `out`.
            unsafe {
                let both = [first, second];
                amx::sums(both, width, lines.as_ptr(), wide, deep / LINE, &mut sums);
                let at = out.at.add(row * out.row);
                put_tiles(&sums, tall, at, out.row, out.columns, adds);
            }
        }
    }
}

/// `tall` rows, `x_row` words apart, with some pairs of a panel.
///
/// # Safety
/// As for [`meet_by`].
unsafe fn high<const N: usize>(
    unit: Unit,
    x: &[Pair],
    x_row: usize,
    tall: usize,
    lines: &[PairLine],
    out: Out,
    adds: bool,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match tall {
            1 => tile::<1, N>(unit, x, x_row, lines, out, adds),
            2 => tile::<2, N>(unit, x, x_row, lines, out, adds),
            3 => tile::<3, N>(unit, x, x_row, lines, out, adds),
            4 => tile::<4, N>(unit, x, x_row, lines, out, adds),
            5 => tile::<5, N>(unit, x, x_row, lines, out, adds),
            6 => tile::<6, N>(unit, x, x_row, lines, out, adds),
            7 => tile::<7, N>(unit, x, x_row, lines, out, adds),
            _ => tile::<TALL, N>(unit, x, x_row, lines, out, adds),
        }
    }
}

/// # Safety
/// As for [`meet_by`], with `M` rows.
unsafe fn tile<const M: usize, const N: usize>(
    unit: Unit,
    x: &[Pair],
    x_row: usize,
    lines: &[PairLine],
    out: Out,
    adds: bool,
) {
    let deep = lines.len() / N;
    assert!(x.len() >= (M - 1) * x_row + deep);
    let mut sums = [[[0.0; LINE]; N]; M];
    match unit {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the instruction set was detected; the lengths were checked above.
        Unit::Dot => unsafe {
            avx512::sums(x.as_ptr(), x_row, deep, lines.as_ptr(), &mut sums);
        },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Unit::Fma => unsafe {
            avx2::sums(x.as_ptr(), x_row, deep, lines.as_ptr(), &mut sums);
        },
        _ => {
            for (m, sums) in sums.iter_mut().enumerate() {
                row_sums(&x[m * x_row..][..deep], lines, sums);
            }
        }
    }
    for (m, sums) in sums.iter().enumerate() {
        // SAFETY: the caller's promise for `out`.
        unsafe { put(sums, out.at.add(m * out.row), out.columns, adds) };
    }
}

/// Writes the sums of a row, or adds them to what is there.
///
/// # Safety
/// `out` is valid for reads and writes of `columns` numbers; `sums` has as many.
#[inline(always)]
unsafe fn put(sums: &[[f32; LINE]], out: *mut f32, columns: usize, adds: bool) {
    let sums = &sums.as_flattened()[..columns];
    // SAFETY: the caller's promise; every number was written before where it is read.
    unsafe {
        if adds {
            for (i, sum) in sums.iter().enumerate() {
                *out.add(i) += sum;
            }
        } else {
            std::ptr::copy_nonoverlapping(sums.as_ptr(), out, columns);
        }
    }
}

#[cfg(target_arch = "x86_64")]
multiversion! {
    // Writes the sums of `tall` rows, or adds them to what is there; `out` as in `meet`.
    fn put_tiles<F>(
        sums: &amx::Sums, tall: usize, out: *mut f32, out_row: usize, columns: usize, adds: bool,
    ) {
        for j in 0..columns.div_ceil(LINE) {
            let count = LINE.min(columns - j * LINE);
            for r in 0..tall {
                let sums = &sums.0[r / LINE * WIDE + j][r % LINE];
                let to = out.wrapping_add(r * out_row + j * LINE);
                // SAFETY: the caller of `meet` promised these numbers of `out`.
                unsafe {
                    if count < LINE {
                        put(std::slice::from_ref(sums), to, count, adds);
                        continue;
                    }
                    let to = to.cast::<[f32; LINE]>();
                    let mut line = *sums;
                    if adds {
                        let there = to.read_unaligned();
                        for (x, y) in line.iter_mut().zip(&there) {
                            *x += y;
                        }
                    }
                    to.write_unaligned(line);
                }
            }
        }
    }
}

/// One row, on a processor that has none of the units.
fn row_sums<const N: usize>(x: &[Pair], lines: &[PairLine], sums: &mut [[f32; LINE]; N]) {
    for (x, lines) in x.iter().zip(lines.chunks(N)) {
        let [first, second] = unpair(*x);
        for (sum, line) in sums.iter_mut().zip(lines) {
            for (sum, w) in sum.iter_mut().zip(&line.0) {
                let [a, b] = unpair(*w);
                *sum = *sum + first * a + second * b;
            }
        }
    }
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

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::{arch::x86_64::*, ops::Range};

    use super::{LINE, Pair, PairLine};

    /// Words in a register; a line is two of them.
    const LANES: usize = 8;
    /// Rows that meet one line: their sums are half of the sixteen registers.
    const ROWS: usize = 4;
    /// Words that all rows meet before the next: three lines each are 12 KiB, which the first cache keeps.
    const PART: usize = 64;

    /// # Safety
    /// The processor has the features; `x` has a row of `deep` words for each of `out`, `x_row` apart, `lines`
    /// `deep` times `N`.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn sums<const N: usize>(
        x: *const Pair,
        x_row: usize,
        deep: usize,
        lines: *const PairLine,
        out: &mut [[[f32; LINE]; N]],
    ) {
        for from in (0..deep).step_by(PART) {
            let words = || from..(from + PART).min(deep);
            for (i, out) in out.chunks_mut(ROWS).enumerate() {
                // SAFETY: the caller's promise; the rows lie inside.
                unsafe {
                    let x = x.add(i * ROWS * x_row);
                    match out.len() {
                        1 => rows::<1, N, N>(x, x_row, words(), lines, 0, out),
                        2 => (0..N).for_each(|j| rows::<2, 1, N>(x, x_row, words(), lines, j, out)),
                        3 => (0..N).for_each(|j| rows::<3, 1, N>(x, x_row, words(), lines, j, out)),
                        _ => (0..N).for_each(|j| rows::<4, 1, N>(x, x_row, words(), lines, j, out)),
                    }
                }
            }
        }
    }

    /// Adds what some words of `M` rows make of lines `j .. j + W` of the `N` that each word has.
    ///
    /// # Safety
    /// As for [`sums`], with `M` rows at `x` and in `out`.
    // Within `sums` the compiler keeps too much in registers at once.
    #[inline(never)]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn rows<const M: usize, const W: usize, const N: usize>(
        x: *const Pair,
        x_row: usize,
        words: Range<usize>,
        lines: *const PairLine,
        j: usize,
        out: &mut [[[f32; LINE]; N]],
    ) {
        let mut sums = [[[_mm256_setzero_ps(); 2]; W]; M];
        for (sums, out) in sums.iter_mut().zip(out.iter()) {
            for (sums, out) in sums.iter_mut().zip(&out[j..]) {
                for (sum, out) in sums.iter_mut().zip(out.chunks(LANES)) {
                    // SAFETY: eight numbers.
                    *sum = unsafe { _mm256_loadu_ps(out.as_ptr()) };
                }
            }
        }
        for k in words {
            // SAFETY: lines `k * N + j ..` exist, aligned; row `m` of `x` has the word.
            unsafe {
                let at = lines.add(k * N + j).cast::<__m256i>();
                for w in 0..W {
                    let low = halves(_mm256_load_si256(at.add(2 * w)));
                    let high = halves(_mm256_load_si256(at.add(2 * w + 1)));
                    for (m, sums) in sums.iter_mut().enumerate() {
                        let word = _mm256_set1_epi32(*x.add(m * x_row + k) as i32);
                        let [first, second] = halves(word);
                        for (sum, [a, b]) in sums[w].iter_mut().zip([low, high]) {
                            *sum = _mm256_fmadd_ps(first, a, *sum);
                            *sum = _mm256_fmadd_ps(second, b, *sum);
                        }
                    }
                }
            }
        }
        for (sums, out) in sums.iter().zip(out) {
            for (sums, out) in sums.iter().zip(&mut out[j..]) {
                for (sum, out) in sums.iter().zip(out.chunks_mut(LANES)) {
                    // SAFETY: eight numbers.
                    unsafe { _mm256_storeu_ps(out.as_mut_ptr(), *sum) };
                }
            }
        }
    }

    /// The two numbers of each word, as float32.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn halves(words: __m256i) -> [__m256; 2] {
        let high = _mm256_set1_epi32(0xffff_0000_u32 as i32);
        [
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(words)),
            _mm256_castsi256_ps(_mm256_and_si256(words, high)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::{layout::rounded, *};

    fn exact(x: f32) -> f32 {
        f32::from_bits(rounded(x) << 16)
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

    /// Every unit that is here, beside sums in float64.
    #[test]
    fn every_unit_gives_the_same_products() {
        let mut units = vec![Unit::Plain];
        #[cfg(target_arch = "x86_64")]
        {
            use crate::simd::{Level, level};
            if is_x86_feature_detected!("avx512bf16") && level() == Level::V4 {
                units.push(Unit::Dot);
            }
            if level() != Level::Base {
                units.push(Unit::Fma);
            }
            if amx::is_there() {
                units.push(Unit::Tiles);
            }
        }
        let value = |i: usize| ((i * 7919 % 1013) as f32 / 1013.0 - 0.5) * 2.0;
        for [m, n, k] in [[1, 1, 1], [5, 17, 40], [16, 48, 33], [33, 40, 1100]] {
            let a: Vec<f32> = (0..m * k).map(value).collect();
            let b: Vec<f32> = (0..k * n).map(|i| value(i + 17)).collect();
            let width = pairs(k);
            let rows = pair_rows(&a, k);
            let mut panel = vec![PairLine([0; LINE]); n.div_ceil(LINE) * width];
            // SAFETY: `b` is `[k, n]`, `out` below `[m, n]`; units were detected.
            unsafe { lay_panel(Mat::rows(&b, n), k, n, &mut panel) };
            let mut plain = Vec::new();
            for unit in &units {
                let mut out = vec![1.0; m * n];
                for adds in [false, true] {
                    // SAFETY: as above.
                    unsafe {
                        let at = out.as_mut_ptr();
                        let out = Out {
                            at,
                            row: n,
                            columns: n,
                        };
                        meet_by(*unit, (&rows, m), width, &panel, out, adds);
                    }
                }
                // Products of two such numbers are exact: fusing them with the sum changes nothing.
                match unit {
                    Unit::Plain => plain = out.clone(),
                    Unit::Fma => assert_eq!(out, plain, "{m} {n} {k}"),
                    _ => {}
                }
                for (i, x) in out.iter().enumerate() {
                    let term = |p: usize| {
                        f64::from(exact(a[i / n * k + p])) * f64::from(exact(b[p * n + i % n]))
                    };
                    let y = 2.0 * (0..k).map(term).sum::<f64>();
                    assert!(
                        (f64::from(*x) - y).abs() < 1e-5 * k as f64,
                        "{unit:?} {m} {n} {k}"
                    );
                }
            }
        }
    }
}
