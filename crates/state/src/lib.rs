//! What Millstream keeps: the state of tasks, the log of plans, checkpoints. Nothing else in the project sees RocksDB.
//!
//! | module | keeps | where |
//! |---|---|---|
//! | [`task`] | the state table of one task | a RocksDB per task, on local disk |
//! | [`log`] | records of the driver's plan log, by slot | a RocksDB with synced writes, or `log/<slot>` in the checkpoint location |
//! | [`backup`] | the files of a task's snapshot | `state/<content hash>` in the checkpoint location |
//! | [`manifest`] | which files make up a checkpoint | `checkpoints/<epoch>` |
//! | [`generation`] | who leads | `generation/<number>` |
//! | [`objects`] | all of the above, as create-only objects | an S3 bucket or a folder |
//!
//! # Order of writes of a checkpoint
//! 1. The task flushes and takes a [`task::Snapshot`]: hard links to immutable files.
//! 2. [`backup::Uploader::upload`] creates every object that is not stored yet, and returns when all of them are durable.
//! 3. The driver, when all tasks have reported, creates the manifest ([`manifest::Checkpoints::put`]).
//! 4. Only then may plans before the checkpoint be truncated ([`log::LogStore::truncate_before`]) and older manifests and
//!    objects be deleted ([`collect::collect`]).
//!
//! A crash before 3 leaves objects that no manifest names: `collect` removes them later. A crash after 3 leaves a
//! complete checkpoint. Nothing is ever overwritten: every object is written once, by a PUT that must create.
pub mod backup;
pub mod collect;
mod disk;
mod error;
pub mod generation;
pub mod keys;
pub mod log;
pub mod manifest;
pub mod objects;
mod rocks;
pub mod task;

pub use error::StateError;
