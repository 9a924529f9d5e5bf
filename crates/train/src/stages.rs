//! The stages that come before tuning: base, SFT and reward model. Each leaves its model in `stages/`
//! of the run folder, from where a resumed run goes on.

use burn::tensor::Device;
use togi_data::{LossOn, Tokenizer, lab::Writer, tokenize};
use togi_policy::{Decoder, Policy, hf, source::Source};

use crate::{
    data::{DataSource, LabRows, samples},
    error::TrainError,
    lab_defaults,
    memory::{OfStage, Sizes, Watch, Watching, sizes},
    metrics::{Event, Observer, Row},
    offline::{self, Stage},
    reward::{BradleyTerry, RewardConfig, RewardLoss},
    reward_rankings::Rankings,
    reward_ratings::Ratings,
    reward_steps::Steps,
    run_folder::RunFolder,
    sft::{Sft, SftConfig},
};

// What tells a stage's random numbers from those of the run's other stages.
pub(crate) const BASE: u64 = 16;
pub(crate) const SFT: u64 = 17;
pub(crate) const REWARD: u64 = 18;
pub(crate) const PPO: u64 = 19;
/// The revisions of `cai`.
pub const REVISIONS: u64 = 20;

// The same of the data that the lab makes for a stage.
pub(crate) const BASE_DATA: u64 = 1;
pub(crate) const SFT_DATA: u64 = 2;
pub(crate) const REWARD_DATA: u64 = 3;
pub(crate) const PPO_DATA: u64 = 4;

/// Where the stages of a run work, who is told, and whether their memory is watched.
pub struct Stages<'a> {
    /// The run folder.
    pub run: &'a RunFolder,
    /// Where they compute.
    pub device: &'a Device,
    /// Who is told.
    pub observer: &'a mut dyn Observer,
    /// Their memory.
    pub watching: Watching,
}

impl Stages<'_> {
    /// Runs a stage and saves its model, or loads what an earlier run of it saved.
    ///
    /// # Errors
    /// As the work; files that cannot be written or read.
    pub fn stage(
        &mut self,
        name: &str,
        seed: u64,
        work: impl FnOnce(&mut Stage<'_>) -> Result<Policy, TrainError>,
    ) -> Result<Policy, TrainError> {
        let folder = self.run.path().join("stages").join(name);
        if !folder.exists() {
            let policy = work(&mut Stage {
                name,
                run: self.run,
                seed,
                observer: &mut *self.observer,
                watch: Watch::default(),
            })?;
            hf::save(&policy, &folder)?;
        }
        // Read back even when it was just written: an uninterrupted run and a resumed one go on from
        // the same bytes.
        Ok(hf::load(&folder, self.device)?)
    }
}

/// The lab's base model: the untrained one, after learning what the base writer writes.
///
/// # Errors
/// As the recipe `sft`.
pub fn lab_base(
    stages: &mut Stages<'_>,
    config: &SftConfig,
    seed: u64,
) -> Result<Policy, TrainError> {
    let (watching, device) = (stages.watching, stages.device);
    let untrained = Source::Lab.load(device, seed)?;
    stages.stage("base", seed ^ BASE, |stage| {
        let own = stage.seed;
        let watch = |decoder: &Decoder, sizes| {
            watching.over(&OfStage::base(config, own, decoder, sizes), device)
        };
        let (data, writer) = (DataSource::Lab, Writer::base());
        imitate(
            stage,
            untrained,
            config,
            &data,
            seed ^ BASE_DATA,
            writer,
            watch,
        )
    })
}

/// The lab's SFT model, with the lab's default configurations: what recipes start from that tune a
/// model which can answer already. The same as in `rlhf` with this seed.
///
/// # Errors
/// As the recipe `sft`.
pub fn lab_sft(stages: &mut Stages<'_>, seed: u64) -> Result<Policy, TrainError> {
    let base = lab_base(stages, &lab_defaults::base(), seed)?;
    sft(stages, base, &lab_defaults::sft(), &DataSource::Lab, seed)
}

/// SFT on demonstrations, or on the chosen answers of pairs.
pub(crate) fn sft(
    stages: &mut Stages<'_>,
    base: Policy,
    config: &SftConfig,
    data: &DataSource,
    seed: u64,
) -> Result<Policy, TrainError> {
    let (watching, device) = (stages.watching, stages.device);
    stages.stage("sft", seed ^ SFT, |stage| {
        let own = stage.seed;
        let watch = |decoder: &Decoder, sizes| {
            watching.over(&OfStage::sft(config, own, decoder, sizes), device)
        };
        let (seed, writer) = (split(data, seed, SFT_DATA), Writer::demonstrator());
        imitate(stage, base, config, data, seed, writer, watch)
    })
}

