//! What is in a topic, asked through the connector.
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use millstream_connectors::{SplitState, connector};

use crate::failure::Failure;

/// The partitions of a topic with their ends.
///
/// # Errors
/// The brokers do not answer, or there is no such topic.
pub fn ends(servers: &str, name: &str) -> Result<Vec<SplitState>, Failure> {
    let sql = format!(
        "CREATE TABLE records (value STRING) WITH ('connector' = 'kafka', 'topic' = {}, 'properties.bootstrap.servers' = {},
           'scan.bounded.mode' = 'latest-offset', 'format' = 'raw');
         CREATE TABLE target (value STRING) WITH ('connector' = 'blackhole');
         INSERT INTO target SELECT value FROM records;",
        quoted(name),
        quoted(servers)
    );
    let pipeline = millstream_sql::plan(&sql, &BTreeMap::new(), 1)?;
    let spec = pipeline.sources.into_iter().next().ok_or_else(|| Failure::job("the topic has no source"))?;
    let kafka = connector("kafka").ok_or_else(|| Failure::job("there is no connector 'kafka'"))?;
    let mut enumerator = (kafka.source)(spec)?.enumerator()?;
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
    Ok(enumerator.discover(&BTreeMap::new(), now_ms)?.splits)
}

/// Per partition the offset at which to stop, so that about `events` events are read, evenly from all; `None` reads everything.
///
/// # Errors
/// There are fewer.
pub fn shares(partitions: &[SplitState], events: Option<u64>) -> Result<Vec<(u32, u64)>, Failure> {
    let count = partitions.len() as u64;
    let there: u64 = partitions.iter().map(|p| p.end - p.start).sum();
    if let Some(events) = events.filter(|e| *e > there) {
        return Err(Failure::usage(
            format!("the topic has {there} events, not {events}"),
            "fill it with 'millstream generate nexmark', or ask for fewer with --events",
        ));
    }
    let mut shares = Vec::new();
    for (i, partition) in (0..).zip(partitions) {
        let number = partition.split.0.rsplit_once('/').and_then(|(_, n)| n.parse().ok());
        let number = number.ok_or_else(|| Failure::job(format!("partition '{}' has no number", partition.split)))?;
        let share = events.map_or(u64::MAX, |e| e / count + u64::from(i < e % count));
        shares.push((number, partition.end.min(partition.start.saturating_add(share))));
    }
    Ok(shares)
}

/// A text as a SQL literal.
#[must_use]
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn events_are_taken_evenly() {
        let partition = |n: u32, start, end| SplitState {
            split: format!("a/b/{n}").as_str().into(),
            start,
            end,
            tag: String::new(),
            closed: true,
        };
        let topic = [partition(0, 0, 10), partition(1, 5, 15), partition(3, 0, 10)];
        assert_eq!(shares(&topic, Some(8)).unwrap(), [(0, 3), (1, 8), (3, 2)]);
        assert_eq!(shares(&topic, None).unwrap(), [(0, 10), (1, 15), (3, 10)]);
        assert!(matches!(shares(&topic, Some(31)), Err(Failure::Usage { .. })));
        assert_eq!(quoted("it's"), "'it''s'");
    }
}
