//! Reward models: a scalar head on the last token. Here from comparisons, by Bradley-Terry; from
//! rankings, ratings and steps in the files beside.

use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};
use togi_data::{PairSample, lab::AnnotatorConfig};
use togi_policy::{Decoder, LoraConfig, Weights};
use togi_rl_algos::{
    Normalisation,
    bradley_terry::{bradley_terry_loss, soft_label_loss},
};

use togi_eval::calibration::{CALIBRATION_BINS, Calibration, correlation};

use crate::{
    config::{DataSection, LoopSection, OptimSection, RecipeConfig, within},
    data::LabRows,
    error::TrainError,
    metrics::Row,
    offline::{Objective, host},
    preference::labelled,
    sft::EVAL_PART,
};

/// Configuration of the recipe `reward`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RewardConfig {
    /// Of data order, head, dropout and adapters.
    pub seed: u64,
    /// The loss, which says what kind of rows it learns from.
    pub loss: RewardLoss,
    /// Batches, evaluation, checkpoints.
    pub train: LoopSection,
    /// Optimiser.
    pub optim: OptimSection,
    /// Data.
    pub data: DataSection,
    /// The lab's annotators, where it is the data.
    pub annotators: AnnotatorConfig,
    /// Train an adapter and the head instead of the weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
}

/// What a reward model learns from, and how.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum RewardLoss {
    /// From pairs.
    BradleyTerry {
        /// Weight of `(r_chosen + r_rejected)²`, which keeps rewards around zero.
        #[serde(default)]
        centering: f64,
        /// Use the rows' `margin` column.
        #[serde(default)]
        use_margin: bool,
        /// Probability that a label is wrong.
        #[serde(default)]
        label_smoothing: f64,
    },
    /// From pairs whose label is a `probability`.
    SoftLabels {
        /// As in `bradley_terry`.
        #[serde(default)]
        centering: f64,
    },
    /// From rankings (or pairs) with ties: Rao-Kupper.
    Ties {
        /// How often the annotators see no difference; above 1.
        theta: f64,
    },
    /// From rankings: Plackett-Luce.
    PlackettLuce,
    /// From rankings: all pairs of a row, averaged (InstructGPT).
    AllPairs,
    /// From ratings: squared error.
    Regression,
    /// From answers in steps that are right or wrong: a process reward model.
    Steps,
}

impl Default for RewardLoss {
    fn default() -> Self {
        Self::BradleyTerry {
            centering: 0.01,
            use_margin: false,
            label_smoothing: 0.0,
        }
    }
}

impl RewardLoss {
    fn validate(&self) -> Result<(), TrainError> {
        match *self {
            Self::BradleyTerry {
                centering,
                label_smoothing,
                ..
            } => within("loss.centering", centering, 0.0, f64::MAX).and(within(
                "loss.label_smoothing",
                label_smoothing,
                0.0,
                0.5,
            )),
            Self::SoftLabels { centering } => within("loss.centering", centering, 0.0, f64::MAX),
            Self::Ties { theta } => within("loss.theta", theta, 1.000_001, f64::MAX),
            _ => Ok(()),
        }
    }
}

impl Default for RewardConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            loss: RewardLoss::default(),
            train: LoopSection::default(),
            optim: OptimSection {
                learning_rate: 1e-5,
                ..OptimSection::default()
            },
            data: DataSection::default(),
            annotators: AnnotatorConfig::default(),
            lora: None,
        }
    }
}

/// Answers of the lab that are as good as this share a rank, where the loss knows ties.
const LAB_TIE: f64 = 0.05;

impl RewardConfig {
    /// What it wants of the lab.
    pub fn lab_rows(&self) -> LabRows {
        let annotators = self.annotators;
        match self.loss {
            RewardLoss::BradleyTerry { .. } => LabRows::Preferences(annotators),
            RewardLoss::SoftLabels { .. } => LabRows::Missing("pairs with a probability"),
            RewardLoss::Ties { .. } => LabRows::Rankings(annotators, LAB_TIE),
            RewardLoss::PlackettLuce | RewardLoss::AllPairs => LabRows::Rankings(annotators, 0.0),
            RewardLoss::Regression => LabRows::Ratings(annotators),
            RewardLoss::Steps => LabRows::Missing("answers in steps"),
        }
    }
}

impl RecipeConfig for RewardConfig {
    fn validate(&self) -> Result<(), TrainError> {
        self.loss.validate()?;
        self.train.validate()?;
        self.optim.validate()?;
        self.data.validate()?;
        if let Some(lora) = &self.lora {
            lora.validate()?;
        }
        Ok(())
    }
}

/// The objective over tokenised pairs.
#[derive(Debug)]
pub struct BradleyTerry<'a> {
    /// To train on.
    pub train: &'a [PairSample],
    /// Held out.
    pub valid: &'a [PairSample],
    /// See [`RewardLoss::BradleyTerry`].
    pub centering: f64,
    /// See [`RewardLoss::BradleyTerry`].
    pub use_margin: bool,
    /// See [`RewardLoss::BradleyTerry`].
    pub label_smoothing: f64,
    /// The label is each pair's own probability: see [`RewardLoss::SoftLabels`].
    pub soft_labels: bool,
}

