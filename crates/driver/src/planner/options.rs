//! Settings of the planner.

/// When epochs are planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// At most once per interval; 0: as soon as there is input.
    Interval { interval_ms: u64 },
    /// All input that is there at the start, in as many epochs as limits ask for, then stop.
    AvailableNow,
    /// One epoch with all input that is there at the start, then stop.
    Once,
}

/// Settings of the planner.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlanOptions {
    /// `trigger`.
    pub trigger: Trigger,
    /// `epoch.min-interval`: shortest time between two epochs.
    pub min_interval_ms: u64,
    /// `epoch.start-rows`: size of the first epochs after a start.
    pub start_rows: u64,
    /// `epoch.max-rows`.
    pub max_rows: u64,
    /// `epoch.max-bytes`: most input bytes of an epoch, once the size of a record is known.
    pub max_bytes: u64,
    /// `epoch.target`: how long a full epoch should take.
    pub target_ms: u64,
    /// `checkpoint.interval`.
    pub checkpoint_interval_ms: u64,
    /// A quarter of `state.memory`: a checkpoint is due when so much state per executor has to stay in memory until there is one.
    pub max_unsealed_bytes: u64,
    /// `sink.flush-bytes`: sinks that gather publish when this much output has come together.
    pub flush_bytes: u64,
}

impl Default for PlanOptions {
    fn default() -> Self {
        Self {
            trigger: Trigger::Interval { interval_ms: 0 },
            min_interval_ms: 5,
            start_rows: 50_000,
            max_rows: 1_000_000,
            max_bytes: 256 << 20,
            target_ms: 200,
            checkpoint_interval_ms: 10_000,
            max_unsealed_bytes: 256 << 20,
            flush_bytes: 64 << 20,
        }
    }
}
