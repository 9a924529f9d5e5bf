//! What each annotator leans to when choosing between two answers, and which items divide them.

use std::collections::BTreeMap;

use crate::{EvalError, Interval, bootstrap::share_interval};

/// One of the two answers of an item, whatever the order in which they were shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Answer {
    /// The item's first answer.
    A,
    /// Its second.
    B,
}

/// One choice of one annotator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The pair of answers.
    pub item: usize,
    /// Who chose.
    pub annotator: usize,
    /// What they prefer; `None` for neither.
    pub chosen: Option<Answer>,
    /// Which answer they saw first.
    pub shown_first: Answer,
    /// Which is the longer; `None` if neither is.
    pub longer: Option<Answer>,
}

/// A share with its 95% Wilson interval, and of how many choices it is one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// The share and its interval, which takes choices for independent.
    pub interval: Interval,
    /// Choices that count.
    pub count: usize,
}

/// How one annotator chooses. A share without choices to count is `None`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AnnotatorBias {
    /// Who.
    pub annotator: usize,
    /// Their choices, with those of neither answer.
    pub count: usize,
    /// How often they choose the answer shown first, of choices of one: a half where order does not
    /// matter and is random.
    pub chose_first: Option<Share>,
    /// How often they choose the longer answer, of choices of one where one is longer. Not a half for
    /// an annotator without bias if the better answers are longer: compare annotators.
    pub chose_longer: Option<Share>,
    /// How often their choice is that of most others ([leave-one-out majority](biases)).
    pub agrees: Option<Share>,
}

/// An item on which annotators differ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Disputed {
    /// The item.
    pub item: usize,
    /// Votes for A, for B and for neither.
    pub votes: [usize; 3],
    /// Their entropy `-Σ p ln p`, nats.
    pub entropy: f64,
}

/// The first choice of each annotator, by item.
fn votes(choices: &[Choice]) -> BTreeMap<usize, BTreeMap<usize, Option<Answer>>> {
    let mut votes = BTreeMap::<_, BTreeMap<_, _>>::new();
    for choice in choices {
        let item = votes.entry(choice.item).or_default();
        item.entry(choice.annotator).or_insert(choice.chosen);
    }
    votes
}

fn place(vote: Option<Answer>) -> usize {
    match vote {
        Some(Answer::A) => 0,
        Some(Answer::B) => 1,
        None => 2,
    }
}

fn count(votes: &BTreeMap<usize, Option<Answer>>) -> [usize; 3] {
    let mut counts = [0; 3];
    for vote in votes.values() {
        counts[place(*vote)] += 1;
    }
    counts
}

/// The place of the one largest count.
fn majority(counts: [usize; 3]) -> Option<usize> {
    let most = counts.into_iter().max().filter(|most| *most > 0)?;
    let mut with_most = (0..3).filter(|i| counts[*i] == most);
    let first = with_most.next();
    first.filter(|_| with_most.next().is_none())
}

fn share(what: &str, hits: impl Iterator<Item = bool>) -> Result<Option<Share>, EvalError> {
    let (mut count, mut yes) = (0, 0);
    for hit in hits {
        count += 1;
        yes += usize::from(hit);
    }
    if count == 0 {
        return Ok(None);
    }
    let interval = share_interval(what, yes as f64 / count as f64, count)?;
    Ok(Some(Share { interval, count }))
}

/// What each annotator leans to, by annotator.
///
/// Agreement is with the commonest of the *others'* votes on the item (neither answer is a vote too):
/// one's own vote would raise it. Items without others, or whose others have no single commonest vote,
/// do not count. Of several choices on one item the first is the annotator's vote; order and length
/// count them all, as a second look in the other order tells of position bias.
///
/// # Errors
/// Without choices.
pub fn biases(choices: &[Choice]) -> Result<Vec<AnnotatorBias>, EvalError> {
    if choices.is_empty() {
        return Err(EvalError::Empty("choices".to_owned()));
    }
    let votes = votes(choices);
    let mut of_each = BTreeMap::<usize, Vec<&Choice>>::new();
    for choice in choices {
        of_each.entry(choice.annotator).or_default().push(choice);
    }
    let bias = |(annotator, own): (usize, Vec<&Choice>)| {
        let first = own.iter().filter_map(|c| Some(c.chosen? == c.shown_first));
        let longer = own.iter().filter_map(|c| Some(c.chosen? == c.longer?));
        let with_others = votes.values().filter_map(|item| {
            let vote = place(*item.get(&annotator)?);
            let mut others = count(item);
            others[vote] -= 1;
            Some(majority(others)? == vote)
        });
        Ok(AnnotatorBias {
            annotator,
            count: own.len(),
            chose_first: share("position bias", first)?,
            chose_longer: share("length bias", longer)?,
            agrees: share("agreement with others", with_others)?,
        })
    };
    of_each.into_iter().map(bias).collect()
}

