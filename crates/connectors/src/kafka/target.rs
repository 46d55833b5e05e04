//! What a Kafka sink writes to, and the check of it before anything is deployed.
use std::time::Duration;

use millstream_plan::SinkId;
use rdkafka::ClientConfig;
use rdkafka::consumer::Consumer;

use super::client::{Contact, connect, topic_error};
use super::config::client_config;
use super::native::describe::describe_topics;
use super::{admin, client};
use crate::{ConnectorError, SinkSpec};

/// A transaction must outlive a short absence of the broker, or every such absence rolls the pipeline back.
const SHORTEST_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(60);

/// What is promised to readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Guarantee {
    ExactlyOnce,
    AtLeastOnce,
    None,
}

/// Who chooses the partition of a record that does not name one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Partitioner {
    /// The library, by the key as the Java client does.
    Key,
    /// The library, any.
    Any,
    /// Partition = sink task.
    Fixed,
    RoundRobin,
}

/// Options of a sink, read once.
pub(super) struct Target {
    pub table: String,
    pub sink: SinkId,
    pub parallelism: u16,
    /// Where records without a topic of their own go.
    pub topic: Option<String>,
    pub guarantee: Guarantee,
    pub partitioner: Partitioner,
    pub marker_topic: String,
    pub accept_missing_marker: bool,
    /// Limit of one publication.
    pub timeout: Duration,
    pub transaction_timeout: Duration,
    id_prefix: String,
    config: ClientConfig,
}

impl Target {
    pub(super) fn new(spec: &SinkSpec) -> Result<Self, ConnectorError> {
        let options = &spec.options;
        let mut config = client_config(&spec.table, options)?;
        if config.get("client.id").is_none() {
            config.set("client.id", format!("millstream-{}-{}", spec.pipeline, spec.table));
        }
        let topic = options.text("topic").map(str::to_owned);
        if topic.is_none() && !spec.metadata.iter().any(|(_, key)| key == "topic") {
            return Err(ConnectorError::user(
                format!("table '{}': no topic is named", spec.table),
                "add 'topic' = '…', or a column `topic STRING METADATA`",
            ));
        }
        let choice = |name: &str| options.text(name).unwrap_or_default().to_ascii_lowercase();
        let guarantee = match choice("sink.delivery-guarantee").as_str() {
            "at-least-once" => Guarantee::AtLeastOnce,
            "none" => Guarantee::None,
            _ => Guarantee::ExactlyOnce,
        };
        let partitioner = match choice("sink.partitioner").as_str() {
            "fixed" => Partitioner::Fixed,
            "round-robin" => Partitioner::RoundRobin,
            "none" => Partitioner::Any,
            _ => Partitioner::Key,
        };
        let name = topic_name(&spec.pipeline);
        let transaction_timeout = transaction_timeout(&spec.table, &config)?;
        config.create_native_config().map_err(|e| client::creation_error(&e))?;
        Ok(Self {
            table: spec.table.clone(),
            sink: spec.id,
            parallelism: spec.parallelism,
            topic,
            guarantee,
            partitioner,
            marker_topic: options
                .text("sink.marker-topic")
                .map_or_else(|| format!("__millstream.{name}.markers"), str::to_owned),
            accept_missing_marker: options.is_true("sink.accept-missing-marker"),
            timeout: options.duration("sink.timeout").unwrap_or(Duration::from_secs(45)),
            transaction_timeout,
            id_prefix: options
                .text("sink.transactional-id-prefix")
                .map_or_else(|| format!("millstream.{name}"), str::to_owned),
            config,
        })
    }

    /// Configuration of a client that only asks.
    pub(super) fn lookup_config(&self) -> ClientConfig {
        let mut config = self.config.clone();
        config.remove("group.id");
        config.remove("transaction.timeout.ms");
        config
    }

    /// Configuration of a producer that may send messages up to `max_bytes`.
    pub(super) fn producer_config(&self, max_bytes: Option<u64>) -> ClientConfig {
        let mut config = self.config.clone();
        // A publication ends with a flush, which does not wait for the linger: until then batches may grow.
        for (key, value) in
            [("linger.ms", "10"), ("queue.buffering.max.messages", "500000"), ("queue.buffering.max.kbytes", "65536")]
        {
            if config.get(key).is_none() {
                config.set(key, value);
            }
        }
        if let (Some(bytes), None) = (max_bytes, config.get("message.max.bytes")) {
            // The library's own bounds.
            config.set("message.max.bytes", bytes.clamp(1_000, 1_000_000_000).to_string());
        }
        config.remove("group.id");
        config.set("partitioner", if self.partitioner == Partitioner::Any { "random" } else { "murmur2_random" });
        config
    }

    /// The transactional id `turn` of a task: a function of pipeline, sink and task, so that its next owner fences it.
    pub(super) fn transactional_id(&self, task: u16, turn: usize) -> String {
        format!("{}.{}.{task}.{turn}", self.id_prefix, self.sink)
    }

    /// Checks that the topic is there and may be written, and creates the marker topic.
    pub(super) fn check(&self) -> Result<(), ConnectorError> {
        let config = self.lookup_config();
        let (lookup, metadata) = connect(&config, self.topic.as_deref(), Contact::First)?;
        if let Some(name) = &self.topic {
            match metadata.topics().iter().find(|t| t.name() == name) {
                None => return Err(client::missing_topic(name)),
                Some(topic) => {
                    if let Some(error) = topic.error() {
                        return Err(topic_error(name, error.into()));
                    }
                }
            }
            let described = describe_topics(lookup.client(), &[name])
                .map_err(|e| ConnectorError::Retry(format!("topic '{name}': {e}")))?;
            if described.iter().any(|t| t.may_write == Some(false)) {
                return Err(ConnectorError::user(
                    format!("kafka denies writing to topic '{name}'"),
                    "grant this user WRITE on the topic",
                ));
            }
        }
        match self.guarantee {
            Guarantee::ExactlyOnce => {
                admin::ensure_marker_topic(&config, &lookup, &self.marker_topic, metadata.brokers().len())
            }
            Guarantee::AtLeastOnce | Guarantee::None => Ok(()),
        }
    }
}

fn transaction_timeout(table: &str, config: &ClientConfig) -> Result<Duration, ConnectorError> {
    let Some(given) = config.get("transaction.timeout.ms") else { return Ok(TRANSACTION_TIMEOUT) };
    let timeout = given.trim().parse().map(Duration::from_millis).map_err(|_| {
        ConnectorError::user(
            format!("table '{table}': 'transaction.timeout.ms' = '{given}' is not a number of milliseconds"),
            "write it as 60000",
        )
    })?;
    if timeout < SHORTEST_TRANSACTION_TIMEOUT {
        return Err(ConnectorError::user(
            format!("table '{table}': 'transaction.timeout.ms' = '{given}' is too short"),
            "give at least 10000, so that a short absence of the broker does not roll the pipeline back",
        ));
    }
    Ok(timeout)
}

/// The name with everything that a topic's name cannot hold replaced.
fn topic_name(pipeline: &str) -> String {
    pipeline.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' }).take(200).collect()
}
