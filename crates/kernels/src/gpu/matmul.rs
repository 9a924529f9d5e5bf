//! Products that are float32's on every GPU: of float32 matrices, and of others whose sums are float32.

use std::sync::{Mutex, PoisonError};

use burn::backend::{DispatchDevice, cubecl::dtype_to_storage_type};
use burn::cubecl::tf32;
use burn::tensor::{DType, Device, Shape, Tensor};
use burn_cubecl::{
    CubeTuneId,
    kernel::{self, matmul::MatmulStrategy},
    ops::numeric::{empty_device_contiguous_dtype, zeros_client},
    tensor::CubeTensor,
};
use cubecl::{
    prelude::*,
    tune::{LocalTuner, Tunable, TunableSet, local_tuner},
};
use cubek::{
    matmul::{
        definition::{MatmulElems, MatmulGlobalElems},
        multi_level::{
            Strategy,
            routines::{
                TileSizeSelection,
                batch::{
                    double_unit::DoubleUnitSelectionArgs, simple_unit::SimpleUnitSelectionArgs,
                },
                gemm::GemmStrategy,
            },
        },
        routine::BlueprintStrategy,
        tune_key::MatmulAutotuneKey,
    },
    std::InputBinding,
};

use super::{
    GpuOp, apply, extension,
    launch::{empty, zeros},
    on_gpu,
};
use crate::precision::Precision;

