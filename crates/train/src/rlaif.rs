//! Reinforcement learning from AI feedback (Lee et al. 2023, "RLAIF"): the model answers, a judge labels
//! pairs of its answers with probabilities, and the policy (DPO on soft labels) or a reward model learns
//! from those. Left out: reinforcement against the reward model, which is a recipe of its own (`ppo`,
//! `grpo` with `--reward`).

use serde::{Deserialize, Serialize};
use togi_data::{AnswerFrame, PairSample, Role};
use togi_policy::Decoder;

use crate::{
    ai_labels::{LabelConfig, Labelled},
    config::{DataSection, RecipeConfig},
    error::TrainError,
    judge_config::JudgeConfig,
    metrics::{Event, Row},
    offline::{self, Stage},
    preference::{Preference, PreferenceConfig, PreferenceLoss},
    reward::{BradleyTerry, RewardConfig, RewardLoss},
};

/// Configuration of the recipe `rlaif`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RlaifConfig {
    /// Of everything.
    pub seed: u64,
    /// How answers are drawn and labelled.
    pub label: LabelConfig,
    /// How the judge is asked.
    pub judge: JudgeConfig,
    /// What learns from the labels.
    pub learn: Learn,
}

/// What learns from labels, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Learn {
    /// The policy, by a preference loss.
    Policy(PreferenceConfig),
    /// A reward model.
    RewardModel(RewardConfig),
}

impl Learn {
    /// How the prompts are read.
    pub fn data(&self) -> &DataSection {
        match self {
            Self::Policy(config) => &config.data,
            Self::RewardModel(config) => &config.data,
        }
    }
}

impl Default for RlaifConfig {
    fn default() -> Self {
        let loss = PreferenceLoss::SoftLabels { beta: 0.1 };
        Self {
            seed: 0,
            label: LabelConfig::default(),
            judge: JudgeConfig::default(),
            learn: Learn::Policy(PreferenceConfig::with(loss)),
        }
    }
}

impl RecipeConfig for RlaifConfig {
    fn validate(&self) -> Result<(), TrainError> {
        self.label.validate()?;
        self.judge.validate()?;
        let (seed, annotators) = match &self.learn {
            Learn::Policy(config) => {
                config.validate()?;
                (config.seed, config.annotators)
            }
            Learn::RewardModel(config) => {
                config.validate()?;
                let pairs = matches!(
                    config.loss,
                    RewardLoss::BradleyTerry { .. } | RewardLoss::SoftLabels { .. }
                );
                if !pairs {
                    let reason = "the judge's labels are pairs: bradley_terry or soft_labels";
                    return Err(TrainError::config("learn.loss.kind", reason));
                }
                (config.seed, config.annotators)
            }
        };
        if seed != 0 {
            let reason = "is not read: `seed` is that of the whole";
            return Err(TrainError::config("learn.seed", reason));
        }
        if annotators != PreferenceConfig::default().annotators {
            let reason = "is not read: the judge labels the pairs";
            return Err(TrainError::config("learn.annotators", reason));
        }
        Ok(())
    }
}

/// Teaches a policy what the judge prefers. The reference is the policy as it is given.
///
/// # Errors
/// As the recipe `dpo`.
pub fn learn_policy(
    stage: &mut Stage<'_>,
    policy: &mut Decoder,
    labelled: &Labelled,
    config: &PreferenceConfig,
) -> Result<Option<Row>, TrainError> {
    let (train, valid) = (&labelled.train, &labelled.valid);
    let (mut objective, note) = Preference::new(train, valid, config, policy)?;
    if let Some(note) = note {
        stage.observer.on(Event::Message(&note));
    }
    if let Some(lora) = &config.lora {
        policy.add_lora(lora.clone(), stage.seed)?;
    }
    offline::train(stage, policy, &mut objective, &config.optim, &config.train)
}

/// Teaches a reward model what the judge prefers, of whole conversations as its tokenizer's frame ends them.
///
/// # Errors
/// As the recipe `reward`.
pub fn learn_reward(
    stage: &mut Stage<'_>,
    reward: &mut Decoder,
    labelled: &Labelled,
    frame: Option<&AnswerFrame>,
    config: &RewardConfig,
) -> Result<Option<Row>, TrainError> {
    let limit = reward.config.max_position_embeddings;
    let framed = |pairs: &[PairSample]| -> Vec<PairSample> {
        let mut pairs = pairs.to_vec();
        for pair in pairs.iter_mut() {
            for side in [&mut pair.chosen, &mut pair.rejected] {
                let start = side.scored().next().unwrap_or(side.len());
                let (prompt, answer) = side.ids.split_at(start);
                let rest = frame.map_or(Vec::new(), |frame| {
                    frame.rest(prompt, answer, limit).to_vec()
                });
                for id in rest {
                    side.push(id, Role::Completion, 0.0);
                }
            }
        }
        pairs
    };
    let (train, valid) = (framed(&labelled.train), framed(&labelled.valid));
    let mut objective = BradleyTerry::new(&train, &valid, config.loss)?;
    if let Some(lora) = &config.lora {
        reward.add_lora(lora.clone(), stage.seed)?;
    }
    offline::train(stage, reward, &mut objective, &config.optim, &config.train)
}
