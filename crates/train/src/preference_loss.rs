//! The losses of the preference recipes: which objective of `togi-rl-algos`, with which fields.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use togi_rl_algos::{
    AlgoError, PairLogps, aot, apo, bco, cpo, discopop, dpo, exo,
    f_divergence::{self, Divergence},
    ipo, nca, orpo, sft, simpo, slic, sppo,
};

use crate::{
    config::{positive, within},
    error::TrainError,
};

/// The loss, with its own fields: a field that a loss does not read cannot be given to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum PreferenceLoss {
    /// DPO; with label smoothing cDPO.
    Sigmoid {
        /// Strength of the pull towards the reference.
        beta: f64,
        /// Probability that a label is wrong.
        #[serde(default)]
        label_smoothing: f64,
    },
    /// DPO on soft labels: each pair's `probability` is its label.
    SoftLabels {
        /// As in `sigmoid`.
        beta: f64,
    },
    /// DPO that is unbiased under flipped labels.
    Robust {
        /// As in `sigmoid`.
        beta: f64,
        /// Probability that a label is wrong.
        label_smoothing: f64,
    },
    /// `max(0, 1 - beta h)`, TRL's `hinge`.
    Hinge {
        /// As in `sigmoid`.
        beta: f64,
    },
    /// DPO with log-ratios averaged over tokens, TRL's `sigmoid_norm`.
    SigmoidNorm {
        /// As in `sigmoid`, and larger: averages are small.
        beta: f64,
    },
    /// DPO under another divergence from the reference (f-DPO).
    FDivergence {
        /// As in `sigmoid`.
        beta: f64,
        /// Probability that a label is wrong.
        #[serde(default)]
        label_smoothing: f64,
        /// `kind` is `forward_kl`, `jensen_shannon`, `alpha` (with `alpha`), or `reverse_kl`.
        divergence: Divergence,
    },
    /// IPO with summed log-ratios, as in the paper.
    IpoSummed {
        /// Regularisation; the target margin is `1 / (2 tau)`.
        tau: f64,
    },
    /// IPO with log-ratios averaged over tokens, as in TRL.
    IpoTokenAveraged {
        /// Regularisation; the target margin is `1 / (2 tau)`.
        tau: f64,
    },
    /// EXO: the reverse divergence of preferences.
    ExoPair {
        /// As in `sigmoid`.
        beta: f64,
        /// Probability that a label is wrong; above 0.
        label_smoothing: f64,
    },
    /// NCA: raises the chosen likelihood itself.
    NcaPair {
        /// As in `sigmoid`.
        beta: f64,
    },
    /// BCO; without `shift_decay` TRL's `bco_pair`.
    BcoPair {
        /// As in `sigmoid`.
        beta: f64,
        /// Shift rewards by their running mean, as the paper: the share of it that stays at each
        /// update. The mean is that of the batches before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        shift_decay: Option<f64>,
    },
    /// SPPO with hard labels.
    SppoHard {
        /// `1 / η` of the paper.
        beta: f64,
    },
    /// AOT on pairs; sorts over the batch.
    Aot {
        /// As in `sigmoid`.
        beta: f64,
        /// Probability that a label is wrong.
        #[serde(default)]
        label_smoothing: f64,
    },
    /// AOT that takes both sides apart; sorts over the batch.
    AotUnpaired {
        /// As in `sigmoid`.
        beta: f64,
        /// Probability that a label is wrong.
        #[serde(default)]
        label_smoothing: f64,
    },
    /// APO for chosen answers better than the model's.
    ApoZero {
        /// As in `sigmoid`.
        beta: f64,
    },
    /// APO for chosen answers worse than the model's.
    ApoDown {
        /// As in `sigmoid`.
        beta: f64,
    },
    /// DiscoPOP.
    Discopop {
        /// As in `sigmoid`.
        beta: f64,
        /// Temperature of the blend; 0.05 in the paper.
        tau: f64,
    },
    /// SLiC-HF: rank calibration and a cross-entropy regulariser on the chosen answer; no
    /// reference model.
    SlicHf {
        /// Margin of the ranking.
        delta: f64,
        /// Weight of the regulariser.
        lambda: f64,
    },
    /// SimPO: averages over tokens, a target margin, no reference model.
    Simpo {
        /// Scale of the margin; 2 to 10 in the paper.
        beta: f64,
        /// Target margin.
        gamma: f64,
    },
    /// CPO: a uniform reference and a likelihood term.
    Cpo {
        /// As in `sigmoid`.
        beta: f64,
        /// Weight of the likelihood.
        alpha: f64,
        /// Probability that a label is wrong.
        #[serde(default)]
        label_smoothing: f64,
    },
    /// ORPO: supervised learning and the ratio of odds, no reference model.
    Orpo {
        /// Weight of the odds ratio.
        lambda: f64,
    },
    /// The negative log-likelihood of the chosen answer, averaged over its tokens: a term of sums.
    Sft,
    /// A weighted sum of losses. MPO (Wang et al. 2024) is 0.8 `sigmoid`, 0.2 `bco_pair` and 1 `sft`.
    WeightedSum {
        /// The losses with their weights.
        terms: Vec<Term>,
    },
}

