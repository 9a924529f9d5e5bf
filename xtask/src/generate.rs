//! `cargo xtask generate` and `cargo xtask chat`: completions of a model.

use std::{
    fs::File,
    io::{BufRead, BufWriter, IsTerminal, Write},
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::json;
use togi_data::{
    LoadOptions, Message, OverLong, PromptSample, TokenizeOptions, Tokenizer, load_with, tokenize,
};
use togi_policy::{
    Finish, Generation, Policy, Sampling,
    generate::{Voice, generate_with},
    source::Source,
};

use togi_reward::Scorable;

use crate::{InputError, device, scorer::RewardArguments};

/// How answers are drawn.
#[derive(Args)]
struct Drawing {
    /// `lab`, a Hugging Face or PEFT folder, a run folder, a .gguf file, hf:owner/name, or a
    /// fetched model.
    #[arg(long, value_name = "SRC")]
    model: String,
    /// `cpu`, `wgpu`, or `cuda` with `:n` for a further GPU.
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Said before the conversation.
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Longest answer, in tokens.
    #[arg(long, default_value_t = 256)]
    max_new_tokens: usize,
    /// Logits are divided by this; 0 takes the likeliest token.
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    temperature: f64,
    /// Only the likeliest K tokens; 0 is all.
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: usize,
    /// Only the likeliest tokens that reach this probability together.
    #[arg(
        long,
        value_name = "P",
        default_value_t = 1.0,
        allow_negative_numbers = true
    )]
    top_p: f64,
    /// Only tokens at least this many times as likely as the likeliest.
    #[arg(
        long,
        value_name = "P",
        default_value_t = 0.0,
        allow_negative_numbers = true
    )]
    min_p: f64,
    /// The seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

impl Drawing {
    fn load(&self) -> Result<Policy> {
        let device = device::parse(&self.device)?;
        Ok(Source::parse(&self.model)?.load(&device, self.seed)?)
    }

    fn sampling(&self, batch_size: usize) -> Sampling {
        Sampling {
            max_new_tokens: self.max_new_tokens,
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            batch_size,
        }
    }

    fn before(&self) -> Vec<Message> {
        let system = self.system.iter();
        system.map(|text| Message::new("system", text)).collect()
    }
}

#[derive(Args)]
pub(crate) struct GenerateArguments {
    #[command(flatten)]
    drawing: Drawing,
    /// A prompt; may be given several times.
    #[arg(long, value_name = "TEXT")]
    prompt: Vec<String>,
    /// Files with prompts, in any of the layouts that `train` reads.
    #[arg(long, value_name = "FILE")]
    data: Vec<PathBuf>,
    /// Take prompts as they are, without the chat template.
    #[arg(long)]
    raw: bool,
    /// Answers to each prompt.
    #[arg(long, value_name = "N", default_value_t = 1)]
    samples: usize,
    /// Draw N answers to each prompt and keep the one that the reward likes best (needs --reward).
    #[arg(
        long,
        value_name = "N",
        conflicts_with = "samples",
        requires = "reward"
    )]
    best_of: Option<usize>,
    /// What chooses: `lab`, or the folder or run folder of a reward model; several make an ensemble
    /// (their mean).
    #[arg(long, value_name = "SRC")]
    reward: Vec<String>,
    /// Sequences that are generated at a time.
    #[arg(long, value_name = "N", default_value_t = 16)]
    batch_size: usize,
    /// Write one JSON object an answer to this file instead of text to the terminal.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(crate) fn generate(arguments: &GenerateArguments) -> Result<()> {
    let drawing = &arguments.drawing;
    let each = arguments.best_of.unwrap_or(arguments.samples);
    if each == 0 {
        let text = "--samples and --best-of must be at least 1";
        return Err(InputError(text.to_owned()).into());
    }
    if arguments.prompt.is_empty() && arguments.data.is_empty() {
        let text = "nothing to answer: give --prompt TEXT or --data FILE";
        return Err(InputError(text.to_owned()).into());
    }
    let sampling = drawing.sampling(arguments.batch_size);
    sampling.validate()?;
    let mut policy = drawing.load()?;
    let prompts = arguments.prompts(&policy.tokenizer)?;
    let mut out = match &arguments.out {
        Some(path) => {
            let file = File::create(path).with_context(|| path.display().to_string())?;
            Some((path, BufWriter::new(file)))
        }
        None => None,
    };
    let ids: Vec<&[u32]> = prompts
        .iter()
        .flat_map(|p| std::iter::repeat_n(&p.ids[..], each))
        .collect();
    let streams: Vec<u64> = (0..ids.len() as u64).collect();
    let started = Instant::now();
    let weights = policy.decoder.into_sampling();
    let eos = policy.tokenizer.eos_ids();
    let seed = drawing.seed;
    let nothing = &mut |_, _| {};
    let voice = Voice {
        decoder: &policy.decoder,
        weights: &weights,
        share: 1.0,
    };
    let drawn = generate_with(&[voice], &ids, eos, &sampling, seed, &streams, nothing)?;
    let seconds = started.elapsed().as_secs_f64();
    let tokens: usize = drawn.iter().map(|d| d.ids.len()).sum();
    let chosen = match arguments.best_of {
        None => (0..drawn.len()).map(|i| (i, None)).collect(),
        Some(_) => best(arguments, &policy, &prompts, &drawn, each)?,
    };
    let alone = chosen.len() == 1;
    for (i, score) in chosen {
        let generation = &drawn[i];
        let prompt = &prompts[i / each].text;
        let text = policy.tokenizer.decode(&generation.ids);
        match &mut out {
            Some((path, file)) => {
                let mut row = json!({
                    "prompt": prompt,
                    "completion": text,
                    "tokens": generation.ids.len(),
                    "finish": generation.finish,
                    "logp": generation.logps.iter().map(|x| f64::from(*x)).sum::<f64>(),
                });
                if let Some(score) = score {
                    row["score"] = json!(score);
                }
                writeln!(file, "{row}").with_context(|| path.display().to_string())?;
            }
            None if alone => println!("{text}"),
            None => println!("> {prompt}\n{text}\n"),
        }
    }
    if let Some((path, file)) = &mut out {
        file.flush().with_context(|| path.display().to_string())?;
    }
    eprintln!(
        "{tokens} tokens in {seconds:.2} s, {:.1} tokens/s",
        tokens as f64 / seconds
    );
    Ok(())
}

