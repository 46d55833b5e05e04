//! Reading a topic to its end, and the offsets around it.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::{Broker, TIMEOUT};
use crate::wait::wait_for;

/// What a reader sees of transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Committed records up to the last stable offset.
    Committed,
    /// Everything, aborted and open transactions too.
    Uncommitted,
}

/// A record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    pub partition: i32,
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp: Option<i64>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Received {
    /// The value as text; panics on a tombstone and on other bytes than UTF-8.
    pub fn text(&self) -> &str {
        let at = (self.partition, self.offset);
        let value = self.value.as_deref().unwrap_or_else(|| panic!("a tombstone at {at:?}"));
        std::str::from_utf8(value).unwrap_or_else(|e| panic!("no text at {at:?}: {e}"))
    }

    /// The value of the last header of that name.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().rev().find(|(n, _)| n == name).and_then(|(_, value)| value.as_deref())
    }
}

impl Broker {
    /// Every record of the topic up to its end as it is now, ordered by partition and offset.
    ///
    /// With [`Isolation::Committed`] an open transaction hides what follows it: see [`Self::wait_settled`].
    pub fn read(&self, topic: &str, isolation: Isolation) -> Vec<Received> {
        let consumer = self.consumer("millstream-tests", isolation);
        let mut assignment = TopicPartitionList::new();
        // A broker that has just come back knows its topics, and leads their partitions, one after the other: the loop below waits too.
        let partitions = wait_for(&format!("the topic {topic}"), TIMEOUT, || {
            let partitions = self.partitions(topic);
            (partitions > 0).then_some(partitions)
        });
        for partition in 0..partitions {
            assignment
                .add_partition_offset(topic, partition, Offset::Beginning)
                .unwrap_or_else(|e| panic!("cannot read {topic} from its beginning: {e}"));
        }
        consumer.assign(&assignment).unwrap_or_else(|e| panic!("cannot read {topic}: {e}"));

        let mut received = Vec::new();
        let mut open: Vec<i32> = (0..partitions).collect();
        let mut until = Instant::now() + TIMEOUT;
        while !open.is_empty() {
            assert!(
                Instant::now() < until,
                "{topic}: nothing more and no end of the partitions {open:?} in {TIMEOUT:?}"
            );
            match consumer.poll(Duration::from_millis(200)) {
                Some(Ok(message)) => {
                    // A record that came after the partition's end belongs to what is written meanwhile.
                    if open.contains(&message.partition()) {
                        received.push(detach(&message));
                    }
                    until = Instant::now() + TIMEOUT;
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => open.retain(|p| *p != partition),
                // A broker that comes back is found again; if it does not, the time runs out.
                Some(Err(KafkaError::MessageConsumption(_))) | None => {}
                Some(Err(other)) => panic!("cannot read {topic}: {other}"),
            }
        }
        received.sort_by_key(|r| (r.partition, r.offset));
        received
    }

    /// The offset after the last record that a reader can see, per partition.
    pub fn end_offsets(&self, topic: &str, isolation: Isolation) -> Vec<i64> {
        let consumer = self.consumer("millstream-tests", isolation);
        (0..self.partitions(topic))
            .map(|partition| {
                consumer
                    .fetch_watermarks(topic, partition, TIMEOUT)
                    .unwrap_or_else(|e| panic!("no offsets of {topic} [{partition}]: {e}"))
                    .1
            })
            .collect()
    }

    /// Waits until the topic has no open transaction, so that a reader of committed records sees all of it.
    pub fn wait_settled(&self, topic: &str, timeout: Duration) {
        wait_for(&format!("the end of open transactions in {topic}"), timeout, || {
            let committed = self.end_offsets(topic, Isolation::Committed);
            (committed == self.end_offsets(topic, Isolation::Uncommitted)).then_some(())
        });
    }

    /// The offsets that a consumer group has committed, per partition.
    pub fn group_offsets(&self, group: &str, topic: &str) -> Vec<Option<i64>> {
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition_range(topic, 0, self.partitions(topic) - 1);
        let committed = self
            .consumer(group, Isolation::Committed)
            .committed_offsets(partitions, TIMEOUT)
            .unwrap_or_else(|e| panic!("no offsets of the group {group}: {e}"));
        let offset = |offset| match offset {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        };
        committed.elements_for_topic(topic).iter().map(|element| offset(element.offset())).collect()
    }

    /// Commits offsets for a group that nobody is in, one per partition from 0.
    pub fn commit_group_offsets(&self, group: &str, topic: &str, offsets: &[i64]) {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in (0..).zip(offsets) {
            list.add_partition_offset(topic, partition, Offset::Offset(*offset)).expect("an offset");
        }
        self.consumer(group, Isolation::Committed)
            .commit(&list, CommitMode::Sync)
            .unwrap_or_else(|e| panic!("cannot commit offsets for the group {group}: {e}"));
    }

    fn consumer(&self, group: &str, isolation: Isolation) -> BaseConsumer {
        let level = match isolation {
            Isolation::Committed => "read_committed",
            Isolation::Uncommitted => "read_uncommitted",
        };
        self.client("consumer")
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("isolation.level", level)
            .set("fetch.wait.max.ms", "50")
            .create()
            .unwrap_or_else(|e| panic!("cannot make a consumer: {e}"))
    }
}

fn detach(message: &BorrowedMessage<'_>) -> Received {
    let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
    Received {
        partition: message.partition(),
        offset: message.offset(),
        timestamp: message.timestamp().to_millis(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: headers.map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect(),
    }
}
