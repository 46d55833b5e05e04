//! Speed of the Kafka connector on one thread: `kafka_speed HOST:PORT [MILLIONS]`.
//!
//! Writes records of about 300 bytes as JSON (at-least-once), reads and decodes four of their columns, asks for ends, and publishes
//! transactions of 100 small records. Prints one line per measurement.
use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use futures::executor::block_on;
use millstream_connectors::{
    ConnectorError, EncodedEpoch, KafkaRecord, Payload, SinkContext, SinkSpec, SourcePoll, SourceSpec, connector,
};
use millstream_formats::{FORMAT_OPTIONS, FormatOptions};
use millstream_plan::options::{Resolved, resolve};
use millstream_plan::{Epoch, Era, SinkId, SourceId, SplitRange};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;

type Outcome<T> = Result<T, Box<dyn Error>>;

const PARTITIONS: i32 = 4;

fn main() -> Outcome<()> {
    let mut args = std::env::args().skip(1);
    let servers = args.next().ok_or("usage: kafka_speed HOST:PORT [MILLIONS]")?;
    let records = args.next().map_or(Ok(1), |m| m.parse::<u64>())? * 1_000_000;
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis();
    let topic = format!("speed-{since}");
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new().set("bootstrap.servers", &servers).create()?;
    let new = NewTopic::new(&topic, PARTITIONS, TopicReplication::Fixed(1));
    block_on(admin.create_topics([&new], &AdminOptions::new()))?;
    write(&servers, &topic, records)?;
    read(&servers, &topic)?;
    for (name, options) in
        [("exactly-once", vec![]), ("at-least-once", vec![("sink.delivery-guarantee", "at-least-once")])]
    {
        latency(&servers, &topic, name, &options)?;
    }
    block_on(admin.delete_topics(&[&topic], &AdminOptions::new()))?;
    Ok(())
}

fn options(servers: &str, topic: &str, more: &[(&str, &str)], sink: bool) -> Outcome<Resolved> {
    let kafka = connector("kafka").ok_or("no kafka")?;
    let mut tables = if sink { kafka.sink_options } else { kafka.source_options }.unwrap_or_default().to_vec();
    tables.push(FORMAT_OPTIONS);
    let mut given = vec![("topic", topic), ("format", "json"), ("properties.bootstrap.servers", servers)];
    given.extend_from_slice(more);
    let given = given.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    Ok(resolve(&tables, kafka.pass_through, &given)?)
}

fn sink(servers: &str, topic: &str, more: &[(&str, &str)]) -> Outcome<Box<dyn millstream_connectors::SinkCommitter>> {
    let options = options(servers, topic, more, true)?;
    let spec = SinkSpec {
        id: SinkId(0),
        table: "speed".to_owned(),
        pipeline: topic.to_owned(),
        format: FormatOptions::from_resolved(&options)?,
        options,
        schema: Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true)])),
        primary_key: Vec::new(),
        updating: false,
        key: Vec::new(),
        partitioned_by: Vec::new(),
        metadata: Vec::new(),
        parallelism: 1,
    };
    let sink = (connector("kafka").ok_or("no kafka")?.sink)(spec)?;
    sink.check()?;
    let mut committer = sink.committer(0)?;
    committer.open(&SinkContext { era: Era::default(), task: 0, restored: Epoch(0) })?;
    Ok(committer)
}

fn epoch(epoch: u64, values: impl Iterator<Item = String>) -> EncodedEpoch {
    let records: Vec<KafkaRecord> =
        values.map(|v| KafkaRecord { value: Some(v.into_bytes()), ..KafkaRecord::default() }).collect();
    EncodedEpoch { epoch: Epoch(epoch), rows: records.len() as u64, bytes: 0, payload: Payload::Kafka(records) }
}

fn bid(i: u64) -> String {
    format!(
        r#"{{"event_type":2,"bid":{{"auction":{},"bidder":{},"price":{},"channel":"channel-{}","url":"https://example.org/{}/item.htm?query=1","dateTime":"2015-07-15 00:00:{:02}.{:03}","extra":"{}"}}}}"#,
        1000 + i % 997,
        2000 + i % 499,
        100 + i % 100_003,
        i % 10_000,
        i % 7919,
        i / 1000 % 60,
        i % 1000,
        "x".repeat(80)
    )
}

