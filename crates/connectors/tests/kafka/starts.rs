//! Where reading starts and ends.
use std::collections::BTreeMap;

use millstream_connectors::Discovery;
use millstream_plan::SplitId;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use crate::broker::{Broker, LIMIT, discover, ids, range, read, split, unique, until};

fn found(broker: &Broker, options: &[(&str, &str)]) -> Discovery {
    discover(&mut *broker.source(options).enumerator().unwrap(), &BTreeMap::new()).unwrap()
}

fn starts(broker: &Broker, options: &[(&str, &str)]) -> Vec<u64> {
    found(broker, options).splits.iter().map(|s| s.start).collect()
}

fn commit(broker: &Broker, group: &str, topic: &str, partition: i32, offset: i64) {
    let consumer: BaseConsumer = broker.client().set("group.id", group).create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(offset)).unwrap();
    consumer.commit(&list, CommitMode::Sync).unwrap();
}

#[test]
fn start_modes_of_both_dialects() {
    let broker = Broker::shared();
    let topic = broker.topic("starts", 2, &[]);
    broker.send(&topic, 0, 0..10);
    broker.send(&topic, 1, 100..104);
    let group = unique("group");
    commit(broker, &group, &topic, 1, 3);
    let with = |options: &[(&str, &str)]| {
        let mut all = vec![("topic", topic.as_str())];
        all.extend_from_slice(options);
        starts(broker, &all)
    };
    assert_eq!(with(&[]), [0, 0]);
    assert_eq!(with(&[("startingOffsets", "latest")]), [10, 4]);
    assert_eq!(with(&[("scan.startup.mode", "latest-offset")]), [10, 4]);
    assert_eq!(with(&[("scan.startup.mode", "timestamp"), ("scan.startup.timestamp-millis", "6500")]), [7, 0]);
    assert_eq!(with(&[("startingTimestamp", "102000")]), [10, 2]);
    let json = format!(r#"{{"{topic}":{{"0":4,"1":-1}}}}"#);
    assert_eq!(with(&[("startingOffsets", &json)]), [4, 4]);
    let json = format!(r#"{{"{topic}":{{"0":2000}}}}"#);
    assert_eq!(with(&[("startingOffsetsByTimestamp", &json)]), [2, 0]);
    let specific =
        [("scan.startup.mode", "specific-offsets"), ("scan.startup.specific-offsets", "partition:1,offset:2")];
    assert_eq!(with(&specific), [0, 2]);
    let grouped = [("scan.startup.mode", "group-offsets"), ("properties.group.id", group.as_str())];
    assert_eq!(with(&grouped), [0, 3]);
    let mut latest = grouped.to_vec();
    latest.push(("properties.auto.offset.reset", "latest"));
    assert_eq!(with(&latest), [10, 3]);
}

#[test]
fn the_checkpoint_wins_over_start_options() {
    let broker = Broker::shared();
    let topic = broker.topic("resume", 2, &[]);
    broker.send(&topic, 0, 0..10);
    broker.send(&topic, 1, 0..10);
    let source = broker.source(&[("topic", &topic), ("startingOffsets", "latest")]);
    let positions = BTreeMap::from([(split(&topic, 0), 4)]);
    let found = discover(&mut *source.enumerator().unwrap(), &positions).unwrap();
    // Partition 1 is unknown to the checkpoint: it is new and is read from its beginning.
    assert_eq!(found.splits[1].start, 0);
    assert_eq!(found.splits[0].end, 10);
}

#[test]
fn what_options_meant_at_the_first_start_holds_after_a_restart() {
    let broker = Broker::shared();
    let topic = broker.topic("first", 2, &[]);
    broker.send(&topic, 0, 0..10);
    broker.send(&topic, 1, 0..4);
    let options = [("topic", topic.as_str()), ("startingOffsets", "latest")];
    let bounded = [("topic", topic.as_str()), ("scan.bounded.mode", "latest-offset")];
    let said = |options: &[(&str, &str)]| broker.source(options).enumerator().unwrap().first_start().unwrap().unwrap();
    let (latest, whole) = (said(&options), said(&bounded));
    broker.send(&topic, 0, 10..15);
    broker.send(&topic, 1, 4..6);
    let later = |options: &[(&str, &str)], first: &str| {
        let mut enumerator = broker.source(options).enumerator().unwrap();
        enumerator.resume(Some(first), &BTreeMap::new()).unwrap();
        // Nothing of partition 1 has been planned yet.
        discover(&mut *enumerator, &BTreeMap::from([(split(&topic, 0), 10)])).unwrap().splits
    };
    assert_eq!(later(&options, &latest).iter().map(|s| (s.start, s.end)).collect::<Vec<_>>(), [(10, 15), (4, 6)]);
    let ends: Vec<_> = later(&bounded, &whole).iter().map(|s| (s.start, s.end, s.closed)).collect();
    assert_eq!(ends, [(0, 10, true), (0, 4, true)]);
    assert!(broker.source(&options).enumerator().unwrap().resume(Some("{"), &BTreeMap::new()).is_err());
}

#[test]
fn bounded_modes() {
    let broker = Broker::shared();
    let topic = broker.topic("ends", 2, &[]);
    broker.send(&topic, 0, 0..10);
    broker.send(&topic, 1, 0..4);
    let group = unique("group");
    commit(broker, &group, &topic, 0, 6);
    let ends = |options: &[(&str, &str)]| {
        let mut all = vec![("topic", topic.as_str())];
        all.extend_from_slice(options);
        let found = found(broker, &all);
        (found.complete, found.splits.iter().map(|s| s.end).collect::<Vec<_>>())
    };
    assert_eq!(ends(&[]), (false, vec![10, 4]));
    assert_eq!(ends(&[("scan.bounded.mode", "latest-offset")]), (true, vec![10, 4]));
    assert_eq!(ends(&[("endingOffsets", "latest")]), (true, vec![10, 4]));
    assert_eq!(
        ends(&[("scan.bounded.mode", "timestamp"), ("scan.bounded.timestamp-millis", "2500")]),
        (true, vec![3, 3])
    );
    let specific = ("scan.bounded.specific-offsets", "partition:0,offset:5;partition:1,offset:4");
    assert_eq!(ends(&[("scan.bounded.mode", "specific-offsets"), specific]), (true, vec![5, 4]));
    // Not there yet: the input is not complete.
    let json = format!(r#"{{"{topic}":{{"0":15,"1":2}}}}"#);
    assert_eq!(ends(&[("endingOffsets", &json)]), (false, vec![10, 2]));
    let grouped = [("scan.bounded.mode", "group-offsets"), ("properties.group.id", group.as_str())];
    assert_eq!(ends(&grouped), (true, vec![6, 0]));
}

#[test]
fn bounded_ends_do_not_move() {
    let broker = Broker::shared();
    let topic = broker.topic("fixed", 1, &[]);
    broker.send(&topic, 0, 0..10);
    let source = broker.source(&[("topic", &topic), ("scan.bounded.mode", "latest-offset")]);
    let mut enumerator = source.enumerator().unwrap();
    let none: BTreeMap<SplitId, u64> = BTreeMap::new();
    assert_eq!(discover(&mut *enumerator, &none).unwrap().splits[0].end, 10);
    broker.send(&topic, 0, 10..20);
    let again = discover(&mut *enumerator, &none).unwrap();
    assert_eq!((again.splits[0].end, again.splits[0].closed, again.complete), (10, true, true));
}

#[test]
fn new_partitions_and_new_topics_of_a_pattern() {
    let broker = Broker::shared();
    let prefix = unique("pattern");
    let first = format!("{prefix}-a");
    broker.create(&first, 1, &[]);
    broker.send(&first, 0, 0..3);
    let pattern = format!("{prefix}-.*");
    let source = broker.source(&[
        ("topic-pattern", &pattern),
        ("startingOffsets", "latest"),
        ("scan.topic-partition-discovery.interval", "20 ms"),
    ]);
    let mut enumerator = source.enumerator().unwrap();
    let positions = BTreeMap::new();
    let found = discover(&mut *enumerator, &positions).unwrap();
    assert_eq!((found.splits.len(), found.splits[0].start), (1, 3));

    broker.grow(&first, 2);
    broker.send(&first, 1, 10..12);
    let second = format!("{prefix}-b");
    broker.create(&second, 1, &[]);
    broker.send(&second, 0, 20..25);
    let found = until("the new splits", || {
        Some(discover(&mut *enumerator, &positions).unwrap()).filter(|f| f.splits.len() == 3 && f.splits[2].end == 5)
    });
    // In the order in which they were found or are named, from their beginnings.
    let names: Vec<_> = found.splits.iter().map(|s| s.split.clone()).collect();
    assert_eq!(names[0], split(&first, 0));
    assert!(names.contains(&split(&first, 1)) && names.contains(&split(&second, 0)));
    assert!(found.splits[1..].iter().all(|s| s.start == 0));
    let mut reader = source.reader(0).unwrap();
    assert_eq!(ids(&read(&mut *reader, &range(&first, 1, 0, 2))), [10, 11]);
}

#[test]
fn several_topics_in_one_table() {
    let broker = Broker::shared();
    let (a, b) = (broker.topic("list-a", 1, &[]), broker.topic("list-b", 2, &[]));
    let list = format!("{b},{a}");
    let found = found(broker, &[("subscribe", &list)]);
    let names: Vec<_> = found.splits.into_iter().map(|s| s.split).collect();
    assert_eq!(names, [split(&b, 0), split(&b, 1), split(&a, 0)]);
}

#[test]
fn offsets_are_published_for_lag_tools() {
    let broker = Broker::shared();
    let topic = broker.topic("lag", 1, &[]);
    broker.send(&topic, 0, 0..10);
    let group = unique("group");
    let source = broker.source(&[("topic", &topic), ("properties.group.id", &group)]);
    let mut enumerator = source.enumerator().unwrap();
    discover(&mut *enumerator, &BTreeMap::new()).unwrap();
    let positions = BTreeMap::from([(split(&topic, 0), 7)]);
    enumerator.published(&positions);
    let consumer: BaseConsumer = broker.client().set("group.id", &group).create().unwrap();
    until("the committed offset", || {
        let mut list = TopicPartitionList::new();
        list.add_partition(&topic, 0);
        let committed = consumer.committed_offsets(list, LIMIT).unwrap();
        (committed.elements()[0].offset() == Offset::Offset(7)).then_some(())
    });
}
