//! Matrix product and parallel loops on plain slices.

use rayon::prelude::*;

/// Below this many multiply-adds a product runs on the calling thread.
const PARALLEL_PRODUCT: usize = 1 << 19;
/// Rows and columns that parts of a product are multiples of: a register tile of `gemm` with AVX-512. (With AVX2 a part
/// may end in a smaller tile.)
const TILE: [usize; 2] = [6, 64];
/// Numbers of one buffer that a pointwise loop works on at a time: 16 KiB.
const NEAREST_CACHE: usize = 1 << 12;
/// Below this many elements a pointwise loop runs on the calling thread.
const PARALLEL_ELEMENTS: usize = 1 << 15;

/// A strided matrix in memory: base, row stride, column stride.
#[derive(Clone, Copy)]
pub(crate) struct Mat {
    pub(crate) base: *const f32,
    pub(crate) row: usize,
    pub(crate) col: usize,
}

// SAFETY: the parts of a product only read through it.
unsafe impl Send for Mat {}
// SAFETY: as above.
unsafe impl Sync for Mat {}

impl Mat {
    /// Row-major `[_, columns]`.
    pub(crate) fn rows(data: &[f32], columns: usize) -> Self {
        Self {
            base: data.as_ptr(),
            row: columns,
            col: 1,
        }
    }

    pub(crate) fn at(self, row: usize, column: usize) -> *const f32 {
        self.base.wrapping_add(row * self.row + column * self.col)
    }

    /// Without its first columns.
    pub(crate) fn skip_columns(self, column: usize) -> Self {
        Self {
            base: self.at(0, column),
            ..self
        }
    }

    /// Without its first rows.
    pub(crate) fn skip_rows(self, row: usize) -> Self {
        Self {
            base: self.at(row, 0),
            ..self
        }
    }

    pub(crate) fn transposed(self) -> Self {
        Self {
            base: self.base,
            row: self.col,
            col: self.row,
        }
    }
}

/// `out[m, n] (+)= scale * lhs[m, k] · rhs[k, n]`, `out` with the given row stride.
///
/// # Safety
/// The three matrices lie inside live buffers and `out` aliases neither input.
#[allow(clippy::too_many_arguments)]
pub(crate) unsafe fn product(
    [m, n, k]: [usize; 3],
    lhs: Mat,
    rhs: Mat,
    out: *mut f32,
    out_row: usize,
    accumulate: bool,
    scale: f32,
    parallel: bool,
) {
    if m == 0 || n == 0 {
        return;
    }
    let parts = if parallel && m * n * k >= PARALLEL_PRODUCT {
        rayon::current_num_threads()
    } else {
        1
    };
    let (by_rows, block) = shared_out([m, n], parts);
    let side = if by_rows { m } else { n };
    let out = SharedMut(out);
    let part = |first: usize| {
        let width = block.min(side - first);
        let (rows, columns) = if by_rows { (first, 0) } else { (0, first) };
        let (m, n) = if by_rows { (width, n) } else { (m, width) };
        // SAFETY: the caller's promise; the parts write disjoint rows or columns.
        unsafe {
            gemm::gemm(
                m,
                n,
                k,
                out.at(rows * out_row + columns),
                1,
                out_row as isize,
                accumulate,
                lhs.at(rows, 0),
                lhs.col as isize,
                lhs.row as isize,
                rhs.at(0, columns),
                rhs.col as isize,
                rhs.row as isize,
                1.0,
                scale,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
    };
    if block >= side {
        part(0);
    } else {
        let firsts = (0..side).into_par_iter().step_by(block);
        firsts.for_each(part);
    }
}

/// How the result of a product is shared out, in blocks of whole register tiles: by rows or by columns, and so many to a
/// part. `gemm`'s own threads would share out packed blocks, and wait for each other at every one.
///
/// Each thread reads all of the other factor, which is least where the longer side is cut; but where that leaves one
/// thread more to do by an eighth, the other side is.
fn shared_out([m, n]: [usize; 2], parts: usize) -> (bool, usize) {
    let [rows, columns] = TILE;
    let rows = m.div_ceil(parts).next_multiple_of(rows);
    let columns = n.div_ceil(parts).next_multiple_of(columns);
    let (most_by_rows, most_by_columns) = (rows.min(m) * n, columns.min(n) * m);
    let by_rows = match m >= n {
        true => most_by_rows <= most_by_columns + most_by_columns / 8,
        false => most_by_rows + most_by_rows / 8 < most_by_columns,
    };
    (by_rows, if by_rows { rows } else { columns })
}

/// A buffer of whole rows that `f(first_row, rows)` fills, a few rows at a time, in parallel if there are enough.
///
/// A few rows are zeroed just before they are handed out, when they are in the nearest cache: memory is
/// written once, where a zeroed buffer would be written twice, the first time by one thread.
pub(crate) fn filled_rows(
    len: usize,
    width: usize,
    f: impl Fn(usize, &mut [f32]) + Send + Sync,
) -> Vec<f32> {
    let [out] = filled_rows_of(len, width, |row, [rows]| f(row, rows));
    out
}

/// Several buffers of this size, filled side by side: see [`filled_rows`].
pub(crate) fn filled_rows_of<const N: usize>(
    len: usize,
    width: usize,
    f: impl Fn(usize, [&mut [f32]; N]) + Send + Sync,
) -> [Vec<f32>; N] {
    let mut all: [Vec<f32>; N] = std::array::from_fn(|_| Vec::with_capacity(len));
    if width == 0 || len == 0 {
        return all;
    }
    let rows = len / width;
    let at_once = (NEAREST_CACHE / N / width).max(1);
    let threads = match len < PARALLEL_ELEMENTS {
        true => 1,
        false => 4 * rayon::current_num_threads(),
    };
    let per_task = rows.div_ceil(threads).max(1);
    let starts = all.each_mut().map(|v| SharedMut(v.as_mut_ptr()));
    let task = |task: usize| {
        let (begin, end) = (task * per_task, ((task + 1) * per_task).min(rows));
        for row in (begin..end).step_by(at_once) {
            let count = at_once.min(end - row) * width;
            let parts = starts.map(|start| {
                let at = start.at(row * width);
                // SAFETY: rows `row ..` of each buffer are inside its capacity, no other task has them,
                // and they are zeros before they become a slice.
                unsafe {
                    at.write_bytes(0, count);
                    std::slice::from_raw_parts_mut(at, count)
                }
            });
            f(row, parts);
        }
    };
    let tasks = rows.div_ceil(per_task);
    match tasks {
        1 => task(0),
        _ => (0..tasks).into_par_iter().for_each(task),
    }
    for buffer in &mut all {
        // SAFETY: every whole row was written above, and `len` is a number of whole rows.
        unsafe { buffer.set_len(rows * width) };
    }
    all
}

/// Where a product's results go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Out {
    pub(crate) at: *mut f32,
    /// From a row to the next.
    pub(crate) row: usize,
    pub(crate) columns: usize,
}

/// A pointer that parallel tasks write through, each to its own places.
#[derive(Clone, Copy)]
pub(crate) struct SharedMut(pub(crate) *mut f32);

// SAFETY: tasks that hold a copy write to disjoint elements only; each use says why.
unsafe impl Send for SharedMut {}
// SAFETY: as above.
unsafe impl Sync for SharedMut {}

impl SharedMut {
    pub(crate) fn at(self, offset: usize) -> *mut f32 {
        self.0.wrapping_add(offset)
    }
}
