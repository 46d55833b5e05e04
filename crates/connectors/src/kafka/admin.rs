//! Creating topics (for markers, and for tools that fill one), and limits of the target.
use std::time::{Duration, Instant};

use futures::executor::block_on;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode;

use super::client::{Contact, Context, Lookup, connect, creation_error};
use super::marker;
use crate::ConnectorError;

const REQUEST: Duration = Duration::from_secs(5);

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(REQUEST)).operation_timeout(Some(REQUEST))
}

fn client(config: &ClientConfig) -> Result<AdminClient<Context>, ConnectorError> {
    config.create_with_context(Context::default()).map_err(|e| creation_error(&e))
}

/// Creates the marker topic if it is not there, and checks that it is as the sinks need it.
pub(super) fn ensure_marker_topic(
    config: &ClientConfig,
    lookup: &Lookup,
    name: &str,
    brokers: usize,
) -> Result<(), ConnectorError> {
    let started = Instant::now();
    let mut created = false;
    loop {
        let metadata = lookup
            .fetch_metadata(Some(name), REQUEST)
            .map_err(|e| ConnectorError::Retry(format!("marker topic '{name}': {e}")))?;
        let topic = metadata.topics().iter().find(|t| t.name() == name && t.error().is_none());
        let partitions = topic.map_or(0, |t| t.partitions().len());
        if partitions > 0 {
            return check_partitions(name, partitions);
        }
        if !created {
            let instead = format!(
                "grant CREATE, or create it with {} partitions and cleanup.policy=compact, or name another one with \
                 'sink.marker-topic'",
                marker::PARTITIONS
            );
            create(config, &marker_topic(name, brokers), &instead)?;
            created = true;
        } else if started.elapsed() > REQUEST {
            return Err(ConnectorError::Retry(format!("marker topic '{name}' was created but does not appear")));
        } else {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn check_partitions(name: &str, partitions: usize) -> Result<(), ConnectorError> {
    if partitions == marker::PARTITIONS as usize {
        return Ok(());
    }
    Err(ConnectorError::user(
        format!("marker topic '{name}' has {partitions} partitions; it must have {}", marker::PARTITIONS),
        "give 'sink.marker-topic' a name that nothing else uses",
    ))
}

/// Small segments that are compacted soon: only the last marker of each task is ever read, at the start.
fn marker_topic(name: &str, brokers: usize) -> NewTopic<'_> {
    let replication = i32::try_from(brokers.clamp(1, 3)).unwrap_or(1);
    NewTopic::new(name, marker::PARTITIONS, TopicReplication::Fixed(replication))
        .set("cleanup.policy", "compact")
        .set("min.cleanable.dirty.ratio", "0.01")
        .set("segment.bytes", "1048576")
        .set("segment.ms", "600000")
}

/// Creates a topic; says whether it was not there before. `instead` is what a user can do who may not.
fn create(config: &ClientConfig, topic: &NewTopic<'_>, instead: &str) -> Result<bool, ConnectorError> {
    let name = topic.name;
    let results = block_on(client(config)?.create_topics([topic], &options()))
        .map_err(|e| ConnectorError::Retry(format!("creating the topic '{name}': {e}")))?;
    match results.into_iter().next() {
        None | Some(Ok(_)) => Ok(true),
        Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(false),
        Some(Err((_, code))) => {
            Err(ConnectorError::user(format!("the topic '{name}' cannot be created: {code}"), instead))
        }
    }
}

/// Creates a topic with the brokers' own defaults and returns when it can be written to; says whether it was not there before.
///
/// # Errors
/// The brokers do not answer, or do not let this user create it.
pub fn create_topic(servers: &str, name: &str, partitions: u16) -> Result<bool, ConnectorError> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers).set("log_level", "0");
    let (lookup, _) = connect(&config, None, Contact::First)?;
    let topic = NewTopic::new(name, i32::from(partitions), TopicReplication::Fixed(-1));
    if !create(&config, &topic, "create it with the brokers' own tools, or use a user who may")? {
        return Ok(false);
    }
    let started = Instant::now();
    let leads = |lookup: &Lookup| {
        let metadata = lookup.fetch_metadata(Some(name), REQUEST).ok()?;
        let topic = metadata.topics().iter().find(|t| t.name() == name)?;
        Some(topic.partitions().iter().filter(|p| p.leader() >= 0).count() == usize::from(partitions))
    };
    while leads(&lookup) != Some(true) {
        if started.elapsed() > REQUEST {
            return Err(ConnectorError::Retry(format!("topic '{name}' was created but does not appear")));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(true)
}

/// How long compaction leaves a topic's records alone (`min.compaction.lag.ms`), if it is compacted and this user may see it.
pub(super) fn compaction_lag(config: &ClientConfig, topic: &str) -> Option<Duration> {
    let admin = client(config).ok()?;
    let resources = block_on(admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options())).ok()?;
    let resource = resources.into_iter().next()?.ok()?;
    let value = |name: &str| resource.get(name).and_then(|e| e.value.clone());
    let compacted = value("cleanup.policy")?.contains("compact");
    let lag = value("min.compaction.lag.ms").and_then(|v| v.parse().ok()).unwrap_or(0);
    compacted.then(|| Duration::from_millis(lag))
}

/// `max.message.bytes` of a topic, if this user may see it.
pub(super) fn max_message_bytes(config: &ClientConfig, topic: &str) -> Option<u64> {
    let admin = client(config).ok()?;
    let resources = block_on(admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options())).ok()?;
    let resource = resources.into_iter().next()?.ok()?;
    resource.get("max.message.bytes")?.value.as_ref()?.parse().ok()
}
