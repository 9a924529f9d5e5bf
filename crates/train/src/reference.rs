//! What the reference policy does while the policy is trained: it stays, or it follows.

use serde::{Deserialize, Serialize};
use togi_policy::Decoder;

use crate::{
    checkpoint::{Checkpoint, Stored},
    config::{at_least_one, within},
    error::TrainError,
    optimizer::AdamW,
};

/// How the reference follows the policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum ReferenceUpdate {
    /// It stays the model that training starts from.
    #[default]
    Frozen,
    /// Every so many updates it moves towards the policy, `ref ← α π + (1 - α) ref` on the weights:
    /// TR-DPO (Gorbatovski et al. 2024), with α = 0.6 every 512 updates as TRL; α = 1 replaces it.
    Synced {
        /// Updates between the moves.
        every: u64,
        /// How far it moves.
        alpha: f64,
    },
    /// An exponential moving average of the policy's weights: after each update `ref ← decay ref + (1 -
    /// decay) π`.
    Ema {
        /// The share of the reference that stays.
        decay: f64,
    },
}

impl ReferenceUpdate {
    /// # Errors
    /// Names the field that is out of range.
    pub fn validate(&self) -> Result<(), TrainError> {
        match self {
            Self::Frozen => Ok(()),
            Self::Synced { every, alpha } => {
                at_least_one("reference.every", *every as usize)?;
                within("reference.alpha", *alpha, 1e-9, 1.0)
            }
            Self::Ema { decay } => within("reference.decay", *decay, 0.0, 0.999_999_999),
        }
    }

    /// True if the reference does not stay as it is.
    pub fn moves(&self) -> bool {
        *self != Self::Frozen
    }

    /// How far it moves after update number `update` (from 1), if it does.
    fn share(&self, update: u64) -> Option<f64> {
        match self {
            Self::Frozen => None,
            Self::Synced { every, alpha } => update.is_multiple_of(*every).then_some(*alpha),
            Self::Ema { decay } => Some(1.0 - decay),
        }
    }

    /// Moves `reference` after update number `update` (from 1). True if it moved.
    ///
    /// # Errors
    /// When the two are different models.
    pub(crate) fn follow(
        &self,
        reference: &mut Decoder,
        policy: &Decoder,
        update: u64,
    ) -> Result<bool, TrainError> {
        let Some(share) = self.share(update) else {
            return Ok(false);
        };
        if policy.lora.is_some() {
            let mut merged = policy.clone();
            merged.merge_lora();
            reference.params.mix(&merged.params, share)?;
        } else {
            reference.params.mix(&policy.params, share)?;
        }
        Ok(true)
    }
}

/// # Errors
/// Names the field that is out of range, or that does not go with the other.
pub(crate) fn kl_limits(kl_budget: f64, reference: &ReferenceUpdate) -> Result<(), TrainError> {
    reference.validate()?;
    within("kl_budget", kl_budget, 0.0, f64::MAX)?;
    if kl_budget > 0.0 && reference.moves() {
        let reason = "is counted from a reference that stays: set reference.kind=frozen";
        return Err(TrainError::config("kl_budget", reason));
    }
    Ok(())
}

/// Puts a reference that moves into a checkpoint.
pub(crate) fn save(checkpoint: &mut Checkpoint, reference: &Decoder) {
    checkpoint.add("reference", reference, &AdamW::default());
}

/// Reads it back.
///
/// # Errors
/// As [`Stored::restore`].
pub(crate) fn restore(stored: &Stored, reference: &mut Decoder) -> Result<(), TrainError> {
    stored.restore_parameters("reference", reference)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_moves_when_and_as_far_as_it_says() {
        let synced = ReferenceUpdate::Synced {
            every: 3,
            alpha: 0.6,
        };
        let moves: Vec<_> = (1..=6).map(|update| synced.share(update)).collect();
        assert_eq!(moves, [None, None, Some(0.6), None, None, Some(0.6)]);
        assert_eq!(ReferenceUpdate::Ema { decay: 0.75 }.share(1), Some(0.25));
        assert_eq!(ReferenceUpdate::Frozen.share(1), None);
        for wrong in [
            ReferenceUpdate::Synced {
                every: 0,
                alpha: 0.6,
            },
            ReferenceUpdate::Synced {
                every: 1,
                alpha: 1.5,
            },
            ReferenceUpdate::Ema { decay: 1.0 },
        ] {
            assert!(wrong.validate().is_err(), "{wrong:?}");
        }
    }
}
