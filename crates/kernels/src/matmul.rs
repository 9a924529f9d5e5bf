//! Products of float32 matrices that are float32's on every device.

use burn::tensor::Tensor;

/// `a · b`, of matrices or of batches of them, with float32's precision, forward and backward.
///
/// Where a device's float32 products may round the factors to TF32's 11 bits (NVIDIA's tensor cores, as Burn uses
/// them), `a` is a sum of two, `a₁` the nearest in bfloat16, and so is `b`, and the product is
/// `a₁b₁ + a₁b₂ + a₂b`: factors are rounded by 2⁻²⁰ or less. (Tensor cores also cut off sums: of 4,096 terms one
/// was 7e-6 off on an H200. The idea is that of XLA's
/// `BF16_BF16_F32_X3`, and one of what PyTorch's `high` allows.) A factor that is infinite, or rounds to infinity in
/// bfloat16, gives NaN there.
///
/// # Shapes
/// `a` `[…, m, k]`, `b` `[…, k, n]`; the result `[…, m, n]`. What is before the last two is the same in both.
///
/// # Panics
/// When the shapes do not fit.
pub fn matmul<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> Tensor<D> {
    #[cfg(any(feature = "wgpu", feature = "cuda"))]
    if gpu::rounds(&a) {
        return gpu::matmul_in_three(a, b);
    }
    a.matmul(b)
}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
pub use gpu::matmul_in_three;

#[cfg(any(feature = "wgpu", feature = "cuda"))]
pub(crate) use gpu::Factor;

#[cfg(any(feature = "wgpu", feature = "cuda"))]
mod gpu {
    use std::sync::{Mutex, PoisonError};

    use burn::backend::DispatchDevice;
    use burn::cubecl::{prelude::Scalar, tf32};
    use burn::tensor::{Device, FloatDType, Tensor};

    use crate::{
        gpu::{GpuOp, apply, on_gpu},
        precision::Precision,
    };

    /// True where Burn's product of this and another tensor may round both to TF32: Burn tries kernels and takes the
    /// fastest, and has no switch for it.
    pub(super) fn rounds<const D: usize>(tensor: &Tensor<D>) -> bool {
        /// The devices that were asked, and what they said.
        static ASKED: Mutex<Vec<(Device, bool)>> = Mutex::new(Vec::new());
        if !on_gpu(tensor) {
            return false;
        }
        let device = tensor.device().without_autodiff();
        let mut asked = ASKED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, rounds)) = asked.iter().find(|(known, _)| *known == device) {
            return *rounds;
        }
        let rounds = match device.as_dispatch() {
            DispatchDevice::Cube(cube) => {
                let client = cube.client();
                client.properties().supports_type(tf32::elem_type_native())
            }
            _ => false,
        };
        asked.push((device, rounds));
        rounds
    }

    /// [`matmul`](super::matmul) as it is where products round to TF32, on any GPU that has bfloat16.
    pub fn matmul_in_three<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> Tensor<D> {
        apply(InThree, [a, b])
    }

    #[derive(Clone, Debug)]
    struct InThree;

    impl<const D: usize> GpuOp<2, D> for InThree {
        fn forward(&self, [a, b]: [Tensor<D>; 2]) -> Tensor<D> {
            in_three(&Factor::split(a), &Factor::split(b))
        }

        fn keeps(&self, wanted: [bool; 2]) -> [bool; 2] {
            [wanted[1], wanted[0]]
        }

        fn backward(
            &self,
            [a, b]: [Option<Tensor<D>>; 2],
            grad: Tensor<D>,
            wanted: [bool; 2],
        ) -> [Option<Tensor<D>>; 2] {
            let grad = Factor::split(grad);
            let to_a = b.filter(|_| wanted[0]);
            let to_b = a.filter(|_| wanted[1]);
            [
                to_a.map(|b| in_three(&grad, &Factor::split(b.transpose()))),
                to_b.map(|a| in_three(&Factor::split(a.transpose()), &grad)),
            ]
        }
    }

    /// A factor of several products, off autodiff: in the precision that they are computed in.
    #[derive(Clone, Debug)]
    pub(crate) enum Factor<const D: usize> {
        /// As it is.
        Whole(Tensor<D>),
        /// Itself, its nearest numbers of bfloat16, and what is left.
        Split([Tensor<D>; 3]),
        /// Rounded to 16 bits.
        Low(Tensor<D>),
    }

    impl<const D: usize> Factor<D> {
        pub(crate) fn new(precision: Precision, x: Tensor<D>) -> Self {
            match precision {
                Precision::F32 if rounds(&x) => Self::split(x),
                Precision::F32 => Self::Whole(x),
                _ => Self::Low(x.cast(precision.dtype())),
            }
        }

        fn split(x: Tensor<D>) -> Self {
            let high = x.clone().cast(FloatDType::BF16).cast(FloatDType::F32);
            Self::Split([x.clone(), high.clone(), x - high])
        }

        /// The last two dimensions exchanged.
        pub(crate) fn transpose(&self) -> Self {
            match self {
                Self::Whole(x) => Self::Whole(x.clone().transpose()),
                Self::Split(parts) => Self::Split(parts.clone().map(Tensor::transpose)),
                Self::Low(x) => Self::Low(x.clone().transpose()),
            }
        }

        /// The product with another factor of the same kind, in float32.
        pub(crate) fn product(&self, other: &Self) -> Tensor<D> {
            match (self, other) {
                (Self::Whole(a), Self::Whole(b)) => a.clone().matmul(b.clone()),
                (Self::Low(a), Self::Low(b)) => a.clone().matmul(b.clone()).cast(FloatDType::F32),
                _ => in_three(self, other),
            }
        }
    }

    fn in_three<const D: usize>(a: &Factor<D>, b: &Factor<D>) -> Tensor<D> {
        let (Factor::Split([_, a_high, a_low]), Factor::Split([b, b_high, b_low])) = (a, b) else {
            unreachable!("factors of one product are of one kind")
        };
        let [a_high, a_low] = [a_high, a_low].map(Tensor::clone);
        let [b, b_high, b_low] = [b, b_high, b_low].map(Tensor::clone);
        a_high.clone().matmul(b_high) + (a_high.matmul(b_low) + a_low.matmul(b))
    }
}
