//! `--reward`: what scores answers, one source or an ensemble.

use std::path::Path;

use anyhow::Result;
use burn::tensor::Device;
use clap::{Args, ValueEnum};
use togi_data::Tokenizer;
use togi_policy::{Decoder, Head, ModelConfig, source::Source};
use togi_reward::{Combine, Ensemble, LabGold, Reward, RewardModel, Rulebook, Weighted};

use crate::InputError;

/// What stands before a file of rules.
const RULES: &str = "rules:";

#[derive(Args)]
pub(crate) struct RewardArguments {
    /// What scores answers: `lab`, or the folder or run folder of a reward model; several make an
    /// ensemble. `rules:FILE` takes the weights of the file's broken rules off.
    #[arg(long, value_name = "SRC", default_value = "lab")]
    pub(crate) reward: Vec<String>,
    /// How an ensemble's scores become one.
    #[arg(long, value_enum, default_value = "mean")]
    pub(crate) combine: Combination,
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

impl RewardArguments {
    /// The mean of these sources.
    pub(crate) fn mean_of(sources: &[String]) -> Self {
        Self {
            reward: sources.to_vec(),
            combine: Combination::Mean,
            pessimism: 1.0,
        }
    }

    /// True if the lab's gold is all that scores, rules aside.
    pub(crate) fn is_lab(&self) -> bool {
        self.models_named().all(|spec| spec == "lab")
    }

    /// The sources that are not rules.
    fn models_named(&self) -> impl Iterator<Item = &String> {
        self.reward.iter().filter(|spec| !spec.starts_with(RULES))
    }

    /// True if nothing but rules scores.
    fn is_rules(&self) -> bool {
        self.models_named().next().is_none()
    }

    /// True if only the lab's prompts can be scored.
    pub(crate) fn needs_lab(&self) -> bool {
        self.is_lab() && !self.is_rules()
    }

    /// As it is said on the command line.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("--reward {}", self.reward.join(" --reward "));
        if let (Combination::MeanMinusDeviation, x) = (self.combine, self.pessimism) {
            text.push_str(&format!(" --combine mean-minus-deviation --pessimism {x}"));
        } else if self.combine == Combination::Worst {
            text.push_str(" --combine worst");
        }
        text
    }

    /// The reward models; none if it is the lab's gold.
    pub(crate) fn models(
        &self,
        tokenizer: &Tokenizer,
        device: &Device,
        seed: u64,
    ) -> Result<Vec<Decoder>> {
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
            let model = Source::parse(spec)?.load(device, seed)?;
            if ModelConfig::head_of(&model.decoder.params) != Head::Score {
                return wrong(format!(
                    "--reward {spec}: is a language model, not a reward model (no score.weight); \
                     train one with `cargo xtask train reward`"
                ));
            }
            let (theirs, ours) = (model.decoder.config.vocab_size, tokenizer.ids_end());
            if theirs < ours {
                return wrong(format!(
                    "--reward {spec}: its vocabulary of {theirs} is not the policy's of {ours}"
                ));
            }
            models.push(model.decoder);
        }
        Ok(models)
    }

    /// The reward models as one reward, the lab's gold without any; less what broken rules cost.
    ///
    /// # Errors
    /// A file that is not one of rules.
    pub(crate) fn combined(&self, models: Vec<Decoder>, at_once: usize) -> Result<Box<dyn Reward>> {
        let rules = self
            .reward
            .iter()
            .filter_map(|spec| spec.strip_prefix(RULES));
        let mut members: Vec<(f64, Box<dyn Reward>)> = Vec::new();
        if !self.is_rules() {
            members.push((1.0, self.together(models, at_once)));
        }
        for file in rules {
            let rules = Rulebook::read(Path::new(file));
            let rules = rules.map_err(|e| InputError(format!("--reward {RULES}{e}")))?;
            members.push((1.0, Box::new(rules)));
        }
        match members.len() {
            1 => Ok(members.remove(0).1),
            _ => Ok(Box::new(Weighted { members })),
        }
    }

    fn together(&self, models: Vec<Decoder>, at_once: usize) -> Box<dyn Reward> {
        let mut members: Vec<Box<dyn Reward>> = models
            .into_iter()
            .map(|decoder| Box::new(RewardModel::new(decoder, at_once)) as Box<dyn Reward>)
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
