//! `--reward`: what scores answers, one source or an ensemble.

use std::path::{Path, PathBuf};

use anyhow::Result;
use burn::tensor::Device;
use clap::{Args, ValueEnum};
use togi_data::{AnswerFrame, Tokenizer};
use togi_policy::{Decoder, Head, ModelConfig, Policy, source::Source};
use togi_reward::{
    Combine, Ensemble, LabGold, Reward, RewardModel, Rulebook, Weighted, judge::OracleRating,
};
use togi_train::judge_config::{JudgeConfig, JudgeSource};

use crate::{InputError, judge};

/// What stands before a file of rules.
const RULES: &str = "rules:";

/// What stands before a language model that rates answers (direct RLAIF).
const JUDGE: &str = "judge:";

/// What scores, loaded.
pub(crate) struct Scorers {
    /// Reward models.
    pub(crate) models: Vec<Decoder>,
    /// What the chat template writes around the answers that they read.
    frame: Option<AnswerFrame>,
    /// Rules and ratings.
    others: Vec<Box<dyn Reward>>,
    /// Numbers in the language models that rate.
    of_judges: usize,
}

impl Scorers {
    /// Numbers in the models that score.
    pub(crate) fn parameters(&self) -> usize {
        self.of_judges + self.models.iter().map(numbers).sum::<usize>()
    }
}

fn numbers(model: &Decoder) -> usize {
    model.params.count().0
}

#[derive(Args)]
pub(crate) struct RewardArguments {
    /// What scores answers: `lab`, or the folder or run folder of a reward model; several make an
    /// ensemble. `rules:FILE` takes the weights of the file's broken rules off, `judge:SRC` adds a
    /// language model's rating between -1 and 1 (its folder, or a chat server's address).
    #[arg(long, value_name = "SRC", default_value = "lab")]
    pub(crate) reward: Vec<String>,
    /// How an ensemble's scores become one.
    #[arg(long, value_enum, default_value = "mean")]
    pub(crate) combine: Combination,
    /// How a `judge:` of --reward is asked: a TOML file with the fields of `judge` in the recipe rlaif.
    #[arg(long, value_name = "FILE")]
    judge_config: Option<PathBuf>,
    /// Weight of the deviation, for `mean-minus-deviation`.
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    pessimism: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Combination {
    /// The mean.
    Mean,
    /// The lowest.
    Worst,
    /// The mean less the members' deviation, times --pessimism.
    MeanMinusDeviation,
}

/// The reward model of a source, with its tokenizer.
pub(crate) fn reward_model(spec: &str, device: &Device, seed: u64) -> Result<Policy> {
    let model = Source::parse(spec)?.load(device, seed)?;
    if ModelConfig::head_of(&model.decoder.params) != Head::Score {
        let text = format!(
            "--reward {spec}: is a language model, not a reward model (no score.weight); train one \
             with `cargo xtask train reward`"
        );
        return Err(InputError(text).into());
    }
    Ok(model)
}

impl RewardArguments {
    /// The mean of these sources.
    pub(crate) fn mean_of(sources: &[String], judge_config: Option<&Path>) -> Self {
        let judged = sources.iter().any(|spec| spec.starts_with(JUDGE));
        Self {
            reward: sources.to_vec(),
            combine: Combination::Mean,
            pessimism: 1.0,
            judge_config: judge_config.filter(|_| judged).map(Path::to_owned),
        }
    }

    /// True if the lab's gold is all that scores, rules and ratings aside.
    pub(crate) fn is_lab(&self) -> bool {
        self.models_named().all(|spec| spec == "lab")
    }

    /// How many models are loaded to score: reward models, and language models that rate.
    pub(crate) fn loaded(&self) -> usize {
        let of_judge = |spec: &&String| {
            let source = spec.strip_prefix(JUDGE);
            source.is_some_and(|source| judge::address(source).is_none())
        };
        self.models_named().filter(|spec| *spec != "lab").count()
            + self.reward.iter().filter(of_judge).count()
    }

    /// The sources that are neither rules nor ratings.
    fn models_named(&self) -> impl Iterator<Item = &String> {
        let model = |spec: &&String| !spec.starts_with(RULES) && !spec.starts_with(JUDGE);
        self.reward.iter().filter(model)
    }

    /// True if nothing but rules and ratings scores.
    fn is_without_models(&self) -> bool {
        self.models_named().next().is_none()
    }

    /// True if only the lab's prompts can be scored.
    pub(crate) fn needs_lab(&self) -> bool {
        self.is_lab() && !self.is_without_models()
    }

    /// As it is said on the command line.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("--reward {}", self.reward.join(" --reward "));
        if let Some(path) = &self.judge_config {
            text.push_str(&format!(" --judge-config {}", path.display()));
        }
        if let (Combination::MeanMinusDeviation, x) = (self.combine, self.pessimism) {
            text.push_str(&format!(" --combine mean-minus-deviation --pessimism {x}"));
        } else if self.combine == Combination::Worst {
            text.push_str(" --combine worst");
        }
        text
    }

