//! Simulated people who compare two answers.

use serde::{Deserialize, Serialize};

use crate::{
    lab::{gold::score, prompts::LabPrompt},
    rng::CounterRng,
};

/// How the annotators differ from the truth.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AnnotatorConfig {
    /// People.
    pub count: usize,
    /// Temperature of the choice: the better answer wins with probability
    /// `sigmoid(difference / noise)`; 0 always chooses it.
    pub noise: f64,
    /// Spread of each person's own weights of the gold's parts, as a share of them.
    pub disagreement: f64,
    /// What ten more words are worth, in units of the gold score.
    pub length_bias: f64,
}

impl Default for AnnotatorConfig {
    fn default() -> Self {
        Self {
            count: 5,
            noise: 0.05,
            disagreement: 0.3,
            length_bias: 0.05,
        }
    }
}

/// A group of annotators; what they say is a function of seed and item.
#[derive(Clone, Debug)]
pub struct Annotators {
    seed: u64,
    config: AnnotatorConfig,
    /// Weights of instruction, brevity, politeness and safety, for each person.
    weights: Vec<[f64; 4]>,
}

impl Annotators {
    /// A group with these habits; at least one person.
    pub fn new(seed: u64, config: AnnotatorConfig) -> Self {
        let weights = (0..config.count.max(1))
            .map(|person| {
                let mut rng = CounterRng::new(seed, &[0x7765_6967, person as u64]);
                [0.4, 0.2, 0.2, 0.2]
                    .map(|w: f64| w * (1.0 + config.disagreement * rng.gaussian()).max(0.0))
            })
            .collect();
        Self {
            seed,
            config,
            weights,
        }
    }

    /// True if the annotator of this item takes the first answer.
    pub fn prefers_first(&self, item: u64, prompt: &LabPrompt, a: &str, b: &str) -> bool {
        let mut rng = CounterRng::new(self.seed, &[0x7072_6566, item]);
        let weights = self.weights[rng.below(self.weights.len())];
        let utility = |answer: &str| {
            let gold = score(prompt, answer);
            let parts = [gold.instruction, gold.brevity, gold.politeness, gold.safety];
            let words = answer.split_whitespace().count() as f64;
            let own: f64 = weights.iter().zip(parts).map(|(w, p)| w * p).sum();
            own + self.config.length_bias * words / 10.0
        };
        let difference = utility(a) - utility(b);
        if self.config.noise <= 0.0 {
            return difference > 0.0 || (difference == 0.0 && rng.chance(0.5));
        }
        rng.chance(1.0 / (1.0 + (-difference / self.config.noise).exp()))
    }
}
