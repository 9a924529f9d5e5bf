//! `cargo xtask bench`: how long steps take, alone and beside the Python stack on the same data.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result, anyhow};
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use togi_data::{
    BadRows, HhAs, LoadOptions, LossOn, OverLong, PairSample, Sample, TokenizeOptions, Tokenizer,
    load_with, rng::CounterRng, tokenize,
};
use togi_kernels::ThreadsAwake;
use togi_policy::{
    Decoder, Head, LoraConfig, ModelConfig, Params, Policy, Sampling, generate, hf,
    source::{self, Source},
};
use togi_train::{
    config::OptimSection,
    memory,
    offline::Objective,
    optimizer::AdamW,
    preference::{Preference, PreferenceConfig},
    schedule::Schedule,
    sft::Sft,
};

use crate::{
    InputError,
    bench_algorithms::{self, AlgorithmsArguments},
    bench_annotation::{self, AnnotationArguments},
    device,
};

#[derive(Args)]
pub(crate) struct BenchArguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// DPO steps on pairs in the order of the file.
    Dpo(DpoArguments),
    /// Sampling from random prompts, the end token ignored.
    Generate(GenerateArguments),
    /// Training steps of a decoder of a million parameters.
    Tiny(TinyArguments),
    /// All of them, in turn with TRL, transformers and PyTorch.
    Peers(PeerArguments),
    /// Every algorithm on the lab: gold reward, KL, diversity, time.
    Algorithms(AlgorithmsArguments),
    /// How many labels an accurate reward model takes on the lab, by how they are chosen.
    Annotation(AnnotationArguments),
}

#[derive(Args, Clone)]
struct Common {
    /// The model.
    #[arg(long, value_name = "SRC")]
    model: String,
    /// `cpu`, `wgpu`, or `cuda` with `:n` for a further GPU.
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Clone)]
struct DpoArguments {
    #[command(flatten)]
    common: Common,
    /// Pairs: `prompt`, `chosen`, `rejected`, or HH dialogues.
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Pairs a step.
    #[arg(long, default_value_t = 4)]
    batch: usize,
    /// Steps.
    #[arg(long, default_value_t = 6)]
    steps: usize,
    /// Pairs with a longer side are passed over.
    #[arg(long, default_value_t = 512)]
    max_length: usize,
    /// Train an adapter of this rank on all linear layers; 0: the weights.
    #[arg(long, default_value_t = 0)]
    lora: usize,
    /// Keep only what goes into each layer, and run the layers again in the backward pass.
    #[arg(long)]
    gradient_checkpointing: bool,
}

#[derive(Args, Clone)]
struct GenerateArguments {
    #[command(flatten)]
    common: Common,
    /// Sequences at a time.
    #[arg(long, default_value_t = 16)]
    batch: usize,
    /// Tokens of a prompt.
    #[arg(long, default_value_t = 64)]
    prompt: usize,
    /// Tokens of a completion.
    #[arg(long, default_value_t = 96)]
    new: usize,
    /// Repetitions.
    #[arg(long, default_value_t = 3)]
    repeats: usize,
}

