//! Control of what a model says while it says it: rules that hold for every completion, a reward that
//! chooses among completions or among their next pieces, and a guard that looks at what came out.

use togi_data::Tokenizer;
use togi_policy::{
    Constraint, Decoder, Finish, Generation, PolicyError, Sampling, Weights,
    generate::{Request, Voice, generate_with},
};

use crate::{Reward, Scorable, Unscorable};

/// How a completion is chosen.
pub enum Choice {
    /// The first one that is drawn.
    First,
    /// The one of `n` that the reward likes best (best-of-n).
    BestOf {
        /// Completions that are drawn.
        n: usize,
        /// What chooses.
        reward: Box<dyn Reward>,
    },
    /// Piece by piece: of `width` continuations of `block` tokens the one that the reward likes best, and
    /// on from there (blockwise controlled decoding; Mudgal et al. 2024). The reward reads unfinished
    /// answers.
    Blocks {
        /// Continuations that are drawn of each piece.
        width: usize,
        /// Tokens of a piece.
        block: usize,
        /// What chooses.
        reward: Box<dyn Reward>,
    },
}

/// Looks at what came out, and refuses or tries again.
pub struct Guard {
    /// What scores the answer.
    pub reward: Box<dyn Reward>,
    /// The lowest score that passes.
    pub min_score: f64,
    /// How often another answer is drawn; at temperature 0 there is no other.
    pub retries: usize,
    /// What is said when none passes.
    pub refusal: String,
}

/// How answers come about.
pub struct Control {
    /// What every completion satisfies.
    pub constraint: Option<Constraint>,
    /// How it is chosen.
    pub choice: Choice,
    /// What it has to pass.
    pub guard: Option<Guard>,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            constraint: None,
            choice: Choice::First,
            guard: None,
        }
    }
}

/// A prompt as text and ids.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// As text, without what a chat template adds.
    pub text: &'a str,
    /// As ids, with what it adds.
    pub ids: &'a [u32],
}

/// An answer that came about under control.
#[derive(Clone, Debug, PartialEq)]
pub struct Controlled {
    /// The completion. Of a refusal by the guard: its tokens, which no model drew and which have no
    /// log-probabilities.
    pub generation: Generation,
    /// What is said.
    pub text: String,
    /// Its score by what chose it, or by the guard where nothing chose.
    pub score: Option<f64>,
    /// Completions that were drawn for it, pieces counted as one.
    pub drawn: usize,
    /// Why the guard let none pass, if so; `text` is its refusal then.
    pub refused: Option<String>,
}

/// Where answers come from.
#[derive(Clone, Copy)]
pub struct Speaker<'a> {
    /// The model.
    pub decoder: &'a Decoder,
    /// Its weights, as [`Decoder::sampling`] lays them out.
    pub weights: &'a Weights,
    /// Its tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// How tokens are drawn.
    pub sampling: &'a Sampling,
    /// Keys the random numbers.
    pub seed: u64,
}

impl Speaker<'_> {
    /// One completion of each of these beginnings, with a stream each.
    fn draw(
        &self,
        beginnings: &[&[u32]],
        streams: &[u64],
        constraint: Option<&Constraint>,
        sampling: &Sampling,
    ) -> Result<Vec<Generation>, PolicyError> {
        let voice = Voice {
            decoder: self.decoder,
            weights: self.weights,
            share: 1.0,
        };
        let constraints = vec![constraint; beginnings.len()];
        let request = Request {
            prompts: beginnings,
            streams,
            constraints: &constraints,
            eos: self.tokenizer.eos_ids(),
            sampling,
            seed: self.seed,
        };
        generate_with(&[voice], &request, &mut |_, _| {})
    }
}

/// What is wrong with an answer under control.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The model or its constraint.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// None of a prompt's answers has a score to be chosen by.
    #[error("no answer to `{prompt}` can be scored by {reward}: {reason}")]
    Unscorable {
        /// The prompt.
        prompt: String,
        /// What was to score it.
        reward: String,
        /// Why the first could not be.
        reason: Unscorable,
    },
    /// Settings that do not go together.
    #[error("{0}")]
    Settings(String),
}