    /// Reads and loads what scores.
    ///
    /// # Errors
    /// A source that cannot score the policy's answers; a file that is not one of rules.
    pub(crate) fn load(
        &self,
        tokenizer: &Tokenizer,
        device: &Device,
        seed: u64,
    ) -> Result<Scorers> {
        let mut others: Vec<Box<dyn Reward>> = Vec::new();
        let mut of_judges = 0;
        let config = self.judge_config()?;
        for spec in &self.reward {
            if let Some(file) = spec.strip_prefix(RULES) {
                let rules = Rulebook::read(Path::new(file));
                let rules = rules.map_err(|e| InputError(format!("--reward {RULES}{e}")))?;
                others.push(Box::new(rules));
            } else if let Some(source) = spec.strip_prefix(JUDGE) {
                let source = match judge::address(source) {
                    Some(url) => JudgeSource::Server(url),
                    None => {
                        let model = Source::parse(source)?.load(device, seed)?;
                        of_judges += numbers(&model.decoder);
                        JudgeSource::Model(Box::new(model))
                    }
                };
                others.push(Box::new(OracleRating {
                    oracle: config.oracle(source, seed)?,
                    criterion: config.criteria.join(" "),
                }));
            }
        }
        let models = self.models(tokenizer, device, seed)?;
        Ok(Scorers {
            models,
            frame: tokenizer.answer_frame(),
            others,
            of_judges,
        })
    }

    fn judge_config(&self) -> Result<JudgeConfig> {
        let rated_by = "A good answer is helpful, honest and harmless.";
        let defaults = JudgeConfig {
            criteria: vec![rated_by.to_owned()],
            ..JudgeConfig::default()
        };
        let Some(path) = &self.judge_config else {
            return Ok(defaults);
        };
        if !self.reward.iter().any(|spec| spec.starts_with(JUDGE)) {
            let text = "--judge-config: is not read: no --reward judge:SRC";
            return Err(InputError(text.to_owned()).into());
        }
        let wrong = |e: String| InputError(format!("--judge-config {}: {e}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
        let mut config: JudgeConfig = toml::from_str(&text).map_err(|e| wrong(e.to_string()))?;
        config.validate()?;
        let plain = JudgeConfig {
            criteria: config.criteria.clone(),
            max_new_tokens: config.max_new_tokens,
            writing_temperature: config.writing_temperature,
            server: config.server.clone(),
            ..JudgeConfig::default()
        };
        if plain != config {
            let text = "a rating reads `criteria` and `server`, not what compares answers";
            return Err(wrong(text.to_owned()).into());
        }
        if config.criteria == JudgeConfig::default().criteria {
            config.criteria = defaults.criteria;
        }
        Ok(config)
    }

    /// The reward models; none if it is the lab's gold.
    fn models(&self, tokenizer: &Tokenizer, device: &Device, seed: u64) -> Result<Vec<Decoder>> {
        if self.is_lab() {
            return Ok(Vec::new());
        }
        let wrong = |text: String| -> Result<Vec<Decoder>> { Err(InputError(text).into()) };
        if self.pessimism.is_nan() || self.pessimism < 0.0 {
            return wrong(format!(
                "--pessimism {}: is not a number from 0",
                self.pessimism
            ));
        }
        let mut models = Vec::with_capacity(self.reward.len());
        for spec in self.models_named() {
            if spec == "lab" {
                let text = "--reward lab: is the truth; it goes into no ensemble";
                return wrong(text.to_owned());
            }
            let model = reward_model(spec, device, seed)?;
            if !model.tokenizer.reads_ids_of(tokenizer) {
                return wrong(format!(
                    "--reward {spec}: its tokens are not the policy's, and a reward model reads the policy's \
                     tokens"
                ));
            }
            models.push(model.decoder);
        }
        Ok(models)
    }

    /// One reward: the models', or the lab's gold without any, and what rules and ratings add to it.
    pub(crate) fn combined(&self, scorers: Scorers, at_once: usize) -> Box<dyn Reward> {
        let Scorers {
            models,
            frame,
            others,
            ..
        } = scorers;
        let mut members: Vec<(f64, Box<dyn Reward>)> = Vec::new();
        if !self.is_without_models() {
            members.push((1.0, self.together(models, frame.as_ref(), at_once)));
        }
        members.extend(others.into_iter().map(|other| (1.0, other)));
        match members.len() {
            1 => members.remove(0).1,
            _ => Box::new(Weighted { members }),
        }
    }

    fn together(
        &self,
        models: Vec<Decoder>,
        frame: Option<&AnswerFrame>,
        at_once: usize,
    ) -> Box<dyn Reward> {
        let mut members: Vec<Box<dyn Reward>> = models
            .into_iter()
            .map(|decoder| {
                Box::new(RewardModel::new(decoder, frame.cloned(), at_once)) as Box<dyn Reward>
            })
            .collect();
        if members.len() <= 1 {
            return members.pop().unwrap_or_else(|| Box::new(LabGold));
        }
        let combine = match self.combine {
            Combination::Mean => Combine::Mean,
            Combination::Worst => Combine::Worst,
            Combination::MeanMinusDeviation => Combine::MeanMinusDeviation {
                weight: self.pessimism,
            },
        };
        Box::new(Ensemble { members, combine })
    }
}
