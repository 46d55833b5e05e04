//! The chain of records: the whole truth about a pipeline.
//!
//! The log is a row of numbered **slots**, each written at most once. A slot holds a **record**; every record names the hash of the
//! record before it. The rules that make one chain out of what several drivers wrote into the slots are in [`Tip::judge`]:
//!
//! - A record that does not name the hash of the last valid record is **void**: every reader skips its slot.
//! - A record of a lower generation is void. A higher generation begins with a claim; inside a generation only its claimant writes.
//! - The chain ends at the first free slot, whatever stands behind it.
//!
//! A takeover writes its [`Claim`] into the first free slot. What stands before it in the chain is adopted, because its writer may
//! have told sinks to publish it. What the old leader still has on the way lands in later slots and is void there, or is refused.
//!
//! An epoch is **durable** when its record and *all records before it* are known to be in their slots, and all slots between them are
//! known to be taken ([`Writer`]). Then no free slot is left in which a claim could cut it off.
//!
//! `Void { from: n }` takes the plans `n` and later out of the chain again; it is written only when no part of `n` or later is
//! published and every sink is fenced against the epochs that it takes out.
mod fold;
mod record;
mod tip;
mod writer;

pub use fold::{Fold, FoldError, History, LoggedPlan, SourceHistory, SplitHistory};
pub use record::{Body, Claim, Genesis, Record, RecordError, Slot, WriterId};
pub use tip::{Tip, Verdict, VoidReason};
pub use writer::{CONFIRM_WITHIN_MS, Outcome, Reply, Writer, WriterCommand};
