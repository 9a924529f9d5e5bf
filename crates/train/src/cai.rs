//! Constitutional AI (Bai et al. 2022): the model drafts an answer, a critic says what is wrong with it by
//! a principle and revises it, several times over; SFT on the revisions; then preferences by principle
//! among the tuned model's answers, and preference tuning on those.
//!
//! Every draft, critique and revision is a line of `chains.jsonl` in the run folder, from which an
//! interrupted run goes on; the preferences are `labels.jsonl`. Left out: reinforcement against a
//! preference model (the paper's second stage), for which `rlaif` with `learn.kind = "reward_model"` and
//! an online recipe stand; and mixing in people's helpfulness labels, for which principles of helpfulness
//! stand.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use togi_data::{
    Constitution, Principle, PromptSample, Sample, Tokenizer,
    lab::{self, LabPrompt},
    rng::CounterRng,
};
use togi_policy::{Decoder, Finish, Sampling};
use togi_reward::{
    Scorable, Unscorable,
    critic::{Critic, Draft},
    judge::{Judge, Pair, Verdict, draw_criterion},
};

use crate::{
    ai_labels::{LabelConfig, at_once, too_many},
    config::{RecipeConfig, at_least_one, positive, within},
    error::TrainError,
    judge_config::JudgeConfig,
    metrics::{Event, Row},
    offline::{self, Stage},
    preference::{PreferenceConfig, PreferenceLoss},
    rollout::{mean, rollouts},
    sft::{Sft, SftConfig},
};

/// Configuration of the recipe `cai`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CaiConfig {
    /// Of everything.
    pub seed: u64,
    /// A file of principles; the built-in ones if there is none, and the lab's on the lab.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub constitution: Option<PathBuf>,
    /// Prompts whose answers are revised.
    pub prompts: usize,
    /// Critiques and revisions of each, each by a principle that is drawn anew.
    pub rounds: usize,
    /// How drafts are drawn.
    pub sampling: Sampling,
    /// Prompts that are worked on at a time.
    pub batch_size: usize,
    /// The share of chains that may fail before the run ends.
    pub max_unscorable: f64,
    /// How often the lab's critic overlooks a fault.
    pub lab_overlooks: f64,
    /// The training on the revisions.
    pub sft: SftConfig,
    /// The pairs that are compared by principle.
    pub label: LabelConfig,
    /// How critic and judge are asked. The criteria are the constitution's.
    pub judge: JudgeConfig,
    /// The training on the comparisons.
    pub preference: PreferenceConfig,
}

impl Default for CaiConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            constitution: None,
            prompts: 1000,
            rounds: 2,
            sampling: Sampling::default(),
            batch_size: 64,
            max_unscorable: 0.2,
            lab_overlooks: 0.1,
            sft: SftConfig::default(),
            label: LabelConfig::default(),
            judge: JudgeConfig::default(),
            preference: PreferenceConfig::with(PreferenceLoss::SoftLabels { beta: 0.1 }),
        }
    }
}

impl RecipeConfig for CaiConfig {
    fn validate(&self) -> Result<(), TrainError> {
        at_least_one("prompts", self.prompts)?;
        at_least_one("rounds", self.rounds)?;
        at_least_one("batch_size", self.batch_size)?;
        self.sampling.validate()?;
        positive("sampling.temperature", self.sampling.temperature)?;
        within("max_unscorable", self.max_unscorable, 0.0, 1.0)?;
        within("lab_overlooks", self.lab_overlooks, 0.0, 1.0)?;
        self.sft.validate()?;
        self.label.validate()?;
        self.judge.validate()?;
        self.preference.validate()?;
        if self.sft.data != self.preference.data {
            let reason = "is not read: prompts are read as preference.data says";
            return Err(TrainError::config("sft.data", reason));
        }
        let defaults = PreferenceConfig::default();
        for (key, unread) in [
            ("sft.seed", self.sft.seed != 0),
            ("preference.seed", self.preference.seed != 0),
            (
                "preference.annotators",
                self.preference.annotators != defaults.annotators,
            ),
            (
                "judge.criteria",
                self.judge.criteria != JudgeConfig::default().criteria,
            ),
        ] {
            if unread {
                let reason = "is not read: `seed` is that of the whole, and the constitution has the \
                              criteria";
                return Err(TrainError::config(key, reason));
            }
        }
        Ok(())
    }
}

