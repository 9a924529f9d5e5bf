//! Which states of an automaton whole tokens lead on from.

use super::{automaton::Automaton, trie::Trie};

/// Nodes of tries that are looked at before the search gives up, about a fifth of a second.
const BUDGET: usize = 40_000_000;

/// What tokens can do with an automaton.
#[derive(Debug, Default)]
pub(super) struct Reach {
    /// States from which tokens lead to an accepting one; `None` if it is all of them, or if the
    /// search gave up.
    pub(super) alive: Option<Vec<bool>>,
    /// Tokens of the shortest completion, or fewer if the search gave up.
    pub(super) fewest: usize,
}

/// Follows whole tokens from the start. `None` if none of their sequences is accepted.
pub(super) fn reach(automaton: &Automaton, first: &Trie, later: &Trie) -> Option<Reach> {
    let shortest = automaton.shortest()?;
    // With a token for every byte, where a text leads on tokens do.
    let complete = later.has_all_bytes();
    let states = automaton.states();
    let start = states;
    let mut fewest = automaton.accepts(0).then_some(0);
    let mut followers: Vec<Vec<u32>> = vec![Vec::new(); states + 1];
    let mut seen = vec![false; states];
    let mut last_from = vec![usize::MAX; states];
    let mut layer = vec![start];
    let mut tokens = 0;
    let mut looked = 0;
    while !layer.is_empty() {
        if complete && fewest.is_some() {
            break;
        }
        tokens += 1;
        let mut next_layer = Vec::new();
        for from in layer {
            let (trie, state) = if from == start {
                (first, 0)
            } else {
                (later, from as u32)
            };
            looked += trie.walk(automaton, state, |_, next| {
                let to = next as usize;
                if last_from[to] == from {
                    return;
                }
                last_from[to] = from;
                followers[from].push(next);
                if !seen[to] {
                    seen[to] = true;
                    next_layer.push(to);
                    if automaton.accepts(next) {
                        fewest = fewest.or(Some(tokens));
                    }
                }
            });
            if looked > BUDGET {
                let longest = first.longest.max(later.longest).max(1);
                return Some(Reach {
                    alive: None,
                    fewest: fewest.unwrap_or(shortest.div_ceil(longest)),
                });
            }
        }
        layer = next_layer;
    }
    let fewest = fewest?;
    if complete {
        return Some(Reach {
            alive: None,
            fewest,
        });
    }
    let mut before: Vec<Vec<usize>> = vec![Vec::new(); states];
    for (from, followers) in followers.iter().enumerate() {
        for to in followers {
            before[*to as usize].push(from);
        }
    }
    let mut alive = vec![false; states + 1];
    let mut queue: Vec<usize> = (0..states)
        .filter(|state| seen[*state] && automaton.accepts(*state as u32))
        .collect();
    for state in &queue {
        alive[*state] = true;
    }
    while let Some(state) = queue.pop() {
        for from in before.get(state).into_iter().flatten() {
            if !alive[*from] {
                alive[*from] = true;
                queue.push(*from);
            }
        }
    }
    Some(Reach {
        alive: Some(alive),
        fewest,
    })
}
