//! Instructions that a program can check: the 25 kinds of IFEval (Zhou et al. 2023).
//!
//! The verdicts are those of the paper's own program (google-research, `instruction_following_eval`),
//! against which they are tested. Where that program reads a keyword, a marker or a splitter as a
//! regular expression, it is taken literally here: none of the paper's prompts tells the two apart.

mod format;
mod language;
mod layout;
mod outcome;
mod parse;
mod prompts;
mod sentences;
mod words;

pub use outcome::{Outcome, Row, Share, Summary};
pub use prompts::{Prompt, prompts, set};
pub use sentences::count_sentences;
pub use words::count_words;

/// The ids of the kinds, sorted.
pub const IDS: [&str; 25] = [
    "change_case:capital_word_frequency",
    "change_case:english_capital",
    "change_case:english_lowercase",
    "combination:repeat_prompt",
    "combination:two_responses",
    "detectable_content:number_placeholders",
    "detectable_content:postscript",
    "detectable_format:constrained_response",
    "detectable_format:json_format",
    "detectable_format:multiple_sections",
    "detectable_format:number_bullet_lists",
    "detectable_format:number_highlighted_sections",
    "detectable_format:title",
    "keywords:existence",
    "keywords:forbidden_words",
    "keywords:frequency",
    "keywords:letter_frequency",
    "language:response_language",
    "length_constraints:nth_paragraph_first_word",
    "length_constraints:number_paragraphs",
    "length_constraints:number_sentences",
    "length_constraints:number_words",
    "punctuation:no_comma",
    "startend:end_checker",
    "startend:quotation",
];

/// How many times something may appear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Fewer times than this.
    LessThan(usize),
    /// This many times or more.
    AtLeast(usize),
}

impl Bound {
    fn holds(self, count: usize) -> bool {
        match self {
            Self::LessThan(bound) => count < bound,
            Self::AtLeast(bound) => count >= bound,
        }
    }
}

/// One instruction with what it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// Words in capitals alone.
    CapitalWords(Bound),
    /// English, and no small letter. The detector passes over words in capitals as if they were names, so
    /// that capitals in another language may count as followed.
    EnglishCapital,
    /// English, and no capital letter.
    EnglishLowercase,
    /// Say this first, word for word, case apart.
    RepeatPrompt(String),
    /// Two different answers with `******` between them.
    TwoResponses,
    /// At least so many `[placeholders]`.
    Placeholders(usize),
    /// A postscript that begins with this marker, such as `P.S.`.
    Postscript(String),
    /// One of `My answer is yes.`, `My answer is no.`, `My answer is maybe.`.
    ConstrainedResponse,
    /// JSON and nothing else, in a fence or not.
    JsonFormat,
    /// At least so many headings made of the splitter and a number, such as `Section 1`.
    MultipleSections {
        /// The word before the number.
        splitter: String,
        /// How many there must be.
        at_least: usize,
    },
    /// Exactly so many lines that begin with `*` or `-`.
    BulletLists(usize),
    /// At least so many `*highlighted*` passages.
    HighlightedSections(usize),
    /// A title in `<<double angular brackets>>`.
    Title,
    /// All of these, in any case, as parts of words too.
    KeywordsExist(Vec<String>),
    /// None of these as whole words, in any case.
    ForbiddenWords(Vec<String>),
    /// How often a keyword appears, in any case, as a part of words too.
    KeywordFrequency {
        /// The keyword.
        keyword: String,
        /// How often.
        times: Bound,
    },
    /// How often a character appears, in any case.
    LetterFrequency {
        /// The character in lower case.
        letter: char,
        /// How often.
        times: Bound,
    },
    /// The language of the whole response, as an ISO 639-1 code. A response without any letter counts
    /// as followed, as it does in the paper's program: do not reward this kind alone.
    ResponseLanguage(String),
    /// So many paragraphs, with a blank line between them, and the first word of one.
    NthParagraphFirstWord {
        /// How many paragraphs.
        paragraphs: usize,
        /// Which one, from 1.
        nth: usize,
        /// Its first word in lower case.
        first_word: String,
    },
    /// Exactly so many paragraphs with `***` between them.
    Paragraphs(usize),
    /// How many sentences, as [`count_sentences`] has it.
    Sentences(Bound),
    /// How many words, as [`count_words`] has it.
    Words(Bound),
    /// No comma.
    NoComma,
    /// The last words, case apart.
    EndPhrase(String),
    /// The whole response in double quotation marks.
    Quotation,
}

