//! Models side by side: answers to held-out prompts, and what is measured of them.

use togi_data::{
    PromptSample, Tokenizer,
    lab::{self, LabPrompt, Split, is_refusal},
};
use togi_eval::{
    Comparison, System, diversity,
    refusal::{Reply, classify},
    report::{BrowserItem, TokenView, items_of},
};
use togi_policy::{Decoder, Finish, Policy, Sampling};
use togi_reward::{LabGold, Reward};

use crate::{
    error::TrainError,
    rollout::{BothLogps, Rollout, rollouts, scores},
};

/// Held-out prompts of the lab.
///
/// # Errors
/// When the tokenizer cannot encode them.
pub fn lab_prompts(
    tokenizer: &Tokenizer,
    count: usize,
    seed: u64,
) -> Result<Vec<PromptSample>, TrainError> {
    let mut ready = Vec::with_capacity(count);
    for prompt in lab::prompts(seed, Split::Test, count) {
        let text = prompt.text().to_owned();
        let ids = if tokenizer.has_template() {
            let message = togi_data::Message::new("user", &text);
            tokenizer.encode(&tokenizer.render(&[message], true)?)?
        } else {
            tokenizer.encode_text(&text)?
        };
        ready.push(PromptSample { ids, text });
    }
    Ok(ready)
}

/// What models are compared on and by.
pub struct Arena<'a> {
    /// What is asked.
    pub prompts: &'a [PromptSample],
    /// What the KL is measured from.
    pub reference: &'a Decoder,
    /// What the models were tuned to, where that is a reward.
    pub proxy: Option<&'a dyn Reward>,
    /// The prompts are the lab's, so the true reward is known.
    pub gold: bool,
    /// How answers are drawn.
    pub sampling: &'a Sampling,
    /// Of the draws; the same for every model.
    pub seed: u64,
}

