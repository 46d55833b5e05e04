//! Kafka as a source and as a sink.
//!
//! *Source.* A split is a partition, named `topic/partition`; positions are offsets. The [`enumerator`] asks for the last stable
//! offsets, the [`reader`] reads exactly the planned ranges without a consumer group; group offsets are only published for lag
//! tools, if the user names a group.
//!
//! *Sink.* The [`encoder`] makes records, the [`committer`] publishes them: one transaction per sink task and publication that holds
//! the records of all its epochs and a [`marker`] that names the last of them. What becomes visible together is what one task
//! publishes; tasks follow each other without a common moment.
//!
//! *Tables with a key.* With a PRIMARY KEY a topic holds the last row of each key, in both directions: the sink writes at most one record per
//! key and epoch, a tombstone where the row is gone; the source gives [`upserts`]. Of a format that holds changes the records are changes in
//! both directions; its source gives upserts too if there is a key.
mod admin;
mod bounds;
mod client;
mod columns;
mod committer;
mod config;
mod encoder;
mod enumerator;
mod marker;
mod native;
mod options;
mod reader;
mod route;
mod target;
mod upserts;

pub use admin::create_topic;

use std::sync::Arc;
use std::time::Duration;

use millstream_formats::{DecodeSpec, FormatOptions, decoder, upsert_schema};
use millstream_plan::options::OptionSpec;
use rdkafka::ClientConfig;

use self::bounds::{Bound, Bounds, Topics};
use self::columns::{Columns, SOURCE_METADATA};
use self::encoder::KafkaEncoder;
use self::enumerator::{KafkaEnumerator, Scan};
use self::options::{KEY_OPTIONS, SINK_OPTIONS, SOURCE_OPTIONS};
use self::reader::{KafkaReader, Reading, Records, batch_schema};
use self::target::{Guarantee, Partitioner, Target};
use self::upserts::Upserts;
use crate::registry::{BadRecords, Changes, RECORD_OPTIONS, Reads, TableForm};
use crate::{
    Connector, ConnectorError, SinkCommitter, SinkEncoder, SinkFactory, SinkSpec, SourceFactory, SourceReader,
    SourceSpec, SplitEnumerator,
};

const SOURCE_TABLES: &[&[OptionSpec]] = &[SOURCE_OPTIONS, KEY_OPTIONS, RECORD_OPTIONS];
const SINK_TABLES: &[&[OptionSpec]] = &[SINK_OPTIONS, KEY_OPTIONS];
const SINK_METADATA: &[&str] = &["key", "headers", "timestamp", "topic", "partition"];

/// Records of topics; with a PRIMARY KEY the last one of each key counts.
pub(crate) static KAFKA: Connector = Connector {
    name: "kafka",
    source_options: Some(SOURCE_TABLES),
    sink_options: Some(SINK_TABLES),
    pass_through: config::PASS_THROUGH,
    source_metadata: SOURCE_METADATA,
    sink_metadata: SINK_METADATA,
    has_format: true,
    reads,
    changes,
    source: |spec| source(spec, false),
    sink: |spec| sink(spec, false),
};

/// Flink's name for topics of which the last record of each key counts.
pub(crate) static UPSERT_KAFKA: Connector = Connector {
    name: "upsert-kafka",
    source_options: Some(SOURCE_TABLES),
    sink_options: Some(SINK_TABLES),
    pass_through: config::PASS_THROUGH,
    source_metadata: SOURCE_METADATA,
    sink_metadata: SINK_METADATA,
    has_format: true,
    reads,
    changes,
    source: |spec| source(spec, true),
    sink: |spec| sink(spec, true),
};

fn reads(table: &TableForm) -> Reads {
    match (table.has_key, table.changelog_format) {
        (true, _) => Reads::Upserts,
        (false, true) => Reads::Changes,
        (false, false) => Reads::Appended,
    }
}

fn changes(table: &TableForm) -> Changes {
    match (table.has_key, table.changelog_format) {
        (true, false) => Changes::ByKey,
        (true, true) => Changes::All,
        (false, true) => Changes::Refused {
            hint: "add PRIMARY KEY (…) NOT ENFORCED to the table: it keeps the changes of a row in one partition, in their order",
        },
        (false, false) => Changes::Refused {
            hint: "add PRIMARY KEY (…) NOT ENFORCED to the table to keep the last row of each key",
        },
    }
}