impl Instruction {
    /// Whether a response does what is asked; an empty one never does. The paper's strict verdict.
    pub fn follows(&self, response: &str) -> bool {
        if response.trim().is_empty() {
            return false;
        }
        match self {
            Self::CapitalWords(bound) => bound.holds(words::count_capital_words(response)),
            Self::EnglishCapital => language::english_capital(response),
            Self::EnglishLowercase => language::english_lowercase(response),
            Self::RepeatPrompt(prompt) => layout::repeats(response, prompt),
            Self::TwoResponses => layout::two_responses(response),
            Self::Placeholders(at_least) => format::placeholders(response) >= *at_least,
            Self::Postscript(marker) => format::has_postscript(response, marker),
            Self::ConstrainedResponse => format::constrained(response),
            Self::JsonFormat => format::is_json(response),
            Self::MultipleSections { splitter, at_least } => {
                format::sections(response, splitter) >= *at_least
            }
            Self::BulletLists(count) => format::bullets(response) == *count,
            Self::HighlightedSections(at_least) => format::highlights(response) >= *at_least,
            Self::Title => format::has_title(response),
            Self::KeywordsExist(keywords) => {
                let found = |keyword: &String| words::occurrences(response, keyword) > 0;
                keywords.iter().all(found)
            }
            Self::ForbiddenWords(forbidden) => {
                !forbidden.iter().any(|word| words::has_word(response, word))
            }
            Self::KeywordFrequency { keyword, times } => {
                times.holds(words::occurrences(response, keyword))
            }
            Self::LetterFrequency { letter, times } => {
                times.holds(words::count_letter(response, *letter))
            }
            Self::ResponseLanguage(code) => language::is_in(response, code),
            Self::NthParagraphFirstWord {
                paragraphs,
                nth,
                first_word,
            } => layout::nth_paragraph_begins(response, *paragraphs, *nth, first_word),
            Self::Paragraphs(count) => layout::paragraphs(response) == Some(*count),
            Self::Sentences(bound) => bound.holds(count_sentences(response)),
            Self::Words(bound) => bound.holds(count_words(response)),
            Self::NoComma => !response.contains(','),
            Self::EndPhrase(phrase) => layout::ends_with(response, phrase),
            Self::Quotation => layout::is_quoted(response),
        }
    }

    /// The id of its kind, one of [`IDS`].
    pub fn id(&self) -> &'static str {
        match self {
            Self::CapitalWords(_) => "change_case:capital_word_frequency",
            Self::EnglishCapital => "change_case:english_capital",
            Self::EnglishLowercase => "change_case:english_lowercase",
            Self::RepeatPrompt(_) => "combination:repeat_prompt",
            Self::TwoResponses => "combination:two_responses",
            Self::Placeholders(_) => "detectable_content:number_placeholders",
            Self::Postscript(_) => "detectable_content:postscript",
            Self::ConstrainedResponse => "detectable_format:constrained_response",
            Self::JsonFormat => "detectable_format:json_format",
            Self::MultipleSections { .. } => "detectable_format:multiple_sections",
            Self::BulletLists(_) => "detectable_format:number_bullet_lists",
            Self::HighlightedSections(_) => "detectable_format:number_highlighted_sections",
            Self::Title => "detectable_format:title",
            Self::KeywordsExist(_) => "keywords:existence",
            Self::ForbiddenWords(_) => "keywords:forbidden_words",
            Self::KeywordFrequency { .. } => "keywords:frequency",
            Self::LetterFrequency { .. } => "keywords:letter_frequency",
            Self::ResponseLanguage(_) => "language:response_language",
            Self::NthParagraphFirstWord { .. } => "length_constraints:nth_paragraph_first_word",
            Self::Paragraphs(_) => "length_constraints:number_paragraphs",
            Self::Sentences(_) => "length_constraints:number_sentences",
            Self::Words(_) => "length_constraints:number_words",
            Self::NoComma => "punctuation:no_comma",
            Self::EndPhrase(_) => "startend:end_checker",
            Self::Quotation => "startend:quotation",
        }
    }
}

/// Which instructions a response follows.
pub fn strict(instructions: &[Instruction], response: &str) -> Vec<bool> {
    let follows = |instruction: &Instruction| instruction.follows(response);
    instructions.iter().map(follows).collect()
}

/// Which instructions a response follows once what models like to add is forgiven: its first line, its
/// last line, both, and the asterisks of markdown. One of the eight variants is enough.
pub fn loose(instructions: &[Instruction], response: &str) -> Vec<bool> {
    let lines: Vec<&str> = response.split('\n').collect();
    let last = lines.len() - 1;
    let without = |from: usize, to: usize| {
        let kept = lines.get(from..to).unwrap_or_default();
        kept.join("\n").trim().to_owned()
    };
    let mut variants = vec![
        response.to_owned(),
        without(1, lines.len()),
        without(0, last),
        without(1, last),
    ];
    let plain: Vec<String> = variants.iter().map(|v| v.replace('*', "")).collect();
    variants.extend(plain);
    let any = |instruction: &Instruction| variants.iter().any(|v| instruction.follows(v));
    instructions.iter().map(any).collect()
}
