//! A seed's pairs: a pool that nobody has labelled, what the annotators would say of it, and held-out
//! pairs with the true preference.

use anyhow::{Result, anyhow};
use togi_data::{
    HhAs, Located, LossOn, OverLong, PairSample, TokenizeOptions, Tokenizer,
    lab::{self, AnnotatorConfig, Annotators, LabPair, Split, Writer},
    tokenize,
};

use super::Settings;

/// Gold scores that differ by less are equal.
const TIE: f64 = 1e-9;

pub(crate) struct World {
    pool: Vec<LabPair>,
    /// The pool's samples, chosen and rejected as the annotators say.
    labelled: Vec<PairSample>,
    /// Whether the annotators take the first answer.
    first_wins: Vec<bool>,
    /// Held-out pairs, the truly better answer as the chosen one.
    pub(crate) held_out: Vec<PairSample>,
}

/// What was labelled: how hard it was, and how well it was done.
#[derive(Clone, Copy)]
pub(crate) struct Quality {
    /// Mean true difference between the answers.
    pub(crate) difference: f64,
    /// Share of true ties.
    pub(crate) ties: f64,
    /// Share of the labels that are right, where there is no tie.
    pub(crate) right: f64,
}

impl World {
    pub(crate) fn new(seed: u64, settings: &Settings, tokenizer: &Tokenizer) -> Result<Self> {
        let writer = Writer::demonstrator();
        let pool = lab::pairs(seed ^ 0x706f_6f6c, Split::Train, settings.pool, &writer);
        let annotators = Annotators::new(seed, AnnotatorConfig::default());
        let first_wins: Vec<bool> = pool
            .iter()
            .enumerate()
            .map(|(i, pair)| {
                let [first, second] = &pair.answers;
                annotators.prefers_first(i as u64, &pair.prompt, first, second)
            })
            .collect();
        let labelled = pool
            .iter()
            .zip(&first_wins)
            .map(|(pair, first_wins)| sample(pair, *first_wins, tokenizer))
            .collect::<Result<_>>()?;
        // Ties are left out, so that more are drawn than are needed.
        let drawn = settings.held_out * 2;
        let held_out = lab::pairs(seed ^ 0x6865_6c64, Split::Test, drawn, &writer)
            .iter()
            .filter(|pair| pair.gold_difference().abs() > TIE)
            .take(settings.held_out)
            .map(|pair| sample(pair, pair.gold_difference() > 0.0, tokenizer))
            .collect::<Result<_>>()?;
        Ok(Self {
            pool,
            labelled,
            first_wins,
            held_out,
        })
    }

    /// The prompt of each pair of the pool.
    pub(crate) fn prompts(&self) -> Vec<&str> {
        self.pool.iter().map(|pair| pair.prompt.text()).collect()
    }

    /// Pairs of the pool, as labelled.
    pub(crate) fn label(&self, pairs: &[usize]) -> Vec<PairSample> {
        let labelled = pairs.iter().map(|i| self.labelled[*i].clone());
        labelled.collect()
    }

    /// The scores of a pair of the pool in the order of its answers: which one was taken is not known
    /// before it is labelled.
    pub(crate) fn unlabelled(&self, pair: usize, [chosen, rejected]: [f64; 2]) -> [f64; 2] {
        if self.first_wins[pair] {
            [chosen, rejected]
        } else {
            [rejected, chosen]
        }
    }

    /// The pool as samples, for scoring.
    pub(crate) fn samples(&self) -> &[PairSample] {
        &self.labelled
    }

    pub(crate) fn quality(&self, pairs: &[usize]) -> Quality {
        let differences: Vec<f64> = pairs
            .iter()
            .map(|i| self.pool[*i].gold_difference())
            .collect();
        let all = pairs.len().max(1) as f64;
        let decided = differences.iter().filter(|d| d.abs() > TIE).count() as f64;
        let right = pairs
            .iter()
            .zip(&differences)
            .filter(|(i, d)| d.abs() > TIE && self.first_wins[**i] == (**d > 0.0))
            .count() as f64;
        Quality {
            difference: differences.iter().map(|d| d.abs()).sum::<f64>() / all,
            ties: 1.0 - decided / all,
            right: right / decided.max(1.0),
        }
    }
}

fn sample(pair: &LabPair, first_wins: bool, tokenizer: &Tokenizer) -> Result<PairSample> {
    let options = TokenizeOptions {
        max_length: 128,
        over_long: OverLong::Error,
        loss_on: LossOn::Completion,
        hh: HhAs::Text,
    };
    let row = Located {
        record: pair.record(first_wins),
        place: "lab pairs".to_owned(),
    };
    tokenize::pair(&row, tokenizer, &options)?.ok_or_else(|| anyhow!("a pair of the lab is cut"))
}
