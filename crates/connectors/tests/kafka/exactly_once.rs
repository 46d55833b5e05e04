//! Transactions, markers and fencing.
use millstream_connectors::{ConnectorError, SinkCommitter, SinkContext};
use millstream_plan::{Attempt, Epoch, Era, Generation};
use rdkafka::producer::{BaseRecord, Producer};

use crate::broker::{Broker, LIMIT, epoch, unique};

fn context(generation: u64, attempt: u32, restored: u64) -> SinkContext {
    SinkContext {
        era: Era { generation: Generation(generation), attempt: Attempt(attempt) },
        task: 0,
        restored: Epoch(restored),
    }
}

fn is_fatal<T: std::fmt::Debug>(result: Result<T, ConnectorError>) -> bool {
    matches!(result, Err(ConnectorError::Fatal(_)))
}

struct Sink {
    broker: &'static Broker,
    topic: String,
    pipeline: String,
}

impl Sink {
    fn new() -> Self {
        Self { broker: Broker::shared(), topic: Broker::shared().topic("eos", 1, &[]), pipeline: unique("eos") }
    }

    fn committer(&self) -> Box<dyn SinkCommitter> {
        self.broker.sink(&self.pipeline, &[("topic", &self.topic)]).committer(0).unwrap()
    }

    fn marker_topic(&self) -> String {
        format!("__millstream.{}.markers", self.pipeline)
    }

    fn values(&self) -> Vec<String> {
        self.broker.values(&self.topic)
    }
}

#[test]
fn what_is_published_is_known_to_the_next_owner() {
    let sink = Sink::new();
    let mut first = sink.committer();
    assert_eq!(first.open(&context(1, 0, 0)).unwrap(), Epoch(0));
    first.publish(vec![epoch(1, &["a"]), epoch(2, &[]), epoch(3, &["b", "c"])]).unwrap();
    first.publish(vec![epoch(4, &[])]).unwrap();
    first.publish(vec![epoch(5, &["d"])]).unwrap();
    drop(first);
    // Epoch 6 was empty and left no trace: it may be handed in again.
    let mut second = sink.committer();
    assert_eq!(second.open(&context(1, 1, 2)).unwrap(), Epoch(5));
    second.publish(vec![epoch(6, &[]), epoch(7, &["e"])]).unwrap();
    assert_eq!(sink.values(), ["a", "b", "c", "d", "e"]);
    // An owner may open again, as after a failed publication.
    assert_eq!(second.open(&context(1, 1, 2)).unwrap(), Epoch(7));
    second.publish(vec![epoch(8, &["f"])]).unwrap();
    assert_eq!(sink.values(), ["a", "b", "c", "d", "e", "f"]);
}

#[test]
fn what_a_crash_left_open_is_aborted_and_published_again() {
    let sink = Sink::new();
    let mut first = sink.committer();
    first.open(&context(1, 0, 0)).unwrap();
    first.publish(vec![epoch(1, &["a"])]).unwrap();
    drop(first);
    // A process that was killed between its writes and the commit, with its marker already written.
    let id = format!("millstream.{}.1.0.0", sink.pipeline);
    let killed = sink.broker.transaction(&id, &sink.topic, [99]);
    let marker = r#"{"era":{"generation":1,"attempt":0},"parallelism":2,"epoch":2,"digest":""}"#;
    let markers = sink.marker_topic();
    let record = BaseRecord::<str, str>::to(&markers).partition(7).key("1/0").payload(marker);
    killed.send(record).map_err(|(e, _)| e).unwrap();
    killed.flush(LIMIT).unwrap();

    let mut second = sink.committer();
    assert_eq!(second.open(&context(1, 1, 0)).unwrap(), Epoch(1));
    second.publish(vec![epoch(2, &["b"])]).unwrap();
    assert_eq!(sink.values(), ["a", "b"]);
    assert!(killed.commit_transaction(LIMIT).is_err());
    assert_eq!(sink.values(), ["a", "b"]);
}

