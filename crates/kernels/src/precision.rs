//! In what precision products are computed.

use std::{
    fmt,
    str::FromStr,
    sync::atomic::{AtomicU8, Ordering},
};

use burn::tensor::{Device, FloatDType, Tensor};

use crate::op::is_cpu;

/// The precision of products with weight matrices.
///
/// Parameters, their gradients, the optimiser's state, norms, attention, softmax, log-probabilities
/// and losses are float32 always. In a lower precision both factors of a product are rounded to it
/// (to nearest, ties to even), forward and backward; their product is float32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// float32.
    #[default]
    F32,
    /// bfloat16: 8 bits of mantissa, the range of float32.
    Bf16,
    /// float16: 11 bits of mantissa, up to 65,504. GPUs only.
    F16,
}

/// What [`Precision::of_program`] says.
static OF_PROGRAM: AtomicU8 = AtomicU8::new(0);

impl Precision {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::F32, Self::Bf16, Self::F16];

    /// The precision that models are loaded with: float32 until a program says otherwise.
    pub fn of_program() -> Self {
        Self::ALL[usize::from(OF_PROGRAM.load(Ordering::Relaxed))]
    }

    /// Sets it for models that are loaded from now on.
    pub fn use_in_program(self) {
        OF_PROGRAM.store(self as u8, Ordering::Relaxed);
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        }
    }

    /// Relative distance of 1 to the next number: a rounding is off by half of it at most.
    pub fn epsilon(self) -> f64 {
        match self {
            Self::F32 => f64::from(f32::EPSILON),
            Self::Bf16 => 2.0_f64.powi(-7),
            Self::F16 => 2.0_f64.powi(-10),
        }
    }

    /// Burn's name of it.
    pub fn dtype(self) -> FloatDType {
        match self {
            Self::F32 => FloatDType::F32,
            Self::Bf16 => FloatDType::BF16,
            Self::F16 => FloatDType::F16,
        }
    }

    /// True where a device computes products in it.
    pub fn is_of(self, device: &Device) -> bool {
        match self {
            Self::F32 => true,
            // The CPU has a form for bfloat16, and no fast one for float16.
            Self::Bf16 if is_cpu(device) => true,
            Self::F16 if is_cpu(device) => false,
            _ => device.supports_dtype(self.dtype()),
        }
    }

    /// The nearest numbers of this precision, as float32; the gradient goes through unrounded.
    pub fn round<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::F32 => x,
            _ => {
                // Burn would cast the gradient as well: what is tracked is `x` itself, and the difference is a number.
                let plain = x.clone().detach();
                let nearest = plain.clone().cast(self.dtype()).cast(FloatDType::F32);
                x + (nearest - plain)
            }
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "f32" | "float32" => Ok(Self::F32),
            "bf16" | "bfloat16" => Ok(Self::Bf16),
            "f16" | "float16" => Ok(Self::F16),
            _ => Err(format!("`{name}`: there are f32, bf16 and f16")),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, bf16, f16};

    use super::*;

    #[test]
    fn numbers_are_rounded_and_their_gradient_is_not() {
        let device = Device::flex().autodiff();
        let x =
            Tensor::<1>::from_floats([0.1, -3.337, 1e-6, 65_000.5, 0.0], &device).require_grad();
        let arrives = Tensor::<1>::from_floats([0.123_456_79, 1.000_1, -2.77, 3e-5, 7.1], &device);
        for precision in [Precision::Bf16, Precision::F16] {
            let rounded = precision.round(x.clone());
            let grads = (rounded.clone() * arrives.clone()).sum().backward();
            let bits = |x: Tensor<1>| {
                x.into_data()
                    .iter::<f32>()
                    .map(f32::to_bits)
                    .collect::<Vec<_>>()
            };
            let grad = x.grad(&grads).expect("it takes part");
            assert_eq!(bits(grad), bits(arrives.clone().inner()), "{precision}");
            let near = |x: f32| match precision {
                Precision::Bf16 => bf16::from_f32(x).to_f32(),
                _ => f16::from_f32(x).to_f32(),
            };
            let expected: Vec<u32> = x
                .to_data()
                .iter::<f32>()
                .map(|x| near(x).to_bits())
                .collect();
            assert_eq!(bits(rounded.inner()), expected, "{precision}");
        }
    }
}
