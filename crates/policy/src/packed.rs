//! Batches of sequences as one run of tokens.

use std::{ops::Range, sync::Arc};

use togi_kernels::Run;

/// Sequences of any lengths as one run of tokens, without padding.
///
/// A beginning that several sequences share, such as the prompt of a pair of answers or of a group
/// of completions, is in it once: its hidden states do not depend on what follows.
#[derive(Clone, Debug)]
pub struct Packed {
    /// Token ids of all runs.
    pub ids: Arc<[u32]>,
    /// Position of each token in its sequence.
    pub positions: Arc<[u32]>,
    /// The runs, as attention sees them.
    pub runs: Arc<[Run]>,
    places: Vec<Place>,
}

/// Rows of a sequence: of the beginning that it shares, and of the rest.
#[derive(Clone, Debug, Default)]
struct Place {
    shared: Range<usize>,
    own: Range<usize>,
}

/// Beginnings shorter than this are not worth the smaller products.
const MIN_SHARED: usize = 8;

impl Packed {
    /// Packs the sequences; those that share no beginning lie in the order given.
    pub fn new<'a>(sequences: impl IntoIterator<Item = &'a [u32]>) -> Self {
        let sequences: Vec<&[u32]> = sequences.into_iter().collect();
        let (mut ids, mut positions, mut runs) = (Vec::new(), Vec::new(), Vec::new());
        let mut add = |tokens: &[u32], from: usize, prefix: Option<usize>| {
            let start = ids.len();
            ids.extend_from_slice(tokens);
            positions.extend(from as u32..(from + tokens.len()) as u32);
            runs.push(Run {
                len: tokens.len(),
                prefix,
            });
            (runs.len() - 1, start..ids.len())
        };
        let mut places = vec![Place::default(); sequences.len()];
        for Group { members, shared } in groups(&sequences) {
            let beginning = (shared > 0).then(|| add(&sequences[members[0]][..shared], 0, None));
            for number in members {
                let prefix = beginning.as_ref().map(|(run, _)| *run);
                let (_, own) = add(&sequences[number][shared..], shared, prefix);
                let shared = beginning.as_ref().map_or(0..0, |(_, rows)| rows.clone());
                places[number] = Place { shared, own };
            }
        }
        Self {
            ids: ids.into(),
            positions: positions.into(),
            runs: runs.into(),
            places,
        }
    }

    /// The row of a token of a sequence.
    ///
    /// # Panics
    /// When there is no such sequence.
    pub fn row(&self, sequence: usize, position: usize) -> u32 {
        let Place { shared, own } = &self.places[sequence];
        let row = if position < shared.len() {
            shared.start + position
        } else {
            own.start + position - shared.len()
        };
        row as u32
    }

    /// The row of a sequence's last token; meaningless for an empty sequence.
    pub(crate) fn last_row(&self, sequence: usize) -> u32 {
        let Place { shared, own } = &self.places[sequence];
        self.row(sequence, (shared.len() + own.len()).saturating_sub(1))
    }

    /// The rows of a sequence, in order.
    pub(crate) fn pieces(&self, sequence: usize) -> impl Iterator<Item = Range<usize>> {
        let Place { shared, own } = self.places[sequence].clone();
        [shared, own].into_iter().filter(|rows| !rows.is_empty())
    }

    /// Tokens of the longest sequence.
    pub(crate) fn longest(&self) -> usize {
        let last = self.positions.iter().max();
        last.map_or(0, |position| *position as usize + 1)
    }
}

/// Sequences whose first `shared` tokens are the same.
struct Group {
    members: Vec<usize>,
    shared: usize,
}

/// The groups that save the most tokens. A group is where its first member was.
///
/// In lexicographic order the members of a group are neighbours, so the best partition of the
/// first `n` is the best of the first `m` and one group of the rest, for the best `m`.
fn groups(sequences: &[&[u32]]) -> Vec<Group> {
    let mut order: Vec<usize> = (0..sequences.len()).collect();
    order.sort_by_key(|i| sequences[*i]);
    let same: Vec<usize> = order
        .windows(2)
        .map(|pair| common(sequences[pair[0]], sequences[pair[1]]))
        .collect();
    // Per number of sequences: tokens saved, where the last group begins, and what it shares.
    let mut best = vec![(0, 0, 0)];
    for end in 1..=order.len() {
        let mut choice = (best[end - 1].0, end - 1, 0);
        let mut shared = usize::MAX;
        for begin in (0..end - 1).rev() {
            shared = shared.min(same[begin]);
            if shared < MIN_SHARED {
                break;
            }
            let saved = best[begin].0 + shared * (end - begin - 1);
            if saved > choice.0 {
                choice = (saved, begin, shared);
            }
        }
        best.push(choice);
    }
    let mut groups = Vec::new();
    let mut end = order.len();
    while end > 0 {
        let (_, begin, shared) = best[end];
        let mut members = order[begin..end].to_vec();
        members.sort_unstable();
        groups.push(Group { members, shared });
        end = begin;
    }
    groups.sort_by_key(|group| group.members[0]);
    groups
}

/// Tokens at the beginning that both have.
fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tokens of a sequence, read back through its rows.
    fn read(packed: &Packed, sequence: usize, len: usize) -> Vec<(u32, u32)> {
        let rows = (0..len).map(|i| packed.row(sequence, i) as usize);
        rows.map(|row| (packed.ids[row], packed.positions[row]))
            .collect()
    }

    #[test]
    fn every_token_is_found_and_beginnings_are_held_once() {
        let prompt: Vec<u32> = (100..120).collect();
        let with = |tail: &[u32]| [&prompt[..], tail].concat();
        let sequences = [
            with(&[1, 2, 3]),
            vec![7, 8],
            with(&[]),
            with(&[1, 2, 4, 5]),
            vec![],
            (200..210).collect(),
        ];
        let packed = Packed::new(sequences.iter().map(|s| &s[..]));
        for (number, sequence) in sequences.iter().enumerate() {
            let expected: Vec<(u32, u32)> = sequence.iter().copied().zip(0..).collect();
            assert_eq!(read(&packed, number, sequence.len()), expected);
            let rows: usize = packed.pieces(number).map(|rows| rows.len()).sum();
            assert_eq!(rows, sequence.len());
        }
        assert_eq!(packed.ids.len(), 20 + 3 + 4 + 2 + 10);
        assert_eq!(packed.longest(), 24);
        assert_eq!(packed.last_row(1), packed.row(1, 1));
    }

    #[test]
    fn the_longer_beginning_wins() {
        let system: Vec<u32> = (0..10).collect();
        let with = |tail: std::ops::Range<u32>| [&system[..], &tail.collect::<Vec<_>>()].concat();
        // One alone, and a pair that shares 30 tokens more.
        let pair = |last: u32| [with(100..130), vec![last]].concat();
        let sequences = [with(20..25), pair(1), pair(2)];
        let packed = Packed::new(sequences.iter().map(|s| &s[..]));
        assert_eq!(packed.ids.len(), 15 + 40 + 2);
    }

    #[test]
    fn sequences_without_a_common_beginning_keep_their_order() {
        let sequences: [&[u32]; 3] = [&[5, 6], &[1, 2, 3], &[5, 6]];
        let packed = Packed::new(sequences);
        assert_eq!(packed.ids[..], [5, 6, 1, 2, 3, 5, 6]);
        assert!(packed.runs.iter().all(|run| run.prefix.is_none()));
    }
}
