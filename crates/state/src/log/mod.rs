//! Where the records of the plan log are kept. A record is opaque here: its chain (hash of the predecessor, generation,
//! writer) is the driver's business and is what makes two records of two writers different.
//!
//! # Contract of a [`LogStore`]
//! - A **slot** holds one record for ever: of racing appends exactly one gets [`Append::Appended`], the others get the
//!   winner's bytes. Appending the same bytes again is `Appended` too, so an append whose reply was lost is repeated.
//! - `Appended` means durable. After [`StateError::Retry`] the record may be there, may not, and may still
//!   appear: append the same bytes again, or read the slot.
//! - Slots may be appended in any order and at the same time; a reader may see gaps. The log is durable up to a slot
//!   when every slot up to it is there.
//! - A damaged record is an error that names the slot; it is never skipped and never returned.
//! - Truncated slots read as absent. They can be appended again: readers begin at a slot that a checkpoint names.
mod local;
mod object;

use async_trait::async_trait;
use bytes::Bytes;

pub use local::LocalLog;
pub use object::ObjectLog;

use crate::StateError;

/// Outcome of an append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Append {
    /// The slot holds this record, durably.
    Appended,
    /// The slot holds another record, for good.
    Occupied(Bytes),
}

/// A record and its slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Where it stands.
    pub slot: u64,
    /// As appended.
    pub record: Bytes,
}

/// Slots of records; see the [module's documentation](self) for the contract.
#[async_trait]
pub trait LogStore: Send + Sync + 'static {
    /// Puts a record into a free slot.
    async fn append(&self, slot: u64, record: &[u8]) -> Result<Append, StateError>;

    /// The record of a slot; `None` when it is free.
    async fn read(&self, slot: u64) -> Result<Option<Bytes>, StateError>;

    /// All records from a slot on, in order of slots. What is appended meanwhile may be missing.
    async fn scan(&self, from: u64) -> Result<Vec<LogEntry>, StateError>;

    /// Deletes all records before a slot. Only what a complete checkpoint has made superfluous may be deleted.
    async fn truncate_before(&self, slot: u64) -> Result<(), StateError>;
}
