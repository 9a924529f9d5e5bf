//! The texts of a vocabulary as a tree, and sets of tokens.

use super::automaton::{Automaton, DEAD};

/// A set of token ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mask {
    words: Vec<u32>,
}

impl Mask {
    pub(super) fn empty(size: usize) -> Self {
        Self {
            words: vec![0; size.div_ceil(32)],
        }
    }

    pub(super) fn clear(&mut self) {
        self.words.fill(0);
    }

    pub(super) fn insert(&mut self, id: u32) {
        self.words[id as usize / 32] |= 1 << (id % 32);
    }

    pub(super) fn copy_from(&mut self, words: &[u32]) {
        for (mine, theirs) in self.words.iter_mut().zip(words) {
            *mine = *theirs;
        }
    }

    pub(super) fn keep(&mut self, words: &[u32]) {
        for (mine, theirs) in self.words.iter_mut().zip(words) {
            *mine &= theirs;
        }
    }

    pub(super) fn remove(&mut self, id: u32) {
        if let Some(word) = self.words.get_mut(id as usize / 32) {
            *word &= !(1 << (id % 32));
        }
    }

    pub(super) fn words(&self) -> &[u32] {
        &self.words
    }

    /// True if the token is in the set.
    pub fn contains(&self, id: u32) -> bool {
        let word = self.words.get(id as usize / 32);
        word.is_some_and(|word| word & (1 << (id % 32)) != 0)
    }

    /// True if no token is in the set.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// Tokens in the set.
    pub fn count(&self) -> usize {
        self.words.iter().map(|w| w.count_ones() as usize).sum()
    }
}

/// A tree of texts in depth-first order: a walk is one pass that jumps over closed branches.
#[derive(Debug)]
pub(super) struct Trie {
    nodes: Vec<Node>,
    /// Tokens, grouped by node; several tokens may have one text.
    ids: Vec<u32>,
    /// Bytes of the longest text.
    pub(super) longest: usize,
}

#[derive(Debug)]
struct Node {
    byte: u8,
    /// Bytes before this one.
    depth: u32,
    /// The node after this one's branch.
    end: u32,
    /// Its tokens, a range of `ids`.
    ids: (u32, u32),
}

impl Trie {
    pub(super) fn new(texts: &[Option<Vec<u8>>]) -> Self {
        let mut order: Vec<(&[u8], u32)> = texts
            .iter()
            .zip(0..)
            .filter_map(|(text, id)| Some((text.as_deref()?, id)))
            .collect();
        order.sort_unstable();
        let mut trie = Self {
            nodes: Vec::new(),
            ids: Vec::with_capacity(order.len()),
            longest: order.iter().map(|(text, _)| text.len()).max().unwrap_or(0),
        };
        let mut path: Vec<usize> = Vec::new();
        let mut last: &[u8] = &[];
        for (text, id) in order {
            let common = text.iter().zip(last).take_while(|(a, b)| a == b).count();
            trie.close(&mut path, common);
            for (depth, byte) in text.iter().enumerate().skip(common) {
                path.push(trie.nodes.len());
                let here = trie.ids.len() as u32;
                trie.nodes.push(Node {
                    byte: *byte,
                    depth: depth as u32,
                    end: 0,
                    ids: (here, here),
                });
            }
            trie.ids.push(id);
            if let Some(node) = path.last() {
                trie.nodes[*node].ids.1 = trie.ids.len() as u32;
            }
            last = text;
        }
        trie.close(&mut path, 0);
        trie
    }

    fn close(&mut self, path: &mut Vec<usize>, depth: usize) {
        let end = self.nodes.len() as u32;
        for node in path.drain(depth..) {
            self.nodes[node].end = end;
        }
    }

    /// Tells the tokens that the automaton can read from `state`, and the state after them; returns
    /// the nodes that were looked at.
    pub(super) fn walk(
        &self,
        automaton: &Automaton,
        state: u32,
        mut found: impl FnMut(&[u32], u32),
    ) -> usize {
        let mut states = vec![state; self.longest + 1];
        let (mut at, mut looked) = (0, 0);
        while let Some(node) = self.nodes.get(at) {
            looked += 1;
            let depth = node.depth as usize;
            let next = automaton.next(states[depth], node.byte);
            if next == DEAD {
                at = node.end as usize;
                continue;
            }
            states[depth + 1] = next;
            if node.ids.0 < node.ids.1 {
                found(&self.ids[node.ids.0 as usize..node.ids.1 as usize], next);
            }
            at += 1;
        }
        looked
    }

    /// True if every byte of valid UTF-8 is a token of its own, so that every text can be said.
    pub(super) fn has_all_bytes(&self) -> bool {
        let mut alone = [false; 256];
        for node in self.nodes.iter().filter(|n| n.depth == 0) {
            alone[usize::from(node.byte)] |= node.ids.0 < node.ids.1;
        }
        (0..=255_u8).all(|byte| alone[usize::from(byte)] || matches!(byte, 0xc0 | 0xc1 | 0xf5..))
    }
}
