//! A learned reward model.

use togi_policy::Decoder;

use crate::{Reward, Scorable, Score, Unscorable};

/// A decoder with a scalar head, read at the last token of prompt and answer.
#[derive(Debug)]
pub struct RewardModel {
    decoder: Decoder,
    batch_size: usize,
}

impl RewardModel {
    /// Wraps a decoder whose parameters include `score.weight`; `batch_size` answers are scored
    /// at a time.
    pub fn new(decoder: Decoder, batch_size: usize) -> Self {
        Self {
            decoder,
            batch_size: batch_size.max(1),
        }
    }

    /// The model.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }
}

impl Reward for RewardModel {
    fn name(&self) -> String {
        "reward model".to_owned()
    }

    fn score(&self, batch: &[Scorable<'_>]) -> Vec<Result<Score, Unscorable>> {
        let weights = self.decoder.frozen();
        let mut results = Vec::with_capacity(batch.len());
        for part in batch.chunks(self.batch_size) {
            let sequences: Vec<Vec<u32>> = part
                .iter()
                .map(|item| [item.prompt_ids, item.completion_ids].concat())
                .collect();
            let views: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
            match self.decoder.scores(&weights, &views) {
                Ok(scores) => {
                    let data = scores.into_data().convert::<f32>();
                    results.extend(data.iter::<f32>().map(|x| Score::new(f64::from(x))));
                }
                // One bad sequence fails its batch: say so for each, none gets a made-up score.
                Err(e) => {
                    results.extend(part.iter().map(|_| Err(Unscorable(e.to_string()))));
                }
            }
        }
        results
    }
}
