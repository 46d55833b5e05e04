//! A broker, topics and records, and the connector's halves as the engine would use them.
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use futures::executor::block_on;
use millstream_connectors::{
    ConnectorError, Discovery, EncodedEpoch, KafkaRecord, MetadataColumn, Payload, SinkFactory, SinkSpec, SourceBatch,
    SourceFactory, SourcePoll, SourceReader, SourceSpec, SplitEnumerator, connector,
};
use millstream_formats::{FORMAT_OPTIONS, FormatOptions};
use millstream_plan::options::{Resolved, resolve};
use millstream_plan::{Epoch, SinkId, SourceId, SplitId, SplitRange};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

/// Nothing here takes this long unless it hangs.
pub const LIMIT: Duration = Duration::from_secs(40);

/// A broker process that ends with this one.
pub struct Broker {
    pub servers: String,
    port: u16,
    dir: Option<PathBuf>,
}

static COUNT: AtomicU32 = AtomicU32::new(0);

impl Broker {
    /// The broker that the tests of this run share.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Broker> = OnceLock::new();
        SHARED.get_or_init(|| match std::env::var("MILLSTREAM_TEST_KAFKA") {
            Ok(servers) => Self { servers, port: 0, dir: None },
            Err(_) => Self::start_own(),
        })
    }

    /// A broker of its own.
    pub fn start_own() -> Self {
        let port = free_ports();
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("kafka-{port}"));
        // Left by an earlier run: the shared broker lives until the process ends and cannot clean up.
        if dir.exists() {
            std::fs::remove_dir_all(&dir).unwrap();
        }
        let broker = Self { servers: format!("127.0.0.1:{port}"), port, dir: Some(dir) };
        broker.script("start");
        broker
    }

    pub fn script(&self, verb: &str) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../dev/kafka.sh");
        let dir = self.dir.as_ref().unwrap();
        let out = Command::new(script)
            .arg(verb)
            .env("KAFKA_PORT", self.port.to_string())
            .env("KAFKA_DIR", dir)
            .env("MILLSTREAM_OWNER", std::process::id().to_string())
            .output()
            .unwrap();
        assert!(out.status.success(), "{verb}: {}", String::from_utf8_lossy(&out.stderr));
    }

    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.servers).set("linger.ms", "1");
        config
    }

    pub fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().unwrap()
    }

    /// Creates a topic with a name of its own.
    pub fn topic(&self, name: &str, partitions: i32, config: &[(&str, &str)]) -> String {
        let topic = unique(name);
        self.create(&topic, partitions, config);
        topic
    }

    pub fn create(&self, topic: &str, partitions: i32, config: &[(&str, &str)]) {
        let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        new.config.extend_from_slice(config);
        let results = block_on(self.admin().create_topics([&new], &AdminOptions::new())).unwrap();
        results.into_iter().for_each(|r| assert!(r.is_ok(), "{r:?}"));
        self.wait_for(topic, |n| n == partitions as usize);
    }

    pub fn delete(&self, topic: &str) {
        let results = block_on(self.admin().delete_topics(&[topic], &AdminOptions::new())).unwrap();
        results.into_iter().for_each(|r| assert!(r.is_ok(), "{r:?}"));
        self.wait_for(topic, |n| n == 0);
    }

    pub fn grow(&self, topic: &str, partitions: usize) {
        let new = NewPartitions::new(topic, partitions);
        let results = block_on(self.admin().create_partitions([&new], &AdminOptions::new())).unwrap();
        results.into_iter().for_each(|r| assert!(r.is_ok(), "{r:?}"));
        self.wait_for(topic, |n| n == partitions);
    }

    /// Deletes all records before `offset`.
    pub fn truncate(&self, topic: &str, partition: i32, offset: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(offset)).unwrap();
        block_on(self.admin().delete_records(&list, &AdminOptions::new())).unwrap();
    }

    fn wait_for(&self, topic: &str, partitions: impl Fn(usize) -> bool) {
        let client: BaseConsumer = self.client().create().unwrap();
        until("the topic's partitions", || {
            let metadata = client.fetch_metadata(Some(topic), Duration::from_secs(5)).ok()?;
            let found = metadata.topics().iter().find(|t| t.name() == topic);
            let count = found.filter(|t| t.error().is_none()).map_or(0, |t| t.partitions().len());
            partitions(count).then_some(())
        });
    }

    /// Writes one JSON record `{"id":…}` per id, with timestamp 1000 × id + 1 (0 would mean now).
    pub fn send(&self, topic: &str, partition: i32, ids: impl IntoIterator<Item = i64>) {
        let producer: BaseProducer = self.client().create().unwrap();
        enqueue(&producer, topic, partition, ids);
        producer.flush(LIMIT).unwrap();
    }

    pub fn send_raw(&self, topic: &str, key: Option<&[u8]>, value: Option<&[u8]>, headers: &[(&str, Option<&[u8]>)]) {
        let producer: BaseProducer = self.client().create().unwrap();
        let mut list = OwnedHeaders::new();
        for (key, value) in headers {
            list = list.insert(Header { key, value: *value });
        }
        let mut record = BaseRecord::<[u8], [u8]>::to(topic).partition(0).timestamp(5).headers(list);
        record.key = key;
        record.payload = value;
        producer.send(record).map_err(|(e, _)| e).unwrap();
        producer.flush(LIMIT).unwrap();
    }

    /// A producer with an open transaction; its records are flushed.
    pub fn transaction(&self, id: &str, topic: &str, ids: impl IntoIterator<Item = i64>) -> BaseProducer {
        let producer: BaseProducer = self.client().set("transactional.id", id).create().unwrap();
        producer.init_transactions(LIMIT).unwrap();
        producer.begin_transaction().unwrap();
        enqueue(&producer, topic, 0, ids);
        producer.flush(LIMIT).unwrap();
        producer
    }

    /// Waits until no transaction is open any more: a commit is acknowledged before its records are visible.
    fn settle(&self, topic: &str, partitions: &[i32]) {
        let end = |isolation: &str, partition: i32| {
            let client: BaseConsumer = self.client().set("isolation.level", isolation).create().unwrap();
            client.fetch_watermarks(topic, partition, LIMIT).map(|(_, end)| end)
        };
        for partition in partitions {
            until("the end of transactions", || {
                let (all, stable) = (end("read_uncommitted", *partition), end("read_committed", *partition));
                all.ok().zip(stable.ok()).filter(|(all, stable)| all == stable)
            });
        }
    }

    /// All committed records of a topic, by partition and offset.
    pub fn committed(&self, topic: &str) -> Vec<(i32, KafkaRecord)> {
        let consumer: BaseConsumer = self
            .client()
            .set("group.id", "reader")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .create()
            .unwrap();
        let metadata = consumer.fetch_metadata(Some(topic), LIMIT).unwrap();
        let partitions: Vec<i32> = metadata.topics()[0].partitions().iter().map(|p| p.id()).collect();
        self.settle(topic, &partitions);
        let mut list = TopicPartitionList::new();
        for p in &partitions {
            list.add_partition_offset(topic, *p, Offset::Beginning).unwrap();
        }
        consumer.assign(&list).unwrap();
        let (mut records, mut ended) = (Vec::new(), 0);
        while ended < partitions.len() {
            match consumer.poll(LIMIT).unwrap() {
                Ok(m) => records.push((
                    m.partition(),
                    m.offset(),
                    KafkaRecord {
                        topic: None,
                        partition: Some(m.partition()),
                        key: m.key().map(<[u8]>::to_vec),
                        value: m.payload().map(<[u8]>::to_vec),
                        timestamp_ms: m.timestamp().to_millis(),
                        headers: m.headers().map_or(Vec::new(), |h| {
                            h.iter().map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec))).collect()
                        }),
                    },
                )),
                Err(rdkafka::error::KafkaError::PartitionEOF(_)) => ended += 1,
                Err(e) => panic!("{e}"),
            }
        }
        records.sort_by_key(|(p, o, _)| (*p, *o));
        records.into_iter().map(|(p, _, r)| (p, r)).collect()
    }

    /// Values of all committed records of a topic.
    pub fn values(&self, topic: &str) -> Vec<String> {
        self.committed(topic).into_iter().map(|(_, r)| String::from_utf8(r.value.unwrap()).unwrap()).collect()
    }

    pub fn options(&self, given: &[(&str, &str)], sink: bool) -> Resolved {
        let kafka = connector("kafka").unwrap();
        let declared = if sink { kafka.sink_options } else { kafka.source_options }.unwrap();
        let mut tables = declared.to_vec();
        tables.push(FORMAT_OPTIONS);
        let mut all: BTreeMap<String, String> = given.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        all.entry("format".to_owned()).or_insert_with(|| "json".to_owned());
        all.entry("properties.bootstrap.servers".to_owned()).or_insert_with(|| self.servers.clone());
        resolve(&tables, kafka.pass_through, &all).unwrap()
    }

    pub fn try_source(
        &self,
        options: &[(&str, &str)],
        metadata: &[(&str, DataType)],
    ) -> Result<Box<dyn SourceFactory>, ConnectorError> {
        (connector("kafka").unwrap().source)(self.source_spec(options, metadata))
    }

    pub fn source_spec(&self, options: &[(&str, &str)], metadata: &[(&str, DataType)]) -> SourceSpec {
        let options = self.options(options, false);
        SourceSpec {
            id: SourceId(0),
            table: "orders".to_owned(),
            pipeline: "test".to_owned(),
            format: FormatOptions::from_resolved(&options).unwrap(),
            options,
            schema: Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true)])),
            metadata: metadata
                .iter()
                .map(|(key, data_type)| MetadataColumn {
                    field: Arc::new(Field::new(format!("kafka_{key}"), data_type.clone(), true)),
                    key: (*key).to_owned(),
                })
                .collect(),
            prefilter: None,
            key: Vec::new(),
            parallelism: 1,
        }
    }

    /// A source of table `orders` with column `id`.
    pub fn source(&self, options: &[(&str, &str)]) -> Box<dyn SourceFactory> {
        self.try_source(options, &[]).unwrap()
    }

    pub fn sink_spec(&self, pipeline: &str, options: &[(&str, &str)]) -> SinkSpec {
        let options = self.options(options, true);
        SinkSpec {
            id: SinkId(1),
            table: "out".to_owned(),
            pipeline: pipeline.to_owned(),
            format: FormatOptions::from_resolved(&options).unwrap(),
            options,
            schema: Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true)])),
            primary_key: Vec::new(),
            updating: false,
            key: Vec::new(),
            partitioned_by: Vec::new(),
            metadata: Vec::new(),
            parallelism: 2,
        }
    }

    /// A sink of pipeline `pipeline`, checked.
    pub fn sink(&self, pipeline: &str, options: &[(&str, &str)]) -> Box<dyn SinkFactory> {
        let sink = (connector("kafka").unwrap().sink)(self.sink_spec(pipeline, options)).unwrap();
        sink.check().unwrap();
        sink
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(dir) = &self.dir {
            self.script("kill");
            std::fs::remove_dir_all(dir).unwrap();
        }
    }
}

