//! `cargo xtask eval <suite>`: models, or reward models, measured and compared.

mod diversity;
mod instructions;
mod likelihood;
mod math;
mod reward;
mod safety;
mod table;
mod win_rate;

use std::path::{Path, PathBuf};

use anyhow::Result;
use burn::tensor::Device;
use clap::{Args, Subcommand};
use togi_data::{
    LoadOptions, Message, OverLong, PromptSample, Sample, TokenizeOptions, load_with, tokenize,
};
use togi_policy::{Policy, Sampling, source::Source};
use togi_reward::control::Controlled;
use togi_train::rollout::Rollout;

use crate::{
    InputError,
    control::{ControlArguments, answer},
    device,
};

#[derive(Args)]
pub(crate) struct EvalArguments {
    #[command(subcommand)]
    suite: Suite,
}

#[derive(Subcommand)]
enum Suite {
    /// Verifiable instructions, the 25 kinds of IFEval, strict and loose.
    Instructions(instructions::InstructionArguments),
    /// Refusal of harmful requests, and of harmless ones that only look so.
    Safety(safety::SafetyArguments),
    /// Problems with a number for an answer, as GSM8K's.
    Math(math::MathArguments),
    /// Answers against those of the first model, by a judge or a reward model, length-controlled.
    WinRate(win_rate::WinRateArguments),
    /// How different answers are: to one prompt, and across prompts.
    Diversity(diversity::DiversityArguments),
    /// Perplexity of given answers, and KL of a model's own from the first model.
    Likelihood(likelihood::LikelihoodArguments),
    /// Accuracy and calibration of reward models on pairs.
    Reward(reward::RewardSuiteArguments),
}

pub(crate) fn run(arguments: &EvalArguments) -> Result<()> {
    match &arguments.suite {
        Suite::Instructions(arguments) => instructions::run(arguments),
        Suite::Safety(arguments) => safety::run(arguments),
        Suite::Math(arguments) => math::run(arguments),
        Suite::WinRate(arguments) => win_rate::run(arguments),
        Suite::Diversity(arguments) => diversity::run(arguments),
        Suite::Likelihood(arguments) => likelihood::run(arguments),
        Suite::Reward(arguments) => reward::run(arguments),
    }
}

/// Which models answer, and how.
#[derive(Args)]
pub(crate) struct Answering {
    /// A model source; several are compared with the first.
    #[arg(long, value_name = "SRC", required = true)]
    pub(crate) model: Vec<String>,
    /// Said before each prompt.
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Longest answer, in tokens.
    #[arg(long, default_value_t = 256)]
    max_new_tokens: usize,
    /// Logits are divided by this; 0 takes the likeliest token.
    #[arg(long, default_value_t = 0.7)]
    temperature: f64,
    /// Sequences that are generated at a time.
    #[arg(long, value_name = "N", default_value_t = 16)]
    batch_size: usize,
    #[command(flatten)]
    control: ControlArguments,
    /// Only the first N items.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// The seed.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Write report.html, results.json and answers.jsonl into this folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// `cpu`, `wgpu`, or `cuda` with `:n` for a further GPU.
    #[arg(long, default_value = "cpu")]
    pub(crate) device: String,
}

impl Answering {
    pub(crate) fn sampling(&self) -> Result<Sampling> {
        let sampling = Sampling {
            max_new_tokens: self.max_new_tokens,
            temperature: self.temperature,
            batch_size: self.batch_size,
            ..Sampling::default()
        };
        sampling.validate()?;
        Ok(sampling)
    }

    pub(crate) fn device(&self) -> Result<Device> {
        device::parse(&self.device)
    }

    /// Loads a model; a reward model cannot answer.
    pub(crate) fn load(&self, spec: &str, device: &Device) -> Result<Policy> {
        Ok(Source::parse(spec)?.load(device, self.seed)?)
    }

    /// The items that are asked: all, or the first of them.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn limited<T>(&self, mut items: Vec<T>) -> Result<Vec<T>> {
        items.truncate(self.limit.unwrap_or(usize::MAX));
        if items.is_empty() {
            let text = "nothing to ask: --data has no item that can be used, or --limit is 0";
            return Err(InputError(text.to_owned()).into());
        }
        Ok(items)
    }

    /// Prompts of plain text as the model reads them: by its chat template where it has one.
    pub(crate) fn asked(&self, policy: &Policy, texts: &[String]) -> Result<Vec<PromptSample>> {
        let tokenizer = &policy.tokenizer;
        let before = self.system.iter().map(|text| Message::new("system", text));
        let before: Vec<Message> = before.collect();
        let prompt = |text: &String| -> Result<PromptSample> {
            let ids = if tokenizer.has_template() {
                let mut messages = before.clone();
                messages.push(Message::new("user", text));
                tokenizer.encode(&tokenizer.render(&messages, true)?)?
            } else {
                tokenizer.encode_text(text)?
            };
            let text = text.clone();
            Ok(PromptSample { ids, text })
        };
        texts.iter().map(prompt).collect()
    }

    /// `each` answers to each prompt, one after the other.
    pub(crate) fn answers(
        &self,
        policy: &Policy,
        prompts: &[PromptSample],
        each: usize,
    ) -> Result<Vec<Controlled>> {
        let control = self.control.build(policy, self.batch_size, self.seed)?;
        let asked: Vec<PromptSample> = prompts
            .iter()
            .flat_map(|p| std::iter::repeat_n(p.clone(), each))
            .collect();
        let streams: Vec<u64> = (0..asked.len() as u64).collect();
        let keys = (self.seed, &streams[..]);
        let weights = policy.decoder.sampling();
        answer(
            &control,
            (policy, &weights),
            &asked,
            &self.sampling()?,
            keys,
        )
    }
}

