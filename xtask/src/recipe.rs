//! The recipes by name, and what each starts from.

use anyhow::Result;
use clap::ValueEnum;
use togi_train::{
    cai::CaiConfig,
    cispo::Cispo,
    grpo::Grpo,
    gspo::Gspo,
    kto::KtoConfig,
    lab_defaults,
    nash_md::NashMd,
    online::{OnlineAlgorithm, OnlineConfig},
    online_dpo::OnlineDpo,
    ppo::PpoConfig,
    preference::{PreferenceConfig, PreferenceLoss},
    raft::Raft,
    reinforce::Reinforce,
    reinforce_plus_plus::ReinforcePlusPlus,
    remax::Remax,
    reward::RewardConfig,
    rlaif::RlaifConfig,
    rloo::Rloo,
    rso::RsoConfig,
    sft::SftConfig,
    xpo::Xpo,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Recipe {
    /// SFT, reward model and PPO in one go, and a comparison of what came out.
    Rlhf,
    /// Supervised fine-tuning.
    Sft,
    /// A reward model from comparisons, rankings, ratings or steps.
    Reward,
    /// PPO against a reward.
    Ppo,
    /// GRPO: completions of a prompt against their group; Dr. GRPO's choices.
    Grpo,
    /// DAPO: GRPO with clip-higher, dynamic sampling and overlong shaping.
    Dapo,
    /// GSPO: GRPO with one ratio a completion.
    Gspo,
    /// CISPO: GRPO's advantages, REINFORCE's gradient with a bounded weight.
    Cispo,
    /// RLOO: REINFORCE with a leave-one-out baseline.
    Rloo,
    /// REINFORCE with a running baseline.
    Reinforce,
    /// REINFORCE++: token-wise KL, whitened returns, PPO's clip.
    ReinforcePlusPlus,
    /// ReMax: REINFORCE against the likeliest completion.
    Remax,
    /// RAFT: rejection sampling fine-tuning.
    Raft,
    /// Online DPO, IPO, SLiC: the best against the worst of fresh completions.
    OnlineDpo,
    /// XPO: online DPO against the reference's completions, with exploration.
    Xpo,
    /// Nash-MD: to be preferred to a mixture with the reference.
    NashMd,
    /// Direct Preference Optimization; `loss.kind` offers its relatives.
    Dpo,
    /// Identity Preference Optimization.
    Ipo,
    /// SLiC-HF: sequence likelihood calibration.
    Slic,
    /// KTO: answers with a thumb up or down.
    Kto,
    /// AI feedback: a judge labels pairs of the model's answers, and the policy or a reward model learns.
    Rlaif,
    /// Constitutional AI: drafts are criticised and revised by principles, then compared by them.
    Cai,
    /// RSO: preferences among answers of the optimal policy, by rejection sampling.
    Rso,
    /// SimPO: length-normalised, without a reference model.
    Simpo,
    /// Contrastive Preference Optimization.
    Cpo,
    /// Odds Ratio Preference Optimization: SFT and preferences in one.
    Orpo,
}

/// Does something with an online recipe, whatever its algorithm.
pub(crate) trait OnlineVisitor {
    fn visit<A: OnlineAlgorithm>(self, defaults: OnlineConfig<A>) -> Result<()>;
}

impl Recipe {
    /// True if it draws completions and scores them.
    pub(crate) fn is_online(self) -> bool {
        use Recipe::{Cai, Cpo, Dpo, Ipo, Kto, Orpo, Reward, Rlaif, Rlhf, Sft, Simpo, Slic};
        !matches!(
            self,
            Rlhf | Sft | Reward | Dpo | Ipo | Slic | Kto | Simpo | Cpo | Orpo | Rlaif | Cai
        )
    }

    pub(crate) fn name(self) -> String {
        self.to_possible_value()
            .map_or(String::new(), |v| v.get_name().to_owned())
    }

    /// The key of the number of updates, which `--max-steps` sets; none for several stages.
    pub(crate) fn steps_key(self) -> Option<&'static str> {
        match self {
            Self::Rlhf | Self::Cai => None,
            Self::Rlaif => Some("learn.train.max_steps"),
            Self::Rso => Some("preference.train.max_steps"),
            _ if self.is_online() => Some("max_steps"),
            _ => Some("train.max_steps"),
        }
    }

    /// The keys of the micro-batches, all of which `--micro-batch` sets. The base of `rlhf` is trained where
    /// the model is the lab's.
    pub(crate) fn micro_keys(self, lab_model: bool) -> &'static [&'static str] {
        const RLHF: [&str; 4] = [
            "base.train.micro_batch_size",
            "sft.train.micro_batch_size",
            "reward.train.micro_batch_size",
            "ppo.micro_batch_size",
        ];
        match self {
            Self::Rlhf if lab_model => &RLHF,
            Self::Rlhf => &RLHF[1..],
            Self::Cai => &[
                "sft.train.micro_batch_size",
                "preference.train.micro_batch_size",
            ],
            Self::Rlaif => &["learn.train.micro_batch_size"],
            Self::Rso => &["preference.train.micro_batch_size"],
            _ if self.is_online() => &["micro_batch_size"],
            _ => &["train.micro_batch_size"],
        }
    }

    /// Hands the defaults of an online recipe without a value model to the visitor; `None` for other
    /// recipes.
    pub(crate) fn online(self, on_lab: bool, visitor: impl OnlineVisitor) -> Option<Result<()>> {
        struct Sized<V>(bool, V);
        impl<V: OnlineVisitor> Sized<V> {
            fn go<A: OnlineAlgorithm>(self, defaults: OnlineConfig<A>) -> Option<Result<()>> {
                let Self(on_lab, visitor) = self;
                Some(visitor.visit(if on_lab {
                    lab_defaults::online(defaults)
                } else {
                    defaults
                }))
            }
        }
        let to = Sized(on_lab, visitor);
        match self {
            Self::Grpo => to.go(Grpo::defaults()),
            Self::Dapo => to.go(Grpo::dapo()),
            Self::Gspo => to.go(Gspo::defaults()),
            Self::Cispo => to.go(Cispo::defaults()),
            Self::Rloo => to.go(Rloo::defaults()),
            Self::Reinforce => to.go(Reinforce::defaults()),
            Self::ReinforcePlusPlus => to.go(ReinforcePlusPlus::defaults()),
            Self::Remax => to.go(Remax::defaults()),
            Self::Raft => to.go(Raft::defaults()),
            Self::OnlineDpo => to.go(OnlineDpo::defaults()),
            Self::Xpo => to.go(Xpo::defaults()),
            Self::NashMd => to.go(NashMd::defaults()),
            _ => None,
        }
    }
}

