//! Configurations of the recipes whose stages each have an estimate of their own: `rlhf`, `rlaif`, `cai`, `rso`.

use anyhow::Result;
use togi_data::{LossOn, lab::Writer, tokenize};
use togi_policy::{Policy, source::Source};
use togi_train::{
    cai::CaiConfig,
    config::DataSection,
    data::LabRows,
    memory::{OfStage, PromptSizes, RlhfSizes, Sizes},
    rlaif::RlaifConfig,
    rlhf::RlhfConfig,
    rso::RsoConfig,
};

use crate::{
    judge,
    recipe::{cai_defaults, rlaif_defaults, rso_defaults},
    train::{TrainArguments, rlhf_defaults},
};

impl TrainArguments {
    pub(crate) fn rlhf_config(&self) -> Result<RlhfConfig> {
        self.settle_stages(&rlhf_defaults(self)?, |config: &RlhfConfig, device| {
            config.check_base(&Source::parse(&self.model)?)?;
            let policy = self.load(device, config.seed)?;
            let [_, sft, reward, ppo] = config.data_seeds(&self.source()?);
            let demonstrations = LabRows::Answers(Writer::demonstrator());
            let how = (&config.sft.data, config.sft.loss_on, sft);
            let sizes = RlhfSizes {
                base: self.base_sizes(config, &policy)?,
                sft: self.sizes(&policy, demonstrations, how, tokenize::sft)?,
                reward: self.reward_sizes(&policy, &config.reward, reward)?,
                ppo: self.prompt_sizes(&policy, &config.ppo.data, ppo)?,
            };
            Ok(OfStage::rlhf(config, &policy.decoder, sizes)?)
        })
    }

    /// Of what the lab's base model learns from, if there is one.
    pub(crate) fn base_sizes(&self, config: &RlhfConfig, policy: &Policy) -> Result<Sizes> {
        let Some(base) = &config.base else {
            return Ok(Sizes::new());
        };
        let [seed, ..] = config.data_seeds(&self.source()?);
        let how = (&base.data, base.loss_on, seed);
        self.sizes(policy, LabRows::Answers(Writer::base()), how, tokenize::sft)
    }

    pub(crate) fn rlaif_config(&self) -> Result<RlaifConfig> {
        let defaults = rlaif_defaults(self.on_lab());
        self.settle_stages(&defaults, |config: &RlaifConfig, device| {
            let policy = self.load(device, config.seed)?;
            let prompts = self.prompt_sizes(&policy, config.learn.data(), config.seed)?;
            let judge = self.judge_parameters(&policy);
            let stage = OfStage::rlaif(config, &policy.decoder, judge, &prompts.train)?;
            Ok(vec![stage])
        })
    }

    pub(crate) fn cai_config(&self) -> Result<CaiConfig> {
        let defaults = cai_defaults(self.on_lab());
        self.settle_stages(&defaults, |config: &CaiConfig, device| {
            let policy = self.load(device, config.seed)?;
            let prompts = self.prompt_sizes(&policy, &config.preference.data, config.seed)?;
            Ok(self.cai_stages(config, &policy, &prompts.train))
        })
    }

    /// Both stages of `cai`. Critic and judge are two models.
    pub(crate) fn cai_stages(
        &self,
        config: &CaiConfig,
        policy: &Policy,
        prompts: &Sizes,
    ) -> Vec<OfStage> {
        let judges = 2 * self.judge_parameters(policy);
        let decoder = &policy.decoder;
        vec![
            OfStage::revisions(config, decoder, judges, prompts),
            OfStage::cai(config, decoder, judges, prompts),
        ]
    }

    pub(crate) fn rso_config(&self) -> Result<RsoConfig> {
        let defaults = rso_defaults(self.on_lab());
        self.settle_stages(&defaults, |config: &RsoConfig, device| {
            let settings = &config.preference;
            let policy = self.load(device, settings.seed)?;
            let prompts = self.prompt_sizes(&policy, &settings.data, settings.seed)?;
            let rewards = self.reward_parameters(&policy);
            let stage = OfStage::rso(config, &policy.decoder, rewards, &prompts.train);
            Ok(vec![stage])
        })
    }

    pub(crate) fn prompt_sizes(
        &self,
        policy: &Policy,
        section: &DataSection,
        seed: u64,
    ) -> Result<PromptSizes> {
        let how = (section, LossOn::Completion, seed);
        let prompts = self.samples(policy, LabRows::Prompts, how, tokenize::prompt)?;
        Ok(PromptSizes::of(&prompts))
    }

    /// Numbers in a judge that is a model of its own, which is taken to be of the policy's size before it is
    /// loaded.
    pub(crate) fn judge_parameters(&self, policy: &Policy) -> usize {
        match judge::is_own_model(self.judge_spec()) {
            true => policy.decoder.params.count().0,
            false => 0,
        }
    }
}
