//! What CubeCL's pools reserve on a GPU for what is asked of them: whole pages.

use super::{Demand, FLOAT, Work, prompts};

const MEBIBYTE: u64 = 1 << 20;
/// Tensors of up to so many numbers have pages of their own.
const SMALL: usize = 1 << 14;
/// Those are of so many bytes.
const SMALL_PAGE: u64 = 8 * MEBIBYTE;

impl Demand {
    /// Bytes of the pages that so many bytes of tensors are on, but for the tensors. A page is of the largest of them,
    /// which has so many numbers, and a mebibyte more.
    pub(super) fn pages_not_filled(&self, asked: u64, largest: usize) -> u64 {
        let page = (largest as u64 * FLOAT + MEBIBYTE).next_multiple_of(MEBIBYTE);
        let small = (self.in_small_tensors() as u64 * FLOAT).min(asked);
        let pages = (asked - small).next_multiple_of(page);
        pages + small.max(1).next_multiple_of(SMALL_PAGE) - asked
    }

    /// Numbers in the largest tensor, where so many tokens go through the model at a time, so many of them scored, the
    /// longest sample of so many: a matrix, a block of logits, attention's scores, or what is wide in a layer.
    pub(super) fn largest_tensor(&self, (tokens, scored, longest): (usize, usize, usize)) -> usize {
        let config = &self.config;
        let matrix = config.vocab_size.max(config.intermediate_size) * config.hidden_size;
        let (tokens, scored) = match &self.work {
            Work::Fixed {
                sizes, looked_at, ..
            } => {
                let most = sizes.iter().map(|size| size.1).max().unwrap_or(0);
                (
                    tokens.max(looked_at * longest),
                    scored.max(looked_at * most),
                )
            }
            Work::Drawn {
                prompt,
                new,
                group,
                at_once,
                scored: looked_at,
                held_out,
                ..
            } => {
                let entering = prompt * prompts(*at_once, *group).max(*held_out);
                let looking = looked_at * self.together(*prompt, *new);
                (
                    tokens.max(entering).max(looking),
                    scored.max(looked_at * new),
                )
            }
        };
        matrix
            .max(self.block_of_logits(scored))
            .max(self.scores(tokens, longest))
            .max(tokens * config.intermediate_size)
    }

    /// Numbers in the small matrices of an adapter, which is all that lasts in small tensors unless the model is small
    /// as a whole; their gradients and moments are as small.
    fn in_small_tensors(&self) -> usize {
        let Some(lora) = &self.lora else { return 0 };
        let of = |module: &String| {
            let (inner, outer) = self.linear(module);
            let matrices = [lora.r * inner, lora.r * outer].into_iter();
            matrices.filter(|numbers| *numbers <= SMALL).sum::<usize>()
        };
        4 * self.config.num_hidden_layers * lora.target_modules.iter().map(of).sum::<usize>()
    }
}
