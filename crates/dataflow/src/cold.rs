//! State that is not in memory.
//!
//! What an operator has sealed can be read from its task's store as soon as it is written there. The operator may then let go of it, and reads it again
//! when a row needs it. When that happens depends on memory and on how fast the store is; what is emitted and sealed must not.
//!
//! An operator counts its seals. What it sealed n-th may be let go of once [`ColdState::stored_seals`] has reached n, if it has not changed since;
//! what was restored, always. A later seal never deletes what an operator has let go of unless the operator itself says so.
use millstream_plan::OperatorId;

use crate::DataflowError;

/// Keys and values, in order of keys.
pub type Entries = Vec<(Vec<u8>, Vec<u8>)>;

/// Reads the store of a task. Keys and values are those of the operators' [`StateChange`](crate::operators::StateChange)s.
pub trait ColdState: Send + Sync {
    /// So many seals of this task, counted since it was restored, can be read.
    fn stored_seals(&self) -> u64;

    /// The values of an operator's keys, which are sorted, in their order.
    ///
    /// # Errors
    /// The store cannot be read.
    fn get(&self, operator: OperatorId, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, DataflowError>;

    /// All entries of an operator whose key begins with `prefix`, in order of keys.
    ///
    /// # Errors
    /// The store cannot be read.
    fn scan(&self, operator: OperatorId, prefix: &[u8]) -> Result<Entries, DataflowError>;
}
