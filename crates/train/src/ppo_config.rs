//! Configuration of the recipe `ppo`.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use togi_policy::{LoraConfig, Sampling};
use togi_rl_algos::kl::{KlController, KlEstimator};

use crate::{
    config::{
        DataSection, OptimSection, RecipeConfig, at_least_one, positive, whole_distribution, within,
    },
    error::TrainError,
    monitor::MonitorConfig,
    reference::{ReferenceUpdate, kl_limits},
    sampler::SamplerSection,
};

/// What the value model starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ValueInit {
    /// The reward model (Stiennon et al. 2020).
    RewardModel,
    /// The policy, with a head of zeros.
    ZeroHead,
}

/// Configuration of the recipe `ppo`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PpoConfig {
    /// Of prompts' order, sampling and minibatches.
    pub seed: u64,
    /// Rollout batches.
    pub max_steps: u64,
    /// Prompts, and so completions, a step.
    pub prompts_per_step: usize,
    /// Passes over each step's completions.
    pub epochs: u64,
    /// Completions an update.
    pub minibatch_size: usize,
    /// Completions that go through the model at a time.
    pub micro_batch_size: usize,
    /// Keep only what goes into each layer of the model, and run the layers again in the backward pass:
    /// less memory, about a third more work, the same gradients.
    pub gradient_checkpointing: bool,
    /// How completions are drawn. Log-probabilities are taken at the same temperature.
    pub sampling: Sampling,
    /// In what precision they are drawn.
    pub sampler: SamplerSection,
    /// Weight of the per-token KL penalty at first.
    pub kl_coef: f64,
    /// How the KL is estimated from a sample.
    pub kl_estimator: KlEstimator,
    /// How its weight moves.
    pub kl_controller: KlController,
    /// Discount.
    pub gamma: f64,
    /// Decay of the advantage estimator.
    pub gae_lambda: f64,
    /// Clip of the ratio.
    pub clip_eps: f64,
    /// Clip of the value's change.
    pub value_clip_eps: f64,
    /// Weight of the value loss.
    pub vf_coef: f64,
    /// Remove mean and scale of the advantages.
    pub whiten_advantages: bool,
    /// Remove the scale of the rewards, keeping their mean.
    pub whiten_rewards: bool,
    /// Subtracted from the score of a completion that did not end.
    pub missing_eos_penalty: f64,
    /// Scores are kept within plus and minus this; 0: not.
    pub score_clip: f64,
    /// Shift and scale scores by their running mean and deviation.
    pub normalise_scores: bool,
    /// End a step's epochs when the approximate KL to the sampling policy passes this; 0: never.
    pub target_kl: f64,
    /// Training stops when the mean KL of a step's completions passes this, in nats a sequence; 0:
    /// never.
    pub kl_budget: f64,
    /// Whether the reference stays or follows the policy.
    pub reference: ReferenceUpdate,
    /// What the value model starts from.
    pub value_init: ValueInit,
    /// The policy's optimiser.
    pub optim: OptimSection,
    /// The value model's learning rate.
    pub value_learning_rate: f64,
    /// Data.
    pub data: DataSection,
    /// What watches for reward hacking.
    pub monitor: MonitorConfig,
    /// Steps between looks at held-out prompts; 0: at the end only.
    pub eval_every: u64,
    /// Held-out prompts that are answered and scored.
    pub eval_samples: usize,
    /// Steps between checkpoints; 0: at the end only.
    pub checkpoint_every: u64,
    /// Checkpoints that are kept.
    pub keep_checkpoints: usize,
    /// Train an adapter of the policy instead of its weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
}

impl Default for PpoConfig {
    /// TRL 1.12's and the paper's where they agree.
    fn default() -> Self {
        Self {
            seed: 0,
            max_steps: 100,
            prompts_per_step: 64,
            epochs: 4,
            minibatch_size: 32,
            micro_batch_size: 8,
            gradient_checkpointing: false,
            sampler: SamplerSection::default(),
            sampling: Sampling {
                temperature: 0.7,
                ..Sampling::default()
            },
            kl_coef: 0.05,
            kl_estimator: KlEstimator::K1,
            kl_controller: KlController::Fixed,
            gamma: 1.0,
            gae_lambda: 0.95,
            clip_eps: 0.2,
            value_clip_eps: 0.2,
            vf_coef: 0.1,
            whiten_advantages: true,
            whiten_rewards: false,
            missing_eos_penalty: 1.0,
            score_clip: 0.0,
            normalise_scores: false,
            target_kl: 0.0,
            kl_budget: 0.0,
            reference: ReferenceUpdate::Frozen,
            value_init: ValueInit::RewardModel,
            optim: OptimSection {
                learning_rate: 3e-6,
                eps: 1e-5,
                ..OptimSection::default()
            },
            value_learning_rate: 3e-6,
            data: DataSection::default(),
            monitor: MonitorConfig::default(),
            eval_every: 20,
            eval_samples: 64,
            checkpoint_every: 20,
            keep_checkpoints: 2,
            lora: None,
        }
    }
}

impl RecipeConfig for PpoConfig {
    fn validate(&self) -> Result<(), TrainError> {
        at_least_one("max_steps", self.max_steps as usize)?;
        at_least_one("prompts_per_step", self.prompts_per_step)?;
        at_least_one("epochs", self.epochs as usize)?;
        at_least_one("minibatch_size", self.minibatch_size)?;
        at_least_one("micro_batch_size", self.micro_batch_size)?;
        at_least_one("eval_samples", self.eval_samples)?;
        at_least_one("keep_checkpoints", self.keep_checkpoints)?;
        whole_distribution(&self.sampling)?;
        within("kl_coef", self.kl_coef, 0.0, f64::MAX)?;
        self.kl_controller.validate(self.prompts_per_step)?;
        within("gamma", self.gamma, 0.0, 1.0)?;
        within("gae_lambda", self.gae_lambda, 0.0, 1.0)?;
        positive("clip_eps", self.clip_eps)?;
        positive("value_clip_eps", self.value_clip_eps)?;
        within("vf_coef", self.vf_coef, 0.0, f64::MAX)?;
        within(
            "missing_eos_penalty",
            self.missing_eos_penalty,
            0.0,
            f64::MAX,
        )?;
        within("score_clip", self.score_clip, 0.0, f64::MAX)?;
        within("target_kl", self.target_kl, 0.0, f64::MAX)?;
        kl_limits(self.kl_budget, &self.reference)?;
        positive("value_learning_rate", self.value_learning_rate)?;
        self.optim.validate()?;
        self.data.validate()?;
        self.monitor.validate()?;
        self.sampler.validate()?;
        self.monitor
            .keeps_enough(self.checkpoint_every, self.keep_checkpoints)?;
        if let Some(lora) = &self.lora {
            lora.validate()?;
        }
        Ok(())
    }

    fn check_device(&self, device: &Device) -> Result<(), TrainError> {
        self.sampler.check(device)
    }
}
