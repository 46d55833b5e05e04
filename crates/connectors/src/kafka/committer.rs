//! Publishes the epochs of one sink task.
//!
//! Exactly once, in this order:
//! 1. `open` looks at the last marker first, so that an old owner that wakes up does not disturb a newer one.
//! 2. It fences every earlier owner of the task: `init_transactions` on each of its ids aborts what they left open and makes their
//!    later calls fail. Only then the marker is read for good, so that nothing can be committed behind it.
//! 3. A marker of a higher era means that a newer owner is at work: stop. Otherwise a *claim* (the same epoch under this
//!    era) is committed; from then on lower eras find it and stop.
//! 4. `publish` writes the records of all its epochs and a marker that names the last of them in one transaction.
//!
//! A crash before the transaction commits publishes nothing; after it, the next `open` finds the marker. Two ids are used in turn:
//! after a commit the coordinator completes the transaction in the background, and an id cannot begin the next one until then.
//! The next transaction begins only after the commit of the one before is acknowledged, so the order of epochs stands.
//!
//! After any failed call all producers are dropped: a delayed EndTxn of theirs could hit a later transaction of the same id
//! (KIP-890, which the library lacks), but not after the next `init_transactions`. Whether the transaction was committed is
//! then unknown, and the next `open` finds out.
use std::sync::Arc;
use std::time::Duration;

use millstream_plan::{DigestBuilder, Epoch};
use rdkafka::error::RDKafkaErrorCode;

use super::client::{creation_error, topic_error};
use super::marker::{self, Marker};
use super::native::produce::{CallError, Producer, Record};
use super::route::{Failed, Route};
use super::target::{Guarantee, Target};
use crate::{ConnectorError, EncodedEpoch, KafkaRecord, Payload, SinkCommitter, SinkContext};

/// Transactional ids per task.
const IDS: usize = 2;
/// Fencing may have to wait until the coordinator has aborted what an earlier owner left.
const INIT: Duration = Duration::from_secs(30);
/// Records give up by themselves after the sink's timeout; a flush only has to see that.
const FLUSH_SLACK: Duration = Duration::from_secs(5);
/// Limit of the first look at the marker, which need not be complete.
const FIRST_LOOK: Duration = Duration::from_secs(2);
/// What a committed transaction waits for beyond the timeout of another task's open one.
const MARKER_SLACK: Duration = Duration::from_secs(15);

/// Publishes by transactions.
pub(super) struct ExactlyOnce {
    target: Arc<Target>,
    task: u16,
    route: Route,
    /// Empty before `open` and after a failure.
    producers: Vec<Producer>,
    /// Which of them has its turn.
    turn: usize,
    /// The last committed marker.
    last: Option<Marker>,
}

impl ExactlyOnce {
    pub(super) fn new(target: Arc<Target>, task: u16) -> Self {
        Self { route: Route::new(task), target, task, producers: Vec::new(), turn: 0, last: None }
    }

    fn read_marker(&self, limit: Duration) -> Result<Option<Marker>, ConnectorError> {
        marker::read(&self.target.lookup_config(), &self.target.marker_topic, self.target.sink, self.task, limit)
    }

    fn fence(&mut self) -> Result<(), ConnectorError> {
        self.producers.clear();
        self.turn = 0;
        let mut producers = Vec::with_capacity(IDS);
        for turn in 0..IDS {
            let mut config = self.target.producer_config(self.route.max_bytes);
            let id = self.target.transactional_id(self.task, turn);
            config
                .set("transactional.id", &id)
                .set("transaction.timeout.ms", self.target.transaction_timeout.as_millis().to_string());
            let producer = Producer::new(&config).map_err(|e| creation_error(&e))?;
            producer.init_transactions(INIT).map_err(|e| self.init_error(&id, &e))?;
            producers.push(producer);
        }
        self.producers = producers;
        Ok(())
    }

    fn init_error(&self, id: &str, error: &CallError) -> ConnectorError {
        match error.code {
            RDKafkaErrorCode::InvalidTransactionTimeout => ConnectorError::user(
                format!(
                    "table '{}': the brokers do not allow a transaction timeout of {} ms",
                    self.target.table,
                    self.target.transaction_timeout.as_millis()
                ),
                "lower 'properties.transaction.timeout.ms', or raise the brokers' transaction.max.timeout.ms",
            ),
            RDKafkaErrorCode::TransactionalIdAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed => {
                topic_error(self.route.name(&self.target), RDKafkaErrorCode::TransactionalIdAuthorizationFailed)
            }
            _ => ConnectorError::Retry(format!("transactional id '{id}': {}", error.message)),
        }
    }

