//! What each stage of a run of several asks of memory, and what its settings are called. A stage has models
//! beside it that the same recipe alone has not: those that the run compares at its end, and a judge.

use togi_policy::{Decoder, PolicyError, Sampling};

use super::{
    Demand, Drawing, Keys, PromptSizes, Sizes, Work,
    of_recipes::{answer_to, longest, longest_answer, sampled},
};
use crate::{
    cai::CaiConfig,
    ppo::PpoConfig,
    preference::PreferenceConfig,
    reward::RewardConfig,
    rlaif::{Learn, RlaifConfig},
    rlhf::RlhfConfig,
    rso::RsoConfig,
    sampler::SamplerSection,
    sft::SftConfig,
    stages,
};

/// A stage of a run: its name, its demand, and what its settings are called.
#[derive(Clone, Debug)]
pub struct OfStage {
    /// As in metrics and checkpoints.
    pub name: &'static str,
    /// Of its settings.
    pub keys: Keys,
    /// What it asks of memory.
    pub demand: Demand,
}

/// Of what the stages of `rlhf` learn from: what goes through the models.
#[derive(Clone, Debug, Default)]
pub struct RlhfSizes {
    /// The base model's rows; none where the model is not the lab's.
    pub base: Sizes,
    /// Demonstrations.
    pub sft: Sizes,
    /// The reward model's rows.
    pub reward: Sizes,
    /// Prompts.
    pub ppo: PromptSizes,
}

impl OfStage {
    /// The stages of `rlhf`, in their order.
    ///
    /// # Errors
    /// As [`Decoder::with_score_head`].
    pub fn rlhf(
        config: &RlhfConfig,
        decoder: &Decoder,
        sizes: RlhfSizes,
    ) -> Result<Vec<Self>, PolicyError> {
        let seed = config.seed;
        let scoring = decoder.with_score_head(Some(seed))?;
        let mut all = Vec::new();
        if let Some(base) = &config.base {
            all.push(Self::base(base, seed ^ stages::BASE, decoder, sizes.base));
        }
        all.extend([
            Self::sft(&config.sft, seed ^ stages::SFT, decoder, sizes.sft),
            Self::reward(
                &config.reward,
                seed ^ stages::REWARD,
                &scoring,
                sizes.reward,
            ),
            Self::ppo(&config.ppo, decoder, &sizes.ppo),
        ]);
        Ok(all)
    }

    /// The lab's base model, of the stage's own seed.
    pub(crate) fn base(config: &SftConfig, seed: u64, decoder: &Decoder, sizes: Sizes) -> Self {
        Self {
            name: "base",
            keys: Keys::fixed("base."),
            demand: Demand::sft(config, decoder, sizes).with_seed(seed),
        }
    }

    /// SFT of `rlhf`: the base model is kept, to be compared with.
    pub(crate) fn sft(config: &SftConfig, seed: u64, decoder: &Decoder, sizes: Sizes) -> Self {
        Self {
            name: "sft",
            keys: Keys::fixed("sft."),
            demand: Demand::sft(config, decoder, sizes)
                .with_seed(seed)
                .beside(0),
        }
    }

    /// The reward model of `rlhf`, with its scalar head; the base and the SFT model are kept.
    pub(crate) fn reward(
        config: &RewardConfig,
        seed: u64,
        decoder: &Decoder,
        sizes: Sizes,
    ) -> Self {
        let base = decoder.params.count().0;
        Self {
            name: "reward",
            keys: Keys::fixed("reward."),
            demand: Demand::reward(config, decoder, sizes)
                .with_seed(seed)
                .beside(base),
        }
    }

    /// PPO of `rlhf`: beside its reward model, the base model is kept.
    pub(crate) fn ppo(config: &PpoConfig, decoder: &Decoder, prompts: &PromptSizes) -> Self {
        let each = decoder.params.count().0;
        Self {
            name: "ppo",
            keys: Keys::drawn("ppo."),
            demand: Demand::ppo(config, decoder, each, prompts).beside(each),
        }
    }

