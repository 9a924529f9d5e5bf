//! Completions of prompts, with what rewards and losses need of them.

use togi_data::{PromptSample, Sample, Tokenizer};
use togi_policy::{Decoder, Finish, Generation, Sampling, generate};
use togi_reward::{Reward, Scorable, Score};

use crate::{error::TrainError, offline::host};

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
    /// Log-probabilities that the sampler saw.
    pub sampler_logps: Vec<f32>,
}

impl Rollout {
    /// The completion's tokens.
    pub fn completion(&self) -> &[u32] {
        &self.sample.ids[self.prompt_len..]
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
    let ids: Vec<&[u32]> = prompts.iter().map(|p| &p.ids[..]).collect();
    let streams: Vec<u64> = (first..first + prompts.len() as u64).collect();
    let eos = tokenizer.eos_ids();
    let weights = decoder.frozen();
    let drawn = generate(decoder, &weights, &ids, eos, sampling, seed, &streams)?;
    let join = |(prompt, generation): (&&PromptSample, Generation)| Rollout {
        prompt: prompt.text.clone(),
        prompt_len: prompt.ids.len(),
        sample: Sample::from_parts(&prompt.ids, &generation.ids, eos),
        text: tokenizer.decode(&generation.ids),
        finish: generation.finish,
        sampler_logps: generation.logps,
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
    let batch: Vec<Scorable<'_>> = rollouts
        .iter()
        .map(|r| Scorable {
            prompt: &r.prompt,
            prompt_ids: &r.sample.ids[..r.prompt_len],
            completion: &r.text,
            completion_ids: r.completion(),
        })
        .collect();
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

/// `log π - log ref` summed over each completion.
///
/// # Errors
/// As [`Decoder::log_probs`].
pub fn sequence_kl(
    policy: &Decoder,
    reference: &Decoder,
    drawn: &[Rollout],
    temperature: f64,
) -> Result<Vec<f64>, TrainError> {
    let temperature = if temperature > 0.0 { temperature } else { 1.0 };
    let (weights, reference_weights) = (policy.frozen(), reference.frozen());
    let mut all = Vec::with_capacity(drawn.len());
    for part in drawn.chunks(32) {
        let samples: Vec<_> = part.iter().map(|r| &r.sample).collect();
        let ours = policy.log_probs(&weights, &samples, temperature)?.sums();
        let theirs = reference
            .log_probs(&reference_weights, &samples, temperature)?
            .sums();
        all.extend(host(&(ours - theirs)));
    }
    Ok(all)
}
