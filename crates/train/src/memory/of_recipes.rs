//! What each recipe asks of memory. The model is given as it is before an adapter is added.

use togi_kernels::is_cpu;
use togi_policy::{Decoder, Precision, Sampling, WeightFormat};

use super::{Demand, Form, PromptSizes, Sizes, Work};
use crate::{
    config::{DataSection, LoopSection},
    kto::KtoConfig,
    online::{OnlineAlgorithm, OnlineConfig},
    ppo::PpoConfig,
    preference::PreferenceConfig,
    reward::RewardConfig,
    sampler::SamplerSection,
    sft::{EVAL_PART, SftConfig},
};

/// Completions whose log-probabilities are taken at a time when held-out prompts are looked at.
const LOOKED_AT: usize = 32;

impl Demand {
    fn of(decoder: &Decoder, work: Work) -> Self {
        let on_cpu = is_cpu(decoder.device());
        Self {
            config: decoder.config.clone(),
            parameters: decoder.params.count().0,
            lora: None,
            frozen: 0,
            keeps_start: false,
            moving_reference: false,
            value: false,
            batch: 1,
            micro: 1,
            unit: 1,
            gradient_checkpointing: false,
            logits: true,
            max_length: 0,
            work,
            drawing: None,
            form: if on_cpu { Form::Fused } else { Form::Composed },
            precision: decoder.precision,
        }
    }

    fn fixed(
        decoder: &Decoder,
        train: &LoopSection,
        data: &DataSection,
        seed: u64,
        sizes: Sizes,
        (sides, looked_at): (usize, usize),
    ) -> Self {
        let work = Work::Fixed {
            sizes,
            sides,
            seed,
            steps: train.max_steps,
            looked_at,
        };
        Self {
            batch: train.batch_size,
            micro: train.micro_batch_size,
            gradient_checkpointing: train.gradient_checkpointing,
            max_length: data.max_length,
            ..Self::of(decoder, work)
        }
    }

    /// Of the recipe `sft`.
    pub fn sft(config: &SftConfig, decoder: &Decoder, sizes: Sizes) -> Self {
        let SftConfig {
            train, data, seed, ..
        } = config;
        Self {
            lora: config.lora.clone(),
            ..Self::fixed(
                decoder,
                train,
                data,
                *seed,
                sizes,
                (1, EVAL_PART.min(train.eval_samples)),
            )
        }
    }

    /// Of the recipe `reward`; the model has its scalar head.
    pub fn reward(config: &RewardConfig, decoder: &Decoder, sizes: Sizes) -> Self {
        let RewardConfig {
            train, data, seed, ..
        } = config;
        Self {
            lora: config.lora.clone(),
            logits: false,
            ..Self::fixed(
                decoder,
                train,
                data,
                *seed,
                sizes,
                (2, EVAL_PART.min(train.eval_samples)),
            )
        }
    }

    /// Of the recipes that learn from pairs.
    pub fn preference(config: &PreferenceConfig, decoder: &Decoder, sizes: Sizes) -> Self {
        let PreferenceConfig {
            train, data, seed, ..
        } = config;
        let unit = match config.loss.is_of_batch() {
            true => train.batch_size.max(1),
            false => 1,
        };
        let moves = config.reference.moves();
        Self {
            lora: config.lora.clone(),
            keeps_start: config.loss.needs_reference() && !moves,
            moving_reference: moves,
            unit,
            ..Self::fixed(
                decoder,
                train,
                data,
                *seed,
                sizes,
                (2, (EVAL_PART / 2).min(train.eval_samples)),
            )
        }
    }

    /// Of the recipe `kto`.
    pub fn kto(config: &KtoConfig, decoder: &Decoder, sizes: Sizes) -> Self {
        let KtoConfig {
            train, data, seed, ..
        } = config;
        // Its reference point looks at the samples of an update, too.
        let looked_at = EVAL_PART.min(train.batch_size.max(train.eval_samples));
        Self {
            lora: config.lora.clone(),
            keeps_start: true,
            ..Self::fixed(decoder, train, data, *seed, sizes, (1, looked_at))
        }
    }

