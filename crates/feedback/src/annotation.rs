//! What the log holds: judgements, and judgements taken back.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use togi_data::Content;

/// The most answers that an item may have: one letter each on the keyboard.
pub const MOST_ANSWERS: usize = 9;

/// By how much the better answer is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum Strength {
    /// 1
    Slightly,
    /// 2
    Clearly,
    /// 3
    MuchBetter,
}

impl Strength {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Slightly => "slightly better",
            Self::Clearly => "clearly better",
            Self::MuchBetter => "much better",
        }
    }
}

impl From<Strength> for u8 {
    fn from(strength: Strength) -> Self {
        match strength {
            Strength::Slightly => 1,
            Strength::Clearly => 2,
            Strength::MuchBetter => 3,
        }
    }
}

impl TryFrom<u8> for Strength {
    type Error = String;

    fn try_from(value: u8) -> Result<Self, Self::Error> {
        match value {
            1 => Ok(Self::Slightly),
            2 => Ok(Self::Clearly),
            3 => Ok(Self::MuchBetter),
            other => Err(format!("a strength is 1, 2 or 3, not {other}")),
        }
    }
}

/// What an annotator said of an item. Answers are counted from 0 in the data's order, whatever the
/// order in which they were shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Verdict {
    /// One answer is the best.
    Choice {
        /// Which.
        answer: usize,
        /// By how much it is better than the rest.
        strength: Strength,
    },
    /// All answers in order.
    Ranking {
        /// The rank of each answer, from 1 (the best) without gaps; equal ranks are ties.
        ranks: Vec<u32>,
        /// By how much the best is better than the worst.
        strength: Strength,
    },
    /// None is better.
    Tie,
    /// Not judged.
    Skipped,
}

/// One judgement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Annotation {
    /// Names this line; a retraction refers to it.
    pub id: String,
    /// The item, by its content: [`item_id`].
    pub item: String,
    /// Who judged.
    pub annotator: String,
    /// 0 for the first time this annotator saw the item, 1 for a repetition.
    pub pass: u32,
    /// File and line of the data.
    pub place: String,
    /// The prompt.
    pub prompt: Content,
    /// The answers in the data's order.
    pub answers: Vec<Content>,
    /// The answers in the order shown: `shown[0]` was the first on the screen.
    pub shown: Vec<usize>,
    /// What was said.
    pub verdict: Verdict,
    /// Why, in the annotator's words; `skipped` for a skipped item without words.
    pub reason: Option<String>,
    /// When the item came on the screen.
    #[serde(with = "rfc3339")]
    pub started: SystemTime,
    /// When the judgement was complete.
    #[serde(with = "rfc3339")]
    pub ended: SystemTime,
}

/// A judgement taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retraction {
    /// The [`Annotation::id`] that no longer counts.
    pub retracted: String,
    /// Who took it back: who made it.
    pub annotator: String,
    /// When.
    #[serde(with = "rfc3339")]
    pub at: SystemTime,
}

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Entry {
    /// A judgement.
    Annotation(Box<Annotation>),
    /// A judgement taken back.
    Retraction(Retraction),
}

impl Annotation {
    /// The id of a judgement: who judged what, in which pass, from when.
    pub fn id_of(item: &str, annotator: &str, pass: u32, started: SystemTime) -> String {
        let started = humantime::format_rfc3339_nanos(started);
        digest(format!("{item}\n{annotator}\n{pass}\n{started}").as_bytes())
    }

    /// What is inconsistent in this judgement.
    ///
    /// # Errors
    /// Names the field.
    pub fn check(&self) -> Result<(), String> {
        let k = self.answers.len();
        if k < 2 {
            return Err("field `answers` has fewer than two".to_owned());
        }
        if self.item != item_id(&self.prompt, &self.answers) {
            return Err("field `item` does not fit `prompt` and `answers`".to_owned());
        }
        let mut order = self.shown.clone();
        order.sort_unstable();
        if !order.into_iter().eq(0..k) {
            return Err(format!("field `shown` is no order of {k} answers"));
        }
        match &self.verdict {
            Verdict::Choice { answer, .. } if *answer >= k => Err(format!(
                "field `verdict`: answer {answer} of {k}, counted from 0"
            )),
            Verdict::Ranking { ranks, .. } => {
                let worst = ranks.iter().max().copied().unwrap_or(0);
                let whole = (1..=worst).all(|rank| ranks.contains(&rank));
                if ranks.len() == k && whole && worst > 1 && !ranks.contains(&0) {
                    Ok(())
                } else {
                    Err(format!("field `verdict`: `ranks` do not rank {k} answers"))
                }
            }
            _ => Ok(()),
        }
    }
}

