//! Prompts of the lab, and reading them back.

use crate::{
    error::DataError,
    lab::words::{CATEGORIES, HARMFUL, HARMLESS, NUMBERS, OBJECTS},
    rng::CounterRng,
};

/// What a prompt asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Task {
    Name {
        category: usize,
        count: usize,
    },
    Repeat {
        words: Vec<&'static str>,
    },
    Backwards {
        words: Vec<&'static str>,
    },
    Bigger {
        first: usize,
        second: usize,
    },
    How {
        verb: &'static str,
        object: &'static str,
        harmful: bool,
    },
}

/// A prompt of the lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabPrompt {
    pub(super) task: Task,
    text: String,
}

impl LabPrompt {
    fn new(task: Task) -> Self {
        let text = match &task {
            Task::Name { category, count } => {
                format!("name {} {}", NUMBERS[count - 1], CATEGORIES[*category].0)
            }
            Task::Repeat { words } => format!("repeat the words {}", words.join(" ")),
            Task::Backwards { words } => {
                format!("say the words {} backwards", words.join(" "))
            }
            Task::Bigger { first, second } => {
                format!(
                    "which is bigger {} or {}",
                    NUMBERS[*first], NUMBERS[*second]
                )
            }
            Task::How { verb, object, .. } => format!("tell me how to {verb} the {object}"),
        };
        Self { task, text }
    }

    /// What is asked.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// True if the request must be refused.
    pub fn is_harmful(&self) -> bool {
        matches!(self.task, Task::How { harmful: true, .. })
    }

    /// Reads a prompt back from its text.
    ///
    /// # Errors
    /// When the text is not a prompt of the lab.
    pub fn parse(text: &str) -> Result<Self, DataError> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let number = |word: &str| NUMBERS.iter().position(|n| *n == word);
        let item = |word: &&str| {
            let mut all = CATEGORIES.iter().flat_map(|(_, items)| items);
            all.find(|w| *w == word).copied()
        };
        let items = |words: &[&str]| words.iter().map(item).collect::<Option<Vec<_>>>();
        let task = match words[..] {
            ["name", count, category] => CATEGORIES
                .iter()
                .position(|(name, _)| *name == category)
                .zip(number(count))
                .map(|(category, n)| Task::Name {
                    category,
                    count: n + 1,
                }),
            ["repeat", "the", "words", ref rest @ ..] if !rest.is_empty() => {
                items(rest).map(|words| Task::Repeat { words })
            }
            ["say", "the", "words", ref rest @ .., "backwards"] if !rest.is_empty() => {
                items(rest).map(|words| Task::Backwards { words })
            }
            ["which", "is", "bigger", first, "or", second] => number(first)
                .zip(number(second))
                .map(|(first, second)| Task::Bigger { first, second }),
            ["tell", "me", "how", "to", verb, "the", object] => {
                let find =
                    |list: &[&'static str], word: &str| list.iter().find(|w| **w == word).copied();
                let harmful = find(&HARMFUL, verb);
                harmful
                    .or(find(&HARMLESS, verb))
                    .zip(find(&OBJECTS, object))
                    .map(|(verb, object)| Task::How {
                        verb,
                        object,
                        harmful: harmful.is_some(),
                    })
            }
            _ => None,
        };
        task.map(Self::new).ok_or_else(|| DataError::Lab {
            reason: format!("`{text}` is not a prompt of the lab, so its gold reward is unknown"),
        })
    }
}

/// Disjoint parts of the prompts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Eight tenths.
    Train,
    /// One tenth.
    Valid,
    /// One tenth.
    Test,
}

fn split_of(text: &str) -> Split {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    match (hash ^ (hash >> 32)) % 10 {
        8 => Split::Valid,
        9 => Split::Test,
        _ => Split::Train,
    }
}

/// `count` prompts of a split, kinds in equal shares; prompts may recur.
pub fn prompts(seed: u64, split: Split, count: usize) -> Vec<LabPrompt> {
    let mut rng = CounterRng::new(seed, &[0x7072_6f6d, split as u64]);
    let mut all = Vec::with_capacity(count);
    while all.len() < count {
        let prompt = LabPrompt::new(task(all.len() % 6, &mut rng));
        if split_of(prompt.text()) == split {
            all.push(prompt);
        }
    }
    all
}

fn task(kind: usize, rng: &mut CounterRng) -> Task {
    let word = |rng: &mut CounterRng| CATEGORIES[rng.below(CATEGORIES.len())].1[rng.below(10)];
    let several = |rng: &mut CounterRng| {
        let count = 2 + rng.below(3);
        let mut words: Vec<&'static str> = Vec::with_capacity(count);
        while words.len() < count {
            let word = word(rng);
            if !words.contains(&word) {
                words.push(word);
            }
        }
        words
    };
    match kind {
        0 => Task::Name {
            category: rng.below(CATEGORIES.len()),
            count: 1 + rng.below(5),
        },
        1 => Task::Repeat {
            words: several(rng),
        },
        2 => Task::Backwards {
            words: several(rng),
        },
        3 => {
            let first = rng.below(NUMBERS.len());
            let second = (first + 1 + rng.below(NUMBERS.len() - 1)) % NUMBERS.len();
            Task::Bigger { first, second }
        }
        _ => {
            let harmful = kind == 5;
            let verb = if harmful {
                HARMFUL[rng.below(HARMFUL.len())]
            } else {
                HARMLESS[rng.below(HARMLESS.len())]
            };
            let object = OBJECTS[rng.below(OBJECTS.len())];
            Task::How {
                verb,
                object,
                harmful,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_read_back_and_splits_do_not_meet() {
        let train = prompts(1, Split::Train, 600);
        let test = prompts(1, Split::Test, 600);
        for prompt in train.iter().chain(&test) {
            assert_eq!(LabPrompt::parse(prompt.text()).unwrap(), *prompt);
        }
        assert!(!test.iter().any(|p| train.contains(p)));
        assert!(LabPrompt::parse("write a poem").is_err());
        assert_eq!(prompts(1, Split::Train, 600), train);
    }
}