/// A loss in a sum.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Term {
    /// What its values are multiplied with.
    pub weight: f64,
    /// The loss.
    pub loss: PreferenceLoss,
}

/// What is known of pairs beside their log-probabilities, `[batch]` each: the tokens of their completions,
/// and the probabilities that the chosen ones are better, for a loss that learns from those.
pub(crate) struct PairTokens {
    pub(crate) chosen: Tensor<1>,
    pub(crate) rejected: Tensor<1>,
    pub(crate) probability: Option<Tensor<1>>,
}

impl PreferenceLoss {
    /// The scale of the implicit rewards that are logged.
    pub(crate) fn reward_scale(&self) -> f64 {
        match *self {
            Self::Sigmoid { beta, .. }
            | Self::SoftLabels { beta }
            | Self::Robust { beta, .. }
            | Self::Hinge { beta }
            | Self::SigmoidNorm { beta }
            | Self::FDivergence { beta, .. }
            | Self::ExoPair { beta, .. }
            | Self::NcaPair { beta }
            | Self::BcoPair { beta, .. }
            | Self::SppoHard { beta }
            | Self::Aot { beta, .. }
            | Self::AotUnpaired { beta, .. }
            | Self::ApoZero { beta }
            | Self::ApoDown { beta }
            | Self::Discopop { beta, .. }
            | Self::Simpo { beta, .. }
            | Self::Cpo { beta, .. } => beta,
            Self::IpoSummed { tau } | Self::IpoTokenAveraged { tau } => tau,
            Self::SlicHf { .. } | Self::Orpo { .. } | Self::Sft => 1.0,
            Self::WeightedSum { ref terms } => terms
                .iter()
                .find(|term| term.loss.needs_reference())
                .map_or(1.0, |term| term.loss.reward_scale()),
        }
    }

    /// True if it compares the policy with a reference.
    pub fn needs_reference(&self) -> bool {
        match self {
            Self::SlicHf { .. }
            | Self::Simpo { .. }
            | Self::Cpo { .. }
            | Self::Orpo { .. }
            | Self::Sft => false,
            Self::WeightedSum { terms } => terms.iter().any(|term| term.loss.needs_reference()),
            _ => true,
        }
    }

    /// The running mean of rewards that it shifts by, if it does: the scale of the rewards, and the
    /// share of the mean that stays at each update.
    pub(crate) fn shift(&self) -> Option<(f64, f64)> {
        match self {
            Self::BcoPair { beta, shift_decay } => shift_decay.map(|decay| (*beta, decay)),
            Self::WeightedSum { terms } => terms.iter().find_map(|term| term.loss.shift()),
            _ => None,
        }
    }

    /// True if it learns from each pair's own probability.
    pub fn needs_probability(&self) -> bool {
        match self {
            Self::SoftLabels { .. } => true,
            Self::WeightedSum { terms } => terms.iter().any(|term| term.loss.needs_probability()),
            _ => false,
        }
    }

    /// True if it looks at the batch as a whole, which then must not be cut into micro-batches.
    pub(crate) fn is_of_batch(&self) -> bool {
        match self {
            Self::Aot { .. } | Self::AotUnpaired { .. } => true,
            Self::WeightedSum { terms } => terms.iter().any(|term| term.loss.is_of_batch()),
            _ => false,
        }
    }

