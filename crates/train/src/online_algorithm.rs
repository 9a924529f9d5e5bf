//! What an online method is: advantages and a loss, and what they see of the loop.

use burn::tensor::{Bool, Device, Tensor};
use serde::{Serialize, de::DeserializeOwned};
use togi_rl_algos::{
    Normalisation,
    kl::{kl_per_token, times_ratio},
    ppo::{ClipRange, asymmetric_policy_loss},
};

use crate::{
    error::TrainError,
    metrics::Row,
    offline::host,
    online_config::{KlPlace, OnlineConfig},
    rollout::{join, rows_of},
    sampler::Importance,
};

/// Completions of one step as advantages are computed from them: groups of `group_size`, one after
/// the other.
#[derive(Clone, Copy, Debug)]
pub struct Scored<'a> {
    /// One score a completion, penalties subtracted.
    pub scores: &'a [f64],
    /// Completions of each prompt. Where there is an opponent, the first half are the policy's.
    pub group_size: usize,
    /// `log π` of each token when it was drawn.
    pub logps: &'a [Vec<f64>],
    /// `log ref` of each token.
    pub reference: &'a [Vec<f64>],
    /// What the KL to the reference takes from the reward of each token; zeros where it is not in
    /// the reward.
    pub penalties: &'a [Vec<f64>],
    /// The score of the likeliest completion of each prompt, for algorithms that ask for it.
    pub greedy: &'a [f64],
    /// Where advantages that are computed with tensors are.
    pub device: &'a Device,
}

impl Scored<'_> {
    /// `log π - log ref` of each completion.
    pub fn sequence_kl(&self) -> Vec<f64> {
        let both = self.logps.iter().zip(self.reference);
        both.map(|(ours, theirs)| ours.iter().sum::<f64>() - theirs.iter().sum::<f64>())
            .collect()
    }

    /// The score of each completion less what the KL takes from all of its tokens.
    pub fn penalised(&self) -> Vec<f64> {
        let both = self.scores.iter().zip(self.penalties);
        both.map(|(score, tokens)| score - tokens.iter().sum::<f64>())
            .collect()
    }

    /// The reward of each token: less its own KL, the score at the last one.
    pub fn token_rewards(&self) -> Vec<Vec<f64>> {
        let both = self.scores.iter().zip(self.penalties);
        both.map(|(score, tokens)| {
            let mut rewards: Vec<f64> = tokens.iter().map(|penalty| -penalty).collect();
            if let Some(last) = rewards.last_mut() {
                *last += score;
            }
            rewards
        })
        .collect()
    }

    /// One number a completion, given to each of its tokens.
    pub fn spread(&self, advantages: Vec<f64>) -> Vec<Vec<f64>> {
        let rows = advantages.into_iter().zip(self.logps);
        rows.map(|(advantage, tokens)| vec![advantage; tokens.len()])
            .collect()
    }
}

/// A part of a minibatch, `[completions, time]` where not said otherwise.
#[derive(Clone, Debug)]
pub struct Part {
    /// Under the policy now; gradients flow into it.
    pub logps: Tensor<2>,
    /// When the tokens were drawn.
    pub old_logps: Tensor<2>,
    /// Under the reference.
    pub reference: Tensor<2>,
    /// What [`OnlineAlgorithm::advantages`] said.
    pub advantages: Tensor<2>,
    /// True where a token counts.
    pub mask: Tensor<2, Bool>,
    /// Tokens of each completion.
    pub lens: Vec<usize>,
    /// Of the whole minibatch.
    pub whole: Minibatch,
}

impl Part {
    /// The advantage of each completion's first token.
    pub fn first_advantages(&self) -> Vec<f64> {
        host(&self.advantages.clone().narrow(1, 0, 1))
    }

    /// Sums over each completion's tokens, `[completions]`.
    pub fn sums(&self, x: &Tensor<2>) -> Tensor<1> {
        let outside = self.mask.clone().bool_not();
        let completions = self.lens.len();
        let sums = x.clone().mask_fill(outside, 0.0).sum_dim(1);
        sums.reshape([completions])
    }
}

/// What the parts of a minibatch have to know of it.
#[derive(Clone, Copy, Debug)]
pub struct Minibatch {
    /// Tokens of its completions.
    pub tokens: f64,
    /// Its completions.
    pub completions: f64,
    /// Completions with an advantage other than 0.
    pub used: f64,
    /// Tokens of those.
    pub used_tokens: f64,
    /// Completions of each prompt.
    pub group_size: usize,
    /// The longest completion that may be drawn.
    pub max_new_tokens: f64,
}

/// A part's loss and what is logged about it.
#[derive(Clone, Debug)]
pub struct PartLoss {
    /// Already divided by the minibatch's denominator, `[1]`.
    pub loss: Tensor<1>,
    /// Metrics that add up over the parts of a minibatch.
    pub row: Row,
}