/// A reward model, from the SFT model.
///
/// # Errors
/// As the recipe `reward`.
pub fn reward(
    stages: &mut Stages<'_>,
    sft: &Policy,
    config: &RewardConfig,
    data: &DataSource,
    seed: u64,
) -> Result<Policy, TrainError> {
    let (watching, device) = (stages.watching, stages.device);
    stages.stage("reward", seed ^ REWARD, |stage| {
        let mut decoder = sft.decoder.with_score_head(Some(seed))?;
        let plain = OfStage::reward(config, stage.seed, &decoder, Vec::new());
        if let Some(lora) = &config.lora {
            decoder.add_lora(lora.clone(), seed)?;
        }
        let seed = split(data, seed, REWARD_DATA);
        let watch = |sizes| watching.over(&plain.clone().with_sizes(sizes), device);
        let tokenizer = &sft.tokenizer;
        learn_reward(stage, &mut decoder, tokenizer, config, data, seed, watch)?;
        decoder.merge_lora();
        Ok(Policy::new(decoder, sft.tokenizer.clone(), "the run")?)
    })
}

/// Trains a model with a scalar head on the kind of rows that its loss learns from; `watch` says what
/// may be used of memory, given the samples' sizes. Returns the last held-out metrics.
///
/// # Errors
/// Rows that the loss cannot use; the lab has no answers in steps.
pub fn learn_reward(
    stage: &mut Stage<'_>,
    decoder: &mut Decoder,
    tokenizer: &Tokenizer,
    config: &RewardConfig,
    data: &DataSource,
    seed: u64,
    watch: impl Fn(Sizes) -> Watch,
) -> Result<Option<Row>, TrainError> {
    let options = config.data.options(LossOn::Completion);
    let (section, optim, train) = (&config.data, &config.optim, &config.train);
    let rows = config.lab_rows();
    match config.loss {
        RewardLoss::BradleyTerry { .. } | RewardLoss::SoftLabels { .. } => {
            let make = tokenize::pair;
            let pairs = samples(data, rows, section, seed, tokenizer, &options, make)?;
            stage.observer.on(Event::Message(&pairs.summary));
            stage.watches(watch(sizes(&pairs.train)));
            let mut objective = BradleyTerry::new(&pairs.train, &pairs.valid, config.loss)?;
            offline::train(stage, decoder, &mut objective, optim, train)
        }
        RewardLoss::Ties { .. } | RewardLoss::PlackettLuce | RewardLoss::AllPairs => {
            let make = tokenize::ranking;
            let ranked = samples(data, rows, section, seed, tokenizer, &options, make)?;
            stage.observer.on(Event::Message(&ranked.summary));
            stage.watches(watch(sizes(&ranked.train)));
            let mut objective = Rankings::new(&ranked.train, &ranked.valid, config.loss)?;
            offline::train(stage, decoder, &mut objective, optim, train)
        }
        RewardLoss::Regression => {
            let make = tokenize::rated;
            let rated = samples(data, rows, section, seed, tokenizer, &options, make)?;
            stage.observer.on(Event::Message(&rated.summary));
            stage.watches(watch(sizes(&rated.train)));
            let mut objective = Ratings {
                train: &rated.train,
                valid: &rated.valid,
            };
            offline::train(stage, decoder, &mut objective, optim, train)
        }
        RewardLoss::Steps => {
            let make = tokenize::steps;
            let steps = samples(data, rows, section, seed, tokenizer, &options, make)?;
            stage.observer.on(Event::Message(&steps.summary));
            stage.watches(watch(sizes(&steps.train)));
            let mut objective = Steps {
                train: &steps.train,
                valid: &steps.valid,
            };
            offline::train(stage, decoder, &mut objective, optim, train)
        }
    }
}

/// The seed of a stage's data. Rows of files are split once, so that what one stage holds out no other
/// sees; of the lab each stage has rows of its own.
pub(crate) fn split(data: &DataSource, seed: u64, stage: u64) -> u64 {
    match data {
        DataSource::Lab => seed ^ stage,
        DataSource::Files { .. } => seed,
    }
}

fn imitate(
    stage: &mut Stage<'_>,
    mut policy: Policy,
    config: &SftConfig,
    data: &DataSource,
    seed: u64,
    writer: Writer,
    watch: impl FnOnce(&Decoder, Sizes) -> Watch,
) -> Result<Policy, TrainError> {
    let data = samples(
        data,
        LabRows::Answers(writer),
        &config.data,
        seed,
        &policy.tokenizer,
        &config.data.options(config.loss_on),
        tokenize::sft,
    )?;
    stage.observer.on(Event::Message(&data.summary));
    stage.watches(watch(&policy.decoder, sizes(&data.train)));
    if let Some(lora) = &config.lora {
        policy.decoder.add_lora(lora.clone(), seed)?;
    }
    let mut objective = Sft {
        train: &data.train,
        valid: &data.valid,
    };
    offline::train(
        stage,
        &mut policy.decoder,
        &mut objective,
        &config.optim,
        &config.train,
    )?;
    policy.decoder.merge_lora();
    Ok(policy)
}
