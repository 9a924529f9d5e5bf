//! Rewards made of rewards.

use crate::{Reward, Scorable, Score, Unscorable};

/// A weighted sum, and the members' parts with their weights; an answer that one member cannot score is
/// unscorable.
pub struct Weighted {
    /// Members and their weights.
    pub members: Vec<(f64, Box<dyn Reward>)>,
}

impl Reward for Weighted {
    fn name(&self) -> String {
        let parts: Vec<String> = self
            .members
            .iter()
            .map(|(weight, member)| format!("{weight} {}", member.name()))
            .collect();
        parts.join(" + ")
    }

    fn score(&self, batch: &[Scorable<'_>]) -> Vec<Result<Score, Unscorable>> {
        let all: Vec<_> = self
            .members
            .iter()
            .map(|(_, member)| member.score(batch))
            .collect();
        (0..batch.len())
            .map(|i| {
                let (mut sum, mut parts) = (0.0, Vec::new());
                for ((weight, _), scores) in self.members.iter().zip(&all) {
                    let score = scores[i].as_ref().map_err(Clone::clone)?;
                    sum += weight * score.value;
                    parts.extend(score.parts.iter().map(|(name, x)| (*name, weight * x)));
                }
                let mut score = Score::new(sum)?;
                score.parts = parts;
                Ok(score)
            })
            .collect()
    }
}

/// How the scores of an ensemble become one (Coste et al. 2023).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Combine {
    /// Their mean.
    Mean,
    /// The lowest: worst-case optimisation.
    Worst,
    /// Their mean less `weight` times their standard deviation: uncertainty-weighted optimisation.
    MeanMinusDeviation {
        /// Weight of the deviation.
        weight: f64,
    },
}

impl Combine {
    fn apply(self, values: &[f64]) -> f64 {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        match self {
            Self::Mean => mean,
            Self::Worst => values.iter().copied().fold(f64::INFINITY, f64::min),
            Self::MeanMinusDeviation { weight } => {
                let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
                mean - weight * variance.sqrt()
            }
        }
    }
}

/// Several rewards as one. The members' mean and deviation are parts of the score: `members_mean` and
/// `disagreement`.
pub struct Ensemble {
    /// The members.
    pub members: Vec<Box<dyn Reward>>,
    /// How their scores become one.
    pub combine: Combine,
}

impl Reward for Ensemble {
    fn name(&self) -> String {
        format!("ensemble of {}", self.members.len())
    }

    fn score(&self, batch: &[Scorable<'_>]) -> Vec<Result<Score, Unscorable>> {
        let all: Vec<_> = self
            .members
            .iter()
            .map(|member| member.score(batch))
            .collect();
        (0..batch.len())
            .map(|i| {
                let values: Vec<f64> = all
                    .iter()
                    .map(|scores| scores[i].as_ref().map(|s| s.value).map_err(Clone::clone))
                    .collect::<Result<_, _>>()?;
                let mut score = Score::new(self.combine.apply(&values))?;
                let mean = Combine::Mean.apply(&values);
                let deviation = mean - Combine::MeanMinusDeviation { weight: 1.0 }.apply(&values);
                score.parts.push(("members_mean", mean));
                score.parts.push(("disagreement", deviation));
                Ok(score)
            })
            .collect()
    }
}

/// Another reward, kept within bounds.
pub struct Clipped {
    /// The reward.
    pub inner: Box<dyn Reward>,
    /// Lowest and highest value.
    pub bounds: (f64, f64),
}

impl Reward for Clipped {
    fn name(&self) -> String {
        format!(
            "{} in [{}, {}]",
            self.inner.name(),
            self.bounds.0,
            self.bounds.1
        )
    }

    fn score(&self, batch: &[Scorable<'_>]) -> Vec<Result<Score, Unscorable>> {
        let clip = |score: Score| Score {
            value: score.value.clamp(self.bounds.0, self.bounds.1),
            ..score
        };
        self.inner
            .score(batch)
            .into_iter()
            .map(|r| r.map(clip))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Contains, LabGold, LengthPenalty};

    fn item<'a>(prompt: &'a str, completion: &'a str) -> Scorable<'a> {
        Scorable {
            prompt,
            prompt_ids: &[1],
            completion,
            completion_ids: &[1, 2, 3],
        }
    }

    fn contains(text: &str) -> Box<dyn Reward> {
        Box::new(Contains {
            text: text.to_owned(),
        })
    }

    #[test]
    fn combinators_do_what_they_say() {
        let batch = [item("p", "ab")];
        let penalty = Box::new(LengthPenalty {
            target: 1,
            weight: 0.25,
        });
        let sum = Weighted {
            members: vec![(2.0, contains("a")), (1.0, penalty)],
        };
        assert_eq!(sum.score(&batch)[0].as_ref().unwrap().value, 1.5);
        let of = |combine| {
            let ensemble = Ensemble {
                members: vec![contains("a"), contains("b"), contains("z"), contains("y")],
                combine,
            };
            let score = ensemble.score(&batch).remove(0).unwrap();
            assert_eq!(score.parts, [("members_mean", 0.5), ("disagreement", 0.5)]);
            score.value
        };
        assert_eq!(of(Combine::Mean), 0.5);
        assert_eq!(of(Combine::Worst), 0.0);
        assert_eq!(of(Combine::MeanMinusDeviation { weight: 2.0 }), -0.5);
        let clipped = Clipped {
            inner: Box::new(sum),
            bounds: (-1.0, 1.0),
        };
        assert_eq!(clipped.score(&batch)[0].as_ref().unwrap().value, 1.0);
    }

    #[test]
    fn what_one_member_cannot_score_is_unscorable() {
        let sum = Weighted {
            members: vec![(1.0, contains("red")), (1.0, Box::new(LabGold))],
        };
        let results = sum.score(&[
            item("write a poem", "a"),
            item("name one colors", "sure red"),
        ]);
        assert!(results[0].is_err());
        assert_eq!(results[1].as_ref().unwrap().value, 2.0);
    }
}
