//! Sampling of completions with a key/value cache.

use std::{collections::VecDeque, sync::Arc};

use burn::tensor::Tensor;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use togi_data::rng::CounterRng;
use togi_kernels::{KvCache, ThreadsAwake, embedding, softmax_row};

use crate::{
    constraint::{Constraint, ConstraintError, State},
    decoder::{Attend, Decoder},
    error::PolicyError,
    packed::Packed,
    weights::Weights,
};

/// How completions are drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sampling {
    /// Longest completion, in tokens.
    pub max_new_tokens: usize,
    /// Logits are divided by this; 0 takes the likeliest token.
    pub temperature: f64,
    /// Only the likeliest `top_k` tokens; 0 is all.
    pub top_k: usize,
    /// Only the likeliest tokens whose probabilities reach `top_p` together; 1 is all.
    pub top_p: f64,
    /// Only tokens at least `min_p` times as likely as the likeliest; 0 is all.
    pub min_p: f64,
    /// Sequences generated at a time.
    pub batch_size: usize,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            max_new_tokens: 64,
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            batch_size: 32,
        }
    }
}

impl Sampling {
    /// # Errors
    /// Names the field that is out of range.
    pub fn validate(&self) -> Result<(), PolicyError> {
        let wrong = |field, reason: String| Err(PolicyError::Sampling { field, reason });
        if self.max_new_tokens == 0 {
            return wrong("max_new_tokens", "must be at least 1".to_owned());
        }
        if self.batch_size == 0 {
            return wrong("batch_size", "must be at least 1".to_owned());
        }
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return wrong(
                "temperature",
                format!("{} is not a number from 0 on", self.temperature),
            );
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return wrong("top_p", format!("{} is not in (0, 1]", self.top_p));
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return wrong("min_p", format!("{} is not in [0, 1]", self.min_p));
        }
        Ok(())
    }
}

/// Why a completion ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// The model said its end token.
    Eos,
    /// It reached `max_new_tokens` or the model's last position.
    Length,
}

/// One completion.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// Its tokens, with the end token if there is one.
    pub ids: Vec<u32>,
    /// `log softmax(logits / temperature)` of each token over the whole vocabulary, in nats; at
    /// temperature 0 that of temperature 1. `top_k`, `top_p`, `min_p` and constraints do not change
    /// it, so that it is what scoring the completion gives.
    pub logps: Vec<f32>,
    /// Entropy of the distribution that each of `logps` is of, in nats.
    pub entropies: Vec<f32>,
    /// Why it ended.
    pub finish: Finish,
    /// Positions at which the constraint forbade the token that would have been drawn. Where it is not
    /// 0 the completion is surely not a sample of the model's distribution, of which `logps` are;
    /// where it is 0 it is a sample of that distribution without the forbidden tokens.
    pub constrained: usize,
    /// True if the text satisfies its constraint as it stands: always if the end token was said, and
    /// without a constraint.
    pub satisfied: bool,
}

/// What is to be completed, and how.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The prompts.
    pub prompts: &'a [&'a [u32]],
    /// The number of each prompt, which its random numbers are keyed by.
    pub streams: &'a [u64],
    /// What each completion has to satisfy, if anything; none at all if it is empty.
    pub constraints: &'a [Option<&'a Constraint>],
    /// Tokens that end a completion.
    pub eos: &'a [u32],
    /// How tokens are drawn.
    pub sampling: &'a Sampling,
    /// Keys the random numbers.
    pub seed: u64,
}

impl<'a> Request<'a> {
    fn constraint(&self, prompt: usize) -> Option<&'a Constraint> {
        self.constraints.get(prompt).copied().flatten()
    }
}

/// A sequence in a slot of the cache.
struct Active<'a> {
    prompt: usize,
    slot: usize,
    /// Position of the token that is fed next.
    position: usize,
    last: u32,
    /// Where it stands under its constraint.
    state: Option<State<'a>>,
}