/// Items on which votes differ: highest entropy first, then most votes, then lowest number. Each
/// annotator's first choice is their vote.
pub fn worth_another_look(choices: &[Choice]) -> Vec<Disputed> {
    let disputed = |(item, of_item): (usize, BTreeMap<_, _>)| {
        let votes = count(&of_item);
        let n = of_item.len() as f64;
        // Sorted, so that equal disagreements have equal entropies to the last bit.
        let mut sorted = votes;
        sorted.sort_unstable();
        let shares = sorted.iter().filter(|k| **k > 0).map(|k| *k as f64 / n);
        let entropy = shares.map(|p| -p * p.ln()).sum();
        Disputed {
            item,
            votes,
            entropy,
        }
    };
    let all = votes(choices).into_iter().map(disputed);
    let mut all: Vec<Disputed> = all.filter(|d| d.entropy > 0.0).collect();
    all.sort_by(|a, b| {
        let size = |d: &Disputed| d.votes.iter().sum::<usize>();
        let by_entropy = b.entropy.total_cmp(&a.entropy);
        by_entropy.then(size(b).cmp(&size(a)))
    });
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(item: usize, annotator: usize, chosen: Option<Answer>) -> Choice {
        Choice {
            item,
            annotator,
            chosen,
            shown_first: Answer::A,
            longer: Some(Answer::B),
        }
    }

    #[test]
    fn biases_are_those_counted_by_hand() {
        let (a, b) = (Some(Answer::A), Some(Answer::B));
        let mut choices = vec![
            choice(0, 0, a),
            choice(0, 1, a),
            choice(0, 2, b),
            choice(1, 0, a),
            choice(1, 1, None),
            choice(2, 0, b),
            choice(0, 0, b),
        ];
        choices[3].longer = None;
        let found = biases(&choices).unwrap();
        let value = |s: Option<Share>| s.map(|s| (s.interval.value, s.count));
        assert_eq!(found[0].count, 4);
        assert_eq!(value(found[0].chose_first), Some((0.5, 4)));
        assert_eq!(value(found[0].chose_longer), Some((2.0 / 3.0, 3)));
        // Item 0: the others are divided; item 1: the other says neither; item 2: nobody else.
        assert_eq!(value(found[0].agrees), Some((0.0, 1)));
        assert_eq!(value(found[1].chose_first), Some((1.0, 1)));
        // On item 0 the others are divided for annotator 1 too; for 2 they say A.
        assert_eq!(value(found[1].agrees), Some((0.0, 1)));
        assert_eq!(value(found[2].agrees), Some((0.0, 1)));
        assert!(biases(&[]).is_err());
    }

    #[test]
    fn the_most_disputed_come_first_and_the_settled_not_at_all() {
        let (a, b) = (Some(Answer::A), Some(Answer::B));
        let of = [
            (0, vec![a, a, b]),
            (1, vec![a, a]),
            (2, vec![b, a]),
            (3, vec![a, b, b, a]),
            (4, vec![a, b, None]),
            (5, vec![b]),
            (6, vec![b, a]),
        ];
        let votes = of.iter().flat_map(|(item, votes)| {
            let of_one = votes.iter().enumerate();
            of_one.map(|(who, vote)| choice(*item, who, *vote))
        });
        let look = worth_another_look(&votes.collect::<Vec<_>>());
        let order: Vec<usize> = look.iter().map(|d| d.item).collect();
        assert_eq!(order, [4, 3, 2, 6, 0]);
        assert!((look[0].entropy - 3_f64.ln()).abs() < 1e-15);
        assert_eq!(look[1].votes, [2, 2, 0]);
        assert!(worth_another_look(&[]).is_empty());
    }
}
