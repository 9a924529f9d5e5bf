//! Rollouts from a policy in a lower precision than it is trained in, and what makes up for that.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use togi_data::Sample;
use togi_kernels::is_cpu;
use togi_policy::{Decoder, Precision, WeightFormat};

use crate::{
    error::TrainError,
    metrics::Row,
    rollout::{Rollout, SeenBy, mean, split},
};

/// The settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SamplerSection {
    /// What the sampler's weights are held in: as the policy computes, or in less, which reads half or a
    /// quarter of the bytes for each token.
    pub dtype: SamplerDtype,
    /// Importance weights of tokens, `π(token) / sampler(token)`, are cut at this (TRL's
    /// `vllm_importance_sampling_cap`).
    pub importance_cap: f64,
}

impl Default for SamplerSection {
    fn default() -> Self {
        Self {
            dtype: SamplerDtype::Same,
            importance_cap: 2.0,
        }
    }
}

/// A sampler's precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SamplerDtype {
    /// As the policy that is trained.
    Same,
    /// float32.
    F32,
    /// bfloat16: products too.
    Bf16,
    /// Eight bits and a factor for each output; products in float32. On the CPU.
    Int8,
}

/// Of each token of each completion, in nats.
#[derive(Clone, Debug, Default)]
pub(crate) struct TokenScores {
    /// Log-probabilities.
    pub(crate) logps: Vec<Vec<f64>>,
    /// Entropies of the distributions that they are of.
    pub(crate) entropies: Vec<Vec<f64>>,
    /// Who saw them.
    pub(crate) seen_by: SeenBy,
}

/// What the importance weights of a method are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Importance {
    /// Each token by itself, as its loss is (Yao et al. 2025, truncated importance sampling).
    Tokens,
    /// All of a completion: one weight for its tokens.
    Sequences,
    /// Nothing: the method compares or imitates completions, wherever they come from.
    Nothing,
}

impl SamplerSection {
    /// # Errors
    /// Names the field that is out of range.
    pub(crate) fn validate(&self) -> Result<(), TrainError> {
        if self.importance_cap.is_finite() && self.importance_cap >= 1.0 {
            return Ok(());
        }
        let reason = format!("{} is not a number from 1 on", self.importance_cap);
        Err(TrainError::config("sampler.importance_cap", reason))
    }

    /// # Errors
    /// Where a policy's device does not sample so.
    pub(crate) fn check(&self, device: &Device) -> Result<(), TrainError> {
        let wrong = |reason: &str| Err(TrainError::config("sampler.dtype", reason.to_owned()));
        match self.dtype {
            SamplerDtype::Int8 if !is_cpu(device) => wrong(
                "\"int8\" is for the CPU; a GPU samples in \"same\", \"f32\" or, where it has it, \"bf16\"",
            ),
            SamplerDtype::Bf16 if !Precision::Bf16.is_of(device) => wrong(
                "this device does not compute in bfloat16 (`cargo xtask devices`); it samples in \"same\" or \"f32\"",
            ),
            _ => Ok(()),
        }
    }

    /// How the sampler holds weights, given the policy's precision.
    pub(crate) fn format(&self, policy: Precision) -> Option<WeightFormat> {
        match self.dtype {
            SamplerDtype::Same => WeightFormat::of(policy),
            SamplerDtype::F32 => Some(WeightFormat::F32),
            SamplerDtype::Bf16 => Some(WeightFormat::Bf16),
            SamplerDtype::Int8 => Some(WeightFormat::Int8),
        }
    }

    /// True if the sampler's numbers are the policy's.
    fn is_policy(&self, policy: &Decoder) -> bool {
        self.format(policy.precision) == WeightFormat::of(policy.precision)
    }

