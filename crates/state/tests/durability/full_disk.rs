//! A full disk: the error says so, nothing that was acknowledged is lost, and the work goes on after space is freed.
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use millstream_state::StateError;
use millstream_state::backup::{Uploader, fetch};
use millstream_state::log::{Append, LocalLog, LogStore};
use millstream_state::objects::{CheckpointStore, Create, StoreOptions, WriterId};
use millstream_state::task::TaskStore;

use super::log::record;

/// A small file system of its own.
struct Disk {
    dir: tempfile::TempDir,
}

impl Disk {
    /// `None`, with a printed reason, where the user may not mount.
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"]).arg(dir.path()).output();
        match mount {
            Ok(done) if done.status.success() => Some(Self { dir }),
            Ok(failed) => {
                println!("skipped: cannot mount a tmpfs: {}", String::from_utf8_lossy(&failed.stderr));
                None
            }
            Err(e) => {
                println!("skipped: cannot run mount: {e}");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn fill(&self) {
        let mut ballast = File::create(self.path().join("ballast")).unwrap();
        for size in [1 << 16, 1 << 8, 1] {
            while ballast.write_all(&vec![1; size]).is_ok() {}
        }
    }

    fn free(&self) {
        fs::remove_file(self.path().join("ballast")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A file may still be open in a background thread of RocksDB.
        let done = Command::new("umount").arg("--lazy").arg(self.path()).status();
        assert!(done.is_ok_and(|status| status.success()) || std::thread::panicking(), "umount");
    }
}

#[tokio::test]
async fn objects_are_whole_or_absent() {
    let Some(disk) = Disk::mount() else { return };
    let location = disk.path().join("store");
    let store = CheckpointStore::open(location.to_str().unwrap(), &StoreOptions::default(), WriterId(1)).unwrap();
    assert_eq!(store.create("log/a", b"a").await.unwrap(), Create::Created);
    disk.fill();
    let payload = vec![7; 100_000];
    let error = store.create("log/b", &payload).await.unwrap_err();
    assert!(matches!(error, StateError::NoSpace { .. }), "{error}");
    assert_eq!(store.get("log/b").await.unwrap(), None);
    disk.free();
    assert_eq!(store.create("log/b", &payload).await.unwrap(), Create::Created);
    assert_eq!(store.get("log/b").await.unwrap().unwrap(), payload);
    assert_eq!(fs::read_dir(location.join(".staging")).unwrap().count(), 0, "no staged file is left");
}

#[tokio::test]
async fn the_log_keeps_what_it_acknowledged_and_goes_on() {
    let Some(disk) = Disk::mount() else { return };
    let log = LocalLog::open(&disk.path().join("log")).unwrap();
    assert_eq!(log.append(0, &record(0)).await.unwrap(), Append::Appended);
    disk.fill();
    // What the write-ahead log has allocated in advance takes some records more.
    let mut slot = 1;
    let error = loop {
        match log.append(slot, &record(slot)).await {
            Ok(_) => slot += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StateError::NoSpace { .. }), "{error}");
    let error = log.append(slot, &record(slot)).await.unwrap_err();
    assert!(matches!(error, StateError::NoSpace { .. }), "{error}");
    disk.free();
    let started = Instant::now();
    while let Err(error) = log.append(slot, &record(slot)).await {
        assert!(started.elapsed() < Duration::from_secs(20), "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(log.append(slot + 1, &record(slot + 1)).await.unwrap(), Append::Appended);
    drop(log);
    let entries = LocalLog::open(&disk.path().join("log")).unwrap().scan(0).await.unwrap();
    assert_eq!(entries.len() as u64, slot + 2);
    for (slot, entry) in entries.iter().enumerate() {
        assert_eq!((entry.slot, &*entry.record), (slot as u64, &*record(slot as u64)));
    }
}

#[tokio::test]
async fn a_task_store_fails_and_is_restored() {
    let Some(disk) = Disk::mount() else { return };
    let elsewhere = tempfile::tempdir().unwrap();
    let location = elsewhere.path().to_str().unwrap();
    let objects = CheckpointStore::open(location, &StoreOptions::default(), WriterId(1)).unwrap();
    let store = TaskStore::create(&disk.path().join("live")).unwrap();
    let some = |from: u64| (from..from + 1000).map(|key| (key.to_be_bytes(), Some(record(key))));
    store.apply(some(0)).unwrap();
    let upload =
        Uploader::new(objects.clone(), 2).upload(&store.snapshot(&disk.path().join("c1")).unwrap()).await.unwrap();
    let digest = store.digest().unwrap();

    disk.fill();
    let full = (1u64..).find_map(|round| {
        let applied = store.apply(some(round * 1000));
        applied.and_then(|()| store.snapshot(&disk.path().join(format!("full {round}"))).map(|_| ())).err()
    });
    let error = full.unwrap();
    assert!(matches!(error, StateError::NoSpace { .. }), "{error}");
    let error = fetch(&objects, &upload.files, &disk.path().join("r"), &[], 2).await.unwrap_err();
    assert!(matches!(error, StateError::NoSpace { .. }), "{error}");
    drop(store);

    disk.free();
    fetch(&objects, &upload.files, &disk.path().join("r"), &[], 2).await.unwrap();
    assert_eq!(TaskStore::open(&disk.path().join("r")).unwrap().digest().unwrap(), digest);
}
