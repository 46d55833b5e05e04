//! What the control plane must know of a pipeline: sources with their limits, stages, sinks, timers. Everything else of the graph
//! is the executors' business.
use std::collections::BTreeMap;

use millstream_plan::{Digest, OperatorId, SinkId, SourceId, StageId, TaskId};

/// Milliseconds since 1970 UTC. The shell takes care that it never goes back.
pub type Millis = i64;

/// A pipeline as the control plane sees it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PipelineShape {
    /// `pipeline.name`.
    pub name: String,
    /// Of the graph; guards that every process planned the same one.
    pub fingerprint: Digest,
    /// Tasks per stage at the first start. Later the log's genesis decides.
    pub parallelism: u16,
    /// Ordered by id.
    pub sources: Vec<SourceShape>,
    /// All stages.
    pub stages: Vec<StageId>,
    /// Ordered by id.
    pub sinks: Vec<SinkShape>,
    /// Operators that can have something to do without new input, and the clock that they follow.
    pub timers: BTreeMap<OperatorId, TimerDomain>,
}

/// A source table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SourceShape {
    pub id: SourceId,
    /// Name of the table.
    pub name: String,
    /// Some operator uses the table's time attribute. Otherwise its watermark stays at the minimum until the input has ended.
    pub uses_watermark: bool,
    /// `watermark.idle-timeout`: a split without rows for this long does not hold the watermark back.
    pub idle_timeout_ms: Option<u64>,
    /// `maxOffsetsPerTrigger`.
    pub max_per_trigger: Option<u64>,
    /// `minOffsetsPerTrigger`.
    pub min_per_trigger: Option<u64>,
    /// `maxTriggerDelay`: with less input than the minimum, plan after this long anyway.
    pub max_trigger_delay_ms: u64,
    /// The table is looked up by rows of other tables: see the planner's *Side tables*.
    pub side: Option<Side>,
}

/// How a table that is looked up is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Whole, before anything else; what is found after that is not read.
    Whole,
    /// What is there when an epoch is planned, before anything else.
    Refreshed,
}

/// A sink of the pipeline.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SinkShape {
    pub id: SinkId,
    /// Name of the table.
    pub name: String,
    /// The stage whose tasks write it.
    pub stage: StageId,
    /// `None`: every epoch is published; otherwise epochs with `flush`, at least this often.
    pub commit_interval_ms: Option<u64>,
}

/// The clock of an operator's timers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TimerDomain {
    /// The minimum over these sources' watermarks.
    Event(Vec<SourceId>),
    /// `now_ms` of the plan.
    Processing,
}

impl PipelineShape {
    /// All tasks when every stage has `parallelism` of them, in order.
    pub fn tasks(&self, parallelism: u16) -> impl Iterator<Item = TaskId> + '_ {
        self.stages.iter().flat_map(move |&stage| (0..parallelism).map(move |index| TaskId { stage, index }))
    }

    /// All (sink, task) that publish, in order.
    pub fn sink_tasks(&self, parallelism: u16) -> impl Iterator<Item = (SinkId, TaskId)> + '_ {
        self.sinks.iter().flat_map(move |s| (0..parallelism).map(move |index| (s.id, TaskId { stage: s.stage, index })))
    }
}
