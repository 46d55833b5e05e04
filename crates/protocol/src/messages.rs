//! Control messages.
use std::collections::BTreeMap;

use millstream_plan::{
    ContentHash, Digest, Epoch, EpochPlan, Era, ExecutorId, OperatorId, SinkId, SourceId, SplitId, TaskId, Watermark,
};

/// Driver → executor.
#[derive(Clone, Debug, PartialEq)]
pub enum ToExecutor {
    /// Stop all tasks, drop queues and hot state, restore the checkpoint, take the tasks placed here, answer `Ready`.
    Deploy(Box<Deployment>),
    /// Process an epoch. Sent in epoch order, each epoch once per era.
    Run { era: Era, plan: EpochPlan },
    /// The chain of plans up to this epoch is durable: sinks may publish up to it.
    Durable { era: Era, epoch: Epoch },
    /// The checkpoint of this epoch has its manifest: local checkpoints and backups of earlier ones may be collected.
    Checkpointed { era: Era, epoch: Epoch },
    /// Leave: finish nothing more, publish what is durable and processed, answer `Bye`, exit 0.
    Shutdown,
}

/// One deployment of the pipeline's tasks.
#[derive(Clone, Debug, PartialEq)]
pub struct Deployment {
    pub era: Era,
    /// The pipeline: executors plan the same text into the same graph.
    pub job: JobSpec,
    /// Fingerprint of the graph that the driver planned; an executor that gets another one answers `Failed` (fatal).
    pub fingerprint: Digest,
    /// Tasks per stage; the same for the whole life of the pipeline.
    pub parallelism: u16,
    /// Where every task runs in this era.
    pub placement: BTreeMap<TaskId, ExecutorId>,
    /// Addresses (`host:port`) of the executors' shuffle services.
    pub peers: BTreeMap<ExecutorId, String>,
    /// The checkpoint to start from; `None` is the empty state before epoch 1.
    pub restore: Option<Restore>,
}

/// The SQL text of a pipeline and the overrides of its options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobSpec {
    pub sql: String,
    /// `--conf` overrides, stronger than `SET` in the text.
    pub conf: BTreeMap<String, String>,
}

/// State to start from.
#[derive(Clone, Debug, PartialEq)]
pub struct Restore {
    pub epoch: Epoch,
    pub tasks: BTreeMap<TaskId, TaskState>,
}

/// The state of one task in a checkpoint: files of its RocksDB, each stored under its content hash.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TaskState {
    pub files: Vec<StateFile>,
    /// Digest of the logical state in key order.
    pub digest: Digest,
}

/// One file of a state snapshot.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct StateFile {
    /// Name inside the RocksDB folder.
    pub name: String,
    pub hash: ContentHash,
    pub bytes: u64,
}

/// Executor → driver.
#[derive(Clone, Debug, PartialEq)]
pub enum ToDriver {
    /// First message of a connection.
    Hello(Hello),
    /// At least every 500 ms.
    Heartbeat { memory_bytes: u64 },
    /// The deployment is restored and waits for plans.
    Ready { era: Era },
    /// All output of the epoch has left this task; sinks hold theirs.
    TaskDone(Box<TaskDone>),
    /// The sink task has committed everything up to this epoch.
    Published { era: Era, sink: SinkId, task: TaskId, epoch: Epoch, rows: u64, bytes: u64 },
    /// The task's part of the checkpoint is in the checkpoint store.
    Uploaded { era: Era, task: TaskId, epoch: Epoch, state: TaskState },
    /// The era cannot go on.
    Failed { era: Era, task: Option<TaskId>, epoch: Option<Epoch>, failure: Failure },
    /// This executor leaves (SIGTERM, or the answer to `Shutdown`).
    Bye,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Hello {
    pub executor: ExecutorId,
    /// Threads that run tasks.
    pub slots: u16,
    /// `host:port` of its shuffle service.
    pub shuffle: String,
    /// Build version; must equal the driver's.
    pub version: String,
}

/// What a task did in one epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskDone {
    pub era: Era,
    pub task: TaskId,
    pub epoch: Epoch,
    /// For source stages: per source and split, what was read.
    pub splits: Vec<SplitReport>,
    pub operators: Vec<OperatorReport>,
    /// Time on the slot's thread.
    pub busy_micros: u64,
    /// Bytes that went into shuffles and sinks.
    pub output_bytes: u64,
    /// State that has changed since the task's last checkpoint and has to stay in memory until the next.
    pub unsealed_bytes: u64,
}

/// What was read of one split in one epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct SplitReport {
    pub source: SourceId,
    pub split: SplitId,
    pub records: u64,
    pub bytes: u64,
    /// Newest watermark that the split's rows gave (event time minus the declared delay); `None` if it had no rows.
    pub watermark: Option<Watermark>,
    pub late: u64,
    pub bad: u64,
}

/// State of one operator after the epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct OperatorReport {
    pub operator: OperatorId,
    pub keys: u64,
    pub bytes: u64,
    /// Event time or processing time at which it has something to do without new input.
    pub next_timer: Option<i64>,
    /// Processing time at which it has something to do, beside that.
    pub next_wake: Option<i64>,
    /// Retractions that the task has dropped since it began, of rows that had lapsed.
    pub dropped: u64,
}

/// Why an era cannot go on, and who can do something about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The pipeline's definition or data is at fault (bad-records = fail, two live rows for a key): stop and tell.
    User(String),
    /// Worth another attempt (connection lost, timeout).
    Retry(String),
    /// This build or its environment is at fault, or a newer generation is at work: stop.
    Fatal(String),
}