impl CaiConfig {
    /// The principles.
    ///
    /// # Errors
    /// A file that is not one of principles.
    pub fn principles(&self, on_lab: bool) -> Result<Vec<Principle>, TrainError> {
        let all = match &self.constitution {
            Some(path) => Constitution::read(path)?,
            None if on_lab => Constitution::lab()?,
            None => Constitution::built_in()?,
        };
        Ok(all.principles)
    }
}

/// A draft and what became of it: a line of `chains.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Chain {
    /// The prompt as text.
    pub prompt: String,
    /// The first answer.
    pub draft: String,
    /// It reached the longest length before it ended.
    #[serde(default)]
    pub cut: bool,
    /// Critiques and revisions, in order.
    pub steps: Vec<Revision>,
    /// Why the chain ended early; it is not learnt from then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unscorable: Option<String>,
}

/// One critique and revision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Revision {
    /// The principle's name.
    pub principle: String,
    /// What is wrong.
    pub critique: String,
    /// The better answer.
    pub revision: String,
}

impl Chain {
    /// The answer at the end.
    pub fn last(&self) -> &str {
        self.steps.last().map_or(&self.draft, |step| &step.revision)
    }
}

const FILE: &str = "chains.jsonl";

/// Drafts, criticises and revises answers to the prompts, or reads what an earlier part of the run did.
///
/// # Errors
/// More chains that failed than allowed; a damaged file.
pub fn chains(
    stage: &mut Stage<'_>,
    policy: &Decoder,
    tokenizer: &Tokenizer,
    critic: &dyn Critic,
    principles: &[Principle],
    prompts: &[PromptSample],
    config: &CaiConfig,
) -> Result<Vec<Chain>, TrainError> {
    let name = "revise";
    stage.within_memory(name, |stage| {
        let asked = &prompts[..prompts.len().min(config.prompts)];
        let mut done: Vec<Chain> = stage.run.read_lines(FILE)?;
        done.truncate(asked.len());
        let (step, total) = (done.len() as u64, asked.len() as u64);
        stage.watch.begin(step);
        stage.observer.on(Event::Stage { name, step, total });
        while done.len() < asked.len() {
            let started = std::time::Instant::now();
            let first = done.len();
            let part: Vec<&PromptSample> = asked[first..]
                .iter()
                .take(at_once(first, config.batch_size))
                .collect();
            let sampling = &config.sampling;
            let drafts = rollouts(policy, tokenizer, &part, sampling, stage.seed, first as u64)?;
            let tokens: usize = drafts.iter().map(|d| d.completion().len()).sum();
            let mut fresh: Vec<Chain> = drafts
                .into_iter()
                .map(|draft| Chain {
                    prompt: draft.prompt,
                    draft: draft.text,
                    cut: draft.finish == Finish::Length,
                    steps: Vec::new(),
                    unscorable: None,
                })
                .collect();
            for round in 0..config.rounds {
                let drawn: Vec<&Principle> = (0..fresh.len())
                    .map(|i| {
                        let stream = [0x6361_6900, (first + i) as u64, round as u64];
                        let mut rng = CounterRng::new(stage.seed, &stream);
                        &principles[rng.below(principles.len())]
                    })
                    .collect();
                revise(critic, &mut fresh, &drawn);
            }
            // What a critic that fails leaves is not written down: a resumed run asks again.
            let all = || done.iter().chain(&fresh);
            let bad: Vec<&String> = all().filter_map(|c| c.unscorable.as_ref()).collect();
            let (count, last) = (all().count(), first + part.len() == asked.len());
            if too_many(bad.len(), count, config.max_unscorable, last) {
                let reason = format!(
                    "{} of {count} answers could not be revised by {}, more than \
                     max_unscorable = {} allows: {}",
                    bad.len(),
                    critic.name(),
                    config.max_unscorable,
                    bad[0]
                );
                return Err(failed(stage, reason));
            }
            let unscorable = bad.len() as f64 / count as f64;
            for chain in &fresh {
                let row = serde_json::to_value(chain).map_err(|e| failed(stage, e.to_string()))?;
                if let Value::Object(row) = row {
                    stage.run.append(FILE, &row)?;
                }
            }
            done.extend(fresh);
            stage.watch.reached(done.len() as u64);
            let changed = done.iter().filter(|c| c.last() != c.draft).count();
            let mut row = Row::default();
            row.set("revise/changed", changed as f64 / done.len() as f64);
            row.set("revise/unscorable", unscorable);
            stage.observer.on(Event::Step {
                step: done.len() as u64,
                row: &row,
                tokens_per_second: tokens as f64 / started.elapsed().as_secs_f64(),
            });
            let short = stage.short_of_memory(name, done.len() as u64);
            if let Some(error) = short.filter(|_| !last) {
                return Err(error);
            }
        }
        stage.observer.on(Event::Done);
        stage.observer.on(Event::Message(&summary(&done)));
        let usage = critic.usage();
        if !usage.is_empty() {
            stage.observer.on(Event::Message(&usage));
        }
        Ok(done)
    })
}

