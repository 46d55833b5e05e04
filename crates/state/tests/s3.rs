//! The contract of the checkpoint location on a real S3 server.
//!
//! The server is the one at `MILLSTREAM_TEST_S3` (a URL), else one that `dev/s3.sh` starts for this run.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use millstream_plan::{Epoch, Era, Generation, StageId, TaskId};
use millstream_state::StateError;
use millstream_state::backup::{Uploader, fetch};
use millstream_state::collect::collect;
use millstream_state::generation::{Claim, Generations};
use millstream_state::log::{Append, LogStore, ObjectLog};
use millstream_state::manifest::{Checkpoints, Manifest, TaskFiles};
use millstream_state::objects::{CheckpointStore, Create, StoreOptions, WriterId};
use millstream_state::task::TaskStore;

struct Server {
    endpoint: String,
    script: PathBuf,
    port: String,
    /// Of a server that this run has started.
    dir: Option<PathBuf>,
}

static SERVER: LazyLock<Option<Server>> = LazyLock::new(|| {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dev/s3.sh");
    if !script.exists() {
        return None;
    }
    if let Ok(endpoint) = std::env::var("MILLSTREAM_TEST_S3") {
        let port = endpoint.rsplit_once(':').expect("a URL with a port").1.to_owned();
        return Some(Server { endpoint, script, port, dir: None });
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let endpoint = format!("http://127.0.0.1:{port}");
    // Nothing drops a static: the folder of the run before is removed here.
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("s3");
    if dir.exists() {
        std::fs::remove_dir_all(&dir).unwrap();
    }
    let server = Server { endpoint, script, port, dir: Some(dir) };
    server.run(&["start"]);
    Some(server)
});

impl Server {
    fn run(&self, args: &[&str]) {
        let mut command = Command::new(&self.script);
        command.args(args).env("S3_PORT", &self.port);
        command.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "testsecret");
        if let Some(dir) = &self.dir {
            // It ends with this process.
            command.env("S3_DIR", dir).env("MILLSTREAM_OWNER", std::process::id().to_string());
        }
        let status = command.stdout(std::process::Stdio::null()).status().unwrap();
        assert!(status.success(), "dev/s3.sh {args:?}");
    }

    fn options(&self) -> StoreOptions {
        StoreOptions {
            endpoint: Some(self.endpoint.clone()),
            access_key: Some("test".to_owned()),
            secret_key: Some("testsecret".to_owned()),
            ..StoreOptions::default()
        }
    }
}

/// A fresh bucket, seen by a writer.
fn bucket() -> Option<(&'static Server, String)> {
    let Some(server) = &*SERVER else {
        println!("skipped: there is no dev/s3.sh");
        return None;
    };
    let name = format!("state-{:016x}", WriterId::random().0 as u64);
    server.run(&["bucket", &name]);
    Some((server, name))
}

fn open(server: &Server, bucket: &str, writer: u128) -> CheckpointStore {
    let location = format!("s3://{bucket}/checkpoints/orders");
    CheckpointStore::open(&location, &server.options(), WriterId(writer)).unwrap()
}