fn enqueue(producer: &BaseProducer, topic: &str, partition: i32, ids: impl IntoIterator<Item = i64>) {
    for id in ids {
        let value = format!(r#"{{"id":{id}}}"#);
        loop {
            let record = BaseRecord::<(), str>::to(topic).partition(partition).timestamp(id * 1000 + 1).payload(&value);
            if producer.send(record).is_ok() {
                break;
            }
            producer.poll(Duration::from_millis(10));
        }
    }
}

/// Two neighbouring free ports, of which the first is returned: below the range of outgoing connections, since a client that
/// asks for a broker which is away could otherwise connect to itself and keep the port.
fn free_ports() -> u16 {
    let first = 20_000 + (std::process::id() % 5_000) as u16 * 2;
    let free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
    (first..32_000).step_by(2).find(|p| free(*p) && free(p + 1)).unwrap()
}

pub fn unique(name: &str) -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    format!("{name}-{}-{}", since.as_millis(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Waits for a condition.
pub fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(started.elapsed() < LIMIT, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What the enumerator finds, also right after a topic was created, when its leaders may not be in office yet.
pub fn discover(
    enumerator: &mut dyn SplitEnumerator,
    positions: &BTreeMap<SplitId, u64>,
) -> Result<Discovery, ConnectorError> {
    until("an answer", || match enumerator.discover(positions, 0) {
        Err(ConnectorError::Retry(_)) => None,
        answer => Some(answer),
    })
}

pub fn split(topic: &str, partition: i32) -> SplitId {
    SplitId(format!("{topic}/{partition}"))
}

pub fn range(topic: &str, partition: i32, from: u64, to: u64) -> SplitRange {
    SplitRange { split: split(topic, partition), task: 0, from, to, tag: String::new() }
}

/// Reads a range to its end.
pub fn try_read(reader: &mut dyn SourceReader, range: &SplitRange) -> Result<Vec<SourceBatch>, ConnectorError> {
    let mut batches = Vec::new();
    until("the end of a range", || match reader.poll(range) {
        Ok(SourcePoll::Batch(batch)) => {
            batches.push(batch);
            None
        }
        Ok(SourcePoll::Pending) => None,
        Ok(SourcePoll::Done) => Some(Ok(())),
        Err(error) => Some(Err(error)),
    })?;
    Ok(batches)
}

pub fn read(reader: &mut dyn SourceReader, range: &SplitRange) -> Vec<SourceBatch> {
    try_read(reader, range).unwrap()
}

/// Column `id` of all rows.
pub fn ids(batches: &[SourceBatch]) -> Vec<i64> {
    batches.iter().flat_map(|b| b.rows.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
}

pub fn epoch(epoch: u64, values: &[&str]) -> EncodedEpoch {
    let records: Vec<KafkaRecord> =
        values.iter().map(|v| KafkaRecord { value: Some(v.as_bytes().to_vec()), ..KafkaRecord::default() }).collect();
    let payload = if records.is_empty() { Payload::Empty } else { Payload::Kafka(records) };
    EncodedEpoch { epoch: Epoch(epoch), rows: values.len() as u64, bytes: 0, payload }
}
