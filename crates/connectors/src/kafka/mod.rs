//! Kafka as a source and as a sink.
//!
//! *Source.* A split is a partition, named `topic/partition`; positions are offsets. The [`enumerator`] asks for the last stable
//! offsets, the [`reader`] reads exactly the planned ranges without a consumer group; group offsets are only published for lag
//! tools, if the user names a group.
//!
//! *Sink.* The [`encoder`] makes records, the [`committer`] publishes them: one transaction per sink task and publication that holds
//! the records of all its epochs and a [`marker`] that names the last of them. What becomes visible together is what one task
//! publishes; tasks follow each other without a common moment.
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

pub use admin::create_topic;

use std::sync::Arc;
use std::time::Duration;

use millstream_formats::{DecodeSpec, FormatOptions, decoder};
use millstream_plan::options::OptionSpec;
use rdkafka::ClientConfig;

use self::bounds::{Bound, Bounds, Topics};
use self::columns::{Columns, SOURCE_METADATA};
use self::encoder::KafkaEncoder;
use self::enumerator::{KafkaEnumerator, Scan};
use self::options::{SINK_OPTIONS, SOURCE_OPTIONS};
use self::reader::{KafkaReader, Reading, batch_schema};
use self::target::{Guarantee, Target};
use crate::registry::{BadRecords, Changes, RECORD_OPTIONS};
use crate::{
    Connector, ConnectorError, SinkCommitter, SinkEncoder, SinkFactory, SinkSpec, SourceFactory, SourceReader,
    SourceSpec, SplitEnumerator,
};

const SOURCE_TABLES: &[&[OptionSpec]] = &[SOURCE_OPTIONS, RECORD_OPTIONS];
const SINK_TABLES: &[&[OptionSpec]] = &[SINK_OPTIONS];
const SINK_METADATA: &[&str] = &["key", "headers", "timestamp", "topic", "partition"];

/// Records of topics; with a PRIMARY KEY a sink keeps one record per key.
pub(crate) static KAFKA: Connector = Connector {
    name: "kafka",
    source_options: Some(SOURCE_TABLES),
    sink_options: Some(SINK_TABLES),
    pass_through: config::PASS_THROUGH,
    source_metadata: SOURCE_METADATA,
    sink_metadata: SINK_METADATA,
    has_format: true,
    changes: Changes::ByKey,
    source,
    sink: |spec| sink(spec, false),
};

/// Flink's name for a sink that keeps one record per key.
pub(crate) static UPSERT_KAFKA: Connector = Connector {
    name: "upsert-kafka",
    source_options: None,
    sink_options: Some(SINK_TABLES),
    pass_through: config::PASS_THROUGH,
    source_metadata: &[],
    sink_metadata: SINK_METADATA,
    has_format: true,
    changes: Changes::ByKey,
    source: |spec| {
        Err(ConnectorError::user(
            format!("table '{}': connector 'upsert-kafka' can only be written", spec.table),
            "read the topic with connector 'kafka'",
        ))
    },
    sink: |spec| sink(spec, true),
};

struct KafkaSource {
    spec: SourceSpec,
    format: FormatOptions,
    topics: Topics,
    start: Bounds,
    end: Option<Bounds>,
    config: ClientConfig,
}

fn source(spec: SourceSpec) -> Result<Box<dyn SourceFactory>, ConnectorError> {
    let mut config = config::client_config(&spec.table, &spec.options)?;
    if config.get("client.id").is_none() {
        config.set("client.id", format!("millstream-{}-{}", spec.pipeline, spec.table));
    }
    let format = format_of(&spec.table, spec.format.as_ref())?;
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
        Ok(Reading {
            table: spec.table.clone(),
            decoder,
            schema: batch_schema(&spec.schema, &spec.metadata),
            columns: Columns::new(&spec.table, &spec.metadata)?,
            bad: BadRecords::of(&spec.options),
            fail_on_data_loss: spec.options.is_true("failOnDataLoss"),
            give_up_after: spec.options.duration("scan.unreachable-timeout").unwrap_or(Duration::from_secs(300)),
        })
    }
}

impl SourceFactory for KafkaSource {
    fn enumerator(&self) -> Result<Box<dyn SplitEnumerator>, ConnectorError> {
        let options = &self.spec.options;
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
    upsert: bool,
    target: Arc<Target>,
}

fn sink(spec: SinkSpec, upsert: bool) -> Result<Box<dyn SinkFactory>, ConnectorError> {
    if upsert && spec.primary_key.is_empty() {
        return Err(ConnectorError::user(
            format!("table '{}': connector 'upsert-kafka' needs a key", spec.table),
            "add PRIMARY KEY (…) NOT ENFORCED to the table",
        ));
    }
    let upsert = upsert || !spec.primary_key.is_empty();
    let format = format_of(&spec.table, spec.format.as_ref())?;
    let target = Arc::new(Target::new(&spec)?);
    let sink = KafkaSink { spec, format, upsert, target };
    sink.encoder(0)?;
    Ok(Box::new(sink))
}

impl SinkFactory for KafkaSink {
    fn check(&self) -> Result<(), ConnectorError> {
        self.target.check()
    }

    fn encoder(&self, _task: u16) -> Result<Box<dyn SinkEncoder>, ConnectorError> {
        Ok(Box::new(KafkaEncoder::new(&self.spec, &self.format, self.upsert)?))
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
