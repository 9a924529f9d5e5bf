//! The order in which samples are seen: a pure function of seed and epoch.

use crate::rng::CounterRng;

/// Shuffled epochs over `len` samples, addressed by a running number so that a run can be
/// resumed anywhere.
#[derive(Clone, Debug)]
pub struct Order {
    seed: u64,
    len: usize,
    epoch: u64,
    shuffled: Vec<usize>,
}

impl Order {
    /// Epochs over `len` samples.
    pub fn new(seed: u64, len: usize) -> Self {
        let mut order = Self {
            seed,
            len,
            epoch: 0,
            shuffled: Vec::new(),
        };
        order.shuffle(0);
        order
    }

    fn shuffle(&mut self, epoch: u64) {
        self.epoch = epoch;
        self.shuffled = (0..self.len).collect();
        CounterRng::new(self.seed, &[0x6f72_6465, epoch]).shuffle(&mut self.shuffled);
    }

    /// The samples of batch number `batch` of `size`: batches run on across epochs, and an
    /// epoch's tail joins the next one's head.
    pub fn batch(&mut self, batch: u64, size: usize) -> Vec<usize> {
        if self.len == 0 {
            return Vec::new();
        }
        (0..size as u64)
            .map(|i| {
                let at = batch * size as u64 + i;
                let epoch = at / self.len as u64;
                if epoch != self.epoch {
                    self.shuffle(epoch);
                }
                self.shuffled[(at % self.len as u64) as usize]
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Order;

    #[test]
    fn an_epoch_sees_every_sample_once_and_any_batch_can_be_asked_for_directly() {
        let mut order = Order::new(3, 10);
        let all: Vec<Vec<usize>> = (0..5).map(|b| order.batch(b, 4)).collect();
        let flat: Vec<usize> = all.iter().flatten().copied().collect();
        for epoch in flat.chunks(10) {
            let mut seen = epoch.to_vec();
            seen.sort_unstable();
            assert_eq!(seen, (0..10).collect::<Vec<_>>());
        }
        assert_ne!(flat[..10], flat[10..]);
        assert_eq!(Order::new(3, 10).batch(4, 4), all[4]);
        assert_ne!(Order::new(4, 10).batch(0, 4), all[0]);
    }
}