/// What a sink writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writes {
    /// A record per row.
    Append,
    /// A record per key and epoch.
    Upsert,
    /// A record per change.
    Changelog,
}

/// Refuses declarations that say two things.
fn check(table: &str, format: &FormatOptions, has_key: bool, named_upsert: bool) -> Result<(), ConnectorError> {
    if named_upsert && !has_key {
        return Err(ConnectorError::user(
            format!("table '{table}': connector 'upsert-kafka' needs a key"),
            "add PRIMARY KEY (…) NOT ENFORCED to the table",
        ));
    }
    if named_upsert && format.kind.is_changelog() {
        return Err(ConnectorError::user(
            format!("table '{table}': format '{}' says itself what a change is", format.kind),
            "write 'connector' = 'kafka', or choose a format of rows such as 'json'",
        ));
    }
    Ok(())
}

/// A topic whose records compaction leaves alone for so long can be replayed after most interruptions.
const SAFE_LAG: Duration = Duration::from_secs(3600);

struct KafkaSource {
    spec: SourceSpec,
    format: FormatOptions,
    topics: Topics,
    start: Bounds,
    end: Option<Bounds>,
    config: ClientConfig,
}

fn source(spec: SourceSpec, named_upsert: bool) -> Result<Box<dyn SourceFactory>, ConnectorError> {
    let mut config = config::client_config(&spec.table, &spec.options)?;
    if config.get("client.id").is_none() {
        config.set("client.id", format!("millstream-{}-{}", spec.pipeline, spec.table));
    }
    let format = format_of(&spec.table, spec.format.as_ref())?;
    check(&spec.table, &format, !spec.key.is_empty(), named_upsert)?;
    let topics = bounds::topics(&spec.table, &spec.options)?;
    let start = bounds::start(&spec.options, &topics)?;
    let end = bounds::end(&spec.options, &topics)?;
    config.create_native_config().map_err(|e| client::creation_error(&e))?;
    let source = KafkaSource { spec, format, topics, start, end, config };
    source.reading()?;
    Ok(Box::new(source))
}

impl KafkaSource {
    fn reading(&self) -> Result<Reading, ConnectorError> {
        let spec = &self.spec;
        let is_changelog = self.format.kind.is_changelog();
        let records = if spec.key.is_empty() || is_changelog {
            let decode = DecodeSpec {
                schema: Arc::clone(&spec.schema),
                options: self.format.clone(),
                prefilter: spec.prefilter.clone(),
            };
            let decoder = decoder(decode).map_err(|e| {
                ConnectorError::user(
                    format!("table '{}': {e}", spec.table),
                    "correct the columns or the format of the table",
                )
            })?;
            // Of changes a tombstone only tells the compaction that the key is gone.
            Records::Values { decoder, skip_tombstones: is_changelog }
        } else {
            Records::Upserts(Upserts::new(spec, &self.format)?)
        };
        let rows = if spec.key.is_empty() { Arc::clone(&spec.schema) } else { upsert_schema(&spec.schema, &spec.key) };
        Ok(Reading {
            table: spec.table.clone(),
            records,
            schema: batch_schema(&rows, &spec.metadata),
            columns: Columns::new(&spec.table, &spec.metadata)?,
            bad: BadRecords::of(&spec.options),
            fail_on_data_loss: spec.options.is_true("failOnDataLoss"),
            give_up_after: spec.options.duration("scan.unreachable-timeout").unwrap_or(Duration::from_secs(300)),
        })
    }
}