fn failed(stage: &Stage<'_>, reason: String) -> TrainError {
    TrainError::Run {
        stage: stage.name.to_owned(),
        step: 0,
        reason,
    }
}

/// One more critique and revision of each chain that has not failed.
fn revise(critic: &dyn Critic, chains: &mut [Chain], principles: &[&Principle]) {
    let mut live: Vec<usize> = (0..chains.len())
        .filter(|i| chains[*i].unscorable.is_none())
        .collect();
    let critiques = critic.critique(&drafts(chains, principles, &live));
    let mut said = BTreeMap::new();
    for (i, critique) in live.iter().zip(critiques) {
        match critique {
            Ok(text) => _ = said.insert(*i, text),
            Err(Unscorable(reason)) => chains[*i].unscorable = Some(reason),
        }
    }
    live.retain(|i| said.contains_key(i));
    let texts: Vec<String> = live.iter().map(|i| said[i].clone()).collect();
    let revisions = critic.revise(&drafts(chains, principles, &live), &texts);
    for ((i, critique), revision) in live.iter().zip(texts).zip(revisions) {
        match revision {
            Ok(revision) => chains[*i].steps.push(Revision {
                principle: principles[*i].name.clone(),
                critique,
                revision,
            }),
            Err(Unscorable(reason)) => chains[*i].unscorable = Some(reason),
        }
    }
}

