//! Reads planned ranges: exactly the records with `from <= offset < to`, whatever the broker's fetches look like.
//!
//! Offsets have gaps (transaction markers, aborted records, compaction), so a range is done when one of these says that
//! nothing of it can come any more: a record at or after `to`, which is kept for the next range; or the end-of-partition notice, which
//! also covers markers and what compaction has removed at the tail. It comes once for each end, so the last one is remembered. The library's
//! own position is of no use: after a notice in a batch it is one too far (`rd_kafka_q_serve_rkmessages` of 2.12 adds one to the
//! offset of everything in the batch), which would pass over a record that has not come yet.
//!
//! Batches are cut after [`BATCH_RECORDS`] records or [`BATCH_BYTES`] of values, counted from `range.from`, so they do not
//! depend on fetches. Values are decoded straight from the library's memory, which is freed when the batch is.
//!
//! A record without a value (a tombstone) has no rows to give: it is a bad record with that reason, unless the table has a key (see
//! [`upserts`](super::upserts)) or its records are changes.
//!
//! While the broker is away the library reconnects by itself and `poll` answers `Pending`; after `scan.unreachable-timeout` without
//! any progress of a range it gives up. A planned range is known to be there, so where nothing comes for [`RESTART_AFTER`] the partition is
//! asked for again: after a restart of the broker the library can be left waiting for an answer that never comes.
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use millstream_formats::{BadMessage, Decoded, Decoder, FormatError};
use millstream_plan::{SplitId, SplitRange};
use rdkafka::ClientConfig;
use rdkafka::error::RDKafkaErrorCode;

use super::bounds::Partition;
use super::client::{creation_error, topic_error};
use super::columns::Columns;
use super::native::describe::Describing;
use super::native::fetch::{Fetch, Fetcher, Messages, Notice};
use super::upserts::Upserts;
use crate::registry::BadRecords;
use crate::{ConnectorError, DeadLetter, DeadLetterReason, Origin, SourceBatch, SourcePoll, SourceReader};

/// Records per batch.
pub(super) const BATCH_RECORDS: usize = 8192;
/// A batch ends with the record that reaches this many bytes of values.
const BATCH_BYTES: usize = 16 << 20;
/// A partition of which nothing has come for so long is asked for again.
const RESTART_AFTER: Duration = Duration::from_secs(10);
const TOMBSTONE: &str = "the record has no value (a tombstone)";

/// What the reader needs to know.
pub(super) struct Reading {
    pub table: String,
    pub records: Records,
    pub schema: SchemaRef,
    pub columns: Columns,
    pub bad: BadRecords,
    pub fail_on_data_loss: bool,
    pub give_up_after: Duration,
}

/// How records become rows.
pub(super) enum Records {
    Values { decoder: Box<dyn Decoder>, skip_tombstones: bool },
    Upserts(Upserts),
}

/// The reader of one source task.
pub(super) struct KafkaReader {
    reading: Reading,
    table: Arc<str>,
    splits: HashMap<SplitId, Split>,
    topics: HashMap<String, TopicId>,
    client: Fetcher,
}

/// A partition that this task reads.
struct Split {
    partition: Partition,
    batch: Messages,
    batch_bytes: usize,
    /// Everything before this offset has been handed out or is in `batch`.
    passed: u64,
    /// Everything before this offset has been taken over from the library.
    end: u64,
    /// The range that is being read, or the last one.
    range: (u64, u64),
    progress: Instant,
    /// When the partition was last asked for.
    asked: Instant,
    fetch: Fetch,
}

/// What is known about the topic of a range.
enum TopicId {
    Asked(Describing),
    Known(String),
}

impl KafkaReader {
    pub(super) fn new(mut config: ClientConfig, reading: Reading) -> Result<Self, ConnectorError> {
        // For batches at full speed with little memory per partition, and the first record of a quiet partition at once.
        for (key, value) in [
            ("queued.min.messages", "100000"),
            ("queued.max.messages.kbytes", "16384"),
            ("fetch.message.max.bytes", "4194304"),
            ("fetch.max.bytes", "33554432"),
            ("fetch.wait.max.ms", "20"),
            ("fetch.queue.backoff.ms", "2"),
            ("fetch.error.backoff.ms", "50"),
            ("check.crcs", "true"),
        ] {
            if config.get(key).is_none() {
                config.set(key, value);
            }
        }
        config.remove("group.id");
        config
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error");
        let client = Fetcher::new(&config).map_err(|e| creation_error(&e))?;
        let table = Arc::from(reading.table.as_str());
        Ok(Self { reading, table, splits: HashMap::new(), topics: HashMap::new(), client })
    }