fn write(servers: &str, topic: &str, records: u64) -> Outcome<()> {
    let mut committer =
        sink(servers, topic, &[("sink.delivery-guarantee", "at-least-once"), ("sink.partitioner", "round-robin")])?;
    let mut spent = Duration::ZERO;
    for part in 0..records / 100_000 {
        let epoch = epoch(part + 1, (0..100_000).map(|i| bid(part * 100_000 + i)));
        let started = Instant::now();
        committer.publish(vec![epoch])?;
        spent += started.elapsed();
    }
    println!("write: {:.2} M records/s", records as f64 / spent.as_secs_f64() / 1e6);
    Ok(())
}

fn read(servers: &str, topic: &str) -> Outcome<()> {
    let options = options(servers, topic, &[], false)?;
    let bid = DataType::Struct(
        vec![
            Field::new("auction", DataType::Int64, true),
            Field::new("price", DataType::Int64, true),
            Field::new("dateTime", DataType::Timestamp(TimeUnit::Millisecond, None), true),
        ]
        .into(),
    );
    let spec = SourceSpec {
        id: SourceId(0),
        table: "speed".to_owned(),
        pipeline: topic.to_owned(),
        format: FormatOptions::from_resolved(&options)?,
        options,
        schema: Arc::new(Schema::new(vec![
            Field::new("event_type", DataType::Int32, true),
            Field::new("bid", bid, true),
        ])),
        metadata: Vec::new(),
        prefilter: None,
        key: Vec::new(),
        parallelism: 1,
    };
    let source = (connector("kafka").ok_or("no kafka")?.source)(spec)?;
    let mut enumerator = source.enumerator()?;
    let found = enumerator.discover(&BTreeMap::new(), 0)?;
    let mut ends: Vec<Duration> = Vec::new();
    for _ in 0..1000 {
        let started = Instant::now();
        enumerator.discover(&BTreeMap::new(), 0)?;
        ends.push(started.elapsed());
    }
    report("ends of 4 partitions", &mut ends);

    let mut reader = source.reader(0)?;
    let (started, cpu) = (Instant::now(), cpu_seconds()?);
    let (mut rows, mut bytes) = (0, 0);
    const STEP: u64 = 100_000;
    let last = found.splits.iter().map(|s| s.end).max().unwrap_or(0);
    for from in (0..last).step_by(STEP as usize) {
        for split in &found.splits {
            let range = SplitRange {
                split: split.split.clone(),
                task: 0,
                from: from.min(split.end),
                to: (from + STEP).min(split.end),
                tag: split.tag.clone(),
            };
            loop {
                match reader.poll(&range)? {
                    SourcePoll::Batch(batch) => {
                        rows += batch.rows.num_rows();
                        bytes += batch.bytes;
                    }
                    SourcePoll::Pending => std::thread::sleep(Duration::from_micros(200)),
                    SourcePoll::Done => break,
                }
            }
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "read and decode: {:.2} M records/s, {:.0} MB/s, {:.2} CPU-s per million records (client threads included)",
        rows as f64 / seconds / 1e6,
        bytes as f64 / seconds / 1e6,
        (cpu_seconds()? - cpu) / (rows as f64 / 1e6)
    );
    Ok(())
}

/// CPU time of this process so far (Linux: fields 14 and 15 of its stat line, in ticks of 10 ms).
fn cpu_seconds() -> Outcome<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).ok_or("no CPU time in /proc/self/stat");
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}

fn latency(servers: &str, topic: &str, name: &str, more: &[(&str, &str)]) -> Result<(), Box<dyn Error>> {
    let mut committer = sink(servers, topic, more)?;
    for (pause, how) in [(Duration::ZERO, "one after another"), (Duration::from_millis(50), "every 50 ms")] {
        let mut times = Vec::new();
        for n in 1..300 {
            let epoch = epoch(n, (0..100).map(bid));
            let started = Instant::now();
            committer.publish(vec![epoch]).map_err(|e: ConnectorError| e.to_string())?;
            times.push(started.elapsed());
            std::thread::sleep(pause);
        }
        report(&format!("publish 100 records, {name}, {how}"), &mut times);
    }
    Ok(())
}

fn report(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    println!("{what}: p50 {:.2?}, p99 {:.2?}, max {:.2?}", at(50), at(99), at(100));
}
