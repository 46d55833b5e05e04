//! How much state waits for a checkpoint, and how much an epoch adds to it.
use super::EpochDone;

/// Weight of the newest epoch in the measured average.
const NEWEST: f64 = 0.3;

/// Per executor.
#[derive(Clone, Debug, Default)]
pub(super) struct Unsealed {
    bytes: u64,
    /// Measured over epochs without a checkpoint.
    bytes_per_position: f64,
}

impl Unsealed {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn epoch_done(&mut self, done: &EpochDone<'_>) {
        let bytes = done.unsealed_bytes / done.executors.max(1) as u64;
        let positions = done.plan.positions();
        if positions > 0 && !done.plan.checkpoint && bytes >= self.bytes {
            let new = (bytes - self.bytes) as f64 / positions as f64;
            self.bytes_per_position += NEWEST * (new - self.bytes_per_position);
        }
        self.bytes = bytes;
    }

    /// Most positions of an epoch that adds half of `most` bytes.
    pub(super) fn max_positions(&self, most: u64) -> u64 {
        let positions = most as f64 / 2.0 / self.bytes_per_position.max(1e-9);
        if positions < 1e15 { (positions as u64).max(1) } else { u64::MAX }
    }
}