/// The number of the best answer to each prompt, with its score. An answer that cannot be scored is not
/// the best; a prompt of which none can is an error.
fn best(
    arguments: &GenerateArguments,
    policy: &Policy,
    prompts: &[PromptSample],
    drawn: &[Generation],
    each: usize,
) -> Result<Vec<(usize, Option<f64>)>> {
    let scorer = RewardArguments::mean_of(&arguments.reward);
    let device = policy.decoder.device();
    let models = scorer.models(&policy.tokenizer, device, arguments.drawing.seed)?;
    let reward = scorer.combined(models, arguments.batch_size);
    let texts: Vec<String> = drawn
        .iter()
        .map(|generation| policy.tokenizer.decode(&generation.ids))
        .collect();
    let batch: Vec<Scorable<'_>> = (0..drawn.len())
        .map(|i| Scorable {
            prompt: &prompts[i / each].text,
            prompt_ids: &prompts[i / each].ids,
            completion: &texts[i],
            completion_ids: &drawn[i].ids,
        })
        .collect();
    let scores = reward.score(&batch);
    let mut chosen = Vec::with_capacity(prompts.len());
    for (number, prompt) in prompts.iter().enumerate() {
        let own = number * each..(number + 1) * each;
        let scored = own
            .clone()
            .filter_map(|i| Some((i, scores[i].as_ref().ok()?.value)));
        // Of equal scores the first.
        match scored.rev().max_by(|a, b| a.1.total_cmp(&b.1)) {
            Some((i, score)) => chosen.push((i, Some(score))),
            None => {
                let reason = scores[own.start].as_ref().err();
                let reason = reason.map_or(String::new(), ToString::to_string);
                anyhow::bail!("no answer to `{}` can be scored: {reason}", prompt.text);
            }
        }
    }
    Ok(chosen)
}

impl GenerateArguments {
    fn prompts(&self, tokenizer: &Tokenizer) -> Result<Vec<PromptSample>> {
        let mut prompts = Vec::new();
        for text in &self.prompt {
            let ids = if self.raw || !tokenizer.has_template() {
                tokenizer.encode_text(text)?
            } else {
                let mut messages = self.drawing.before();
                messages.push(Message::new("user", text));
                tokenizer.encode(&tokenizer.render(&messages, true)?)?
            };
            let text = text.clone();
            prompts.push(PromptSample { ids, text });
        }
        let options = TokenizeOptions {
            max_length: usize::MAX,
            over_long: OverLong::Error,
            loss_on: togi_data::LossOn::Completion,
            hh: togi_data::HhAs::Text,
        };
        for file in &self.data {
            for row in load_with(Path::new(file), &LoadOptions::default())?.records {
                prompts.extend(tokenize::prompt(&row, tokenizer, &options)?);
            }
        }
        Ok(prompts)
    }
}

#[derive(Args)]
pub(crate) struct ChatArguments {
    #[command(flatten)]
    drawing: Drawing,
}

/// Reads a line, answers, and keeps the conversation, until the input ends.
pub(crate) fn chat(arguments: &ChatArguments) -> Result<()> {
    let drawing = &arguments.drawing;
    let sampling = drawing.sampling(1);
    sampling.validate()?;
    let mut policy = drawing.load()?;
    if !policy.tokenizer.has_template() {
        let text = format!(
            "--model {}: its tokenizer has no chat template, so it cannot hold a conversation; \
             `generate --raw` completes text",
            drawing.model
        );
        return Err(InputError(text).into());
    }
    let weights = policy.decoder.into_sampling();
    let tokenizer = &policy.tokenizer;
    let mut messages = drawing.before();
    let asked = std::io::stdin().is_terminal();
    let mut turn = 0;
    loop {
        if asked {
            eprint!("> ");
        }
        let mut line = String::new();
        if std::io::stdin().lock().read_line(&mut line)? == 0 {
            return Ok(());
        }
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        messages.push(Message::new("user", line));
        let ids = tokenizer.encode(&tokenizer.render(&messages, true)?)?;
        let mut said: Vec<u32> = Vec::new();
        let mut printed = 0;
        // Text is printed as it comes, up to a character whose bytes are not all there yet.
        let mut print = |_: usize, id: u32| {
            said.push(id);
            let text = tokenizer.decode(&said);
            if !text.ends_with('\u{fffd}') && text.is_char_boundary(printed) {
                print!("{}", &text[printed.min(text.len())..]);
                printed = text.len();
                let _ = std::io::stdout().flush();
            }
        };
        let voice = Voice {
            decoder: &policy.decoder,
            weights: &weights,
            share: 1.0,
        };
        let drawn = generate_with(
            &[voice],
            &[&ids],
            tokenizer.eos_ids(),
            &sampling,
            drawing.seed,
            &[turn],
            &mut print,
        )?;
        println!();
        if drawn[0].finish == Finish::Length {
            eprintln!("(cut at {} tokens)", drawn[0].ids.len());
        }
        messages.push(Message::new("assistant", &tokenizer.decode(&drawn[0].ids)));
        turn += 1;
    }
}
