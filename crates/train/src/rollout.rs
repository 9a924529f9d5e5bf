//! Completions of prompts, with what rewards and losses need of them.

use burn::tensor::{Device, Tensor, TensorData};
use serde_json::{Map, Value};
use togi_data::{PromptSample, Sample, Tokenizer};
use togi_kernels::give_back_freed_memory;
use togi_policy::{
    Decoder, Finish, Generation, Precision, Sampling,
    generate::{Request, Voice, generate_with},
    log_probs::pad,
};
use togi_reward::{LabGold, Reward, Scorable, Score};

use crate::{
    error::TrainError,
    metrics::Row,
    offline::{Stage, host},
};

/// A completion of a prompt.
#[derive(Clone, Debug)]
pub struct Rollout {
    /// The prompt's text.
    pub prompt: String,
    /// Tokens of the prompt.
    pub prompt_len: usize,
    /// Prompt and completion; the completion's tokens are scored.
    pub sample: Sample,
    /// The completion as text.
    pub text: String,
    /// Why it ended.
    pub finish: Finish,
    /// Log-probabilities that the sampler saw, one a token.
    pub sampler_logps: Vec<f32>,
    /// Entropies of the distributions that they are of.
    pub sampler_entropies: Vec<f32>,
}

impl Rollout {
    /// The completion's tokens.
    pub fn completion(&self) -> &[u32] {
        &self.sample.ids[self.prompt_len..]
    }

    /// As rewards and judges see it.
    pub fn scorable(&self) -> Scorable<'_> {
        Scorable {
            prompt: &self.prompt,
            prompt_ids: &self.sample.ids[..self.prompt_len],
            completion: &self.text,
            completion_ids: self.completion(),
        }
    }
}

/// Draws one completion a prompt; `first` numbers the first of them among all of the run, so that
/// a resumed run draws the same.
///
/// # Errors
/// As [`togi_policy::generate()`].
pub fn rollouts(
    decoder: &Decoder,
    tokenizer: &Tokenizer,
    prompts: &[&PromptSample],
    sampling: &Sampling,
    seed: u64,
    first: u64,
) -> Result<Vec<Rollout>, TrainError> {
    let weights = decoder.sampling();
    let voice = Voice {
        decoder,
        weights: &weights,
        share: 1.0,
    };
    let streams: Vec<u64> = (first..first + prompts.len() as u64).collect();
    let drawn = rollouts_of(&[voice], tokenizer, prompts, sampling, seed, &streams);
    drop(weights);
    after_drawing(decoder);
    drawn
}

/// Where the copies of a large model's weights that sampling read are gone: that memory goes back to the system.
/// What training takes next is of other sizes, and would leave holes in it.
pub(crate) fn after_drawing(decoder: &Decoder) {
    const LARGE: usize = 1 << 24;
    if decoder.params.count().0 >= LARGE {
        give_back_freed_memory();
    }
}

/// As [`rollouts`], from a mixture of models, with a number of its own for each completion.
///
/// # Errors
/// As [`generate_with`].
pub fn rollouts_of(
    voices: &[Voice<'_>],
    tokenizer: &Tokenizer,
    prompts: &[&PromptSample],
    sampling: &Sampling,
    seed: u64,
    streams: &[u64],
) -> Result<Vec<Rollout>, TrainError> {
    let ids: Vec<&[u32]> = prompts.iter().map(|p| &p.ids[..]).collect();
    let eos = tokenizer.eos_ids();
    let request = Request {
        prompts: &ids,
        streams,
        constraints: &[],
        eos,
        sampling,
        seed,
    };
    let drawn = generate_with(voices, &request, &mut |_, _| {})?;
    let join = |(prompt, generation): (&&PromptSample, Generation)| Rollout {
        prompt: prompt.text.clone(),
        prompt_len: prompt.ids.len(),
        sample: Sample::from_parts(&prompt.ids, &generation.ids, eos),
        text: tokenizer.decode(&generation.ids),
        finish: generation.finish,
        sampler_logps: generation.logps,
        sampler_entropies: generation.entropies,
    };
    Ok(prompts.iter().zip(drawn).map(join).collect())
}

/// Scores of the rollouts.
///
/// # Errors
/// When one cannot be scored: it is named, and no score is made up.
pub fn scores(
    reward: &dyn Reward,
    rollouts: &[Rollout],
    stage: &str,
    step: u64,
) -> Result<Vec<Score>, TrainError> {
    let batch: Vec<Scorable<'_>> = rollouts.iter().map(Rollout::scorable).collect();
    reward
        .score(&batch)
        .into_iter()
        .zip(rollouts)
        .map(|(score, rollout)| {
            score.map_err(|e| TrainError::Run {
                stage: stage.to_owned(),
                step,
                reason: format!(
                    "{}: `{}` -> `{}`: {e}",
                    reward.name(),
                    rollout.prompt,
                    rollout.text
                ),
            })
        })
        .collect()
}

/// The log-probabilities of completions' tokens under two models.
pub struct BothLogps {
    /// Under the policy, one list a completion.
    pub policy: Vec<Vec<f64>>,
    /// Under the reference.
    pub reference: Vec<Vec<f64>>,
}

impl BothLogps {
    /// Of these completions; at temperature 0 those of temperature 1.
    ///
    /// # Errors
    /// As [`Decoder::log_probs`].
    pub fn of(
        policy: &Decoder,
        reference: &Decoder,
        drawn: &[Rollout],
        temperature: f64,
    ) -> Result<Self, TrainError> {
        Ok(Self {
            policy: logps_of(policy, drawn, temperature)?,
            reference: logps_of(reference, drawn, temperature)?,
        })
    }

    /// `log π - log ref` summed over each completion.
    pub fn sequence_kl(&self) -> Vec<f64> {
        let sum = |logps: &Vec<f64>| logps.iter().sum::<f64>();
        let both = self.policy.iter().zip(&self.reference);
        both.map(|(ours, theirs)| sum(ours) - sum(theirs)).collect()
    }
}

fn logps_of(
    decoder: &Decoder,
    drawn: &[Rollout],
    temperature: f64,
) -> Result<Vec<Vec<f64>>, TrainError> {
    let temperature = if temperature > 0.0 { temperature } else { 1.0 };
    let weights = decoder.frozen();
    let mut all = Vec::with_capacity(drawn.len());
    for part in drawn.chunks(32) {
        let samples: Vec<_> = part.iter().map(|r| &r.sample).collect();
        let logps = decoder.log_probs(&weights, &samples, temperature)?;
        all.extend(split(
            &logps.values,
            part.iter().map(|r| r.completion().len()),
        ));
    }
    Ok(all)
}

/// Held-out prompts, and what answers to them are measured by.
pub(crate) struct HeldOut<'a> {
    pub(crate) prompts: &'a [PromptSample],
    pub(crate) reference: &'a Decoder,
    pub(crate) reward: &'a dyn Reward,
    /// The true reward, where it is known.
    pub(crate) gold: Option<&'a LabGold>,
    pub(crate) tokenizer: &'a Tokenizer,
    pub(crate) sampling: &'a Sampling,
}

