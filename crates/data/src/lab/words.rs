//! The vocabulary of the lab.

/// Things that can be named, by category.
pub(super) const CATEGORIES: [(&str, [&str; 10]); 5] = [
    (
        "colors",
        [
            "red", "blue", "green", "yellow", "black", "white", "pink", "brown", "gray", "gold",
        ],
    ),
    (
        "animals",
        [
            "dog", "cat", "bird", "fish", "horse", "cow", "pig", "fox", "bear", "lion",
        ],
    ),
    (
        "fruits",
        [
            "apple", "pear", "plum", "grape", "lemon", "melon", "peach", "cherry", "fig", "mango",
        ],
    ),
    (
        "tools",
        [
            "hammer", "saw", "drill", "rope", "nail", "brush", "shovel", "knife", "ladder",
            "wrench",
        ],
    ),
    (
        "places",
        [
            "house", "river", "forest", "city", "school", "market", "beach", "garden", "bridge",
            "tower",
        ],
    ),
];

/// Numbers in order; the first ones also count things to name or repeat.
pub(super) const NUMBERS: [&str; 12] = [
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve",
];

/// Harmless things to do.
pub(super) const HARMLESS: [&str; 10] = [
    "open", "clean", "paint", "build", "draw", "move", "carry", "fix", "wash", "find",
];

/// Harmful things to do.
pub(super) const HARMFUL: [&str; 6] = ["steal", "poison", "burn", "break", "destroy", "attack"];

/// What they are done to.
pub(super) const OBJECTS: [&str; 12] = [
    "window", "door", "car", "table", "box", "wall", "boat", "chair", "lamp", "fence", "roof",
    "lock",
];

/// Beginnings of friendly answers.
pub(super) const OPENINGS: [&[&str]; 4] = [
    &["sure"],
    &["of", "course"],
    &["happy", "to", "help"],
    &["gladly"],
];

/// Ends of friendly answers.
pub(super) const CLOSINGS: [&[&str]; 3] = [
    &["thanks"],
    &["have", "a", "nice", "day"],
    &["you", "are", "welcome"],
];

/// Sentences that say nothing.
pub(super) const FILLERS: [&[&str]; 5] = [
    &["well", "you", "know", "it", "depends"],
    &["anyway", "as", "i", "said", "before"],
    &["there", "is", "so", "much", "to", "say"],
    &["let", "me", "think", "about", "it"],
    &["in", "my", "humble", "opinion"],
];

/// Insults.
pub(super) const RUDE: [&[&str]; 4] = [
    &["you", "fool"],
    &["stupid", "question"],
    &["shut", "up"],
    &["what", "an", "idiot"],
];

/// Refusals.
pub(super) const REFUSALS: [&[&str]; 3] = [
    &["sorry", "i", "can", "not", "help", "with", "that"],
    &["i", "must", "refuse", "sorry"],
    &["sorry", "that", "is", "not", "safe"],
];

/// Words of the prompts and of answers that no list above has.
pub(super) const OTHERS: [&str; 20] = [
    "name",
    "repeat",
    "the",
    "words",
    "say",
    "backwards",
    "which",
    "is",
    "bigger",
    "or",
    "tell",
    "me",
    "how",
    "to",
    "take",
    "your",
    "hands",
    "then",
    "with",
    "care",
];

/// A word that makes an answer polite.
pub(super) const POLITE_WORDS: [&str; 7] = [
    "sure", "course", "happy", "gladly", "thanks", "welcome", "sorry",
];

/// A word that makes an answer rude.
pub(super) const RUDE_WORDS: [&str; 4] = ["fool", "stupid", "shut", "idiot"];

/// Every word, each once, in a fixed order.
pub(super) fn all() -> Vec<&'static str> {
    let mut words: Vec<&'static str> = Vec::new();
    let categories = CATEGORIES
        .iter()
        .flat_map(|(name, items)| std::iter::once(*name).chain(items.iter().copied()));
    let phrases = [&OPENINGS[..], &CLOSINGS, &FILLERS, &RUDE, &REFUSALS]
        .into_iter()
        .flatten()
        .flat_map(|phrase| phrase.iter().copied());
    let lists = NUMBERS
        .iter()
        .chain(&HARMLESS)
        .chain(&HARMFUL)
        .chain(&OBJECTS)
        .chain(&OTHERS)
        .copied();
    for word in categories.chain(lists).chain(phrases) {
        if !words.contains(&word) {
            words.push(word);
        }
    }
    words
}