    /// Of the recipe `ppo`, with reward models of so many parameters in all.
    pub fn ppo(
        config: &PpoConfig,
        decoder: &Decoder,
        rewards: usize,
        prompts: &PromptSizes,
    ) -> Self {
        let PromptSizes {
            train: prompts,
            held_out,
        } = prompts;
        let looked_at = config.eval_samples.min(*held_out);
        let work = Work::Drawn {
            prompt: longest(prompts),
            new: longest_answer(decoder, prompts, &config.sampling),
            at_once: config.sampling.batch_size.min(config.prompts_per_step),
            group: 1,
            voices: 1,
            sampler: sampled(&config.sampler),
            scored: LOOKED_AT.min(looked_at),
            held_out: config.sampling.batch_size.min(looked_at),
        };
        Self {
            lora: config.lora.clone(),
            frozen: rewards,
            keeps_start: true,
            moving_reference: config.reference.moves(),
            value: true,
            batch: config.minibatch_size.min(config.prompts_per_step),
            micro: config.micro_batch_size,
            gradient_checkpointing: config.gradient_checkpointing,
            max_length: config.data.max_length,
            ..Self::of(decoder, work)
        }
    }

    /// Of an online recipe without a value model.
    pub fn online<A: OnlineAlgorithm>(
        config: &OnlineConfig<A>,
        decoder: &Decoder,
        rewards: usize,
        prompts: &PromptSizes,
    ) -> Self {
        let PromptSizes {
            train: prompts,
            held_out,
        } = prompts;
        let drawn = config.prompts_per_step * config.completions_per_prompt;
        // Those of the policy alone are drawn first, then those of the mixture.
        let own = config.own_completions();
        let looked_at = config.eval_samples.min(*held_out);
        let once = config.prompts_per_step * own.max(config.completions_per_prompt - own);
        // A minibatch is picked from all completions, unless it is all of them or keeps groups.
        let together = config.algorithm.keeps_groups() || config.minibatch_size >= drawn;
        let group = match together {
            true => config.completions_per_prompt,
            false => 1,
        };
        let work = Work::Drawn {
            prompt: longest(prompts),
            new: longest_answer(decoder, prompts, &config.sampling),
            at_once: config.sampling.batch_size.min(once),
            group,
            voices: 1 + usize::from(config.algorithm.opponent().is_some()),
            sampler: sampled(&config.sampler),
            scored: LOOKED_AT.min(looked_at),
            held_out: config.sampling.batch_size.min(looked_at),
        };
        let unit = match config.algorithm.keeps_groups() {
            true => config.completions_per_prompt.max(1),
            false => 1,
        };
        Self {
            lora: config.lora.clone(),
            frozen: rewards,
            keeps_start: true,
            moving_reference: config.reference.moves(),
            batch: config.minibatch_size.min(drawn),
            micro: config.micro_batch_size,
            unit,
            gradient_checkpointing: config.gradient_checkpointing,
            max_length: config.data.max_length,
            ..Self::of(decoder, work)
        }
    }
}

/// How rollouts hold weights.
pub(super) fn sampled(sampler: &SamplerSection) -> WeightFormat {
    let format = sampler.format(Precision::of_program());
    format.unwrap_or(WeightFormat::F32)
}

/// Tokens of an answer to a prompt of so many: it ends where the model has no positions left.
pub(super) fn answer_to(prompt: usize, decoder: &Decoder, sampling: &Sampling) -> usize {
    let positions = decoder.config.max_position_embeddings;
    let left = positions.saturating_sub(prompt).max(1);
    sampling.max_new_tokens.min(left)
}

/// Tokens of the longest answer to any of them.
pub(super) fn longest_answer(decoder: &Decoder, prompts: &Sizes, sampling: &Sampling) -> usize {
    let shortest = prompts.iter().map(|size| size.0).min().unwrap_or(0);
    answer_to(shortest, decoder, sampling)
}

pub(super) fn longest(prompts: &Sizes) -> usize {
    prompts.iter().map(|size| size.0).max().unwrap_or(0)
}
