//! `cargo xtask eval instructions`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use togi_eval::ifeval::{self, Outcome as Verdict, Prompt, Summary};

use super::{
    Answering, Answers, read,
    table::{Measure, Measured, Outcome},
};

#[derive(Args)]
pub(crate) struct InstructionArguments {
    #[command(flatten)]
    answering: Answering,
    /// Prompts with `instruction_id_list` and `kwargs`, as IFEval's (JSONL); without it, Togi's own.
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
}

pub(crate) fn run(arguments: &InstructionArguments) -> Result<()> {
    let answering = &arguments.answering;
    let prompts = match &arguments.data {
        None => ifeval::set()?,
        Some(path) => read(path, ifeval::prompts)?,
    };
    let prompts: Vec<Prompt> = answering.limited(prompts)?;
    let texts: Vec<String> = prompts.iter().map(|p| p.prompt.clone()).collect();
    let mut outcome = Outcome {
        suite: "instructions".to_owned(),
        items: texts.clone(),
        seed: answering.seed,
        ..Outcome::default()
    };
    let mut summaries = Vec::new();
    answering.each_model(&texts, |answers| {
        let Answers {
            name,
            texts: answers,
            lengths,
        } = answers;
        let verdicts: Vec<Verdict> = prompts
            .iter()
            .zip(&answers)
            .map(|(prompt, answer)| Verdict::of(&prompt.instructions, answer))
            .collect();
        let summary = Summary::of(&verdicts);
        let share = |holds: &[bool]| {
            Some(holds.iter().filter(|h| **h).count() as f64 / holds.len().max(1) as f64)
        };
        outcome.systems.push(Measured {
            name: name.clone(),
            measures: vec![
                Measure::holds(
                    "prompts, strict",
                    verdicts.iter().map(Verdict::prompt_strict),
                ),
                Measure::holds("prompts, loose", verdicts.iter().map(Verdict::prompt_loose)),
                // The share of a prompt's instructions, so that prompts can be resampled.
                Measure::new(
                    "instructions a prompt, strict",
                    verdicts.iter().map(|v| share(&v.strict)).collect(),
                ),
                Measure::new(
                    "instructions a prompt, loose",
                    verdicts.iter().map(|v| share(&v.loose)).collect(),
                ),
                Measure::whole("length (tokens)", lengths),
            ],
            totals: vec![
                (
                    "instructions, strict".to_owned(),
                    summary.instruction_strict.accuracy(),
                ),
                (
                    "instructions, loose".to_owned(),
                    summary.instruction_loose.accuracy(),
                ),
            ],
            answers,
        });
        summaries.push((name, summary));
        Ok(())
    })?;
    let mut heading = vec![String::new(), "instructions".to_owned()];
    heading.extend(
        summaries
            .iter()
            .map(|(name, _)| format!("{name}, strict / loose")),
    );
    let rows = match summaries.first() {
        None => Vec::new(),
        Some((_, first)) => first
            .kinds
            .iter()
            .enumerate()
            .map(|(i, kind)| {
                let mut row = vec![kind.name.clone(), kind.strict.of.to_string()];
                row.extend(summaries.iter().map(|(_, summary)| {
                    let kind = &summary.kinds[i];
                    format!(
                        "{:.2} / {:.2}",
                        kind.strict.accuracy(),
                        kind.loose.accuracy()
                    )
                }));
                row
            })
            .collect(),
    };
    let note = "Shares of the instructions of each kind that were followed.".to_owned();
    outcome
        .tables
        .push(("By kind".to_owned(), (heading, rows), note));
    outcome.finish(answering.out.as_deref())
}