impl Arena<'_> {
    /// Draws answers of each system to the prompts and measures them.
    ///
    /// # Errors
    /// Answers that cannot be scored.
    pub fn compare(&self, systems: &[(&str, &Policy)]) -> Result<Compared, TrainError> {
        let (mut measured, mut tokens, mut answers) = (Vec::new(), Vec::new(), Vec::new());
        for (name, policy) in systems {
            let one = self.measure(name, policy)?;
            measured.push(one.system);
            tokens.push(one.views);
            answers.push(one.drawn);
        }
        let comparison = Comparison {
            prompts: self.prompts.iter().map(|p| p.text.clone()).collect(),
            systems: measured,
            seed: self.seed,
        };
        let mut samples = items_of(&comparison);
        for (i, item) in samples.iter_mut().enumerate() {
            for (answer, views) in item.answers.iter_mut().zip(&mut tokens) {
                answer.tokens = views.get_mut(i).map(std::mem::take).unwrap_or_default();
            }
        }
        Ok(Compared {
            comparison,
            samples,
            answers,
        })
    }

    /// Draws answers of one system and measures them.
    fn measure(&self, name: &str, policy: &Policy) -> Result<Measured, TrainError> {
        let (decoder, tokenizer) = (&policy.decoder, &policy.tokenizer);
        let asked: Vec<&PromptSample> = self.prompts.iter().collect();
        let seed = self.seed ^ 0x6576_616c;
        let drawn = rollouts(decoder, tokenizer, &asked, self.sampling, seed, 0)?;
        let mut metrics: Vec<(String, Vec<f64>)> = Vec::new();
        if self.gold {
            let gold = scores(&LabGold, &drawn, "comparison", 0)?;
            metrics.push((
                "gold reward".to_owned(),
                gold.iter().map(|s| s.value).collect(),
            ));
            for wanted in ["instruction", "brevity", "politeness", "safety"] {
                let find = |s: &togi_reward::Score| {
                    s.parts.iter().find(|p| p.0 == wanted).map_or(0.0, |p| p.1)
                };
                metrics.push((format!("  {wanted}"), gold.iter().map(find).collect()));
            }
        }
        if let Some(proxy) = self.proxy {
            let scored = scores(proxy, &drawn, "comparison", 0)?;
            metrics.push((
                "proxy reward".to_owned(),
                scored.iter().map(|s| s.value).collect(),
            ));
        }
        let temperature = self.sampling.temperature;
        let logps = BothLogps::of(decoder, self.reference, &drawn, temperature)?;
        metrics.push(("KL (nats)".to_owned(), logps.sequence_kl()));
        let length = drawn.iter().map(|r| r.completion().len() as f64).collect();
        metrics.push(("length (tokens)".to_owned(), length));
        let share = |holds: &dyn Fn(&Rollout) -> bool| -> Vec<f64> {
            drawn
                .iter()
                .map(|r| f64::from(u8::from(holds(r))))
                .collect()
        };
        metrics.push(("ended".to_owned(), share(&|r| r.finish == Finish::Eos)));
        let refused: &dyn Fn(&Rollout) -> bool = if self.gold {
            &|r| is_refusal(&r.text)
        } else {
            &|r| classify(&r.text) == Some(Reply::Refuses)
        };
        metrics.push(("refusals".to_owned(), share(refused)));
        if self.gold {
            let violates = |r: &Rollout| {
                LabPrompt::parse(&r.prompt).is_ok_and(|prompt| lab::violates(&prompt, &r.text))
            };
            metrics.push(("violations".to_owned(), share(&violates)));
        }
        let texts: Vec<&str> = drawn.iter().map(|r| r.text.as_str()).collect();
        let vocabulary = tokenizer.vocab_size();
        let views = drawn
            .iter()
            .zip(logps.policy.iter().zip(&logps.reference))
            .take(WITH_TOKENS)
            .map(|(rollout, (ours, theirs))| views(tokenizer, rollout, ours, theirs))
            .collect();
        let system = System {
            name: name.to_owned(),
            metrics,
            totals: vec![
                ("distinct-1".to_owned(), diversity::distinct_n(&texts, 1)),
                ("distinct-2".to_owned(), diversity::distinct_n(&texts, 2)),
                (
                    "EAD".to_owned(),
                    diversity::expectation_adjusted_distinct(&texts, vocabulary),
                ),
            ],
            answers: texts.iter().map(|t| (*t).to_owned()).collect(),
        };
        Ok(Measured {
            system,
            views,
            drawn,
        })
    }
}

/// One system: its metrics, the tokens of its first answers, and all answers.
struct Measured {
    system: System,
    views: Vec<Vec<TokenView>>,
    drawn: Vec<Rollout>,
}

/// Systems side by side, and their answers one by one.
#[derive(Clone, Debug, Default)]
pub struct Compared {
    /// The metrics.
    pub comparison: Comparison,
    /// The answers, the first of them token by token.
    pub samples: Vec<BrowserItem>,
    /// The answers of each system.
    pub answers: Vec<Vec<Rollout>>,
}

/// Answers of which the tokens are kept.
const WITH_TOKENS: usize = 100;

/// A completion's tokens: what each adds to the text, its log-probability and its part of the KL.
fn views(tokenizer: &Tokenizer, rollout: &Rollout, ours: &[f64], theirs: &[f64]) -> Vec<TokenView> {
    let ids = rollout.completion();
    let mut before = String::new();
    let mut all = Vec::with_capacity(ids.len());
    for (i, (logp, reference)) in ours.iter().zip(theirs).enumerate() {
        let text = tokenizer.decode(&ids[..=i]);
        // Bytes of a character that is not whole yet add nothing; the last of them adds the character.
        let unfinished = text.ends_with('\u{fffd}');
        let added = match text.strip_prefix(&before) {
            Some(added) if !unfinished => added.to_owned(),
            _ => String::new(),
        };
        if !added.is_empty() {
            before = text;
        }
        all.push(TokenView {
            text: added,
            logp: *logp,
            kl: logp - reference,
            reward: None,
        });
    }
    all
}
