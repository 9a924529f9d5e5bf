//! `cargo xtask eval likelihood`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use togi_data::{
    HhAs, LoadOptions, Located, LossOn, OverLong, PromptSample, Sample, TokenizeOptions, load_with,
    tokenize,
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
    if answering.system.is_some() || (arguments.no_kl && answering.control.is_set()) {
        let text = "--system, and with --no-kl what controls answers, is not read: the answers are the data's";
        return Err(InputError(text.to_owned()).into());
    }
    let device = answering.device()?;
    let mut records = Vec::new();
    for file in &arguments.data {
        records.extend(load_with(Path::new(file), &LoadOptions::default())?.records);
    }
    let records = answering.limited(records)?;
    let mut outcome = Outcome {
        suite: "likelihood".to_owned(),
        items: vec![String::new(); records.len()],
        seed: answering.seed,
        ..Outcome::default()
    };
    let mut first: Option<Policy> = None;
    for (spec, name) in answering.model.iter().zip(names(&answering.model)) {
        let policy = answering.load(spec, &device)?;
        // A row that is too long for this tokenizer has no value for this model.
        let rows = rows(&records, &policy, arguments.max_length)?;
        for (item, row) in outcome.items.iter_mut().zip(&rows) {
            if let Some((prompt, _)) = row {
                item.clone_from(&prompt.text);
            }
        }
        let whole: Vec<usize> = (0..rows.len()).filter(|i| rows[*i].is_some()).collect();
        let known: Vec<&(PromptSample, Sample)> = rows.iter().flatten().collect();
        let spread = |values: Vec<f64>| {
            let mut all = vec![None; rows.len()];
            for (place, value) in whole.iter().zip(values) {
                all[*place] = Some(value);
            }
            all
        };
        let weights = policy.decoder.frozen();
        let (mut per_token, mut total, mut tokens) = (Vec::new(), 0.0, 0.0);
        for part in known.chunks(8) {
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
        let mut measures = vec![Measure::new("NLL a token (nats)", spread(per_token))];
        let mut answers = Vec::new();
        if !arguments.no_kl {
            let reference = first.as_ref().unwrap_or(&policy);
            if !reference.tokenizer.reads_ids_of(&policy.tokenizer) {
                let text = format!(
                    "--model {spec}: its tokens are not the first model's, so their KL is not defined; give \
                     --no-kl"
                );
                return Err(InputError(text).into());
            }
            let asked: Vec<PromptSample> = known.iter().map(|(prompt, _)| prompt.clone()).collect();
            let drawn = answering.rollouts(&policy, &asked)?;
            let temperature = answering.sampling()?.temperature;
            let logps = BothLogps::of(&policy.decoder, &reference.decoder, &drawn, temperature)?;
            measures.push(Measure::new(
                "KL from the first (nats)",
                spread(logps.sequence_kl()),
            ));
            let lengths = drawn.iter().map(|r| r.completion().len() as f64);
            measures.push(Measure::new("length (tokens)", spread(lengths.collect())));
            answers = vec![String::new(); rows.len()];
            for (place, rollout) in whole.iter().zip(drawn) {
                answers[*place] = rollout.text;
            }
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

/// Each record's prompt and answer as this model reads them; none where they are too long.
fn rows(
    records: &[Located],
    policy: &Policy,
    max_length: usize,
) -> Result<Vec<Option<(PromptSample, Sample)>>> {
    let options = TokenizeOptions {
        max_length,
        over_long: OverLong::Truncate,
        loss_on: LossOn::Completion,
        hh: HhAs::Text,
    };
    let tokenizer = &policy.tokenizer;
    let row = |record: &Located| -> Result<Option<(PromptSample, Sample)>> {
        let prompt = tokenize::prompt(record, tokenizer, &options)?;
        Ok(prompt.zip(tokenize::sft(record, tokenizer, &options)?))
    };
    records.iter().map(row).collect()
}
