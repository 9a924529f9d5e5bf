//! Memory of a run: `--micro-batch`, `--memory-limit`, and configurations whose micro-batch is chosen to
//! fit.

use std::path::PathBuf;

use anyhow::Result;
use burn::tensor::Device;
use clap::Args;
use togi_data::{DataError, Located, LossOn, TokenizeOptions, Tokenizer, lab::Writer, tokenize};
use togi_policy::Policy;
use togi_train::{
    config::{DataSection, RecipeConfig, Resolved, resolve, resolve_auto},
    data::{LabRows, Samples, samples},
    kto::KtoConfig,
    memory::{
        Available, Demand, Extent, Keys, OfStage, Sizes, Watching, available, human, parse_size,
        sizes,
    },
    online::{OnlineAlgorithm, OnlineConfig},
    ppo::PpoConfig,
    preference::PreferenceConfig,
    reward::{RewardConfig, RewardLoss},
    sft::SftConfig,
};

use crate::{
    InputError, device,
    recipe::{kto_defaults, ppo_defaults, reward_defaults, sft_defaults},
    train::TrainArguments,
};

#[derive(Args)]
pub(crate) struct MemoryArguments {
    /// Samples that go through the model at a time: a number, or `auto` for the largest that memory allows.
    /// Of a recipe of several stages (rlhf, cai), in each of them.
    #[arg(long, value_name = "N|auto")]
    pub(crate) micro_batch: Option<String>,
    /// The most memory that the run may use, such as 8GB or 512MiB: said before the start where the
    /// estimate is more, and the run ends after the step that used more.
    #[arg(long, value_name = "SIZE")]
    memory_limit: Option<String>,
}

impl MemoryArguments {
    /// The limit in bytes.
    pub(crate) fn limit(&self) -> Result<Option<u64>> {
        Ok(self.memory_limit.as_deref().map(parse_size).transpose()?)
    }

    /// How stages are watched.
    pub(crate) fn watching(&self) -> Result<Watching> {
        Ok(Watching::Within(self.limit()?))
    }
}

/// The function of [`tokenize`] that makes a recipe's samples.
type Tokenize<T> = fn(&Located, &Tokenizer, &TokenizeOptions) -> Result<Option<T>, DataError>;

impl TrainArguments {
    /// The configuration; a micro-batch of `auto` becomes the largest whose estimate fits, or what the run
    /// that is resumed had.
    fn settle<C: RecipeConfig>(
        &self,
        defaults: &C,
        demand: impl FnOnce(&C, &Device) -> Result<Demand>,
    ) -> Result<C> {
        self.settle_stages(defaults, |config, device| {
            Ok(vec![self.of_stage(demand(config, device)?)])
        })
    }

    /// As [`TrainArguments::settle`], each micro-batch for its own stage.
    pub(crate) fn settle_stages<C: RecipeConfig>(
        &self,
        defaults: &C,
        stages: impl FnOnce(&C, &Device) -> Result<Vec<OfStage>>,
    ) -> Result<C> {
        let mut settings = self.given()?;
        let Resolved { config, auto } = resolve_auto(defaults, self.config_file(), &settings)?;
        if auto.is_empty() {
            return Ok(config);
        }
        let mut open = Vec::new();
        for key in &auto {
            match self.kept(key) {
                Some(micro) => settings.push(format!("{key}={micro}")),
                None => open.push(key),
            }
        }
        if !open.is_empty() {
            let device = device::parse(&self.device)?;
            let stages = stages(&config, &device)?;
            for key in open {
                // A key of no stage is refused when it is read again.
                let micro = match stages.iter().find(|stage| stage.keys.micro() == *key) {
                    Some(stage) => self.choose(stage, &device)?,
                    None => 1,
                };
                settings.push(format!("{key}={micro}"));
            }
        }
        Ok(resolve(defaults, self.config_file(), &settings)?)
    }

    /// The largest micro-batch that fits; it is said with the numbers.
    fn choose(&self, stage: &OfStage, device: &Device) -> Result<usize> {
        let (key, demand) = (stage.keys.micro(), &stage.demand);
        let (bytes, from) = match available(device, self.memory.limit()?) {
            Available::Known(bytes, from) => (bytes, from),
            Available::Unknown(reason) => {
                let text = format!("{key} = auto: {reason}; give a number, or --memory-limit SIZE");
                return Err(InputError(text).into());
            }
        };
        let Some(micro) = demand.largest_micro(bytes) else {
            let smallest = demand.with_micro(demand.unit);
            let settings = smallest.advice(&stage.keys);
            let settings: Vec<String> = settings.iter().map(ToString::to_string).collect();
            let help = match settings.is_empty() {
                true => "take a smaller model".to_owned(),
                false => format!("what would help: {}", settings.join(", ")),
            };
            let text = format!(
                "{key} = auto: even {} needs {} by the estimate, and there are {} ({from}); {help}",
                demand.unit,
                human(smallest.estimate().total()),
                human(bytes),
            );
            return Err(InputError(text).into());
        };
        eprintln!(
            "{key} = {micro}: estimated at {} of {} ({from})",
            human(demand.with_micro(micro).estimate().total()),
            human(bytes)
        );
        Ok(micro)
    }

    /// The number that the run which is resumed was started with.
    fn kept(&self, key: &str) -> Option<usize> {
        let folder: PathBuf = self.resumed()?;
        let text = std::fs::read_to_string(folder.join("config.toml")).ok()?;
        let table: toml::Table = text.parse().ok()?;
        let mut value = &toml::Value::Table(table);
        for part in key.split('.') {
            value = value.get(part)?;
        }
        value.as_integer()?.try_into().ok()
    }