impl ControlError {
    /// True if what the user gave is at fault.
    pub fn is_input(&self) -> bool {
        match self {
            Self::Policy(error) => error.is_input(),
            Self::Unscorable { .. } => false,
            Self::Settings(_) => true,
        }
    }
}

impl Control {
    /// # Errors
    /// Settings that do not go together: nothing to choose among, or a constraint on pieces.
    pub fn validate(&self) -> Result<(), ControlError> {
        let wrong = |text: &str| Err(ControlError::Settings(text.to_owned()));
        match &self.choice {
            Choice::BestOf { n: 0, .. } => wrong("best of 0 answers is none"),
            Choice::Blocks { width, block, .. } if *width == 0 || *block == 0 => {
                wrong("a piece has at least one token, and at least one is drawn")
            }
            Choice::Blocks { .. } if self.constraint.is_some() => wrong(
                "choosing piece by piece does not go with regex, grammar, banned or required texts: a \
                 piece starts them anew; take best-of-n",
            ),
            _ => Ok(()),
        }
    }

    /// An answer to each prompt. `streams` has a number for each, which its random numbers are keyed by.
    ///
    /// # Errors
    /// As [`generate_with`]; when nothing can be chosen because nothing can be scored. An answer that the
    /// guard cannot score does not pass.
    pub fn answer(
        &self,
        speaker: &Speaker<'_>,
        prompts: &[Asked<'_>],
        streams: &[u64],
    ) -> Result<Vec<Controlled>, ControlError> {
        self.validate()?;
        // Without chance every draw is the same.
        let greedy = speaker.sampling.temperature == 0.0;
        let several = match &self.choice {
            Choice::First => false,
            Choice::BestOf { n, .. } => *n > 1,
            Choice::Blocks { width, .. } => *width > 1,
        };
        if greedy && several {
            let text = "at temperature 0 all draws are the same: there is nothing to choose among";
            return Err(ControlError::Settings(text.to_owned()));
        }
        let all: Vec<usize> = (0..prompts.len()).collect();
        let mut answers = self.attempt(speaker, prompts, streams, &all, 0)?;
        let Some(guard) = &self.guard else {
            return Ok(answers);
        };
        let retries = if greedy { 0 } else { guard.retries };
        for attempt in 0..=retries {
            let fresh: Vec<usize> = match attempt {
                0 => all.clone(),
                _ => all
                    .iter()
                    .copied()
                    .filter(|i| answers[*i].refused.is_some())
                    .collect(),
            };
            if fresh.is_empty() {
                break;
            }
            if attempt > 0 {
                let again = self.attempt(speaker, prompts, streams, &fresh, attempt as u64)?;
                for (i, mut answer) in fresh.iter().zip(again) {
                    answer.drawn += answers[*i].drawn;
                    answers[*i] = answer;
                }
            }
            let batch: Vec<Scorable<'_>> = fresh
                .iter()
                .map(|i| scorable(&prompts[*i], &answers[*i].text, &answers[*i].generation.ids))
                .collect();
            let scores = guard.reward.score(&batch);
            for (i, score) in fresh.iter().zip(scores) {
                let answer = &mut answers[*i];
                answer.refused = match score {
                    Ok(score) if score.value >= guard.min_score => {
                        answer.score = answer.score.or(Some(score.value));
                        None
                    }
                    Ok(score) => Some(format!(
                        "{}: {:.3} is below {}",
                        guard.reward.name(),
                        score.value,
                        guard.min_score
                    )),
                    Err(reason) => Some(format!("{}: {reason}", guard.reward.name())),
                };
            }
        }
        for answer in answers.iter_mut().filter(|a| a.refused.is_some()) {
            let ids = speaker.tokenizer.encode(&guard.refusal);
            answer.text.clone_from(&guard.refusal);
            answer.generation = Generation {
                ids: ids.map_err(PolicyError::from)?,
                logps: Vec::new(),
                entropies: Vec::new(),
                finish: Finish::Eos,
                constrained: 0,
                satisfied: true,
            };
        }
        Ok(answers)
    }

    /// Answers to some of the prompts, chosen but not guarded. Each attempt has random numbers of its own.
    fn attempt(
        &self,
        speaker: &Speaker<'_>,
        prompts: &[Asked<'_>],
        streams: &[u64],
        which: &[usize],
        attempt: u64,
    ) -> Result<Vec<Controlled>, ControlError> {
        let asked: Vec<Asked<'_>> = which.iter().map(|i| prompts[*i]).collect();
        // The first attempt's first answer is the one that is drawn without control.
        let stream = |i: &usize, candidate: u64| streams[*i] ^ (attempt << 40) ^ (candidate << 48);
        match &self.choice {
            Choice::First => {
                let ids: Vec<&[u32]> = asked.iter().map(|a| a.ids).collect();
                let streams: Vec<u64> = which.iter().map(|i| stream(i, 0)).collect();
                let constraint = self.constraint.as_ref();
                let drawn = speaker.draw(&ids, &streams, constraint, speaker.sampling)?;
                Ok(drawn
                    .into_iter()
                    .map(|generation| Controlled {
                        text: speaker.tokenizer.decode(&generation.ids),
                        generation,
                        score: None,
                        drawn: 1,
                        refused: None,
                    })
                    .collect())
            }
            Choice::BestOf { n, reward } => {
                let ids: Vec<&[u32]> = asked
                    .iter()
                    .flat_map(|a| std::iter::repeat_n(a.ids, *n))
                    .collect();
                let streams: Vec<u64> = which
                    .iter()
                    .flat_map(|i| (0..*n as u64).map(move |candidate| stream(i, candidate)))
                    .collect();
                let constraint = self.constraint.as_ref();
                let drawn = speaker.draw(&ids, &streams, constraint, speaker.sampling)?;
                self.best(speaker, &**reward, &asked, drawn, *n)
            }
            Choice::Blocks {
                width,
                block,
                reward,
            } => {
                let streams: Vec<u64> = which.iter().map(|i| stream(i, 0)).collect();
                blockwise(speaker, &**reward, &asked, &streams, (*width, *block))
            }
        }
    }

    /// Of `n` completions of each prompt the best.
    fn best(
        &self,
        speaker: &Speaker<'_>,
        reward: &dyn Reward,
        asked: &[Asked<'_>],
        drawn: Vec<Generation>,
        n: usize,
    ) -> Result<Vec<Controlled>, ControlError> {
        let texts: Vec<String> = drawn
            .iter()
            .map(|g| speaker.tokenizer.decode(&g.ids))
            .collect();
        let batch: Vec<Scorable<'_>> = (0..drawn.len())
            .map(|i| scorable(&asked[i / n], &texts[i], &drawn[i].ids))
            .collect();
        let scores = reward.score(&batch);
        let mut drawn: Vec<Option<(Generation, String)>> =
            drawn.into_iter().zip(texts).map(Some).collect();
        let mut chosen = Vec::with_capacity(asked.len());
        for (number, prompt) in asked.iter().enumerate() {
            let own = number * n..(number + 1) * n;
            let (best, score) = best_of(&scores, own, prompt, reward)?;
            if let Some((generation, text)) = drawn[best].take() {
                chosen.push(Controlled {
                    generation,
                    text,
                    score: Some(score),
                    drawn: n,
                    refused: None,
                });
            }
        }
        Ok(chosen)
    }
}

/// The place of the best score in a range, of equal ones the first.
fn best_of(
    scores: &[Result<crate::Score, Unscorable>],
    own: std::ops::Range<usize>,
    prompt: &Asked<'_>,
    reward: &dyn Reward,
) -> Result<(usize, f64), ControlError> {
    let scored = own
        .clone()
        .filter_map(|i| Some((i, scores[i].as_ref().ok()?.value)));
    let best = scored.rev().max_by(|a, b| a.1.total_cmp(&b.1));
    best.ok_or_else(|| {
        let reason = scores[own.start].as_ref().err();
        ControlError::Unscorable {
            prompt: prompt.text.to_owned(),
            reward: reward.name(),
            reason: reason.map_or_else(|| Unscorable(String::new()), Clone::clone),
        }
    })
}

/// The completion so far, as one.
struct Growing {
    ids: Vec<u32>,
    logps: Vec<f32>,
    entropies: Vec<f32>,
    ended: bool,
    score: f64,
}

fn blockwise(
    speaker: &Speaker<'_>,
    reward: &dyn Reward,
    asked: &[Asked<'_>],
    streams: &[u64],
    (width, block): (usize, usize),
) -> Result<Vec<Controlled>, ControlError> {
    let limit = speaker.sampling.max_new_tokens;
    let mut growing: Vec<Growing> = asked
        .iter()
        .map(|_| Growing {
            ids: Vec::new(),
            logps: Vec::new(),
            entropies: Vec::new(),
            ended: false,
            score: f64::NAN,
        })
        .collect();
    let mut piece = 0_u64;
    loop {
        let live: Vec<usize> = (0..asked.len()).filter(|i| !growing[*i].ended).collect();
        let Some(first) = live.first() else {
            break;
        };
        // All that still grow are of one length: each piece ends them or is whole.
        let left = limit - growing[*first].ids.len();
        let sampling = Sampling {
            max_new_tokens: block.min(left),
            ..speaker.sampling.clone()
        };
        let beginnings: Vec<Vec<u32>> = live
            .iter()
            .map(|i| [asked[*i].ids, &growing[*i].ids].concat())
            .collect();
        let repeated: Vec<&[u32]> = beginnings
            .iter()
            .flat_map(|ids| std::iter::repeat_n(&ids[..], width))
            .collect();
        let keys: Vec<u64> = live
            .iter()
            .flat_map(|i| {
                let own = streams[*i] ^ (piece << 32);
                (0..width as u64).map(move |candidate| own ^ (candidate << 48))
            })
            .collect();
        let drawn = speaker.draw(&repeated, &keys, None, &sampling)?;
        let so_far: Vec<Vec<u32>> = drawn
            .iter()
            .enumerate()
            .map(|(k, g)| [&growing[live[k / width]].ids[..], &g.ids].concat())
            .collect();
        let texts: Vec<String> = so_far
            .iter()
            .map(|ids| speaker.tokenizer.decode(ids))
            .collect();
        let batch: Vec<Scorable<'_>> = (0..drawn.len())
            .map(|k| scorable(&asked[live[k / width]], &texts[k], &so_far[k]))
            .collect();
        let scores = reward.score(&batch);
        for (place, i) in live.iter().enumerate() {
            let own = place * width..(place + 1) * width;
            let (best, score) = best_of(&scores, own, &asked[*i], reward)?;
            let grown = &mut growing[*i];
            grown.ids.extend(&drawn[best].ids);
            grown.logps.extend(&drawn[best].logps);
            grown.entropies.extend(&drawn[best].entropies);
            grown.score = score;
            let whole = drawn[best].ids.len() == sampling.max_new_tokens;
            let ended = drawn[best].finish == Finish::Eos || !whole;
            let positions = speaker.decoder.config.max_position_embeddings;
            let full = asked[*i].ids.len() + grown.ids.len() >= positions;
            grown.ended = ended || full || grown.ids.len() >= limit;
        }
        piece += 1;
    }
    let eos = speaker.tokenizer.eos_ids();
    Ok(growing
        .into_iter()
        .map(|grown| {
            let ended = grown.ids.last().is_some_and(|id| eos.contains(id));
            Controlled {
                text: speaker.tokenizer.decode(&grown.ids),
                generation: Generation {
                    ids: grown.ids,
                    logps: grown.logps,
                    entropies: grown.entropies,
                    finish: if ended { Finish::Eos } else { Finish::Length },
                    constrained: 0,
                    satisfied: true,
                },
                score: Some(grown.score),
                drawn: width,
                refused: None,
            }
        })
        .collect())
}

fn scorable<'a>(asked: &Asked<'a>, text: &'a str, ids: &'a [u32]) -> Scorable<'a> {
    Scorable {
        prompt: asked.text,
        prompt_ids: asked.ids,
        completion: text,
        completion_ids: ids,
    }
}