    /// The policy as it samples: the same parameters.
    ///
    /// # Errors
    /// As [`SamplerSection::check`].
    pub(crate) fn of(&self, policy: &Decoder) -> Result<Decoder, TrainError> {
        self.check(policy.device())?;
        let mut sampler = policy.clone();
        match self.dtype {
            SamplerDtype::Same => {}
            SamplerDtype::F32 => sampler.precision = Precision::F32,
            SamplerDtype::Bf16 => sampler.precision = Precision::Bf16,
            SamplerDtype::Int8 => {
                sampler.precision = Precision::F32;
                sampler.sampled_as = Some(WeightFormat::Int8);
            }
        }
        Ok(sampler)
    }

    /// What the policy gives to the tokens that were drawn: what the sampler saw, if that `may_serve` and the
    /// sampler computes as the policy does. Otherwise the policy scores them, `micro_batch` completions
    /// at a time.
    ///
    /// What the sampler saw may not serve where others drew too, nor where the KL to the reference is part
    /// of the reward: sampling rounds differently than scoring, which the KL of two equal models would
    /// then consist of. Nor in a lower precision, where that is far more (an eighth of a nat in SmolLM2-135M and bfloat16).
    ///
    /// The first minibatch's ratio is taken to these, so it says whether the model that is trained is the
    /// one that sampled.
    pub(crate) fn scores(
        &self,
        policy: &Decoder,
        rollouts: &[Rollout],
        may_serve: bool,
        (temperature, micro_batch): (f64, usize),
    ) -> Result<TokenScores, TrainError> {
        let mut scores = TokenScores::default();
        if may_serve && self.is_policy(policy) && policy.precision == Precision::F32 {
            scores.seen_by = SeenBy::Sampler;
            let numbers = |x: &[f32]| x.iter().map(|x| f64::from(*x)).collect();
            for rollout in rollouts {
                scores.logps.push(numbers(&rollout.sampler_logps));
                scores.entropies.push(numbers(&rollout.sampler_entropies));
            }
            return Ok(scores);
        }
        let weights = policy.frozen();
        for part in rollouts.chunks(micro_batch) {
            let samples: Vec<&Sample> = part.iter().map(|r| &r.sample).collect();
            let lens = || part.iter().map(|r| r.completion().len());
            let seen = policy.log_probs(&weights, &samples, temperature)?;
            scores.logps.extend(split(&seen.values, lens()));
            scores.entropies.extend(split(&seen.entropy, lens()));
        }
        Ok(scores)
    }

    /// Multiplies advantages by `min(π / sampler, importance_cap)` where the sampler's weights are
    /// other than the policy's; does nothing for methods that weight nothing. Logs how far the two are apart, there and
    /// in a lower precision, in which sampling rounds differently than scoring.
    ///
    /// Every loss with an importance weight is linear in its advantages for one sign of them, which
    /// positive weights do not change: weighting the advantage is weighting the loss.
    pub(crate) fn correct(
        &self,
        policy: &Decoder,
        importance: Importance,
        (rollouts, logps): (&[Rollout], &[Vec<f64>]),
        advantages: &mut [Vec<f64>],
        row: &mut Row,
    ) {
        let weighs = !self.is_policy(policy);
        if importance == Importance::Nothing || (!weighs && policy.precision == Precision::F32) {
            return;
        }
        let apart: Vec<Vec<f64>> = rollouts
            .iter()
            .zip(logps)
            .map(|(rollout, logps)| {
                let sampled = rollout.sampler_logps.iter().map(|x| f64::from(*x));
                logps.iter().zip(sampled).map(|(a, b)| a - b).collect()
            })
            .collect();
        let all = || apart.iter().flatten().copied();
        let largest = all().fold(0.0, |most: f64, x| most.max(x.abs()));
        row.set("sampling/logp_difference_max", largest);
        row.set("sampling/logp_difference_mean", mean(all().map(f64::abs)));
        if !weighs {
            return;
        }
        let (mut weights, mut cut) = (Vec::new(), 0);
        for (apart, advantages) in apart.iter().zip(advantages) {
            let whole: f64 = apart.iter().sum();
            for (apart, advantage) in apart.iter().zip(advantages) {
                let weight = match importance {
                    Importance::Sequences => whole.exp(),
                    _ => apart.exp(),
                };
                cut += usize::from(weight > self.importance_cap);
                let weight = weight.min(self.importance_cap);
                *advantage *= weight;
                weights.push(weight);
            }
        }
        let count = weights.len().max(1) as f64;
        row.set("sampling/importance_mean", mean(weights));
        row.set("sampling/importance_cut", cut as f64 / count);
    }
}

