//! The memory of operators' state: how much all tasks of an executor hold together, and what each may keep.
//!
//! After an epoch a task says what its state takes. If all together hold more than `state.memory`, it lets go of its part of the excess, and of a little
//! more, so that this does not happen with every epoch. Only what the task's store already has can go ([`StoreReader`]).
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use millstream_dataflow::DataflowError;
use millstream_dataflow::cold::{ColdState, Entries};
use millstream_plan::OperatorId;
use millstream_state::keys;
use millstream_state::task::TaskStore;

use crate::checkpoint::ENTRIES;

/// What all tasks of an executor share.
#[derive(Debug)]
pub(crate) struct StateMemory {
    budget: u64,
    resident: AtomicU64,
}

impl StateMemory {
    pub fn new(budget: u64) -> Arc<Self> {
        Arc::new(Self { budget, resident: AtomicU64::new(0) })
    }

    pub fn budget(&self) -> u64 {
        self.budget
    }
}

/// What one task holds of it.
pub(crate) struct Share {
    memory: Arc<StateMemory>,
    own: u64,
}

impl Share {
    pub fn new(memory: &Arc<StateMemory>) -> Self {
        Self { memory: memory.clone(), own: 0 }
    }

    /// The task's state takes `bytes` now. Returns to how much it should shrink, if all hold too much.
    pub fn holds(&mut self, bytes: u64) -> Option<u64> {
        let before = std::mem::replace(&mut self.own, bytes);
        let resident = self.memory.resident.fetch_add(bytes.wrapping_sub(before), Ordering::Relaxed);
        let all = resident.wrapping_add(bytes).wrapping_sub(before);
        let budget = self.memory.budget;
        (all > budget).then(|| (u128::from(bytes) * u128::from(budget) * 4 / 5 / u128::from(all.max(1))) as u64)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.memory.resident.fetch_sub(self.own, Ordering::Relaxed);
    }
}

/// Reads what operators have sealed from the task's store.
pub(crate) struct StoreReader {
    store: Arc<TaskStore>,
    seals: AtomicU64,
}

impl StoreReader {
    pub fn new(store: Arc<TaskStore>) -> Self {
        Self { store, seals: AtomicU64::new(0) }
    }

    /// One more seal is in the store.
    pub fn stored(&self) {
        self.seals.fetch_add(1, Ordering::Release);
    }
}

impl ColdState for StoreReader {
    fn stored_seals(&self) -> u64 {
        self.seals.load(Ordering::Acquire)
    }

    fn get(&self, operator: OperatorId, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, DataflowError> {
        let keys: Vec<Vec<u8>> = keys.iter().map(|key| keys::state_key(operator, ENTRIES, key)).collect();
        self.store.get_many(&keys).map_err(|e| DataflowError::Store(e.to_string()))
    }

    fn scan(&self, operator: OperatorId, prefix: &[u8]) -> Result<Entries, DataflowError> {
        let prefix = keys::state_key(operator, ENTRIES, prefix);
        let mut found = Vec::new();
        let scanned = self.store.scan_prefix::<millstream_state::StateError>(&prefix, |key, value| {
            if let Some((_, _, own)) = keys::split_key(key) {
                found.push((own.to_vec(), value.to_vec()));
            }
            Ok(())
        });
        scanned.map_err(|e| DataflowError::Store(e.to_string()))?;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_give_back_in_proportion_when_all_hold_too_much() {
        let memory = StateMemory::new(1_000);
        let (mut a, mut b) = (Share::new(&memory), Share::new(&memory));
        assert_eq!(a.holds(900), None);
        assert_eq!(b.holds(100), None, "all is used, and no more");
        assert_eq!(b.holds(1_100), Some(440), "eleven twentieths of four fifths");
        assert_eq!(b.holds(440), Some(262));
        assert_eq!(a.holds(360), None);
        drop(b);
        assert_eq!(a.holds(1_000), None, "what a task held that has ended is free");
    }
}
