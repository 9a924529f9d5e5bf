//! `--reward`: what scores answers, one source or an ensemble.

use anyhow::Result;
use burn::tensor::Device;
use clap::{Args, ValueEnum};
use togi_data::Tokenizer;
use togi_policy::{Decoder, Head, ModelConfig, Policy, source::Source};
use togi_reward::{Combine, Ensemble, LabGold, Reward, RewardModel};

use crate::InputError;

#[derive(Args)]
pub(crate) struct RewardArguments {
    /// What scores answers: `lab`, or the folder or run folder of a reward model; several make an
    /// ensemble.
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
    pub(crate) fn mean_of(sources: &[String]) -> Self {
        Self {
            reward: sources.to_vec(),
            combine: Combination::Mean,
            pessimism: 1.0,
        }
    }

    /// True if it is the lab's gold.
    pub(crate) fn is_lab(&self) -> bool {
        self.reward == ["lab"]
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
        for spec in &self.reward {
            if spec == "lab" {
                let text = "--reward lab: is the truth; it goes into no ensemble";
                return wrong(text.to_owned());
            }
            let model = reward_model(spec, device, seed)?;
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

    /// The reward models as one reward; the lab's gold without any.
    pub(crate) fn combined(&self, models: Vec<Decoder>, at_once: usize) -> Box<dyn Reward> {
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
