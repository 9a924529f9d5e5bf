//! A run of `cargo xtask train` that is set up: its folder, device, and who is told; what it starts from
//! and what it leaves.

use std::{fs, time::Instant};

use anyhow::{Context, Result};
use burn::tensor::Device;
use togi_data::{
    DataError, Located, LossOn, PairSample, PromptSample, TokenizeOptions, Tokenizer, tokenize,
};
use togi_eval::{
    bootstrap::{Interval, share_interval},
    comparison::plain,
    report::Report,
};
use togi_kernels::is_cpu;
use togi_policy::{Decoder, Policy, adapter, hf, source::Source};
use togi_reward::Reward;
use togi_train::{
    Event, Observer, Row, RunFolder,
    arena::{Arena, Compared, lab_prompts},
    config::{DataSection, LoopSection, OptimSection},
    data::{DataSource, LabRows, Samples, samples},
    lab_defaults,
    memory::{self, OfStage, Watch, Watching},
    offline::{self, Objective, Stage},
    preference::{Preference, PreferenceConfig},
    stages::{self, Stages},
};

use crate::{progress::Bars, recipe::Recipe, scorer::Scorers, train::TrainArguments};

/// A run that is set up: folder, device, and who is told.
pub(crate) struct Session {
    pub(crate) recipe: String,
    pub(crate) run: RunFolder,
    pub(crate) config: String,
    pub(crate) device: Device,
    pub(crate) bars: Bars,
    pub(crate) started: Instant,
    /// What the run may use of memory.
    pub(crate) watch: Watch,
}

impl Session {
    /// The model that training starts from. The lab's is one that has learnt to answer: it is trained
    /// first, in stages of this run. SFT starts from the lab's base model.
    pub(crate) fn start(&mut self, arguments: &TrainArguments, seed: u64) -> Result<Policy> {
        if Source::parse(&arguments.model)? != Source::Lab {
            return arguments.load(&self.device, seed);
        }
        // The user has no settings of these.
        let mut stages = self.stages(Watching::No);
        if arguments.recipe == Recipe::Sft {
            return Ok(stages::lab_base(&mut stages, &lab_defaults::base(), seed)?);
        }
        Ok(stages::lab_sft(&mut stages, seed)?)
    }

