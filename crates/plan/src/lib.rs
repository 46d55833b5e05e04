//! The vocabulary of deterministic epochs.
//!
//! A **plan** ([`EpochPlan`]) names everything that the result of one micro-batch may depend on: the exact range of every
//! source split, the watermark of every source table, the value of `now()`, and whether the epoch takes a checkpoint or makes
//! file sinks publish. The same plan on the same state gives identical output. Everything in this crate is plain data: no
//! I/O, no clock, no threads.
//!
//! | term | meaning |
//! |---|---|
//! | epoch | one micro-batch; numbered from 1 without gaps per pipeline |
//! | generation | one leadership of a driver; grows with every takeover |
//! | attempt | one deployment of the tasks inside a generation; grows with every rollback |
//! | era | (generation, attempt), carried by every message; receivers drop lower ones |
//! | split | a Kafka partition, a file, a shard of a generator: the unit in which input is planned |
//! | stage | a part of the graph between shuffles; runs as `parallelism` tasks |
//! | key group | hash of the key modulo [`KEY_GROUPS`]; the unit in which state moves |
pub mod config_file;
mod digest;
mod epoch;
mod ids;
pub mod options;
mod time;

pub use digest::{ContentHash, Digest, DigestBuilder};
pub use epoch::{EpochPlan, SourcePlan, SplitRange};
pub use ids::{
    Attempt, Epoch, Era, ExecutorId, Generation, KEY_GROUPS, KeyGroup, OperatorId, SinkId, SourceId, SplitId, StageId,
    TaskId, key_groups_of, owner_of,
};
pub use time::Watermark;