    /// What a recipe of one stage calls the settings that memory depends on.
    /// The only stage of a recipe.
    pub(crate) fn of_stage(&self, demand: Demand) -> OfStage {
        OfStage {
            name: "",
            keys: self.keys(),
            demand,
        }
    }

    pub(crate) fn keys(&self) -> Keys {
        match self.recipe.is_online() {
            true => Keys::drawn(""),
            false => Keys::fixed(""),
        }
    }

    pub(crate) fn sizes<T: Extent>(
        &self,
        policy: &Policy,
        rows: LabRows,
        (section, loss_on, seed): (&DataSection, LossOn, u64),
        tokenize: Tokenize<T>,
    ) -> Result<Sizes> {
        let data = self.samples(policy, rows, (section, loss_on, seed), tokenize)?;
        Ok(sizes(&data.train))
    }

    pub(crate) fn samples<T>(
        &self,
        policy: &Policy,
        rows: LabRows,
        (section, loss_on, seed): (&DataSection, LossOn, u64),
        tokenize: Tokenize<T>,
    ) -> Result<Samples<T>> {
        let (tokenizer, options) = (&policy.tokenizer, section.options(loss_on));
        let source = self.source()?;
        Ok(samples(
            &source, rows, section, seed, tokenizer, &options, tokenize,
        )?)
    }

    pub(crate) fn sft_config(&self) -> Result<SftConfig> {
        self.settle(
            &sft_defaults(self.on_lab()),
            |config: &SftConfig, device| {
                let policy = self.load(device, config.seed)?;
                let rows = LabRows::Answers(Writer::demonstrator());
                let how = (&config.data, config.loss_on, config.seed);
                let sizes = self.sizes(&policy, rows, how, tokenize::sft)?;
                Ok(Demand::sft(config, &policy.decoder, sizes))
            },
        )
    }

    /// Of what a reward model learns from.
    pub(crate) fn reward_sizes(
        &self,
        policy: &Policy,
        config: &RewardConfig,
        seed: u64,
    ) -> Result<Sizes> {
        let rows = config.lab_rows();
        let how = (&config.data, LossOn::Completion, seed);
        match config.loss {
            RewardLoss::BradleyTerry { .. } | RewardLoss::SoftLabels { .. } => {
                self.sizes(policy, rows, how, tokenize::pair)
            }
            RewardLoss::Ties { .. } | RewardLoss::PlackettLuce | RewardLoss::AllPairs => {
                self.sizes(policy, rows, how, tokenize::ranking)
            }
            RewardLoss::Regression => self.sizes(policy, rows, how, tokenize::rated),
            RewardLoss::Steps => self.sizes(policy, rows, how, tokenize::steps),
        }
    }

    pub(crate) fn reward_config(&self) -> Result<RewardConfig> {
        let defaults = reward_defaults(self.on_lab());
        self.settle(&defaults, |config: &RewardConfig, device| {
            let mut policy = self.load(device, config.seed)?;
            policy.decoder = policy.decoder.with_score_head(Some(config.seed))?;
            let sizes = self.reward_sizes(&policy, config, config.seed)?;
            Ok(Demand::reward(config, &policy.decoder, sizes))
        })
    }

    pub(crate) fn preference_config(
        &self,
        defaults: &PreferenceConfig,
    ) -> Result<PreferenceConfig> {
        self.settle(defaults, |config: &PreferenceConfig, device| {
            let policy = self.load(device, config.seed)?;
            let rows = LabRows::Preferences(config.annotators);
            let how = (&config.data, LossOn::Completion, config.seed);
            let sizes = self.sizes(&policy, rows, how, tokenize::pair)?;
            Ok(Demand::preference(config, &policy.decoder, sizes))
        })
    }

    pub(crate) fn kto_config(&self) -> Result<KtoConfig> {
        self.settle(
            &kto_defaults(self.on_lab()),
            |config: &KtoConfig, device| {
                let policy = self.load(device, config.seed)?;
                let section = &config.data;
                let options = section.options(LossOn::Completion);
                let (rows, tokenizer) =
                    (LabRows::Preferences(config.annotators), &policy.tokenizer);
                let (source, make) = (self.source()?, tokenize::labelled);
                let data = samples(
                    &source,
                    rows,
                    section,
                    config.seed,
                    tokenizer,
                    &options,
                    make,
                )?;
                let sizes = sizes(&data.train.concat());
                Ok(Demand::kto(config, &policy.decoder, sizes))
            },
        )
    }

    pub(crate) fn ppo_config(&self) -> Result<PpoConfig> {
        self.settle(
            &ppo_defaults(self.on_lab()),
            |config: &PpoConfig, device| {
                let policy = self.load(device, config.seed)?;
                let prompts = self.prompt_sizes(&policy, &config.data, config.seed)?;
                let rewards = self.reward_parameters(&policy);
                Ok(Demand::ppo(config, &policy.decoder, rewards, &prompts))
            },
        )
    }

    pub(crate) fn online_config<A: OnlineAlgorithm>(
        &self,
        defaults: &OnlineConfig<A>,
    ) -> Result<OnlineConfig<A>> {
        self.settle(defaults, |config: &OnlineConfig<A>, device| {
            let policy = self.load(device, config.seed)?;
            let prompts = self.prompt_sizes(&policy, &config.data, config.seed)?;
            let rewards = self.reward_parameters(&policy);
            Ok(Demand::online(config, &policy.decoder, rewards, &prompts))
        })
    }

    /// Numbers in the models that score, which are taken to be of the policy's size before they are loaded.
    pub(crate) fn reward_parameters(&self, policy: &Policy) -> usize {
        self.scorer.loaded() * policy.decoder.params.count().0
    }
}
