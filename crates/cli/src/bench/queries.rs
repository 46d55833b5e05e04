//! The measured queries: the files under `examples/nexmark`, with another source and a sink that keeps nothing.
use super::topic::quoted;

/// The source's options in the files, which a measurement replaces.
const FILE_SOURCE: &str = "'connector' = 'nexmark', 'number-of-rows' = '1000000'";
/// How the table begins whose options a measurement replaces, too.
const FILE_SINK: &str = "CREATE TABLE result (";

/// The side table of q13, and what is in its file.
pub const SIDE_PATH: &str = "'path' = 'examples/nexmark/side_input'";
pub const SIDE_ROWS: &str = include_str!("../../../../examples/nexmark/side_input/part-0.csv");

macro_rules! files {
    ($($name:literal)*) => {
        /// Name and text of every query.
        const QUERIES: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../../../examples/nexmark/", $name, ".sql")))),*];
    };
}

files!("q0" "q1" "q2" "q3" "q4" "q5" "q5-hop-count" "q6" "q7" "q8" "q9" "q10" "q11" "q12" "q13" "q14" "q15" "q16" "q17" "q18" "q19" "q20" "q21" "q22" "q23");

/// The first half of q5 alone, which is measured by name only.
pub const PART: &str = "q5-hop-count";

/// Where a measured query reads from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The generator inside the engine.
    Memory { events: u64 },
    /// A topic up to these offsets, per partition.
    Kafka { servers: String, topic: String, ends: Vec<(u32, u64)> },
}

impl Source {
    /// Options of the source table.
    fn options(&self) -> String {
        match self {
            Self::Memory { events } => format!("'connector' = 'nexmark', 'number-of-rows' = '{events}'"),
            Self::Kafka { servers, topic, ends } => {
                let ends: Vec<String> = ends.iter().map(|(p, end)| format!("partition:{p},offset:{end}")).collect();
                format!(
                    "'connector' = 'kafka', 'topic' = {}, 'properties.bootstrap.servers' = {}, 'format' = 'json',
  'scan.startup.mode' = 'earliest-offset', 'scan.bounded.mode' = 'specific-offsets',
  'scan.bounded.specific-offsets' = '{}'",
                    quoted(topic),
                    quoted(servers),
                    ends.join(";")
                )
            }
        }
    }
}

/// Names of the queries.
pub fn names() -> impl Iterator<Item = &'static str> {
    QUERIES.iter().map(|(name, _)| *name)
}

/// The pipeline of a query; `None` if there is none of this name.
#[must_use]
pub fn text(query: &str, source: &Source) -> Option<String> {
    let (_, file) = QUERIES.iter().find(|(name, _)| *name == query)?;
    let (before, sink) = file.split_once(FILE_SINK)?;
    let (columns, after) = sink.split_once("\n)")?;
    let (_, insert) = after.split_once(';')?;
    let tables = before.replace(FILE_SOURCE, &source.options());
    Some(format!("{tables}{FILE_SINK}{columns}\n) WITH ('connector' = 'blackhole');{insert}"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn every_query_reads_what_is_measured_and_keeps_nothing() {
        let kafka = Source::Kafka {
            servers: "localhost:9092".to_owned(),
            topic: "nexmark".to_owned(),
            ends: vec![(0, 10), (1, 11)],
        };
        for name in names() {
            for (source, connector) in [(&Source::Memory { events: 7 }, "nexmark"), (&kafka, "kafka")] {
                let pipeline = millstream_sql::plan(&text(name, source).unwrap(), &BTreeMap::new(), 2).unwrap();
                let sources = pipeline.sources.iter().map(|s| s.options.text("connector"));
                // Of q13 also a side table.
                let sources: Vec<_> = sources.filter(|c| *c != Some("filesystem")).collect();
                let sinks: Vec<_> = pipeline.sinks.iter().map(|s| s.options.text("connector")).collect();
                assert_eq!((sources, sinks), (vec![Some(connector)], vec![Some("blackhole")]), "{name}");
            }
        }
        assert_eq!(text("q99", &kafka), None);
    }
}