/// True where Burn's product of this and another tensor may round both to TF32: it takes tensor cores where they are, and
/// has no switch for that.
pub(crate) fn rounds<const D: usize>(tensor: &Tensor<D>) -> bool {
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

/// Left factor, right factor, and where the product goes.
type Operands = (CubeTensor, CubeTensor, CubeTensor);

/// Kernels that multiply and add in float32, none on tensor cores. On an H200 each was the fastest of some shape.
fn strategies() -> [Strategy; 5] {
    let simple = |tile_size| {
        Strategy::SimpleUnit(BlueprintStrategy::Inferred(SimpleUnitSelectionArgs {
            tile_size,
        }))
    };
    let double = |tile_size| {
        Strategy::DoubleUnit(BlueprintStrategy::Inferred(DoubleUnitSelectionArgs {
            tile_size,
        }))
    };
    [
        simple(TileSizeSelection::MaxTileSize),
        simple(TileSizeSelection::MinTileSize),
        double(TileSizeSelection::MaxTileSize),
        double(TileSizeSelection::MinTileSize),
        Strategy::Gemm(BlueprintStrategy::Inferred(GemmStrategy {
            target_num_planes: None,
        })),
    ]
}

/// Runs a kernel, or where it refuses the operands the first of them, which takes all: the key of what was tried out is
/// rounded, and [`Strategy::Gemm`] wants more of the inner size than that says.
fn launch(strategy: &Strategy, operands: Operands) -> Result<(), String> {
    launch_only(strategy, operands.clone()).or_else(|_| launch_only(&strategies()[0], operands))
}

fn launch_only(strategy: &Strategy, (a, b, out): Operands) -> Result<(), String> {
    let inner = a.meta.shape()[a.meta.num_dims() - 1];
    let plane = out.client.properties().hardware.plane_size_max as usize;
    if matches!(strategy, Strategy::Gemm(_)) && !inner.is_multiple_of(plane.max(1)) {
        // It would say so itself, after it had copied both factors.
        return Err(format!(
            "an inner size of {inner} is cut by planes of {plane}"
        ));
    }
    let dtype = dtype_to_storage_type(out.dtype);
    let mut elements = MatmulElems::from_globals(&MatmulGlobalElems {
        lhs: dtype,
        rhs: dtype,
        out: dtype,
    });
    let client = out.client.clone();
    let of = |x: CubeTensor| InputBinding::new(x.binding(), dtype);
    let strategy = strategy.clone().into();
    let out = out.binding();
    cubek::matmul::launch::launch_ref(&strategy, &client, of(a), of(b), out, &mut elements)
        .map_err(|error| format!("{error:?}"))
}

fn key((a, b, out): &Operands) -> MatmulAutotuneKey {
    let dtype = dtype_to_storage_type(out.dtype);
    let (a, b, client) = (&a.meta, &b.meta, &a.client);
    MatmulAutotuneKey::generate(
        client,
        a.shape(),
        b.shape(),
        a.strides(),
        b.strides(),
        a.tiling,
        b.tiling,
        dtype,
        dtype,
        dtype,
        None,
        None,
    )
}

/// The shape of a product.
pub(super) fn shape_of(a: &Shape, b: &Shape) -> Shape {
    let mut shape = a.clone();
    let last = shape.num_dims() - 1;
    shape[last] = b[last];
    shape
}

/// `a · b`, `[…, m, k]` and `[…, k, n]`, by the kernel that was the fastest when a product like it was first made.
pub(super) fn product(a: CubeTensor, b: CubeTensor) -> CubeTensor {
    static TUNER: LocalTuner<MatmulAutotuneKey, CubeTuneId> = local_tuner!();
    let inner = a.meta.shape()[a.meta.num_dims() - 1];
    let out = empty(&a, shape_of(a.meta.shape(), b.meta.shape()));
    if out.meta.num_elements() == 0 {
        return out;
    }
    if inner == 0 {
        return zeros(&out, out.meta.shape().clone());
    }
    let (client, id) = (
        out.client.clone(),
        CubeTuneId::new(&out.client, &out.device),
    );
    let tunables = TUNER.init(&id, || {
        let inputs =
            |_: &MatmulAutotuneKey, (a, b, out): &Operands| (a.clone(), b.clone(), out.copy());
        let mut set = TunableSet::new(key, inputs);
        for strategy in strategies() {
            let name = strategy.to_string();
            set = set.with(Tunable::new(&name, move |operands| {
                launch(&strategy, operands)
            }));
        }
        set
    });
    TUNER.execute(&id, &client, tunables, (a, b, out.clone()));
    out
}

/// `a · b` of matrices in a lower precision, in float32: sums are not rounded.
pub(super) fn widened(a: CubeTensor, b: CubeTensor) -> CubeTensor {
    let shape = shape_of(a.meta.shape(), b.meta.shape());
    let inner = a.meta.shape()[a.meta.num_dims() - 1];
    let (client, device) = (a.client.clone(), a.device.clone());
    if inner == 0 {
        return zeros_client(client, device, shape, DType::F32);
    }
    let out = empty_device_contiguous_dtype(client, device, shape, DType::F32);
    kernel::matmul::matmul(a, b, Some(out), MatmulStrategy::default(), DType::F32)
        .expect("some kernel takes all matrices")
}

/// [`matmul`](crate::matmul()) as it is where products round to TF32, on any GPU.
pub fn matmul_in_units<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> Tensor<D> {
    apply(InUnits, [a, b])
}

#[derive(Clone, Debug)]
struct InUnits;

impl<const D: usize> GpuOp<2, D> for InUnits {
    fn forward(&self, [a, b]: [Tensor<D>; 2]) -> Tensor<D> {
        extension::matmul(a, b)
    }

    fn keeps(&self, wanted: [bool; 2]) -> [bool; 2] {
        [wanted[1], wanted[0]]
    }

    fn backward(
        &self,
        [a, b]: [Option<Tensor<D>>; 2],
        grad: Tensor<D>,
        _: [bool; 2],
    ) -> [Option<Tensor<D>>; 2] {
        [
            b.map(|b| extension::matmul(grad.clone(), b.transpose())),
            a.map(|a| extension::matmul(a.transpose(), grad)),
        ]
    }
}

/// A factor of several products, off autodiff: rounded to the precision that they are computed in, once.
#[derive(Clone, Debug)]
pub(crate) struct Factor<const D: usize>(Tensor<D>);

impl<const D: usize> Factor<D> {
    pub(crate) fn new(precision: Precision, x: Tensor<D>) -> Self {
        match precision {
            Precision::F32 => Self(x),
            _ => Self(x.cast(precision.dtype())),
        }
    }

    /// The last two dimensions exchanged.
    pub(crate) fn transpose(&self) -> Self {
        Self(self.0.clone().transpose())
    }

    /// The product with another factor of the same precision, in float32.
    pub(crate) fn product(&self, other: &Self) -> Tensor<D> {
        let (a, b) = (self.0.clone(), other.0.clone());
        if rounds(&a) {
            return extension::matmul(a, b);
        }
        match a.dtype() {
            DType::F32 => a.matmul(b),
            _ => extension::widened(a, b),
        }
    }
}
