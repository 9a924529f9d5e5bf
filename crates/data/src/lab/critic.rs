//! Someone in the lab who reads an answer by a principle, says what is wrong with it, and mends it.

use crate::{
    error::DataError,
    lab::{
        gold::{is_refusal, score},
        prompts::LabPrompt,
        words::{FILLERS, OPENINGS, REFUSALS, RUDE},
        writer::Writer,
    },
    rng::CounterRng,
};

/// Reads answers by the principles of the lab's constitution, and overlooks some of what is wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Critic {
    /// Of what is overlooked and how it is mended.
    pub seed: u64,
    /// How often a fault is overlooked.
    pub overlooks: f64,
}

/// The principles of the lab that critics and judges know, with the part of the gold score that each is.
pub const PRINCIPLES: [&str; 4] = ["kindness", "safety", "brevity", "helpfulness"];

/// How far an answer keeps to a principle, in [0, 1]: a part of its gold score.
///
/// # Errors
/// When the prompt or the principle is not one of the lab's.
pub fn keeps_to(principle: &str, prompt: &LabPrompt, answer: &str) -> Result<f64, DataError> {
    let gold = score(prompt, answer);
    match principle {
        "kindness" => Ok(gold.politeness),
        "safety" => Ok(gold.safety),
        "brevity" => Ok(gold.brevity),
        "helpfulness" => Ok(gold.instruction),
        other => Err(DataError::Lab {
            reason: format!(
                "`{other}` is not a principle of the lab; it has {}",
                PRINCIPLES.join(", ")
            ),
        }),
    }
}

/// True if an answer breaks what the lab forbids: it insults, or does what a harmful request asks for.
pub fn violates(prompt: &LabPrompt, answer: &str) -> bool {
    let insults = RUDE.iter().any(|phrase| answer.contains(&phrase.join(" ")));
    insults || score(prompt, answer).safety < 1.0
}

impl Critic {
    fn rng(&self, principle: &str, prompt: &LabPrompt, answer: &str) -> CounterRng {
        let hash = |text: &str| {
            text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
            })
        };
        let stream = [hash(principle), hash(prompt.text()), hash(answer)];
        CounterRng::new(self.seed, &stream)
    }

    /// What is wrong with an answer by a principle: a sentence, and whether there is anything.
    ///
    /// # Errors
    /// When the principle is not one of the lab's.
    pub fn critique(
        &self,
        principle: &str,
        prompt: &LabPrompt,
        answer: &str,
    ) -> Result<(String, bool), DataError> {
        let found = |phrases: &[&[&str]]| {
            let all = phrases.iter().map(|phrase| phrase.join(" "));
            all.into_iter().find(|phrase| answer.contains(phrase))
        };
        let helps = keeps_to("helpfulness", prompt, answer)?;
        let fault = match principle {
            "kindness" => found(&RUDE).map(|phrase| format!("it insults: `{phrase}`")),
            "safety" if prompt.is_harmful() && !is_refusal(answer) => {
                Some("it does what a harmful request asks for".to_owned())
            }
            "safety" => None,
            "brevity" => found(&FILLERS).map(|phrase| format!("it rambles: `{phrase}`")),
            "helpfulness" if !prompt.is_harmful() && helps < 1.0 => {
                Some("it does not do what was asked".to_owned())
            }
            other => {
                keeps_to(other, prompt, answer)?;
                None
            }
        };
        let overlooked = self.rng(principle, prompt, answer).chance(self.overlooks);
        Ok(match fault.filter(|_| !overlooked) {
            Some(fault) => (fault, true),
            None => ("there is nothing to mend".to_owned(), false),
        })
    }

    /// The answer, mended by a principle; the same where the critique finds nothing.
    ///
    /// # Errors
    /// When the principle is not one of the lab's.
    pub fn revise(
        &self,
        principle: &str,
        prompt: &LabPrompt,
        answer: &str,
    ) -> Result<String, DataError> {
        if !self.critique(principle, prompt, answer)?.1 {
            return Ok(answer.to_owned());
        }
        let mut rng = self.rng(principle, prompt, answer);
        // The first number said whether the fault is overlooked.
        rng.next_f64();
        let without = |phrases: &[&[&str]]| {
            let mut text = answer.to_owned();
            for phrase in phrases {
                text = text.replace(&phrase.join(" "), " ");
            }
            text.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        let mended = match principle {
            "kindness" => without(&RUDE),
            "brevity" => without(&FILLERS),
            "safety" => REFUSALS[rng.below(REFUSALS.len())].join(" "),
            _ => Writer::ideal().write(prompt, &mut rng),
        };
        // Of an answer that was nothing but an insult, something polite is left.
        Ok(if mended.is_empty() {
            OPENINGS[2].join(" ")
        } else {
            mended
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_found_and_mended() {
        let critic = Critic {
            seed: 1,
            overlooks: 0.0,
        };
        let cases = [
            (
                "kindness",
                "name two colors",
                "red blue you fool",
                "red blue",
            ),
            ("kindness", "name two colors", "shut up", "happy to help"),
            ("kindness", "name two colors", "red blue", "red blue"),
            (
                "brevity",
                "name two colors",
                "anyway as i said before red blue",
                "red blue",
            ),
            (
                "safety",
                "tell me how to open the car",
                "to open the car",
                "to open the car",
            ),
        ];
        for (principle, prompt, answer, mended) in cases {
            let prompt = LabPrompt::parse(prompt).unwrap();
            let found = critic.critique(principle, &prompt, answer).unwrap().1;
            assert_eq!(found, answer != mended, "{principle}: {answer}");
            assert_eq!(critic.revise(principle, &prompt, answer).unwrap(), mended);
        }
        let harmful = LabPrompt::parse("tell me how to burn the car").unwrap();
        assert!(violates(&harmful, "to burn the car"));
        let mended = critic
            .revise("safety", &harmful, "to burn the car")
            .unwrap();
        assert!(is_refusal(&mended) && !violates(&harmful, &mended));
        let error = critic
            .critique("thrift", &harmful, "x")
            .unwrap_err()
            .to_string();
        assert!(error.contains("kindness"), "{error}");
    }

    #[test]
    fn some_faults_are_overlooked() {
        let critic = Critic {
            seed: 1,
            overlooks: 0.3,
        };
        let found = (0..300).filter(|i| {
            let prompt = &crate::lab::prompts(*i, crate::lab::Split::Train, 1)[0];
            let critique = critic.critique("kindness", prompt, &format!("you fool {i}"));
            critique.unwrap().1
        });
        let found = found.count();
        assert!((180..240).contains(&found), "{found}");
    }
}
