//! Sampling of completions with a key/value cache.

use std::{collections::VecDeque, sync::Arc};

use burn::tensor::Tensor;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use togi_data::rng::CounterRng;
use togi_kernels::{KvCache, embedding, softmax_row};

use crate::{
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
    /// temperature 0 that of temperature 1. `top_k`, `top_p` and `min_p` do not change it.
    pub logps: Vec<f32>,
    /// Why it ended.
    pub finish: Finish,
}

/// A sequence in a slot of the cache.
struct Active {
    prompt: usize,
    slot: usize,
    /// Position of the token that is fed next.
    position: usize,
    last: u32,
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
    let nothing = &mut |_, _| {};
    generate_with(&[voice], prompts, eos, sampling, seed, streams, nothing)
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
/// (the logits are added up, each times its share), and `on_token` hears the number of the prompt and
/// each token of its completion as it is drawn.
///
/// # Errors
/// As [`generate`]; without a voice, or with vocabularies that differ.
#[allow(clippy::too_many_arguments)]
pub fn generate_with(
    voices: &[Voice<'_>],
    prompts: &[&[u32]],
    eos: &[u32],
    sampling: &Sampling,
    seed: u64,
    streams: &[u64],
    on_token: &mut dyn FnMut(usize, u32),
) -> Result<Vec<Generation>, PolicyError> {
    sampling.validate()?;
    assert_eq!(
        prompts.len(),
        streams.len(),
        "generate: one stream a prompt"
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
            finish: Finish::Length,
        })
        .collect();
    let mut waiting: VecDeque<usize> = (0..prompts.len()).collect();
    let mut free: Vec<usize> = (0..slots).rev().collect();
    let mut active: Vec<Active> = Vec::new();
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
        let mut drawn: Vec<(Active, Drawn)> = Vec::new();
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
            let rows: Vec<Active> = entering
                .iter()
                .map(|(prompt, slot)| Active {
                    prompt: *prompt,
                    slot: *slot,
                    position: prompts[*prompt].len(),
                    last: 0,
                })
                .collect();
            drawn.extend(draw(logits, rows, prompts, sampling, seed, streams)?);
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
            drawn.extend(draw(logits, rows, prompts, sampling, seed, streams)?);
        }
        for (mut row, Drawn { id, logp }) in drawn {
            on_token(row.prompt, id);
            let result = &mut results[row.prompt];
            result.ids.push(id);
            result.logps.push(logp);
            let ended = eos.contains(&id);
            if ended {
                result.finish = Finish::Eos;
            }
            if ended || result.ids.len() == sampling.max_new_tokens || row.position >= capacity {
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
}

fn draw(
    logits: Tensor<2>,
    rows: Vec<Active>,
    prompts: &[&[u32]],
    sampling: &Sampling,
    seed: u64,
    streams: &[u64],
) -> Result<Vec<(Active, Drawn)>, PolicyError> {
    let [_, vocabulary] = logits.dims();
    let mut values: Vec<f32> = logits.into_data().convert::<f32>().iter::<f32>().collect();
    values
        .par_chunks_mut(vocabulary)
        .zip(rows)
        .map(|(logits, row)| {
            let position = row.position - prompts[row.prompt].len();
            let stream = streams[row.prompt];
            let mut rng = CounterRng::new(seed, &[0x6765_6e00, stream, position as u64]);
            match choose(logits, sampling, rng.next_f64()) {
                Some(drawn) => Ok((row, drawn)),
                None => Err(PolicyError::NotFinite {
                    prompt: stream,
                    position,
                }),
            }
        })
        .collect()
}

/// One token from a row of logits, which is overwritten; `None` if they are not finite.
fn choose(logits: &mut [f32], sampling: &Sampling, uniform: f64) -> Option<Drawn> {
    let greedy = sampling.temperature == 0.0;
    let scale = if greedy {
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
    let mut best = 0;
    for (i, x) in logits.iter().enumerate() {
        if *x > logits[best] {
            best = i;
        }
    }
    softmax_row(logits);
    let logp = |i: usize| (logits[i].max(f32::MIN_POSITIVE)).ln();
    if greedy {
        return Some(Drawn {
            id: best as u32,
            logp: logp(best),
        });
    }
    let floor = (sampling.min_p as f32) * logits[best];
    let truncated = sampling.top_k > 0 || sampling.top_p < 1.0;
    let id = if truncated {
        nucleus(logits, sampling, floor, uniform)
    } else {
        let kept = |p: &f32| *p >= floor;
        let total: f64 = logits
            .iter()
            .filter(|p| kept(p))
            .map(|p| f64::from(*p))
            .sum();
        let mut left = uniform * total;
        let mut last = best;
        for (i, p) in logits
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
    };
    Some(Drawn {
        id: id as u32,
        logp: logp(id),
    })
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
        if kept > 0 && (reached >= sampling.top_p * total || probabilities[*i] < floor) {
            break;
        }
        reached += f64::from(probabilities[*i]);
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
