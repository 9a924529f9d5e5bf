//! `cargo xtask eval diversity`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use togi_eval::{
    diversity::{Diversity, Output, Scores},
    questions,
};
use togi_policy::{Packed, Policy};

use super::{
    Answering, names, prompts_of,
    table::{Measure, Measured, Outcome},
};
use crate::InputError;

#[derive(Args)]
pub(crate) struct DiversityArguments {
    #[command(flatten)]
    answering: Answering,
    /// `lab`, or files with prompts, in any of the layouts that `train` reads; without it, questions of
    /// Togi's own.
    #[arg(long, value_name = "FILE")]
    data: Vec<PathBuf>,
    /// Answers to each prompt.
    #[arg(long, value_name = "N", default_value_t = 8)]
    samples: usize,
    /// A model whose last hidden states, averaged over an answer's tokens, are its embedding: adds the mean
    /// cosine distance of embeddings.
    #[arg(long, value_name = "SRC")]
    embed_with: Option<String>,
}

pub(crate) fn run(arguments: &DiversityArguments) -> Result<()> {
    let answering = &arguments.answering;
    let each = arguments.samples;
    if each < 2 {
        let text =
            "--samples: must be at least 2: answers to a prompt are compared with one another";
        return Err(InputError(text.to_owned()).into());
    }
    let device = answering.device()?;
    let embedder = match &arguments.embed_with {
        Some(spec) => Some(answering.load(spec, &device)?),
        None => None,
    };
    let mut outcome = Outcome {
        suite: "diversity".to_owned(),
        seed: answering.seed,
        ..Outcome::default()
    };
    for (spec, name) in answering.model.iter().zip(names(&answering.model)) {
        let policy = answering.load(spec, &device)?;
        if outcome.items.is_empty() {
            let texts = match &arguments.data[..] {
                [] => questions::set()?.into_iter().map(|q| q.prompt).collect(),
                files => prompts_of(files, &policy)?,
            };
            outcome.items = answering.limited(texts)?;
        }
        let asked = answering.asked(&policy, &outcome.items)?;
        let drawn = answering.answers(&policy, &asked, each)?;
        let texts: Vec<String> = drawn.iter().map(|a| a.text.clone()).collect();
        let embeddings: Option<Vec<Vec<f64>>> = match &embedder {
            Some(embedder) => Some(
                texts
                    .iter()
                    .map(|text| embedding(embedder, text))
                    .collect::<Result<_>>()?,
            ),
            None => None,
        };
        let each_output: Vec<Output<'_, u32>> = drawn
            .iter()
            .zip(&texts)
            .enumerate()
            .map(|(i, (answer, text))| Output {
                tokens: &answer.generation.ids,
                text,
                embedding: embeddings.as_ref().map(|all| &all[i][..]),
            })
            .collect();
        let outputs: Vec<Vec<Output<'_, u32>>> =
            each_output.chunks(each).map(<[_]>::to_vec).collect();
        let vocabulary = policy.tokenizer.vocab_size();
        let all = Diversity::of(&outputs, vocabulary)?;
        let mut totals = Vec::new();
        for (where_, scores) in [
            ("per input", &all.per_input),
            ("across inputs", &all.across_inputs),
        ] {
            if let Some(scores) = scores {
                totals.extend(rows(where_, scores));
            }
        }
        let own = |group: &Vec<Output<'_, u32>>| Scores::of(group, vocabulary).ok();
        let groups: Vec<Option<Scores>> = outputs.iter().map(own).collect();
        let of =
            |value: &dyn Fn(&Scores) -> f64| groups.iter().map(|g| g.as_ref().map(value)).collect();
        outcome.systems.push(Measured {
            name,
            measures: vec![
                Measure::new("EAD of a prompt's answers", of(&|s| s.adjusted_distinct)),
                Measure::new("self-BLEU of a prompt's answers", of(&|s| s.self_bleu)),
                Measure::new(
                    "compression of a prompt's answers",
                    of(&|s| s.compression_ratio),
                ),
            ],
            totals,
            answers: texts
                .chunks(each)
                .map(|texts| texts.join("\n---\n"))
                .collect(),
        });
    }
    outcome.notes.push(format!(
        "{each} answers to each prompt. Per input: means over prompts of their answers' diversity; across \
         inputs: of one answer to each prompt. distinct-n and EAD are means over n = 1 to 5 of token runs."
    ));
    outcome.finish(answering.out.as_deref())
}

/// The mean of the last hidden states of a text's tokens; of an empty one, of the end token.
fn embedding(model: &Policy, text: &str) -> Result<Vec<f64>> {
    let Policy { decoder, tokenizer } = model;
    let mut ids = tokenizer.encode_text(text)?;
    if ids.is_empty() {
        ids.extend(tokenizer.eos_ids().first());
    }
    ids.truncate(decoder.config.max_position_embeddings);
    let hidden = decoder.hidden(&decoder.frozen(), &Packed::new([&ids[..]]))?;
    let [_, width] = hidden.dims();
    let mean = hidden.mean_dim(0).reshape([width]);
    let data = mean.into_data().convert::<f32>();
    Ok(data.iter::<f32>().map(f64::from).collect())
}

fn rows(place: &str, scores: &Scores) -> Vec<(String, f64)> {
    let distance = scores.embedding_distance;
    let distance = distance.map(|d| (format!("embedding distance, {place}"), d));
    let others = vec![
        (format!("distinct-n, {place}"), scores.distinct),
        (format!("EAD, {place}"), scores.adjusted_distinct),
        (format!("self-BLEU, {place}"), scores.self_bleu),
        (
            format!("compression ratio, {place}"),
            scores.compression_ratio,
        ),
    ];
    others.into_iter().chain(distance).collect()
}
