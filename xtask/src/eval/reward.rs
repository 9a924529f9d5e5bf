//! `cargo xtask eval reward`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use togi_data::{
    HhAs, LoadOptions, Located, LossOn, OverLong, PairSample, Record, Sample, TokenizeOptions,
    Tokenizer, load_with, tokenize,
};
use togi_eval::calibration::{CALIBRATION_BINS, Calibration, LengthBias};
use togi_reward::{LabGold, Reward, RewardModel, Scorable};

use super::{
    names,
    table::{Measure, Measured, Outcome},
};
use crate::{InputError, device, scorer::reward_model};

#[derive(Args)]
pub(crate) struct RewardSuiteArguments {
    /// A reward model's folder, or `lab`; several are compared with the first.
    #[arg(long, value_name = "SRC", required = true)]
    reward: Vec<String>,
    /// Pairs: `prompt`, `chosen`, `rejected`, or HH dialogues.
    #[arg(long, value_name = "FILE", required = true)]
    data: Vec<PathBuf>,
    /// Longest sample, in tokens; longer ones are cut.
    #[arg(long, default_value_t = 512)]
    max_length: usize,
    /// Only the first N pairs.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Of the bootstrap.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Write report.html, results.json and answers.jsonl into this folder.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// `cpu`, `wgpu`, or `cuda` with `:n` for a further GPU.
    #[arg(long, default_value = "cpu")]
    device: String,
}

pub(crate) fn run(arguments: &RewardSuiteArguments) -> Result<()> {
    let device = device::parse(&arguments.device)?;
    let mut records = Vec::new();
    for file in &arguments.data {
        records.extend(load_with(Path::new(file), &LoadOptions::default())?.records);
    }
    records.truncate(arguments.limit.unwrap_or(usize::MAX));
    if records.is_empty() {
        return Err(InputError("--data: no pair to score".to_owned()).into());
    }
    let mut outcome = Outcome {
        suite: "reward".to_owned(),
        items: records.iter().map(prompt_of).collect(),
        seed: arguments.seed,
        ..Outcome::default()
    };
    for (spec, name) in arguments.reward.iter().zip(names(&arguments.reward)) {
        let (reward, tokenizer): (Box<dyn Reward>, Tokenizer) = if spec == "lab" {
            (Box::new(LabGold), togi_data::lab::tokenizer()?)
        } else {
            let model = reward_model(spec, &device, arguments.seed)?;
            (
                Box::new(RewardModel::new(
                    model.decoder,
                    model.tokenizer.answer_frame(),
                    8,
                )),
                model.tokenizer,
            )
        };
        // A pair that is too long for this tokenizer has no margin by this reward.
        let pairs = pairs(&records, &tokenizer, arguments.max_length)?;
        let margins = margins(&*reward, &pairs, &tokenizer);
        let known: Vec<f64> = margins.iter().copied().flatten().collect();
        let longer: Vec<f64> = margins
            .iter()
            .zip(&pairs)
            .filter(|(margin, _)| margin.is_some())
            .filter_map(|(_, pair)| {
                let (_, pair) = pair.as_ref()?;
                Some(pair.chosen.len() as f64 - pair.rejected.len() as f64)
            })
            .collect();
        let mut totals = Vec::new();
        if !known.is_empty() {
            let calibration = Calibration::of_margins(&known, CALIBRATION_BINS);
            let bias = LengthBias::of(&known, &longer);
            totals = vec![("ECE".to_owned(), calibration.expected_error())];
            let mut add = |name: &str, value: f64, count: usize| {
                if count > 0 {
                    totals.push((name.to_owned(), value));
                }
            };
            let (longer, shorter) = (bias.where_longer, bias.where_shorter);
            let both = longer.1 + shorter.1;
            add("correlation of margin and length", bias.correlation, both);
            add("the longer answer wins", bias.longer_wins, both);
            add("accuracy where the longer is better", longer.0, longer.1);
            add("accuracy where the shorter is better", shorter.0, shorter.1);
        }
        // A tie is half right: it says nothing.
        let right = |margin: &Option<f64>| {
            margin.map(|m| {
                if m == 0.0 {
                    0.5
                } else {
                    f64::from(u8::from(m > 0.0))
                }
            })
        };
        outcome.systems.push(Measured {
            name,
            measures: vec![
                Measure::new("accuracy", margins.iter().map(right).collect()),
                Measure::new("margin", margins),
            ],
            totals,
            answers: Vec::new(),
        });
    }
    outcome.finish(arguments.out.as_deref())
}

/// The prompts and pairs as this tokenizer reads them; none where they are too long.
fn pairs(
    records: &[Located],
    tokenizer: &Tokenizer,
    max_length: usize,
) -> Result<Vec<Option<(String, PairSample)>>> {
    let options = TokenizeOptions {
        max_length,
        over_long: OverLong::Truncate,
        loss_on: LossOn::Completion,
        hh: HhAs::Text,
    };
    let pair = |row: &Located| -> Result<Option<(String, PairSample)>> {
        let pair = tokenize::pair(row, tokenizer, &options)?;
        Ok(pair.map(|pair| (prompt_of(row), pair)))
    };
    records.iter().map(pair).collect()
}

fn prompt_of(row: &Located) -> String {
    match &row.record {
        Record::Preference { prompt, .. } => prompt.text(),
        _ => String::new(),
    }
}

/// By how much the reward likes the chosen answers better; none where it cannot score both.
fn margins(
    reward: &dyn Reward,
    pairs: &[Option<(String, PairSample)>],
    tokenizer: &Tokenizer,
) -> Vec<Option<f64>> {
    let side = |sample: &Sample| {
        let start = sample.scored().next().unwrap_or(sample.len());
        (start, tokenizer.decode(&sample.ids[start..]))
    };
    let sides: Vec<_> = pairs
        .iter()
        .flatten()
        .flat_map(|(prompt, pair)| {
            [&pair.chosen, &pair.rejected].map(|sample| (prompt, sample, side(sample)))
        })
        .collect();
    let all: Vec<Scorable<'_>> = sides
        .iter()
        .map(|(prompt, sample, (start, text))| Scorable {
            prompt,
            prompt_ids: &sample.ids[..*start],
            completion: text,
            completion_ids: &sample.ids[*start..],
        })
        .collect();
    let scores = reward.score(&all);
    let mut scored = scores.chunks(2);
    pairs
        .iter()
        .map(|pair| {
            pair.as_ref()?;
            match scored.next()? {
                [Ok(chosen), Ok(rejected)] => Some(chosen.value - rejected.value),
                _ => None,
            }
        })
        .collect()
}
