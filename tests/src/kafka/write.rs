//! Producing: batches with everything a record can carry, and transactions that commit, abort or stay open.

use std::sync::Mutex;

use rdkafka::client::ClientContext;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;

use super::{Broker, TIMEOUT};

/// A record to produce. Without a partition the key decides, as usual.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub partition: Option<i32>,
    pub key: Option<Vec<u8>>,
    /// `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Milliseconds since 1970; `None` is now.
    pub timestamp: Option<i64>,
}

impl Record {
    pub fn new(value: impl Into<Vec<u8>>) -> Self {
        Self { value: Some(value.into()), ..Self::default() }
    }

    pub fn tombstone(key: impl Into<Vec<u8>>) -> Self {
        Self { key: Some(key.into()), ..Self::default() }
    }

    pub fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    pub fn key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.key = Some(key.into());
        self
    }

    pub fn header(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.into(), Some(value.into())));
        self
    }

    pub fn timestamp(mut self, millis: i64) -> Self {
        self.timestamp = Some(millis);
        self
    }
}

/// A transaction whose records are on the broker. Dropping it leaves it open, as a crash would.
pub struct OpenTransaction {
    producer: BaseProducer<Deliveries>,
}

impl OpenTransaction {
    pub fn commit(self) {
        self.producer.commit_transaction(TIMEOUT).unwrap_or_else(|e| panic!("cannot commit a transaction: {e}"));
    }

    pub fn abort(self) {
        self.producer.abort_transaction(TIMEOUT).unwrap_or_else(|e| panic!("cannot abort a transaction: {e}"));
    }
}

impl Broker {
    /// Appends the records, per partition in this order, and waits until the broker has all of them.
    pub fn produce(&self, topic: &str, records: &[Record]) {
        let producer = self.producer(&[("enable.idempotence", "true")]);
        send(&producer, topic, records);
    }

    /// Appends the records inside a transaction of `id`, which fences an earlier one of the same id.
    pub fn transaction(&self, id: &str, topic: &str, records: &[Record]) -> OpenTransaction {
        let producer = self.producer(&[("transactional.id", id)]);
        producer.init_transactions(TIMEOUT).unwrap_or_else(|e| panic!("cannot start the transactional id {id}: {e}"));
        producer.begin_transaction().unwrap_or_else(|e| panic!("cannot begin a transaction of {id}: {e}"));
        send(&producer, topic, records);
        OpenTransaction { producer }
    }

    fn producer(&self, settings: &[(&str, &str)]) -> BaseProducer<Deliveries> {
        let mut config = self.client("producer");
        config.set("linger.ms", "5").set("message.max.bytes", "33554432").set("partitioner", "murmur2_random");
        for (name, value) in settings {
            config.set(*name, *value);
        }
        config.create_with_context(Deliveries::default()).unwrap_or_else(|e| panic!("cannot make a producer: {e}"))
    }
}

fn send(producer: &BaseProducer<Deliveries>, topic: &str, records: &[Record]) {
    for record in records {
        let mut next = base_record(topic, record);
        while let Err((error, back)) = producer.send(next) {
            match error {
                KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) => {
                    producer.poll(TIMEOUT);
                    next = back;
                }
                other => panic!("cannot produce to {topic}: {other}"),
            }
        }
        producer.poll(std::time::Duration::ZERO);
    }
    producer.flush(TIMEOUT).unwrap_or_else(|e| panic!("cannot produce to {topic}: {e}"));
    let failed = producer.context().failed.lock().expect("no panic while it is held");
    assert!(failed.is_empty(), "{} records did not reach {topic}: {}", failed.len(), failed[0]);
}

fn base_record<'a>(topic: &'a str, record: &'a Record) -> BaseRecord<'a, [u8], [u8]> {
    let mut base = BaseRecord::to(topic);
    base.partition = record.partition;
    base.key = record.key.as_deref();
    base.payload = record.value.as_deref();
    base.timestamp = record.timestamp;
    if !record.headers.is_empty() {
        let headers = record
            .headers
            .iter()
            .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: value.as_ref() }));
        base.headers = Some(headers);
    }
    base
}

/// Collects what the broker refused.
#[derive(Default)]
struct Deliveries {
    failed: Mutex<Vec<KafkaError>>,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.failed.lock().expect("no panic while it is held").push(error.clone());
        }
    }
}
