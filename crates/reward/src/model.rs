//! A learned reward model.

use togi_data::AnswerFrame;
use togi_policy::{Decoder, PolicyError};

use crate::{Reward, Scorable, Score, Unscorable};

/// A decoder with a scalar head, read at the last token of prompt and answer, and of what the chat template writes behind
/// an answer: it has learnt from whole conversations, whose last token is that.
#[derive(Debug)]
pub struct RewardModel {
    decoder: Decoder,
    frame: Option<AnswerFrame>,
    batch_size: usize,
}

impl RewardModel {
    /// Wraps a decoder whose parameters include `score.weight`, with its tokenizer's frame of answers
    /// ([`togi_data::Tokenizer::answer_frame`]); `batch_size` answers are scored at a time.
    pub fn new(decoder: Decoder, frame: Option<AnswerFrame>, batch_size: usize) -> Self {
        Self {
            decoder,
            frame,
            batch_size: batch_size.max(1),
        }
    }

    /// The model.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// What the head is read at the end of.
    fn sequence(&self, item: &Scorable<'_>) -> Vec<u32> {
        let (prompt, answer) = (item.prompt_ids, item.completion_ids);
        let limit = self.decoder.config.max_position_embeddings;
        let rest = match &self.frame {
            Some(frame) => frame.rest(prompt, answer, limit),
            None => &[],
        };
        [prompt, answer, rest].concat()
    }
}

impl Reward for RewardModel {
    fn name(&self) -> String {
        "reward model".to_owned()
    }

    fn score(&self, batch: &[Scorable<'_>]) -> Vec<Result<Score, Unscorable>> {
        let weights = self.decoder.frozen();
        type Scores = Vec<Result<Score, Unscorable>>;
        let of = |part: &[Vec<u32>]| -> Result<Scores, PolicyError> {
            let views: Vec<&[u32]> = part.iter().map(Vec::as_slice).collect();
            let scores = self.decoder.scores(&weights, &views)?;
            let data = scores.into_data().convert::<f32>();
            Ok(data
                .iter::<f32>()
                .map(|x| Score::new(f64::from(x)))
                .collect())
        };
        let sequences: Vec<Vec<u32>> = batch.iter().map(|item| self.sequence(item)).collect();
        let mut results = Vec::with_capacity(batch.len());
        for part in sequences.chunks(self.batch_size) {
            match of(part) {
                Ok(scores) => results.extend(scores),
                // One that is too long fails its batch: each by itself says which it is.
                Err(_) => results.extend(part.iter().flat_map(|one| {
                    let alone = of(std::slice::from_ref(one));
                    alone.unwrap_or_else(|e| vec![Err(Unscorable(e.to_string()))])
                })),
            }
        }
        results
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use togi_policy::source::lab;

    use super::*;

    #[test]
    fn conversations_are_read_at_their_end_and_one_that_is_too_long_fails_alone() {
        let policy = lab(&Device::flex(), 0).unwrap();
        let decoder = policy.decoder.with_score_head(Some(1)).unwrap();
        let frame = AnswerFrame {
            before: vec![3],
            end: 1,
            after: vec![4, 5],
        };
        let model = RewardModel::new(decoder.clone(), Some(frame), 8);
        let long = vec![6; decoder.config.max_position_embeddings];
        let rows: [(&[u32], &[u32]); 4] = [
            (&[2, 3], &[7, 1]),
            (&[2, 3], &long),
            (&[2, 3], &[7]),
            (&[2], &[7, 1]),
        ];
        let batch = rows.map(|(prompt_ids, completion_ids)| Scorable {
            prompt: "",
            prompt_ids,
            completion: "",
            completion_ids,
        });
        let found = model.score(&batch);
        let read: [&[u32]; 3] = [&[2, 3, 7, 1, 4, 5], &[2, 3, 7], &[2, 7, 1]];
        let expected = decoder.scores(&decoder.frozen(), &read).unwrap();
        let expected: Vec<f32> = expected.into_data().iter::<f32>().collect();
        for (i, x) in [(0, 0), (2, 1), (3, 2)] {
            let score = found[i].as_ref().unwrap().value;
            assert!(
                (score - f64::from(expected[x])).abs() < 1e-5,
                "{i}: {score}"
            );
        }
        let reason = &found[1].as_ref().unwrap_err().0;
        assert!(reason.contains("positions"), "{reason}");
    }
}
