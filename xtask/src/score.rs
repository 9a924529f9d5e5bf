//! `cargo xtask score`: what a reward says of answers in files.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};
use togi_data::{
    BadRows, DataError, HhAs, LoadOptions, LossOn, OverLong, Record, Sample, TokenizeOptions,
    Tokenizer, load_with, tokenize,
};
use togi_eval::{
    bootstrap::{Interval, mean_interval},
    calibration::{CALIBRATION_BINS, Calibration, LengthBias},
};
use togi_reward::{LabGold, Reward, RewardModel, Scorable};

use crate::{InputError, device, scorer::reward_model};

#[derive(Args)]
pub(crate) struct ScoreArguments {
    /// `lab`, or the folder or run folder of a reward model.
    #[arg(long, value_name = "SRC")]
    reward: String,
    /// Pairs (`chosen`, `rejected`), or answers (`completion`, `messages`).
    #[arg(long, value_name = "FILE", required = true)]
    data: Vec<PathBuf>,
    /// Write one JSON object a row to this file.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Longest sample, in tokens; longer ones are cut.
    #[arg(long, default_value_t = 512)]
    max_length: usize,
    /// Answers that are scored at a time.
    #[arg(long, default_value_t = 8)]
    batch_size: usize,
    /// Leave out rows that cannot be used, and count them.
    #[arg(long)]
    skip_bad_rows: bool,
    /// How HH dialogues are shown to the reward model.
    #[arg(long, value_enum, default_value = "text")]
    hh: Hh,
    /// `cpu`, `wgpu`, or `cuda` with `:n` for a further GPU.
    #[arg(long, default_value = "cpu")]
    device: String,
}

#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum Hh {
    Text,
    Messages,
}

impl From<Hh> for HhAs {
    fn from(hh: Hh) -> Self {
        match hh {
            Hh::Text => Self::Text,
            Hh::Messages => Self::Messages,
        }
    }
}

/// An answer to score, as ids and as text.
struct Answer {
    prompt: String,
    text: String,
    sample: Sample,
    prompt_len: usize,
}

impl Answer {
    fn new(prompt: String, sample: Sample, tokenizer: &Tokenizer) -> Self {
        let prompt_len = sample.scored().next().unwrap_or(sample.len());
        Self {
            prompt,
            text: tokenizer.decode(&sample.ids[prompt_len..]),
            sample,
            prompt_len,
        }
    }

    fn scorable(&self) -> Scorable<'_> {
        Scorable {
            prompt: &self.prompt,
            prompt_ids: &self.sample.ids[..self.prompt_len],
            completion: &self.text,
            completion_ids: &self.sample.ids[self.prompt_len..],
        }
    }
}

/// A row's answers: one, or the chosen and the rejected one.
struct Row {
    place: String,
    answers: Vec<Answer>,
}

pub(crate) fn run(arguments: &ScoreArguments) -> Result<()> {
    let device = device::parse(&arguments.device)?;
    let (reward, tokenizer): (Box<dyn Reward>, Tokenizer) = if arguments.reward == "lab" {
        (Box::new(LabGold), togi_data::lab::tokenizer()?)
    } else {
        let model = reward_model(&arguments.reward, &device, 0)?;
        let reward = RewardModel::new(
            model.decoder,
            model.tokenizer.answer_frame(),
            arguments.batch_size,
        );
        (Box::new(reward), model.tokenizer)
    };
    let (rows, skipped) = rows(arguments, &tokenizer)?;
    if rows.is_empty() {
        return Err(InputError("--data: no row to score".to_owned()).into());
    }
    let all: Vec<Scorable<'_>> = rows
        .iter()
        .flat_map(|row| row.answers.iter().map(Answer::scorable))
        .collect();
    let mut scores = reward.score(&all).into_iter();
    let mut out = match &arguments.out {
        Some(path) => {
            let file = File::create(path).with_context(|| path.display().to_string())?;
            Some((path, BufWriter::new(file)))
        }
        None => None,
    };
    let mut told = Told::default();
    for row in &rows {
        let results: Vec<_> = scores.by_ref().take(row.answers.len()).collect();
        let mut values = Vec::with_capacity(results.len());
        let mut reasons = Vec::new();
        for result in results {
            match result {
                Ok(score) => values.push(score.value),
                Err(reason) => reasons.push(reason.to_string()),
            }
        }
        if let Some((path, file)) = &mut out {
            let object = object(row, &values, &reasons);
            writeln!(file, "{object}").with_context(|| path.display().to_string())?;
        }
        let longer_by = match &row.answers[..] {
            [chosen, rejected] => chosen.sample.len() as f64 - rejected.sample.len() as f64,
            _ => 0.0,
        };
        told.add(&row.place, &values, longer_by, reasons);
    }
    if let Some((path, file)) = &mut out {
        file.flush().with_context(|| path.display().to_string())?;
    }
    println!(
        "{} rows scored by {}, {skipped} left out",
        rows.len(),
        reward.name()
    );
    told.print()
}

