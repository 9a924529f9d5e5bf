//! `cargo xtask inspect <recipe>`: what a recipe would train on, and with what. It trains nothing.

use anyhow::Result;
use burn::tensor::Device;
use clap::Args;
use console::{Style, measure_text_width};
use togi_data::{
    BadRows, DataError, LabelledSample, Located, LossOn, OverLong, PairSample, PromptSample,
    RankedSample, RatedSample, Role, Sample, StepSample, TokenizeOptions, Tokenizer,
    lab::Writer,
    stats::{Lengths, Measured},
    tokenize,
};
use togi_policy::Policy;
use togi_train::{
    config::{DataSection, RecipeConfig, to_toml},
    data::{DataSource, LabRows, Rows, rows},
    memory::{
        self, Available, Demand, Extent, Keys, OfStage, PromptSizes, RlhfSizes, Sizes, available,
        human,
    },
    online::{OnlineAlgorithm, OnlineConfig},
    ppo::ValueInit,
    reward::{RewardConfig, RewardLoss},
};

use crate::{
    device,
    recipe::{OnlineVisitor, Recipe, preference_defaults},
    train::TrainArguments,
};

#[derive(Args)]
pub(crate) struct InspectArguments {
    #[command(flatten)]
    train: TrainArguments,
    /// Samples that are shown.
    #[arg(long, default_value_t = 3)]
    samples: usize,
    /// Over-long and unusable rows that are listed.
    #[arg(long, default_value_t = 5)]
    listed: usize,
}

/// What of a sample goes through the model.
trait Shown: Measured + Extent {
    /// The sequences, with a name each.
    fn sides(&self) -> Vec<(&'static str, Sample)>;

    /// What goes through the model: of each sample that the row makes.
    fn sizes(&self) -> Sizes {
        vec![self.extent()]
    }
}

impl Shown for Sample {
    fn sides(&self) -> Vec<(&'static str, Sample)> {
        vec![("", self.clone())]
    }
}

impl Shown for PairSample {
    fn sides(&self) -> Vec<(&'static str, Sample)> {
        vec![
            ("chosen", self.chosen.clone()),
            ("rejected", self.rejected.clone()),
        ]
    }
}

impl Shown for Vec<LabelledSample> {
    fn sides(&self) -> Vec<(&'static str, Sample)> {
        let name = |wanted| if wanted { "label true" } else { "label false" };
        self.iter()
            .map(|labelled| (name(labelled.desirable), labelled.sample.clone()))
            .collect()
    }

