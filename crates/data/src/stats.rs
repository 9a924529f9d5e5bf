//! Lengths of samples: what `inspect` shows before anything is trained.

use crate::{
    error::DataError,
    record::Located,
    sample::{
        LabelledSample, PairSample, PromptSample, RankedSample, RatedSample, Sample, StepSample,
    },
    tokenize::{OverLong, TokenizeOptions},
    tokenizer::Tokenizer,
};

/// Something whose length in tokens counts against `max_length`.
pub trait Measured {
    /// Tokens; of a pair, or of several samples of one row, those of the longest.
    fn tokens(&self) -> usize;
}

impl Measured for Sample {
    fn tokens(&self) -> usize {
        self.len()
    }
}

impl Measured for PairSample {
    fn tokens(&self) -> usize {
        self.chosen.len().max(self.rejected.len())
    }
}

impl Measured for Vec<LabelledSample> {
    fn tokens(&self) -> usize {
        let lengths = self.iter().map(|labelled| labelled.sample.len());
        lengths.max().unwrap_or(0)
    }
}

impl Measured for RankedSample {
    fn tokens(&self) -> usize {
        self.answers.iter().map(Sample::len).max().unwrap_or(0)
    }
}

impl Measured for RatedSample {
    fn tokens(&self) -> usize {
        self.sample.len()
    }
}

impl Measured for StepSample {
    fn tokens(&self) -> usize {
        self.sample.len()
    }
}

impl Measured for PromptSample {
    fn tokens(&self) -> usize {
        self.ids.len()
    }
}

/// Lengths of all samples before anything is cut, and which are longer than allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lengths {
    /// Tokens of each sample, ascending.
    pub tokens: Vec<usize>,
    /// The longest that is allowed.
    pub max_length: usize,
    /// Place and tokens of the samples that are longer, in the order of the rows.
    pub over_long: Vec<(String, usize)>,
}

/// One bar of a histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bin {
    /// Least number of tokens.
    pub from: usize,
    /// Greatest number of tokens.
    pub to: usize,
    /// Samples.
    pub count: usize,
}

impl Lengths {
    /// Tokenises rows without a limit on their length and measures them. `tokenize` is one of
    /// [`crate::tokenize`]'s functions.
    ///
    /// # Errors
    /// As `tokenize`.
    pub fn measure<T: Measured>(
        records: &[Located],
        tokenizer: &Tokenizer,
        options: &TokenizeOptions,
        tokenize: impl Fn(&Located, &Tokenizer, &TokenizeOptions) -> Result<Option<T>, DataError>,
    ) -> Result<Self, DataError> {
        let unlimited = TokenizeOptions {
            max_length: usize::MAX,
            over_long: OverLong::Error,
            ..*options
        };
        let mut lengths = Self {
            max_length: options.max_length,
            ..Self::default()
        };
        for row in records {
            if let Some(sample) = tokenize(row, tokenizer, &unlimited)? {
                lengths.add(&row.place, sample.tokens());
            }
        }
        lengths.tokens.sort_unstable();
        Ok(lengths)
    }

    fn add(&mut self, place: &str, tokens: usize) {
        self.tokens.push(tokens);
        if tokens > self.max_length {
            self.over_long.push((place.to_owned(), tokens));
        }
    }

    /// The length below or at which a share `quantile` of the samples lies (nearest rank); 0
    /// without samples.
    pub fn quantile(&self, quantile: f64) -> usize {
        let rank = (quantile.clamp(0.0, 1.0) * self.tokens.len() as f64).ceil() as usize;
        self.tokens
            .get(rank.saturating_sub(1))
            .copied()
            .unwrap_or_default()
    }

    /// Tokens of all samples together.
    pub fn total(&self) -> usize {
        self.tokens.iter().sum()
    }

    /// At most `bars` bars of equal width from the shortest to the longest sample.
    pub fn histogram(&self, bars: usize) -> Vec<Bin> {
        let (Some(&least), Some(&most)) = (self.tokens.first(), self.tokens.last()) else {
            return Vec::new();
        };
        let width = (most - least + 1).div_ceil(bars.max(1));
        let count = (most - least + 1).div_ceil(width);
        let mut bins: Vec<Bin> = (0..count)
            .map(|i| Bin {
                from: least + i * width,
                to: least + (i + 1) * width - 1,
                count: 0,
            })
            .collect();
        for tokens in &self.tokens {
            bins[(tokens - least) / width].count += 1;
        }
        bins
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_is_in_one_bar() {
        let mut lengths = Lengths {
            max_length: 20,
            ..Lengths::default()
        };
        for tokens in [3, 4, 4, 9, 17, 25, 30] {
            lengths.add(&format!("f:{tokens}"), tokens);
        }
        assert_eq!(
            lengths.over_long,
            [("f:25".to_owned(), 25), ("f:30".to_owned(), 30)]
        );
        let bins = lengths.histogram(4);
        assert_eq!(
            bins.iter().map(|b| b.count).collect::<Vec<_>>(),
            [4, 0, 1, 2]
        );
        assert_eq!((bins[0].from, bins[0].to, bins[3].from), (3, 9, 24));
        assert_eq!(
            (
                lengths.quantile(0.5),
                lengths.quantile(1.0),
                lengths.total()
            ),
            (9, 30, 92)
        );
        assert!(Lengths::default().histogram(3).is_empty());
        assert_eq!(Lengths::default().quantile(0.5), 0);
    }
}
