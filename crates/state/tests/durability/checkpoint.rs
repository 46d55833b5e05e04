//! Task stores: snapshot, upload, restore, from local files and from the checkpoint location alone.
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use millstream_plan::{Attempt, Epoch, Era, Generation, OperatorId, StageId, TaskId};
use millstream_state::StateError;
use millstream_state::backup::{FileRef, Upload, Uploader, fetch};
use millstream_state::keys::{state_key, state_prefix};
use millstream_state::manifest::{Checkpoints, Manifest, PutManifest, TaskFiles};
use millstream_state::objects::{CheckpointStore, StoreOptions, WriterId};
use millstream_state::task::TaskStore;
use serde::{Deserialize, Serialize};

fn location(dir: &Path) -> CheckpointStore {
    CheckpointStore::open(dir.join("store").to_str().unwrap(), &StoreOptions::default(), WriterId(1)).unwrap()
}

/// A deterministic mix of puts and deletes; `round` changes the values.
fn changes(round: u32, keys: u32) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    (0..keys)
        .filter(|key| !(key + round).is_multiple_of(3))
        .map(|key| {
            let value =
                (!(key * 7 + round).is_multiple_of(11)).then(|| format!("value {key} of round {round}").into_bytes());
            (state_key(OperatorId(1), 0, &key.to_be_bytes()), value)
        })
        .collect()
}

fn content(store: &TaskStore) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut content = BTreeMap::new();
    let collected = store.scan_prefix::<StateError>(&[], |key, value| {
        content.insert(key.to_vec(), value.to_vec());
        Ok(())
    });
    collected.unwrap();
    content
}

struct Task {
    root: tempfile::TempDir,
    objects: CheckpointStore,
    store: TaskStore,
    uploader: Uploader,
}

impl Task {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let objects = location(root.path());
        let store = TaskStore::create(&root.path().join("live")).unwrap();
        let uploader = Uploader::new(objects.clone(), 4);
        Self { root, objects, store, uploader }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    async fn checkpoint(&self, name: &str) -> Upload {
        let snapshot = self.store.snapshot(&self.path(name)).unwrap();
        self.uploader.upload(&snapshot).await.unwrap()
    }
}

#[test]
fn a_store_is_a_sorted_map() {
    let dir = tempfile::tempdir().unwrap();
    let store = TaskStore::create(&dir.path().join("t")).unwrap();
    let mut model = BTreeMap::new();
    for round in 0..5 {
        let batch = changes(round, 500);
        for (key, value) in &batch {
            match value {
                Some(value) => model.insert(key.clone(), value.clone()),
                None => model.remove(key),
            };
        }
        store.apply(batch).unwrap();
    }
    // Neighbours whose prefixes must not be taken for operator 1's.
    for (operator, namespace) in [(0, 255), (1, 1), (2, 0)] {
        let key = state_key(OperatorId(operator), namespace, b"x");
        store.apply([(&key, Some(b"y"))]).unwrap();
        model.insert(key, b"y".to_vec());
    }
    assert_eq!(content(&store), model);
    let keys: Vec<_> = (0..600u32).map(|key| state_key(OperatorId(1), 0, &key.to_be_bytes())).collect();
    let many = store.get_many(&keys).unwrap();
    for (key, value) in keys.iter().zip(many) {
        assert_eq!(value.as_ref(), model.get(key));
        assert_eq!(value, store.get(key).unwrap());
    }
    let prefix = state_prefix(OperatorId(1), 0);
    let mut scanned = 0;
    store
        .scan_prefix::<StateError>(&prefix, |key, _| {
            assert!(key.starts_with(&prefix));
            scanned += 1;
            Ok(())
        })
        .unwrap();
    assert_eq!(scanned, model.len() - 3);
    assert!(TaskStore::create(&dir.path().join("t")).is_err(), "a store is created once");
}

#[tokio::test]
async fn a_checkpoint_is_restored_from_the_location_alone() {
    let task = Task::new();
    task.store.apply(changes(1, 20_000)).unwrap();
    let (digest, expected) = (task.store.digest().unwrap(), content(&task.store));
    let upload = task.checkpoint("c1").await;
    // What comes later is not in it.
    task.store.apply(changes(2, 20_000)).unwrap();
    assert_ne!(task.store.digest().unwrap(), digest);
    fs::remove_dir_all(task.path("c1")).unwrap();

    let fetched = fetch(&task.objects, &upload.files, &task.path("restored"), &[], 4).await.unwrap();
    assert_eq!((fetched.local, fetched.downloaded), (0, upload.files.len()));
    let restored = TaskStore::open(&task.path("restored")).unwrap();
    assert_eq!(restored.digest().unwrap(), digest);
    assert_eq!(content(&restored), expected);
    assert!(restored.bytes_on_disk().unwrap() > 0);
    // It goes on like any store.
    restored.apply(changes(2, 20_000)).unwrap();
    assert_eq!(restored.digest().unwrap(), task.store.digest().unwrap());
}

