//! Settings of the coordinator.
use std::collections::BTreeMap;

use millstream_protocol::messages::JobSpec;

use crate::chain::WriterId;
use crate::planner::PlanOptions;
use crate::shape::{Millis, PipelineShape};

/// Settings of the coordinator.
#[derive(Clone, Debug)]
pub struct Config {
    pub job: JobSpec,
    pub shape: PipelineShape,
    pub plan: PlanOptions,
    /// A name that no other run of a driver has.
    pub writer: WriterId,
    /// Where this driver runs, for people.
    pub host: String,
    /// Settings that the genesis of a new pipeline records.
    pub options: BTreeMap<String, String>,
    /// Build version; executors of another one are sent away.
    pub version: String,
    pub executors: Executors,
    /// Epochs that are dispatched and not processed by all tasks.
    pub max_in_flight: usize,
    /// Their expected output.
    pub max_in_flight_bytes: u64,
    /// Output that is processed and not published.
    pub max_unpublished_bytes: u64,
    /// Epochs that are processed and could be published, but are not.
    pub max_unpublished: usize,
    /// No heartbeat for this long: the executor is lost.
    pub heartbeat_timeout_ms: Millis,
    /// Restoring may take this long.
    pub restore_timeout_ms: Millis,
    /// A drain may take this long.
    pub drain_timeout_ms: Millis,
    /// Stop after so many crashes of executors in the same epoch.
    pub max_crashes: u32,
    /// Stop when an epoch has failed for this long (outages outside are waited for until then).
    pub give_up_ms: Millis,
    /// Replaying the plans since the last checkpoint should take no longer.
    pub replay_target_ms: u64,
    /// Checkpoints that stay (at least 2).
    pub keep_checkpoints: usize,
}

/// Which executors to wait for at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Executors {
    /// Start as soon as so many have joined.
    pub expected: usize,
    /// Start with fewer after this long.
    pub wait_ms: Millis,
}

impl Config {
    /// Settings with their defaults.
    #[must_use]
    pub fn new(job: JobSpec, shape: PipelineShape, plan: PlanOptions, writer: WriterId) -> Self {
        Self {
            job,
            shape,
            plan,
            writer,
            host: String::new(),
            options: BTreeMap::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            executors: Executors { expected: 1, wait_ms: 5_000 },
            max_in_flight: 4,
            max_in_flight_bytes: 512 << 20,
            max_unpublished_bytes: 256 << 20,
            max_unpublished: 64,
            heartbeat_timeout_ms: 3_000,
            restore_timeout_ms: 600_000,
            drain_timeout_ms: 60_000,
            max_crashes: 8,
            give_up_ms: 600_000,
            replay_target_ms: 3_000,
            keep_checkpoints: 3,
        }
    }
}
