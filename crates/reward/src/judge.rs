//! Judges: which of two answers is better, as a probability.

use togi_data::{
    Message,
    lab::{AnnotatorConfig, Annotators, LabPrompt},
    rng::CounterRng,
};

use crate::{
    Reward, Scorable, Unscorable,
    oracle::{Oracle, Question},
};

/// Two answers to one prompt.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a> {
    /// One answer.
    pub first: Scorable<'a>,
    /// The other.
    pub second: Scorable<'a>,
}

/// What a judge says of a pair.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The probability that the first answer is the better one.
    pub first: f64,
    /// The same as it was said with the first answer shown first, and shown second; `first` is their mean.
    /// `None` where answers are not shown side by side.
    pub orders: Option<[f64; 2]>,
    /// The number of the criterion that was asked about.
    pub criterion: Option<usize>,
    /// What the judge wrote before it chose, in both orders.
    pub rationale: Option<[String; 2]>,
}

/// Compares answers.
pub trait Judge: Send + Sync {
    /// A name for logs and tables.
    fn name(&self) -> String;

    /// One result a pair, in order.
    fn compare(&self, pairs: &[Pair<'_>]) -> Vec<Result<Verdict, Unscorable>>;

    /// What has been asked so far, for people; empty where that costs nothing.
    fn usage(&self) -> String {
        String::new()
    }
}

/// How far the order in which answers are shown decides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PositionBias {
    /// Pairs that were asked in both orders.
    pub pairs: usize,
    /// The mean probability given to the answer that was shown first; 0.5 without a bias.
    pub first_shown: f64,
    /// The share of pairs in which the choice changed with the order.
    pub changed: f64,
}

impl PositionBias {
    /// Of verdicts; `None` where none was asked in both orders.
    pub fn of<'a>(verdicts: impl IntoIterator<Item = &'a Verdict>) -> Option<Self> {
        let (mut pairs, mut first_shown, mut changed) = (0, 0.0, 0.0);
        for [shown_first, shown_second] in verdicts.into_iter().filter_map(|v| v.orders) {
            pairs += 1;
            first_shown += (shown_first + 1.0 - shown_second) / 2.0;
            changed += f64::from(u8::from((shown_first > 0.5) != (shown_second > 0.5)));
        }
        let n = pairs as f64;
        (pairs > 0).then(|| Self {
            pairs,
            first_shown: first_shown / n,
            changed: changed / n,
        })
    }
}

/// A language model that reads both answers, in both orders (Zheng et al. 2023, "Judging LLM-as-a-judge").
pub struct OracleJudge {
    /// The model.
    pub oracle: Box<dyn Oracle>,
    /// What better means, a sentence each. Each pair is asked about one of them, drawn as in
    /// Constitutional AI.
    pub criteria: Vec<String>,
    /// Let the model write what speaks for each answer before it chooses.
    pub chain_of_thought: bool,
    /// Probabilities are kept within these. After a chain of thought they are near 0 and 1, and Bai et al.
    /// 2022 (section 4.1) keep them in 0.4 to 0.6.
    pub clamp: Option<[f64; 2]>,
    /// Of the draws of criteria.
    pub seed: u64,
}

/// The labels of two answers.
const LABELS: [&str; 2] = ["A", "B"];

impl OracleJudge {
    fn request(criterion: &str, prompt: &str, a: &str, b: &str) -> String {
        format!(
            "Here are a request and two answers to it. {criterion}\n\nRequest:\n{prompt}\n\nAnswer \
             A:\n{a}\n\nAnswer B:\n{b}"
        )
    }
}

/// The number of the criterion that a pair is asked about, of `count`: a matter of its texts, not of its
/// place among others.
pub fn draw_criterion(seed: u64, pair: &Pair<'_>, count: usize) -> usize {
    let texts = [
        pair.first.prompt,
        pair.first.completion,
        pair.second.completion,
    ];
    let stream: Vec<u64> = texts.iter().map(|text| hash(text)).collect();
    CounterRng::new(seed, &stream).below(count)
}

fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

const CHOOSE: &str = "Which answer is better? Reply with one letter: A or B.";
const REASON: &str = "In a few sentences, say what speaks for each answer. Do not choose yet.";

impl Judge for OracleJudge {
    fn name(&self) -> String {
        self.oracle.name()
    }

