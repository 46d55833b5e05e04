//! The measured queries: the files under `examples/nexmark`, with another source and a sink that keeps nothing.
use super::topic::quoted;

/// The table's options in the files, which a measurement replaces.
const FILE_SOURCE: &str = "'connector' = 'nexmark', 'number-of-rows' = '1000000'";
const FILE_SINK: &str = "'connector' = 'print'";

/// The side table of q13, and what is in its file.
pub const SIDE_PATH: &str = "'path' = 'examples/nexmark/side_input'";
pub const SIDE_ROWS: &str = include_str!("../../../../examples/nexmark/side_input/part-0.csv");

/// Name and text of every query.
const QUERIES: &[(&str, &str)] = &[
    ("q0", include_str!("../../../../examples/nexmark/q0.sql")),
    ("q1", include_str!("../../../../examples/nexmark/q1.sql")),
    ("q2", include_str!("../../../../examples/nexmark/q2.sql")),
    ("q4", include_str!("../../../../examples/nexmark/q4.sql")),
    ("q5", include_str!("../../../../examples/nexmark/q5-hop-count.sql")),
    ("q11", include_str!("../../../../examples/nexmark/q11.sql")),
    ("q12", include_str!("../../../../examples/nexmark/q12.sql")),
    ("q13", include_str!("../../../../examples/nexmark/q13.sql")),
    ("q15", include_str!("../../../../examples/nexmark/q15.sql")),
    ("q16", include_str!("../../../../examples/nexmark/q16.sql")),
    ("q17", include_str!("../../../../examples/nexmark/q17.sql")),
    ("q22", include_str!("../../../../examples/nexmark/q22.sql")),
];

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
    Some(file.replace(FILE_SOURCE, &source.options()).replace(FILE_SINK, "'connector' = 'blackhole'"))
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
