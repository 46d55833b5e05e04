//! The contract of create-only objects, on a folder and in memory, with and without faults.
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use millstream_plan::Generation;
use millstream_state::StateError;
use millstream_state::generation::{Claim, Generations};
use millstream_state::log::{Append, LogStore, ObjectLog};
use millstream_state::objects::faults::{Fault, Faulty, Kind, Operation};
use millstream_state::objects::{CheckpointStore, Create, LocalFolder, Policy, StoreOptions, WriterId};

const QUICK: Policy = Policy { attempt: Duration::from_millis(300), deadline: Duration::from_millis(900), hedge: None };

fn fault(kind: Kind, times: usize) -> Fault {
    Fault { operation: Operation::Put, path_contains: String::new(), kind, times }
}

fn faulty(dir: &tempfile::TempDir, writer: u128) -> (Faulty, CheckpointStore) {
    let faulty = Faulty::new(Arc::new(LocalFolder::open(dir.path()).unwrap()));
    let store = CheckpointStore::over(Arc::new(faulty.clone()), "faulty", WriterId(writer), QUICK);
    (faulty, store)
}

fn open(dir: &tempfile::TempDir, writer: u128) -> CheckpointStore {
    let location = dir.path().to_str().unwrap();
    CheckpointStore::open(location, &StoreOptions::default(), WriterId(writer)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_racing_writers_one_wins_and_all_see_its_bytes() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..20 {
        let path = format!("log/{round:020}");
        let racers: Vec<_> = (0..16u128)
            .map(|writer| {
                let (store, path) = (open(&dir, writer), path.clone());
                tokio::spawn(async move { (writer, store.create(&path, &writer.to_be_bytes()).await.unwrap()) })
            })
            .collect();
        let (mut winners, mut seen) = (Vec::new(), BTreeSet::new());
        for racer in racers {
            match racer.await.unwrap() {
                (writer, Create::Created) => winners.push(writer),
                (_, Create::Exists { bytes, writer }) => {
                    assert_eq!(*bytes, writer.0.to_be_bytes());
                    seen.insert(writer.0);
                }
                (_, Create::AlreadyOurs) => panic!("nobody tried twice"),
            }
        }
        assert_eq!(winners.len(), 1);
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), winners);
    }
}

#[tokio::test]
async fn a_lost_reply_is_recognised_as_our_own_object() {
    let dir = tempfile::tempdir().unwrap();
    let (faults, store) = faulty(&dir, 1);
    faults.inject(fault(Kind::LoseReply, 1));
    assert_eq!(store.create("log/a", b"x").await.unwrap(), Create::AlreadyOurs);
    assert_eq!(faults.fired(), 1);
    // Another writer with the same bytes is another writer.
    let other = store.with_writer(WriterId(2)).create("log/a", b"x").await.unwrap();
    assert_eq!(other, Create::Exists { bytes: b"x".as_slice().into(), writer: WriterId(1) });
    // And the same writer with other bytes does not own them.
    assert!(matches!(store.create("log/a", b"y").await.unwrap(), Create::Exists { .. }));
}

#[tokio::test]
async fn what_failed_without_effect_is_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let (faults, store) = faulty(&dir, 1);
    faults.inject(fault(Kind::Fail, 2));
    faults.inject(Fault { operation: Operation::Head, ..fault(Kind::Fail, 1) });
    assert_eq!(store.create("log/a", b"x").await.unwrap(), Create::Created);
    assert_eq!(faults.fired(), 3);
    assert_eq!(store.get("log/a").await.unwrap().unwrap(), b"x".as_slice());
}

#[tokio::test]
async fn an_unknown_outcome_is_reported_as_such_and_the_late_write_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let (faults, store) = faulty(&dir, 1);
    // The PUT and its repetitions are all on their way and land much later.
    faults.inject(fault(Kind::LandAfter(Duration::from_millis(1500)), 100));
    let unknown = store.create("log/a", b"x").await.unwrap_err();
    assert!(matches!(unknown, StateError::Retry { .. }), "{unknown}");
    // Nobody waits for a fixed time: the object must appear.
    let look = async {
        while store.get("log/a").await.unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), look).await.expect("the late PUT lands");
    assert_eq!(store.create("log/a", b"x").await.unwrap(), Create::AlreadyOurs);
    let rival = store.with_writer(WriterId(2)).create("log/a", b"z").await.unwrap();
    assert_eq!(rival, Create::Exists { bytes: b"x".as_slice().into(), writer: WriterId(1) });
}

#[tokio::test]
async fn a_slow_put_is_overtaken_by_its_twin() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Faulty::new(Arc::new(LocalFolder::open(dir.path()).unwrap()));
    let policy = Policy { attempt: Duration::from_secs(60), hedge: Some(Duration::from_millis(20)), ..QUICK };
    let store = CheckpointStore::over(Arc::new(backend.clone()), "slow", WriterId(1), policy);
    backend.inject(fault(Kind::Delay(Duration::from_secs(30)), 1));
    let quick = tokio::time::timeout(Duration::from_secs(10), store.create("log/a", b"x"));
    assert_eq!(quick.await.expect("the second PUT answers").unwrap(), Create::Created);
    assert_eq!(backend.fired(), 1);
}

