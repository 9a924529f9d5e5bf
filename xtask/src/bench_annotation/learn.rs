//! Reward models that are trained on a few labels, and what they say.

use anyhow::{Result, bail};
use togi_data::{PairSample, batch::Order, rng::CounterRng};
use togi_policy::Decoder;
use togi_train::{
    config::OptimSection,
    offline::Objective,
    optimizer::AdamW,
    reward::{BradleyTerry, RewardLoss},
    schedule::Schedule,
};

use super::Settings;

/// A reward model from the SFT model.
pub(crate) fn learn(
    sft: &Decoder,
    pairs: &[PairSample],
    seed: u64,
    settings: &Settings,
) -> Result<Decoder> {
    let mut decoder = sft.with_score_head(Some(seed))?;
    let objective = BradleyTerry::new(pairs, &[], RewardLoss::default())?;
    let steps = settings.steps(pairs.len());
    let optim = OptimSection {
        learning_rate: settings.learning_rate,
        schedule: Schedule::Cosine,
        warmup_steps: steps / 10,
        ..OptimSection::default()
    };
    let mut adam = AdamW::new(&decoder.params);
    let mut order = Order::new(seed, pairs.len());
    for step in 0..steps {
        let batch = order.batch(step, settings.batch_size);
        let weights = decoder.tracked();
        let whole = batch.len() as f64;
        let (loss, _) = objective.loss(&decoder, &weights, &batch, &whole)?;
        let grads = decoder.gradients(&weights, loss)?;
        drop(weights);
        let rate = optim.rate(step, steps);
        let norm = adam.update(&mut decoder.params, grads, &optim, rate);
        if !norm.is_finite() {
            bail!("step {}: the gradient is {norm}", step + 1);
        }
    }
    Ok(decoder)
}

/// A bootstrap of the labels: as many, drawn with replacement.
pub(crate) fn bootstrap(pairs: &[PairSample], seed: u64) -> Vec<PairSample> {
    let mut rng = CounterRng::new(seed, &[0x6261_6773]);
    (0..pairs.len())
        .map(|_| pairs[rng.below(pairs.len())].clone())
        .collect()
}

/// Scores of the chosen and the rejected answer of each pair.
pub(crate) fn scores(decoder: &Decoder, pairs: &[PairSample]) -> Result<Vec<[f64; 2]>> {
    /// Pairs at a time.
    const PART: usize = 128;
    let weights = decoder.frozen();
    let mut all = Vec::with_capacity(pairs.len());
    for part in pairs.chunks(PART) {
        let sequences: Vec<&[u32]> = part
            .iter()
            .flat_map(|p| [&p.chosen.ids[..], &p.rejected.ids[..]])
            .collect();
        let data = decoder.scores(&weights, &sequences)?.into_data();
        let scores: Vec<f64> = data.convert::<f64>().iter::<f64>().collect();
        all.extend(scores.chunks_exact(2).map(|two| [two[0], two[1]]));
    }
    Ok(all)
}

/// The share of pairs whose chosen answer scores higher; equal scores are half right.
pub(crate) fn accuracy(scores: &[[f64; 2]]) -> f64 {
    let right = scores.iter().map(|[chosen, rejected]| {
        if chosen == rejected {
            0.5
        } else {
            f64::from(u8::from(chosen > rejected))
        }
    });
    right.sum::<f64>() / scores.len().max(1) as f64
}