#[derive(Args, Clone)]
struct TinyArguments {
    /// Steps.
    #[arg(long, default_value_t = 40)]
    steps: usize,
    /// Write the untrained model and the batches there, for tools/peers/tiny_decoder.py.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// `cpu`, `wgpu`, or `cuda` with `:n` for a further GPU.
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct PeerArguments {
    /// A Python that has the packages of tools/peers/requirements.txt.
    #[arg(long, value_name = "FILE")]
    python: PathBuf,
    /// The model, as a Hugging Face folder that both read.
    #[arg(long, value_name = "DIR")]
    model: String,
    /// Pairs for DPO.
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Rounds; in each, every program runs once.
    #[arg(long, default_value_t = 2)]
    rounds: usize,
    /// DPO steps a round.
    #[arg(long, default_value_t = 4)]
    steps: usize,
    /// Of PyTorch: float32 or bfloat16. Togi computes in float32.
    #[arg(long, default_value = "float32")]
    dtype: String,
    /// Train an adapter of this rank.
    #[arg(long, default_value_t = 0)]
    lora: usize,
}

#[derive(Serialize, Deserialize)]
struct StepTime {
    seconds: f64,
    loss: f64,
    grad_norm: f64,
}

#[derive(Serialize, Deserialize)]
struct DpoResult {
    steps: Vec<StepTime>,
    peak_bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct GenerateResult {
    tokens_per_second: Vec<f64>,
    peak_bytes: u64,
}

pub(crate) fn run(arguments: &BenchArguments) -> Result<()> {
    match &arguments.what {
        What::Dpo(arguments) => {
            let (result, tokens) = dpo(arguments)?;
            if arguments.common.json {
                println!("{}", serde_json::to_string(&result)?);
                return Ok(());
            }
            for (i, step) in result.steps.iter().enumerate() {
                println!(
                    "step {}: {:.2} s, loss {:.6}, gradient norm {:.4}",
                    i + 1,
                    step.seconds,
                    step.loss,
                    step.grad_norm
                );
            }
            let seconds: f64 = result.steps.iter().map(|s| s.seconds).sum();
            println!(
                "{:.0} tokens/s, peak memory {}",
                tokens as f64 / seconds,
                memory::human(result.peak_bytes)
            );
            Ok(())
        }
        What::Generate(arguments) => {
            let result = sample(arguments)?;
            if arguments.common.json {
                println!("{}", serde_json::to_string(&result)?);
            } else {
                println!(
                    "{:.1} tokens/s (median of {}), peak memory {}",
                    median(result.tokens_per_second.clone()),
                    arguments.repeats,
                    memory::human(result.peak_bytes)
                );
            }
            Ok(())
        }
        What::Tiny(arguments) => {
            let result = tiny(arguments)?;
            if arguments.json {
                println!("{}", serde_json::to_string(&result)?);
                return Ok(());
            }
            let seconds = median(result.steps.iter().map(|s| s.seconds).collect());
            println!(
                "{:.1} ms a step (median), {:.0} tokens/s, loss {:.4} to {:.4}, peak memory {}",
                1e3 * seconds,
                (TINY_BATCH * TINY_TOKENS) as f64 / seconds,
                result.steps.first().map_or(f64::NAN, |s| s.loss),
                result.steps.last().map_or(f64::NAN, |s| s.loss),
                memory::human(result.peak_bytes)
            );
            Ok(())
        }
        What::Peers(arguments) => peers(arguments),
        What::Algorithms(arguments) => bench_algorithms::run(arguments),
        What::Annotation(arguments) => bench_annotation::run(arguments),
    }
}

fn load(common: &Common) -> Result<Policy> {
    Ok(Source::parse(&common.model)?.load(&device::parse(&common.device)?, 0)?)
}

/// The first pairs that are short enough, in the order of the file.
fn pairs(arguments: &DpoArguments, tokenizer: &Tokenizer) -> Result<Vec<PairSample>> {
    let load = LoadOptions {
        bad_rows: BadRows::Skip,
        ..LoadOptions::default()
    };
    let options = TokenizeOptions {
        max_length: arguments.max_length,
        over_long: OverLong::Drop,
        loss_on: LossOn::Completion,
        hh: HhAs::Text,
    };
    let wanted = arguments.batch * arguments.steps;
    let mut pairs = Vec::with_capacity(wanted);
    for row in load_with(&arguments.data, &load)?.records {
        if pairs.len() == wanted {
            break;
        }
        pairs.extend(tokenize::pair(&row, tokenizer, &options)?);
    }
    if pairs.len() < wanted {
        let text = format!(
            "--data {}: has {} pairs of at most {} tokens, {wanted} are needed",
            arguments.data.display(),
            pairs.len(),
            arguments.max_length
        );
        return Err(InputError(text).into());
    }
    Ok(pairs)
}

fn dpo(arguments: &DpoArguments) -> Result<(DpoResult, usize)> {
    let mut policy = load(&arguments.common)?;
    let pairs = pairs(arguments, &policy.tokenizer)?;
    let settings = PreferenceConfig::default();
    let (objective, _) = Preference::new(&pairs, &[], &settings, &policy.decoder)?;
    if arguments.lora > 0 {
        let lora = LoraConfig {
            r: arguments.lora,
            alpha: 2.0 * arguments.lora as f64,
            ..LoraConfig::default()
        };
        policy.decoder.add_lora(lora, 0)?;
    }
    let optim = OptimSection {
        learning_rate: LEARNING_RATE,
        schedule: Schedule::Constant,
        ..OptimSection::default()
    };
    let decoder = &mut policy.decoder;
    let mut adam = AdamW::new(&decoder.params);
    let mut steps = Vec::with_capacity(arguments.steps);
    let _awake = ThreadsAwake::new();
    for step in 0..arguments.steps {
        let started = Instant::now();
        let batch: Vec<usize> = (step * arguments.batch..(step + 1) * arguments.batch).collect();
        let recompute = arguments.gradient_checkpointing;
        let weights = decoder.tracked().with_checkpointing(recompute);
        let (loss, row) = objective.loss(decoder, &weights, &batch, &(batch.len() as f64))?;
        let grads = decoder.gradients(&weights, loss)?;
        drop(weights);
        let grad_norm = adam.update(&mut decoder.params, grads, &optim, LEARNING_RATE);
        steps.push(StepTime {
            seconds: started.elapsed().as_secs_f64(),
            loss: row.get("loss").unwrap_or(f64::NAN),
            grad_norm,
        });
    }
    let tokens = pairs
        .iter()
        .map(|p| p.chosen.len() + p.rejected.len())
        .sum();
    let peak_bytes = memory::peak().unwrap_or(0);
    Ok((DpoResult { steps, peak_bytes }, tokens))
}

const LEARNING_RATE: f64 = 1e-5;

/// Sequences and tokens of a sequence in a step of [`tiny`].
const TINY_BATCH: usize = 32;
const TINY_TOKENS: usize = 64;

/// Four layers of width 128 over 512 tokens: 1.1 million parameters, next-token loss, AdamW.
fn tiny(arguments: &TinyArguments) -> Result<DpoResult> {
    let device = device::parse(&arguments.device)?;
    let Policy { decoder, tokenizer } = source::lab(&device, 0)?;
    let config = ModelConfig {
        vocab_size: 512,
        intermediate_size: 512,
        num_hidden_layers: 4,
        ..decoder.config
    };
    let params = Params::random(&config, Head::LanguageModel, 0, &device);
    let decoder = Decoder::new(config, params, device)?;
    let mut policy = Policy::new(decoder, tokenizer, "the small decoder")?;
    let mut rng = CounterRng::new(0, &[0x7469_6e79]);
    let batches: Vec<Vec<Vec<u32>>> = (0..4)
        .map(|_| {
            let ids =
                |rng: &mut CounterRng| (0..TINY_TOKENS).map(|_| rng.below(512) as u32).collect();
            (0..TINY_BATCH).map(|_| ids(&mut rng)).collect()
        })
        .collect();
    if let Some(folder) = &arguments.folder {
        hf::save(&policy, folder)?;
        let path = folder.join("batches.json");
        fs::write(&path, serde_json::to_vec(&batches)?)
            .with_context(|| path.display().to_string())?;
    }
    let optim = OptimSection {
        learning_rate: TINY_RATE,
        schedule: Schedule::Constant,
        ..OptimSection::default()
    };
    let train: Vec<Sample> = batches
        .iter()
        .flatten()
        .map(|ids| Sample::from_parts(&ids[..1], &ids[1..], &[]))
        .collect();
    let objective = Sft {
        train: &train,
        valid: &[],
    };
    let decoder = &mut policy.decoder;
    let mut adam = AdamW::new(&decoder.params);
    let mut steps = Vec::with_capacity(arguments.steps);
    let _awake = ThreadsAwake::new();
    for step in 0..arguments.steps {
        let started = Instant::now();
        let first = step % batches.len() * TINY_BATCH;
        let batch: Vec<usize> = (first..first + TINY_BATCH).collect();
        let weights = decoder.tracked();
        let scored = objective.begin(decoder, &batch)?;
        let (loss, row) = objective.loss(decoder, &weights, &batch, &scored)?;
        let grads = decoder.gradients(&weights, loss)?;
        drop(weights);
        let grad_norm = adam.update(&mut decoder.params, grads, &optim, TINY_RATE);
        steps.push(StepTime {
            seconds: started.elapsed().as_secs_f64(),
            loss: row.get("loss").unwrap_or(f64::NAN),
            grad_norm,
        });
    }
    let peak_bytes = memory::peak().unwrap_or(0);
    Ok(DpoResult { steps, peak_bytes })
}

const TINY_RATE: f64 = 1e-3;

/// Token ids that any model with a vocabulary of some thousands has.
fn random_prompts(count: usize, tokens: usize, vocabulary: usize) -> Vec<Vec<u32>> {
    let mut rng = CounterRng::new(0, &[0x6265_6e63]);
    let low = (vocabulary / 100).min(300);
    let ids = |rng: &mut CounterRng| (low + rng.below(vocabulary / 2 - low)) as u32;
    (0..count)
        .map(|_| (0..tokens).map(|_| ids(&mut rng)).collect())
        .collect()
}

fn sample(arguments: &GenerateArguments) -> Result<GenerateResult> {
    let mut policy = load(&arguments.common)?;
    let vocabulary = policy.decoder.config.vocab_size;
    let prompts = random_prompts(arguments.batch, arguments.prompt, vocabulary);
    let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    let weights = policy.decoder.into_sampling();
    let streams: Vec<u64> = (0..prompts.len() as u64).collect();
    let mut rates = Vec::with_capacity(arguments.repeats);
    let draw = |new: usize, seed: u64| {
        let sampling = Sampling {
            max_new_tokens: new,
            batch_size: arguments.batch,
            ..Sampling::default()
        };
        let decoder = &policy.decoder;
        generate(decoder, &weights, &prompts, &[], &sampling, seed, &streams)
    };
    draw(8.min(arguments.new), 0)?;
    for repeat in 0..arguments.repeats {
        let started = Instant::now();
        let drawn = draw(arguments.new, repeat as u64)?;
        let tokens: usize = drawn.iter().map(|d| d.ids.len()).sum();
        rates.push(tokens as f64 / started.elapsed().as_secs_f64());
    }
    Ok(GenerateResult {
        tokens_per_second: rates,
        peak_bytes: memory::peak().unwrap_or(0),
    })
}

/// The middle value; NaN without values.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Runs a program and reads the last line that it prints as JSON.
fn measured<T: for<'a> Deserialize<'a>>(command: &mut Command) -> Result<T> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| name.clone())?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let last = said.trim().lines().last().unwrap_or("");
        return Err(anyhow!("{name} failed ({}): {last}", output.status));
    }
    let printed = String::from_utf8_lossy(&output.stdout);
    let last = printed.trim().lines().last().unwrap_or("");
    serde_json::from_str(last).with_context(|| format!("{name} printed `{last}`"))
}