/// An online method: its advantages and its loss.
pub trait OnlineAlgorithm:
    Clone + std::fmt::Debug + Default + Serialize + DeserializeOwned
{
    /// What it remembers from step to step; kept in checkpoints.
    type Memory: Clone + std::fmt::Debug + Default + Serialize + DeserializeOwned;

    /// The recipe's defaults.
    fn defaults() -> OnlineConfig<Self>;

    /// The recipe's defaults on the lab, given those with the lab's sizes. There a reward model of half a
    /// million parameters is soon outwitted: what holds the policy back has to be stronger than with
    /// real models.
    fn on_lab(config: OnlineConfig<Self>) -> OnlineConfig<Self> {
        config
    }

    /// # Errors
    /// Names the field that is out of range.
    fn validate(&self) -> Result<(), TrainError>;

    /// # Errors
    /// Names a field of the loop that does not go with the method.
    fn fits(&self, config: &OnlineConfig<Self>) -> Result<(), TrainError>;

    /// If the second half of each prompt's completions comes from the geometric mixture of policy and
    /// reference: the reference's share in it.
    fn opponent(&self) -> Option<f64> {
        None
    }

    /// True if it wants the score of the likeliest completion of each prompt.
    fn wants_greedy(&self) -> bool {
        false
    }

    /// True if the completions of a prompt must stay in one part.
    fn keeps_groups(&self) -> bool {
        false
    }

    /// What is weighted where the sampler's precision is lower than the policy's.
    fn importance(&self) -> Importance {
        Importance::Tokens
    }

    /// The advantage of each token of each completion.
    ///
    /// # Errors
    /// Scores that cannot be compared.
    fn advantages(
        &self,
        scored: &Scored<'_>,
        memory: &mut Self::Memory,
    ) -> Result<Vec<Vec<f64>>, TrainError>;

    /// What the losses of a part's tokens are divided by; also the KL's, where that is in the loss.
    fn normalisation(&self, part: &Part) -> Normalisation;

    /// The loss of a part of a minibatch.
    ///
    /// # Errors
    /// Values that are not finite.
    fn loss(&self, part: &Part) -> Result<PartLoss, TrainError>;
}

impl<A: OnlineAlgorithm> OnlineConfig<A> {
    /// What the KL to the reference takes from the reward of each token: zeros where it is not in the
    /// reward.
    ///
    /// # Errors
    /// Values that are not finite.
    pub fn penalties(
        &self,
        logps: &[Vec<f64>],
        reference: &[Vec<f64>],
        kl_coef: f64,
        device: &Device,
    ) -> Result<Vec<Vec<f64>>, TrainError> {
        if self.kl_place != KlPlace::Reward || kl_coef == 0.0 {
            return Ok(logps.iter().map(|tokens| vec![0.0; tokens.len()]).collect());
        }
        let (ours, theirs) = (join(logps, device), join(reference, device));
        let kl = kl_per_token(&ours, &theirs, self.kl_estimator)? * kl_coef;
        Ok(rows_of(&kl, logps))
    }

    /// What the parts of a minibatch, completions of these numbers, have to know of it.
    pub fn minibatch(&self, completions: &[usize], advantages: &[Vec<f64>]) -> Minibatch {
        let used = |i: &&usize| advantages[**i].iter().any(|a| *a != 0.0);
        let tokens = |i: &usize| advantages[*i].len() as f64;
        Minibatch {
            tokens: completions.iter().map(tokens).sum(),
            completions: completions.len() as f64,
            used: completions.iter().filter(used).count() as f64,
            used_tokens: completions.iter().filter(used).map(tokens).sum(),
            group_size: self.completions_per_prompt,
            max_new_tokens: self.sampling.max_new_tokens as f64,
        }
    }

    /// The algorithm's loss of a part of a minibatch, and the KL to the reference where that is in the
    /// loss.
    ///
    /// # Errors
    /// Values that are not finite.
    pub fn loss(&self, part: &Part, kl_coef: f64) -> Result<PartLoss, TrainError> {
        let PartLoss { mut loss, mut row } = self.algorithm.loss(part)?;
        if self.kl_place != KlPlace::Reward && kl_coef > 0.0 {
            let mut kl = kl_per_token(&part.logps, &part.reference, self.kl_estimator)?;
            if self.kl_place == KlPlace::LossTimesRatio {
                kl = times_ratio(kl, &part.logps, &part.old_logps)?;
            }
            let normalisation = self.algorithm.normalisation(part);
            let term = normalisation.tokens(kl * kl_coef, &part.mask)?;
            row.add("loss/kl", host(&term)[0]);
            loss = loss + term;
        }
        Ok(PartLoss { loss, row })
    }
}

/// PPO's clipped surrogate on tokens, reduced, with the share of the tokens that it holds back.
pub(crate) fn clipped_loss(
    part: &Part,
    clip: ClipRange,
    normalisation: &Normalisation,
) -> Result<PartLoss, TrainError> {
    let (old, advantages) = (&part.old_logps, &part.advantages);
    let surrogate = asymmetric_policy_loss(&part.logps, old, advantages, &part.mask, clip)?;
    let mut row = Row::default();
    let clipped: f64 = host(&surrogate.clipped).iter().sum();
    row.add("policy/clip_fraction", clipped / part.whole.tokens);
    let loss = normalisation.tokens(surrogate.loss, &part.mask)?;
    Ok(PartLoss { loss, row })
}