#[tokio::test]
async fn only_new_files_are_sent() {
    let task = Task::new();
    task.store.apply(changes(1, 5_000)).unwrap();
    let first = task.checkpoint("c1").await;
    assert_eq!(first.new_files, first.files.len());
    let again = task.checkpoint("c2").await;
    assert_eq!(again.new_files, 1, "the bundle alone");
    task.store.apply(changes(2, 50)).unwrap();
    let third = task.checkpoint("c3").await;
    assert_eq!(third.new_files, 2, "one table and the bundle");
    let ssts = |upload: &Upload| upload.files.iter().filter(|f| f.name.ends_with(".sst")).cloned().collect::<Vec<_>>();
    assert!(ssts(&first).iter().all(|file| ssts(&third).contains(file)));

    // A restored store knows what is stored.
    let restored = task.path("restored");
    fetch(&task.objects, &third.files, &restored, &[task.path("c3")], 4).await.unwrap();
    let uploader = Uploader::restored(task.objects.clone(), 4, &restored, &third.files).unwrap();
    let store = TaskStore::open(&restored).unwrap();
    let upload = uploader.upload(&store.snapshot(&task.path("c4")).unwrap()).await.unwrap();
    assert_eq!((ssts(&upload), upload.new_files), (ssts(&third), 1));
}

#[tokio::test]
async fn large_values_are_sent_once() {
    // Bytes that cannot be compressed: such values stand in files of their own.
    let large = |key: u32| {
        let mut x = u64::from(key) + 1;
        let mut byte = || {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x as u8
        };
        (state_key(OperatorId(1), 0, &key.to_be_bytes()), Some((0..100_000).map(|_| byte()).collect::<Vec<u8>>()))
    };
    let task = Task::new();
    task.store.apply((0..50).map(large).collect::<Vec<_>>()).unwrap();
    let first = task.checkpoint("c1").await;
    assert!(first.new_bytes > 5_000_000, "{first:?}");
    task.store.apply(vec![large(50)]).unwrap();
    let second = task.checkpoint("c2").await;
    assert!((100_000..1_000_000).contains(&second.new_bytes), "{second:?}");

    let restored = task.path("restored");
    fetch(&task.objects, &second.files, &restored, &[], 4).await.unwrap();
    let store = TaskStore::open(&restored).unwrap();
    assert_eq!(content(&store), content(&task.store));
    assert_eq!(content(&store).len(), 51);
}

#[tokio::test]
async fn a_dropped_file_never_comes_back() {
    // Garbage collection rests on this: equal content written again is another object.
    let task = Task::new();
    task.store.apply(changes(1, 1_000)).unwrap();
    let base = task.checkpoint("c1").await;
    let mut seen: BTreeMap<_, _> = base.files.iter().map(|f| (f.hash, "base".to_owned())).collect();
    for life in 0..3 {
        let dir = task.path(&format!("life {life}"));
        fetch(&task.objects, &base.files, &dir, &[task.path("c1")], 4).await.unwrap();
        let uploader = Uploader::restored(task.objects.clone(), 4, &dir, &base.files).unwrap();
        let store = TaskStore::open(&dir).unwrap();
        store.apply(changes(2, 1_000)).unwrap();
        let upload = uploader.upload(&store.snapshot(&task.path(&format!("s {life}"))).unwrap()).await.unwrap();
        for file in upload.files.iter().filter(|f| !base.files.contains(f)) {
            let name = format!("{} of life {life}", file.name);
            assert_eq!(seen.insert(file.hash, name), None, "{}", file.name);
        }
    }
}