#[test]
fn an_old_owner_is_fenced() {
    let sink = Sink::new();
    let mut old = sink.committer();
    old.open(&context(1, 0, 0)).unwrap();
    old.publish(vec![epoch(1, &["a"])]).unwrap();
    let mut new = sink.committer();
    assert_eq!(new.open(&context(2, 0, 0)).unwrap(), Epoch(1));
    // It wakes up and goes on where it was.
    assert!(is_fatal(old.publish(vec![epoch(2, &["zombie"])])));
    assert!(is_fatal(old.open(&context(1, 5, 0))));
    // Neither disturbs the new owner.
    new.publish(vec![epoch(2, &["b"])]).unwrap();
    assert_eq!(sink.values(), ["a", "b"]);
}

#[test]
fn a_marker_behind_an_open_transaction_of_another_task_is_not_missed() {
    let sink = Sink::new();
    let mut first = sink.committer();
    first.open(&context(1, 0, 0)).unwrap();
    // Another task writes to the same marker partition and does not commit yet.
    let other =
        sink.broker.client().set("transactional.id", unique("other")).create::<rdkafka::producer::BaseProducer>();
    let other = other.unwrap();
    other.init_transactions(LIMIT).unwrap();
    other.begin_transaction().unwrap();
    let markers = sink.marker_topic();
    let record = BaseRecord::<str, str>::to(&markers).partition(7).key("9/9").payload("{}");
    other.send(record).map_err(|(e, _)| e).unwrap();
    other.flush(LIMIT).unwrap();
    first.publish(vec![epoch(1, &["a"])]).unwrap();
    drop(first);
    let mut second = sink.committer();
    let opening = std::thread::spawn(move || {
        let epoch = second.open(&context(1, 1, 0));
        (second, epoch)
    });
    // Whether the thread has begun to wait by now or not, it must not answer before the commit.
    std::thread::yield_now();
    assert!(!opening.is_finished());
    other.commit_transaction(LIMIT).unwrap();
    let (_, epoch) = opening.join().unwrap();
    assert_eq!(epoch.unwrap(), Epoch(1));
}

#[test]
fn a_lost_marker_topic_is_not_taken_for_a_new_pipeline() {
    let sink = Sink::new();
    let error = sink.committer().open(&context(1, 0, 8)).unwrap_err().to_string();
    assert!(error.contains("no marker") && error.contains("epoch 8"), "{error}");
    let options = [("topic", sink.topic.as_str()), ("sink.accept-missing-marker", "true")];
    let accepting = sink.broker.sink(&sink.pipeline, &options);
    assert_eq!(accepting.committer(0).unwrap().open(&context(1, 1, 8)).unwrap(), Epoch(0));
}

#[test]
fn another_number_of_tasks_is_refused() {
    let sink = Sink::new();
    sink.committer().open(&context(1, 0, 0)).unwrap();
    let mut spec = sink.broker.sink_spec(&sink.pipeline, &[("topic", &sink.topic)]);
    spec.parallelism = 3;
    let wider = (millstream_connectors::connector("kafka").unwrap().sink)(spec).unwrap();
    let error = wider.committer(0).unwrap().open(&context(2, 0, 0)).unwrap_err();
    assert!(error.to_string().contains("had 2 tasks and has 3"), "{error}");
}

#[test]
fn a_record_that_is_too_large_is_the_users_problem() {
    let sink = Sink { topic: Broker::shared().topic("small", 1, &[("max.message.bytes", "5000")]), ..Sink::new() };
    let mut committer = sink.committer();
    committer.open(&context(1, 0, 0)).unwrap();
    // Many small records make more than one batch of the topic's size.
    let small = "s".repeat(100);
    committer.publish(vec![epoch(1, &vec![small.as_str(); 1000])]).unwrap();
    let large = "l".repeat(6000);
    let error = committer.publish(vec![epoch(2, &["a", &large])]).unwrap_err().to_string();
    for part in ["6000 bytes", &sink.topic, "5000 bytes"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    // Nothing of the epoch is there.
    assert_eq!(sink.values().len(), 1000);
}