#[cfg(test)]
mod tests {
    use togi_data::Sample;
    use togi_policy::{Finish, source};

    use super::*;

    fn rollout(sampler_logps: &[f32]) -> Rollout {
        let tokens = vec![1; sampler_logps.len()];
        Rollout {
            prompt: String::new(),
            prompt_len: 1,
            sample: Sample::from_parts(&[1], &tokens, &[]),
            text: String::new(),
            finish: Finish::Length,
            sampler_logps: sampler_logps.to_vec(),
            sampler_entropies: Vec::new(),
        }
    }

    #[test]
    fn the_samplers_numbers_serve_in_float32_alone() {
        let mut policy = source::lab(&Device::flex(), 0).unwrap().decoder;
        let rollouts = [rollout(&[-1.0, -2.0])];
        let seen = |policy: &Decoder, may_serve| {
            let settings = SamplerSection::default();
            let scores = settings.scores(policy, &rollouts, may_serve, (1.0, 1));
            let scores = scores.unwrap();
            (scores.seen_by, scores.logps)
        };
        let sampled = vec![vec![-1.0, -2.0]];
        assert_eq!(seen(&policy, true), (SeenBy::Sampler, sampled.clone()));
        let (by, scored) = seen(&policy, false);
        assert_eq!(by, SeenBy::Policy);
        assert_ne!(scored, sampled);
        policy.precision = Precision::Bf16;
        assert_eq!(seen(&policy, true).0, SeenBy::Policy);
    }

    #[test]
    fn advantages_are_weighted_by_what_the_policy_thinks_of_the_samplers_tokens() {
        let policy = source::lab(&Device::flex(), 0).unwrap().decoder;
        let rollouts = [rollout(&[-1.0, -2.0]), rollout(&[-3.0])];
        let logps = [vec![-1.0 + 0.5_f64.ln(), -2.0 + 1.5_f64.ln()], vec![0.0]];
        let weigh = |dtype, importance| {
            let settings = SamplerSection {
                dtype,
                importance_cap: 2.0,
            };
            let mut advantages = [vec![1.0, -1.0], vec![3.0]];
            let mut row = Row::default();
            let drawn = (&rollouts[..], &logps[..]);
            settings.correct(&policy, importance, drawn, &mut advantages, &mut row);
            (advantages, row)
        };
        let close = |a: [Vec<f64>; 2], b: [&[f64]; 2]| {
            for (a, b) in a.iter().flatten().zip(b.iter().copied().flatten()) {
                assert!((a - b).abs() < 1e-6, "{a} {b}");
            }
        };
        let (tokens, row) = weigh(SamplerDtype::Bf16, Importance::Tokens);
        close(tokens, [&[0.5, -1.5], &[6.0]]);
        assert!((row.get("sampling/importance_mean").unwrap() - 4.0 / 3.0).abs() < 1e-6);
        assert!((row.get("sampling/importance_cut").unwrap() - 1.0 / 3.0).abs() < 1e-6);
        assert!((row.get("sampling/logp_difference_max").unwrap() - 3.0).abs() < 1e-6);
        let (sequences, _) = weigh(SamplerDtype::Bf16, Importance::Sequences);
        close(sequences, [&[0.75, -0.75], &[6.0]]);
        for same in [
            weigh(SamplerDtype::Same, Importance::Tokens),
            weigh(SamplerDtype::Bf16, Importance::Nothing),
        ] {
            close(same.0, [&[1.0, -1.0], &[3.0]]);
            assert!(same.1.get("sampling/importance_mean").is_none());
        }
    }
}
