//! Training recipes and what they share. Files are the interface between stages: every stage can
//! be run alone, interrupted and resumed.

pub mod arena;
pub mod checkpoint;
pub mod cispo;
pub mod config;
pub mod data;
pub mod error;
pub mod grpo;
pub mod gspo;
pub mod kto;
pub mod lab_defaults;
pub mod memory;
pub mod metrics;
pub mod nash_md;
pub mod offline;
pub mod online;
mod online_config;
pub mod online_dpo;
pub mod optimizer;
pub mod ppo;
mod ppo_config;
pub mod preference;
mod preference_loss;
pub mod raft;
pub mod reference;
mod reference_logps;
pub mod reinforce;
pub mod reinforce_plus_plus;
pub mod remax;
pub mod reward;
pub mod reward_rankings;
pub mod reward_ratings;
pub mod reward_steps;
pub mod rlhf;
pub mod rloo;
pub mod rollout;
pub mod rso;
pub mod run_folder;
pub mod schedule;
pub mod sft;
mod stage;
pub mod stages;
pub mod xpo;

pub use error::TrainError;
pub use metrics::{Event, Observer, Row, Silent};
pub use run_folder::RunFolder;
