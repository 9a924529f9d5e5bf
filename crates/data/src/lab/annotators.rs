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

    /// What an answer is worth to a person with these weights.
    fn utility(&self, weights: &[f64; 4], prompt: &LabPrompt, answer: &str) -> f64 {
        let gold = score(prompt, answer);
        let parts = [gold.instruction, gold.brevity, gold.politeness, gold.safety];
        let words = answer.split_whitespace().count() as f64;
        let own: f64 = weights.iter().zip(parts).map(|(w, p)| w * p).sum();
        own + self.config.length_bias * words / 10.0
    }

    /// The ranks, from 1, that the annotator of this item gives to answers. The choice among those
    /// that are left has the noise of a comparison (Plackett-Luce). Answers whose utilities are within
    /// `tie` of the one before share its rank.
    pub fn ranks(&self, item: u64, prompt: &LabPrompt, answers: &[String], tie: f64) -> Vec<u32> {
        let mut rng = CounterRng::new(self.seed, &[0x7261_6e6b, item]);
        let weights = self.weights[rng.below(self.weights.len())];
        // Gumbel noise on the utilities makes the order Plackett-Luce's.
        let mut noisy = |answer: &String| {
            let gumbel = -(-(1.0 - rng.next_f64()).ln()).ln();
            self.utility(&weights, prompt, answer) + self.config.noise.max(0.0) * gumbel
        };
        let utilities: Vec<f64> = answers.iter().map(&mut noisy).collect();
        let mut order: Vec<usize> = (0..answers.len()).collect();
        order.sort_by(|a, b| utilities[*b].total_cmp(&utilities[*a]));
        let mut ranks = vec![1; answers.len()];
        for pair in order.windows(2) {
            let close = tie > 0.0 && utilities[pair[0]] - utilities[pair[1]] <= tie;
            ranks[pair[1]] = ranks[pair[0]] + u32::from(!close);
        }
        ranks
    }

    /// What the annotator of this item says of one answer, about 0 to 1.
    pub fn rating(&self, item: u64, prompt: &LabPrompt, answer: &str) -> f64 {
        let mut rng = CounterRng::new(self.seed, &[0x7261_7465, item]);
        let weights = self.weights[rng.below(self.weights.len())];
        self.utility(&weights, prompt, answer) + self.config.noise.max(0.0) * rng.gaussian()
    }

    /// The probability that one of the annotators takes the first answer, `bias` of whose utility is for
    /// its place.
    pub fn probability(&self, prompt: &LabPrompt, a: &str, b: &str, bias: f64) -> f64 {
        let noise = self.config.noise.max(1e-9);
        let each = self.weights.iter().map(|weights| {
            let (a, b) = (
                self.utility(weights, prompt, a),
                self.utility(weights, prompt, b),
            );
            1.0 / (1.0 + (-(a - b + bias) / noise).exp())
        });
        each.sum::<f64>() / self.weights.len() as f64
    }

    /// True if the annotator of this item takes the first answer.
    pub fn prefers_first(&self, item: u64, prompt: &LabPrompt, a: &str, b: &str) -> bool {
        let mut rng = CounterRng::new(self.seed, &[0x7072_6566, item]);
        let weights = self.weights[rng.below(self.weights.len())];
        let difference = self.utility(&weights, prompt, a) - self.utility(&weights, prompt, b);
        if self.config.noise <= 0.0 {
            return difference > 0.0 || (difference == 0.0 && rng.chance(0.5));
        }
        rng.chance(1.0 / (1.0 + (-difference / self.config.noise).exp()))
    }
}
