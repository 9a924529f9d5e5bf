//! `cargo xtask bench dpo` and `bench sft`: steps on pairs in the order of a file.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use togi_data::Sample;
use togi_policy::LoraConfig;
use togi_train::{
    config::LoopSection,
    memory::{Demand, Extent, Work, sizes},
    preference::{Preference, PreferenceConfig},
    sft::{Sft, SftConfig},
};

use super::{Common, at_least_one, flops, load_to_train, pairs::pairs, steps};

#[derive(Args, Clone)]
pub(crate) struct OfflineArguments {
    #[command(flatten)]
    common: Common,
    /// Pairs: `prompt`, `chosen`, `rejected`, or HH dialogues. SFT learns the chosen answers.
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Pairs a step.
    #[arg(long, default_value_t = 4, value_parser = at_least_one())]
    batch: u64,
    /// Steps.
    #[arg(long, default_value_t = 6, value_parser = at_least_one())]
    steps: u64,
    /// Pairs with a longer side are passed over.
    #[arg(long, default_value_t = 512)]
    max_length: usize,
    /// Train an adapter of this rank on all linear layers; 0: the weights.
    #[arg(long, default_value_t = 0)]
    lora: usize,
    /// Keep only what goes into each layer, and run the layers again in the backward pass.
    #[arg(long)]
    gradient_checkpointing: bool,
}

/// The learning rate of all comparisons.
pub(crate) const LEARNING_RATE: f64 = 1e-5;

/// The adapter of all comparisons.
pub(crate) fn lora(rank: usize) -> LoraConfig {
    LoraConfig {
        r: rank,
        alpha: 2.0 * rank as f64,
        ..LoraConfig::default()
    }
}

impl OfflineArguments {
    fn sizes(&self) -> (usize, usize) {
        (self.batch as usize, self.steps as usize)
    }

    fn adapter(&self) -> Option<LoraConfig> {
        (self.lora > 0).then(|| lora(self.lora))
    }

    /// A step as the recipes' configurations have it.
    fn step(&self) -> LoopSection {
        LoopSection {
            max_steps: 1,
            batch_size: self.batch as usize,
            micro_batch_size: self.batch as usize,
            gradient_checkpointing: self.gradient_checkpointing,
            ..LoopSection::default()
        }
    }

    /// What the largest batch is estimated to need; nothing is held out.
    fn estimate<T: Extent>(&self, mut demand: Demand, samples: &[T]) -> Option<u64> {
        if let Work::Fixed { looked_at, .. } = &mut demand.work {
            *looked_at = 0;
        }
        let sizes = sizes(samples);
        let batches = sizes.chunks(self.batch as usize);
        batches
            .map(|batch| demand.clone().with_sizes(batch.to_vec()))
            .map(|demand| demand.estimate().total())
            .max()
    }
}

pub(crate) fn dpo(arguments: &OfflineArguments) -> Result<()> {
    let mut policy = load_to_train(&arguments.common)?;
    let (batch, count) = arguments.sizes();
    let tokenizer = &policy.tokenizer;
    let pairs = pairs(
        &arguments.data,
        tokenizer,
        arguments.max_length,
        batch * count,
    )?;
    let settings = PreferenceConfig {
        train: arguments.step(),
        lora: arguments.adapter(),
        ..PreferenceConfig::default()
    };
    let demand = Demand::preference(&settings, &policy.decoder, Vec::new());
    let estimate = arguments.estimate(demand, &pairs);
    let reference = policy.decoder.clone();
    let (objective, _) = Preference::new(&pairs, &[], &settings, &reference)?;
    if let Some(lora) = &settings.lora {
        policy.decoder.add_lora(lora.clone(), 0)?;
    }
    let optim = steps::constant(LEARNING_RATE);
    let decoder = &mut policy.decoder;
    // Each pair is new, so that the reference scores it in the same step.
    let mut steps = steps::take(
        decoder,
        &objective,
        batch,
        count,
        &optim,
        arguments.gradient_checkpointing,
        |decoder, batch| {
            let sides = batch.iter().map(|i| &pairs[*i]);
            let sides: Vec<&Sample> = sides.flat_map(|p| [&p.chosen, &p.rejected]).collect();
            let work = flops::training(decoder, &sides) + flops::forward(&reference, &sides);
            work.total()
        },
    )?;
    steps.estimate_bytes = estimate;
    steps.print(arguments.common.json)
}

pub(crate) fn sft(arguments: &OfflineArguments) -> Result<()> {
    let mut policy = load_to_train(&arguments.common)?;
    let (batch, count) = arguments.sizes();
    let tokenizer = &policy.tokenizer;
    let pairs = pairs(
        &arguments.data,
        tokenizer,
        arguments.max_length,
        batch * count,
    )?;
    let train: Vec<Sample> = pairs.into_iter().map(|pair| pair.chosen).collect();
    let settings = SftConfig {
        train: arguments.step(),
        lora: arguments.adapter(),
        ..SftConfig::default()
    };
    let demand = Demand::sft(&settings, &policy.decoder, Vec::new());
    let estimate = arguments.estimate(demand, &train);
    if let Some(lora) = &settings.lora {
        policy.decoder.add_lora(lora.clone(), 0)?;
    }
    let objective = Sft {
        train: &train,
        valid: &[],
    };
    let optim = steps::constant(LEARNING_RATE);
    let decoder = &mut policy.decoder;
    let mut steps = steps::take(
        decoder,
        &objective,
        batch,
        count,
        &optim,
        arguments.gradient_checkpointing,
        |decoder, batch| {
            let samples: Vec<&Sample> = batch.iter().map(|i| &train[*i]).collect();
            flops::training(decoder, &samples).total()
        },
    )?;
    steps.estimate_bytes = estimate;
    steps.print(arguments.common.json)
}
