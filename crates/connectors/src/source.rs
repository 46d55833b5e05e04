//! The contract of sources.
use std::collections::BTreeMap;

use arrow::array::Int64Array;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use millstream_formats::{FormatOptions, PreFilter};
use millstream_plan::options::Resolved;
use millstream_plan::{SourceId, SplitId, SplitRange};
use serde::{Deserialize, Serialize};

use crate::ConnectorError;

/// A source table as the planner wants it read.
#[derive(Clone, Debug)]
pub struct SourceSpec {
    pub id: SourceId,
    /// Name of the table.
    pub table: String,
    /// Name of the pipeline (group ids, client ids).
    pub pipeline: String,
    /// Options of the connector and the format, checked.
    pub options: Resolved,
    /// Format of the record values; `None` for generators.
    pub format: Option<FormatOptions>,
    /// Columns decoded from the record, pruned to what the pipeline uses.
    pub schema: SchemaRef,
    /// Metadata columns that the pipeline uses; they follow the decoded columns in every batch.
    pub metadata: Vec<MetadataColumn>,
    /// Rows that cannot matter, dropped before the rest of the record is decoded.
    pub prefilter: Option<PreFilter>,
    /// Names of the columns by which rows are known, if each takes the place of the one before it; empty otherwise.
    pub key: Vec<String>,
    /// Number of source tasks. Split `i` in order of discovery belongs to task `i % parallelism`.
    pub parallelism: u16,
}

/// A column `name type METADATA FROM 'key'`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataColumn {
    pub field: arrow::datatypes::FieldRef,
    /// `topic`, `partition`, `offset`, `timestamp`, `timestamp-type`, `headers`, `key`, `file`, …
    pub key: String,
}

/// Makes the two halves of a source.
pub trait SourceFactory: Send + Sync {
    /// The half beside the driver. Checks that the other side is there and answers (within 15 s).
    fn enumerator(&self) -> Result<Box<dyn SplitEnumerator>, ConnectorError>;
    /// The half in source task `task`.
    fn reader(&self, task: u16) -> Result<Box<dyn SourceReader>, ConnectorError>;
}

/// Says what can be read. Lives on a thread of its own beside the driver; calls may block for up to a few seconds.
pub trait SplitEnumerator: Send {
    /// What the options mean at this moment, where that changes with time (offsets of `latest`, of a consumer group, of a timestamp), as
    /// text that goes into the log: asked once, before the first [`discover`](Self::discover) of a new pipeline.
    ///
    /// # Errors
    /// As [`discover`](Self::discover).
    fn first_start(&mut self) -> Result<Option<String>, ConnectorError> {
        Ok(None)
    }

    /// Told at every later start, before the first [`discover`](Self::discover): what [`first_start`](Self::first_start) said when the
    /// pipeline was new (nothing, if the log is older than that), and the tag of each split's last planned range.
    ///
    /// # Errors
    /// `Fatal` if `first` is not such a text.
    fn resume(&mut self, _first: Option<&str>, _tags: &BTreeMap<SplitId, String>) -> Result<(), ConnectorError> {
        Ok(())
    }

    /// All splits that are known now. `positions` are those already planned (position after the last planned range); a split
    /// that is in there keeps its place even if `start` options would say otherwise: the checkpoint wins.
    ///
    /// # Errors
    /// `Retry` when the other side does not answer (the driver backs off and asks again), `User` for data loss
    /// (`failOnDataLoss`) and for missing or denied topics and folders.
    fn discover(&mut self, positions: &BTreeMap<SplitId, u64>, now_ms: i64) -> Result<Discovery, ConnectorError>;

    /// Everything before these positions is published: tell lag tools (Kafka consumer group offsets). Best effort.
    fn published(&mut self, _positions: &BTreeMap<SplitId, u64>) {}
}

/// Answer of [`SplitEnumerator::discover`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Discovery {
    /// In a stable order: splits found earlier first.
    pub splits: Vec<SplitState>,
    /// Bounded input: no split and no record beyond `splits` will ever come.
    pub complete: bool,
}

/// One split and how far it can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitState {
    pub split: SplitId,
    /// Where reading starts if the split has no planned position yet.
    pub start: u64,
    /// Position after the last record that can be read now (Kafka: the last stable offset).
    pub end: u64,
    /// See [`SplitRange::tag`].
    pub tag: String,
    /// Nothing will ever come after `end` (a file, a bounded shard): once read, the split does not hold the watermark back.
    pub closed: bool,
}

/// Reads and decodes planned ranges for one source task. Called on a slot's thread: never blocks longer than a few milliseconds.
pub trait SourceReader: Send {
    /// Next part of `range`. Called with the same range until `Done`. Ranges of one split are contiguous and ascending inside an era;
    /// after a rollback a new reader is made.
    ///
    /// Batches are cut at a fixed number of records counted from `range.from`, never at fetch boundaries.
    fn poll(&mut self, range: &SplitRange) -> Result<SourcePoll, ConnectorError>;
}

/// Answer of [`SourceReader::poll`].
pub enum SourcePoll {
    /// Some rows (possibly none, if all were bad or filtered).
    Batch(SourceBatch),
    /// Nothing has arrived yet; ask again soon.
    Pending,
    /// The position has passed the range's end.
    Done,
}

/// Decoded records.
pub struct SourceBatch {
    /// Columns: `SourceSpec::schema` (where rows have a key, [`millstream_formats::upsert_schema`] of it), then the metadata columns.
    pub rows: RecordBatch,
    /// Of each row: 1 if it comes, -1 if it goes (where rows have a key, with its key alone). `None`: all come.
    pub weights: Option<Int64Array>,
    /// Records that could not be decoded (already handled as `bad-records` says: empty under `drop` and `null`).
    pub bad: Vec<DeadLetter>,
    /// Number of bad records, whatever happens to them.
    pub bad_count: u64,
    /// Records read (not rows: bad and filtered ones count).
    pub records: u64,
    /// Bytes of their values.
    pub bytes: u64,
    /// Finds the raw record of a row (for late rows).
    pub origin: Box<dyn Origin>,
}

/// Finds the raw record behind a row of a [`SourceBatch`].
pub trait Origin: Send {
    /// The record of row `row` as a dead letter with this reason.
    fn dead_letter(&self, row: usize, reason: DeadLetterReason, detail: String) -> DeadLetter;
}

/// A record that takes part in no result, kept for the user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Name of the source table.
    pub source: String,
    pub split: SplitId,
    /// Offset, row or line number.
    pub position: u64,
    /// The record's own timestamp in milliseconds, where the connector has one.
    pub timestamp_ms: Option<i64>,
    pub reason: DeadLetterReason,
    /// What exactly was wrong.
    pub detail: String,
    pub key: Option<Vec<u8>>,
    pub value: Vec<u8>,
}

/// Why a record became a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeadLetterReason {
    /// It could not be decoded.
    Bad,
    /// Its event time was below the watermark.
    Late,
}
