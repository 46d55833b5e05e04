//! A broker that is away for a while.
use std::collections::BTreeMap;

use millstream_connectors::{ConnectorError, SinkContext, SourcePoll};
use millstream_plan::{Attempt, Epoch, Era, Generation};

use crate::broker::{Broker, discover, epoch, ids, range, read, unique, until};

#[test]
fn all_halves_go_on_after_a_restart_of_the_broker() {
    let broker = Broker::start_own();
    let (input, output) = (broker.topic("in", 1, &[]), broker.topic("out", 1, &[]));
    broker.send(&input, 0, 0..5);
    let source = broker.source(&[("topic", &input)]);
    let mut enumerator = source.enumerator().unwrap();
    discover(&mut *enumerator, &BTreeMap::new()).unwrap();
    let mut reader = source.reader(0).unwrap();
    assert_eq!(ids(&read(&mut *reader, &range(&input, 0, 0, 5))), [0, 1, 2, 3, 4]);
    let sink = broker.sink(&unique("restart"), &[("topic", &output)]);
    let mut committer = sink.committer(0).unwrap();
    let era = |attempt| Era { generation: Generation(1), attempt: Attempt(attempt) };
    committer.open(&SinkContext { era: era(0), task: 0, restored: Epoch(0) }).unwrap();
    committer.publish(vec![epoch(1, &["a"])]).unwrap();

    broker.script("kill");
    let planned = range(&input, 0, 5, 8);
    for _ in 0..50 {
        assert!(matches!(reader.poll(&planned).unwrap(), SourcePoll::Pending));
    }
    assert!(matches!(enumerator.discover(&BTreeMap::new(), 0), Err(ConnectorError::Retry(_))));
    // A publication that meets the broker away waits for it.
    let publishing = std::thread::spawn(move || {
        let result = committer.publish(vec![epoch(2, &["b"])]);
        (committer, result)
    });
    broker.script("start");
    let (mut committer, result) = publishing.join().unwrap();
    if let Err(error) = result {
        // It may also be given up; then the next attempt finds out what was published.
        assert!(matches!(error, ConnectorError::Retry(_)), "{error}");
        let mut attempt = 1;
        let published = until("the broker", || {
            attempt += 1;
            committer.open(&SinkContext { era: era(attempt), task: 0, restored: Epoch(0) }).ok()
        });
        if published == Epoch(1) {
            committer.publish(vec![epoch(2, &["b"])]).unwrap();
        }
    }
    assert_eq!(broker.values(&output), ["a", "b"]);
    broker.send(&input, 0, 5..8);
    assert_eq!(ids(&read(&mut *reader, &planned)), [5, 6, 7]);
    let end = until("the enumerator", || enumerator.discover(&BTreeMap::new(), 0).ok());
    assert_eq!(end.splits[0].end, 8);
}
