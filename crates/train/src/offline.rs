//! The loop of the recipes that learn from a fixed set of samples: SFT, reward models, preference
//! optimisation. What they differ in is an [`Objective`].

use std::time::Instant;

use burn::tensor::Tensor;
use serde_json::{Value, json};
use togi_data::batch::Order;
use togi_kernels::ThreadsAwake;
use togi_policy::{Decoder, DropoutKey, GradientSums, Weights};

use crate::{
    checkpoint::{Checkpoint, Stored},
    config::{LoopSection, OptimSection},
    error::TrainError,
    metrics::{Event, Row},
    optimizer::AdamW,
};

pub use crate::stage::Stage;

/// A loss over numbered samples.
pub trait Objective {
    /// What the parts of a batch have to know of the whole: at least what its summed losses are
    /// divided by.
    type Whole;

    /// Samples to train on.
    fn len(&self) -> usize;

    /// True without samples.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens of a sample, for throughput.
    fn tokens(&self, sample: usize) -> usize;

    /// What has to be known of a whole batch before its parts are worked on.
    ///
    /// # Errors
    /// As [`Objective::loss`].
    fn begin(&self, decoder: &Decoder, batch: &[usize]) -> Result<Self::Whole, TrainError>;

    /// The loss of a part of a batch, already divided by the whole batch's denominator, and
    /// metrics that add up over the parts.
    ///
    /// # Errors
    /// When the model or the objective refuses the samples.
    fn loss(
        &self,
        decoder: &Decoder,
        weights: &Weights,
        part: &[usize],
        whole: &Self::Whole,
    ) -> Result<(Tensor<1>, Row), TrainError>;

    /// Called after update number `update` (from 1): moves what follows the policy.
    ///
    /// # Errors
    /// When the objective cannot follow.
    fn updated(&mut self, _: &Decoder, _update: u64) -> Result<(), TrainError> {
        Ok(())
    }

    /// What a checkpoint has to keep of the objective: tensors are added, the value is returned.
    ///
    /// # Errors
    /// When a file cannot be written.
    fn save(&mut self, _: &mut Checkpoint) -> Result<Value, TrainError> {
        Ok(Value::Null)
    }

    /// Puts back what [`Objective::save`] kept.
    ///
    /// # Errors
    /// When something is missing.
    fn restore(&mut self, _: &Stored, _: &Value) -> Result<(), TrainError> {
        Ok(())
    }

    /// Metrics on held-out samples, at most `limit`; `loss` among them. `None` without any.
    ///
    /// # Errors
    /// As [`Objective::loss`].
    fn evaluate(&self, decoder: &Decoder, limit: usize) -> Result<Option<Row>, TrainError>;
}

/// Trains the decoder in place; goes on from the newest whole checkpoint of the stage, if any.
/// Returns the last held-out metrics.
///
/// # Errors
/// A loss or gradient that is not finite; files that cannot be written.
pub fn train(
    stage: &mut Stage<'_>,
    decoder: &mut Decoder,
    objective: &mut impl Objective,
    optim: &OptimSection,
    config: &LoopSection,
) -> Result<Option<Row>, TrainError> {
    stage.within_memory(stage.name, |stage| {
        let name = stage.name;
        let mut adam = AdamW::new(&decoder.params);
        let mut order = Order::new(stage.seed, objective.len());
        let (mut step, mut best, mut worse) = (0, f64::INFINITY, 0);
        let mut stopped = false;
        if let Some(stored) = stage.newest()? {
            step = stored.step;
            stored.restore("model", decoder, &mut adam, step)?;
            best = stored.state["best"].as_f64().unwrap_or(f64::INFINITY);
            worse = stored.state["worse"].as_u64().unwrap_or(0);
            stopped = stored.state["stopped"].as_bool().unwrap_or(false);
            objective.restore(&stored, &stored.state["objective"])?;
        }
        stage.watch.begin(step);
        stage.observer.on(Event::Stage {
            name,
            step,
            total: config.max_steps,
        });
        let mut last_eval = None;
        while step < config.max_steps && !stopped {
            let _awake = ThreadsAwake::new();
            let started = Instant::now();
            let batch = order.batch(step, config.batch_size);
            let whole = objective.begin(decoder, &batch)?;
            let mut row = Row::default();
            let mut total = GradientSums::default();
            for (part_index, part) in batch.chunks(config.micro_batch_size).enumerate() {
                let pass = step * batch.len() as u64 + part_index as u64;
                let key = DropoutKey {
                    seed: stage.seed,
                    pass,
                };
                let weights = decoder
                    .tracked()
                    .with_dropout(key)
                    .with_checkpointing(config.gradient_checkpointing);
                let (loss, part_row) = objective.loss(decoder, &weights, part, &whole)?;
                row.merge(&part_row);
                decoder.add_gradients(&weights, loss, &mut total)?;
            }
            row.check(name, step + 1)?;
            let lr = optim.rate(step, config.max_steps);
            let grads = total.into_gradients();
            row.set(
                "grad_norm",
                adam.update(&mut decoder.params, grads, optim, lr),
            );
            row.set("learning_rate", lr);
            row.check(name, step + 1)?;
            step += 1;
            objective.updated(decoder, step)?;
            let tokens = batch.iter().map(|i| objective.tokens(*i)).sum();
            stage.stepped(step, &row, tokens, started)?;

            let last = step == config.max_steps;
            if (last || (config.eval_every > 0 && step % config.eval_every == 0))
                && let Some(eval) = objective.evaluate(decoder, config.eval_samples)?
            {
                let mut named = Row::default();
                for (metric, value) in eval.iter() {
                    named.set(&format!("val/{metric}"), value);
                }
                stage.looked(step, &named)?;
                let loss = eval.get("loss").unwrap_or(f64::INFINITY);
                worse = if loss < best { 0 } else { worse + 1 };
                best = best.min(loss);
                stopped = config.patience > 0 && worse >= config.patience;
                if stopped {
                    let text =
                        format!("stopped at step {step}: no improvement in {worse} evaluations");
                    stage.observer.on(Event::Message(&text));
                }
                last_eval = Some(named);
            }
            let due = config.checkpoint_every > 0 && step % config.checkpoint_every == 0;
            let short = stage
                .short_of_memory(name, step)
                .filter(|_| !last && !stopped);
            if last || due || stopped || short.is_some() {
                let mut checkpoint = Checkpoint::default();
                checkpoint.add("model", decoder, &adam);
                let best = best.is_finite().then_some(best);
                let kept = objective.save(&mut checkpoint)?;
                checkpoint.state =
                    json!({"best": best, "worse": worse, "stopped": stopped, "objective": kept});
                checkpoint.save(stage.run, name, step, config.keep_checkpoints)?;
            }
            if let Some(error) = short {
                return Err(error);
            }
        }
        stage.observer.on(Event::Done);
        Ok(last_eval)
    })
}

/// A tensor's values on the host.
pub(crate) fn host<const D: usize>(x: &Tensor<D>) -> Vec<f64> {
    x.clone()
        .detach()
        .into_data()
        .convert::<f64>()
        .iter::<f64>()
        .collect()
}