fn object(row: &Row, values: &[f64], reasons: &[String]) -> Value {
    let mut object = match (&row.answers[..], values) {
        ([a, b], [chosen, rejected]) => json!({
            "prompt": a.prompt, "chosen": a.text, "rejected": b.text,
            "score_chosen": chosen, "score_rejected": rejected, "margin": chosen - rejected,
        }),
        ([a], [score]) => json!({"prompt": a.prompt, "completion": a.text, "score": score}),
        (answers, _) => json!({"prompt": answers.first().map_or("", |a| &a.prompt)}),
    };
    if !reasons.is_empty() {
        object["unscorable"] = json!(reasons);
    }
    object["place"] = json!(row.place);
    object
}

/// What is said at the end.
#[derive(Default)]
struct Told {
    scores: Vec<f64>,
    margins: Vec<f64>,
    /// By how many tokens the chosen answer of each margin is the longer one.
    longer_by: Vec<f64>,
    unscorable: Vec<String>,
}

impl Told {
    fn add(&mut self, place: &str, values: &[f64], longer_by: f64, reasons: Vec<String>) {
        if let Some(reason) = reasons.first() {
            self.unscorable.push(format!("{place}: {reason}"));
            return;
        }
        match values {
            [chosen, rejected] => {
                self.margins.push(chosen - rejected);
                self.longer_by.push(longer_by);
            }
            _ => self.scores.extend(values),
        }
    }

    fn print(&self) -> Result<()> {
        let show = |name: &str, Interval { value, low, high }: Interval| {
            println!("{name:<10} {value:.4}  (95% interval {low:.4} to {high:.4})");
        };
        if !self.scores.is_empty() {
            show("score", mean_interval("scores", &self.scores, 0)?);
        }
        if !self.margins.is_empty() {
            // A tie is half right: it says nothing.
            let right = |m: &f64| {
                if *m == 0.0 {
                    0.5
                } else {
                    f64::from(u8::from(*m > 0.0))
                }
            };
            let right: Vec<f64> = self.margins.iter().map(right).collect();
            show("accuracy", mean_interval("accuracy", &right, 0)?);
            show("margin", mean_interval("margins", &self.margins, 0)?);
            self.print_calibration();
        }
        if !self.unscorable.is_empty() {
            println!("{} rows are unscorable:", self.unscorable.len());
            for reason in self.unscorable.iter().take(5) {
                println!("  {reason}");
            }
        }
        Ok(())
    }
}

impl Told {
    /// How sure the reward is and how often right, and how far it follows length.
    fn print_calibration(&self) {
        let calibration = Calibration::of_margins(&self.margins, CALIBRATION_BINS);
        println!("ECE        {:.4}", calibration.expected_error());
        println!("  confidence  accuracy  pairs");
        for bin in calibration.bins.iter().filter(|bin| bin.count > 0) {
            let (confidence, accuracy) = (bin.confidence, bin.accuracy);
            println!("  {confidence:>10.3}  {accuracy:>8.3}  {:>5}", bin.count);
        }
        let bias = LengthBias::of(&self.margins, &self.longer_by);
        println!(
            "length     correlation {:.3}; the longer answer wins {:.3} of pairs; accuracy {:.3} \
             where it is the better one ({} pairs), {:.3} where it is not ({})",
            bias.correlation,
            bias.longer_wins,
            bias.where_longer.0,
            bias.where_longer.1,
            bias.where_shorter.0,
            bias.where_shorter.1
        );
    }
}

/// The rows of all files, tokenised, and how many were left out.
fn rows(arguments: &ScoreArguments, tokenizer: &Tokenizer) -> Result<(Vec<Row>, usize)> {
    let load = LoadOptions {
        bad_rows: if arguments.skip_bad_rows {
            BadRows::Skip
        } else {
            BadRows::Error
        },
        ..LoadOptions::default()
    };
    let options = TokenizeOptions {
        max_length: arguments.max_length,
        over_long: OverLong::Truncate,
        loss_on: LossOn::Completion,
        hh: arguments.hh.into(),
    };
    let (mut rows, mut skipped) = (Vec::new(), 0);
    for file in &arguments.data {
        let dataset = load_with(Path::new(file), &load)?;
        skipped += dataset.skipped.len();
        for row in dataset.records {
            let (prompt, samples) = match &row.record {
                Record::Preference { prompt, .. } => {
                    let pair = tokenize::pair(&row, tokenizer, &options);
                    (
                        prompt.text(),
                        pair.map(|p| p.map(|p| vec![p.chosen, p.rejected])),
                    )
                }
                other => {
                    let prompt = match other {
                        Record::PromptCompletion { prompt, .. } => prompt.text(),
                        _ => String::new(),
                    };
                    let sample = tokenize::sft(&row, tokenizer, &options);
                    (prompt, sample.map(|s| s.map(|s| vec![s])))
                }
            };
            match samples {
                Ok(Some(samples)) => rows.push(Row {
                    place: row.place,
                    answers: samples
                        .into_iter()
                        .map(|sample| Answer::new(prompt.clone(), sample, tokenizer))
                        .collect(),
                }),
                Ok(None) => skipped += 1,
                Err(DataError::Row { .. }) if arguments.skip_bad_rows => skipped += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok((rows, skipped))
}
