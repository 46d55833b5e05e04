//! Markers: which epoch of a sink task is published, committed together with its records.
//!
//! They live in one compacted topic per pipeline with [`PARTITIONS`] partitions, keyed by `sink/task`; a task's partition is a
//! function of both. Number, key and JSON are a format: changing them loses what was published.
//!
//! Reading waits for the **uncommitted** high watermark: an open transaction of another task in the same partition hides what was
//! committed after its first record, so the committed view is complete only when it has reached that watermark.
use std::time::{Duration, Instant};

use millstream_plan::{Epoch, Era, SinkId};
use rdkafka::ClientConfig;
use rdkafka::consumer::Consumer;
use serde::{Deserialize, Serialize};

use super::client::{Contact, connect, creation_error, topic_error};
use super::native::fetch::{Fetcher, Notice};
use crate::ConnectorError;

/// Partitions of the marker topic.
pub(super) const PARTITIONS: i32 = 16;

/// The last word of a sink task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Marker {
    /// Who wrote it.
    pub era: Era,
    /// Number of tasks of the sink.
    pub parallelism: u16,
    /// The last epoch that is published.
    pub epoch: Epoch,
    /// Digest of what was published with it; empty for a claim.
    pub digest: String,
}

/// Key of a task's markers.
pub(super) fn key(sink: SinkId, task: u16) -> String {
    format!("{sink}/{task}")
}

/// Partition of a task's markers.
pub(super) fn partition(sink: SinkId, task: u16) -> i32 {
    (i32::from(sink.0) * 7 + i32::from(task)) % PARTITIONS
}

impl Marker {
    pub(super) fn to_json(&self) -> Result<Vec<u8>, ConnectorError> {
        serde_json::to_vec(self).map_err(|e| ConnectorError::Fatal(format!("marker: {e}")))
    }
}

/// The last committed marker of a task.
pub(super) fn read(
    config: &ClientConfig,
    topic: &str,
    sink: SinkId,
    task: u16,
    limit: Duration,
) -> Result<Option<Marker>, ConnectorError> {
    let started = Instant::now();
    let partition = partition(sink, task);
    let mut uncommitted = config.clone();
    uncommitted.set("isolation.level", "read_uncommitted");
    let (lookup, _) = connect(&uncommitted, Some(topic), Contact::Again)?;
    let (beginning, end) = lookup
        .fetch_watermarks(topic, partition, Duration::from_secs(5))
        .map_err(|e| ConnectorError::Retry(format!("marker topic '{topic}' partition {partition}: {e}")))?;
    let (beginning, end) = (u64::try_from(beginning).unwrap_or(0), u64::try_from(end).unwrap_or(0));

    let mut committed = config.clone();
    committed
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "error")
        .set("enable.auto.commit", "false")
        .set("fetch.wait.max.ms", "20");
    let client = Fetcher::new(&committed).map_err(|e| creation_error(&e))?;
    let mut fetch = client.partition(topic, partition, beginning).map_err(|e| creation_error(&e))?;
    let mut passed = beginning;
    let mut marker = None;
    let mut notices = Vec::new();
    let key = key(sink, task);
    while passed < end {
        client.serve();
        let mut messages = fetch.messages(0);
        let more = fetch.fill(1024, &mut notices);
        while fetch.next().is_some() {
            fetch.take(&mut messages);
        }
        for i in 0..messages.len() {
            if messages.key(i) == Some(key.as_bytes()) {
                marker = messages.value(i).map(<[u8]>::to_vec);
            }
            passed = messages.offset(i) + 1;
        }
        for notice in notices.drain(..) {
            match notice {
                Notice::End(offset) => passed = passed.max(offset),
                Notice::Error(code, message) => match topic_error(topic, code) {
                    ConnectorError::Retry(_) => tracing::debug!(topic, "{code}: {message}"),
                    error => return Err(error),
                },
            }
        }
        if started.elapsed() > limit {
            return Err(ConnectorError::Retry(format!(
                "marker topic '{topic}' partition {partition}: an open transaction hides offsets {passed} to {end}"
            )));
        }
        if !more && passed < end {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    marker
        .map(|json| {
            serde_json::from_slice(&json).map_err(|e| {
                ConnectorError::Fatal(format!(
                    "marker topic '{topic}' partition {partition}: the marker of {key} is damaged: {e}"
                ))
            })
        })
        .transpose()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use millstream_plan::{Attempt, Generation};

    use super::*;

    #[test]
    fn the_format_does_not_change() {
        let marker = Marker {
            era: Era { generation: Generation(3), attempt: Attempt(1) },
            parallelism: 4,
            epoch: Epoch(17),
            digest: "ab".to_owned(),
        };
        let json = r#"{"era":{"generation":3,"attempt":1},"parallelism":4,"epoch":17,"digest":"ab"}"#;
        assert_eq!(String::from_utf8(marker.to_json().unwrap()).unwrap(), json);
        assert_eq!(serde_json::from_str::<Marker>(json).unwrap(), marker);
        assert_eq!((key(SinkId(2), 3), partition(SinkId(2), 3)), ("2/3".to_owned(), 1));
    }
}
