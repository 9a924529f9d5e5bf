//! RSO: preference optimisation on answers of the optimal policy (Liu et al. 2023, "Statistical
//! rejection sampling improves preference optimization").
//!
//! The model that training starts from answers each prompt many times; a reward scores the answers;
//! rejection sampling keeps some as the policy that is optimal for the reward would have written them;
//! pairs of those, ordered by the reward, are learnt like any preferences. The pairs are a file of the
//! run folder (`rso_pairs.jsonl`), from which an interrupted run goes on.

use std::fs;

use serde::{Deserialize, Serialize};
use togi_data::{PairSample, PromptSample, Sample, Tokenizer, rng::CounterRng};
use togi_policy::{Decoder, Sampling};
use togi_reward::Reward;
use togi_rl_algos::rso::rejection_sample;

use crate::{
    config::{RecipeConfig, at_least_one, positive},
    error::TrainError,
    metrics::Event,
    offline::Stage,
    preference::{PreferenceConfig, PreferenceLoss},
    rollout::{rollouts, scores},
    run_folder::write_whole,
};

/// Configuration of the recipe `rso`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RsoConfig {
    /// Prompts that are answered.
    pub prompts: usize,
    /// Answers to each prompt.
    pub candidates: usize,
    /// How many of them rejection sampling keeps.
    pub accepted: usize,
    /// Its temperature, in units of the reward: towards 0 only the best are kept, without end all are
    /// as likely.
    pub beta: f64,
    /// How answers are drawn.
    pub sampling: Sampling,
    /// The training on the pairs. Its seed is that of the whole.
    pub preference: PreferenceConfig,
}

impl Default for RsoConfig {
    /// The paper's 64 answers of which 8 are kept, its temperature of 0.5, and its hinge loss.
    fn default() -> Self {
        Self {
            prompts: 500,
            candidates: 64,
            accepted: 8,
            beta: 0.5,
            sampling: Sampling::default(),
            preference: PreferenceConfig::with(PreferenceLoss::Hinge { beta: 0.05 }),
        }
    }
}

impl RecipeConfig for RsoConfig {
    fn validate(&self) -> Result<(), TrainError> {
        at_least_one("prompts", self.prompts)?;
        self.sampling.validate()?;
        positive("sampling.temperature", self.sampling.temperature)?;
        positive("beta", self.beta)?;
        if self.accepted < 2 || self.accepted > self.candidates {
            let reason = format!("must be in [2, candidates = {}]", self.candidates);
            return Err(TrainError::config("accepted", reason));
        }
        if self.preference.annotators != PreferenceConfig::default().annotators {
            let reason = "is not read: the reward orders the pairs";
            return Err(TrainError::config("preference.annotators", reason));
        }
        self.preference.validate()
    }
}

/// A pair as it stands in the file.
#[derive(Serialize, Deserialize)]
struct Line {
    prompt: String,
    chosen: String,
    rejected: String,
    score_chosen: f64,
    score_rejected: f64,
    prompt_ids: Vec<u32>,
    chosen_ids: Vec<u32>,
    rejected_ids: Vec<u32>,
}

/// The name of the part that draws.
const DRAWING: &str = "rso answers";

