//! `cargo xtask eval math`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use togi_eval::exact::{self, Grade, Problem};

use super::{
    Answering, Answers, read,
    table::{Measure, Measured, Outcome},
};

#[derive(Args)]
pub(crate) struct MathArguments {
    #[command(flatten)]
    answering: Answering,
    /// Problems with `question` and `answer`, as GSM8K's (JSONL); without it, Togi's own.
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
}

pub(crate) fn run(arguments: &MathArguments) -> Result<()> {
    let answering = &arguments.answering;
    let problems: Vec<Problem> = match &arguments.data {
        None => exact::set()?,
        Some(path) => read(path, exact::problems)?,
    };
    let problems = answering.limited(problems)?;
    let texts: Vec<String> = problems.iter().map(|p| p.question.clone()).collect();
    let mut outcome = Outcome {
        suite: "math".to_owned(),
        items: texts.clone(),
        seed: answering.seed,
        ..Outcome::default()
    };
    answering.each_model(&texts, |answers| {
        let Answers {
            name,
            texts: answers,
            lengths,
        } = answers;
        let grades: Vec<Grade> = problems
            .iter()
            .zip(&answers)
            .map(|(problem, answer)| problem.grade(answer))
            .collect();
        // An answer without a number solves nothing: that is no matter of scoring.
        let solved = grades.iter().map(|g| *g == Grade::Correct);
        let numbered = grades.iter().map(|g| *g != Grade::Unscorable);
        outcome.systems.push(Measured {
            name,
            measures: vec![
                Measure::holds("solved", solved),
                Measure::holds("has a number", numbered),
                Measure::whole("length (tokens)", lengths),
            ],
            totals: Vec::new(),
            answers,
        });
        Ok(())
    })?;
    outcome.finish(answering.out.as_deref())
}
