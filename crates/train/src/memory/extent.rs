//! How much of samples goes through a model.

use togi_data::{
    LabelledSample, PairSample, PromptSample, RankedSample, RatedSample, Sample, StepSample,
};

use crate::data::Samples;

/// `(tokens through the model, scored tokens)` of each sample, in their order.
pub type Sizes = Vec<(usize, usize)>;

/// What of a sample goes through a model.
pub trait Extent {
    /// Tokens that go through the model, where a beginning that its sequences share counts once; and
    /// tokens that are scored.
    fn extent(&self) -> (usize, usize);
}

/// Of the prompts that a recipe draws answers to.
#[derive(Clone, Debug, Default)]
pub struct PromptSizes {
    /// Of each that is learnt from.
    pub train: Sizes,
    /// How many are held out.
    pub held_out: usize,
}

impl PromptSizes {
    /// Of what was read.
    pub fn of(prompts: &Samples<PromptSample>) -> Self {
        Self {
            train: sizes(&prompts.train),
            held_out: prompts.valid.len(),
        }
    }
}

/// Of each sample.
pub fn sizes<T: Extent>(samples: &[T]) -> Sizes {
    samples.iter().map(Extent::extent).collect()
}

fn together<'a>(sequences: impl Iterator<Item = &'a Sample> + Clone) -> (usize, usize) {
    let tokens: usize = sequences.clone().map(Sample::len).sum();
    let scored = sequences.clone().map(|sample| sample.scored().count());
    let count = sequences.clone().count();
    let mut shared = usize::MAX;
    let mut others = sequences.clone();
    if let Some(first) = others.next() {
        for other in others {
            let both = first.ids.iter().zip(&other.ids);
            shared = shared.min(both.take_while(|(a, b)| a == b).count());
        }
    }
    let again = if count > 1 { (count - 1) * shared } else { 0 };
    (tokens - again, scored.sum())
}

impl Extent for Sample {
    fn extent(&self) -> (usize, usize) {
        (self.len(), self.scored().count())
    }
}

impl Extent for PairSample {
    fn extent(&self) -> (usize, usize) {
        together([&self.chosen, &self.rejected].into_iter())
    }
}

impl Extent for LabelledSample {
    fn extent(&self) -> (usize, usize) {
        self.sample.extent()
    }
}

impl Extent for Vec<LabelledSample> {
    fn extent(&self) -> (usize, usize) {
        let all = self.iter().map(Extent::extent);
        all.fold((0, 0), |(t, s), size| (t + size.0, s + size.1))
    }
}

impl Extent for RankedSample {
    fn extent(&self) -> (usize, usize) {
        together(self.answers.iter())
    }
}

impl Extent for RatedSample {
    fn extent(&self) -> (usize, usize) {
        self.sample.extent()
    }
}

impl Extent for StepSample {
    fn extent(&self) -> (usize, usize) {
        self.sample.extent()
    }
}

impl Extent for PromptSample {
    fn extent(&self) -> (usize, usize) {
        (self.ids.len(), 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_beginning_counts_once() {
        let sample = |ids: &[u32]| Sample::from_parts(&[1, 2, 3], ids, &[]);
        let answers = [sample(&[4, 5]), sample(&[4, 6, 7]), sample(&[8])];
        assert_eq!(together(answers.iter()), (3 + 2 + 3 + 1, 6));
        assert_eq!(together(answers[..1].iter()), (5, 2));
        assert_eq!(together(answers[..0].iter()), (0, 0));
    }
}