    /// False while it is not known whether the topic is still the one that was planned.
    fn topic_is_checked(&mut self, range: &SplitRange, topic: &str) -> Result<bool, ConnectorError> {
        if range.tag.is_empty() {
            return Ok(true);
        }
        let id = match self.topics.get(topic) {
            Some(TopicId::Known(id)) => id.clone(),
            Some(TopicId::Asked(request)) => match request.poll(Duration::ZERO) {
                None => return Ok(false),
                Some(Ok(topics)) => {
                    let found = topics.into_iter().find(|t| t.name == topic);
                    if let Some(error) = found.as_ref().and_then(|t| t.error) {
                        return Err(topic_error(topic, error));
                    }
                    let id = found.map(|t| t.id).unwrap_or_default();
                    self.topics.insert(topic.to_owned(), TopicId::Known(id.clone()));
                    id
                }
                Some(Err(error)) => {
                    tracing::debug!(topic, %error, "asking for the topic's id again");
                    self.topics.remove(topic);
                    return Ok(false);
                }
            },
            None => {
                let request = self.client.describe(&[topic]).map_err(|e| creation_error(&e))?;
                self.topics.insert(topic.to_owned(), TopicId::Asked(request));
                return Ok(false);
            }
        };
        if id.is_empty() || id == range.tag {
            return Ok(true);
        }
        let message = format!("topic '{topic}' was deleted and created again: its id was {} and is {id}", range.tag);
        if self.reading.fail_on_data_loss {
            return Err(ConnectorError::user(
                message,
                "start with a new checkpoint location to read the new topic, or set 'failOnDataLoss' = 'false'",
            ));
        }
        Ok(true)
    }

    fn split(&mut self, range: &SplitRange) -> Result<(), ConnectorError> {
        let now = (range.from, range.to);
        if let Some(split) = self.splits.get_mut(&range.split) {
            if split.range == now {
                return Ok(());
            }
            if range.from < split.range.1 {
                return Err(ConnectorError::Fatal(format!(
                    "range {}..{} of {} comes after {}..{}",
                    range.from, range.to, range.split, split.range.0, split.range.1
                )));
            }
            split.range = now;
            split.progress = Instant::now();
            return Ok(());
        }
        let partition = Partition::of(&range.split)
            .ok_or_else(|| ConnectorError::Fatal(format!("'{}' is not a partition of a topic", range.split)))?;
        let fetch =
            self.client.partition(&partition.topic, partition.index, range.from).map_err(|e| creation_error(&e))?;
        let split = Split {
            partition,
            batch: fetch.messages(0),
            batch_bytes: 0,
            passed: range.from,
            end: 0,
            range: now,
            progress: Instant::now(),
            asked: Instant::now(),
            fetch,
        };
        self.splits.insert(range.split.clone(), split);
        Ok(())
    }
}

impl SourceReader for KafkaReader {
    fn poll(&mut self, range: &SplitRange) -> Result<SourcePoll, ConnectorError> {
        self.client.serve();
        let Some(topic) = range.split.0.rsplit_once('/').map(|(topic, _)| topic.to_owned()) else {
            return Err(ConnectorError::Fatal(format!("'{}' is not a partition of a topic", range.split)));
        };
        self.split(range)?;
        let checked = self.topic_is_checked(range, &topic)?;
        let Some(split) = self.splits.get_mut(&range.split) else {
            return Err(ConnectorError::Fatal(format!("partition {} vanished", range.split)));
        };
        let step = if checked { split.step(range, &self.reading)? } else { Step::Waiting };
        match step {
            Step::Full => {
                split.progress = Instant::now();
                split.batch_bytes = 0;
                let capacity = BATCH_RECORDS.min(usize::try_from(range.to - split.passed.min(range.to)).unwrap_or(0));
                let next = split.fetch.messages(capacity);
                let messages = std::mem::replace(&mut split.batch, next);
                self.reading.decode(&split.partition, &range.split, &self.table, messages).map(SourcePoll::Batch)
            }
            Step::Done => {
                split.progress = Instant::now();
                Ok(SourcePoll::Done)
            }
            Step::Waiting => {
                let waited = split.progress.elapsed();
                if waited > self.reading.give_up_after {
                    return Err(ConnectorError::Retry(format!(
                        "topic '{}' partition {}: nothing came at offset {} for {} s",
                        split.partition.topic,
                        split.partition.index,
                        split.passed,
                        waited.as_secs()
                    )));
                }
                if checked && waited.min(split.asked.elapsed()) > RESTART_AFTER {
                    split.ask_again(waited)?;
                }
                Ok(SourcePoll::Pending)
            }
        }
    }
}

