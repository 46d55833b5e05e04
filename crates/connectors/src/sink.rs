//! The contract of sinks.
//!
//! Order of writes in one sink task: rows of epoch n are encoded (`SinkEncoder`) → plan n is durable → `SinkCommitter::publish` writes
//! them together with a marker that names n → `Published(n)`. A crash before the marker commits publishes nothing of n; after it,
//! `SinkCommitter::open` of the next owner returns n, and replayed epochs up to n are dropped.
use std::any::Any;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use millstream_formats::FormatOptions;
use millstream_plan::options::Resolved;
use millstream_plan::{Epoch, EpochPlan, Era, SinkId};

use crate::ConnectorError;

/// A sink as the planner wants it written.
#[derive(Clone, Debug)]
pub struct SinkSpec {
    pub id: SinkId,
    /// Name of the table.
    pub table: String,
    /// Name of the pipeline (transactional ids, marker topics).
    pub pipeline: String,
    /// Options of the connector and the format, checked.
    pub options: Resolved,
    pub format: Option<FormatOptions>,
    /// Columns of the rows that arrive.
    pub schema: SchemaRef,
    /// Indexes of the PRIMARY KEY columns; empty if there is none.
    pub primary_key: Vec<usize>,
    /// Rows may be taken away again.
    pub updating: bool,
    /// Indexes of columns that identify a row: the PRIMARY KEY, or what the query says; empty if nothing is known.
    pub key: Vec<usize>,
    /// Indexes of the PARTITIONED BY columns.
    pub partitioned_by: Vec<usize>,
    /// (column index, metadata key): columns written as metadata (`key`, `headers`, `timestamp`, `topic`) instead of in the value.
    pub metadata: Vec<(usize, String)>,
    /// Number of sink tasks.
    pub parallelism: u16,
}

/// Makes the two halves of a sink task.
pub trait SinkFactory: Send + Sync {
    /// Checks once, at start, that the other side is there and takes what this sink will write (within 15 s). Creates what the sink
    /// needs beside its target (marker topic). Called by the driver before anything is deployed.
    fn check(&self) -> Result<(), ConnectorError>;
    /// The half that encodes, for sink task `task`.
    fn encoder(&self, task: u16) -> Result<Box<dyn SinkEncoder>, ConnectorError>;
    /// The half that publishes, for sink task `task`.
    fn committer(&self, task: u16) -> Result<Box<dyn SinkCommitter>, ConnectorError>;
    /// Publishing happens at epochs with `flush` only; the driver sets it at least this often. `None`: every epoch publishes.
    fn commit_interval(&self) -> Option<std::time::Duration>;
}

/// Turns rows into bytes on the task's thread. Deterministic: same epochs, same payloads, byte for byte.
pub trait SinkEncoder: Send {
    /// Takes the next rows of the current epoch. `weights[i]` is +1 (insert) or −1 (delete); `None` means all +1.
    fn encode(&mut self, rows: &RecordBatch, weights: Option<&arrow::array::Int64Array>) -> Result<(), ConnectorError>;

    /// The epoch has ended: what is to be published with it. Sinks that gather return an empty payload until `plan.flush`, after
    /// which they hold nothing.
    fn end_epoch(&mut self, plan: &EpochPlan) -> Result<EncodedEpoch, ConnectorError>;
}

/// Encoded output of one epoch of one sink task.
#[derive(Debug, Default)]
pub struct EncodedEpoch {
    pub epoch: Epoch,
    /// Rows in the payload.
    pub rows: u64,
    /// Bytes in the payload (accounted until published).
    pub bytes: u64,
    pub payload: Payload,
}

/// What a sink publishes.
#[derive(Debug, Default)]
pub enum Payload {
    #[default]
    Empty,
    Kafka(Vec<KafkaRecord>),
    Files(Vec<OutputFile>),
    /// Console text.
    Text(Vec<u8>),
    /// A connector's own form.
    Other(Box<dyn Any + Send>),
}

/// One record for a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KafkaRecord {
    pub topic: Option<String>,
    pub partition: Option<i32>,
    pub key: Option<Vec<u8>>,
    /// `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    pub timestamp_ms: Option<i64>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// One complete file; its name is a function of (sink, epoch, task, sequence).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputFile {
    /// Path below the sink's folder.
    pub path: String,
    pub bytes: bytes::Bytes,
    pub rows: u64,
}

/// Who publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkContext {
    pub era: Era,
    /// Index of the sink task.
    pub task: u16,
    /// The checkpoint that this era starts from (epoch 0 if none): nothing before it is replayed.
    pub restored: Epoch,
}

/// Publishes epochs of one sink task, on a thread of its own; calls may block, each with a timeout.
pub trait SinkCommitter: Send {
    /// Fences every earlier owner of this task and returns the last epoch that is published (0 if none). Epochs up to it will not be
    /// handed to [`publish`](Self::publish).
    ///
    /// # Errors
    /// `Fatal` if an owner of a higher generation is at work.
    fn open(&mut self, context: &SinkContext) -> Result<Epoch, ConnectorError>;

    /// Publishes these epochs, ascending, at once where the sink can. All plans up to the last of them are durable. Empty epochs are
    /// included; a sink may skip writing anything for them, but must still answer for a later `open` correctly (an epoch that
    /// published nothing may be handed in again).
    ///
    /// # Errors
    /// `Retry`: nothing or all of it may be published; the era is given up and `open` of the next one tells. `Fatal`: fenced, or something
    /// else stands where this output belongs.
    fn publish(&mut self, epochs: Vec<EncodedEpoch>) -> Result<(), ConnectorError>;
}
