//! Anything that scores an answer.

mod answer_cache;
mod chat;
mod combine;
pub mod control;
pub mod critic;
pub mod judge;
mod lab;
mod model;
pub mod oracle;
mod pace;
mod rulebook;
mod rules;
mod server;
mod server_config;
pub mod server_oracle;

pub use chat::{ChatAnswer, ChatRequest};
pub use combine::{Clipped, Combine, Ensemble, Weighted};
pub use lab::LabGold;
pub use model::RewardModel;
pub use rulebook::{Rulebook, RulebookError};
pub use rules::{Contains, LengthPenalty};
pub use server::{Server, Usage};
pub use server_config::{ServerConfig, ServerError};

/// A prompt and an answer, as text and as ids.
#[derive(Clone, Copy, Debug)]
pub struct Scorable<'a> {
    /// The prompt as text, without what a chat template adds.
    pub prompt: &'a str,
    /// The prompt's ids, with what the template adds.
    pub prompt_ids: &'a [u32],
    /// The answer as text.
    pub completion: &'a str,
    /// The answer's ids, with its end token if there is one.
    pub completion_ids: &'a [u32],
}

/// A score, with the parts it is made of where there are any.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// The score; finite.
    pub value: f64,
    /// Named parts.
    pub parts: Vec<(&'static str, f64)>,
}

impl Score {
    /// A score without parts; not finite is unscorable.
    ///
    /// # Errors
    /// When the value is NaN or infinite.
    pub fn new(value: f64) -> Result<Self, Unscorable> {
        if value.is_finite() {
            Ok(Self {
                value,
                parts: Vec::new(),
            })
        } else {
            Err(Unscorable(format!("the score is {value}")))
        }
    }
}

/// Why an answer has no score. It never becomes a default score.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unscorable: {0}")]
pub struct Unscorable(pub String);

/// Scores answers: a learned model, a rule, a verifier, a judge.
pub trait Reward: Send + Sync {
    /// A name for logs and tables.
    fn name(&self) -> String;

    /// One result an answer, in order.
    fn score(&self, batch: &[Scorable<'_>]) -> Vec<Result<Score, Unscorable>>;
}
