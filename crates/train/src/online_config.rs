//! Configuration of the online recipes.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use togi_policy::{LoraConfig, Sampling};
use togi_rl_algos::kl::{KlController, KlEstimator};

use crate::{
    config::{DataSection, OptimSection, RecipeConfig, at_least_one, whole_distribution, within},
    error::TrainError,
    monitor::MonitorConfig,
    online::OnlineAlgorithm,
    reference::{ReferenceUpdate, kl_limits},
    sampler::SamplerSection,
};

/// Where the KL to the reference acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KlPlace {
    /// It is subtracted from the reward: advantages see it, no gradient flows through it.
    Reward,
    /// It is added to the loss. Of k1 that has no gradient in expectation, k2's is that of the KL,
    /// k3's is that of the forward KL.
    Loss,
    /// It is added to the loss times the ratio, whose gradient is that of the KL whatever the
    /// estimator (DeepSeek-V3.2; TRL's default).
    LossTimesRatio,
}

/// Configuration of an online recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, bound = "A: OnlineAlgorithm")]
pub struct OnlineConfig<A: OnlineAlgorithm> {
    /// Of prompts' order, sampling and minibatches.
    pub seed: u64,
    /// Rollout batches.
    pub max_steps: u64,
    /// Prompts a step.
    pub prompts_per_step: usize,
    /// Completions of each prompt.
    pub completions_per_prompt: usize,
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
    /// Subtracted from the score of a completion that did not end.
    pub missing_eos_penalty: f64,
    /// The last tokens before `max_new_tokens` over which the score falls by 1 in a line (DAPO's soft
    /// overlong punishment); 0: it does not.
    pub overlong_buffer: usize,
    /// Further batches of prompts that may be drawn to replace prompts whose completions all score the
    /// same (DAPO's dynamic sampling); 0: none.
    pub dynamic_sampling: u64,
    /// Weight of the KL to the reference at first.
    pub kl_coef: f64,
    /// Where it acts.
    pub kl_place: KlPlace,
    /// How the KL is estimated from a sample.
    pub kl_estimator: KlEstimator,
    /// How its weight moves.
    pub kl_controller: KlController,
    /// Training stops when the mean KL of a step's completions passes this, in nats a sequence; 0:
    /// never.
    pub kl_budget: f64,
    /// End a step's epochs when the approximate KL to the sampling policy passes this; 0: never.
    pub target_kl: f64,
    /// Whether the reference stays or follows the policy.
    pub reference: ReferenceUpdate,
    /// The method's own fields.
    pub algorithm: A,
    /// The policy's optimiser.
    pub optim: OptimSection,
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

impl<A: OnlineAlgorithm> OnlineConfig<A> {
    /// What the recipes share: groups of 8 and one pass, as TRL's GRPO, and no KL term.
    pub(crate) fn shared() -> Self {
        Self {
            seed: 0,
            max_steps: 100,
            prompts_per_step: 8,
            completions_per_prompt: 8,
            epochs: 1,
            minibatch_size: 64,
            micro_batch_size: 8,
            gradient_checkpointing: false,
            sampling: Sampling::default(),
            sampler: SamplerSection::default(),
            missing_eos_penalty: 0.0,
            overlong_buffer: 0,
            dynamic_sampling: 0,
            kl_coef: 0.0,
            kl_place: KlPlace::LossTimesRatio,
            kl_estimator: KlEstimator::K3,
            kl_controller: KlController::Fixed,
            kl_budget: 0.0,
            target_kl: 0.0,
            reference: ReferenceUpdate::Frozen,
            algorithm: A::default(),
            optim: OptimSection {
                learning_rate: 1e-6,
                ..OptimSection::default()
            },
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

/// What several recipes' defaults have in common.
impl<A: OnlineAlgorithm> OnlineConfig<A> {
    /// One completion of each of 64 prompts.
    pub(crate) fn single(self) -> Self {
        Self {
            prompts_per_step: 64,
            completions_per_prompt: 1,
            ..self
        }
    }

    /// Two completions of each of 32 prompts.
    pub(crate) fn paired(self) -> Self {
        Self {
            prompts_per_step: 32,
            completions_per_prompt: 2,
            ..self
        }
    }

    /// The KL is taken from the reward of what was sampled, by k1.
    pub(crate) fn kl_in_reward(self, kl_coef: f64) -> Self {
        Self {
            kl_coef,
            kl_place: KlPlace::Reward,
            kl_estimator: KlEstimator::K1,
            ..self
        }
    }

    /// Another weight of the KL.
    pub(crate) fn weighing_kl(self, kl_coef: f64) -> Self {
        Self { kl_coef, ..self }
    }
}

impl<A: OnlineAlgorithm> Default for OnlineConfig<A> {
    fn default() -> Self {
        A::defaults()
    }
}

impl<A: OnlineAlgorithm> RecipeConfig for OnlineConfig<A> {
    fn validate(&self) -> Result<(), TrainError> {
        at_least_one("max_steps", self.max_steps as usize)?;
        at_least_one("prompts_per_step", self.prompts_per_step)?;
        at_least_one("completions_per_prompt", self.completions_per_prompt)?;
        at_least_one("epochs", self.epochs as usize)?;
        at_least_one("minibatch_size", self.minibatch_size)?;
        at_least_one("micro_batch_size", self.micro_batch_size)?;
        at_least_one("eval_samples", self.eval_samples)?;
        at_least_one("keep_checkpoints", self.keep_checkpoints)?;
        whole_distribution(&self.sampling)?;
        let from_zero = |key, value| within(key, value, 0.0, f64::MAX);
        from_zero("missing_eos_penalty", self.missing_eos_penalty)?;
        if self.overlong_buffer >= self.sampling.max_new_tokens {
            let reason = "must be less than sampling.max_new_tokens";
            return Err(TrainError::config("overlong_buffer", reason));
        }
        from_zero("kl_coef", self.kl_coef)?;
        let drawn = self.prompts_per_step * self.completions_per_prompt;
        self.kl_controller.validate(drawn)?;
        from_zero("target_kl", self.target_kl)?;
        kl_limits(self.kl_budget, &self.reference)?;
        if self.dynamic_sampling > 0 && self.completions_per_prompt < 2 {
            let reason = "compares the completions of a prompt: completions_per_prompt is 1";
            return Err(TrainError::config("dynamic_sampling", reason));
        }
        self.algorithm.validate()?;
        self.algorithm.fits(self)?;
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

impl<A: OnlineAlgorithm> OnlineConfig<A> {
    /// Completions of each prompt that the policy draws: the first half where there is an opponent.
    pub(crate) fn own_completions(&self) -> usize {
        match self.algorithm.opponent() {
            Some(_) => self.completions_per_prompt / 2,
            None => self.completions_per_prompt,
        }
    }
}

/// What algorithms ask of the loop's configuration.
impl<A: OnlineAlgorithm> OnlineConfig<A> {
    /// # Errors
    /// With a single completion of each prompt.
    pub(crate) fn in_groups(&self) -> Result<(), TrainError> {
        if self.completions_per_prompt >= 2 {
            return Ok(());
        }
        let reason = "must be at least 2: completions of a prompt are compared with one another";
        Err(TrainError::config("completions_per_prompt", reason))
    }

    /// # Errors
    /// When minibatches or their parts cut through the completions of a prompt.
    pub(crate) fn whole_groups(&self) -> Result<(), TrainError> {
        self.in_groups()?;
        for (key, size) in [
            ("minibatch_size", self.minibatch_size),
            ("micro_batch_size", self.micro_batch_size),
        ] {
            if !size.is_multiple_of(self.completions_per_prompt) {
                let reason = format!(
                    "{size} is not a multiple of completions_per_prompt = {}: pairs of completions \
                     go through the model together",
                    self.completions_per_prompt
                );
                return Err(TrainError::config(key, reason));
            }
        }
        Ok(())
    }

    /// # Errors
    /// With more than one pass: the loss does not correct for completions of an older policy.
    pub(crate) fn one_pass(&self) -> Result<(), TrainError> {
        if self.epochs == 1 {
            return Ok(());
        }
        let reason = "must be 1: this loss has no ratio to correct for completions of an older \
                      policy";
        Err(TrainError::config("epochs", reason))
    }

    /// # Errors
    /// With a KL term beside the objective's own.
    pub(crate) fn own_kl(&self, field: &str) -> Result<(), TrainError> {
        if self.kl_coef == 0.0 {
            return Ok(());
        }
        let reason = format!("must be 0: the KL to the reference is {field} here");
        Err(TrainError::config("kl_coef", reason))
    }

    /// # Errors
    /// With the KL in the reward, where the objective reads ranks or picks winners.
    pub(crate) fn kl_in_loss(&self) -> Result<(), TrainError> {
        if self.kl_coef == 0.0 || self.kl_place != KlPlace::Reward {
            return Ok(());
        }
        let reason = "`reward` is not read: completions are picked by their scores";
        Err(TrainError::config("kl_place", reason))
    }
}