    fn sizes(&self) -> Sizes {
        memory::sizes(self)
    }
}

impl Shown for RankedSample {
    fn sides(&self) -> Vec<(&'static str, Sample)> {
        let named = |(i, answer): (usize, &Sample)| {
            let name = if i == 0 { "best" } else { "next" };
            (name, answer.clone())
        };
        self.answers.iter().enumerate().map(named).collect()
    }
}

impl Shown for RatedSample {
    fn sides(&self) -> Vec<(&'static str, Sample)> {
        vec![("", self.sample.clone())]
    }
}

impl Shown for StepSample {
    fn sides(&self) -> Vec<(&'static str, Sample)> {
        vec![("", self.sample.clone())]
    }
}

impl Shown for PromptSample {
    fn sides(&self) -> Vec<(&'static str, Sample)> {
        vec![("", Sample::from_parts(&self.ids, &[], &[]))]
    }
}

/// The function of [`tokenize`] that makes a recipe's samples.
type Tokenize<T> = fn(&Located, &Tokenizer, &TokenizeOptions) -> Result<Option<T>, DataError>;

pub(crate) fn run(arguments: &InspectArguments) -> Result<()> {
    let device = device::parse(&arguments.train.device)?;
    let train = &arguments.train;
    let on_lab = train.on_lab();
    if let Some(done) = train.recipe.online(on_lab, Online(arguments, &device)) {
        return done;
    }
    match train.recipe {
        Recipe::Sft => {
            let config = train.sft_config()?;
            let mut policy = heading(train, &config, &device, config.seed)?;
            let plain = policy.decoder.clone();
            add_lora(&mut policy, config.lora.as_ref(), config.seed)?;
            let rows = LabRows::Answers(Writer::demonstrator());
            let batches = arguments.look(
                &policy,
                rows,
                &config.data,
                config.loss_on,
                config.seed,
                tokenize::sft,
            )?;
            let demand = Demand::sft(&config, &plain, batches);
            arguments.memory(&demand, &device)?;
        }
        Recipe::Reward => {
            let config = train.reward_config()?;
            let mut policy = heading(train, &config, &device, config.seed)?;
            policy.decoder = policy.decoder.with_score_head(Some(config.seed))?;
            let plain = policy.decoder.clone();
            add_lora(&mut policy, config.lora.as_ref(), config.seed)?;
            let batches = arguments.look_reward(&policy, &config, config.seed)?;
            arguments.memory(&Demand::reward(&config, &plain, batches), &device)?;
        }
        Recipe::Kto => {
            let config = train.kto_config()?;
            let mut policy = heading(train, &config, &device, config.seed)?;
            let plain = policy.decoder.clone();
            add_lora(&mut policy, config.lora.as_ref(), config.seed)?;
            let rows = LabRows::Preferences(config.annotators);
            let batches = arguments.look(
                &policy,
                rows,
                &config.data,
                LossOn::Completion,
                config.seed,
                tokenize::labelled,
            )?;
            arguments.memory(&Demand::kto(&config, &plain, batches), &device)?;
        }
        Recipe::Ppo => {
            let config = train.ppo_config()?;
            let policy = heading(train, &config, &device, config.seed)?;
            let batches = arguments.look_prompts(&policy, &config.data, config.seed)?;
            let rewards = train.reward_parameters(&policy);
            if rewards == 0 && config.value_init == ValueInit::RewardModel {
                println!("\nwithout a reward model, the value model starts from the policy");
            }
            let demand = Demand::ppo(&config, &policy.decoder, rewards, &batches);
            arguments.memory(&demand, &device)?;
        }
        Recipe::Rso => {
            let config = train.rso_config()?;
            let settings = &config.preference;
            let mut policy = heading(train, &config, &device, settings.seed)?;
            let plain = policy.decoder.clone();
            add_lora(&mut policy, settings.lora.as_ref(), settings.seed)?;
            let prompts = arguments.look_prompts(&policy, &settings.data, settings.seed)?;
            let rewards = train.reward_parameters(&policy);
            let stage = OfStage::rso(&config, &plain, rewards, &prompts.train);
            arguments.memory_of_stages(&[stage], &device)?;
        }
        Recipe::Rlaif => {
            let config = train.rlaif_config()?;
            let (policy, seed) = (heading(train, &config, &device, config.seed)?, config.seed);
            let prompts = arguments.look_prompts(&policy, config.learn.data(), seed)?;
            let judge = train.judge_parameters(&policy);
            let stage = OfStage::rlaif(&config, &policy.decoder, judge, &prompts.train)?;
            arguments.memory_of_stages(&[stage], &device)?;
        }
        Recipe::Cai => {
            let config = train.cai_config()?;
            let (policy, seed) = (heading(train, &config, &device, config.seed)?, config.seed);
            let prompts = arguments.look_prompts(&policy, &config.preference.data, seed)?;
            let stages = train.cai_stages(&config, &policy, &prompts.train);
            arguments.memory_of_stages(&stages, &device)?;
        }
        Recipe::Rlhf => {
            let config = train.rlhf_config()?;
            let policy = heading(train, &config, &device, config.seed)?;
            let [_, sft, reward, ppo] = config.data_seeds(&train.source()?);
            println!("\n{}", title("sft: answers"));
            let written = LabRows::Answers(Writer::demonstrator());
            let (section, on) = (&config.sft.data, config.sft.loss_on);
            let sft = arguments.look(&policy, written, section, on, sft, tokenize::sft)?;
            println!("\n{}", title("reward: comparisons"));
            let reward = arguments.look_reward(&policy, &config.reward, reward)?;
            println!("\n{}", title("ppo: prompts"));
            let ppo = arguments.look_prompts(&policy, &config.ppo.data, ppo)?;
            let sizes = RlhfSizes {
                base: train.base_sizes(&config, &policy)?,
                sft,
                reward,
                ppo,
            };
            let stages = OfStage::rlhf(&config, &policy.decoder, sizes)?;
            arguments.memory_of_stages(&stages, &device)?;
        }
        recipe => {
            let config = train.preference_config(&preference_defaults(recipe, on_lab))?;
            let mut policy = heading(train, &config, &device, config.seed)?;
            let plain = policy.decoder.clone();
            add_lora(&mut policy, config.lora.as_ref(), config.seed)?;
            let rows = LabRows::Preferences(config.annotators);
            let batches = arguments.look(
                &policy,
                rows,
                &config.data,
                LossOn::Completion,
                config.seed,
                tokenize::pair,
            )?;
            let demand = Demand::preference(&config, &plain, batches);
            arguments.memory(&demand, &device)?;
        }
    }
    Ok(())
}

fn title(text: &str) -> String {
    Style::new().bold().apply_to(text).to_string()
}

/// Prints the configuration and loads the model.
fn heading<C: RecipeConfig>(
    train: &TrainArguments,
    config: &C,
    device: &Device,
    seed: u64,
) -> Result<Policy> {
    println!("{}", title("Configuration"));
    println!("{}", to_toml(config)?.trim_end());
    let policy = train.load(device, seed)?;
    let (all, _) = policy.decoder.params.count();
    println!("\n{}", title("Model"));
    println!(
        "{}: {:?}, {} layers of width {}, vocabulary {}, {:.1} million parameters",
        train.model,
        policy.decoder.config.family,
        policy.decoder.config.num_hidden_layers,
        policy.decoder.config.hidden_size,
        policy.decoder.config.vocab_size,
        all as f64 / 1e6
    );
    Ok(policy)
}

fn add_lora(policy: &mut Policy, lora: Option<&togi_policy::LoraConfig>, seed: u64) -> Result<()> {
    if let Some(lora) = lora {
        policy.decoder.add_lora(lora.clone(), seed)?;
        let (all, trainable) = policy.decoder.params.count();
        println!(
            "adapter of rank {} on {}: {:.2} million of {:.1} million parameters are trained",
            lora.r,
            lora.target_modules.join(", "),
            trainable as f64 / 1e6,
            all as f64 / 1e6
        );
    }
    Ok(())
}

/// Looks at an online recipe.
struct Online<'a>(&'a InspectArguments, &'a Device);

impl OnlineVisitor for Online<'_> {
    fn visit<A: OnlineAlgorithm>(self, defaults: OnlineConfig<A>) -> Result<()> {
        self.0.online(self.1, &defaults)
    }
}

