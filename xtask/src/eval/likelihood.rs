//! `cargo xtask eval likelihood`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use togi_data::{
    HhAs, LoadOptions, LossOn, OverLong, Sample, TokenizeOptions, load_with, tokenize,
};
use togi_policy::Policy;
use togi_train::rollout::BothLogps;

use super::{
    Answering, names,
    table::{Measure, Measured, Outcome},
};
use crate::InputError;

#[derive(Args)]
pub(crate) struct LikelihoodArguments {
    #[command(flatten)]
    answering: Answering,
    /// Files with answers (`messages`, `completion`, or the `chosen` side of pairs).
    #[arg(long, value_name = "FILE", required = true)]
    data: Vec<PathBuf>,
    /// Longest sample, in tokens; longer ones are cut.
    #[arg(long, default_value_t = 1024)]
    max_length: usize,
    /// Draw no answers: perplexity alone.
    #[arg(long)]
    no_kl: bool,
}

pub(crate) fn run(arguments: &LikelihoodArguments) -> Result<()> {
    let answering = &arguments.answering;
    let device = answering.device()?;
    let mut outcome = Outcome {
        suite: "likelihood".to_owned(),
        seed: answering.seed,
        ..Outcome::default()
    };
    let mut first: Option<Policy> = None;
    for (spec, name) in answering.model.iter().zip(names(&answering.model)) {
        let policy = answering.load(spec, &device)?;
        let rows = rows(arguments, &policy)?;
        outcome.items = rows.iter().map(|(text, _)| text.clone()).collect();
        let weights = policy.decoder.frozen();
        let (mut per_token, mut total, mut tokens) = (Vec::new(), 0.0, 0.0);
        for part in rows.chunks(8) {
            let samples: Vec<&Sample> = part.iter().map(|(_, sample)| sample).collect();
            let logps = policy.decoder.log_probs(&weights, &samples, 1.0)?;
            let sums = logps.sums().into_data().convert::<f32>();
            for (sum, len) in sums.iter::<f32>().zip(logps.lens.iter()) {
                let (sum, len) = (f64::from(sum), *len as f64);
                per_token.push(-sum / len.max(1.0));
                total -= sum;
                tokens += len;
            }
        }
        let mut measures = vec![Measure::whole("NLL a token (nats)", per_token)];
        let mut answers = Vec::new();
        if !arguments.no_kl {
            let reference = first.as_ref().unwrap_or(&policy);
            if reference.decoder.config.vocab_size != policy.decoder.config.vocab_size {
                let text = format!(
                    "--model {spec}: its vocabulary is not the first model's, so their KL is not defined; \
                     give --no-kl"
                );
                return Err(InputError(text).into());
            }
            let asked: Vec<togi_data::PromptSample> = rows
                .iter()
                .map(|(text, sample)| togi_data::PromptSample {
                    ids: sample.ids[..sample.scored().next().unwrap_or(sample.len())].to_vec(),
                    text: text.clone(),
                })
                .collect();
            let views: Vec<&togi_data::PromptSample> = asked.iter().collect();
            let (sampling, seed) = (answering.sampling()?, answering.seed);
            let drawn = togi_train::rollout::rollouts(
                &policy.decoder,
                &policy.tokenizer,
                &views,
                &sampling,
                seed,
                0,
            )?;
            let temperature = sampling.temperature;
            let logps = BothLogps::of(&policy.decoder, &reference.decoder, &drawn, temperature)?;
            measures.push(Measure::whole(
                "KL from the first (nats)",
                logps.sequence_kl(),
            ));
            let lengths = drawn.iter().map(|r| r.completion().len() as f64);
            measures.push(Measure::whole("length (tokens)", lengths));
            answers = drawn.into_iter().map(|r| r.text).collect();
        }
        outcome.systems.push(Measured {
            name,
            measures,
            totals: vec![
                (
                    "perplexity".to_owned(),
                    (total / f64::max(tokens, 1.0)).exp(),
                ),
                ("tokens".to_owned(), tokens),
            ],
            answers,
        });
        first.get_or_insert(policy);
    }
    outcome.finish(answering.out.as_deref())
}

/// The answers of the files, with the prompts' texts.
fn rows(arguments: &LikelihoodArguments, policy: &Policy) -> Result<Vec<(String, Sample)>> {
    let options = TokenizeOptions {
        max_length: arguments.max_length,
        over_long: OverLong::Truncate,
        loss_on: LossOn::Completion,
        hh: HhAs::Text,
    };
    let tokenizer = &policy.tokenizer;
    let mut rows = Vec::new();
    for file in &arguments.data {
        for row in load_with(Path::new(file), &LoadOptions::default())?.records {
            let prompt = tokenize::prompt(&row, tokenizer, &options)?;
            let sample = tokenize::sft(&row, tokenizer, &options)?;
            if let (Some(prompt), Some(sample)) = (prompt, sample) {
                rows.push((prompt.text, sample));
            }
        }
    }
    arguments.answering.limited(rows)
}
