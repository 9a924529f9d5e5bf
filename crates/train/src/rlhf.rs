//! The whole pipeline in one run folder: SFT, a reward model, PPO, and a comparison. Each stage
//! leaves its model in `stages/`, from where a resumed run goes on.
//!
//! On the lab there is a stage before: a base model learns what the base writer writes. SFT then
//! imitates the demonstrator, the reward model learns what the annotators prefer, PPO tunes the SFT
//! model to it. With a model and preference pairs of one's own, SFT learns the chosen answers, the
//! reward model the pairs, PPO answers their prompts; no stage sees the held-out rows, on which the
//! models are compared.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use togi_data::{LossOn, tokenize};
use togi_policy::{Policy, hf, source::Source};
use togi_reward::{LabGold, RewardModel};

use crate::{
    arena::{Arena, Compared, lab_prompts},
    config::{RecipeConfig, at_least_one},
    data::{DataSource, LabRows, samples},
    error::TrainError,
    lab_defaults,
    memory::{OfStage, PromptSizes},
    metrics::Event,
    ppo::{self, Models, PpoConfig, ValueInit},
    reward::RewardConfig,
    sft::SftConfig,
    stages::{self, Stages, split},
};

/// Configuration of the recipe `rlhf`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RlhfConfig {
    /// Of everything: the stages' own seeds follow from it.
    pub seed: u64,
    /// Held-out prompts that the models are compared on.
    pub eval_prompts: usize,
    /// The base model, where it is the lab's: others bring their own training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<SftConfig>,
    /// Supervised fine-tuning.
    pub sft: SftConfig,
    /// The reward model.
    pub reward: RewardConfig,
    /// PPO.
    pub ppo: PpoConfig,
}

impl Default for RlhfConfig {
    /// Sized for the lab's model: a few minutes on two cores.
    fn default() -> Self {
        Self {
            seed: 0,
            eval_prompts: 300,
            base: Some(lab_defaults::base()),
            sft: lab_defaults::sft(),
            reward: lab_defaults::reward(),
            ppo: lab_defaults::ppo(),
        }
    }
}

impl RlhfConfig {
    /// Defaults for a pretrained model: those of the stages' own recipes.
    pub fn pretrained() -> Self {
        Self {
            seed: 0,
            eval_prompts: 100,
            base: None,
            sft: SftConfig::default(),
            reward: RewardConfig::default(),
            ppo: PpoConfig::default(),
        }
    }

    /// The seeds of the rows of base, SFT, reward model and prompts.
    pub fn data_seeds(&self, data: &DataSource) -> [u64; 4] {
        let of = |stage| split(data, self.seed, stage);
        [
            self.seed ^ stages::BASE_DATA,
            of(stages::SFT_DATA),
            of(stages::REWARD_DATA),
            of(stages::PPO_DATA),
        ]
    }

    /// # Errors
    /// When there is a `base` section and the model is not the lab's, or none and it is.
    pub fn check_base(&self, model: &Source) -> Result<(), TrainError> {
        let reason = match (&self.base, model) {
            (None, Source::Lab) => "is missing: the lab's model is untrained",
            (None, _) | (Some(_), Source::Lab) => return Ok(()),
            (Some(_), _) => "is for the lab's model; the model that was given is trained already",
        };
        Err(TrainError::config("base", reason))
    }
}

impl RecipeConfig for RlhfConfig {
    fn validate(&self) -> Result<(), TrainError> {
        at_least_one("eval_prompts", self.eval_prompts)?;
        let stages = [
            ("base.seed", self.base.as_ref().map_or(0, |base| base.seed)),
            ("sft.seed", self.sft.seed),
            ("reward.seed", self.reward.seed),
            ("ppo.seed", self.ppo.seed),
        ];
        if let Some((key, _)) = stages.iter().find(|(_, seed)| *seed != 0) {
            let reason = "is not read: the stages' seeds follow from `seed`";
            return Err(TrainError::config(*key, reason));
        }
        if let Some(base) = &self.base {
            base.validate()?;
        }
        self.sft.validate()?;
        self.reward.validate()?;
        self.ppo.validate()
    }