impl InspectArguments {
    fn online<A: OnlineAlgorithm>(
        &self,
        device: &Device,
        defaults: &OnlineConfig<A>,
    ) -> Result<()> {
        let config = self.train.online_config(defaults)?;
        let policy = heading(&self.train, &config, device, config.seed)?;
        let sizes = self.look_prompts(&policy, &config.data, config.seed)?;
        let rewards = self.train.reward_parameters(&policy);
        let demand = Demand::online(&config, &policy.decoder, rewards, &sizes);
        self.memory(&demand, device)?;
        Ok(())
    }

    /// Shows prompts.
    fn look_prompts(
        &self,
        policy: &Policy,
        section: &DataSection,
        seed: u64,
    ) -> Result<PromptSizes> {
        let (rows, on) = (LabRows::Prompts, LossOn::Completion);
        let (train, held_out) =
            self.look_at_both(policy, rows, section, on, seed, tokenize::prompt)?;
        Ok(PromptSizes { train, held_out })
    }

    /// Shows what a reward model learns from.
    fn look_reward(&self, policy: &Policy, config: &RewardConfig, seed: u64) -> Result<Sizes> {
        let (rows, section, on) = (config.lab_rows(), &config.data, LossOn::Completion);
        match config.loss {
            RewardLoss::BradleyTerry { .. } | RewardLoss::SoftLabels { .. } => {
                self.look(policy, rows, section, on, seed, tokenize::pair)
            }
            RewardLoss::Ties { .. } | RewardLoss::PlackettLuce | RewardLoss::AllPairs => {
                self.look(policy, rows, section, on, seed, tokenize::ranking)
            }
            RewardLoss::Regression => self.look(policy, rows, section, on, seed, tokenize::rated),
            RewardLoss::Steps => self.look(policy, rows, section, on, seed, tokenize::steps),
        }
    }

    /// Shows samples and lengths.
    fn look<T: Shown>(
        &self,
        policy: &Policy,
        wanted: LabRows,
        section: &DataSection,
        loss_on: LossOn,
        seed: u64,
        tokenize: Tokenize<T>,
    ) -> Result<Sizes> {
        let both = self.look_at_both(policy, wanted, section, loss_on, seed, tokenize)?;
        Ok(both.0)
    }