fn peers(arguments: &PeerArguments) -> Result<()> {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/peers");
    let threads = std::thread::available_parallelism()?.to_string();
    let folder = tempfile::tempdir()?;
    let dpo = DpoArguments {
        common: Common {
            model: arguments.model.clone(),
            device: "cpu".to_owned(),
            json: true,
        },
        data: arguments.data.clone(),
        batch: 4,
        steps: arguments.steps,
        max_length: 512,
        lora: arguments.lora,
        gradient_checkpointing: false,
    };
    let policy = load(&dpo.common)?;
    let vocabulary = policy.decoder.config.vocab_size;
    let rows = folder.path().join("pairs.jsonl");
    write_pairs(&dpo, &policy.tokenizer, &rows)?;
    let mut prompts = Vec::new();
    for batch in SAMPLED {
        let path = folder.path().join(format!("prompts-{batch}.json"));
        let ids = random_prompts(batch, 64, vocabulary);
        fs::write(&path, serde_json::to_vec(&ids)?)?;
        prompts.push(path);
    }
    drop(policy);
    let small = folder.path().join("small");

    let python = |script: &str| {
        let mut command = Command::new(&arguments.python);
        command.arg(scripts.join(script)).arg(&arguments.model);
        command
    };
    let ours = |what: &str| -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["bench", what, "--json", "--model", &arguments.model]);
        Ok(command)
    };
    let (mut their_dpo, mut our_dpo) = (Vec::new(), Vec::new());
    let (mut their_rate, mut our_rate) = (SAMPLED.map(|_| vec![]), SAMPLED.map(|_| vec![]));
    let (mut their_tiny, mut our_tiny) = (Vec::new(), Vec::new());
    for round in 1..=arguments.rounds {
        eprintln!("round {round} of {}", arguments.rounds);
        let steps = arguments.steps.to_string();
        let lora = arguments.lora.to_string();
        let rate = LEARNING_RATE.to_string();
        their_dpo.push(measured::<DpoResult>(
            python("trl_dpo.py").arg(&rows).args([
                "4",
                &steps,
                &rate,
                &arguments.dtype,
                &lora,
                &threads,
            ]),
        )?);
        our_dpo.push(measured::<DpoResult>(
            ours("dpo")?
                .arg("--data")
                .arg(&rows)
                .args(["--steps", &steps, "--lora", &lora]),
        )?);
        for (i, batch) in SAMPLED.into_iter().enumerate() {
            their_rate[i].push(measured::<GenerateResult>(
                python("hf_generate.py").arg(&prompts[i]).args([
                    "96",
                    &arguments.dtype,
                    &threads,
                    "3",
                ]),
            )?);
            our_rate[i].push(measured::<GenerateResult>(
                ours("generate")?.args(["--batch", &batch.to_string()]),
            )?);
        }
        our_tiny.push(measured::<DpoResult>(
            Command::new(std::env::current_exe()?)
                .args(["bench", "tiny", "--json", "--folder"])
                .arg(&small),
        )?);
        let steps = our_tiny[0].steps.len().to_string();
        their_tiny.push(measured::<DpoResult>(
            Command::new(&arguments.python)
                .arg(scripts.join("tiny_decoder.py"))
                .arg(&small)
                .args([&steps, &threads]),
        )?);
    }
    // An adapter's start is drawn, so only the first loss, where it changes nothing, can agree.
    let compared = if arguments.lora > 0 {
        1
    } else {
        arguments.steps
    };
    let first = |results: &[DpoResult]| -> Vec<f64> {
        results[0]
            .steps
            .iter()
            .take(compared)
            .map(|s| s.loss)
            .collect()
    };
    let off = first(&their_dpo).into_iter().zip(first(&our_dpo));
    let off = off.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    println!("largest difference of a step's loss: {off:.1e}");
    let tolerance = if arguments.dtype == "float32" {
        1e-3
    } else {
        0.05
    };
    if off > tolerance {
        return Err(anyhow!(
            "losses differ by {off:.1e}: the two do not do the same work"
        ));
    }
    let losses =
        |results: &[DpoResult]| -> Vec<f64> { results[0].steps.iter().map(|s| s.loss).collect() };
    let tiny_off = losses(&their_tiny).into_iter().zip(losses(&our_tiny));
    let tiny_off = tiny_off.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    println!("of the small decoder: {tiny_off:.1e}");
    if tiny_off > 1e-3 {
        return Err(anyhow!(
            "losses of the small decoder differ by {tiny_off:.1e}"
        ));
    }
    let seconds = |results: &[DpoResult]| {
        // The first step of each program warms it up.
        let all = results
            .iter()
            .flat_map(|r| &r.steps[1.min(r.steps.len() - 1)..]);
        let all: Vec<f64> = all.map(|s| s.seconds).collect();
        all.iter().sum::<f64>() / all.len() as f64
    };
    let rates = |results: &[GenerateResult]| {
        median(
            results
                .iter()
                .flat_map(|r| r.tokens_per_second.clone())
                .collect(),
        )
    };
    let peak = |all: Vec<u64>| all.into_iter().max().unwrap_or(0);
    let (theirs, ours) = (seconds(&their_dpo), seconds(&our_dpo));
    println!(
        "                       {:>12} {:>12}   ratio",
        "Python", "Togi"
    );
    println!(
        "DPO, seconds a step    {theirs:>12.2} {ours:>12.2}   {:.2}x",
        theirs / ours
    );
    let line = |name: &str, theirs: u64, ours: u64| {
        let ratio = ours as f64 / theirs as f64;
        let (theirs, ours) = (memory::human(theirs), memory::human(ours));
        println!("{name:<22} {theirs:>12} {ours:>12}   {ratio:.2}");
    };
    let of_dpo = |results: &[DpoResult]| peak(results.iter().map(|r| r.peak_bytes).collect());
    line("DPO, peak memory", of_dpo(&their_dpo), of_dpo(&our_dpo));
    let of_rate = |results: &[GenerateResult]| peak(results.iter().map(|r| r.peak_bytes).collect());
    for (i, batch) in SAMPLED.into_iter().enumerate() {
        let (theirs, ours) = (rates(&their_rate[i]), rates(&our_rate[i]));
        let name = format!("batch {batch}, tokens/s");
        let ratio = ours / theirs;
        println!("{name:<22} {theirs:>12.1} {ours:>12.1}   {ratio:.2}x");
        let name = format!("batch {batch}, peak memory");
        line(&name, of_rate(&their_rate[i]), of_rate(&our_rate[i]));
    }
    let step = |results: &[DpoResult]| {
        let all = results.iter().flat_map(|r| &r.steps);
        1e3 * median(all.map(|s| s.seconds).collect())
    };
    let (theirs, ours) = (step(&their_tiny), step(&our_tiny));
    println!(
        "small decoder, ms/step {theirs:>12.1} {ours:>12.1}   {:.2}x",
        theirs / ours
    );
    line("its peak memory", of_dpo(&their_tiny), of_dpo(&our_tiny));
    Ok(())
}

/// Sequences at a time in the comparison of sampling.
const SAMPLED: [usize; 2] = [1, 16];

/// Writes the pairs that are used as text, for both programs.
fn write_pairs(arguments: &DpoArguments, tokenizer: &Tokenizer, path: &Path) -> Result<()> {
    let eos = tokenizer.eos_token().unwrap_or_default();
    let mut text = String::new();
    for pair in pairs(arguments, tokenizer)? {
        let split = |sample: &togi_data::Sample| {
            let at = sample.scored().next().unwrap_or(sample.len());
            let answer = tokenizer.decode_all(&sample.ids[at..]);
            let answer = answer.strip_suffix(&eos).unwrap_or(&answer).to_owned();
            (tokenizer.decode_all(&sample.ids[..at]), answer)
        };
        let (prompt, chosen) = split(&pair.chosen);
        let (_, rejected) = split(&pair.rejected);
        let row = serde_json::json!({"prompt": prompt, "chosen": chosen, "rejected": rejected});
        text.push_str(&format!("{row}\n"));
    }
    fs::write(path, text).with_context(|| path.display().to_string())
}
