//! The way of a record to its topic and partition, and what a failure on it means.
use rdkafka::error::RDKafkaErrorCode;

use super::admin;
use super::client::{Contact, connect, missing_topic, topic_error};
use super::native::produce::{CallError, Failure, Producer, Record};
use super::target::{Partitioner, Target};
use crate::{ConnectorError, KafkaRecord};

/// Why a publication failed.
pub(super) enum Failed {
    /// A record was refused before it was sent.
    Record {
        topic: String,
        bytes: usize,
        code: RDKafkaErrorCode,
    },
    Delivery(Failure),
    /// A call failed, perhaps because a record did.
    Call(CallError, Option<Failure>),
}

impl Failed {
    pub(super) fn is_fenced(&self) -> bool {
        let code = |code: RDKafkaErrorCode| {
            matches!(
                code,
                RDKafkaErrorCode::Fenced
                    | RDKafkaErrorCode::ProducerFenced
                    | RDKafkaErrorCode::InvalidProducerEpoch
                    | RDKafkaErrorCode::InvalidProducerIdMapping
            )
        };
        match self {
            Self::Record { code: c, .. } => code(*c),
            Self::Delivery(failure) => code(failure.code),
            Self::Call(error, failure) => {
                error.fatal || code(error.code) || failure.as_ref().is_some_and(|f| code(f.code))
            }
        }
    }

    pub(super) fn into_error(self, target: &Target, route: &Route) -> ConnectorError {
        let of_record = |topic: &str, bytes: usize, code: RDKafkaErrorCode| match code {
            RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize => {
                let limit = route.max_bytes.map_or_else(|| "its limit".to_owned(), |max| format!("{max} bytes"));
                Some(ConnectorError::user(
                    format!("a record of {bytes} bytes is too large for topic '{topic}', which takes {limit}"),
                    "raise max.message.bytes of the topic, or write fewer columns",
                ))
            }
            RDKafkaErrorCode::UnknownPartition => Some(ConnectorError::user(
                format!("topic '{topic}' does not have the partition that the `partition` column names"),
                "name a partition that exists, or null to let the partitioner choose",
            )),
            code => match topic_error(topic, code) {
                error @ ConnectorError::User { .. } => Some(error),
                ConnectorError::Retry(_) | ConnectorError::Fatal(_) => None,
            },
        };
        match self {
            Self::Record { topic, bytes, code } => of_record(&topic, bytes, code)
                .unwrap_or_else(|| ConnectorError::Retry(format!("writing to topic '{topic}': {code}"))),
            Self::Delivery(f) => of_record(&f.topic, f.bytes, f.code).unwrap_or_else(|| {
                ConnectorError::Retry(format!("writing to topic '{}' partition {}: {}", f.topic, f.partition, f.code))
            }),
            Self::Call(error, failure) => failure
                .and_then(|f| of_record(&f.topic, f.bytes, f.code))
                .unwrap_or_else(|| ConnectorError::Retry(format!("sink '{}': {}", target.table, error.message))),
        }
    }
}

/// Finds the topic and partition of records.
pub(super) struct Route {
    task: u16,
    /// Partitions of the sink's topic, where the partitioner needs the number.
    partitions: i32,
    next: i32,
    /// Largest message that the topic takes, if known.
    pub(super) max_bytes: Option<u64>,
}

impl Route {
    pub(super) fn new(task: u16) -> Self {
        Self { task, partitions: 0, next: 0, max_bytes: None }
    }

    pub(super) fn open(&mut self, target: &Target) -> Result<(), ConnectorError> {
        let Some(topic) = &target.topic else { return Ok(()) };
        let config = target.lookup_config();
        let (_, metadata) = connect(&config, Some(topic), Contact::Again)?;
        let partitions = metadata.topics().iter().find(|t| t.name() == topic).map_or(0, |t| t.partitions().len());
        if partitions == 0 {
            return Err(missing_topic(topic));
        }
        self.partitions = i32::try_from(partitions).unwrap_or(i32::MAX);
        self.next = 0;
        self.max_bytes = admin::max_message_bytes(&config, topic);
        Ok(())
    }

    pub(super) fn name<'a>(&self, target: &'a Target) -> &'a str {
        target.topic.as_deref().unwrap_or(&target.table)
    }

    pub(super) fn send(
        &mut self,
        target: &Target,
        producer: &mut Producer,
        record: &KafkaRecord,
    ) -> Result<(), Failed> {
        let Some(topic) = record.topic.as_deref().or(target.topic.as_deref()) else {
            return Err(Failed::Record { topic: String::new(), bytes: 0, code: RDKafkaErrorCode::InvalidTopic });
        };
        let partition = record.partition.or_else(|| match target.partitioner {
            Partitioner::Key | Partitioner::Any => None,
            Partitioner::Fixed => (self.partitions > 0).then(|| i32::from(self.task) % self.partitions),
            Partitioner::RoundRobin => (self.partitions > 0).then(|| {
                self.next = (self.next + 1) % self.partitions;
                self.next
            }),
        });
        let out = Record {
            topic,
            partition,
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            timestamp_ms: record.timestamp_ms,
            headers: &record.headers,
        };
        producer.send(&out).map_err(|error| {
            // Once a transaction has failed the library refuses further records and hides why.
            match producer.take_failure() {
                Some(failure) => Failed::Delivery(failure),
                None if error.code == RDKafkaErrorCode::State => Failed::Call(error, None),
                None => Failed::Record {
                    topic: topic.to_owned(),
                    bytes: out.value.map_or(0, <[u8]>::len) + out.key.map_or(0, <[u8]>::len),
                    code: error.code,
                },
            }
        })
    }
}