    /// One transaction with these records and `marker`.
    fn transact<'a>(
        &mut self,
        records: impl Iterator<Item = &'a KafkaRecord>,
        marker: Marker,
    ) -> Result<(), ConnectorError> {
        let json = marker.to_json()?;
        let key = marker::key(self.target.sink, self.task);
        let Some(producer) = self.producers.get_mut(self.turn) else {
            return Err(ConnectorError::Retry(format!("sink '{}' task {} is not open", self.target.table, self.task)));
        };
        let marker_record = Record {
            topic: &self.target.marker_topic,
            partition: Some(marker::partition(self.target.sink, self.task)),
            key: Some(key.as_bytes()),
            value: Some(&json),
            timestamp_ms: None,
            headers: &[],
        };
        let route = &mut self.route;
        let target = &self.target;
        let result = producer
            .begin()
            .map_err(|e| Failed::Call(e, None))
            .and_then(|()| records.into_iter().try_for_each(|r| route.send(target, producer, r)))
            .and_then(|()| producer.send(&marker_record).map_err(|e| Failed::Call(e, None)))
            .and_then(|()| producer.commit(target.timeout).map_err(|e| Failed::Call(e, producer.take_failure())));
        match result {
            Ok(()) => {
                self.turn = (self.turn + 1) % IDS;
                self.last = Some(marker);
                Ok(())
            }
            Err(failed) => Err(self.give_up(failed)),
        }
    }

    /// Drops the producers and says what the caller can do.
    fn give_up(&mut self, failed: Failed) -> ConnectorError {
        let fenced = failed.is_fenced();
        let error = failed.into_error(&self.target, &self.route);
        if matches!(error, ConnectorError::User { .. })
            && let Some(producer) = self.producers.get(self.turn)
            && let Err(abort) = producer.abort(Duration::from_secs(5))
        {
            tracing::debug!(error = abort.message, "aborting a transaction that cannot succeed");
        }
        self.producers.clear();
        if !fenced {
            return error;
        }
        // The coordinator bumps the epoch also when it aborts a transaction by its timeout; only a marker tells a newer owner.
        match (self.read_marker(self.target.transaction_timeout + MARKER_SLACK), &self.last) {
            (Ok(Some(found)), Some(last)) if found.era > last.era => newer_owner(&self.target, self.task, &found),
            _ => error,
        }
    }
}

fn newer_owner(target: &Target, task: u16, found: &Marker) -> ConnectorError {
    ConnectorError::Fatal(format!(
        "sink '{}' task {task} belongs to era {} now: another driver leads the pipeline, and this one must not write any more",
        target.table, found.era
    ))
}

impl SinkCommitter for ExactlyOnce {
    fn open(&mut self, context: &SinkContext) -> Result<Epoch, ConnectorError> {
        self.last = None;
        self.route.open(&self.target)?;
        match self.read_marker(FIRST_LOOK) {
            Ok(Some(found)) if found.era > context.era => {
                self.producers.clear();
                return Err(newer_owner(&self.target, self.task, &found));
            }
            Ok(_) | Err(ConnectorError::Retry(_)) => {}
            Err(error) => return Err(error),
        }
        self.fence()?;
        let found = self.read_marker(self.target.transaction_timeout + MARKER_SLACK)?;
        let published = match &found {
            Some(found) if found.era > context.era => {
                self.producers.clear();
                return Err(newer_owner(&self.target, self.task, found));
            }
            Some(found) if found.parallelism != self.target.parallelism => {
                self.producers.clear();
                return Err(ConnectorError::Fatal(format!(
                    "sink '{}' had {} tasks and has {} now; which task published what is only known for the old number",
                    self.target.table, found.parallelism, self.target.parallelism
                )));
            }
            Some(found) => found.epoch,
            None if context.restored > Epoch(0) && !self.target.accept_missing_marker => {
                self.producers.clear();
                return Err(ConnectorError::user(
                    format!(
                        "sink '{}' task {}: topic '{}' holds no marker, although epoch {} was reached before",
                        self.target.table, self.task, self.target.marker_topic, context.restored
                    ),
                    "restore the marker topic; or set 'sink.accept-missing-marker' = 'true' once, after which epochs since the \
                     checkpoint may be in the topic twice",
                ));
            }
            None => Epoch(0),
        };
        let claim = Marker {
            era: context.era,
            parallelism: self.target.parallelism,
            epoch: published,
            digest: found.map(|m| m.digest).unwrap_or_default(),
        };
        self.last = Some(claim.clone());
        self.transact(std::iter::empty(), claim)?;
        Ok(published)
    }

