//! `cargo xtask bench tiny`: training steps of a decoder of a million parameters.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use togi_data::{Sample, rng::CounterRng};
use togi_policy::{Decoder, Head, ModelConfig, Params, Policy, hf, source};
use togi_train::{memory, sft::Sft};

use super::{
    at_least_one, device, flops, median,
    steps::{self, Steps},
};

#[derive(Args, Clone)]
pub(crate) struct TinyArguments {
    /// Steps.
    #[arg(long, default_value_t = 40, value_parser = at_least_one())]
    steps: u64,
    /// Write the untrained model and the batches there, for tools/peers/tiny_decoder.py.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// `cpu`, `wgpu`, or `cuda` with `:n` for a further GPU.
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Sequences and tokens of a sequence in a step.
const BATCH: usize = 32;
const TOKENS: usize = 64;
const LEARNING_RATE: f64 = 1e-3;

pub(crate) fn run(arguments: &TinyArguments) -> Result<()> {
    let result = measure(arguments)?;
    if arguments.json {
        return result.print(true);
    }
    let seconds = median(result.steps.iter().map(|s| s.seconds).collect());
    println!(
        "{:.1} ms a step (median), {:.0} tokens/s, loss {:.4} to {:.4}, peak memory {}",
        1e3 * seconds,
        (BATCH * TOKENS) as f64 / seconds,
        result.steps.first().map_or(f64::NAN, |s| s.loss),
        result.steps.last().map_or(f64::NAN, |s| s.loss),
        memory::human(result.peak_bytes)
    );
    println!("{}", result.about_peak());
    Ok(())
}

/// Four layers of width 128 over 512 tokens: 1.1 million parameters, next-token loss, AdamW.
fn measure(arguments: &TinyArguments) -> Result<Steps> {
    let device = device::parse_to_train(&arguments.device)?;
    let Policy { decoder, tokenizer } = source::lab(&device, 0)?;
    let config = ModelConfig {
        vocab_size: 512,
        intermediate_size: 512,
        num_hidden_layers: 4,
        ..decoder.config
    };
    let params = Params::random(&config, Head::LanguageModel, 0, &device);
    let decoder = Decoder::new(config, params, device)?;
    let mut policy = Policy::new(decoder, tokenizer, "the small decoder")?;
    let mut rng = CounterRng::new(0, &[0x7469_6e79]);
    let batches: Vec<Vec<Vec<u32>>> = (0..4)
        .map(|_| {
            let ids = |rng: &mut CounterRng| (0..TOKENS).map(|_| rng.below(512) as u32).collect();
            (0..BATCH).map(|_| ids(&mut rng)).collect()
        })
        .collect();
    if let Some(folder) = &arguments.folder {
        hf::save(&policy, folder)?;
        let path = folder.join("batches.json");
        fs::write(&path, serde_json::to_vec(&batches)?)
            .with_context(|| path.display().to_string())?;
    }
    let train: Vec<Sample> = batches
        .iter()
        .flatten()
        .map(|ids| Sample::from_parts(&ids[..1], &ids[1..], &[]))
        .collect();
    let objective = Sft {
        train: &train,
        valid: &[],
    };
    let optim = steps::constant(LEARNING_RATE);
    let count = arguments.steps as usize;
    steps::take(
        &mut policy.decoder,
        &objective,
        BATCH,
        count,
        &optim,
        false,
        |decoder, batch| {
            let samples: Vec<&Sample> = batch.iter().map(|i| &train[*i]).collect();
            flops::training(decoder, &samples).total()
        },
    )
}
