//! `cargo xtask generate` and `cargo xtask chat`: completions of a model.

use std::{
    fs::File,
    io::{BufRead, BufWriter, IsTerminal, Write},
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};
use togi_data::{
    LoadOptions, Message, OverLong, PromptSample, TokenizeOptions, Tokenizer, load_with, tokenize,
};
use togi_policy::{
    Finish, Policy, Sampling, Weights,
    generate::{Request, Voice, generate_with},
    source::Source,
};
use togi_reward::control::{Choice, Control, Controlled};

use crate::{
    InputError,
    control::{ControlArguments, answer},
    device,
};

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
    /// Hold weights in eight bits, with a factor for each output: a quarter of the bytes are read for each
    /// token, and answers are not quite the model's. On the CPU.
    #[arg(long)]
    int8: bool,
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
        let mut policy = Source::parse(&self.model)?.load(&device, self.seed)?;
        if self.int8 {
            device::hold_in_int8(&mut policy)?;
        }
        Ok(policy)
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
    #[command(flatten)]
    control: ControlArguments,
    /// Sequences that are generated at a time.
    #[arg(long, value_name = "N", default_value_t = 16)]
    batch_size: usize,
    /// Write one JSON object an answer to this file instead of text to the terminal.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(crate) fn generate(arguments: &GenerateArguments) -> Result<()> {
    let drawing = &arguments.drawing;
    let each = arguments.samples;
    if each == 0 {
        return Err(InputError("--samples must be at least 1".to_owned()).into());
    }
    arguments.control.check()?;
    if arguments.prompt.is_empty() && arguments.data.is_empty() {
        let text = "nothing to answer: give --prompt TEXT or --data FILE";
        return Err(InputError(text.to_owned()).into());
    }
    let sampling = drawing.sampling(arguments.batch_size);
    sampling.validate()?;
    let mut policy = drawing.load()?;
    let prompts = arguments.prompts(&policy.tokenizer)?;
    let control = arguments
        .control
        .build(&policy, arguments.batch_size, drawing.seed)?;
    let mut out = match &arguments.out {
        Some(path) => {
            let file = File::create(path).with_context(|| path.display().to_string())?;
            Some((path, BufWriter::new(file)))
        }
        None => None,
    };
    let asked: Vec<PromptSample> = prompts
        .iter()
        .flat_map(|p| std::iter::repeat_n(p.clone(), each))
        .collect();
    let streams: Vec<u64> = (0..asked.len() as u64).collect();
    let started = Instant::now();
    let weights = policy.decoder.into_sampling();
    let keys = (drawing.seed, &streams[..]);
    let voice = (&policy, &weights);
    let answers = answer(&control, voice, &asked, &sampling, keys)?;
    let seconds = started.elapsed().as_secs_f64();
    let alone = answers.len() == 1;
    for (prompt, answer) in asked.iter().zip(&answers) {
        let (prompt, text) = (&prompt.text, &answer.text);
        match &mut out {
            Some((path, file)) => {
                let row = row(prompt, answer);
                writeln!(file, "{row}").with_context(|| path.display().to_string())?;
            }
            None if alone => println!("{text}"),
            None => println!("> {prompt}\n{text}\n"),
        }
        if let Some(reason) = &answer.refused {
            eprintln!("The guard let no answer to `{prompt}` pass: {reason}");
        }
    }
    if let Some((path, file)) = &mut out {
        file.flush().with_context(|| path.display().to_string())?;
    }
    let tokens: usize = answers.iter().map(|a| a.generation.ids.len()).sum();
    let drawn: usize = answers.iter().map(|a| a.drawn).sum();
    let mut told = format!(
        "{tokens} tokens in {seconds:.2} s, {:.1} tokens/s",
        tokens as f64 / seconds
    );
    if drawn > answers.len() {
        told.push_str(&format!(", of {drawn} answers that were drawn"));
    }
    let unsatisfied = answers.iter().filter(|a| !a.generation.satisfied).count();
    if unsatisfied > 0 {
        told.push_str(&format!(
            "; {unsatisfied} were cut at --max-new-tokens before they satisfied the rules"
        ));
    }
    eprintln!("{told}");
    Ok(())
}

fn row(prompt: &str, answer: &Controlled) -> Value {
    let generation = &answer.generation;
    let mut row = json!({
        "prompt": prompt,
        "completion": answer.text,
        "tokens": generation.ids.len(),
        "finish": generation.finish,
        "logp": generation.logps.iter().map(|x| f64::from(*x)).sum::<f64>(),
    });
    if let Some(score) = answer.score {
        row["score"] = json!(score);
    }
    if generation.constrained > 0 || !generation.satisfied {
        row["constrained"] = json!(generation.constrained);
        row["satisfied"] = json!(generation.satisfied);
    }
    if let Some(reason) = &answer.refused {
        row["refused"] = json!(reason);
    }
    row
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
    #[command(flatten)]
    control: ControlArguments,
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
    let control = arguments.control.build(&policy, 16, drawing.seed)?;
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
        let text = if streams_text(&control) {
            let voice = (&policy, &weights);
            say(voice, &control, &sampling, &ids, (drawing.seed, turn))?
        } else {
            let text = line.to_owned();
            let asked = [PromptSample { ids, text }];
            let keys = (drawing.seed, &[turn][..]);
            let mut answers = answer(&control, (&policy, &weights), &asked, &sampling, keys)?;
            let said = answers.remove(0);
            println!("{}", said.text);
            if let Some(reason) = &said.refused {
                eprintln!("(the guard let no answer pass: {reason})");
            }
            said.text
        };
        messages.push(Message::new("assistant", &text));
        turn += 1;
    }
}

/// True if an answer can be printed while it is drawn: nothing chooses or refuses it afterwards.
fn streams_text(control: &Control) -> bool {
    matches!(control.choice, Choice::First) && control.guard.is_none()
}

/// Draws an answer and prints it as it comes, up to a character whose bytes are not all there yet.
fn say(
    (policy, weights): (&Policy, &Weights),
    control: &Control,
    sampling: &Sampling,
    ids: &[u32],
    (seed, turn): (u64, u64),
) -> Result<String> {
    let Policy { decoder, tokenizer } = policy;
    let mut said: Vec<u32> = Vec::new();
    let mut printed = 0;
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
        decoder,
        weights,
        share: 1.0,
    };
    let request = Request {
        prompts: &[ids],
        streams: &[turn],
        constraints: &[control.constraint.as_ref()],
        eos: tokenizer.eos_ids(),
        sampling,
        seed,
    };
    let drawn = generate_with(&[voice], &request, &mut print)?;
    println!();
    if drawn[0].finish == Finish::Length {
        eprintln!("(cut at {} tokens)", drawn[0].ids.len());
    }
    Ok(tokenizer.decode(&drawn[0].ids))
}
