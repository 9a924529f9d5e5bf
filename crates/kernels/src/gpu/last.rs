//! What one layer makes and the next wants too.

use std::sync::{Mutex, PoisonError};

/// The value that was made last, and what of.
pub(super) struct Last<K, V>(Mutex<Option<(K, V)>>);

impl<K, V: Clone> Last<K, V> {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// The last value if it was made of the same; otherwise a new one, which is the last from then on.
    pub(super) fn or_make(
        &self,
        same: impl FnOnce(&K) -> bool,
        make: impl FnOnce() -> (K, V),
    ) -> V {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((key, value)) = &*last
            && same(key)
        {
            return value.clone();
        }
        let (key, value) = make();
        *last = Some((key, value.clone()));
        value
    }
}
