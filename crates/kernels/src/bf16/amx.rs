//! Products on the processor's tiles (AMX): sixteen rows with sixteen columns in one instruction.

use std::{
    arch::{asm, x86_64::__cpuid_count},
    sync::OnceLock,
};

use super::layout::{LINE, Pair, PairLine, WIDE};
use crate::simd::STREAMS;

/// Rows that are met at a time.
pub(super) const TALL: usize = 2 * LINE;

/// Sums of [`TALL`] rows with a panel, a tile after the other: those of the first sixteen rows first.
#[repr(C, align(64))]
pub(super) struct Sums(pub(super) [[[f32; LINE]; LINE]; 2 * WIDE]);

/// True where there are tiles of bfloat16; asks the system for them the first time.
pub(super) fn is_there() -> bool {
    static THERE: OnceLock<bool> = OnceLock::new();
    *THERE.get_or_init(|| has_instructions() && is_permitted())
}

fn has_instructions() -> bool {
    if crate::simd::level() != crate::simd::Level::V4 {
        return false;
    }
    const BF16: u32 = 1 << 22;
    const TILE: u32 = 1 << 24;
    // A processor with AVX-512 has this leaf.
    let found = __cpuid_count(7, 0).edx;
    found & BF16 != 0 && found & TILE != 0
}

/// Tiles are 8 KiB of state a thread, which Linux saves for a process that asks for it.
fn is_permitted() -> bool {
    #[cfg(target_os = "linux")]
    {
        use std::ffi::c_long;
        unsafe extern "C" {
            fn syscall(number: c_long, ...) -> c_long;
        }
        const ARCH_PRCTL: c_long = 158;
        const REQUEST_PERMISSION: c_long = 0x1023;
        const TILE_DATA: c_long = 18;
        // SAFETY: the call reads no memory; a system that does not know it refuses.
        unsafe { syscall(ARCH_PRCTL, REQUEST_PERMISSION, TILE_DATA) == 0 }
    }
    #[cfg(not(target_os = "linux"))]
    false
}

/// While this lives, the thread's tiles are sixteen rows of 64 bytes.
pub(super) struct Tiles;

#[repr(C, align(64))]
struct Shape([u8; 64]);

/// Palette 1; bytes of a row of each of eight tiles, and rows.
const SHAPE: Shape = {
    let mut bytes = [0; 64];
    bytes[0] = 1;
    let mut tile = 0;
    while tile < 8 {
        bytes[16 + 2 * tile] = 64;
        bytes[48 + tile] = LINE as u8;
        tile += 1;
    }
    Shape(bytes)
};

