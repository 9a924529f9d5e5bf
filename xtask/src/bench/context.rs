//! `cargo xtask bench context`: what a token costs in training, by how long its sequence is.

use anyhow::{Result, anyhow};
use clap::Args;
use serde::Serialize;
use togi_data::Sample;
use togi_policy::Decoder;
use togi_train::sft::Sft;

use super::{
    Common, at_least_one,
    flops::{self, Flops},
    load_to_train,
    offline::LEARNING_RATE,
    sampling::random_prompts,
    steps, stolen,
};
use crate::InputError;

#[derive(Args, Clone)]
pub(crate) struct ContextArguments {
    #[command(flatten)]
    common: Common,
    /// Lengths of sequences, in tokens.
    #[arg(long, value_delimiter = ',', default_value = "128,256,512,1024,2048")]
    lengths: Vec<usize>,
    /// Tokens a step: as many sequences of each length as that makes.
    #[arg(long, default_value_t = 2048)]
    tokens: usize,
    /// Steps of each length, in turn with the other lengths, in the order given and backwards by turns, backwards first;
    /// the fastest counts.
    #[arg(long, default_value_t = 3, value_parser = at_least_one())]
    repeats: u64,
    /// Exit with an error where the cost grows more than the arithmetic does.
    #[arg(long)]
    check: bool,
}

/// What a token costs at one length.
#[derive(Clone, Debug, Serialize)]
struct Cost {
    /// Tokens of a sequence.
    length: usize,
    /// Milliseconds of a training step for each of its tokens.
    milliseconds_per_token: f64,
    /// Operations for each token, in GFLOP.
    gflop_per_token: f64,
    /// Attention's part of them.
    attention_share: f64,
    /// The cost beside that of the first length.
    growth: f64,
    /// The operations beside those of the first length: what the cost may grow to.
    growth_of_flops: f64,
}

/// By how much the cost may grow beyond the arithmetic before it is called a cliff: times differ from run to run.
const SLACK: f64 = 0.15;

/// A random sequence is scored whole; the model learns nothing from it, which costs as much.
pub(crate) fn run(arguments: &ContextArguments) -> Result<()> {
    let mut policy = load_to_train(&arguments.common)?;
    let (costs, stolen) = stolen::during(|| measure(arguments, &mut policy.decoder))?;
    if arguments.common.json {
        println!("{}", serde_json::to_string(&costs)?);
    } else {
        println!("context  ms/token  GFLOP/token  attention  cost grows  arithmetic grows");
        for cost in &costs {
            println!(
                "{:>7}  {:>8.3}  {:>11.3}  {:>8.1}%  {:>9.2}x  {:>15.2}x",
                cost.length,
                cost.milliseconds_per_token,
                cost.gflop_per_token,
                100.0 * cost.attention_share,
                cost.growth,
                cost.growth_of_flops
            );
        }
    }
    let beyond = cliff(&costs);
    if !arguments.common.json {
        if let Some(share) = stolen {
            println!("stolen from the processor meanwhile: {:.0}%", 100.0 * share);
        }
        println!(
            "{}",
            beyond.clone().unwrap_or_else(|| format!(
                "the cost of a token grows no more than its arithmetic (within {:.0}%)",
                100.0 * SLACK
            ))
        );
    }
    match beyond {
        Some(text) if arguments.check => Err(anyhow!(text)),
        _ => Ok(()),
    }
}

/// Says where the cost grows more than the arithmetic, if it does.
fn cliff(costs: &[Cost]) -> Option<String> {
    let over = |cost: &&Cost| cost.growth > cost.growth_of_flops * (1.0 + SLACK);
    costs.iter().find(over).map(|cost| {
        format!(
            "at {} tokens a token costs {:.2} times as much as at {}, where its arithmetic grows to {:.2} times",
            cost.length, cost.growth, costs[0].length, cost.growth_of_flops
        )
    })
}

fn measure(arguments: &ContextArguments, decoder: &mut Decoder) -> Result<Vec<Cost>> {
    let limit = decoder.config.max_position_embeddings;
    for length in &arguments.lengths {
        if !(2..=limit).contains(length) || *length > arguments.tokens {
            let text = format!(
                "--lengths {length}: must be from 2 to {limit}, which the model reads, and not more than --tokens"
            );
            return Err(InputError(text).into());
        }
    }
    let batches: Vec<Vec<Sample>> = arguments
        .lengths
        .iter()
        .map(|length| batch(decoder, *length, arguments.tokens / length))
        .collect();
    let mut best = vec![f64::INFINITY; batches.len()];
    // The first round warms up.
    for round in 0..=arguments.repeats {
        let mut turns: Vec<(&Vec<Sample>, &mut f64)> = batches.iter().zip(&mut best).collect();
        if round % 2 == 1 {
            turns.reverse();
        }
        for (train, best) in turns {
            let objective = Sft { train, valid: &[] };
            let optim = steps::constant(LEARNING_RATE);
            let taken = steps::take_only(
                decoder,
                &objective,
                train.len(),
                1,
                &optim,
                false,
                |_, _| 0.0,
            )?;
            if round > 0 {
                *best = best.min(taken[0].seconds);
            }
        }
    }
    let of = |train: &Vec<Sample>| -> (f64, Flops) {
        let tokens: usize = train.iter().map(Sample::len).sum();
        let samples: Vec<&Sample> = train.iter().collect();
        (tokens as f64, flops::training(decoder, &samples))
    };
    let costs = batches.iter().zip(best).map(|(train, seconds)| {
        let (tokens, flops) = of(train);
        (
            seconds / tokens,
            flops.total() / tokens,
            flops.attention / flops.total(),
        )
    });
    let costs: Vec<(f64, f64, f64)> = costs.collect();
    let first = costs[0];
    let costs = arguments.lengths.iter().zip(costs);
    Ok(costs
        .map(|(length, (seconds, flops, share))| Cost {
            length: *length,
            milliseconds_per_token: 1e3 * seconds,
            gflop_per_token: flops / 1e9,
            attention_share: share,
            growth: seconds / first.0,
            growth_of_flops: flops / first.1,
        })
        .collect())
}

fn batch(decoder: &Decoder, length: usize, count: usize) -> Vec<Sample> {
    random_prompts(count, length, decoder.config.vocab_size)
        .into_iter()
        .map(|ids| Sample::from_parts(&ids[..1], &ids[1..], &[]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(length: usize, growth: f64, growth_of_flops: f64) -> Cost {
        Cost {
            length,
            milliseconds_per_token: growth,
            gflop_per_token: growth_of_flops,
            attention_share: 0.1,
            growth,
            growth_of_flops,
        }
    }

    #[test]
    fn a_cost_that_grows_more_than_the_arithmetic_is_a_cliff() {
        let fair = [cost(128, 1.0, 1.0), cost(2048, 1.3, 1.25)];
        assert_eq!(cliff(&fair), None);
        let steep = [cost(128, 1.0, 1.0), cost(1024, 1.4, 1.1)];
        let text = cliff(&steep).unwrap();
        assert!(
            text.contains("at 1024 tokens") && text.contains("1.40"),
            "{text}"
        );
    }
}
