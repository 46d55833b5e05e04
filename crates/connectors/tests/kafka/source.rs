//! Metadata, bad records, lost data and mistakes.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, TimeUnit, TimestampMillisecondType};
use millstream_connectors::{ConnectorError, DeadLetterReason, SourcePoll};

use crate::broker::{Broker, discover, ids, range, read, split, try_read, unique, until};

fn user_message<T>(result: Result<T, ConnectorError>) -> String {
    match result {
        Err(ConnectorError::User { message, hint }) => format!("{message}; {}", hint.unwrap_or_default()),
        Err(other) => panic!("not the user's: {other}"),
        Ok(_) => panic!("no error"),
    }
}

#[test]
fn metadata_columns() {
    let broker = Broker::shared();
    let topic = broker.topic("metadata", 1, &[]);
    let headers: &[(&str, Option<&[u8]>)] = &[("a", Some(b"1")), ("b", None), ("a", Some(b"2"))];
    broker.send_raw(&topic, Some(b"k1"), Some(br#"{"id":1}"#), headers);
    broker.send_raw(&topic, None, Some(br#"{"id":2}"#), &[]);
    broker.send_raw(&topic, Some(b"\xff"), Some(br#"{"id":3}"#), &[]);
    let entries = Field::new_struct(
        "entries",
        vec![Field::new("keys", DataType::Utf8, false), Field::new("values", DataType::Binary, true)],
        false,
    );
    let source = broker
        .try_source(
            &[("topic", &topic)],
            &[
                ("topic", DataType::Utf8),
                ("partition", DataType::Int32),
                ("offset", DataType::Int64),
                ("timestamp", DataType::Timestamp(TimeUnit::Millisecond, None)),
                ("timestamp-type", DataType::Utf8),
                ("headers", DataType::Map(Arc::new(entries), false)),
                ("key", DataType::Utf8),
                ("key", DataType::Binary),
            ],
        )
        .unwrap();
    let mut reader = source.reader(0).unwrap();
    let batches = read(&mut *reader, &range(&topic, 0, 0, 3));
    let rows = &batches[0].rows;
    assert_eq!(rows.column(1).as_string::<i32>().value(2), topic);
    assert_eq!(rows.column(2).as_primitive::<Int32Type>().values(), &[0, 0, 0]);
    assert_eq!(rows.column(3).as_primitive::<Int64Type>().values(), &[0, 1, 2]);
    assert_eq!(rows.column(4).as_primitive::<TimestampMillisecondType>().values(), &[5, 5, 5]);
    assert_eq!(rows.column(5).as_string::<i32>().value(0), "CreateTime");
    let maps = rows.column(6).as_map();
    assert_eq!(maps.value_offsets(), [0, 3, 3, 3]);
    let values = maps.values().as_binary::<i32>();
    assert_eq!(maps.keys().as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["a", "b", "a"]);
    assert!(values.value(0) == b"1" && values.is_null(1) && values.value(2) == b"2");
    let keys = rows.column(7).as_string::<i32>();
    assert!(keys.value(0) == "k1" && keys.is_null(1) && keys.is_null(2));
    assert_eq!(rows.column(8).as_binary::<i32>().value(2), b"\xff");
}

#[test]
fn bad_records_are_set_aside_with_their_origin() {
    let broker = Broker::shared();
    let topic = broker.topic("bad", 1, &[]);
    broker.send_raw(&topic, None, Some(br#"{"id":1}"#), &[]);
    broker.send_raw(&topic, Some(b"gone"), None, &[]);
    broker.send_raw(&topic, None, Some(br#"{"id":2}"#), &[]);
    broker.send_raw(&topic, Some(b"k"), Some(b"no json"), &[]);
    broker.send_raw(&topic, None, Some(br#"{"id":3}"#), &[]);
    let source = broker.source(&[("topic", &topic)]);
    let batches = read(&mut *source.reader(0).unwrap(), &range(&topic, 0, 0, 5));
    assert_eq!(ids(&batches), [1, 2, 3]);
    let batch = &batches[0];
    assert_eq!((batch.records, batch.bad_count), (5, 2));
    let (tombstone, bad) = (&batch.bad[0], &batch.bad[1]);
    assert_eq!((tombstone.position, tombstone.value.as_slice()), (1, &b""[..]));
    assert!(tombstone.detail.contains("no value"), "{}", tombstone.detail);
    assert_eq!((&bad.split, bad.position, bad.reason), (&split(&topic, 0), 3, DeadLetterReason::Bad));
    assert_eq!((bad.key.as_deref(), bad.value.as_slice()), (Some(&b"k"[..]), &b"no json"[..]));
    assert_eq!((bad.source.as_str(), bad.timestamp_ms), ("orders", Some(5)));
    // The record behind a row, past bad ones.
    let late = batch.origin.dead_letter(2, DeadLetterReason::Late, "late".to_owned());
    assert_eq!((late.position, late.value.as_slice()), (4, &br#"{"id":3}"#[..]));

    let dropping = broker.source(&[("topic", &topic), ("bad-records", "drop")]);
    let batches = read(&mut *dropping.reader(0).unwrap(), &range(&topic, 0, 0, 5));
    assert_eq!((batches[0].bad.len(), batches[0].bad_count), (0, 2));

    let failing = broker.source(&[("topic", &topic), ("bad-records", "fail")]);
    let message = user_message(try_read(&mut *failing.reader(0).unwrap(), &range(&topic, 0, 0, 5)));
    assert!(message.contains(&topic) && message.contains("partition 0 at offset 1"), "{message}");
}

#[test]
fn a_message_of_20_mib_is_read() {
    let broker = Broker::shared();
    let topic = broker.topic("large", 1, &[("max.message.bytes", "33554432")]);
    let mut config = broker.client();
    config.set("message.max.bytes", "33554432");
    let producer: rdkafka::producer::BaseProducer = config.create().unwrap();
    let value = format!(r#"{{"id":7,"pad":"{}"}}"#, "x".repeat(20 << 20));
    let record = rdkafka::producer::BaseRecord::<(), str>::to(&topic).partition(0).payload(&value);
    producer.send(record).map_err(|(e, _)| e).unwrap();
    rdkafka::producer::Producer::flush(&producer, crate::broker::LIMIT).unwrap();
    broker.send(&topic, 0, [8]);
    let source = broker.source(&[("topic", &topic)]);
    let batches = read(&mut *source.reader(0).unwrap(), &range(&topic, 0, 0, 2));
    assert_eq!(ids(&batches), [7, 8]);
    // Cut after the record that passes the limit on bytes.
    assert_eq!(batches.iter().map(|b| b.records).collect::<Vec<_>>(), [1, 1]);
}

#[test]
fn lost_records_stop_the_pipeline_unless_it_may_go_on() {
    let broker = Broker::shared();
    let topic = broker.topic("loss", 1, &[]);
    broker.send(&topic, 0, 0..10);
    broker.truncate(&topic, 0, 6);
    let positions = BTreeMap::from([(split(&topic, 0), 2)]);
    let strict = broker.source(&[("topic", &topic)]);
    let message = user_message(discover(&mut *strict.enumerator().unwrap(), &positions));
    for part in [topic.as_str(), "partition 0", "offsets 2 to 5", "failOnDataLoss"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let message = user_message(try_read(&mut *strict.reader(0).unwrap(), &range(&topic, 0, 2, 10)));
    assert!(message.contains("offsets 2 to 10"), "{message}");
    let ahead = BTreeMap::from([(split(&topic, 0), 11)]);
    let message = user_message(discover(&mut *strict.enumerator().unwrap(), &ahead));
    assert!(message.contains("offset 11") && message.contains("ends at 10"), "{message}");

    let lenient = broker.source(&[("topic", &topic), ("failOnDataLoss", "false")]);
    assert_eq!(discover(&mut *lenient.enumerator().unwrap(), &positions).unwrap().splits[0].end, 10);
    let mut reader = lenient.reader(0).unwrap();
    assert_eq!(ids(&read(&mut *reader, &range(&topic, 0, 2, 4))), Vec::<i64>::new());
    assert_eq!(ids(&read(&mut *reader, &range(&topic, 0, 4, 8))), [6, 7]);
    assert_eq!(ids(&read(&mut *reader, &range(&topic, 0, 8, 10))), [8, 9]);
}

#[test]
fn a_topic_that_was_created_again_is_not_read_as_the_old_one() {
    let broker = Broker::shared();
    let topic = broker.topic("again", 1, &[]);
    broker.send(&topic, 0, 0..3);
    let source = broker.source(&[("topic", &topic), ("scan.topic-partition-discovery.interval", "1 ms")]);
    let mut enumerator = source.enumerator().unwrap();
    let none = BTreeMap::new();
    let old = discover(&mut *enumerator, &none).unwrap().splits[0].clone();
    assert!(!old.tag.is_empty());
    broker.delete(&topic);
    broker.create(&topic, 1, &[]);
    broker.send(&topic, 0, 10..13);
    let message = until("the new id", || match enumerator.discover(&none, 0) {
        // While the topic is gone, that is the message.
        Err(e) if e.to_string().contains("created again") => Some(e.to_string()),
        _ => None,
    });
    assert!(message.contains(&topic) && message.contains(&old.tag), "{message}");
    // The driver was down meanwhile: the log has the old id.
    let mut restarted = source.enumerator().unwrap();
    restarted.resume(None, &BTreeMap::from([(old.split.clone(), old.tag.clone())])).unwrap();
    let message = user_message(restarted.discover(&BTreeMap::from([(old.split.clone(), 3)]), 0));
    assert!(message.contains("created again") && message.contains(&old.tag), "{message}");
    let mut planned = range(&topic, 0, 0, 3);
    planned.tag = old.tag;
    let message = user_message(try_read(&mut *source.reader(0).unwrap(), &planned));
    assert!(message.contains("created again"), "{message}");
    let new = discover(&mut *source.enumerator().unwrap(), &none).unwrap().splits[0].clone();
    planned.tag = new.tag;
    assert_eq!(ids(&read(&mut *source.reader(0).unwrap(), &planned)), [10, 11, 12]);
}

#[test]
fn mistakes_are_named_in_time() {
    let broker = Broker::shared();
    let started = Instant::now();
    let missing = unique("missing");
    let message = user_message(broker.source(&[("topic", &missing)]).enumerator());
    assert!(message.contains(&missing) && message.contains("create it"), "{message}");

    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let servers = format!("127.0.0.1:{port}");
    let nobody = broker.source(&[("topic", "t"), ("properties.bootstrap.servers", &servers)]);
    let message = user_message(nobody.enumerator());
    assert!(message.contains(&servers) && message.contains("bootstrap.servers"), "{message}");
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());

    let message = user_message(broker.try_source(&[("topic", "t"), ("properties.no.such.key", "1")], &[]));
    assert!(message.contains("'no.such.key'"), "{message}");
    let message = user_message(broker.try_source(&[("topic", "t")], &[("colour", DataType::Utf8)]));
    assert!(message.contains("'colour'"), "{message}");
    let message = user_message(broker.source(&[("topic", "t"), ("scan.startup.mode", "group-offsets")]).enumerator());
    assert!(message.contains("group.id"), "{message}");
}

#[test]
fn asking_for_ends_is_quick() {
    let broker = Broker::shared();
    let topic = broker.topic("quick", 16, &[]);
    let source = broker.source(&[("topic", &topic)]);
    let mut enumerator = source.enumerator().unwrap();
    let positions = BTreeMap::new();
    discover(&mut *enumerator, &positions).unwrap();
    let mut times: Vec<Duration> = (0..200)
        .map(|_| {
            let at = Instant::now();
            discover(&mut *enumerator, &positions).unwrap();
            at.elapsed()
        })
        .collect();
    times.sort_unstable();
    // The driver asks every few milliseconds. Generous, since tests share the machine.
    assert!(times[100] < Duration::from_millis(20), "{:?}", times[100]);
}

#[test]
fn a_record_that_comes_after_its_range_was_begun_at_the_end_is_not_passed_over() {
    let broker = Broker::shared();
    let topic = broker.topic("slow", 1, &[]);
    broker.send(&topic, 0, 0..3);
    let source = broker.source(&[("topic", &topic)]);
    let mut reader = source.reader(0).unwrap();
    assert_eq!(ids(&read(&mut *reader, &range(&topic, 0, 0, 3))), [0, 1, 2]);
    for next in 3..6 {
        // As if its fetch were slow: long enough for the library to say that the partition ends before it.
        let planned = range(&topic, 0, next, next + 1);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(500) {
            assert!(matches!(reader.poll(&planned).unwrap(), SourcePoll::Pending), "record {next} is not there yet");
        }
        broker.send(&topic, 0, next as i64..next as i64 + 1);
        assert_eq!(ids(&read(&mut *reader, &planned)), [next as i64]);
    }
}

#[test]
fn a_reader_waits_without_an_error_for_records_that_are_not_there() {
    let broker = Broker::shared();
    let topic = broker.topic("wait", 1, &[]);
    broker.send(&topic, 0, 0..2);
    let source = broker.source(&[("topic", &topic)]);
    let mut reader = source.reader(0).unwrap();
    let planned = range(&topic, 0, 0, 4);
    until("the end of what is there", || {
        let at = Instant::now();
        let poll = reader.poll(&planned).unwrap();
        assert!(at.elapsed() < Duration::from_secs(5));
        matches!(poll, SourcePoll::Pending).then_some(())
    });
    broker.send(&topic, 0, 2..4);
    assert_eq!(ids(&read(&mut *reader, &planned)), [0, 1, 2, 3]);
}