fn drafts<'a>(chains: &'a [Chain], principles: &[&'a Principle], live: &[usize]) -> Vec<Draft<'a>> {
    live.iter()
        .map(|i| Draft {
            prompt: &chains[*i].prompt,
            answer: chains[*i].last(),
            principle: principles[*i],
        })
        .collect()
}

fn summary(chains: &[Chain]) -> String {
    let changed = chains.iter().filter(|c| c.last() != c.draft).count();
    let failed = chains.iter().filter(|c| c.unscorable.is_some()).count();
    let mut text = format!(
        "{} answers, {changed} changed by their revisions, {failed} could not be revised and are left out",
        chains.len()
    );
    let broken = |answer: &dyn Fn(&Chain) -> String| {
        let each = chains.iter().map(|chain| {
            let prompt = LabPrompt::parse(&chain.prompt).ok()?;
            Some(f64::from(u8::from(lab::violates(&prompt, &answer(chain)))))
        });
        each.collect::<Option<Vec<f64>>>()
    };
    let rate = |values: Vec<f64>| 100.0 * mean(values);
    if let (Some(before), Some(after)) = (
        broken(&|c| c.draft.clone()),
        broken(&|c| c.last().to_owned()),
    ) {
        let (before, after) = (rate(before), rate(after));
        text.push_str(&format!(
            "; violations: {before:.1}% of drafts, {after:.1}% of revisions"
        ));
    }
    text
}

/// The revisions as samples to learn, and a share of them held out. Those of more than `max_length` tokens
/// are left out.
///
/// # Errors
/// When a revision cannot be encoded; when none is left.
pub fn samples(
    chains: &[Chain],
    prompts: &[PromptSample],
    tokenizer: &Tokenizer,
    valid_fraction: f64,
    max_length: usize,
) -> Result<(Vec<Sample>, Vec<Sample>), TrainError> {
    let mut all = Vec::with_capacity(chains.len());
    for (chain, prompt) in chains.iter().zip(prompts) {
        if chain.unscorable.is_some() {
            continue;
        }
        // It follows a prompt: nothing that begins a text is added.
        let mut answer = tokenizer.encode(chain.last())?;
        // A draft that was cut and never revised has no end to learn.
        if !(chain.cut && chain.last() == chain.draft) {
            answer.extend(tokenizer.eos_ids().first());
        }
        if prompt.ids.len() + answer.len() <= max_length {
            let sample = Sample::from_parts(&prompt.ids, &answer, tokenizer.eos_ids());
            all.push(sample);
        }
    }
    if all.is_empty() {
        let reason = "no answer was revised, or none fits sft.data.max_length";
        return Err(TrainError::config("prompts", reason));
    }
    let held_out = (all.len() as f64 * valid_fraction) as usize;
    let train = all.split_off(held_out);
    Ok((train, all))
}

/// Compares by the lab's principles: the part of the gold score that the pair's principle is, seen with
/// noise.
pub struct LabPrincipleJudge {
    /// The lab's principles.
    pub principles: Vec<Principle>,
    /// Temperature of the choice.
    pub noise: f64,
    /// Of the draws of principles.
    pub seed: u64,
}

impl Judge for LabPrincipleJudge {
    fn name(&self) -> String {
        "lab annotators, by principle".to_owned()
    }

    fn compare(&self, pairs: &[Pair<'_>]) -> Vec<Result<Verdict, Unscorable>> {
        pairs.iter().map(|pair| self.one(pair)).collect()
    }
}

impl LabPrincipleJudge {
    fn one(&self, pair: &Pair<'_>) -> Result<Verdict, Unscorable> {
        let drawn = draw_criterion(self.seed, pair, self.principles.len());
        let wrong = |e: togi_data::DataError| Unscorable(e.to_string());
        let prompt = LabPrompt::parse(pair.first.prompt).map_err(wrong)?;
        let keeps = |item: &Scorable<'_>| {
            lab::keeps_to(&self.principles[drawn].name, &prompt, item.completion).map_err(wrong)
        };
        let difference = keeps(&pair.first)? - keeps(&pair.second)?;
        Ok(Verdict {
            first: 1.0 / (1.0 + (-difference / self.noise.max(1e-9)).exp()),
            orders: None,
            criterion: Some(drawn),
            rationale: None,
        })
    }
}

/// Learns the revisions; the stage is watched as the recipe `sft` is.
///
/// # Errors
/// As the recipe `sft`.
pub fn learn_revisions(
    stage: &mut Stage<'_>,
    policy: &mut Decoder,
    (train, valid): (&[Sample], &[Sample]),
    config: &SftConfig,
) -> Result<Option<Row>, TrainError> {
    if let Some(lora) = &config.lora {
        policy.add_lora(lora.clone(), stage.seed)?;
    }
    let mut objective = Sft { train, valid };
    offline::train(stage, policy, &mut objective, &config.optim, &config.train)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn revisions_follow_their_prompts_with_nothing_between() {
        let folder = tempfile::tempdir().unwrap();
        let added = |id: u32, content: &str| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false,
                   "rstrip": false, "normalized": false, "special": true})
        };
        // It puts `<s>` before every text.
        let begins = json!({"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}});
        let vocabulary = json!({"<s>": 0, "</s>": 1, "a": 2, "b": 3, "<unk>": 4});
        let description = json!({
            "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
            "added_tokens": [added(0, "<s>"), added(1, "</s>")],
            "pre_tokenizer": {"type": "Whitespace"}, "post_processor": begins, "decoder": null,
            "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
        });
        let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text);
        write("tokenizer.json", description.to_string()).unwrap();
        let config = json!({"bos_token": "<s>", "eos_token": "</s>"});
        write("tokenizer_config.json", config.to_string()).unwrap();
        let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
        let chain = Chain {
            prompt: "a".to_owned(),
            draft: "b a".to_owned(),
            cut: false,
            steps: Vec::new(),
            unscorable: None,
        };
        let prompt = PromptSample {
            ids: tokenizer.encode_text("a").unwrap(),
            text: "a".to_owned(),
        };
        let (train, _) = samples(&[chain], &[prompt], &tokenizer, 0.0, 9).unwrap();
        assert_eq!(train[0].ids, [0, 2, 3, 2, 1]);
    }
}