    fn compare(&self, pairs: &[Pair<'_>]) -> Vec<Result<Verdict, Unscorable>> {
        if self.criteria.is_empty() {
            let nothing = || Err(Unscorable("the judge has no criterion".to_owned()));
            return pairs.iter().map(|_| nothing()).collect();
        }
        let draw = |pair| draw_criterion(self.seed, pair, self.criteria.len());
        let criteria: Vec<usize> = pairs.iter().map(draw).collect();
        // Both orders of each pair, one after the other.
        let requests: Vec<String> = pairs
            .iter()
            .zip(&criteria)
            .flat_map(|(pair, criterion)| {
                let (criterion, prompt) = (&self.criteria[*criterion], pair.first.prompt);
                let (a, b) = (pair.first.completion, pair.second.completion);
                [
                    Self::request(criterion, prompt, a, b),
                    Self::request(criterion, prompt, b, a),
                ]
            })
            .collect();
        let thoughts: Vec<Option<Result<String, Unscorable>>> = if self.chain_of_thought {
            let asked: Vec<Vec<Message>> = requests
                .iter()
                .map(|request| vec![Message::new("user", &format!("{request}\n\n{REASON}"))])
                .collect();
            let thoughts = self.oracle.write(&asked).into_iter();
            thoughts
                .map(|said| Some(said.map(|said| said.text)))
                .collect()
        } else {
            requests.iter().map(|_| None).collect()
        };
        let questions: Vec<Question> = requests
            .iter()
            .zip(&thoughts)
            .map(|(request, thought)| {
                let messages = match thought {
                    Some(Ok(thought)) => vec![
                        Message::new("user", &format!("{request}\n\n{REASON}")),
                        Message::new("assistant", thought),
                        Message::new("user", CHOOSE),
                    ],
                    _ => vec![Message::new("user", &format!("{request}\n\n{CHOOSE}"))],
                };
                Question {
                    messages,
                    labels: LABELS.map(str::to_owned).to_vec(),
                }
            })
            .collect();
        // Where the model wrote nothing, it is not asked to choose either.
        let asked: Vec<Question> = questions
            .into_iter()
            .zip(&thoughts)
            .filter(|(_, thought)| !matches!(thought, Some(Err(_))))
            .map(|(question, _)| question)
            .collect();
        let mut answers = self.oracle.choose(&asked).into_iter();
        let mut said = thoughts.into_iter().map(|thought| {
            let thought = thought.transpose()?;
            let missing = || Err(Unscorable("the judge gave too few answers".to_owned()));
            let chances = answers.next().unwrap_or_else(missing)?;
            let a = chances.first().copied().unwrap_or(f64::NAN);
            if !(0.0..=1.0).contains(&a) {
                return Err(Unscorable(format!("the judge's probability is {a}")));
            }
            let a = self.clamp.map_or(a, |[low, high]| a.clamp(low, high));
            Ok((a, thought))
        });
        criteria
            .into_iter()
            .map(|criterion| {
                let (one, other) = (said.next(), said.next());
                let missing = || Unscorable("the judge gave too few answers".to_owned());
                let (shown_first, thought) = one.ok_or_else(missing)??;
                let (shown_second, other_thought) = other.ok_or_else(missing)??;
                let orders = [shown_first, 1.0 - shown_second];
                Ok(Verdict {
                    first: (orders[0] + orders[1]) / 2.0,
                    orders: Some(orders),
                    criterion: Some(criterion),
                    rationale: thought.zip(other_thought).map(|(a, b)| [a, b]),
                })
            })
            .collect()
    }

    fn usage(&self) -> String {
        self.oracle.usage()
    }
}

/// A reward as a judge: `σ((r_first − r_second) / temperature)`.
pub struct RewardJudge {
    /// The reward.
    pub reward: Box<dyn Reward>,
    /// How many units of reward are a clear difference. A Bradley-Terry reward model's is 1.
    pub temperature: f64,
}

impl Judge for RewardJudge {
    fn name(&self) -> String {
        self.reward.name()
    }

    fn compare(&self, pairs: &[Pair<'_>]) -> Vec<Result<Verdict, Unscorable>> {
        let all: Vec<Scorable<'_>> = pairs
            .iter()
            .flat_map(|pair| [pair.first, pair.second])
            .collect();
        let scores = self.reward.score(&all);
        scores
            .chunks(2)
            .map(|both| {
                let [first, second] = both else {
                    return Err(Unscorable("the reward gave too few scores".to_owned()));
                };
                let value = |s: &Result<crate::Score, Unscorable>| s.clone().map(|s| s.value);
                let difference = (value(first)? - value(second)?) / self.temperature;
                Ok(Verdict {
                    first: 1.0 / (1.0 + (-difference).exp()),
                    orders: None,
                    criterion: None,
                    rationale: None,
                })
            })
            .collect()
    }
}

/// The lab's simulated annotators as a judge, with a liking for the answer that is shown first.
pub struct LabJudge {
    annotators: Annotators,
    position_bias: f64,
}

impl LabJudge {
    /// Annotators with these habits; `position_bias` is what being shown first is worth, in units of the
    /// gold score.
    pub fn new(seed: u64, config: AnnotatorConfig, position_bias: f64) -> Self {
        Self {
            annotators: Annotators::new(seed, config),
            position_bias,
        }
    }
}

impl Judge for LabJudge {
    fn name(&self) -> String {
        "lab annotators".to_owned()
    }