    fn publish(&mut self, epochs: Vec<EncodedEpoch>) -> Result<(), ConnectorError> {
        let Some(last) = epochs.iter().rev().find(|e| !records(e).is_empty()) else { return Ok(()) };
        let Some(owner) = &self.last else {
            return Err(ConnectorError::Retry(format!("sink '{}' task {} is not open", self.target.table, self.task)));
        };
        let marker = Marker {
            era: owner.era,
            parallelism: self.target.parallelism,
            epoch: last.epoch,
            digest: digest(records(last)),
        };
        self.transact(epochs.iter().flat_map(records), marker)
    }
}

/// Publishes without transactions: acknowledged, or just sent.
pub(super) struct Direct {
    target: Arc<Target>,
    route: Route,
    producer: Option<Producer>,
}

impl Direct {
    pub(super) fn new(target: Arc<Target>, task: u16) -> Self {
        Self { target, route: Route::new(task), producer: None }
    }
}

impl SinkCommitter for Direct {
    /// Nothing tells what was published, so everything since the checkpoint is published again.
    fn open(&mut self, context: &SinkContext) -> Result<Epoch, ConnectorError> {
        self.producer = None;
        self.route.open(&self.target)?;
        let mut config = self.target.producer_config(self.route.max_bytes);
        config.remove("transaction.timeout.ms");
        match self.target.guarantee {
            Guarantee::None => config.set("acks", "1"),
            Guarantee::AtLeastOnce | Guarantee::ExactlyOnce => config.set("enable.idempotence", "true"),
        };
        if config.get("message.timeout.ms").or(config.get("delivery.timeout.ms")).is_none() {
            config.set("message.timeout.ms", self.target.timeout.as_millis().to_string());
        }
        self.producer = Some(Producer::new(&config).map_err(|e| creation_error(&e))?);
        Ok(context.restored)
    }

    fn publish(&mut self, epochs: Vec<EncodedEpoch>) -> Result<(), ConnectorError> {
        let Some(producer) = &mut self.producer else {
            return Err(ConnectorError::Retry(format!("sink '{}' is not open", self.target.table)));
        };
        let sent = epochs.iter().flat_map(records).try_for_each(|r| self.route.send(&self.target, producer, r));
        let result = match (sent, self.target.guarantee) {
            (Err(failed), _) => Err(failed),
            (Ok(()), Guarantee::None) => {
                producer.serve(Duration::ZERO);
                if let Some(failure) = producer.take_failure() {
                    tracing::warn!(
                        topic = failure.topic,
                        partition = failure.partition,
                        "a record was lost, as 'sink.delivery-guarantee' = 'none' allows: {}",
                        failure.code
                    );
                }
                Ok(())
            }
            (Ok(()), Guarantee::AtLeastOnce | Guarantee::ExactlyOnce) => {
                let flushed = producer.flush(self.target.timeout + FLUSH_SLACK);
                match (producer.take_failure(), flushed) {
                    (Some(failure), _) => Err(Failed::Delivery(failure)),
                    (None, Err(error)) => Err(Failed::Call(error, None)),
                    (None, Ok(())) => Ok(()),
                }
            }
        };
        result.map_err(|failed| {
            self.producer = None;
            failed.into_error(&self.target, &self.route)
        })
    }
}

fn records(epoch: &EncodedEpoch) -> &[KafkaRecord] {
    match &epoch.payload {
        Payload::Kafka(records) => records,
        Payload::Empty | Payload::Files(_) | Payload::Text(_) | Payload::Other(_) => &[],
    }
}

fn digest(records: &[KafkaRecord]) -> String {
    let mut digest = DigestBuilder::default();
    for record in records {
        digest.add(record.key.as_deref().unwrap_or_default());
        digest.add(record.value.as_deref().unwrap_or_default());
    }
    digest.finish().to_string()
}