#[tokio::test]
async fn the_probe_accepts_a_real_server_and_leaves_nothing() {
    let Some((server, bucket)) = bucket() else { return };
    let store = open(server, &bucket, 1);
    store.probe().await.unwrap();
    assert_eq!(store.list("probe", None).await.unwrap(), vec![]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_racing_writers_one_wins() {
    let Some((server, bucket)) = bucket() else { return };
    for round in 0..5 {
        let path = format!("log/{round:020}");
        let racers: Vec<_> = (0..8u128)
            .map(|writer| {
                let (store, path) = (open(server, &bucket, writer), path.clone());
                tokio::spawn(async move { (writer, store.create(&path, &writer.to_be_bytes()).await.unwrap()) })
            })
            .collect();
        let (mut winners, mut seen) = (HashSet::new(), HashSet::new());
        for racer in racers {
            match racer.await.unwrap() {
                (writer, Create::Created) => winners.insert(writer),
                (_, Create::Exists { writer, .. }) => seen.insert(writer.0),
                (_, Create::AlreadyOurs) => panic!("nobody tried twice"),
            };
        }
        assert_eq!(winners.len(), 1);
        assert_eq!(seen, winners);
    }
}

#[tokio::test]
async fn the_log_is_appended_concurrently_scanned_and_truncated() {
    let Some((server, bucket)) = bucket() else { return };
    let log = ObjectLog::new(open(server, &bucket, 1));
    let records: Vec<_> = (0..30u64).map(|slot| (slot, format!("record {slot}"))).collect();
    let appends = records.iter().map(|(slot, record)| log.append(*slot, record.as_bytes()));
    for append in futures::future::join_all(appends).await {
        assert_eq!(append.unwrap(), Append::Appended);
    }
    let rival = ObjectLog::new(open(server, &bucket, 2));
    assert_eq!(rival.append(3, b"x").await.unwrap(), Append::Occupied(b"record 3".as_slice().into()));
    assert_eq!(rival.append(3, b"record 3").await.unwrap(), Append::Appended);
    log.truncate_before(10).await.unwrap();
    assert_eq!(log.read(9).await.unwrap(), None);
    let expected = |from: usize| records[from..].iter().map(|(s, r)| (*s, r.clone().into_bytes())).collect::<Vec<_>>();
    for from in [0, 10, 25] {
        let found = rival.scan(from as u64).await.unwrap();
        let found: Vec<_> = found.into_iter().map(|entry| (entry.slot, entry.record.to_vec())).collect();
        assert_eq!(found, expected(from.max(10)));
    }
}

#[tokio::test]
async fn generations_and_manifests_have_one_writer() {
    let Some((server, bucket)) = bucket() else { return };
    let (first, second) = (open(server, &bucket, 1), open(server, &bucket, 2));
    assert_eq!(Generations::new(first.clone()).claim(Generation(4), "a").await.unwrap(), Claim::Won);
    let lost = Generations::new(second).claim(Generation(4), "b").await.unwrap();
    assert_eq!(lost, Claim::Lost { holder: "a".to_owned() });
    assert_eq!(Generations::new(first).newest().await.unwrap(), Some(Generation(4)));
}

#[tokio::test]
async fn checkpoints_are_uploaded_restored_and_collected() {
    let Some((server, bucket)) = bucket() else { return };
    let objects = open(server, &bucket, 1);
    let checkpoints = Checkpoints::new(objects.clone());
    let dir = tempfile::tempdir().unwrap();
    let store = TaskStore::create(&dir.path().join("live")).unwrap();
    let uploader = Uploader::new(objects.clone(), 4);
    let mut digests = Vec::new();
    for epoch in 1..=4u64 {
        let keys = (0..50_000u64).map(|key| (key.to_be_bytes(), Some(format!("{key} of {epoch}, {:x}", key * key))));
        store.apply(keys).unwrap();
        let snapshot = store.snapshot(&dir.path().join(format!("c{epoch}"))).unwrap();
        let files = uploader.upload(&snapshot).await.unwrap().files;
        digests.push(store.digest().unwrap());
        let task = TaskId { stage: StageId(1), index: 0 };
        let tasks = vec![TaskFiles { task, files, digest: digests.last().copied() }];
        checkpoints.put(&Manifest { epoch: Epoch(epoch), era: Era::default(), tasks, job: () }).await.unwrap();
    }
    let collected = collect(&objects, 2, &HashSet::new(), Duration::ZERO).await.unwrap();
    assert_eq!(collected.manifests, 2);
    assert_eq!(checkpoints.list().await.unwrap(), [Epoch(3), Epoch(4)]);
    for epoch in [3, 4] {
        let manifest = checkpoints.get::<()>(Epoch(epoch)).await.unwrap().unwrap();
        let into = dir.path().join(format!("restored {epoch}"));
        let fetched = fetch(&objects, &manifest.tasks[0].files, &into, &[], 4).await.unwrap();
        assert_eq!(fetched.downloaded, manifest.tasks[0].files.len());
        assert_eq!(TaskStore::open(&into).unwrap().digest().unwrap(), digests[epoch as usize - 1]);
    }
}

#[tokio::test]
async fn what_a_user_got_wrong_is_named() {
    let Some((server, bucket)) = bucket() else { return };
    let started = Instant::now();
    let missing = CheckpointStore::open("s3://no-such-bucket/x", &server.options(), WriterId(1)).unwrap();
    let StateError::Config { message, .. } = missing.probe().await.unwrap_err() else { panic!("a user's error") };
    assert!(message.contains("no-such-bucket") && message.contains(&server.endpoint), "{message}");
    assert!(message.contains("does not exist"), "{message}");

    for (key, secret) in [("nobody", "testsecret"), ("test", "wrong")] {
        let options =
            StoreOptions { access_key: Some(key.into()), secret_key: Some(secret.into()), ..server.options() };
        let denied = CheckpointStore::open(&format!("s3://{bucket}/x"), &options, WriterId(1)).unwrap();
        let error = denied.probe().await.unwrap_err();
        let StateError::Config { message, .. } = error else { panic!("{error}") };
        assert!(message.contains(&bucket) && message.contains("denied"), "{message}");
    }
    assert!(started.elapsed() < Duration::from_secs(15));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_and_started_again_is_waited_for() {
    let Some((_, _)) = bucket() else { return };
    // A server of its own: the other tests go on with theirs.
    let Some(shared) = &*SERVER else { return };
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let dir = tempfile::tempdir().unwrap();
    let server = Arc::new(Server {
        endpoint: format!("http://127.0.0.1:{port}"),
        script: shared.script.clone(),
        port,
        dir: Some(dir.path().to_owned()),
    });
    server.run(&["start"]);
    server.run(&["bucket", "orders"]);
    let log = ObjectLog::new(open(&server, "orders", 1));
    assert_eq!(log.append(1, b"one").await.unwrap(), Append::Appended);
    server.run(&["kill"]);
    let waiting = tokio::spawn({
        let log = log.clone();
        async move { log.append(2, b"two").await }
    });
    let again = server.clone();
    tokio::task::spawn_blocking(move || again.run(&["start"])).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), Append::Appended);
    assert_eq!(log.scan(0).await.unwrap().len(), 2);
    server.run(&["kill"]);
}
