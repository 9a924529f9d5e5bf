//! Which comparisons are worth a person's time, by what reward models say of the answers.

use std::{collections::HashMap, hash::Hash};

use togi_data::rng::CounterRng;

/// What makes a comparison worth asking for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Criterion {
    /// The reward models differ about it: query by committee (Seung et al. 1992).
    Disagreement,
    /// The reward models together cannot tell the better answer: uncertainty sampling (Lewis and Gale
    /// 1994).
    Uncertainty,
    /// Nothing: chance decides.
    Random,
}

/// What reward models say of two answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Doubt {
    /// Standard deviation, over the models, of the difference between the answers' standardised scores;
    /// 0 of one model.
    pub disagreement: f64,
    /// The models' mean probability that the first answer is the better one.
    pub probability: f64,
}

impl Doubt {
    /// Of the two answers' scores by each model, standardised and as they are. Bradley-Terry gives the
    /// probability, so it is that of the scores as they are.
    pub fn of(standardised: &[[f64; 2]], scores: &[[f64; 2]]) -> Self {
        let margins: Vec<f64> = standardised.iter().map(|[a, b]| a - b).collect();
        let sure = scores.iter().map(|[a, b]| 1.0 / (1.0 + (b - a).exp()));
        Self {
            disagreement: deviation(&margins),
            probability: sure.sum::<f64>() / scores.len().max(1) as f64,
        }
    }

    /// How much the comparison is worth by a criterion: more is worth more. Chance gives item number
    /// `index` its own worth for each seed.
    pub fn worth(&self, criterion: Criterion, seed: u64, index: usize) -> f64 {
        match criterion {
            Criterion::Disagreement => self.disagreement,
            Criterion::Uncertainty => -(self.probability - 0.5).abs(),
            Criterion::Random => chance(seed, index),
        }
    }
}

/// The worth that chance gives item number `index`, in [0, 1).
pub fn chance(seed: u64, index: usize) -> f64 {
    CounterRng::new(seed, &[0x7365_6c65, index as u64]).next_f64()
}

/// One model's scores of all answers with mean 0 and standard deviation 1, so that models with larger
/// scores do not count for more. A model that scores everything alike says nothing: 0.
pub fn standardised(scores: &[f64]) -> Vec<f64> {
    let mean = mean(scores);
    let deviation = deviation(scores);
    // What rounding leaves of equal scores is no deviation.
    let scale = if deviation > 1e-9 * mean.abs() {
        1.0 / deviation
    } else {
        0.0
    };
    scores.iter().map(|s| (s - mean) * scale).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The standard deviation of these values themselves (not an estimate of others').
fn deviation(values: &[f64]) -> f64 {
    let mean = mean(values);
    let squares = values.iter().map(|v| (v - mean).powi(2));
    (squares.sum::<f64>() / values.len().max(1) as f64).sqrt()
}

/// The `count` items that are worth most, the most first; fewer if there are fewer. They are spread over
/// the prompts: no prompt has a second one before each had its first. Of equals the earlier comes first.
///
/// # Panics
/// When there is not one prompt for each worth.
pub fn choose<P: Eq + Hash>(worth: &[f64], prompts: &[P], count: usize) -> Vec<usize> {
    assert_eq!(worth.len(), prompts.len(), "one prompt an item");
    let mut order: Vec<usize> = (0..worth.len()).collect();
    order.sort_by(|a, b| worth[*b].total_cmp(&worth[*a]).then(a.cmp(b)));
    let mut had: HashMap<&P, usize> = HashMap::new();
    let mut rounds: Vec<(usize, usize)> = order
        .into_iter()
        .map(|item| {
            let had = had.entry(&prompts[item]).or_default();
            *had += 1;
            (*had, item)
        })
        .collect();
    // The sort is stable: within a round the order of worth stays.
    rounds.sort_by_key(|(round, _)| *round);
    rounds.truncate(count);
    rounds.into_iter().map(|(_, item)| item).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12, "{a} is not {b}");
    }

    #[test]
    fn models_of_any_scale_count_alike() {
        let scores = standardised(&[1.0, 2.0, 3.0, 6.0]);
        // Mean 3, deviation √3.5.
        close(scores[0], -2.0 / 3.5_f64.sqrt());
        close(scores[3], 3.0 / 3.5_f64.sqrt());
        let larger = standardised(&[110.0, 120.0, 130.0, 160.0]);
        for (a, b) in scores.iter().zip(larger) {
            close(*a, b);
        }
        assert_eq!(standardised(&[0.1; 7]), [0.0; 7]);
        assert!(standardised(&[]).is_empty());
    }

    #[test]
    fn doubt_is_the_spread_of_margins_and_the_mean_probability() {
        // Margins 1 and -3: mean -1, deviation 2.
        let doubt = Doubt::of(&[[1.0, 0.0], [0.0, 3.0]], &[[1.0, 0.0], [0.0, 0.0]]);
        close(doubt.disagreement, 2.0);
        close(doubt.probability, (0.731_058_578_630_004_9 + 0.5) / 2.0);
        let agreed = Doubt::of(&[[2.0, 1.0], [5.0, 4.0]], &[[900.0, 0.0], [0.0, 900.0]]);
        assert_eq!((agreed.disagreement, agreed.probability), (0.0, 0.5));
        let alone = Doubt::of(&[[2.0, 1.0]], &[[2.0, 1.0]]);
        assert_eq!(alone.disagreement, 0.0);
    }

    #[test]
    fn worth_follows_the_criterion() {
        let doubt = |disagreement, probability| Doubt {
            disagreement,
            probability,
        };
        let (a, b) = (doubt(2.0, 0.9), doubt(1.0, 0.45));
        let worth = |d: Doubt, criterion| d.worth(criterion, 3, 0);
        assert!(worth(a, Criterion::Disagreement) > worth(b, Criterion::Disagreement));
        assert!(worth(a, Criterion::Uncertainty) < worth(b, Criterion::Uncertainty));
        // Nearest to a half from either side.
        assert!(worth(doubt(0.0, 0.54), Criterion::Uncertainty) > worth(b, Criterion::Uncertainty));
        assert_eq!(worth(a, Criterion::Random), worth(b, Criterion::Random));
        assert_ne!(chance(3, 0), chance(3, 1));
        assert_ne!(chance(3, 0), chance(4, 0));
    }

    #[test]
    fn the_most_first_and_each_prompt_once_before_any_twice() {
        let worth = [5.0, 4.0, 3.0, 1.0, 1.0, 9.0];
        let prompts = ["a", "a", "b", "c", "c", "a"];
        assert_eq!(choose(&worth, &prompts, 3), [5, 2, 3]);
        assert_eq!(choose(&worth, &prompts, 10), [5, 2, 3, 0, 4, 1]);
        assert!(choose(&worth, &prompts, 0).is_empty());
        assert!(choose::<&str>(&[], &[], 5).is_empty());
    }
}