/// The pairs of the prompts: drawn, or those that an earlier part of the run wrote.
///
/// # Errors
/// Answers that cannot be scored; a file that cannot be written or read; no pair at all.
pub fn pairs(
    stage: &mut Stage<'_>,
    policy: &Decoder,
    tokenizer: &Tokenizer,
    reward: &dyn Reward,
    prompts: &[PromptSample],
    config: &RsoConfig,
) -> Result<Vec<PairSample>, TrainError> {
    let path = stage.run.path().join("rso_pairs.jsonl");
    if !path.exists() {
        let lines = stage.within_memory(DRAWING, |stage| {
            draw(stage, policy, tokenizer, reward, prompts, config)
        })?;
        let mut text = String::new();
        for line in &lines {
            let json = serde_json::to_string(line).map_err(|e| TrainError::io(&path)(e.into()))?;
            text.push_str(&json);
            text.push('\n');
        }
        write_whole(&path, text.as_bytes())?;
    }
    let text = fs::read_to_string(&path).map_err(TrainError::io(&path))?;
    let mut pairs = Vec::new();
    for line in text.lines() {
        let line: Line = serde_json::from_str(line).map_err(|e| TrainError::io(&path)(e.into()))?;
        let side = |ids: &[u32]| Sample::from_parts(&line.prompt_ids, ids, tokenizer.eos_ids());
        pairs.push(PairSample {
            chosen: side(&line.chosen_ids),
            rejected: side(&line.rejected_ids),
            margin: Some(line.score_chosen - line.score_rejected),
            probability: None,
        });
    }
    if pairs.is_empty() {
        let reason = "no pair came out: all answers to each prompt have the same score";
        return Err(TrainError::config("candidates", reason));
    }
    Ok(pairs)
}

fn draw(
    stage: &mut Stage<'_>,
    policy: &Decoder,
    tokenizer: &Tokenizer,
    reward: &dyn Reward,
    prompts: &[PromptSample],
    config: &RsoConfig,
) -> Result<Vec<Line>, TrainError> {
    let asked = &prompts[..prompts.len().min(config.prompts)];
    stage.observer.on(Event::Stage {
        name: DRAWING,
        step: 0,
        total: asked.len() as u64,
    });
    let mut lines = Vec::new();
    // A batch of the sampler's size at a time.
    let at_once = config.sampling.batch_size.div_ceil(config.candidates);
    for (number, part) in asked.chunks(at_once).enumerate() {
        let started = std::time::Instant::now();
        let repeated: Vec<&PromptSample> = part
            .iter()
            .flat_map(|prompt| std::iter::repeat_n(prompt, config.candidates))
            .collect();
        let first = (number * at_once * config.candidates) as u64;
        let sampling = &config.sampling;
        let drawn = rollouts(policy, tokenizer, &repeated, sampling, stage.seed, first)?;
        let scored = scores(reward, &drawn, stage.name, 0)?;
        for (i, prompt) in part.iter().enumerate() {
            let own = i * config.candidates..(i + 1) * config.candidates;
            let rewards: Vec<f64> = scored[own.clone()].iter().map(|s| s.value).collect();
            let item = (number * at_once + i) as u64;
            let mut rng = CounterRng::new(stage.seed, &[0x7273_6f00, item]);
            let (count, beta) = (config.accepted, config.beta);
            let taken = rejection_sample(&rewards, count, beta, || rng.next_f64())?;
            // First-round ranking: neighbours are compared.
            for pair in taken.chunks_exact(2) {
                let (mut better, mut worse) = (pair[0], pair[1]);
                if rewards[better] < rewards[worse] {
                    (better, worse) = (worse, better);
                }
                let answer = |i: usize| &drawn[own.start + i];
                if rewards[better] == rewards[worse] {
                    continue;
                }
                lines.push(Line {
                    prompt: prompt.text.clone(),
                    chosen: answer(better).text.clone(),
                    rejected: answer(worse).text.clone(),
                    score_chosen: rewards[better],
                    score_rejected: rewards[worse],
                    prompt_ids: prompt.ids.clone(),
                    chosen_ids: answer(better).completion().to_vec(),
                    rejected_ids: answer(worse).completion().to_vec(),
                });
            }
        }
        let tokens: usize = drawn.iter().map(|r| r.completion().len()).sum();
        let mut row = crate::metrics::Row::default();
        row.set(
            "objective/scores",
            crate::rollout::mean(scored.iter().map(|s| s.value)),
        );
        stage.observer.on(Event::Step {
            step: ((number + 1) * at_once).min(asked.len()) as u64,
            row: &row,
            tokens_per_second: tokens as f64 / started.elapsed().as_secs_f64(),
        });
    }
    let text = format!("{} pairs of {} prompts", lines.len(), asked.len());
    stage.observer.on(Event::Done);
    stage.observer.on(Event::Message(&text));
    Ok(lines)
}
