//! Fused tensor operations with their own backward pass.
//!
//! Each operation has a CPU form for Burn's flex backend (SIMD, multi-threaded,
//! deterministic whatever the number of threads) and, but for the cache of sampling, a form composed of Burn's
//! operations, which is the reference the others are tested against. On GPUs most have kernels, or a backward pass, of their own;
//! the rest is composed there. The public functions choose by where the tensor lives;
//! callers never name a backend.
//!
//! Sequences are *packed*: a batch of sequences of any lengths is one `[tokens, width]` matrix,
//! without padding, in which sequences may share their beginning ([`Run`]).

#![allow(unsafe_code)] // SIMD and strided products; every block says why it is sound

mod activation;
mod adamw;
mod attention;
mod bf16;
mod cpu;
mod device_memory;
mod embedding;
#[cfg(feature = "gpu")]
mod gpu;
mod kv_cache;
mod linear;
mod log_probs;
mod matmul;
mod memory;
mod op;
mod packed;
mod precision;
mod rms_norm;
mod rotary;
mod runs;
mod simd;
mod swiglu;
mod threads;
mod totals;

pub use activation::Activation;
pub use adamw::{AdamWStep, adamw_step, sum_of_squares};
pub use attention::{
    AttentionShape, SCORES_AT_ONCE, TASKS as ATTENTION_TASKS, attention,
    softmax_in_place as softmax_row,
};
pub use device_memory::{DeviceMemory, device_memory};
pub use embedding::embedding;
#[cfg(feature = "gpu")]
pub use gpu::matmul::matmul_in_units;
pub use kv_cache::KvCache;
pub use linear::{linear, linear_for_sampling, linear_in};
pub use log_probs::{KEPT_LOGITS, LOGITS_AT_ONCE, SelectedLogProbs, selected_log_probs};
pub use matmul::matmul;
pub use memory::{give_back_freed_memory, keep_freed_memory};
pub use op::is_cpu;
pub use packed::{PackedLinear, WeightFormat};
pub use precision::Precision;
pub use rms_norm::rms_norm;
pub use rotary::{RotaryTable, rotary};
pub use runs::Run;
pub use swiglu::swiglu;
pub use threads::{ThreadsAwake, compute_on_this_thread};
pub use totals::{GradientTotal, backward_into};

/// The composed forms, for parity tests and for backends without a fused form.
pub mod composed {
    pub use crate::attention::attention_composed as attention;
    pub use crate::embedding::embedding_composed as embedding;
    pub use crate::linear::linear_composed as linear;
    pub use crate::log_probs::selected_log_probs_composed as selected_log_probs;
    pub use crate::rms_norm::rms_norm_composed as rms_norm;
    pub use crate::rotary::rotary_composed as rotary;
    pub use crate::swiglu::swiglu_composed as swiglu;
}