impl HeldOut<'_> {
    /// Answers the prompts, with the same random numbers at each look: metrics, and the true reward of each
    /// where it is known. `None` without any.
    pub(crate) fn evaluate(
        &self,
        stage: &Stage<'_>,
        policy: &Decoder,
        step: u64,
    ) -> Result<Option<(Row, Vec<f64>)>, TrainError> {
        if self.prompts.is_empty() {
            return Ok(None);
        }
        let prompts: Vec<&PromptSample> = self.prompts.iter().collect();
        let (sampling, seed) = (self.sampling, stage.seed ^ 0x7661_6c69);
        let drawn = rollouts(policy, self.tokenizer, &prompts, sampling, seed, 0)?;
        let scored = scores(self.reward, &drawn, stage.name, step)?;
        let temperature = sampling.temperature;
        let logps = if policy.precision == Precision::F32 {
            // The policy's are those that it was sampled with.
            let seen = |r: &Rollout| r.sampler_logps.iter().map(|x| f64::from(*x)).collect();
            BothLogps {
                policy: drawn.iter().map(seen).collect(),
                reference: logps_of(self.reference, &drawn, temperature)?,
            }
        } else {
            // Sampling rounds otherwise than scoring: the KL of two equal models would be made of that.
            BothLogps::of(policy, self.reference, &drawn, temperature)?
        };
        let kl = logps.sequence_kl();
        let mut row = Row::default();
        row.set("val/scores", mean(scored.iter().map(|s| s.value)));
        let mut golds = Vec::new();
        if let Some(gold) = self.gold {
            let truth = scores(gold, &drawn, stage.name, step)?;
            golds.extend(truth.iter().map(|s| s.value));
            row.set("val/gold", mean(golds.iter().copied()));
        }
        row.set("val/kl", mean(kl));
        let lengths = drawn.iter().map(|r| r.completion().len() as f64);
        row.set("val/mean_length", mean(lengths));
        Ok(Some((row, golds)))
    }
}

/// The first completions of a step, for people.
pub(crate) fn write_samples(
    stage: &Stage<'_>,
    rollouts: &[Rollout],
    step: u64,
) -> Result<(), TrainError> {
    for rollout in rollouts.iter().take(2) {
        let row: Map<String, Value> = Map::from_iter([
            ("stage".to_owned(), Value::from(stage.name)),
            ("step".to_owned(), Value::from(step)),
            ("prompt".to_owned(), Value::from(rollout.prompt.as_str())),
            ("completion".to_owned(), Value::from(rollout.text.as_str())),
        ]);
        stage.run.append("samples.jsonl", &row)?;
    }
    Ok(())
}

/// Values of one scored token each, split by sample.
pub(crate) fn split(values: &Tensor<1>, lens: impl Iterator<Item = usize>) -> Vec<Vec<f64>> {
    let all = host(values);
    let mut start = 0;
    lens.map(|len| {
        start += len;
        all[start - len..start].to_vec()
    })
    .collect()
}