#[tokio::test]
async fn damaged_local_files_are_fetched_instead() {
    let task = Task::new();
    task.store.apply(changes(1, 20_000)).unwrap();
    let digest = task.store.digest().unwrap();
    let upload = task.checkpoint("c1").await;
    drop(task.store);
    let cache = task.root.path().join("c1");
    let whole = fetch(&task.objects, &upload.files, &task.root.path().join("r1"), std::slice::from_ref(&cache), 4)
        .await
        .unwrap();
    assert_eq!((whole.local, whole.downloaded), (upload.files.len(), 0));

    let sst = upload.files.iter().find(|f| f.name.ends_with(".sst")).unwrap();
    // Copied first: the links share their bytes with the live store's files.
    let damaged = task.root.path().join("damaged");
    super::copy_dir(&cache, &damaged);
    let mut bytes = fs::read(damaged.join(&sst.name)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(damaged.join(&sst.name), bytes).unwrap();
    let into = task.root.path().join("r2");
    let fetched = fetch(&task.objects, &upload.files, &into, &[damaged], 4).await.unwrap();
    assert_eq!((fetched.downloaded, fetched.downloaded_bytes), (1, sst.bytes));
    assert_eq!(TaskStore::open(&into).unwrap().digest().unwrap(), digest);
}

#[tokio::test]
async fn a_damaged_or_missing_object_is_reported() {
    let task = Task::new();
    task.store.apply(changes(1, 2_000)).unwrap();
    let upload = task.checkpoint("c1").await;
    for file in &upload.files {
        let object = task.path("store/state").join(file.hash.to_string());
        let good = fs::read(&object).unwrap();
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        fs::write(&object, &bad).unwrap();
        let error = fetch(&task.objects, &upload.files, &task.path("r"), &[], 4).await.unwrap_err();
        assert!(matches!(&error, StateError::Corrupt { what, .. } if what.contains(&file.hash.to_string())), "{error}");
        fs::remove_file(&object).unwrap();
        let error = fetch(&task.objects, &upload.files, &task.path("r"), &[], 4).await.unwrap_err();
        assert!(matches!(&error, StateError::Corrupt { what, .. } if what.contains(&file.hash.to_string())), "{error}");
        fs::write(&object, good).unwrap();
    }
    fetch(&task.objects, &upload.files, &task.path("r"), &[], 4).await.unwrap();
}

#[tokio::test]
async fn a_manifest_cannot_name_files_outside_its_folder() {
    let task = Task::new();
    let upload = task.checkpoint("c1").await;
    for name in ["../evil.sst", "/tmp/evil.sst", "CURRENT", ".x.sst", ""] {
        let mut files = upload.files.clone();
        files.push(FileRef { name: name.to_owned(), ..files[0].clone() });
        let error = fetch(&task.objects, &files, &task.path("r"), &[], 4).await.unwrap_err();
        assert!(matches!(error, StateError::Corrupt { .. }), "{name}: {error}");
    }
}

#[tokio::test]
async fn damage_of_an_open_store_is_never_read_as_data() {
    let task = Task::new();
    task.store.apply(changes(1, 20_000)).unwrap();
    let expected = content(&task.store);
    let snapshot = task.store.snapshot(&task.path("c1")).unwrap();
    let sst = snapshot.files.iter().find(|f| f.name.ends_with(".sst")).unwrap();
    let mut reported = 0;
    for at in (0..sst.bytes as usize).step_by(sst.bytes as usize / 60 + 1) {
        let copy = tempfile::tempdir().unwrap();
        super::copy_dir(&snapshot.dir, copy.path());
        let file = copy.path().join(&sst.name);
        let mut bytes = fs::read(&file).unwrap();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&file, bytes).unwrap();
        let mut found = BTreeMap::new();
        let read = TaskStore::open(copy.path()).and_then(|store| {
            store.scan_prefix(&[], |key, value| {
                found.insert(key.to_vec(), value.to_vec());
                Ok::<_, StateError>(())
            })
        });
        match read {
            Ok(()) => assert_eq!(found, expected, "byte {at}"),
            Err(error) => {
                assert!(matches!(error, StateError::Corrupt { .. }), "byte {at}: {error}");
                reported += 1;
            }
        }
    }
    assert!(reported > 30, "{reported} reported");
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Job {
    slot: u64,
}

fn manifest(epoch: u64, generation: u64) -> Manifest<Job> {
    let era = Era { generation: Generation(generation), attempt: Attempt(0) };
    let task = TaskId { stage: StageId(0), index: 0 };
    let tasks = vec![TaskFiles { task, files: vec![], digest: None }];
    Manifest { epoch: Epoch(epoch), era, tasks, job: Job { slot: epoch * 10 } }
}

#[tokio::test]
async fn the_newest_manifest_that_verifies_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = location(dir.path());
    let checkpoints = Checkpoints::new(store.clone());
    assert!(checkpoints.newest::<Job>().await.unwrap().manifest.is_none());
    for epoch in [9, 10, 100] {
        assert_eq!(checkpoints.put(&manifest(epoch, 1)).await.unwrap(), PutManifest::Stored);
    }
    assert_eq!(checkpoints.list().await.unwrap(), [Epoch(9), Epoch(10), Epoch(100)]);
    assert_eq!(checkpoints.newest().await.unwrap().manifest, Some(manifest(100, 1)));
    // Putting it again is fine; another leader's stays.
    assert_eq!(checkpoints.put(&manifest(100, 1)).await.unwrap(), PutManifest::Stored);
    let rival = Checkpoints::new(store.with_writer(WriterId(2)));
    let existing = rival.put(&manifest(100, 2)).await.unwrap();
    assert_eq!(existing, PutManifest::Exists(Box::new(manifest(100, 1))));

    let file = dir.path().join("store/checkpoints/00000000000000000100");
    let damaged = fs::read_to_string(&file).unwrap().replace("\"slot\": 1000", "\"slot\": 1001");
    fs::write(&file, damaged).unwrap();
    let newest = checkpoints.newest::<Job>().await.unwrap();
    assert_eq!(newest.manifest, Some(manifest(10, 1)));
    let [(Epoch(100), StateError::Corrupt { .. })] = &newest.skipped[..] else { panic!("{:?}", newest.skipped) };
}