    fn compare(&self, pairs: &[Pair<'_>]) -> Vec<Result<Verdict, Unscorable>> {
        pairs
            .iter()
            .map(|pair| {
                let prompt = LabPrompt::parse(pair.first.prompt);
                let prompt = prompt.map_err(|e| Unscorable(e.to_string()))?;
                let (a, b) = (pair.first.completion, pair.second.completion);
                let asked = |bias| self.annotators.probability(&prompt, a, b, bias);
                let orders = [asked(self.position_bias), asked(-self.position_bias)];
                Ok(Verdict {
                    first: (orders[0] + orders[1]) / 2.0,
                    orders: Some(orders),
                    criterion: None,
                    rationale: None,
                })
            })
            .collect()
    }
}

/// A language model's rating of one answer as a reward (direct RLAIF; Lee et al. 2023, section 2.2.2): the
/// mean of 1 to 9 under the probabilities that the model gives to the digits, scaled to `[-1, 1]`. The
/// paper's scale ends at 10, which begins with the digit 1.
pub struct OracleRating {
    /// The model.
    pub oracle: Box<dyn Oracle>,
    /// What good means, in a sentence.
    pub criterion: String,
}

impl Reward for OracleRating {
    fn name(&self) -> String {
        format!("rating by {}", self.oracle.name())
    }

