//! Instructions from an id and its arguments, and nothing that is not one.

use serde_json::{Map, Value};

use super::{Bound, Instruction, language};
use crate::EvalError;

impl Instruction {
    /// From an id of [`super::IDS`] and its arguments by name. A null argument counts as absent.
    ///
    /// # Errors
    /// If the id is unknown, or an argument is unknown, missing or no value that can be asked for.
    pub fn parse(id: &str, kwargs: &Map<String, Value>) -> Result<Self, EvalError> {
        let mut fields = Fields {
            id,
            kwargs,
            read: Vec::new(),
        };
        let instruction = match id {
            "change_case:capital_word_frequency" => {
                Self::CapitalWords(fields.bound("capital_frequency", "capital_relation")?)
            }
            "change_case:english_capital" => Self::EnglishCapital,
            "change_case:english_lowercase" => Self::EnglishLowercase,
            "combination:repeat_prompt" => Self::RepeatPrompt(fields.text("prompt_to_repeat")?),
            "combination:two_responses" => Self::TwoResponses,
            "detectable_content:number_placeholders" => {
                Self::Placeholders(fields.count("num_placeholders")?)
            }
            "detectable_content:postscript" => Self::Postscript(fields.text("postscript_marker")?),
            "detectable_format:constrained_response" => Self::ConstrainedResponse,
            "detectable_format:json_format" => Self::JsonFormat,
            "detectable_format:multiple_sections" => Self::MultipleSections {
                splitter: fields.text("section_spliter")?,
                at_least: fields.count("num_sections")?,
            },
            "detectable_format:number_bullet_lists" => {
                Self::BulletLists(fields.count("num_bullets")?)
            }
            "detectable_format:number_highlighted_sections" => {
                Self::HighlightedSections(fields.count("num_highlights")?)
            }
            "detectable_format:title" => Self::Title,
            "keywords:existence" => Self::KeywordsExist(fields.texts("keywords")?),
            "keywords:forbidden_words" => Self::ForbiddenWords(fields.texts("forbidden_words")?),
            "keywords:frequency" => Self::KeywordFrequency {
                keyword: fields.text("keyword")?,
                times: fields.bound("frequency", "relation")?,
            },
            "keywords:letter_frequency" => Self::LetterFrequency {
                letter: fields.letter("letter")?,
                times: fields.bound("let_frequency", "let_relation")?,
            },
            "language:response_language" => Self::ResponseLanguage(fields.language("language")?),
            "length_constraints:nth_paragraph_first_word" => fields.nth_paragraph()?,
            "length_constraints:number_paragraphs" => {
                Self::Paragraphs(fields.count("num_paragraphs")?)
            }
            "length_constraints:number_sentences" => {
                Self::Sentences(fields.bound("num_sentences", "relation")?)
            }
            "length_constraints:number_words" => {
                Self::Words(fields.bound("num_words", "relation")?)
            }
            "punctuation:no_comma" => Self::NoComma,
            "startend:end_checker" => Self::EndPhrase(fields.text("end_phrase")?),
            "startend:quotation" => Self::Quotation,
            _ => return Err(fields.wrong("instruction_id", "is none of the 25 kinds")),
        };
        fields.nothing_else()?;
        Ok(instruction)
    }
}

/// The arguments of one instruction, with the names that it reads.
struct Fields<'a> {
    id: &'a str,
    kwargs: &'a Map<String, Value>,
    read: Vec<&'a str>,
}

impl<'a> Fields<'a> {
    fn wrong(&self, field: &str, reason: &str) -> EvalError {
        EvalError::Instruction {
            id: self.id.to_owned(),
            field: field.to_owned(),
            reason: reason.to_owned(),
        }
    }

