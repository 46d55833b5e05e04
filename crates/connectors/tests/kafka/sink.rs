//! What records look like on the other side, and the checks before a start.
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{
    ArrayRef, BinaryBuilder, Int32Array, Int64Array, MapBuilder, RecordBatch, StringArray, StringBuilder,
    TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use futures::executor::block_on;
use millstream_connectors::{SinkContext, connector, create_topic};
use millstream_plan::{Epoch, EpochPlan, Era};
use rdkafka::admin::{AdminOptions, ResourceSpecifier};

use crate::broker::{Broker, epoch, unique};

fn context() -> SinkContext {
    SinkContext { era: Era::default(), task: 1, restored: Epoch(3) }
}

fn plan(epoch: u64) -> EpochPlan {
    EpochPlan { epoch: Epoch(epoch), now_ms: 0, sources: Vec::new(), checkpoint: false, flush: false, last: false }
}

#[test]
fn metadata_columns_become_metadata() {
    let broker = Broker::shared();
    let (topic, other) = (broker.topic("meta-out", 3, &[]), broker.topic("meta-other", 1, &[]));
    let mut headers = MapBuilder::new(None, StringBuilder::new(), BinaryBuilder::new());
    headers.keys().append_value("h");
    headers.values().append_value(b"v");
    headers.append(true).unwrap();
    headers.append(false).unwrap();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int64Array::from(vec![1, 2]))),
        ("k", Arc::new(StringArray::from(vec![Some("key"), None]))),
        ("h", Arc::new(headers.finish())),
        ("t", Arc::new(TimestampMillisecondArray::from(vec![77, 78]))),
        ("to", Arc::new(StringArray::from(vec![None, Some(other.as_str())]))),
        ("p", Arc::new(Int32Array::from(vec![Some(2), None]))),
    ];
    let rows = RecordBatch::try_from_iter(columns).unwrap();
    let mut spec = broker.sink_spec(&unique("meta"), &[("topic", &topic)]);
    spec.schema = rows.schema();
    let names = ["key", "headers", "timestamp", "topic", "partition"];
    spec.metadata = names.iter().enumerate().map(|(i, n)| (i + 1, (*n).to_owned())).collect();
    let sink = (connector("kafka").unwrap().sink)(spec).unwrap();
    sink.check().unwrap();
    let mut encoder = sink.encoder(0).unwrap();
    encoder.encode(&rows, None).unwrap();
    let encoded = encoder.end_epoch(&plan(4)).unwrap();
    assert_eq!(encoded.rows, 2);
    let mut committer = sink.committer(0).unwrap();
    committer.open(&SinkContext { restored: Epoch(0), ..context() }).unwrap();
    committer.publish(vec![encoded]).unwrap();

    let (partition, record) = broker.committed(&topic).remove(0);
    assert_eq!((partition, record.value.as_deref()), (2, Some(&br#"{"id":1}"#[..])));
    assert_eq!((record.key.as_deref(), record.timestamp_ms), (Some(&b"key"[..]), Some(77)));
    assert_eq!(record.headers, [("h".to_owned(), Some(b"v".to_vec()))]);
    let (_, record) = broker.committed(&other).remove(0);
    assert_eq!((record.key, record.value.as_deref()), (None, Some(&br#"{"id":2}"#[..])));
    assert!(record.headers.is_empty());
}

#[test]
fn upsert_with_tombstones() {
    let broker = Broker::shared();
    let topic = broker.topic("upsert", 1, &[("cleanup.policy", "compact")]);
    let mut spec = broker.sink_spec(&unique("upsert"), &[("topic", &topic)]);
    spec.schema = Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("at", DataType::Timestamp(TimeUnit::Millisecond, None), true),
    ]));
    spec.primary_key = vec![0];
    let rows = |ids: Vec<i64>, at: Vec<i64>| {
        let columns: Vec<ArrayRef> =
            vec![Arc::new(Int64Array::from(ids)), Arc::new(TimestampMillisecondArray::from(at))];
        RecordBatch::try_new(Arc::clone(&spec.schema), columns).unwrap()
    };
    let sink = (connector("upsert-kafka").unwrap().sink)(spec.clone()).unwrap();
    sink.check().unwrap();
    let mut encoder = sink.encoder(0).unwrap();
    let mut committer = sink.committer(0).unwrap();
    committer.open(&SinkContext { restored: Epoch(0), ..context() }).unwrap();
    encoder.encode(&rows(vec![1, 2], vec![10, 20]), None).unwrap();
    let first = encoder.end_epoch(&plan(4)).unwrap();
    let weights = Int64Array::from(vec![-1, 1, -1]);
    encoder.encode(&rows(vec![1, 1, 2], vec![10, 11, 20]), Some(&weights)).unwrap();
    let second = encoder.end_epoch(&plan(5)).unwrap();
    committer.publish(vec![first, second]).unwrap();
    let text = |b: Option<Vec<u8>>| b.map_or("-".to_owned(), |b| String::from_utf8(b).unwrap());
    let found: Vec<_> = broker.committed(&topic).into_iter().map(|(_, r)| (text(r.key), text(r.value))).collect();
    let at = |s: &str| s.contains("00:00:00.01");
    assert_eq!(found.len(), 4);
    assert!(
        found[0].0 == r#"{"id":1}"# && at(&found[0].1) && found[2].0 == r#"{"id":1}"# && found[2].1.contains(".011")
    );
    assert_eq!(found[3], (r#"{"id":2}"#.to_owned(), "-".to_owned()));
}

#[test]
fn guarantees_and_partitioners() {
    let broker = Broker::shared();
    for (guarantee, partitioner, expected) in [
        ("at-least-once", "fixed", vec![1, 1, 1, 1]),
        ("exactly-once", "round-robin", vec![0, 1, 1, 2]),
        ("none", "fixed", vec![1, 1, 1, 1]),
    ] {
        let topic = broker.topic("route", 3, &[]);
        let options =
            [("topic", topic.as_str()), ("sink.delivery-guarantee", guarantee), ("sink.partitioner", partitioner)];
        let sink = broker.sink(&unique("route"), &options);
        let mut committer = sink.committer(1).unwrap();
        let exactly = guarantee == "exactly-once";
        let restored = if exactly { Epoch(0) } else { Epoch(3) };
        let opened = committer.open(&SinkContext { restored, ..context() }).unwrap();
        // Without markers nothing after the checkpoint counts as published.
        assert_eq!(opened, restored);
        committer.publish(vec![epoch(4, &["a", "b", "c", "d"])]).unwrap();
        let found = crate::broker::until("the records", || Some(broker.committed(&topic)).filter(|r| r.len() == 4));
        assert_eq!(found.iter().map(|(p, _)| *p).collect::<Vec<_>>(), expected, "{guarantee}");
    }
}

#[test]
fn keys_go_where_the_java_client_sends_them() {
    let broker = Broker::shared();
    let topic = broker.topic("murmur", 10, &[]);
    let sink = broker.sink(&unique("murmur"), &[("topic", &topic), ("sink.delivery-guarantee", "at-least-once")]);
    let mut committer = sink.committer(0).unwrap();
    committer.open(&context()).unwrap();
    let mut records = epoch(4, &["21", "foobar", "a-little-bit-long-string"]);
    if let millstream_connectors::Payload::Kafka(list) = &mut records.payload {
        list.iter_mut().for_each(|r| r.key.clone_from(&r.value));
    }
    committer.publish(vec![records]).unwrap();
    // Values of Kafka's own test of murmur2, positive, modulo 10.
    let expected = [(-973_932_308_i32, "21"), (-790_332_482, "foobar"), (-985_981_536, "a-little-bit-long-string")];
    for (hash, key) in expected {
        let partition = (hash & i32::MAX) % 10;
        assert!(
            broker.committed(&topic).iter().any(|(p, r)| *p == partition && r.key.as_deref() == Some(key.as_bytes())),
            "{key} is not in partition {partition}"
        );
    }
}

#[test]
fn the_check_names_what_is_missing_and_creates_the_marker_topic() {
    let broker = Broker::shared();
    let missing = unique("missing");
    let started = Instant::now();
    let spec = broker.sink_spec("p", &[("topic", &missing)]);
    let error = (connector("kafka").unwrap().sink)(spec).unwrap().check().unwrap_err();
    assert!(error.to_string().contains(&missing), "{error}");
    assert!(started.elapsed() < Duration::from_secs(15));

    let topic = broker.topic("checked", 1, &[]);
    let pipeline = unique("my pipeline");
    broker.sink(&pipeline, &[("topic", &topic)]);
    broker.sink(&pipeline, &[("topic", &topic)]);
    let markers = format!("__millstream.{}.markers", pipeline.replace(' ', "_"));
    let resources =
        block_on(broker.admin().describe_configs([&ResourceSpecifier::Topic(&markers)], &AdminOptions::new())).unwrap();
    let config = resources[0].as_ref().unwrap();
    assert_eq!(config.get("cleanup.policy").unwrap().value.as_deref(), Some("compact"));

    let spec = broker.sink_spec("p", &[("topic", &topic), ("sink.marker-topic", &topic)]);
    let error = (connector("kafka").unwrap().sink)(spec).unwrap().check().unwrap_err();
    assert!(error.to_string().contains("has 1 partitions"), "{error}");

    let spec = broker.sink_spec("p", &[("topic", &topic), ("properties.transaction.timeout.ms", "2000")]);
    let error = (connector("kafka").unwrap().sink)(spec).err().unwrap();
    assert!(error.to_string().contains("too short"), "{error}");

    let options = [("topic", topic.as_str()), ("properties.transaction.timeout.ms", "7200000")];
    let sink = broker.sink(&unique("long"), &options);
    let error = sink.committer(0).unwrap().open(&context()).unwrap_err();
    assert!(error.to_string().contains("7200000 ms"), "{error}");
}

#[test]
fn a_topic_is_created_once_and_can_be_written_to() {
    let broker = Broker::shared();
    let name = unique("created");
    let client = broker.client();
    let servers = client.get("bootstrap.servers").unwrap();
    assert!(create_topic(servers, &name, 3).unwrap());
    broker.send(&name, 2, 0..5);
    assert!(!create_topic(servers, &name, 3).unwrap(), "it is there");
    let refused = create_topic(servers, "no name", 1).unwrap_err();
    assert!(refused.to_string().contains("no name"), "{refused}");
}