impl<'a> BradleyTerry<'a> {
    /// The objective of a loss over pairs.
    ///
    /// # Errors
    /// When the loss is one of other rows; when it needs a probability and a pair has none.
    pub fn new(
        train: &'a [PairSample],
        valid: &'a [PairSample],
        loss: RewardLoss,
    ) -> Result<Self, TrainError> {
        let soft_labels = matches!(loss, RewardLoss::SoftLabels { .. });
        let (centering, use_margin, label_smoothing) = match loss {
            RewardLoss::BradleyTerry {
                centering,
                use_margin,
                label_smoothing,
            } => (centering, use_margin, label_smoothing),
            RewardLoss::SoftLabels { centering } => {
                labelled(train.iter().chain(valid), "loss.kind")?;
                (centering, false, 0.0)
            }
            _ => return Err(TrainError::config("loss.kind", "does not learn from pairs")),
        };
        Ok(Self {
            train,
            valid,
            centering,
            use_margin,
            label_smoothing,
            soft_labels,
        })
    }

    /// Loss a pair, and scores of both sides.
    fn score(
        &self,
        decoder: &Decoder,
        weights: &Weights,
        pairs: &[&PairSample],
    ) -> Result<[Tensor<1>; 3], TrainError> {
        let n = pairs.len();
        let chosen = pairs.iter().map(|p| &p.chosen.ids[..]);
        let sequences: Vec<&[u32]> = chosen
            .chain(pairs.iter().map(|p| &p.rejected.ids[..]))
            .collect();
        let scores = decoder.scores(weights, &sequences)?;
        let (chosen, rejected) = (scores.clone().narrow(0, 0, n), scores.narrow(0, n, n));
        let centering = self.centering;
        if self.soft_labels {
            let data: Vec<f32> = pairs
                .iter()
                .filter_map(|p| p.probability.map(|p| p as f32))
                .collect();
            let count = data.len();
            let labels = Tensor::from_data(TensorData::new(data, [count]), decoder.device());
            let loss = soft_label_loss(&chosen, &rejected, &labels, centering)?;
            return Ok([loss, chosen, rejected]);
        }
        let margin = self.use_margin.then(|| {
            let data: Vec<f32> = pairs
                .iter()
                .map(|p| p.margin.unwrap_or(0.0) as f32)
                .collect();
            Tensor::from_data(TensorData::new(data, [n]), decoder.device())
        });
        let smoothing = self.label_smoothing;
        let loss = bradley_terry_loss(&chosen, &rejected, margin.as_ref(), centering, smoothing)?;
        Ok([loss, chosen, rejected])
    }
}

/// Adds the pairs' rewards, margins and accuracy to a row.
pub(crate) fn log_pairs(row: &mut Row, chosen: &[f64], rejected: &[f64], denominator: f64) {
    for (c, r) in chosen.iter().zip(rejected) {
        row.add("rewards/chosen", c / denominator);
        row.add("rewards/rejected", r / denominator);
        row.add("rewards/margins", (c - r) / denominator);
        row.add(
            "rewards/accuracies",
            f64::from(u8::from(c > r)) / denominator,
        );
    }
}

impl Objective for BradleyTerry<'_> {
    /// The denominator.
    type Whole = f64;

    fn len(&self) -> usize {
        self.train.len()
    }

    fn tokens(&self, pair: usize) -> usize {
        self.train[pair].chosen.len() + self.train[pair].rejected.len()
    }

    fn begin(&self, _: &Decoder, batch: &[usize]) -> Result<f64, TrainError> {
        Ok(batch.len() as f64)
    }

    fn loss(
        &self,
        decoder: &Decoder,
        weights: &Weights,
        part: &[usize],
        denominator: &f64,
    ) -> Result<(Tensor<1>, Row), TrainError> {
        let denominator = *denominator;
        let pairs: Vec<&PairSample> = part.iter().map(|i| &self.train[*i]).collect();
        let [losses, chosen, rejected] = self.score(decoder, weights, &pairs)?;
        let loss = Normalisation::Sequence { denominator }.sequences(losses)?;
        let mut row = Row::default();
        row.add("loss", host(&loss)[0]);
        log_pairs(&mut row, &host(&chosen), &host(&rejected), denominator);
        Ok((loss, row))
    }

    fn evaluate(&self, decoder: &Decoder, limit: usize) -> Result<Option<Row>, TrainError> {
        let pairs: Vec<&PairSample> = self.valid.iter().take(limit).collect();
        if pairs.is_empty() {
            return Ok(None);
        }
        let weights = decoder.frozen();
        let denominator = pairs.len() as f64;
        let mut row = Row::default();
        let (mut margins, mut longer) = (Vec::new(), Vec::new());
        for part in pairs.chunks(EVAL_PART) {
            let [losses, chosen, rejected] = self.score(decoder, &weights, part)?;
            row.add("loss", host(&losses).iter().sum::<f64>() / denominator);
            let (chosen, rejected) = (host(&chosen), host(&rejected));
            log_pairs(&mut row, &chosen, &rejected, denominator);
            margins.extend(chosen.iter().zip(&rejected).map(|(c, r)| c - r));
            let more = |p: &&PairSample| p.chosen.len() as f64 - p.rejected.len() as f64;
            longer.extend(part.iter().map(more));
        }
        let calibration = Calibration::of_margins(&margins, CALIBRATION_BINS);
        row.set("ece", calibration.expected_error());
        row.set("length_correlation", correlation(&margins, &longer));
        row.set("samples", denominator);
        Ok(Some(row))
    }
}