enum Step {
    /// The batch is complete.
    Full,
    /// The range is read, and the batch is empty.
    Done,
    Waiting,
}

impl Split {
    /// Moves records of the range to the batch until it is full or nothing is there.
    fn step(&mut self, range: &SplitRange, reading: &Reading) -> Result<Step, ConnectorError> {
        let mut notices = Vec::new();
        loop {
            while let Some(offset) = self.fetch.next() {
                if offset >= range.to {
                    self.passed = self.passed.max(range.to);
                    break;
                }
                if offset < range.from {
                    self.fetch.skip();
                    continue;
                }
                self.batch_bytes += self.fetch.next_bytes();
                self.fetch.take(&mut self.batch);
                self.passed = offset + 1;
                if self.batch.len() == BATCH_RECORDS || self.batch_bytes >= BATCH_BYTES {
                    return Ok(Step::Full);
                }
            }
            if self.passed >= range.to {
                return Ok(if self.batch.is_empty() { Step::Done } else { Step::Full });
            }
            let more = self.fetch.fill(BATCH_RECORDS - self.batch.len(), &mut notices);
            if more {
                self.progress = Instant::now();
            }
            for notice in notices.drain(..) {
                match notice {
                    Notice::End(offset) => self.end = offset,
                    Notice::Error(code, message) => self.handle(code, &message, range, reading)?,
                }
            }
            // Taken over is not yet handed out, so it counts only when no earlier record waits.
            if self.fetch.next().is_none() {
                self.passed = self.passed.max(self.end);
                if self.passed < range.to && !more {
                    return Ok(Step::Waiting);
                }
            }
        }
    }

    /// Drops the request for this partition and makes a new one. What is in the batch stays.
    fn ask_again(&mut self, waited: Duration) -> Result<(), ConnectorError> {
        let Partition { topic, index } = &self.partition;
        tracing::warn!(
            topic,
            partition = index,
            offset = self.passed,
            seconds = waited.as_secs(),
            "nothing comes from a partition that holds more; asking again"
        );
        self.asked = Instant::now();
        self.fetch.restart_at(self.passed).map_err(|e| creation_error(&e))
    }

    fn handle(
        &mut self,
        code: RDKafkaErrorCode,
        message: &str,
        range: &SplitRange,
        reading: &Reading,
    ) -> Result<(), ConnectorError> {
        let Partition { topic, index } = &self.partition;
        match code {
            RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange => {
                let message = format!(
                    "topic '{topic}' partition {index}: data loss: offsets {} to {} are not there any more: {}",
                    self.passed,
                    range.to,
                    message.to_lowercase()
                );
                if reading.fail_on_data_loss {
                    return Err(ConnectorError::user(
                        message,
                        "keep records longer than a pipeline may be down ('retention.ms'); to go on with what is there, set \
                         'failOnDataLoss' = 'false'",
                    ));
                }
                tracing::warn!("{message}");
                self.fetch.restart_at_beginning().map_err(|e| creation_error(&e))
            }
            RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::TopicAuthorizationFailed => Err(topic_error(topic, code)),
            RDKafkaErrorCode::MessageSizeTooLarge => Err(ConnectorError::user(
                format!("topic '{topic}' partition {index}: {}", message.to_lowercase()),
                "raise 'properties.receive.message.max.bytes' and 'properties.fetch.max.bytes'",
            )),
            code => {
                tracing::debug!(topic, partition = index, "{code}: {message}");
                Ok(())
            }
        }
    }
}

impl Reading {
    fn decode(
        &mut self,
        partition: &Partition,
        split: &SplitId,
        table: &Arc<str>,
        messages: Messages,
    ) -> Result<SourceBatch, ConnectorError> {
        let mut bytes = 0;
        let decoded = match &mut self.records {
            Records::Values { decoder, skip_tombstones } => {
                values(&mut **decoder, *skip_tombstones, &messages, &mut bytes)
            }
            Records::Upserts(upserts) => upserts.decode(&messages, &mut bytes),
        };
        let Decoded { rows, weights, origin, bad } = decoded.map_err(|e| {
            ConnectorError::Fatal(format!("topic '{}' partition {}: {e}", partition.topic, partition.index))
        })?;
        let mut columns = rows.columns().to_vec();
        columns.extend(self.columns.build(partition, &messages, &origin)?);
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let rows = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            .map_err(|e| ConnectorError::Fatal(format!("columns of table '{table}': {e}")))?;

        let records = messages.len() as u64;
        let source = KafkaOrigin { table: Arc::clone(table), split: split.clone(), rows: origin, messages };
        let (bad_count, bad) = self.judge(partition, &source, bad)?;
        Ok(SourceBatch { rows, weights, bad, bad_count, records, bytes, origin: Box::new(source) })
    }