#[tokio::test]
async fn pipelined_appends_with_lost_replies_leave_one_record_per_slot() {
    let dir = tempfile::tempdir().unwrap();
    let (faults, store) = faulty(&dir, 1);
    faults.inject(fault(Kind::LoseReply, 7));
    let log = ObjectLog::new(store);
    let records: Vec<_> = (0..20u64).map(|slot| (slot, format!("record {slot}"))).collect();
    let appends = records.iter().map(|(slot, record)| log.append(*slot, record.as_bytes()));
    for append in futures::future::join_all(appends).await {
        assert_eq!(append.unwrap(), Append::Appended);
    }
    assert_eq!(faults.fired(), 7);
    let found = log.scan(5).await.unwrap();
    let expected: Vec<_> = records[5..].iter().map(|(slot, record)| (*slot, record.as_bytes())).collect();
    assert_eq!(found.iter().map(|e| (e.slot, &*e.record)).collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn a_generation_has_one_holder() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (Generations::new(open(&dir, 1)), Generations::new(open(&dir, 2)));
    assert_eq!(first.newest().await.unwrap(), None);
    assert_eq!(first.claim(Generation(1), "host a, pid 7").await.unwrap(), Claim::Won);
    assert_eq!(first.claim(Generation(1), "host a, pid 7").await.unwrap(), Claim::Won);
    let lost = Claim::Lost { holder: "host a, pid 7".to_owned() };
    assert_eq!(second.claim(Generation(1), "host b, pid 9").await.unwrap(), lost);
    assert_eq!(second.claim(Generation(12), "host b, pid 9").await.unwrap(), Claim::Won);
    assert_eq!(first.newest().await.unwrap(), Some(Generation(12)));
}

#[tokio::test]
async fn a_damaged_object_is_reported_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir, 1);
    store.create("log/00000000000000000003", b"record").await.unwrap();
    let file = dir.path().join("log/00000000000000000003");
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let log = ObjectLog::new(store);
    for error in
        [log.read(3).await.unwrap_err(), log.scan(0).await.unwrap_err(), log.append(3, b"x").await.unwrap_err()]
    {
        assert!(
            matches!(&error, StateError::Corrupt { what, .. } if what.contains("log/00000000000000000003")),
            "{error}"
        );
    }
}

#[tokio::test]
async fn the_probe_accepts_a_folder_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir, 1);
    store.probe().await.unwrap();
    assert_eq!(store.list("probe", None).await.unwrap(), vec![]);
    // Also over a connection that loses the first reply of each kind.
    let (faults, store) = faulty(&dir, 1);
    for operation in [Operation::Put, Operation::Read, Operation::Head, Operation::Delete] {
        faults.inject(Fault { operation, ..fault(Kind::LoseReply, 1) });
    }
    store.probe().await.unwrap();
    assert_eq!(faults.fired(), 4);
}

#[tokio::test]
async fn the_probe_refuses_a_store_that_overwrites() {
    let dir = tempfile::tempdir().unwrap();
    let (faults, store) = faulty(&dir, 1);
    // The first PUT is real; the second reports success, as a store does that ignores If-None-Match.
    faults.inject(fault(Kind::Delay(Duration::ZERO), 1));
    faults.inject(fault(Kind::Forget, 1));
    let refused = store.probe().await.unwrap_err();
    assert!(matches!(&refused, StateError::Config { hint: Some(_), .. }));
    assert!(refused.to_string().contains("conditional writes"), "{refused}");
}

#[tokio::test]
async fn an_unreachable_endpoint_is_named_within_15_seconds() {
    // A port on which nothing listens: it was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let options = StoreOptions {
        endpoint: Some(format!("http://127.0.0.1:{port}")),
        access_key: Some("test".to_owned()),
        secret_key: Some("testsecret".to_owned()),
        ..StoreOptions::default()
    };
    let store = CheckpointStore::open("s3://orders/checkpoints", &options, WriterId(1)).unwrap();
    let started = std::time::Instant::now();
    let refused = store.probe().await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(15));
    let StateError::Config { message, hint: Some(_) } = refused else { panic!("{refused}") };
    assert!(message.contains(&format!("127.0.0.1:{port}")) && message.contains("s3://orders/checkpoints"), "{message}");
}

#[tokio::test]
async fn a_folder_that_cannot_be_used_is_a_user_error() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let location = format!("{}/sub", file.path().display());
    let refused = CheckpointStore::open(&location, &StoreOptions::default(), WriterId(1)).unwrap_err();
    assert!(matches!(&refused, StateError::Config { message, .. } if message.contains(&location)), "{refused}");
}