    fn score(&self, batch: &[Scorable<'_>]) -> Vec<Result<crate::Score, Unscorable>> {
        let questions: Vec<Question> = batch
            .iter()
            .map(|item| {
                let text = format!(
                    "Here are a request and an answer to it. {}\n\nRequest:\n{}\n\nAnswer:\n{}\n\nRate the \
                     answer from 1 (very poor) to 9 (excellent). Reply with one digit.",
                    self.criterion, item.prompt, item.completion
                );
                Question {
                    messages: vec![Message::new("user", &text)],
                    labels: (1..=9).map(|digit: u8| digit.to_string()).collect(),
                }
            })
            .collect();
        self.oracle
            .choose(&questions)
            .into_iter()
            .map(|chances| {
                let rating: f64 = (1..).zip(chances?).map(|(i, p)| f64::from(i) * p).sum();
                crate::Score::new((rating - 5.0) / 4.0)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Contains, oracle::Written};

    /// Prefers what is shown first by its own measure: `A` where answer A has the word `good`, else 0.6.
    struct Scripted;

    impl Oracle for Scripted {
        fn name(&self) -> String {
            "scripted".to_owned()
        }

        fn choose(&self, questions: &[Question]) -> Vec<Result<Vec<f64>, Unscorable>> {
            let answer = |q: &Question| {
                let text = &q.messages[0].content;
                if text.contains("silent") {
                    return Err(Unscorable("no answer".to_owned()));
                }
                if q.labels.len() == 9 {
                    let mut chances = vec![0.0; 9];
                    chances[if text.contains("good") { 8 } else { 2 }] = 1.0;
                    return Ok(chances);
                }
                let a = text.split("Answer A:").nth(1).unwrap();
                let (a, b) = a.split_once("Answer B:").unwrap();
                let p = match (a.contains("good"), b.contains("good")) {
                    (true, false) => 0.9,
                    (false, true) => 0.2,
                    _ => 0.6,
                };
                Ok(vec![p, 1.0 - p])
            };
            questions.iter().map(answer).collect()
        }

        fn write(&self, conversations: &[Vec<Message>]) -> Vec<Result<Written, Unscorable>> {
            let said = |c: &Vec<Message>| {
                if c[0].content.contains("mute") {
                    Err(Unscorable("the model said nothing".to_owned()))
                } else {
                    Written::new("both have their points", false)
                }
            };
            conversations.iter().map(said).collect()
        }
    }

    fn item<'a>(prompt: &'a str, completion: &'a str) -> Scorable<'a> {
        Scorable {
            prompt,
            prompt_ids: &[1],
            completion,
            completion_ids: &[2],
        }
    }

    fn judge(chain_of_thought: bool, clamp: Option<[f64; 2]>) -> OracleJudge {
        OracleJudge {
            oracle: Box::new(Scripted),
            criteria: vec!["Be kind.".to_owned(), "Be brief.".to_owned()],
            chain_of_thought,
            clamp,
            seed: 3,
        }
    }

    fn pair<'a>(prompt: &'a str, first: &'a str, second: &'a str) -> Pair<'a> {
        Pair {
            first: item(prompt, first),
            second: item(prompt, second),
        }
    }

    #[test]
    fn both_orders_are_asked_and_the_bias_is_seen() {
        let pairs = [
            pair("p", "good", "bad"),
            pair("p", "one", "two"),
            pair("silent", "x", "y"),
            pair("p", "bad", "good"),
        ];
        let verdicts = judge(false, None).compare(&pairs);
        let first = |i: usize| verdicts[i].as_ref().unwrap().first;
        assert!((first(0) - 0.85).abs() < 1e-12 && (first(3) - 0.15).abs() < 1e-12);
        // Equal answers: the liking for the first cancels out.
        assert!((first(1) - 0.5).abs() < 1e-12);
        assert!(
            verdicts[2]
                .as_ref()
                .unwrap_err()
                .to_string()
                .contains("no answer")
        );
        let bias = PositionBias::of(verdicts.iter().flatten()).unwrap();
        assert_eq!(bias.pairs, 3);
        assert!((bias.first_shown - (0.55 + 0.6 + 0.55) / 3.0).abs() < 1e-12);
        assert!((bias.changed - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!(PositionBias::of(&[]), None);
        // The criterion is a matter of the pair, and all are asked about.
        let texts: Vec<String> = (0..40).map(|i| format!("answer {i}")).collect();
        let many: Vec<Pair<'_>> = texts.iter().map(|text| pair("p", text, "z")).collect();
        let of = |pairs: &[Pair<'_>]| -> Vec<_> {
            let verdicts = judge(false, None).compare(pairs);
            verdicts
                .into_iter()
                .map(|v| v.unwrap().criterion.unwrap())
                .collect()
        };
        let all = of(&many);
        assert_eq!(all[5], of(&many[5..6])[0]);
        assert!(all.contains(&0) && all.contains(&1));
    }

    #[test]
    fn thoughts_are_kept_and_probabilities_clamped() {
        let pairs = [
            pair("p", "good", "bad"),
            pair("mute", "x", "y"),
            pair("p", "good", "c"),
        ];
        let verdicts = judge(true, Some([0.4, 0.6])).compare(&pairs);
        let verdict = verdicts[0].as_ref().unwrap();
        assert_eq!(verdict.orders, Some([0.6, 0.6]));
        assert_eq!(
            verdict.rationale.as_ref().unwrap()[1],
            "both have their points"
        );
        assert!(verdicts[1].is_err());
        // The answers after one that failed are still their own.
        assert_eq!(verdicts[2].as_ref().unwrap().first, 0.6);
    }

    #[test]
    fn rewards_ratings_and_the_lab_judge() {
        let judge = RewardJudge {
            reward: Box::new(Contains {
                text: "good".to_owned(),
            }),
            temperature: 0.5,
        };
        let verdict = judge
            .compare(&[pair("p", "good", "bad")])
            .remove(0)
            .unwrap();
        assert!((verdict.first - 1.0 / (1.0 + (-2.0_f64).exp())).abs() < 1e-12);
        let rating = OracleRating {
            oracle: Box::new(Scripted),
            criterion: "Be kind.".to_owned(),
        };
        let scores = rating.score(&[item("p", "good"), item("p", "bad"), item("silent", "x")]);
        assert_eq!(scores[0].as_ref().unwrap().value, 1.0);
        assert_eq!(scores[1].as_ref().unwrap().value, -0.5);
        assert!(scores[2].is_err());
        let lab = LabJudge::new(1, AnnotatorConfig::default(), 0.2);
        let pairs = [
            pair("name two colors", "sure red blue", "you fool"),
            pair("name two colors", "red blue", "blue red"),
            pair("write a poem", "a", "b"),
        ];
        let verdicts = lab.compare(&pairs);
        assert!(verdicts[0].as_ref().unwrap().first > 0.95);
        let even = verdicts[1].as_ref().unwrap();
        assert!((even.first - 0.5).abs() < 1e-9 && even.orders.unwrap()[0] > 0.9);
        assert!(verdicts[2].is_err());
    }
}
