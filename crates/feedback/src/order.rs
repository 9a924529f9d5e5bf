//! What is shown, and in which order.

use togi_data::rng::CounterRng;

use crate::{annotation::key, error::FeedbackError, items::Item};

/// A repetition comes after this many other items, or at the end.
pub const REPEAT_AFTER: usize = 20;

/// Which items an annotator gets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlanOptions {
    /// Keys every order.
    pub seed: u64,
    /// This many items at most, not counting repetitions.
    pub limit: Option<usize>,
    /// The share of items that come again, from 0 to 1.
    pub repeat: f64,
}

impl Default for PlanOptions {
    fn default() -> Self {
        Self {
            seed: 0,
            limit: None,
            repeat: 0.0,
        }
    }
}

impl PlanOptions {
    /// Refuses what means nothing.
    ///
    /// # Errors
    /// When the share of repetitions is not between 0 and 1.
    pub fn check(&self) -> Result<(), FeedbackError> {
        if (0.0..=1.0).contains(&self.repeat) {
            return Ok(());
        }
        Err(FeedbackError::Option {
            name: "repeat",
            reason: format!("{} is no share between 0 and 1", self.repeat),
        })
    }
}

/// An item to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Planned {
    /// Its index.
    pub item: usize,
    /// 0, or 1 for its repetition.
    pub pass: u32,
}

/// The items in the order in which an annotator sees them.
///
/// The order of items depends on the seed alone: annotators who stop early have judged the same
/// items. Which of them come again depends on the annotator, too. Each item's place is a function
/// of its content, so items that are added do not shuffle the others.
///
/// # Errors
/// When the share is not between 0 and 1.
pub fn plan(
    items: &[Item],
    annotator: &str,
    options: &PlanOptions,
) -> Result<Vec<Planned>, FeedbackError> {
    options.check()?;
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by_cached_key(|item| {
        let id = &items[*item].id;
        let place = CounterRng::new(options.seed, &[key("order"), key(id)]).next_u64();
        (place, id.clone())
    });
    order.truncate(options.limit.unwrap_or(order.len()));
    let annotator = key(annotator);
    let mut plan = Vec::new();
    for (place, item) in order.into_iter().enumerate() {
        plan.push((place, Planned { item, pass: 0 }));
        let stream = [key("repeat"), key(&items[item].id), annotator];
        if CounterRng::new(options.seed, &stream).chance(options.repeat) {
            plan.push((place + REPEAT_AFTER, Planned { item, pass: 1 }));
        }
    }
    plan.sort_by_key(|(place, planned)| (*place, planned.pass));
    Ok(plan.into_iter().map(|(_, planned)| planned).collect())
}

/// The order in which an item's answers are shown: `shown[0]` is the first on the screen.
pub fn shown(item: &Item, annotator: &str, pass: u32, seed: u64) -> Vec<usize> {
    let stream = [key("shown"), key(&item.id), key(annotator), u64::from(pass)];
    let mut order: Vec<usize> = (0..item.answers.len()).collect();
    CounterRng::new(seed, &stream).shuffle(&mut order);
    order
}

#[cfg(test)]
mod tests {
    use togi_data::Content;

    use super::*;
    use crate::annotation::item_id;

    fn items(n: usize) -> Vec<Item> {
        let item = |i| {
            let prompt = Content::Text(format!("q{i}"));
            let answers = vec![Content::Text("a".into()), Content::Text("b".into())];
            Item {
                id: item_id(&prompt, &answers),
                place: format!("d:{i}"),
                places: Vec::new(),
                prompt,
                answers,
            }
        };
        (0..n).map(item).collect()
    }

    #[test]
    fn a_plan_has_every_item_once_and_a_share_again_later() {
        let items = items(400);
        let options = PlanOptions {
            seed: 3,
            limit: Some(300),
            repeat: 0.2,
        };
        let plan = plan(&items, "ann", &options).unwrap();
        let first: Vec<usize> = plan
            .iter()
            .filter(|p| p.pass == 0)
            .map(|p| p.item)
            .collect();
        let mut unique = first.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!((first.len(), unique.len()), (300, 300));
        assert!(!first.is_sorted());
        let again: Vec<&Planned> = plan.iter().filter(|p| p.pass == 1).collect();
        assert!((40..80).contains(&again.len()), "{}", again.len());
        for repetition in again {
            let at = |pass| {
                let item = repetition.item;
                plan.iter().position(|p| *p == Planned { item, pass })
            };
            let (first, again) = (at(0).unwrap(), at(1).unwrap());
            assert!(again > first + REPEAT_AFTER || again + REPEAT_AFTER >= plan.len());
        }
    }

    #[test]
    fn a_plan_with_few_items_still_repeats_at_its_end() {
        let options = PlanOptions {
            repeat: 1.0,
            ..PlanOptions::default()
        };
        let plan = plan(&items(3), "ann", &options).unwrap();
        let passes: Vec<u32> = plan.iter().map(|p| p.pass).collect();
        assert_eq!(passes, [0, 0, 0, 1, 1, 1]);
    }

    #[test]
    fn added_items_leave_the_others_in_order_and_annotators_share_it() {
        let all = items(50);
        let options = PlanOptions::default();
        let ids = |items: &[Item], annotator: &str| -> Vec<String> {
            let plan = plan(items, annotator, &options).unwrap();
            plan.iter().map(|p| items[p.item].id.clone()).collect()
        };
        let more = ids(&all, "ann");
        let fewer = ids(&all[..30], "bob");
        let kept: Vec<String> = more.into_iter().filter(|id| fewer.contains(id)).collect();
        assert_eq!(kept, fewer);
    }

    #[test]
    fn answers_are_shown_in_an_order_that_annotator_pass_and_seed_choose() {
        let items = items(200);
        let swapped = |annotator: &str, pass, seed| -> Vec<bool> {
            let order = |item| shown(item, annotator, pass, seed) == [1, 0];
            items.iter().map(order).collect()
        };
        let ann = swapped("ann", 0, 1);
        let count = ann.iter().filter(|swapped| **swapped).count();
        assert!((70..130).contains(&count), "{count}");
        assert_eq!(ann, swapped("ann", 0, 1));
        for other in [
            swapped("bob", 0, 1),
            swapped("ann", 1, 1),
            swapped("ann", 0, 2),
        ] {
            let same = ann.iter().zip(&other).filter(|(a, b)| a == b).count();
            assert!((70..130).contains(&same), "{same}");
        }
    }

    #[test]
    fn a_share_beyond_one_is_refused() {
        for repeat in [-0.1, 1.5, f64::NAN] {
            let options = PlanOptions {
                repeat,
                ..PlanOptions::default()
            };
            assert!(plan(&[], "ann", &options).is_err());
        }
    }
}