    pub(crate) fn validate(&self) -> Result<(), TrainError> {
        let beta = |beta| positive("loss.beta", beta);
        let smoothing = |e, low, high| within("loss.label_smoothing", e, low, high);
        match *self {
            Self::Sigmoid {
                beta: b,
                label_smoothing: e,
            }
            | Self::FDivergence {
                beta: b,
                label_smoothing: e,
                ..
            }
            | Self::Aot {
                beta: b,
                label_smoothing: e,
            }
            | Self::AotUnpaired {
                beta: b,
                label_smoothing: e,
            } => beta(b).and(smoothing(e, 0.0, 0.5)),
            Self::Robust {
                beta: b,
                label_smoothing: e,
            } => beta(b).and(smoothing(e, 0.0, 0.499_999)),
            Self::ExoPair {
                beta: b,
                label_smoothing: e,
            } => beta(b).and(smoothing(e, 1e-12, 0.5)),
            Self::Hinge { beta: b }
            | Self::SoftLabels { beta: b }
            | Self::SigmoidNorm { beta: b }
            | Self::NcaPair { beta: b }
            | Self::SppoHard { beta: b }
            | Self::ApoZero { beta: b }
            | Self::ApoDown { beta: b } => beta(b),
            Self::Discopop { beta: b, tau } => beta(b).and(positive("loss.tau", tau)),
            Self::IpoSummed { tau } | Self::IpoTokenAveraged { tau } => positive("loss.tau", tau),
            Self::SlicHf { delta, lambda } => {
                positive("loss.delta", delta).and(within("loss.lambda", lambda, 0.0, f64::MAX))
            }
            Self::Simpo { beta: b, gamma } => {
                beta(b).and(within("loss.gamma", gamma, 0.0, f64::MAX))
            }
            Self::Cpo {
                beta: b,
                alpha,
                label_smoothing: e,
            } => beta(b)
                .and(within("loss.alpha", alpha, 0.0, f64::MAX))
                .and(smoothing(e, 0.0, 0.5)),
            Self::Orpo { lambda } => positive("loss.lambda", lambda),
            Self::BcoPair {
                beta: b,
                shift_decay,
            } => beta(b).and(match shift_decay {
                Some(decay) => within("loss.shift_decay", decay, 0.0, 0.999_999_9),
                None => Ok(()),
            }),
            Self::Sft => Ok(()),
            Self::WeightedSum { ref terms } => {
                if terms.is_empty() {
                    return Err(TrainError::config("loss.terms", "there is none"));
                }
                terms.iter().enumerate().try_for_each(|(i, term)| {
                    if matches!(term.loss, Self::WeightedSum { .. }) {
                        let place = format!("loss.terms[{i}]");
                        return Err(TrainError::config(place, "is a sum itself"));
                    }
                    positive(&format!("loss.terms[{i}].weight"), term.weight)?;
                    term.loss.validate()
                })
            }
        }
    }

    /// One value a pair (for the losses that sort: a quantile). `shift` is the running mean of
    /// rewards, for a loss that has one.
    pub(crate) fn losses(
        &self,
        policy: &PairLogps,
        reference: &PairLogps,
        tokens: &PairTokens,
        shift: f64,
    ) -> Result<Tensor<1>, AlgoError> {
        let PairTokens {
            chosen, rejected, ..
        } = tokens;
        match *self {
            Self::Sigmoid {
                beta,
                label_smoothing,
            } => dpo::sigmoid_loss(policy, reference, beta, label_smoothing),
            Self::Robust {
                beta,
                label_smoothing,
            } => dpo::robust_loss(policy, reference, beta, label_smoothing),
            Self::SoftLabels { beta } => {
                let missing = AlgoError::Empty {
                    argument: "probability",
                };
                let probability = tokens.probability.as_ref().ok_or(missing)?;
                dpo::soft_label_loss(policy, reference, probability, beta)
            }
            Self::Hinge { beta } => dpo::hinge_loss(policy, reference, beta),
            Self::SigmoidNorm { beta } => {
                dpo::length_normalised_loss(policy, reference, chosen, rejected, beta)
            }
            Self::FDivergence {
                beta,
                label_smoothing,
                divergence,
            } => f_divergence::f_dpo_loss(policy, reference, beta, label_smoothing, divergence),
            Self::IpoSummed { tau } => ipo::summed_loss(policy, reference, tau),
            Self::IpoTokenAveraged { tau } => {
                ipo::token_averaged_loss(policy, reference, chosen, rejected, tau)
            }
            Self::ExoPair {
                beta,
                label_smoothing,
            } => exo::exo_pair_loss(policy, reference, beta, label_smoothing),
            Self::NcaPair { beta } => nca::nca_pair_loss(policy, reference, beta),
            Self::BcoPair { beta, .. } => bco::bco_pair_loss(policy, reference, beta, shift),
            Self::SppoHard { beta } => sppo::sppo_hard_loss(policy, reference, beta),
            Self::Aot {
                beta,
                label_smoothing,
            } => aot::aot_loss(policy, reference, beta, label_smoothing),
            Self::AotUnpaired {
                beta,
                label_smoothing,
            } => aot::aot_unpaired_loss(policy, reference, beta, label_smoothing),
            Self::ApoZero { beta } => apo::apo_zero_loss(policy, reference, beta),
            Self::ApoDown { beta } => apo::apo_down_loss(policy, reference, beta),
            Self::Discopop { beta, tau } => discopop::discopop_loss(policy, reference, beta, tau),
            Self::SlicHf { delta, lambda } => {
                slic::slic_hf_loss(policy, &policy.chosen, delta, lambda)
            }
            Self::Simpo { beta, gamma } => simpo::simpo_loss(policy, chosen, rejected, beta, gamma),
            Self::Cpo {
                beta,
                alpha,
                label_smoothing,
            } => cpo::cpo_loss(policy, chosen, beta, alpha, label_smoothing),
            Self::Orpo { lambda } => orpo::orpo_loss(policy, chosen, rejected, lambda),
            Self::Sft => sft::mean_nll_loss(&policy.chosen, chosen),
            Self::WeightedSum { ref terms } => {
                let mut sum = policy.chosen.zeros_like();
                for term in terms {
                    let losses = term.loss.losses(policy, reference, tokens, shift)?;
                    sum = sum + losses * term.weight;
                }
                Ok(sum)
            }
        }
    }
}
