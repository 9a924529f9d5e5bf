//! The tensor types of ggml and their blocks.

use half::{bf16, f16};

/// How a tensor's numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(
    non_camel_case_types,
    reason = "ggml's own names, which files and people use"
)]
pub enum TensorType {
    /// Single precision.
    F32,
    /// Half precision.
    F16,
    /// The upper half of single precision.
    BF16,
    /// 8 bits and a scale for 32 numbers.
    Q8_0,
    /// 4 bits and a scale for 32 numbers.
    Q4_0,
    /// 4 bits, a scale and a minimum for 32 numbers.
    Q4_1,
    /// 5 bits and a scale for 32 numbers.
    Q5_0,
    /// 5 bits, a scale and a minimum for 32 numbers.
    Q5_1,
    /// 4 bits; 256 numbers in groups of 32 with scales and minima of 6 bits.
    Q4_K,
    /// 6 bits; 256 numbers in groups of 16 with scales of 8 bits.
    Q6_K,
}

impl TensorType {
    /// The names of all that can be read.
    pub const NAMES: &'static str = "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q6_K";

    /// The type of ggml's number.
    pub fn of(id: u32) -> Option<Self> {
        Some(match id {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            12 => Self::Q4_K,
            14 => Self::Q6_K,
            30 => Self::BF16,
            _ => return None,
        })
    }

    /// The name of ggml's number, also of a type that cannot be read.
    pub fn name_of(id: u32) -> String {
        let name = match id {
            9 => "Q8_1",
            10 => "Q2_K",
            11 => "Q3_K",
            13 => "Q5_K",
            15 => "Q8_K",
            16 => "IQ2_XXS",
            17 => "IQ2_XS",
            18 => "IQ3_XXS",
            19 => "IQ1_S",
            20 => "IQ4_NL",
            21 => "IQ3_S",
            22 => "IQ2_S",
            23 => "IQ4_XS",
            24 => "I8",
            25 => "I16",
            26 => "I32",
            27 => "I64",
            28 => "F64",
            29 => "IQ1_M",
            34 => "TQ1_0",
            35 => "TQ2_0",
            39 => "MXFP4",
            _ => {
                return match Self::of(id) {
                    Some(kind) => format!("{kind:?}"),
                    None => format!("number {id}"),
                };
            }
        };
        name.to_owned()
    }

    /// Numbers in a block, and its bytes.
    pub fn block(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::BF16 => (1, 2),
            Self::Q8_0 => (32, 34),
            Self::Q4_0 => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q5_0 => (32, 22),
            Self::Q5_1 => (32, 24),
            Self::Q4_K => (256, 144),
            Self::Q6_K => (256, 210),
        }
    }

    /// The numbers of whole blocks; bytes after the last whole block are ignored.
    pub fn dequantise(self, bytes: &[u8]) -> Vec<f32> {
        let (numbers, size) = self.block();
        let mut out = vec![0.0; bytes.len() / size * numbers];
        let pairs = bytes.chunks_exact(size).zip(out.chunks_exact_mut(numbers));
        match self {
            Self::F32 => {
                pairs.for_each(|(b, y)| y[0] = f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            }
            Self::F16 => pairs.for_each(|(b, y)| y[0] = half(b, 0)),
            Self::BF16 => {
                pairs.for_each(|(b, y)| y[0] = bf16::from_le_bytes([b[0], b[1]]).to_f32())
            }
            Self::Q8_0 => pairs.for_each(|(b, y)| {
                let scale = half(b, 0);
                for (y, q) in y.iter_mut().zip(&b[2..]) {
                    *y = scale * f32::from(*q as i8);
                }
            }),
            Self::Q4_0 => pairs.for_each(|(b, y)| {
                let scale = half(b, 0);
                fill(y, |i| scale * (f32::from(nibble(&b[2..], i)) - 8.0));
            }),
            Self::Q4_1 => pairs.for_each(|(b, y)| {
                let (scale, min) = (half(b, 0), half(b, 2));
                fill(y, |i| scale * f32::from(nibble(&b[4..], i)) + min);
            }),
            Self::Q5_0 => pairs.for_each(|(b, y)| {
                let scale = half(b, 0);
                fill(y, |i| scale * (f32::from(five(&b[2..], i)) - 16.0));
            }),
            Self::Q5_1 => pairs.for_each(|(b, y)| {
                let (scale, min) = (half(b, 0), half(b, 2));
                fill(y, |i| scale * f32::from(five(&b[4..], i)) + min);
            }),
            Self::Q4_K => pairs.for_each(|(b, y)| q4_k(b, y)),
            Self::Q6_K => pairs.for_each(|(b, y)| q6_k(b, y)),
        }
        out
    }
}

fn half(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

fn fill(out: &mut [f32], value: impl Fn(usize) -> f32) {
    for (i, y) in out.iter_mut().enumerate() {
        *y = value(i);
    }
}

/// Number `i` of 32: the low nibbles of 16 bytes, then their high ones.
fn nibble(bytes: &[u8], i: usize) -> u8 {
    (bytes[i % 16] >> (i / 16 * 4)) & 15
}

/// Number `i` of 32: the fifth bits in 4 bytes, then the nibbles.
fn five(bytes: &[u8], i: usize) -> u8 {
    nibble(&bytes[4..], i) | ((bytes[i / 8] >> (i % 8)) & 1) << 4
}

/// Two scales in half precision, 8 scales and 8 minima of 6 bits in 12 bytes, 128 bytes of which
/// each 32 hold two groups: one in the low nibbles, the next in the high ones.
fn q4_k(b: &[u8], y: &mut [f32]) {
    let (scale, min) = (half(b, 0), half(b, 2));
    let (packed, quants) = (&b[4..16], &b[16..]);
    for (group, y) in y.chunks_exact_mut(32).enumerate() {
        // The first four lie in the low 6 bits of bytes 0 to 7; of the others the low 4 bits lie
        // in bytes 8 to 11 and the high 2 above those of the first four.
        let (s, m) = if group < 4 {
            (packed[group] & 63, packed[group + 4] & 63)
        } else {
            let (low, i) = (packed[group + 4], group - 4);
            (
                low & 15 | packed[i] >> 6 << 4,
                low >> 4 | packed[i + 4] >> 6 << 4,
            )
        };
        let (s, m) = (scale * f32::from(s), min * f32::from(m));
        let shift = group % 2 * 4;
        for (y, q) in y.iter_mut().zip(&quants[group / 2 * 32..]) {
            *y = s * f32::from((q >> shift) & 15) - m;
        }
    }
}

/// 128 bytes of low nibbles, 64 bytes of high bit pairs, 16 scales of 8 bits, a scale in half
/// precision. Each half of the block has four groups of 32.
fn q6_k(b: &[u8], y: &mut [f32]) {
    let scale = half(b, 208);
    for (i, y) in y.iter_mut().enumerate() {
        let (part, group, l) = (i / 128, i / 32 % 4, i % 32);
        let low = (b[part * 64 + group % 2 * 32 + l] >> (group / 2 * 4)) & 15;
        let high = (b[128 + part * 32 + l] >> (group * 2)) & 3;
        let own = b[192 + i / 16] as i8;
        *y = scale * f32::from(own) * (f32::from(low | high << 4) - 32.0);
    }
}
