//! How `generate`, `chat` and `eval` control what a model says: rules, choice by a reward, a guard.

use std::{path::PathBuf, sync::Arc};

use anyhow::Result;
use clap::Args;
use togi_data::PromptSample;
use togi_policy::{Constraint, Policy, Sampling, Vocabulary, Weights, constraint::Rules};
use togi_reward::{
    Reward,
    control::{Asked, Choice, Control, Controlled, Guard, Speaker},
};

use crate::{InputError, scorer::RewardArguments};

#[derive(Args, Default)]
pub(crate) struct ControlArguments {
    /// A TOML file of what every answer satisfies: `regex`, `json_schema`, `json_object`, `lark`,
    /// `banned` and `required` texts. Tokens that would break it are never drawn.
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// Draw N answers to each prompt and keep the one that the reward likes best (needs --reward).
    #[arg(long, value_name = "N", requires = "reward")]
    best_of: Option<usize>,
    /// Choose piece by piece: of N continuations the one that the reward likes best, and on from there
    /// (needs --reward).
    #[arg(
        long,
        value_name = "N",
        requires = "reward",
        conflicts_with = "best_of"
    )]
    guided: Option<usize>,
    /// Tokens of a piece, for --guided.
    #[arg(long, value_name = "N", default_value_t = 8, requires = "guided")]
    block: usize,
    /// What chooses: `lab`, the folder or run folder of a reward model (several make an ensemble: their
    /// mean), `rules:FILE`, or `judge:SRC`.
    #[arg(long, value_name = "SRC")]
    reward: Vec<String>,
    /// How a `judge:` of --reward or --guard is asked: a TOML file with the fields of `judge` in the recipe
    /// rlaif.
    #[arg(long, value_name = "FILE")]
    judge_config: Option<PathBuf>,
    /// What an answer has to pass: a reward as in --reward.
    #[arg(long, value_name = "SRC", requires = "min_score")]
    guard: Option<String>,
    /// The lowest score that passes the guard.
    #[arg(
        long,
        value_name = "X",
        requires = "guard",
        allow_negative_numbers = true
    )]
    min_score: Option<f64>,
    /// How often another answer is drawn where the guard lets one not pass.
    #[arg(long, value_name = "N", default_value_t = 2, requires = "guard")]
    retries: usize,
    /// What is said when none passes.
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "I cannot answer that.",
        requires = "guard"
    )]
    refusal: String,
}

impl ControlArguments {
    /// True if anything is to be controlled.
    pub(crate) fn is_set(&self) -> bool {
        let chosen = self.best_of.is_some() || self.guided.is_some() || !self.reward.is_empty();
        chosen || self.rules.is_some() || self.guard.is_some()
    }

    /// # Errors
    /// A reward that nothing reads.
    pub(crate) fn check(&self) -> Result<()> {
        let chooses = self.best_of.is_some() || self.guided.is_some();
        if !self.reward.is_empty() && !chooses {
            let text = "--reward: chooses nothing; give --best-of N or --guided N";
            return Err(InputError(text.to_owned()).into());
        }
        let judges = |spec: &String| spec.starts_with("judge:");
        let judged = self.reward.iter().chain(&self.guard).any(judges);
        if self.judge_config.is_some() && !judged {
            let text = "--judge-config: is not read: neither --reward nor --guard is a judge:SRC";
            return Err(InputError(text.to_owned()).into());
        }
        if self.best_of == Some(0) || self.guided == Some(0) || self.block == 0 {
            let text = "--best-of, --guided and --block must be at least 1";
            return Err(InputError(text.to_owned()).into());
        }
        Ok(())
    }

    /// The control over what this model says.
    ///
    /// # Errors
    /// Rules that cannot be held, rewards that do not read the model's tokens, settings that do not go
    /// together.
    pub(crate) fn build(&self, policy: &Policy, at_once: usize, seed: u64) -> Result<Control> {
        self.check()?;
        let reward = |sources: &[String]| -> Result<Box<dyn Reward>> {
            let scorer = RewardArguments::mean_of(sources, self.judge_config.as_deref());
            let models = scorer.load(&policy.tokenizer, policy.decoder.device(), seed)?;
            Ok(scorer.combined(models, at_once))
        };
        let constraint = match &self.rules {
            None => None,
            Some(path) => {
                let wrong = |e: String| InputError(format!("--rules {}: {e}", path.display()));
                let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
                let rules: Rules = toml::from_str(&text).map_err(|e| wrong(e.to_string()))?;
                let vocabulary = Vocabulary::new(&policy.tokenizer);
                let vocabulary = Arc::new(vocabulary.map_err(|e| wrong(e.to_string()))?);
                let made = Constraint::new(&vocabulary, &rules);
                Some(made.map_err(|e| wrong(e.to_string()))?)
            }
        };
        let choice = match (self.best_of, self.guided) {
            (Some(n), _) => Choice::BestOf {
                n,
                reward: reward(&self.reward)?,
            },
            (None, Some(width)) => Choice::Blocks {
                width,
                block: self.block,
                reward: reward(&self.reward)?,
            },
            (None, None) => Choice::First,
        };
        let guard = match (&self.guard, self.min_score) {
            (Some(source), Some(min_score)) => Some(Guard {
                reward: reward(std::slice::from_ref(source))?,
                min_score,
                retries: self.retries,
                refusal: self.refusal.clone(),
            }),
            _ => None,
        };
        let control = Control {
            constraint,
            choice,
            guard,
        };
        control.validate()?;
        Ok(control)
    }
}

/// A model's answers to prompts under control, with its weights laid out for sampling; `streams` as in [`Control::answer`].
pub(crate) fn answer(
    control: &Control,
    (policy, weights): (&Policy, &Weights),
    prompts: &[PromptSample],
    sampling: &Sampling,
    (seed, streams): (u64, &[u64]),
) -> Result<Vec<Controlled>> {
    let speaker = Speaker {
        decoder: &policy.decoder,
        weights,
        tokenizer: &policy.tokenizer,
        sampling,
        seed,
    };
    let asked: Vec<Asked<'_>> = prompts
        .iter()
        .map(|prompt| Asked {
            text: &prompt.text,
            ids: &prompt.ids,
        })
        .collect();
    Ok(control.answer(&speaker, &asked, streams)?)
}
