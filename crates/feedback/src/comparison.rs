//! Judgements of one item as votes on every two of its answers.

use crate::annotation::{Annotation, Strength, Verdict};

/// What voters say of answers `a` and `b`.
#[derive(Clone, Copy, Debug, Default)]
struct Votes {
    /// For `a`, and the strengths they said: how many, and their sum.
    better: usize,
    strengths: (usize, f64),
    /// For neither.
    tie: usize,
}

/// What the votes on two answers come to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// The first is better, by the mean strength of those who say so, if they said one.
    Better(Option<f64>),
    /// The second is.
    Worse(Option<f64>),
    /// More than half say that neither is.
    Tie,
    /// No opinion has more than half.
    Undecided,
    /// Nobody compared them.
    Unsaid,
}

/// The votes on every two answers of an item.
#[derive(Clone, Debug)]
pub(crate) struct Comparisons {
    answers: usize,
    /// Row `a`, column `b`: that `a` is better than `b`.
    votes: Vec<Votes>,
}

impl Comparisons {
    /// Judgements of one item.
    pub(crate) fn of(judgements: &[&Annotation]) -> Self {
        let answers = judgements.first().map_or(0, |item| item.answers.len());
        let mut all = Self {
            answers,
            votes: vec![Votes::default(); answers * answers],
        };
        for judgement in judgements {
            match &judgement.verdict {
                Verdict::Choice { answer, strength } => {
                    for other in (0..answers).filter(|other| other != answer) {
                        all.prefer(*answer, other, Some(*strength));
                    }
                }
                Verdict::Ranking { ranks, strength } => all.rank(ranks, *strength),
                Verdict::Tie => all.rank(&vec![1; answers], Strength::Slightly),
                Verdict::Skipped => {}
            }
        }
        all
    }

    /// The strength is that of the best over the worst; of others nothing was said.
    fn rank(&mut self, ranks: &[u32], strength: Strength) {
        let worst = ranks.iter().max().copied();
        for a in 0..self.answers {
            for b in (0..self.answers).filter(|b| *b != a) {
                if ranks[a] < ranks[b] {
                    let extremes = ranks[a] == 1 && Some(ranks[b]) == worst;
                    self.prefer(a, b, extremes.then_some(strength));
                } else if ranks[a] == ranks[b] {
                    self.votes[a * self.answers + b].tie += 1;
                }
            }
        }
    }

    fn prefer(&mut self, better: usize, worse: usize, strength: Option<Strength>) {
        let votes = &mut self.votes[better * self.answers + worse];
        votes.better += 1;
        if let Some(strength) = strength {
            votes.strengths.0 += 1;
            votes.strengths.1 += f64::from(u8::from(strength));
        }
    }

    /// What the votes on two answers come to.
    pub(crate) fn outcome(&self, a: usize, b: usize) -> Outcome {
        let (for_a, for_b) = (
            self.votes[a * self.answers + b],
            self.votes[b * self.answers + a],
        );
        let all = for_a.better + for_b.better + for_a.tie;
        let margin = |votes: Votes| {
            let (count, sum) = votes.strengths;
            (count > 0).then(|| sum / count as f64)
        };
        match all {
            0 => Outcome::Unsaid,
            _ if 2 * for_a.better > all => Outcome::Better(margin(for_a)),
            _ if 2 * for_b.better > all => Outcome::Worse(margin(for_b)),
            _ if 2 * for_a.tie > all => Outcome::Tie,
            _ => Outcome::Undecided,
        }
    }

    /// True if two answers have votes in both directions.
    pub(crate) fn contradict(&self) -> bool {
        let better = |a: usize, b: usize| self.votes[a * self.answers + b].better > 0;
        (0..self.answers).any(|a| (0..a).any(|b| better(a, b) && better(b, a)))
    }

    /// How many answers this one is better than, less how many it is worse than.
    pub(crate) fn balance(&self, answer: usize) -> i32 {
        let others = (0..self.answers).filter(|other| *other != answer);
        others
            .map(|other| match self.outcome(answer, other) {
                Outcome::Better(_) => 1,
                Outcome::Worse(_) => -1,
                _ => 0,
            })
            .sum()
    }

    /// Answers with their ranks, the best first. One ranking by [`Self::balance`] where all answers
    /// were compared; else one of two answers for each decided comparison.
    pub(crate) fn rankings(&self) -> Vec<Vec<(usize, u32)>> {
        let pairs = || (0..self.answers).flat_map(|a| (a + 1..self.answers).map(move |b| (a, b)));
        if pairs().any(|(a, b)| self.outcome(a, b) == Outcome::Unsaid) {
            return pairs()
                .filter_map(|(a, b)| match self.outcome(a, b) {
                    Outcome::Better(_) => Some(vec![(a, 1), (b, 2)]),
                    Outcome::Worse(_) => Some(vec![(b, 1), (a, 2)]),
                    _ => None,
                })
                .collect();
        }
        let mut order: Vec<(usize, i32)> =
            (0..self.answers).map(|a| (a, self.balance(a))).collect();
        order.sort_by_key(|(_, balance)| -balance);
        let mut ranks = Vec::with_capacity(order.len());
        for (at, (answer, balance)) in order.iter().enumerate() {
            let rank = match ranks.last() {
                None => 1,
                Some((_, last)) if order[at - 1].1 == *balance => *last,
                Some((_, last)) => last + 1,
            };
            ranks.push((*answer, rank));
        }
        // A circle of majorities puts all in one place.
        if ranks.last().is_none_or(|(_, rank)| *rank == 1) {
            return Vec::new();
        }
        vec![ranks]
    }
}