impl KafkaSource {
    /// A replay must find the records that it replays.
    fn check_compaction(&self) -> Result<(), ConnectorError> {
        let Topics::Named(names) = &self.topics else { return Ok(()) };
        if self.spec.key.is_empty() || self.format.kind.is_changelog() {
            return Ok(());
        }
        let table = &self.spec.table;
        for topic in names {
            let Some(lag) = admin::compaction_lag(&self.config, topic).filter(|lag| *lag < SAFE_LAG) else { continue };
            if !self.spec.options.is_true("scan.compacted") {
                return Err(ConnectorError::user(
                    format!(
                        "table '{table}' says 'scan.compacted' = 'false', but topic '{topic}' is compacted, with min.compaction.lag.ms = {}",
                        lag.as_millis()
                    ),
                    "set the topic's min.compaction.lag.ms to longer than the pipeline may be down, an hour at least",
                ));
            }
            tracing::warn!(
                topic,
                table,
                "the topic is compacted with min.compaction.lag.ms = {}: after the pipeline was down for longer, results that aggregate the \
                 table may be of records that are gone until their group changes next",
                lag.as_millis()
            );
        }
        Ok(())
    }
}

impl SourceFactory for KafkaSource {
    fn enumerator(&self) -> Result<Box<dyn SplitEnumerator>, ConnectorError> {
        let options = &self.spec.options;
        self.check_compaction()?;
        let latest = options.passed.get("auto.offset.reset").is_some_and(|v| v.eq_ignore_ascii_case("latest"));
        let scan = Scan {
            table: self.spec.table.clone(),
            topics: self.topics.clone(),
            start: self.start.clone(),
            end: self.end.clone(),
            fail_on_data_loss: options.is_true("failOnDataLoss"),
            discovery: options.duration("scan.topic-partition-discovery.interval").unwrap_or(Duration::from_secs(10)),
            without_commit: if latest { Bound::Latest } else { Bound::Earliest },
        };
        Ok(Box::new(KafkaEnumerator::new(scan, self.config.clone())?))
    }

    fn reader(&self, _task: u16) -> Result<Box<dyn SourceReader>, ConnectorError> {
        Ok(Box::new(KafkaReader::new(self.config.clone(), self.reading()?)?))
    }
}

struct KafkaSink {
    spec: SinkSpec,
    format: FormatOptions,
    writes: Writes,
    target: Arc<Target>,
}

fn sink(spec: SinkSpec, named_upsert: bool) -> Result<Box<dyn SinkFactory>, ConnectorError> {
    let format = format_of(&spec.table, spec.format.as_ref())?;
    check(&spec.table, &format, !spec.primary_key.is_empty(), named_upsert)?;
    if format.debezium.schema_include {
        return Err(ConnectorError::user(
            format!("table '{}': changes are written without their schema", spec.table),
            "leave 'debezium-json.schema-include' out",
        ));
    }
    let writes = match (format.kind.is_changelog(), spec.primary_key.is_empty()) {
        (true, _) => Writes::Changelog,
        (false, false) => Writes::Upsert,
        (false, true) => Writes::Append,
    };
    let target = Arc::new(Target::new(&spec)?);
    if !spec.primary_key.is_empty() && matches!(target.partitioner, Partitioner::RoundRobin | Partitioner::Any) {
        return Err(ConnectorError::user(
            format!("table '{}': 'sink.partitioner' would spread the records of a key over partitions", spec.table),
            "leave it out, so that the key decides",
        ));
    }
    let sink = KafkaSink { spec, format, writes, target };
    sink.encoder(0)?;
    Ok(Box::new(sink))
}

impl SinkFactory for KafkaSink {
    fn check(&self) -> Result<(), ConnectorError> {
        self.target.check()
    }

    fn encoder(&self, _task: u16) -> Result<Box<dyn SinkEncoder>, ConnectorError> {
        Ok(Box::new(KafkaEncoder::new(&self.spec, &self.format, self.writes)?))
    }

    fn committer(&self, task: u16) -> Result<Box<dyn SinkCommitter>, ConnectorError> {
        Ok(match self.target.guarantee {
            Guarantee::ExactlyOnce => Box::new(committer::ExactlyOnce::new(Arc::clone(&self.target), task)),
            Guarantee::AtLeastOnce | Guarantee::None => {
                Box::new(committer::Direct::new(Arc::clone(&self.target), task))
            }
        })
    }

    fn commit_interval(&self) -> Option<Duration> {
        None
    }
}

fn format_of(table: &str, format: Option<&FormatOptions>) -> Result<FormatOptions, ConnectorError> {
    format
        .cloned()
        .ok_or_else(|| ConnectorError::user(format!("table '{table}': no format is given"), "add 'format' = 'json'"))
}