/// Rows of values as one tensor, padded: the inverse of [`split`].
pub(crate) fn join(rows: &[Vec<f64>], device: &Device) -> Tensor<2> {
    let data: Vec<f32> = rows.iter().flatten().map(|x| *x as f32).collect();
    let lens: Vec<usize> = rows.iter().map(Vec::len).collect();
    let count = data.len();
    pad(
        Tensor::from_data(TensorData::new(data, [count]), device),
        &lens,
    )
}

/// Whose log-probabilities of its draws a policy's ratios are taken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SeenBy {
    /// The policy scored them, as training does.
    #[default]
    Policy,
    /// The sampler drew them with these.
    Sampler,
}

/// How far the log-probabilities of the first minibatch may be from those of the rollout, for each nat of
/// their size and one more: what float32 rounds differently when samples are packed in other company,
/// and, of a sampler's, when the same products are added up in another order, which in a model of 30 layers
/// was seen to make 5e-5. Another model, temperature or dropout is off by far more. In a lower precision a
/// sum that float32 rounds differently can fall to the other side of a rounding.
pub fn ratio_tolerance(precision: Precision, seen_by: SeenBy) -> f64 {
    match (precision, seen_by) {
        (Precision::F32, SeenBy::Policy) => 1e-5,
        (Precision::F32, SeenBy::Sampler) => 1e-3,
        _ => precision.epsilon(),
    }
}

/// The check that the policy that is trained is the one that wrote the completions: at the first
/// minibatch of a step every ratio is 1.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FirstRatio {
    /// The largest distance of a ratio from 1.
    pub(crate) error: f64,
    /// The largest difference of log-probabilities, in units of what rounding may do.
    scaled: f64,
}

impl FirstRatio {
    pub(crate) fn see(&mut self, logps: &Tensor<2>, old_logps: &Tensor<2>) {
        // What is not a number stays.
        let larger = |most: f64, x: f64| if x > most || x.is_nan() { x } else { most };
        for (now, old) in host(logps).into_iter().zip(host(old_logps)) {
            let off = now - old;
            self.error = larger(self.error, (off.exp() - 1.0).abs());
            self.scaled = larger(self.scaled, off.abs() / (1.0 + old.abs()));
        }
    }

    /// # Errors
    /// When a ratio is further from 1 than rounding explains.
    pub(crate) fn check(
        &self,
        (precision, seen_by): (Precision, SeenBy),
        stage: &str,
        step: u64,
    ) -> Result<(), TrainError> {
        if self.scaled <= ratio_tolerance(precision, seen_by) {
            return Ok(());
        }
        Err(TrainError::Run {
            stage: stage.to_owned(),
            step,
            reason: format!(
                "the first minibatch's ratio is off 1 by {:.2e}, more than rounding explains: \
                 sampling policy and trained policy are not the same model",
                self.error
            ),
        })
    }
}

/// The rows of a padded tensor, each as long as its row of `like`: the inverse of [`join`].
pub(crate) fn rows_of(x: &Tensor<2>, like: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let time = x.dims()[1];
    let all = host(x);
    let row = |(i, like): (usize, &Vec<f64>)| all[i * time..i * time + like.len()].to_vec();
    like.iter().enumerate().map(row).collect()
}

/// The mean; 0 of nothing.
pub(crate) fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let (sum, count) = values
        .into_iter()
        .fold((0.0, 0.0), |(s, n), x| (s + x, n + 1.0));
    sum / f64::max(count, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_ratio_forgives_rounding_and_nothing_else() {
        let one = |x: f64| join(&[vec![x]], &Device::flex());
        let off_in = |precision, seen_by, old: f64, by: f64| {
            let mut first = FirstRatio::default();
            first.see(&one(old + by), &one(old));
            first.see(&one(old), &one(old));
            first.check((precision, seen_by), "ppo", 1)
        };
        let off = |seen_by, old: f64, by: f64| off_in(Precision::F32, seen_by, old, by);
        assert!(off(SeenBy::Policy, -0.1, 1e-6).is_ok());
        assert!(off(SeenBy::Policy, -15.0, 1e-4).is_ok());
        assert!(off(SeenBy::Policy, -0.1, 1e-4).is_err());
        let text = off(SeenBy::Policy, -15.0, 1e-2).unwrap_err().to_string();
        assert!(
            text.contains("off 1 by 1.0") && text.contains("step 1"),
            "{text}"
        );
        assert!(off(SeenBy::Sampler, -0.1, 1e-4).is_ok());
        assert!(off(SeenBy::Sampler, -15.0, 1e-2).is_ok());
        assert!(off(SeenBy::Sampler, -0.1, 1e-2).is_err());
        assert!(off(SeenBy::Sampler, -15.0, 1e-1).is_err());
        assert!(off(SeenBy::Policy, -1.0, f64::NAN).is_err());
        assert!(off_in(Precision::Bf16, SeenBy::Policy, -1.0, 0.01).is_ok());
        assert!(off_in(Precision::Bf16, SeenBy::Policy, -1.0, 0.02).is_err());
    }
}
