//! What all clients share: log lines, remembered errors, and errors in the user's words.
use std::ffi::c_int;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;

use crate::ConnectorError;

/// How long the first contact may take: the user is waiting for the answer.
const FIRST_CONTACT: Duration = Duration::from_secs(10);

/// A topic that was created a moment ago is not known to every broker yet.
const JUST_CREATED: Duration = Duration::from_secs(2);

/// Hands a line of the library's log on. Lost connections are its daily life: they are worth a look, not an alarm.
pub(super) fn log_line(level: c_int, facility: &str, message: &str) {
    match level {
        0..=3 => tracing::warn!(target: "kafka", "{facility}: {message}"),
        4..=5 => tracing::info!(target: "kafka", "{facility}: {message}"),
        _ => tracing::debug!(target: "kafka", "{facility}: {message}"),
    }
}

/// Context of the clients that are used through the safe binding.
#[derive(Default)]
pub(super) struct Context {
    /// The library reports why it cannot connect only here; the calls that wait for the connection just time out.
    last: Mutex<Option<(RDKafkaErrorCode, String)>>,
}

impl Context {
    /// The last error since the last call.
    pub(super) fn take_error(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level as c_int, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
        tracing::debug!(target: "kafka", "{code}: {reason}");
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        // "All brokers are down" says less than the reason before it.
        if last.is_none() || code != RDKafkaErrorCode::AllBrokersDown {
            *last = Some((code, reason.to_owned()));
        }
    }
}

impl ConsumerContext for Context {}

/// A consumer for metadata and offsets.
pub(super) type Lookup = BaseConsumer<Context>;

/// Whether the cluster has ever answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contact {
    /// No: an unreachable broker is most likely a wrong address.
    First,
    /// Yes, when the pipeline was checked: it will be there again.
    Again,
}

/// Connects, and fetches the metadata of one topic or of all.
pub(super) fn connect(
    config: &ClientConfig,
    topic: Option<&str>,
    contact: Contact,
) -> Result<(Lookup, Metadata), ConnectorError> {
    let lookup: Lookup = config.create_with_context(Context::default()).map_err(|e| creation_error(&e))?;
    let started = Instant::now();
    let mut reason = None;
    loop {
        let error = match lookup.fetch_metadata(topic, Duration::from_secs(1)) {
            Ok(metadata) if is_missing(&metadata) && started.elapsed() < JUST_CREATED => {
                std::thread::sleep(Duration::from_millis(50));
                continue;
            }
            Ok(metadata) => return Ok((lookup, metadata)),
            Err(error) => error,
        };
        lookup.poll(Duration::ZERO);
        reason = lookup.context().take_error().or(reason);
        let refused = reason
            .as_ref()
            .is_some_and(|(code, _)| matches!(code, RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SSL));
        if refused || started.elapsed() > FIRST_CONTACT {
            return Err(unreachable(config, &error, reason, contact));
        }
    }
}

fn is_missing(metadata: &Metadata) -> bool {
    metadata
        .topics()
        .iter()
        .any(|t| t.error().is_some_and(|e| RDKafkaErrorCode::from(e) == RDKafkaErrorCode::UnknownTopicOrPartition))
}

fn unreachable(
    config: &ClientConfig,
    error: &KafkaError,
    reason: Option<(RDKafkaErrorCode, String)>,
    contact: Contact,
) -> ConnectorError {
    let servers = config.get("bootstrap.servers").unwrap_or_default();
    let (code, detail) = match reason {
        Some((code, reason)) => (code, format!(": {reason}")),
        None => (error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail), format!(": {error}")),
    };
    match code {
        RDKafkaErrorCode::Authentication => ConnectorError::user(
            format!("kafka at {servers} refuses these credentials{detail}"),
            "check 'properties.security.protocol', 'properties.sasl.mechanism' and the user and password",
        ),
        RDKafkaErrorCode::SSL => ConnectorError::user(
            format!("no TLS connection to kafka at {servers}{detail}"),
            "check 'properties.security.protocol' and 'properties.ssl.ca.location'",
        ),
        _ if contact == Contact::Again => {
            ConnectorError::Retry(format!("no kafka broker answers at {servers}{detail}"))
        }
        _ => ConnectorError::user(
            format!("no kafka broker answers at {servers}{detail}"),
            "start the broker, or correct 'properties.bootstrap.servers'",
        ),
    }
}

/// A client that could not even be made: a wrong property.
pub(super) fn creation_error(error: &KafkaError) -> ConnectorError {
    match error {
        KafkaError::ClientConfig(_, problem, key, _) => ConnectorError::user(
            format!("kafka property '{key}': {}", problem.to_lowercase()),
            "properties are those of librdkafka; its CONFIGURATION.md lists them",
        ),
        KafkaError::ClientCreation(problem) => ConnectorError::user(
            format!("kafka client: {}", problem.to_lowercase()),
            "check the options that begin with 'properties.' or 'kafka.'",
        ),
        other => ConnectorError::Retry(format!("kafka client: {other}")),
    }
}

/// An error code of a request about `topic`.
pub(super) fn topic_error(topic: &str, code: RDKafkaErrorCode) -> ConnectorError {
    match code {
        RDKafkaErrorCode::UnknownTopicOrPartition
        | RDKafkaErrorCode::UnknownTopic
        | RDKafkaErrorCode::UnknownPartition => missing_topic(topic),
        RDKafkaErrorCode::TopicAuthorizationFailed => ConnectorError::user(
            format!("kafka denies access to topic '{topic}'"),
            "grant this user READ and DESCRIBE on the topic to read it, or WRITE and DESCRIBE to write it",
        ),
        RDKafkaErrorCode::GroupAuthorizationFailed => ConnectorError::user(
            format!("kafka denies access to the consumer group (topic '{topic}')"),
            "grant this user READ on the group, or take 'properties.group.id' away",
        ),
        RDKafkaErrorCode::TransactionalIdAuthorizationFailed => ConnectorError::user(
            format!("kafka denies the transactional id for topic '{topic}'"),
            "grant this user WRITE and DESCRIBE on the transactional ids that begin with 'sink.transactional-id-prefix'",
        ),
        RDKafkaErrorCode::InvalidTopic => {
            ConnectorError::user(format!("'{topic}' is not a topic name"), "use letters, digits, '.', '_' and '-'")
        }
        code => ConnectorError::Retry(format!("topic '{topic}': {code}")),
    }
}

/// The topic is not there.
pub(super) fn missing_topic(topic: &str) -> ConnectorError {
    ConnectorError::user(format!("there is no topic '{topic}'"), "create it, or correct the 'topic' option")
}
