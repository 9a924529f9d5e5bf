//! `cargo xtask bench generate`: sampling from random prompts.

use std::time::Instant;

use anyhow::Result;
use clap::Args;
use serde::{Deserialize, Serialize};
use togi_data::rng::CounterRng;
use togi_policy::{Sampling, generate, source::Source};
use togi_train::memory;

use super::{Common, at_least_one, device, median};

#[derive(Args, Clone)]
pub(crate) struct GenerateArguments {
    #[command(flatten)]
    common: Common,
    /// Sequences at a time.
    #[arg(long, default_value_t = 16, value_parser = at_least_one())]
    batch: u64,
    /// Tokens of a prompt.
    #[arg(long, default_value_t = 64, value_parser = at_least_one())]
    prompt: u64,
    /// Tokens of a completion.
    #[arg(long, default_value_t = 96, value_parser = at_least_one())]
    new: u64,
    /// Hold weights in eight bits.
    #[arg(long)]
    int8: bool,
    /// Repetitions.
    #[arg(long, default_value_t = 3, value_parser = at_least_one())]
    repeats: u64,
}

/// What sampling came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Rates {
    /// Of each repetition.
    pub(crate) tokens_per_second: Vec<f64>,
    /// The most memory that the program used.
    pub(crate) peak_bytes: u64,
}

pub(crate) fn run(arguments: &GenerateArguments) -> Result<()> {
    let result = measure(arguments)?;
    if arguments.common.json {
        println!("{}", serde_json::to_string(&result)?);
    } else {
        println!(
            "{:.1} tokens/s (median of {}), peak memory {}",
            median(result.tokens_per_second),
            arguments.repeats,
            memory::human(result.peak_bytes)
        );
    }
    Ok(())
}

/// Token ids that any model with a vocabulary of some thousands has.
pub(crate) fn random_prompts(count: usize, tokens: usize, vocabulary: usize) -> Vec<Vec<u32>> {
    let mut rng = CounterRng::new(0, &[0x6265_6e63]);
    let low = (vocabulary / 100).min(300);
    let ids = |rng: &mut CounterRng| (low + rng.below(vocabulary / 2 - low)) as u32;
    (0..count)
        .map(|_| (0..tokens).map(|_| ids(&mut rng)).collect())
        .collect()
}

fn measure(arguments: &GenerateArguments) -> Result<Rates> {
    let Common { model, device, .. } = &arguments.common;
    let device = device::parse(device)?;
    let mut policy = Source::parse(model)?.load(&device, 0)?;
    if arguments.int8 {
        device::hold_in_int8(&mut policy)?;
    }
    let (batch, prompt) = (arguments.batch as usize, arguments.prompt as usize);
    let (new, repeats) = (arguments.new as usize, arguments.repeats);
    let vocabulary = policy.decoder.config.vocab_size;
    let prompts = random_prompts(batch, prompt, vocabulary);
    let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    let weights = policy.decoder.into_sampling();
    let streams: Vec<u64> = (0..prompts.len() as u64).collect();
    let mut rates = Vec::new();
    let draw = |new: usize, seed: u64| {
        let sampling = Sampling {
            max_new_tokens: new,
            batch_size: batch,
            ..Sampling::default()
        };
        let decoder = &policy.decoder;
        generate(decoder, &weights, &prompts, &[], &sampling, seed, &streams)
    };
    draw(8.min(new), 0)?;
    for repeat in 0..repeats {
        let started = Instant::now();
        let drawn = draw(new, repeat)?;
        let tokens: usize = drawn.iter().map(|d| d.ids.len()).sum();
        rates.push(tokens as f64 / started.elapsed().as_secs_f64());
    }
    Ok(Rates {
        tokens_per_second: rates,
        peak_bytes: memory::peak_of(policy.decoder.device()).unwrap_or(0),
    })
}
