//! Which rows of a packed batch belong to which sequence.

/// Consecutive rows of a packed batch that are one sequence, or one continuation of a beginning
/// that several sequences share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Rows; may be 0.
    pub len: usize,
    /// The number of the run that this one continues. That one comes earlier and continues none.
    pub prefix: Option<usize>,
}

impl Run {
    /// A run that continues none.
    pub fn whole(len: usize) -> Self {
        Self { len, prefix: None }
    }
}

/// A run's place among the rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    /// First row and rows of what the run continues; `(0, 0)` if it continues none.
    pub(crate) prefix: (usize, usize),
    pub(crate) start: usize,
    pub(crate) len: usize,
}

/// The places of all runs.
///
/// # Panics
/// When a run's `prefix` is not an earlier run that continues none.
pub(crate) fn spans(runs: &[Run]) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::with_capacity(runs.len());
    let mut start = 0;
    for (i, run) in runs.iter().enumerate() {
        let prefix = run.prefix.map_or((0, 0), |number| {
            assert!(
                number < i && runs[number].prefix.is_none(),
                "run {i}: continues run {number}, which is not an earlier one that continues none"
            );
            (spans[number].start, spans[number].len)
        });
        let len = run.len;
        spans.push(Span { prefix, start, len });
        start += len;
    }
    spans
}

/// The runs that have rows, each that continues none together with those that continue it.
pub(crate) fn families(runs: &[Run]) -> Vec<Vec<Span>> {
    let mut families: Vec<Vec<Span>> = vec![Vec::new(); runs.len()];
    for (i, span) in spans(runs).into_iter().enumerate() {
        if span.len > 0 {
            families[runs[i].prefix.unwrap_or(i)].push(span);
        }
    }
    families.retain(|family| !family.is_empty());
    families
}