impl Tiles {
    /// # Safety
    /// [`is_there`].
    pub(super) unsafe fn new() -> Self {
        // SAFETY: the shape is valid; the processor has the instruction.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &SHAPE, options(nostack, readonly)) };
        Self
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

/// The sums of `wide` columns of tiles: instructions of each are given, and what is around them is shared.
macro_rules! sums_of {
    ($name:ident, [$($zero:literal)*], [$($step:literal)*], [$($store:literal)*]) => {
        /// # Safety
        /// As for [`sums`].
        unsafe fn $name(
            [a, a2]: [*const Pair; 2],
            a_row: usize,
            b: *const PairLine,
            b_row: usize,
            steps: usize,
            out: *mut Sums,
        ) {
            // SAFETY: the caller's promise.
            unsafe {
                asm!(
                    $($zero,)*
                    "2:",
                    $($step,)*
                    "add {a}, 64",
                    "add {a2}, 64",
                    "add {b}, {b_step}",
                    "dec {steps}",
                    "jnz 2b",
                    $($store,)*
                    a = inout(reg) a => _,
                    a2 = inout(reg) a2 => _,
                    ar = in(reg) a_row,
                    b = inout(reg) b => _,
                    br = in(reg) b_row,
                    b_step = in(reg) LINE * b_row,
                    steps = inout(reg) steps => _,
                    out = in(reg) out,
                    or = in(reg) 64_usize,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    };
}

sums_of!(
    sums_of_3,
    ["tilezero tmm0" "tilezero tmm1" "tilezero tmm2" "tilezero tmm3" "tilezero tmm4" "tilezero tmm5"],
    [
        "tileloadd tmm6, [{b} + {br}*1]"
        "tileloadd tmm7, [{a} + {ar}*1]"
        "tdpbf16ps tmm0, tmm7, tmm6"
        "tileloadd tmm7, [{a2} + {ar}*1]"
        "tdpbf16ps tmm3, tmm7, tmm6"
        "tileloadd tmm6, [{b} + {br}*1 + 64]"
        "tdpbf16ps tmm4, tmm7, tmm6"
        "tileloadd tmm7, [{a} + {ar}*1]"
        "tdpbf16ps tmm1, tmm7, tmm6"
        "tileloadd tmm6, [{b} + {br}*1 + 128]"
        "tdpbf16ps tmm2, tmm7, tmm6"
        "tileloadd tmm7, [{a2} + {ar}*1]"
        "tdpbf16ps tmm5, tmm7, tmm6"
    ],
    [
        "tilestored [{out} + {or}*1], tmm0"
        "tilestored [{out} + {or}*1 + 1024], tmm1"
        "tilestored [{out} + {or}*1 + 2048], tmm2"
        "tilestored [{out} + {or}*1 + 3072], tmm3"
        "tilestored [{out} + {or}*1 + 4096], tmm4"
        "tilestored [{out} + {or}*1 + 5120], tmm5"
    ]
);

sums_of!(
    sums_of_2,
    ["tilezero tmm0" "tilezero tmm1" "tilezero tmm3" "tilezero tmm4"],
    [
        "tileloadd tmm6, [{b} + {br}*1]"
        "tileloadd tmm7, [{a} + {ar}*1]"
        "tileloadd tmm5, [{b} + {br}*1 + 64]"
        "tdpbf16ps tmm0, tmm7, tmm6"
        "tdpbf16ps tmm1, tmm7, tmm5"
        "tileloadd tmm7, [{a2} + {ar}*1]"
        "tdpbf16ps tmm3, tmm7, tmm6"
        "tdpbf16ps tmm4, tmm7, tmm5"
    ],
    [
        "tilestored [{out} + {or}*1], tmm0"
        "tilestored [{out} + {or}*1 + 1024], tmm1"
        "tilestored [{out} + {or}*1 + 3072], tmm3"
        "tilestored [{out} + {or}*1 + 4096], tmm4"
    ]
);

sums_of!(
    sums_of_1,
    ["tilezero tmm0" "tilezero tmm3"],
    [
        "tileloadd tmm6, [{b} + {br}*1]"
        "tileloadd tmm7, [{a} + {ar}*1]"
        "tdpbf16ps tmm0, tmm7, tmm6"
        "tileloadd tmm5, [{a2} + {ar}*1]"
        "tdpbf16ps tmm3, tmm5, tmm6"
    ],
    [
        "tilestored [{out} + {or}*1], tmm0"
        "tilestored [{out} + {or}*1 + 3072], tmm3"
    ]
);

/// Asks for lines, some parts of them side by side.
pub(super) fn ask_for(lines: &[PairLine]) {
    use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};

    let part = lines.len().div_ceil(STREAMS);
    for i in 0..part {
        for line in lines[i..].iter().step_by(part) {
            // SAFETY: asking for memory reads nothing.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(std::ptr::from_ref(line).cast()) };
        }
    }
}

/// Sixteen rows from each `a` on, `a_row` pairs apart, with `wide` lines of a panel each pair.
///
/// # Safety
/// A [`Tiles`] lives on this thread; each row of `a` has `16 steps` pairs and the panel `16 steps wide` lines;
/// `steps` is at least 1, `wide` 1 to 3.
pub(super) unsafe fn sums(
    a: [*const Pair; 2],
    a_row: usize,
    lines: *const PairLine,
    wide: usize,
    steps: usize,
    out: &mut Sums,
) {
    let (a_row, b_row) = (a_row * size_of::<Pair>(), wide * size_of::<PairLine>());
    // SAFETY: the caller's promise.
    unsafe {
        match wide {
            1 => sums_of_1(a, a_row, lines, b_row, steps, out),
            2 => sums_of_2(a, a_row, lines, b_row, steps, out),
            _ => sums_of_3(a, a_row, lines, b_row, steps, out),
        }
    }
}