    /// The same, and says how many are held out.
    fn look_at_both<T: Shown>(
        &self,
        policy: &Policy,
        wanted: LabRows,
        section: &DataSection,
        loss_on: LossOn,
        seed: u64,
        tokenize: Tokenize<T>,
    ) -> Result<(Sizes, usize)> {
        let source: DataSource = self.train.source()?;
        let options = section.options(loss_on);
        // Rows that cannot be used are all named here, whatever training does about them.
        let mut lenient = section.clone();
        if source != DataSource::Lab {
            lenient.bad_rows = BadRows::Skip;
        }
        let Rows {
            train,
            valid,
            layout,
            skipped: mut bad,
        } = rows(&source, wanted, &lenient, seed)?;
        let tokenizer = &policy.tokenizer;
        println!("\n{}", title("Data"));
        println!(
            "layout: {layout}; {} rows to train on, {} held out",
            train.len(),
            valid.len()
        );
        let unlimited = TokenizeOptions {
            max_length: usize::MAX,
            ..options
        };
        let mut cut = options;
        if cut.over_long == OverLong::Error {
            cut.over_long = OverLong::Truncate;
        }
        let mut sizes = Vec::with_capacity(train.len());
        let mut shown = 0;
        let mut good = Vec::with_capacity(train.len());
        for row in train {
            let sample = match tokenize(&row, tokenizer, &unlimited) {
                Ok(Some(sample)) => sample,
                Ok(None) => continue,
                Err(DataError::Row { place, reason }) => {
                    bad.push(format!("{place}: {reason}"));
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            if shown < self.samples {
                shown += 1;
                show(&row.place, &sample, tokenizer);
            }
            if let Some(sample) = tokenize(&row, tokenizer, &cut)? {
                sizes.extend(sample.sizes());
            }
            good.push(row);
        }
        if !bad.is_empty() {
            let what = match section.bad_rows {
                BadRows::Error => "training refuses them; --set data.bad_rows=skip leaves them out",
                BadRows::Skip => "they are left out",
            };
            println!("\n{} rows cannot be used; {what}:", bad.len());
            self.list(&bad);
        }
        let lengths = Lengths::measure(&good, tokenizer, &options, tokenize)?;
        self.histogram(&lengths, section);
        Ok((sizes, valid.len()))
    }

    fn histogram(&self, lengths: &Lengths, section: &DataSection) {
        println!(
            "\n{}",
            title("Lengths in tokens (of a pair, the longer side)")
        );
        let (q, all) = (|x| lengths.quantile(x), lengths.tokens.len());
        println!(
            "shortest {}, median {}, 90% {}, longest {}, together {}",
            q(0.0),
            q(0.5),
            q(0.9),
            q(1.0),
            lengths.total()
        );
        let bins = lengths.histogram(12);
        let most = bins.iter().map(|bin| bin.count).max().unwrap_or(1).max(1);
        for bin in bins {
            let over = bin.from > section.max_length;
            let bar = "█".repeat((bin.count * 40).div_ceil(most));
            let bar = if over {
                Style::new().red()
            } else {
                Style::new().cyan()
            }
            .apply_to(bar);
            println!("{:>6} - {:<6} {:>7} {bar}", bin.from, bin.to, bin.count);
        }
        let what = match section.over_long {
            togi_data::OverLong::Error => "they are an error (data.over_long = \"error\")",
            togi_data::OverLong::Drop => "they are left out",
            togi_data::OverLong::Truncate => "they are cut",
        };
        let count = lengths.over_long.len();
        if count == 0 {
            println!(
                "none is longer than data.max_length = {}",
                section.max_length
            );
            return;
        }
        println!(
            "{count} of {all} are longer than data.max_length = {}; {what}:",
            section.max_length
        );
        let over_long = lengths.over_long.iter();
        let named: Vec<String> = over_long
            .map(|(place, tokens)| format!("{place}: {tokens} tokens"))
            .collect();
        self.list(&named);
    }

    fn list(&self, rows: &[String]) {
        for row in rows.iter().take(self.listed) {
            println!("  {row}");
        }
        if rows.len() > self.listed {
            println!(
                "  and {} more (--listed N lists more)",
                rows.len() - self.listed
            );
        }
    }
}

/// Prints a sample's tokens, a line for each run of tokens of one role and weight.
fn show(place: &str, sample: &impl Shown, tokenizer: &Tokenizer) {
    for (side, sample) in sample.sides() {
        println!();
        let scored = sample.scored().count();
        let name = if side.is_empty() {
            String::new()
        } else {
            format!(" {side}")
        };
        println!("{place}{name}: {} tokens, {scored} scored", sample.len());
        let mut start = 0;
        while start < sample.len() {
            let kind = |i: usize| (sample.roles[i], sample.weights[i]);
            let end = (start..sample.len())
                .find(|i| kind(*i) != kind(start))
                .unwrap_or(sample.len());
            let (role, weight) = kind(start);
            let tokens = sample.ids[start..end]
                .iter()
                .map(|id| tokenizer.decode_all(&[*id]).replace('\n', "⏎"));
            print_run(role, weight, tokens);
            start = end;
        }
    }
}

/// Tokens of one role and weight, wrapped, with the border of tokens marked.
fn print_run(role: Role, weight: f32, tokens: impl Iterator<Item = String>) {
    const WIDTH: usize = 96;
    let (name, style) = match role {
        Role::System => ("system", Style::new().blue()),
        Role::Prompt => ("prompt", Style::new().cyan()),
        Role::Completion => ("completion", Style::new().green()),
        Role::Observation => ("observation", Style::new().magenta()),
        Role::Eos => ("eos", Style::new().yellow().bold()),
    };
    let border = Style::new().dim().apply_to("|").to_string();
    let mut line = String::new();
    let mut width = 0;
    let mut first = true;
    let mut flush = |line: &mut String| {
        if first {
            println!("  {:<11} x{weight:<4} {line}", name);
        } else {
            println!("  {:<17} {line}", "");
        }
        first = false;
        line.clear();
    };
    for token in tokens {
        let wide = measure_text_width(&token) + 1;
        if width + wide > WIDTH && width > 0 {
            flush(&mut line);
            width = 0;
        }
        line.push_str(&style.apply_to(&token).to_string());
        line.push_str(&border);
        width += wide;
    }
    if width > 0 {
        flush(&mut line);
    }
}

impl InspectArguments {
    /// The estimate of a recipe of one stage.
    fn memory(&self, demand: &Demand, device: &Device) -> Result<()> {
        println!("\n{}", title("Memory (estimate)"));
        self.estimate(demand, &self.train.keys(), device)
    }

    /// The estimates of the stages, and the largest in detail.
    fn memory_of_stages(&self, stages: &[OfStage], device: &Device) -> Result<()> {
        let total = |stage: &&OfStage| stage.demand.estimate().total();
        let Some(largest) = stages.iter().max_by_key(total) else {
            return Ok(());
        };
        if stages.len() > 1 {
            println!("\n{}", title("Memory by stage (estimate)"));
            for stage in stages {
                println!("  {:<24} {:>9}", stage.name, human(total(&stage)));
            }
        }
        let text = match stages.len() {
            1 => "Memory (estimate)".to_owned(),
            _ => format!("Memory of the largest stage, {} (estimate)", largest.name),
        };
        println!("\n{}", title(&text));
        self.estimate(&largest.demand, &largest.keys, device)
    }

    /// Prints the estimate, what there is, and what would help where it is not enough.
    fn estimate(&self, demand: &Demand, keys: &Keys, device: &Device) -> Result<()> {
        let (tokens, ..) = demand.largest();
        let estimate = demand.estimate();
        for (name, bytes) in estimate.parts() {
            println!("  {name:<24} {:>9}", human(bytes));
        }
        println!(
            "  {:<24} {:>9}  (micro-batches of {}, at most {tokens} tokens)",
            "together",
            human(estimate.total()),
            demand.micro.min(demand.batch),
        );
        match available(device, self.train.memory.limit()?) {
            Available::Known(bytes, from) => {
                println!("  {:<24} {:>9}  ({from})", "available", human(bytes));
                if estimate.total() > bytes {
                    println!(
                        "that is not enough; what would help most, with the estimate of each:"
                    );
                    for setting in demand.advice(keys) {
                        println!("  {setting}");
                    }
                }
            }
            Available::Unknown(reason) => {
                println!("  available                  unknown: {reason}")
            }
        }
        Ok(())
    }
}
