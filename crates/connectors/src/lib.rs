//! Where records come from and where they go.
//!
//! A **source** has two halves: a [`SplitEnumerator`] beside the driver that says which splits there are and how far each can be
//! read, and a [`SourceReader`] in each source task that reads and decodes exactly the ranges which a plan names. A **sink** has
//! two halves in each sink task: a [`SinkEncoder`] on the task's own thread that turns the rows of an epoch into bytes, and a
//! [`SinkCommitter`] on a thread of its own that fences earlier owners, finds out what they published, and publishes epochs.
//!
//! Nothing outside this crate sees librdkafka.
mod changes;
mod console;
mod error;
mod files;
mod generate;
mod kafka;
mod registry;
mod sink;
mod source;

pub use error::ConnectorError;
pub use files::{DeadLetterEncoder, S3Options, dead_letter_committer};
pub use generate::{NexmarkConfig, NexmarkGenerator};
pub use kafka::create_topic;
pub use registry::{
    BadRecords, Changes, Connector, RECORD_OPTIONS, Reads, Role, TableForm, connector, connector_names,
};
pub use sink::{
    EncodedEpoch, KafkaRecord, OutputFile, Payload, SinkCommitter, SinkContext, SinkEncoder, SinkFactory, SinkSpec,
};
pub use source::{
    DeadLetter, DeadLetterReason, Discovery, MetadataColumn, Origin, SourceBatch, SourceFactory, SourcePoll,
    SourceReader, SourceSpec, SplitEnumerator, SplitState,
};
