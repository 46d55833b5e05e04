//! Ranges with gaps: transaction markers, aborted records, compaction.
use std::collections::BTreeMap;

use rdkafka::producer::Producer;

use crate::broker::{Broker, LIMIT, discover, ids, range, read, unique, until};

#[test]
fn aborted_transactions_in_the_middle_and_at_the_tail() {
    let broker = Broker::shared();
    let topic = broker.topic("aborted", 1, &[]);
    broker.transaction(&unique("a"), &topic, 0..5).commit_transaction(LIMIT).unwrap(); // offsets 0–4, marker 5
    broker.transaction(&unique("b"), &topic, 100..105).abort_transaction(LIMIT).unwrap(); // 6–10, marker 11
    broker.transaction(&unique("c"), &topic, 5..10).commit_transaction(LIMIT).unwrap(); // 12–16, marker 17
    broker.transaction(&unique("d"), &topic, 200..205).abort_transaction(LIMIT).unwrap(); // 18–22, marker 23
    let source = broker.source(&[("topic", &topic)]);
    let mut enumerator = source.enumerator().unwrap();
    let end = || discover(&mut *enumerator, &BTreeMap::new()).unwrap().splits[0].end;
    let mut end = end;
    assert_eq!(end(), 24);
    let mut reader = source.reader(0).unwrap();
    assert_eq!(ids(&read(&mut *reader, &range(&topic, 0, 0, 24))), (0..10).collect::<Vec<_>>());

    // The same in small ranges, some of which hold nothing but markers or aborted records.
    let mut reader = source.reader(0).unwrap();
    let mut seen = Vec::new();
    for (from, to) in [(0, 3), (3, 5), (5, 6), (6, 8), (8, 12), (12, 14), (14, 17), (17, 18), (18, 20), (20, 24)] {
        seen.extend(ids(&read(&mut *reader, &range(&topic, 0, from, to))));
    }
    assert_eq!(seen, (0..10).collect::<Vec<_>>());

    // An open transaction holds the end back; its records are read when it has committed.
    let open = broker.transaction(&unique("e"), &topic, 10..12); // its marker comes last
    broker.send(&topic, 0, 12..14); // behind the open transaction
    assert_eq!(end(), 24);
    open.commit_transaction(LIMIT).unwrap();
    let last = until("the end behind the transaction", || Some(end()).filter(|e| *e == 29));
    assert_eq!(ids(&read(&mut *reader, &range(&topic, 0, 24, last))), [10, 11, 12, 13]);
}

#[test]
fn read_uncommitted_if_the_user_says_so() {
    let broker = Broker::shared();
    let topic = broker.topic("dirty", 1, &[]);
    let open = broker.transaction(&unique("f"), &topic, 0..5);
    let source = broker.source(&[("topic", &topic), ("properties.isolation.level", "read_uncommitted")]);
    let found = discover(&mut *source.enumerator().unwrap(), &BTreeMap::new()).unwrap();
    assert_eq!(found.splits[0].end, 5);
    let mut reader = source.reader(0).unwrap();
    assert_eq!(ids(&read(&mut *reader, &range(&topic, 0, 0, 5))), [0, 1, 2, 3, 4]);
    open.abort_transaction(LIMIT).unwrap();
}

#[test]
fn ranges_end_at_one_batch_and_go_on_in_the_next() {
    let broker = Broker::shared();
    let topic = broker.topic("cuts", 2, &[]);
    broker.send(&topic, 0, 0..20_000);
    broker.send(&topic, 1, 50_000..50_100);
    let source = broker.source(&[("topic", &topic)]);
    let sizes = |from: u64, to: u64| {
        let mut reader = source.reader(0).unwrap();
        let batches = read(&mut *reader, &range(&topic, 0, from, to));
        assert_eq!(ids(&batches), (from as i64..to as i64).collect::<Vec<_>>());
        batches.iter().map(|b| b.records).collect::<Vec<_>>()
    };
    // Counted from the start of the range, whatever the fetches were.
    assert_eq!(sizes(0, 20_000), [8192, 8192, 3616]);
    assert_eq!(sizes(7, 16_391), [8192, 8192]);
    // Ranges of two partitions in turn do not mix, though the consumer reads ahead.
    let mut reader = source.reader(0).unwrap();
    let mut seen = Vec::new();
    for i in 0..10 {
        seen.extend(ids(&read(&mut *reader, &range(&topic, 0, i * 1000, (i + 1) * 1000))));
        let other = ids(&read(&mut *reader, &range(&topic, 1, i * 10, (i + 1) * 10)));
        assert_eq!(other, (50_000 + i as i64 * 10..50_010 + i as i64 * 10).collect::<Vec<_>>());
    }
    assert_eq!(seen, (0..10_000).collect::<Vec<_>>());
}