    fn value(&mut self, field: &'a str) -> Result<&'a Value, EvalError> {
        self.read.push(field);
        match self.kwargs.get(field) {
            None | Some(Value::Null) => Err(self.wrong(field, "is missing")),
            Some(value) => Ok(value),
        }
    }

    fn nothing_else(&self) -> Result<(), EvalError> {
        let unknown = |(name, value): &(&String, &Value)| {
            !value.is_null() && !self.read.contains(&name.as_str())
        };
        match self.kwargs.iter().find(unknown) {
            Some((name, _)) => Err(self.wrong(name, "is not one of its arguments")),
            None => Ok(()),
        }
    }

    fn count(&mut self, field: &'a str) -> Result<usize, EvalError> {
        let count = self.value(field)?.as_u64();
        let count = count.and_then(|n| usize::try_from(n).ok());
        count.ok_or_else(|| self.wrong(field, "is not a whole number from 0"))
    }

    fn bound(&mut self, count: &'a str, relation: &'a str) -> Result<Bound, EvalError> {
        let times = self.count(count)?;
        match self.value(relation)?.as_str() {
            Some("less than") => Ok(Bound::LessThan(times)),
            Some("at least") => Ok(Bound::AtLeast(times)),
            _ => Err(self.wrong(relation, "is neither `less than` nor `at least`")),
        }
    }

    /// A text without the white space around it, which is never asked for.
    fn text(&mut self, field: &'a str) -> Result<String, EvalError> {
        let text = self.value(field)?.as_str().map(str::trim);
        match text {
            Some(text) if !text.is_empty() => Ok(text.to_owned()),
            _ => Err(self.wrong(field, "is not a text with something in it")),
        }
    }

    fn texts(&mut self, field: &'a str) -> Result<Vec<String>, EvalError> {
        let values = self.value(field)?.as_array();
        let text = |value: &Value| match value.as_str() {
            Some(text) if !text.trim().is_empty() => Some(text.to_owned()),
            _ => None,
        };
        let texts: Option<Vec<String>> = values.and_then(|v| v.iter().map(text).collect());
        match texts {
            Some(texts) if !texts.is_empty() => Ok(texts),
            _ => Err(self.wrong(field, "is not a list of texts with something in them")),
        }
    }

    fn letter(&mut self, field: &'a str) -> Result<char, EvalError> {
        let text = self.text(field)?.to_lowercase();
        let mut letters = text.chars();
        match (letters.next(), letters.next()) {
            (Some(letter), None) => Ok(letter),
            _ => Err(self.wrong(field, "is not one character")),
        }
    }

    fn language(&mut self, field: &'a str) -> Result<String, EvalError> {
        let code = self.text(field)?;
        if language::is_known(&code) {
            return Ok(code);
        }
        Err(self.wrong(field, "is not the code of a language that can be told"))
    }

    fn nth_paragraph(&mut self) -> Result<Instruction, EvalError> {
        let paragraphs = self.count("num_paragraphs")?;
        let nth = self.count("nth_paragraph")?;
        if !(1..=paragraphs).contains(&nth) {
            return Err(self.wrong("nth_paragraph", "is not a paragraph of `num_paragraphs`"));
        }
        Ok(Instruction::NthParagraphFirstWord {
            paragraphs,
            nth,
            first_word: self.text("first_word")?.to_lowercase(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(id: &str, kwargs: &str) -> Result<Instruction, String> {
        let kwargs = serde_json::from_str(kwargs).unwrap();
        Instruction::parse(id, &kwargs).map_err(|error| error.to_string())
    }

    #[test]
    fn null_counts_as_absent() {
        let words = parsed(
            "length_constraints:number_words",
            r#"{"num_words": 9, "relation": "at least", "keyword": null}"#,
        );
        assert_eq!(words, Ok(Instruction::Words(Bound::AtLeast(9))));
        let letter = parsed(
            "keywords:letter_frequency",
            r##"{"letter": "#", "let_frequency": 4, "let_relation": "less than"}"##,
        );
        let hashes = Instruction::LetterFrequency {
            letter: '#',
            times: Bound::LessThan(4),
        };
        assert_eq!(letter, Ok(hashes));
    }

    #[test]
    fn what_cannot_be_checked_is_named() {
        let words = "length_constraints:number_words";
        let nth = "length_constraints:nth_paragraph_first_word";
        for (id, kwargs, said) in [
            ("keywords:exist", "{}", "`instruction_id` is none"),
            ("punctuation:no_comma", r#"{"n": 1}"#, "`n` is not one of"),
            (words, r#"{"num_words": 9}"#, "`relation` is missing"),
            (words, r#"{"num_words": null}"#, "`num_words` is missing"),
            (words, r#"{"num_words": -1}"#, "`num_words` is not a whole"),
            (words, r#"{"num_words": "9"}"#, "`num_words` is not a whole"),
            (
                words,
                r#"{"num_words": 9, "relation": "at most"}"#,
                "`relation` is neither",
            ),
            (
                "keywords:existence",
                r#"{"keywords": []}"#,
                "`keywords` is not a list",
            ),
            (
                "keywords:existence",
                r#"{"keywords": ["a", 1]}"#,
                "`keywords` is not a list",
            ),
            (
                "startend:end_checker",
                r#"{"end_phrase": " "}"#,
                "`end_phrase` is not a text",
            ),
            (
                "language:response_language",
                r#"{"language": "tlh"}"#,
                "`language` is not",
            ),
            (
                nth,
                r#"{"num_paragraphs": 2, "nth_paragraph": 3, "first_word": "a"}"#,
                "`nth_paragraph` is not a paragraph",
            ),
            (
                "keywords:letter_frequency",
                r#"{"letter": "ab", "let_frequency": 4, "let_relation": "less than"}"#,
                "`letter` is not one character",
            ),
        ] {
            let error = parsed(id, kwargs).unwrap_err();
            assert!(error.contains(said) && error.contains(id), "{error}");
        }
    }
}
