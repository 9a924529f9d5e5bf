//! How a judge is asked, and how it is made of what the user names.

use serde::{Deserialize, Serialize};
use togi_data::lab::AnnotatorConfig;
use togi_policy::{Policy, Sampling};
use togi_reward::{
    Reward, Server, ServerConfig,
    judge::{Judge, LabJudge, OracleJudge, RewardJudge},
    oracle::{LocalOracle, Oracle},
    server_oracle::ServerOracle,
};

use crate::{
    config::{at_least_one, positive, within},
    error::TrainError,
};

/// How a judge is asked. A field that the judge does not read has to stay as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JudgeConfig {
    /// What better means, a sentence each; each pair is asked about one of them. For language models.
    pub criteria: Vec<String>,
    /// Let the model write what speaks for each answer before it chooses.
    pub chain_of_thought: bool,
    /// Probabilities are kept within these; Bai et al. 2022 take `[0.4, 0.6]` after a chain of thought.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clamp: Option<[f64; 2]>,
    /// Longest text that a language model writes, in tokens.
    pub max_new_tokens: usize,
    /// At which temperature it writes.
    pub writing_temperature: f64,
    /// A reward as a judge: how many units of reward are a clear difference.
    pub reward_temperature: f64,
    /// The lab's judge.
    pub annotators: AnnotatorConfig,
    /// What the lab's judge thinks being shown first is worth, in units of the gold score.
    pub position_bias: f64,
    /// How a server is reached; its `url` is the `--judge`.
    pub server: ServerConfig,
}

impl Default for JudgeConfig {
    fn default() -> Self {
        Self {
            criteria: vec![
                "The better answer is the one that is more helpful, honest and harmless."
                    .to_owned(),
            ],
            chain_of_thought: false,
            clamp: None,
            max_new_tokens: 256,
            writing_temperature: 0.7,
            reward_temperature: 1.0,
            annotators: AnnotatorConfig::default(),
            position_bias: 0.05,
            server: ServerConfig::default(),
        }
    }
}

/// What judges, as the user names it.
pub enum JudgeSource {
    /// The lab's simulated annotators.
    Lab,
    /// A reward.
    Reward(Box<dyn Reward>),
    /// A language model on this machine.
    Model(Box<Policy>),
    /// A chat server at this address.
    Server(String),
}

impl JudgeConfig {
    /// # Errors
    /// Names the field that is out of range.
    pub fn validate(&self) -> Result<(), TrainError> {
        at_least_one("judge.criteria", self.criteria.len())?;
        at_least_one("judge.max_new_tokens", self.max_new_tokens)?;
        within(
            "judge.writing_temperature",
            self.writing_temperature,
            0.0,
            10.0,
        )?;
        positive("judge.reward_temperature", self.reward_temperature)?;
        within("judge.position_bias", self.position_bias, -1.0, 1.0)?;
        if let Some([low, high]) = self.clamp
            && !(0.0 <= low && low < high && high <= 1.0)
        {
            let reason = format!("[{low}, {high}] are not two rising probabilities");
            return Err(TrainError::config("judge.clamp", reason));
        }
        Ok(())
    }

    /// # Errors
    /// Names a field that was set and that this kind of judge does not read.
    fn all_is_read(&self, source: &JudgeSource) -> Result<(), TrainError> {
        let defaults = Self::default();
        let speaks = matches!(source, JudgeSource::Model(_) | JudgeSource::Server(_));
        let server = ServerConfig {
            url: defaults.server.url.clone(),
            ..self.server.clone()
        };
        let unread = [
            (
                "judge.criteria",
                !speaks && self.criteria != defaults.criteria,
            ),
            ("judge.chain_of_thought", !speaks && self.chain_of_thought),
            ("judge.clamp", !speaks && self.clamp.is_some()),
            (
                "judge.reward_temperature",
                !matches!(source, JudgeSource::Reward(_))
                    && self.reward_temperature != defaults.reward_temperature,
            ),
            (
                "judge.annotators",
                !matches!(source, JudgeSource::Lab) && self.annotators != defaults.annotators,
            ),
            (
                "judge.position_bias",
                !matches!(source, JudgeSource::Lab) && self.position_bias != defaults.position_bias,
            ),
            (
                "judge.server",
                !matches!(source, JudgeSource::Server(_)) && server != defaults.server,
            ),
        ];
        match unread.iter().find(|(_, unread)| *unread) {
            None => Ok(()),
            Some((key, _)) => Err(TrainError::config(*key, "is not read by this judge")),
        }
    }

    /// The language model of a source, for judging, criticising or rating.
    ///
    /// # Errors
    /// When the source is none; a server's settings.
    pub fn oracle(&self, source: JudgeSource, seed: u64) -> Result<Box<dyn Oracle>, TrainError> {
        match source {
            JudgeSource::Model(policy) => {
                let sampling = Sampling {
                    max_new_tokens: self.max_new_tokens,
                    temperature: self.writing_temperature,
                    ..Sampling::default()
                };
                Ok(Box::new(LocalOracle::new(*policy, sampling, seed)?))
            }
            JudgeSource::Server(url) => {
                let settings = ServerConfig {
                    url,
                    ..self.server.clone()
                };
                let server = Server::new(settings)
                    .map_err(|e| TrainError::config("judge.server", e.to_string()))?;
                let (longest, warmth) = (self.max_new_tokens as u32, self.writing_temperature);
                Ok(Box::new(ServerOracle::new(server, longest, warmth, seed)))
            }
            JudgeSource::Lab | JudgeSource::Reward(_) => {
                let reason = "is no language model: it can compare, not write";
                Err(TrainError::config("--judge", reason))
            }
        }
    }

    /// The judge.
    ///
    /// # Errors
    /// A setting that it does not read; a server's settings.
    pub fn build(&self, source: JudgeSource, seed: u64) -> Result<Box<dyn Judge>, TrainError> {
        self.all_is_read(&source)?;
        Ok(match source {
            JudgeSource::Lab => Box::new(LabJudge::new(seed, self.annotators, self.position_bias)),
            JudgeSource::Reward(reward) => Box::new(RewardJudge {
                reward,
                temperature: self.reward_temperature,
            }),
            speaking => Box::new(OracleJudge {
                oracle: self.oracle(speaking, seed)?,
                criteria: self.criteria.clone(),
                chain_of_thought: self.chain_of_thought,
                clamp: self.clamp,
                seed,
            }),
        })
    }
}
