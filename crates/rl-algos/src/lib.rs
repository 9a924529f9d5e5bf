//! Objectives, advantages and controllers as pure functions of tensors.
//!
//! One file an objective; a loss takes log-probabilities `[batch]` (or `[batch, time]` with a
//! mask that is true where a token counts) and returns one unreduced value per pair, sequence or
//! token. Reduction is the caller's, through [`normalisation`]. Nothing here sees a model, a
//! tokenizer, a dataset or a file.

pub mod aot;
pub mod apo;
pub mod bco;
pub mod bradley_terry;
mod check;
pub mod cispo;
pub mod cpo;
pub mod discopop;
pub mod dpo;
pub mod error;
pub mod exo;
pub mod f_divergence;
pub mod gae;
pub mod group;
pub mod gspo;
pub mod ipo;
pub mod kl;
pub mod kto;
pub mod ld_dpo;
pub mod nash_md;
pub mod nca;
pub mod normalisation;
pub mod orpo;
pub mod pair;
pub mod plackett_luce;
pub mod ppo;
pub mod process_reward;
pub mod regression;
pub mod reinforce;
pub mod rso;
pub mod sft;
pub mod simpo;
pub mod slic;
pub mod sppo;
pub mod ties;
pub mod whiten;
pub mod wpo;
pub mod xpo;

pub use error::AlgoError;
pub use normalisation::Normalisation;
pub use pair::PairLogps;