    /// What `rlaif` learns, from two of the longest answers to each prompt. The judge has so many parameters of
    /// its own.
    ///
    /// # Errors
    /// As [`Decoder::with_score_head`].
    pub fn rlaif(
        config: &RlaifConfig,
        decoder: &Decoder,
        judge: usize,
        prompts: &Sizes,
    ) -> Result<Self, PolicyError> {
        let label = &config.label;
        let sizes = pairs(decoder, &label.sampling, prompts, label.prompts);
        let demand = match &config.learn {
            Learn::Policy(settings) => Demand::preference(settings, decoder, sizes),
            Learn::RewardModel(settings) => {
                let scoring = decoder.with_score_head(Some(config.seed))?;
                Demand::reward(settings, &scoring, sizes)
            }
        };
        let drawn = drawing(decoder, &label.sampling, prompts, 2 * label.batch_size);
        Ok(Self {
            name: "rlaif",
            keys: Keys::answers("learn.", "label."),
            demand: Demand {
                drawing: Some(drawn),
                ..demand.with_seed(config.seed).beside(judge)
            },
        })
    }

    /// What `cai` learns of its revisions, taken to be of the drafts' longest length; a critic that is a model
    /// may write longer ones. It and the judge have so many parameters of their own.
    pub fn revisions(
        config: &CaiConfig,
        decoder: &Decoder,
        judges: usize,
        prompts: &Sizes,
    ) -> Self {
        let revised = |size: &(usize, usize)| {
            let new = answer_to(size.0, decoder, &config.sampling);
            (size.0 + new, new)
        };
        let sizes = prompts.iter().take(config.prompts).map(revised).collect();
        let drawn = drawing(decoder, &config.sampling, prompts, config.batch_size);
        Self {
            name: "revisions",
            keys: Keys::answers("sft.", ""),
            demand: Demand {
                drawing: Some(drawn),
                ..Demand::sft(&config.sft, decoder, sizes)
                    .with_seed(config.seed ^ stages::REVISIONS)
                    .beside(judges)
            },
        }
    }

    /// What `cai` learns of its comparisons; the model that the run started from is kept too.
    pub fn cai(config: &CaiConfig, decoder: &Decoder, judges: usize, prompts: &Sizes) -> Self {
        let (label, settings) = (&config.label, &config.preference);
        let sizes = pairs(decoder, &label.sampling, prompts, label.prompts);
        let drawn = drawing(decoder, &label.sampling, prompts, 2 * label.batch_size);
        let start = decoder.params.count().0;
        Self {
            name: "cai",
            keys: Keys::answers("preference.", "label."),
            demand: Demand {
                drawing: Some(drawn),
                ..Demand::preference(settings, decoder, sizes)
                    .with_seed(config.seed)
                    .beside(start + judges)
            },
        }
    }

    /// What `rso` learns, from two of the longest answers to each prompt, with reward models of so many
    /// parameters in all.
    pub fn rso(config: &RsoConfig, decoder: &Decoder, rewards: usize, prompts: &Sizes) -> Self {
        let settings: &PreferenceConfig = &config.preference;
        let sampling = &config.sampling;
        let sizes = pairs(decoder, sampling, prompts, config.prompts);
        let demand = Demand::preference(settings, decoder, sizes);
        Self {
            name: "rso",
            keys: Keys::answers("preference.", ""),
            demand: Demand {
                frozen: rewards,
                drawing: Some(drawing(decoder, sampling, prompts, sampling.batch_size)),
                ..demand
            },
        }
    }

    /// The same with other samples.
    #[must_use]
    pub fn with_sizes(self, sizes: Sizes) -> Self {
        Self {
            demand: self.demand.with_sizes(sizes),
            ..self
        }
    }
}

impl Demand {
    /// The same where the model that training starts from is kept, and models of so many parameters beside.
    fn beside(mut self, others: usize) -> Self {
        self.keeps_start = true;
        self.frozen += others;
        self
    }

    /// The same with the samples in the order of this seed.
    fn with_seed(mut self, given: u64) -> Self {
        if let Work::Fixed { seed, .. } = &mut self.work {
            *seed = given;
        }
        self
    }
}

/// Two of the longest answers to each of the first prompts.
fn pairs(decoder: &Decoder, sampling: &Sampling, prompts: &Sizes, count: usize) -> Sizes {
    let pair = |size: &(usize, usize)| {
        let new = answer_to(size.0, decoder, sampling);
        (size.0 + 2 * new, 2 * new)
    };
    prompts.iter().take(count).map(pair).collect()
}

/// Drawing at most so many answers together.
fn drawing(decoder: &Decoder, sampling: &Sampling, prompts: &Sizes, together: usize) -> Drawing {
    Drawing {
        prompt: longest(prompts),
        new: longest_answer(decoder, prompts, sampling),
        at_once: sampling.batch_size.min(together),
        sampler: sampled(&SamplerSection::default()),
    }
}