/// Draws one completion for each prompt.
///
/// Sequences that end leave the batch and waiting prompts take their place. The random numbers
/// are keyed by `(seed, stream of the prompt, position)`, so a completion does not depend on which
/// others are drawn beside it; `streams` has one number a prompt.
///
/// # Errors
/// A field of `sampling` out of range; an empty prompt or one that leaves no room; ids outside the
/// vocabulary; logits that are not finite.
pub fn generate(
    decoder: &Decoder,
    weights: &Weights,
    prompts: &[&[u32]],
    eos: &[u32],
    sampling: &Sampling,
    seed: u64,
    streams: &[u64],
) -> Result<Vec<Generation>, PolicyError> {
    let voice = Voice {
        decoder,
        weights,
        share: 1.0,
    };
    let request = Request {
        prompts,
        streams,
        constraints: &[],
        eos,
        sampling,
        seed,
    };
    generate_with(&[voice], &request, &mut |_, _| {})
}

/// One of the models that choose a token together.
#[derive(Clone, Copy, Debug)]
pub struct Voice<'a> {
    /// The model.
    pub decoder: &'a Decoder,
    /// Its weights.
    pub weights: &'a Weights,
    /// The exponent of its distribution.
    pub share: f64,
}

/// [`generate`] from the geometric mixture of models of one vocabulary, `Π p_i^share_i` normalised
/// (the logits are added up, each times its share), under constraints, and `on_token` hears the number
/// of the prompt and each token of its completion as it is drawn.
///
/// Under a constraint, tokens that it does not allow have probability 0 before anything else narrows
/// the choice, and the end token is allowed where the text satisfies it. A completion that ends by the
/// end token satisfies its constraint; one that is cut says whether it does. The samples are then not
/// the policy's: [`Generation::logps`] stay those of the whole distribution, so that the ratio of a
/// policy to itself is 1 as without constraints, but what is drawn leans towards what is allowed, and
/// [`Generation::constrained`] counts where that showed.
///
/// # Errors
/// As [`generate`]; without a voice, or with vocabularies that differ; a constraint that cannot be
/// satisfied in `max_new_tokens`, or comes without an end token, or leaves no token to say.
pub fn generate_with(
    voices: &[Voice<'_>],
    request: &Request<'_>,
    on_token: &mut dyn FnMut(usize, u32),
) -> Result<Vec<Generation>, PolicyError> {
    let Request {
        prompts,
        streams,
        constraints,
        eos,
        sampling,
        ..
    } = *request;
    sampling.validate()?;
    assert_eq!(
        prompts.len(),
        streams.len(),
        "generate: one stream a prompt"
    );
    assert!(
        constraints.is_empty() || constraints.len() == prompts.len(),
        "generate: one constraint a prompt, or none at all"
    );
    let mixture = |reason: String| PolicyError::Sampling {
        field: "voices",
        reason,
    };
    let Some(first) = voices.first() else {
        return Err(mixture("there is none".to_owned()));
    };
    let mut limit = usize::MAX;
    for voice in voices {
        let config = &voice.decoder.config;
        if config.vocab_size != first.decoder.config.vocab_size {
            let sizes = (first.decoder.config.vocab_size, config.vocab_size);
            let reason = format!("vocabularies of {} and {} tokens", sizes.0, sizes.1);
            return Err(mixture(reason));
        }
        limit = limit.min(config.max_position_embeddings);
        voice.decoder.check(&Packed::new(prompts.iter().copied()))?;
    }
    let longest = prompts.iter().map(|p| p.len()).max().unwrap_or(0);
    if let Some(index) = prompts.iter().position(|p| p.is_empty()) {
        return Err(PolicyError::EmptySequence { index });
    }
    if longest >= limit {
        return Err(PolicyError::TooLong {
            tokens: longest + 1,
            limit,
        });
    }
    for (prompt, constraint) in constraints.iter().enumerate() {
        let room = sampling.max_new_tokens.min(limit - prompts[prompt].len());
        check(*constraint, eos, room)
            .map_err(|source| PolicyError::Constraint { prompt, source })?;
    }
    let capacity = (longest + sampling.max_new_tokens).min(limit);
    let slots = sampling.batch_size.min(prompts.len());
    let mut caches: Vec<Vec<KvCache>> = voices
        .iter()
        .map(|voice| {
            let (decoder, shape) = (voice.decoder, voice.decoder.attention_shape());
            (0..decoder.config.num_hidden_layers)
                .map(|_| KvCache::new(slots, capacity, shape, decoder.device()))
                .collect()
        })
        .collect();
    let mut results: Vec<Generation> = prompts
        .iter()
        .map(|_| Generation {
            ids: Vec::new(),
            logps: Vec::new(),
            entropies: Vec::new(),
            finish: Finish::Length,
            constrained: 0,
            satisfied: true,
        })
        .collect();
    let mut waiting: VecDeque<usize> = (0..prompts.len()).collect();
    let mut free: Vec<usize> = (0..slots).rev().collect();
    let mut active: Vec<Active<'_>> = Vec::new();
    let _awake = ThreadsAwake::new();
    while !waiting.is_empty() || !active.is_empty() {
        let mut entering = Vec::new();
        while let Some(slot) = free.pop() {
            match waiting.pop_front() {
                Some(prompt) => entering.push((prompt, slot)),
                None => {
                    free.push(slot);
                    break;
                }
            }
        }
        let mut drawn: Vec<(Active<'_>, Drawn)> = Vec::new();
        // The prompts that enter are run whole, then everyone is one token further.
        if !entering.is_empty() {
            let batch = Packed::new(entering.iter().map(|(prompt, _)| prompts[*prompt]));
            let places: Vec<usize> = entering.iter().map(|(_, slot)| *slot).collect();
            let last: Arc<[u32]> = (0..entering.len()).map(|i| batch.last_row(i)).collect();
            let logits = said(voices, &mut caches, |voice, caches| {
                let attend = Attend::Prefill(&batch, caches, &places);
                let decoder = voice.decoder;
                let hidden = decoder.run(voice.weights, &batch.ids, &batch.positions, attend)?;
                Ok(embedding(hidden, &last))
            })?;
            let rows: Vec<Active<'_>> = entering
                .iter()
                .map(|(prompt, slot)| Active {
                    prompt: *prompt,
                    slot: *slot,
                    position: prompts[*prompt].len(),
                    last: 0,
                    state: request.constraint(*prompt).map(Constraint::start),
                })
                .collect();
            drawn.extend(draw(logits, rows, request)?);
        }
        if !active.is_empty() {
            let ids: Arc<[u32]> = active.iter().map(|a| a.last).collect();
            let positions: Arc<[u32]> = active.iter().map(|a| a.position as u32).collect();
            let rows: Vec<(usize, usize)> = active.iter().map(|a| (a.slot, a.position)).collect();
            let logits = said(voices, &mut caches, |voice, caches| {
                let attend = Attend::Step(caches, &rows);
                voice.decoder.run(voice.weights, &ids, &positions, attend)
            })?;
            let rows = active
                .drain(..)
                .map(|a| Active {
                    position: a.position + 1,
                    ..a
                })
                .collect();
            drawn.extend(draw(logits, rows, request)?);
        }
        for (mut row, drawn) in drawn {
            let Drawn { id, logp, .. } = drawn;
            on_token(row.prompt, id);
            let result = &mut results[row.prompt];
            result.ids.push(id);
            result.logps.push(logp);
            result.entropies.push(drawn.entropy);
            result.constrained += usize::from(drawn.constrained);
            result.satisfied = drawn.satisfied;
            let ended = eos.contains(&id);
            if ended {
                result.finish = Finish::Eos;
            }
            if ended || result.ids.len() == sampling.max_new_tokens || row.position + 1 >= capacity
            {
                free.push(row.slot);
            } else {
                row.last = id;
                active.push(row);
            }
        }
    }
    Ok(results)
}

/// The voices' logits, mixed, of the hidden states that each has.
fn said(
    voices: &[Voice<'_>],
    caches: &mut [Vec<KvCache>],
    mut hidden: impl FnMut(&Voice<'_>, &mut [KvCache]) -> Result<Tensor<2>, PolicyError>,
) -> Result<Tensor<2>, PolicyError> {
    let mut mixed: Option<Tensor<2>> = None;
    for (voice, caches) in voices.iter().zip(caches) {
        let said = hidden(voice, caches)?;
        let mut logits = voice.decoder.say(voice.weights, said)?;
        if voice.share != 1.0 {
            logits = logits * voice.share;
        }
        mixed = Some(match mixed {
            None => logits,
            Some(others) => others + logits,
        });
    }
    mixed.ok_or(PolicyError::EmptySequence { index: 0 })
}

struct Drawn {
    id: u32,
    logp: f32,
    /// Of the distribution that `logp` is of.
    entropy: f32,
    /// True if the constraint forbade the token that would have been drawn.
    constrained: bool,
    /// True if the text with this token satisfies the constraint.
    satisfied: bool,
}

/// Refuses a constraint that no completion can satisfy.
fn check(constraint: Option<&Constraint>, eos: &[u32], room: usize) -> Result<(), ConstraintError> {
    let Some(constraint) = constraint else {
        return Ok(());
    };
    if eos.is_empty() {
        return Err(ConstraintError::NoEnd);
    }
    let (needed, limit) = (constraint.fewest_tokens(), room);
    if needed > limit {
        return Err(ConstraintError::TooShort { needed, limit });
    }
    Ok(())
}

fn draw<'a>(
    logits: Tensor<2>,
    rows: Vec<Active<'a>>,
    request: &Request<'_>,
) -> Result<Vec<(Active<'a>, Drawn)>, PolicyError> {
    let [_, vocabulary] = logits.dims();
    let mut values: Vec<f32> = logits
        .into_data()
        .convert::<f32>()
        .try_into_vec()
        .expect("`convert` made it float32");
    let sampling = request.sampling;
    values
        .par_chunks_mut(vocabulary)
        .zip(rows)
        .map(|(logits, mut row)| {
            let position = row.position - request.prompts[row.prompt].len();
            let stream = request.streams[row.prompt];
            let mut rng = CounterRng::new(request.seed, &[0x6765_6e00, stream, position as u64]);
            let uniform = rng.next_f64();
            let not_finite = || PolicyError::NotFinite {
                prompt: stream,
                position,
            };
            let drawn = match &mut row.state {
                None => choose(logits, sampling, uniform).ok_or_else(not_finite)?,
                Some(state) => choose_allowed(logits, state, request.eos, sampling, uniform)
                    .map_err(|source| PolicyError::Constraint {
                        prompt: row.prompt,
                        source,
                    })?
                    .ok_or_else(not_finite)?,
            };
            Ok((row, drawn))
        })
        .collect()
}

/// Divides logits by the temperature; returns the first of the largest, `None` if they are not finite.
fn scale(logits: &mut [f32], sampling: &Sampling) -> Option<usize> {
    let scale = if sampling.temperature == 0.0 {
        1.0
    } else {
        (1.0 / sampling.temperature) as f32
    };
    for x in logits.iter_mut() {
        if !x.is_finite() {
            return None;
        }
        *x *= scale;
    }
    Some(largest(logits))
}

fn largest(row: &[f32]) -> usize {
    let mut best = 0;
    for (i, x) in row.iter().enumerate() {
        if *x > row[best] {
            best = i;
        }
    }
    best
}

/// One token from a row of logits, which is overwritten; `None` if they are not finite.
fn choose(logits: &mut [f32], sampling: &Sampling, uniform: f64) -> Option<Drawn> {
    let best = scale(logits, sampling)?;
    let entropy = softmax_row(logits);
    let id = pick(logits, best, sampling, uniform);
    Some(Drawn {
        id: id as u32,
        logp: (logits[id].max(f32::MIN_POSITIVE)).ln(),
        entropy,
        constrained: false,
        satisfied: true,
    })
}

/// As [`choose`], from the tokens that the constraint allows, and goes on by the chosen one.
fn choose_allowed(
    logits: &mut [f32],
    state: &mut State<'_>,
    eos: &[u32],
    sampling: &Sampling,
    uniform: f64,
) -> Result<Option<Drawn>, ConstraintError> {
    let Some(best) = scale(logits, sampling) else {
        return Ok(None);
    };
    let may_end = state.may_end()?;
    let allowed = state.allowed()?;
    // The logits of what is allowed: their own softmax still tells them apart where the whole
    // distribution's rounds all of them to 0.
    let mut held = vec![f32::NEG_INFINITY; logits.len()];
    for (i, (held, logit)) in held.iter_mut().zip(&*logits).enumerate() {
        if allowed.contains(i as u32) {
            *held = *logit;
        }
    }
    for id in eos {
        if let Some(held) = held.get_mut(*id as usize) {
            *held = if may_end {
                logits[*id as usize]
            } else {
                f32::NEG_INFINITY
            };
        }
    }
    let best_held = largest(&held);
    if held[best_held] == f32::NEG_INFINITY {
        return Err(state.dead_end());
    }
    let is_allowed: Vec<bool> = held.iter().map(|x| *x > f32::NEG_INFINITY).collect();
    softmax_row(&mut held);
    let id = pick(&held, best_held, sampling, uniform);
    let (logit, largest_logit) = (logits[id], logits[best]);
    let entropy = softmax_row(logits);
    // `ln p` as without a constraint, and by the logits where `p` rounds to 0.
    let logp = if logits[id] > f32::MIN_POSITIVE {
        logits[id].ln()
    } else {
        logit - largest_logit + logits[best].ln()
    };
    let free = pick(logits, best, sampling, uniform);
    let ended = eos.contains(&(id as u32));
    if !ended {
        state.advance(id as u32)?;
    }
    Ok(Some(Drawn {
        id: id as u32,
        logp,
        entropy,
        constrained: !is_allowed[free],
        satisfied: ended || state.may_end()?,
    }))
}

/// A token from probabilities, of which `best` is the largest.
fn pick(probabilities: &[f32], best: usize, sampling: &Sampling, uniform: f64) -> usize {
    if sampling.temperature == 0.0 {
        return best;
    }
    let floor = (sampling.min_p as f32) * probabilities[best];
    if sampling.top_k > 0 || sampling.top_p < 1.0 {
        return nucleus(probabilities, sampling, floor, uniform);
    }
    let kept = |p: &f32| *p >= floor;
    let total: f64 = probabilities
        .iter()
        .filter(|p| kept(p))
        .map(|p| f64::from(*p))
        .sum();
    let mut left = uniform * total;
    let mut last = best;
    for (i, p) in probabilities
        .iter()
        .enumerate()
        .filter(|(_, p)| kept(p) && **p > 0.0)
    {
        last = i;
        left -= f64::from(*p);
        if left < 0.0 {
            break;
        }
    }
    last
}

/// Draws from the likeliest tokens: `top_k`, then `top_p` of what is left, then `min_p`.
fn nucleus(probabilities: &[f32], sampling: &Sampling, floor: f32, uniform: f64) -> usize {
    let mut order: Vec<usize> = (0..probabilities.len()).collect();
    let by_probability = |a: &usize, b: &usize| {
        probabilities[*b]
            .total_cmp(&probabilities[*a])
            .then(a.cmp(b))
    };
    if sampling.top_k > 0 && sampling.top_k < order.len() {
        order.select_nth_unstable_by(sampling.top_k - 1, by_probability);
        order.truncate(sampling.top_k);
    }
    order.sort_unstable_by(by_probability);
    let sum = |order: &[usize]| {
        order
            .iter()
            .map(|i| f64::from(probabilities[*i]))
            .sum::<f64>()
    };
    let total = sum(&order);
    let mut reached = 0.0;
    let mut kept = 0;
    for i in &order {
        let p = probabilities[*i];
        if kept > 0 && (reached >= sampling.top_p * total || p < floor || p == 0.0) {
            break;
        }
        reached += f64::from(p);
        kept += 1;
    }
    order.truncate(kept);
    let mut left = uniform * sum(&order);
    for i in &order {
        left -= f64::from(probabilities[*i]);
        if left < 0.0 {
            return *i;
        }
    }
    order[order.len() - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completions_end_with_the_models_positions() {
        let policy = crate::source::lab(&burn::tensor::Device::flex(), 0).unwrap();
        let (decoder, weights) = (&policy.decoder, policy.decoder.sampling());
        let positions = decoder.config.max_position_embeddings;
        let prompts = [vec![3; positions - 2], vec![3; 5]];
        let views: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
        let sampling = Sampling {
            max_new_tokens: 10,
            ..Sampling::default()
        };
        let drawn = generate(decoder, &weights, &views, &[], &sampling, 0, &[0, 1]).unwrap();
        assert_eq!([drawn[0].ids.len(), drawn[1].ids.len()], [2, 10]);
        let whole = [&prompts[0][..], &drawn[0].ids].concat();
        let scored = togi_data::Sample::from_parts(&prompts[0], &drawn[0].ids, &[]);
        assert_eq!(whole.len(), positions);
        decoder
            .log_probs(&decoder.frozen(), &[&scored], 1.0)
            .unwrap();
    }

    fn frequencies(sampling: &Sampling) -> Vec<f64> {
        let logits = [0.0_f32, 1.0, 2.0, 3.0];
        let mut counts = vec![0.0; 4];
        let n = 20_000;
        for i in 0..n {
            let uniform = (f64::from(i) + 0.5) / f64::from(n);
            let drawn = choose(&mut logits.to_vec(), sampling, uniform).unwrap();
            counts[drawn.id as usize] += 1.0 / f64::from(n);
        }
        counts
    }

    #[test]
    fn tokens_are_drawn_with_their_probabilities() {
        let exact: Vec<f64> = {
            let e: Vec<f64> = (0..4).map(|i| f64::from(i).exp()).collect();
            let sum: f64 = e.iter().sum();
            e.iter().map(|x| x / sum).collect()
        };
        let close = |sampling: Sampling, expected: &[f64]| {
            for (a, b) in frequencies(&sampling).iter().zip(expected) {
                assert!((a - b).abs() < 1e-3, "{sampling:?}: {a} {b}");
            }
        };
        close(Sampling::default(), &exact);
        close(
            Sampling {
                temperature: 0.0,
                ..Default::default()
            },
            &[0.0, 0.0, 0.0, 1.0],
        );
        let two = exact[2] + exact[3];
        let top_two = [0.0, 0.0, exact[2] / two, exact[3] / two];
        close(
            Sampling {
                top_k: 2,
                ..Default::default()
            },
            &top_two,
        );
        close(
            Sampling {
                top_p: 0.7,
                ..Default::default()
            },
            &top_two,
        );
        close(
            Sampling {
                min_p: 0.3,
                ..Default::default()
            },
            &top_two,
        );
    }

    #[test]
    fn logits_that_are_not_finite_are_refused() {
        assert!(choose(&mut [0.0, f32::NAN], &Sampling::default(), 0.5).is_none());
    }
}