/// Defaults of the recipes with a configuration of one type: of the lab's model, or of others.
pub(crate) fn sft_defaults(on_lab: bool) -> SftConfig {
    if on_lab {
        lab_defaults::sft()
    } else {
        SftConfig::default()
    }
}

pub(crate) fn reward_defaults(on_lab: bool) -> RewardConfig {
    if on_lab {
        lab_defaults::reward()
    } else {
        RewardConfig::default()
    }
}

pub(crate) fn ppo_defaults(on_lab: bool) -> PpoConfig {
    if on_lab {
        lab_defaults::ppo()
    } else {
        PpoConfig::default()
    }
}

pub(crate) fn kto_defaults(on_lab: bool) -> KtoConfig {
    if on_lab {
        lab_defaults::kto()
    } else {
        KtoConfig::default()
    }
}

pub(crate) fn rso_defaults(on_lab: bool) -> RsoConfig {
    if on_lab {
        lab_defaults::rso()
    } else {
        RsoConfig::default()
    }
}

pub(crate) fn rlaif_defaults(on_lab: bool) -> RlaifConfig {
    if on_lab {
        lab_defaults::rlaif()
    } else {
        RlaifConfig::default()
    }
}

pub(crate) fn cai_defaults(on_lab: bool) -> CaiConfig {
    if on_lab {
        lab_defaults::cai()
    } else {
        CaiConfig::default()
    }
}

/// The preference recipes differ in their default loss: the papers' values where they give one.
pub(crate) fn preference_defaults(recipe: Recipe, on_lab: bool) -> PreferenceConfig {
    let config = match recipe {
        Recipe::Ipo => PreferenceConfig::with(PreferenceLoss::IpoSummed { tau: 0.1 }),
        Recipe::Slic => PreferenceConfig::with(PreferenceLoss::SlicHf {
            delta: 1.0,
            lambda: 0.1,
        }),
        Recipe::Simpo => PreferenceConfig::with(PreferenceLoss::Simpo {
            beta: 2.0,
            gamma: 1.0,
        }),
        Recipe::Cpo => PreferenceConfig::with(PreferenceLoss::Cpo {
            beta: 0.1,
            alpha: 1.0,
            label_smoothing: 0.0,
        }),
        Recipe::Orpo => PreferenceConfig::with(PreferenceLoss::Orpo { lambda: 0.1 }),
        _ => PreferenceConfig::default(),
    };
    if on_lab {
        lab_defaults::preference(config)
    } else {
        config
    }
}

pub(crate) fn list() {
    for recipe in Recipe::value_variants() {
        if let Some(value) = recipe.to_possible_value() {
            let help = value
                .get_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            println!("{:<20} {help}", value.get_name());
        }
    }
}