    fn check_device(&self, device: &Device) -> Result<(), TrainError> {
        self.ppo.check_device(device)
    }
}

/// What a run ends with.
#[derive(Debug)]
pub struct Outcome {
    /// Base, SFT and PPO on held-out prompts.
    pub compared: Compared,
    /// The tuned model.
    pub policy: Policy,
}

/// Runs every stage that has not left its model yet, compares the models, and writes `model/`.
///
/// # Errors
/// As the stages; when there is a `base` section and the model is not the lab's, or none and it
/// is; without held-out prompts.
pub fn train(
    stages: &mut Stages<'_>,
    config: &RlhfConfig,
    model: &Source,
    data: &DataSource,
) -> Result<Outcome, TrainError> {
    let seed = config.seed;
    let on_lab = *data == DataSource::Lab;
    let (watching, device) = (stages.watching, stages.device);
    config.check_base(model)?;
    let base = match &config.base {
        Some(base) => stages::lab_base(stages, base, seed)?,
        None => model.load(device, seed)?,
    };
    let tokenizer = base.tokenizer.clone();
    let sft = stages::sft(stages, base.clone(), &config.sft, data, seed)?;
    let reward = stages::reward(stages, &sft, &config.reward, data, seed)?;
    let scored_at_once = config.ppo.micro_batch_size;
    let reward_model = RewardModel::new(
        reward.decoder.clone(),
        tokenizer.answer_frame(),
        scored_at_once,
    );
    let settings = &config.ppo;
    let prompts = samples(
        data,
        LabRows::Prompts,
        &settings.data,
        split(data, seed, stages::PPO_DATA),
        &tokenizer,
        &settings.data.options(LossOn::Completion),
        tokenize::prompt,
    )?;
    let tuned = stages.stage("ppo", seed ^ stages::PPO, |stage| {
        stage.observer.on(Event::Message(&prompts.summary));
        let asked = OfStage::ppo(settings, &sft.decoder, &PromptSizes::of(&prompts));
        stage.watches(watching.over(&asked, device));
        let mut policy = sft.decoder.clone();
        let mut value = match settings.value_init {
            ValueInit::RewardModel => reward.decoder.clone(),
            ValueInit::ZeroHead => policy.with_score_head(None)?,
        };
        if let Some(lora) = &settings.lora {
            policy.add_lora(lora.clone(), seed)?;
        }
        let mut models = Models {
            policy: &mut policy,
            reference: &sft.decoder,
            value: &mut value,
            reward: &reward_model,
            gold: on_lab.then_some(&LabGold),
            tokenizer: &tokenizer,
        };
        ppo::train(stage, &mut models, &prompts.train, &prompts.valid, settings)?;
        policy.merge_lora();
        Ok(Policy::new(policy, tokenizer.clone(), "the run")?)
    })?;
    hf::save(&tuned, &stages.run.model())?;

    stages.observer.on(Event::Message(
        "comparing base, SFT and PPO on held-out prompts",
    ));
    let asked = if on_lab {
        lab_prompts(&tokenizer, config.eval_prompts, seed)?
    } else {
        prompts
            .valid
            .into_iter()
            .take(config.eval_prompts)
            .collect()
    };
    if asked.is_empty() {
        let reason = "no prompt is held out to compare the models on; give --valid FILE or raise \
                      ppo.data.valid_fraction";
        return Err(TrainError::config("data", reason));
    }
    let arena = Arena {
        prompts: &asked,
        reference: &sft.decoder,
        proxy: Some(&reward_model),
        gold: on_lab,
        sampling: &settings.sampling,
        seed,
    };
    let compared = arena.compare(&[("base", &base), ("SFT", &sft), ("PPO", &tuned)])?;
    Ok(Outcome {
        compared,
        policy: tuned,
    })
}