impl Answering {
    /// One answer to each prompt, with its tokens.
    pub(crate) fn rollouts(&self, policy: &Policy, asked: &[PromptSample]) -> Result<Vec<Rollout>> {
        let eos = policy.tokenizer.eos_ids();
        let answers = self.answers(policy, asked, 1)?.into_iter().zip(asked);
        let rollout = |(answer, prompt): (Controlled, &PromptSample)| Rollout {
            prompt: prompt.text.clone(),
            prompt_len: prompt.ids.len(),
            sample: Sample::from_parts(&prompt.ids, &answer.generation.ids, eos),
            text: answer.text,
            finish: answer.generation.finish,
            sampler_logps: answer.generation.logps,
            sampler_entropies: answer.generation.entropies,
        };
        Ok(answers.map(rollout).collect())
    }
}

/// A model's answers to the texts of a suite, one each.
pub(crate) struct Answers {
    /// The model, as tables name it.
    pub(crate) name: String,
    pub(crate) texts: Vec<String>,
    /// In tokens.
    pub(crate) lengths: Vec<f64>,
}

impl Answering {
    /// Lets one model after the other answer, and hands its answers on.
    pub(crate) fn each_model(
        &self,
        texts: &[String],
        mut measure: impl FnMut(Answers) -> Result<()>,
    ) -> Result<()> {
        let device = self.device()?;
        for (spec, name) in self.model.iter().zip(names(&self.model)) {
            let policy = self.load(spec, &device)?;
            let asked = self.asked(&policy, texts)?;
            let drawn = self.answers(&policy, &asked, 1)?;
            let lengths = drawn.iter().map(|a| a.generation.ids.len() as f64);
            measure(Answers {
                name,
                lengths: lengths.collect(),
                texts: drawn.into_iter().map(|a| a.text).collect(),
            })?;
        }
        Ok(())
    }
}

/// Reads a file of a suite.
///
/// # Errors
/// Names the file, and what is wrong in it.
pub(crate) fn read<T>(
    path: &Path,
    parse: impl Fn(&str) -> Result<T, togi_eval::EvalError>,
) -> Result<T> {
    let wrong = |reason: String| InputError(format!("--data {}: {reason}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
    Ok(parse(&text).map_err(|e| wrong(e.to_string()))?)
}

/// Held-out prompts of the lab that are asked, where it is the data.
const LAB_PROMPTS: usize = 300;

/// The prompts of files, or of the lab, as text.
pub(crate) fn prompts_of(files: &[PathBuf], policy: &Policy) -> Result<Vec<String>> {
    let options = TokenizeOptions {
        max_length: usize::MAX,
        over_long: OverLong::Error,
        loss_on: togi_data::LossOn::Completion,
        hh: togi_data::HhAs::Messages,
    };
    let mut texts = Vec::new();
    for file in files {
        if file.as_os_str() == "lab" {
            let prompts = togi_data::lab::prompts(0, togi_data::lab::Split::Test, LAB_PROMPTS);
            texts.extend(prompts.iter().map(|prompt| prompt.text().to_owned()));
            continue;
        }
        for row in load_with(Path::new(file), &LoadOptions::default())?.records {
            let prompt = tokenize::prompt(&row, &policy.tokenizer, &options)?;
            texts.extend(prompt.map(|prompt| prompt.text));
        }
    }
    Ok(texts)
}

/// A name for a table: the end of a path.
pub(crate) fn short(spec: &str) -> String {
    let name = Path::new(spec).file_name().and_then(|name| name.to_str());
    name.unwrap_or(spec).to_owned()
}

/// Names that tell the sources apart: their ends, or all of them where ends are equal.
pub(crate) fn names(specs: &[String]) -> Vec<String> {
    let ends: Vec<String> = specs.iter().map(|spec| short(spec)).collect();
    let alike = |name: &String| ends.iter().filter(|other| *other == name).count() > 1;
    let name = |(spec, end): (&String, &String)| match alike(end) {
        true => spec.clone(),
        false => end.clone(),
    };
    specs.iter().zip(&ends).map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_tell_sources_apart() {
        let specs = ["runs/a", "runs/b/model", "c/model", "lab"].map(str::to_owned);
        assert_eq!(names(&specs), ["a", "runs/b/model", "c/model", "lab"]);
    }
}
