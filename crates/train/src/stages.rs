//! The stages that come before tuning: base, SFT and reward model. Each leaves its model in `stages/`
//! of the run folder, from where a resumed run goes on.

use burn::tensor::Device;
use togi_data::{LossOn, Tokenizer, lab::Writer, tokenize};
use togi_policy::{Decoder, Policy, hf, source::Source};

use crate::{
    data::{DataSource, LabRows, samples},
    error::TrainError,
    lab_defaults,
    memory::{Sizes, Watch, sizes},
    metrics::{Event, Observer, Row},
    offline::{self, Stage},
    reward::{BradleyTerry, RewardConfig, RewardLoss},
    reward_rankings::Rankings,
    reward_ratings::Ratings,
    reward_steps::Steps,
    run_folder::RunFolder,
    sft::{Sft, SftConfig},
};

/// The lab's base model: the untrained one, after learning what the base writer writes.
///
/// # Errors
/// As the recipe `sft`.
pub fn lab_base(
    run: &RunFolder,
    config: &SftConfig,
    seed: u64,
    device: &Device,
    observer: &mut dyn Observer,
) -> Result<Policy, TrainError> {
    let untrained = Source::Lab.load(device, seed)?;
    stage(run, "base", seed ^ 16, device, observer, |stage| {
        let data = DataSource::Lab;
        imitate(stage, untrained, config, &data, seed ^ 1, Writer::base())
    })
}

/// The lab's SFT model, with the lab's default configurations: what recipes start from that tune a
/// model which can answer already. The same as in `rlhf` with this seed.
///
/// # Errors
/// As the recipe `sft`.
pub fn lab_sft(
    run: &RunFolder,
    seed: u64,
    device: &Device,
    observer: &mut dyn Observer,
) -> Result<Policy, TrainError> {
    let base = lab_base(run, &lab_defaults::base(), seed, device, observer)?;
    let (config, data) = (lab_defaults::sft(), DataSource::Lab);
    sft(run, base, &config, &data, seed, device, observer)
}

/// SFT on demonstrations, or on the chosen answers of pairs.
pub(crate) fn sft(
    run: &RunFolder,
    base: Policy,
    config: &SftConfig,
    data: &DataSource,
    seed: u64,
    device: &Device,
    observer: &mut dyn Observer,
) -> Result<Policy, TrainError> {
    stage(run, "sft", seed ^ 17, device, observer, |stage| {
        let writer = Writer::demonstrator();
        imitate(stage, base, config, data, split(data, seed, 2), writer)
    })
}

/// A reward model, from the SFT model.
///
/// # Errors
/// As the recipe `reward`.
pub fn reward(
    run: &RunFolder,
    sft: &Policy,
    config: &RewardConfig,
    data: &DataSource,
    seed: u64,
    device: &Device,
    observer: &mut dyn Observer,
) -> Result<Policy, TrainError> {
    stage(run, "reward", seed ^ 18, device, observer, |stage| {
        let mut decoder = sft.decoder.with_score_head(Some(seed))?;
        if let Some(lora) = &config.lora {
            decoder.add_lora(lora.clone(), seed)?;
        }
        let seed = split(data, seed, 3);
        let watch = |_| Watch::default();
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

/// Runs a stage and saves its model, or loads what an earlier run of it saved.
///
/// # Errors
/// As the work; files that cannot be written or read.
pub fn stage(
    run: &RunFolder,
    name: &str,
    seed: u64,
    device: &Device,
    observer: &mut dyn Observer,
    work: impl FnOnce(&mut Stage<'_>) -> Result<Policy, TrainError>,
) -> Result<Policy, TrainError> {
    let folder = run.path().join("stages").join(name);
    if !folder.exists() {
        let policy = work(&mut Stage {
            name,
            run,
            seed,
            observer,
            watch: Watch::default(),
        })?;
        hf::save(&policy, &folder)?;
    }
    // Read back even when it was just written: an uninterrupted run and a resumed one go on from
    // the same bytes.
    Ok(hf::load(&folder, device)?)
}

pub(crate) fn imitate(
    stage: &mut Stage<'_>,
    mut policy: Policy,
    config: &SftConfig,
    data: &DataSource,
    seed: u64,
    writer: Writer,
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