/// The id of an item: a hash of prompt and answers, in the data's order.
pub fn item_id(prompt: &Content, answers: &[Content]) -> String {
    // Strings and lists of them: this serialisation does not fail.
    digest(&serde_json::to_vec(&(prompt, answers)).unwrap_or_default())
}

/// The first 64 bits of SHA-256, in hexadecimal.
fn digest(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The first 64 bits of SHA-256, to key random numbers.
pub(crate) fn key(text: &str) -> u64 {
    let hash = Sha256::digest(text.as_bytes());
    hash[..8]
        .iter()
        .fold(0, |key, byte| key << 8 | u64::from(*byte))
}

/// Times as RFC 3339 in UTC, to the millisecond.
mod rfc3339 {
    use std::time::SystemTime;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&humantime::format_rfc3339_millis(*time))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SystemTime, D::Error> {
        let text = String::deserialize(from)?;
        humantime::parse_rfc3339(&text).map_err(|e| D::Error::custom(format!("`{text}`: {e}")))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn annotation(verdict: Verdict) -> Annotation {
        let prompt = Content::Text("q".to_owned());
        let answers = vec![Content::Text("a".to_owned()), Content::Text("b".to_owned())];
        let started = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        let item = item_id(&prompt, &answers);
        Annotation {
            id: Annotation::id_of(&item, "ann", 0, started),
            item,
            annotator: "ann".to_owned(),
            pass: 0,
            place: "d.jsonl:1".to_owned(),
            prompt,
            answers,
            shown: vec![1, 0],
            verdict,
            reason: None,
            started,
            ended: started + Duration::from_secs(5),
        }
    }

    #[test]
    fn a_line_reads_back_and_its_form_is_stable() {
        let choice = annotation(Verdict::Choice {
            answer: 1,
            strength: Strength::Clearly,
        });
        let line = serde_json::to_string(&choice).unwrap();
        assert_eq!(
            line,
            "{\"id\":\"5b0f3414425c2589\",\"item\":\"e78260228cac1543\",\"annotator\":\"ann\",\
             \"pass\":0,\"place\":\"d.jsonl:1\",\"prompt\":\"q\",\"answers\":[\"a\",\"b\"],\
             \"shown\":[1,0],\"verdict\":{\"choice\":{\"answer\":1,\"strength\":2}},\
             \"reason\":null,\"started\":\"2023-11-14T22:13:20.123Z\",\
             \"ended\":\"2023-11-14T22:13:25.123Z\"}"
        );
        assert_eq!(serde_json::from_str::<Annotation>(&line).unwrap(), choice);
    }

    #[test]
    fn what_does_not_fit_together_is_found() {
        let ranking = |ranks: &[u32]| Verdict::Ranking {
            ranks: ranks.to_vec(),
            strength: Strength::Slightly,
        };
        assert_eq!(annotation(Verdict::Tie).check(), Ok(()));
        assert_eq!(annotation(ranking(&[2, 1])).check(), Ok(()));
        for ranks in [&[1, 3][..], &[1], &[1, 1], &[0, 1], &[]] {
            assert!(annotation(ranking(ranks)).check().is_err(), "{ranks:?}");
        }
        let wrong = |change: fn(&mut Annotation), field: &str| {
            let mut changed = annotation(Verdict::Tie);
            change(&mut changed);
            let said = changed.check().unwrap_err();
            assert!(said.contains(field), "{said}");
        };
        wrong(|a| a.shown = vec![0, 0], "shown");
        wrong(|a| a.shown = vec![0], "shown");
        wrong(|a| a.answers.truncate(1), "answers");
        wrong(|a| a.answers.swap(0, 1), "item");
        let strength = Strength::Slightly;
        let beyond = annotation(Verdict::Choice {
            answer: 2,
            strength,
        });
        assert!(beyond.check().is_err());
    }
}