    /// Where the stages of this run work.
    pub(crate) fn stages(&mut self, watching: Watching) -> Stages<'_> {
        Stages {
            run: &self.run,
            device: &self.device,
            observer: &mut self.bars,
            watching,
        }
    }

    /// Reads or makes a recipe's samples, and says what was read.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn read<T>(
        &mut self,
        source: &DataSource,
        rows: LabRows,
        section: &DataSection,
        loss_on: LossOn,
        policy: &Policy,
        seed: u64,
        tokenize: impl Fn(&Located, &Tokenizer, &TokenizeOptions) -> Result<Option<T>, DataError>,
    ) -> Result<Samples<T>> {
        let (tokenizer, options) = (&policy.tokenizer, section.options(loss_on));
        let data = samples(source, rows, section, seed, tokenizer, &options, tokenize)?;
        self.bars.on(Event::Message(&data.summary));
        Ok(data)
    }

    /// Reads or makes the prompts of a recipe that draws its own answers.
    pub(crate) fn prompts(
        &mut self,
        source: &DataSource,
        section: &DataSection,
        policy: &Policy,
        seed: u64,
    ) -> Result<Samples<PromptSample>> {
        let (rows, on) = (LabRows::Prompts, LossOn::Completion);
        self.read(source, rows, section, on, policy, seed, tokenize::prompt)
    }

    /// The objective of preference training, and what there is to say of the values on disk.
    pub(crate) fn preference<'a>(
        &mut self,
        train: &'a [PairSample],
        valid: &'a [PairSample],
        settings: &PreferenceConfig,
        reference: &Decoder,
    ) -> Result<Preference<'a>> {
        let (objective, note) = Preference::new(train, valid, settings, reference)?;
        if let Some(note) = note {
            self.bars.on(Event::Message(&note));
        }
        Ok(objective)
    }

    /// Loads what scores, within what the run may use of memory: as `asks` with so many numbers in the models that score.
    pub(crate) fn scorers(
        &mut self,
        arguments: &TrainArguments,
        policy: &Policy,
        seed: u64,
        asks: impl Fn(usize) -> OfStage,
    ) -> Result<Scorers> {
        self.watch_over(&asks(arguments.reward_parameters(policy)), arguments)?;
        let device = self.device.clone();
        let load = || arguments.scorer.load(&policy.tokenizer, &device, seed);
        let mut stage = self.stage(seed);
        let models = stage.within_memory(stage.name, |_| Ok(load()))??;
        // Now their size is known.
        self.watches(&asks(models.parameters()), arguments)?;
        Ok(models)
    }

    /// Sets what the run may use of memory; tells if that is less than it will need.
    pub(crate) fn watches(&mut self, asked: &OfStage, arguments: &TrainArguments) -> Result<()> {
        self.watch_over(asked, arguments)?;
        if let Some(text) = self.watch.warning(&self.recipe) {
            self.bars.on(Event::Message(&text));
        }
        Ok(())
    }

    /// The same, and tells nothing: it was told, or is going to be known better.
    pub(crate) fn watch_over(&mut self, asked: &OfStage, arguments: &TrainArguments) -> Result<()> {
        let limit = arguments.memory.limit()?;
        self.watch = Watch::new(&asked.demand, &asked.keys, &self.device, limit);
        Ok(())
    }

    pub(crate) fn stage(&mut self, seed: u64) -> Stage<'_> {
        Stage {
            name: &self.recipe,
            run: &self.run,
            seed,
            observer: &mut self.bars,
            watch: self.watch.clone(),
        }
    }

    pub(crate) fn learn(
        &mut self,
        policy: &mut Policy,
        objective: &mut impl Objective,
        optim: &OptimSection,
        train: &LoopSection,
        seed: u64,
    ) -> Result<Option<Row>> {
        let mut stage = self.stage(seed);
        let decoder = &mut policy.decoder;
        Ok(offline::train(
            &mut stage, decoder, objective, optim, train,
        )?)
    }

    /// Saves the model, or its adapter alone, which names the model it belongs to. A base that is in
    /// no file of its own is saved beside it.
    pub(crate) fn save(
        &self,
        policy: &Policy,
        arguments: &TrainArguments,
        seed: u64,
    ) -> Result<()> {
        if policy.decoder.lora.is_none() {
            return Ok(hf::save(policy, &self.run.model())?);
        }
        let source = Source::parse(&arguments.model)?;
        if let Source::Gguf(path) = &source {
            eprintln!(
                "The adapter belongs to {}. PEFT needs that model as a folder: `cargo xtask export \
                 {} --out DIR`, and DIR as base_model_name_or_path in adapter_config.json.",
                path.display(),
                arguments.model
            );
        }
        let base = match source.base_name() {
            Some(name) => name,
            None if source == Source::Lab => {
                let stage = match arguments.recipe {
                    Recipe::Sft => "base",
                    _ => "sft",
                };
                let folder = self.run.path().join("stages").join(stage);
                std::path::absolute(folder)?.display().to_string()
            }
            None => {
                let folder = std::path::absolute(self.run.path().join("base"))?;
                hf::save(&arguments.load(&self.device, seed)?, &folder)?;
                folder.display().to_string()
            }
        };
        Ok(adapter::save(policy, &base, &self.run.model())?)
    }

    /// Saves the model and the report. On the lab the model is compared with the one that it started
    /// from, if that is given (with the reward that it was tuned to, if that was a reward).
    pub(crate) fn finish_run(
        self,
        policy: &Policy,
        start: Option<(&Policy, Option<&dyn Reward>)>,
        last: Option<Row>,
        arguments: &TrainArguments,
        seed: u64,
    ) -> Result<()> {
        self.save(policy, arguments, seed)?;
        let mut summary = last.map_or(Ok(String::new()), |row| summary(&row))?;
        let title = format!("train {}", self.recipe);
        let (mut comparison, mut samples) = (None, Vec::new());
        if let Some((start, proxy)) = start.filter(|_| arguments.on_lab() && arguments.compare > 0)
        {
            // A recipe without a reward can be compared by one too.
            let scorer = &arguments.scorer;
            let given = if proxy.is_none() && !scorer.is_lab() {
                let models = scorer.load(&policy.tokenizer, &self.device, seed)?;
                Some(scorer.combined(models, 64))
            } else {
                None
            };
            let proxy = proxy.or(given.as_deref());
            let models = [("start", start), (&*self.recipe, policy)];
            let Compared {
                comparison: compared,
                samples: answers,
                ..
            } = compare(models, proxy, arguments.compare, seed)?;
            samples = answers;
            let path = self.run.path().join("comparison.json");
            fs::write(&path, serde_json::to_vec(&compared)?)
                .with_context(|| path.display().to_string())?;
            println!("\n{}", plain(&compared.table()?));
            let gain = compared.difference("gold reward", &self.recipe, "start")?;
            summary = format!(
                "{}'s gold reward is {:+.3} over that of the model it started from (95% interval \
                 {:+.3} to {:+.3}, paired over {} prompts).{}{summary}",
                self.recipe,
                gain.value,
                gain.low,
                gain.high,
                compared.prompts.len(),
                if summary.is_empty() { "" } else { "\n" },
            );
            comparison = Some(compared);
        }
        self.finish(Report {
            title,
            summary,
            comparison,
            samples,
            ..Report::default()
        })
    }

    pub(crate) fn finish(self, report: Report) -> Result<()> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let system = format!("{} {}", std::env::consts::OS, std::env::consts::ARCH);
        let report = Report {
            metrics: self.run.read_lines("metrics.jsonl")?,
            alarms: self.run.read_lines("alarms.jsonl")?,
            config: self.config,
            environment: vec![
                ("Togi".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
                ("System".to_owned(), system),
                ("Threads".to_owned(), threads.to_string()),
            ],
            ..report
        };
        let path = self.run.path().join("report.html");
        fs::write(&path, report.html()?).with_context(|| path.display().to_string())?;
        let whose = if is_cpu(&self.device) {
            ""
        } else {
            " of the device"
        };
        let estimate = self.watch.estimate().map_or(String::new(), |bytes| {
            format!(" (estimated: {})", memory::human(bytes))
        });
        let memory = memory::peak_of(&self.device).map_or(String::new(), |bytes| {
            format!("  Peak memory{whose}: {}{estimate}", memory::human(bytes))
        });
        if !report.summary.is_empty() {
            println!("{}", report.summary);
        }
        println!(
            "Model: {}\nReport: {}\nTime: {:.0} s{memory}",
            self.run.model().display(),
            path.display(),
            self.started.elapsed().as_secs_f64()
        );
        Ok(())
    }
}

/// Models side by side on held-out prompts of the lab; the first is what the KL is measured from.
fn compare(
    models: [(&str, &Policy); 2],
    proxy: Option<&dyn Reward>,
    count: usize,
    seed: u64,
) -> Result<Compared> {
    let (_, start) = models[0];
    let prompts = lab_prompts(&start.tokenizer, count, seed)?;
    let arena = Arena {
        prompts: &prompts,
        reference: &start.decoder,
        proxy,
        gold: true,
        sampling: &lab_defaults::sampling(),
        seed,
    };
    Ok(arena.compare(&models)?)
}

/// The last held-out metrics, accuracies with their interval.
fn summary(row: &Row) -> Result<String> {
    let mut shown = Vec::new();
    for (name, value) in row.iter().filter(|(name, _)| *name != "val/samples") {
        let mut text = format!("{name} {value:.4}");
        if let (true, Some(count)) = (name.ends_with("accuracies"), row.get("val/samples")) {
            let Interval { low, high, .. } = share_interval(name, value, count as usize)?;
            text.push_str(&format!(
                " (95% interval {low:.3} to {high:.3}, {count} pairs)"
            ));
        }
        shown.push(text);
    }
    Ok(shown.join(", "))
}