    /// What becomes of bad records, as the user wants it.
    fn judge(
        &self,
        partition: &Partition,
        source: &KafkaOrigin,
        bad: Vec<BadMessage>,
    ) -> Result<(u64, Vec<DeadLetter>), ConnectorError> {
        let count = bad.len() as u64;
        match self.bad {
            BadRecords::Drop => Ok((count, Vec::new())),
            BadRecords::Fail => match bad.first() {
                None => Ok((0, Vec::new())),
                Some(BadMessage { message, reason }) => Err(ConnectorError::user(
                    format!(
                        "bad record in topic '{}' partition {} at offset {}: {reason}",
                        partition.topic,
                        partition.index,
                        source.messages.offset(*message as usize)
                    ),
                    "correct the table's columns, or set 'bad-records' = 'dead-letter' to set such records aside",
                )),
            },
            // The decoder has put null where it could; this is what is left.
            BadRecords::DeadLetter | BadRecords::Null => {
                let letters = bad
                    .into_iter()
                    .map(|b| source.letter(b.message as usize, DeadLetterReason::Bad, b.reason))
                    .collect();
                Ok((count, letters))
            }
        }
    }
}

/// Decodes the values of messages and counts their bytes.
fn values(
    decoder: &mut dyn Decoder,
    skip_tombstones: bool,
    messages: &Messages,
    bytes: &mut u64,
) -> Result<Decoded, FormatError> {
    let mut values = Vec::with_capacity(messages.len());
    // Index of the message of each value; empty as long as every message has a value.
    let mut with_value: Vec<u32> = Vec::new();
    let mut tombstones: Vec<u32> = Vec::new();
    for i in 0..messages.len() {
        match messages.value(i) {
            Some(value) => {
                *bytes += value.len() as u64;
                if !tombstones.is_empty() {
                    with_value.push(i as u32);
                }
                values.push(value);
            }
            None => {
                if tombstones.is_empty() {
                    with_value.extend(0..i as u32);
                }
                tombstones.push(i as u32);
            }
        }
    }
    let mut decoded = decoder.decode(&values)?;
    if tombstones.is_empty() {
        return Ok(decoded);
    }
    decoded.origin.iter_mut().for_each(|o| *o = with_value[*o as usize]);
    decoded.bad.iter_mut().for_each(|b| b.message = with_value[b.message as usize]);
    if !skip_tombstones {
        let bad = |message| BadMessage { message, reason: TOMBSTONE.to_owned() };
        decoded.bad.extend(tombstones.into_iter().map(bad));
        decoded.bad.sort_by_key(|b| b.message);
    }
    Ok(decoded)
}

/// Schema of the reader's batches.
pub(super) fn batch_schema(decoded: &SchemaRef, metadata: &[crate::MetadataColumn]) -> SchemaRef {
    let fields = decoded.fields().iter().cloned().chain(metadata.iter().map(|m| Arc::clone(&m.field)));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Keeps the messages of a batch, so that a row's record can be set aside.
struct KafkaOrigin {
    table: Arc<str>,
    split: SplitId,
    /// Index of each row's message.
    rows: Vec<u32>,
    messages: Messages,
}

impl KafkaOrigin {
    fn letter(&self, message: usize, reason: DeadLetterReason, detail: String) -> DeadLetter {
        DeadLetter {
            source: self.table.to_string(),
            split: self.split.clone(),
            position: self.messages.offset(message),
            timestamp_ms: self.messages.timestamp(message).0,
            reason,
            detail,
            key: self.messages.key(message).map(<[u8]>::to_vec),
            value: self.messages.value(message).unwrap_or_default().to_vec(),
        }
    }
}

impl Origin for KafkaOrigin {
    fn dead_letter(&self, row: usize, reason: DeadLetterReason, detail: String) -> DeadLetter {
        self.letter(self.rows[row] as usize, reason, detail)
    }
}
