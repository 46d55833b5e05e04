//! A model of tasks that take checkpoints, abandon some, and roll back, with collections in between at any moment.
use std::collections::HashSet;

use bytes::Bytes;
use millstream_plan::{Era, StageId, TaskId};
use proptest::prelude::*;

use super::*;
use crate::backup::FileRef;
use crate::manifest::{Manifest, PutManifest, TaskFiles};
use crate::objects::WriterId;

const NO_MARGIN: Duration = Duration::ZERO;

#[derive(Clone, Debug)]
enum Step {
    /// The task writes so many files and drops those of its files whose index has this remainder modulo three.
    Work { new: usize, drop: Option<usize> },
    /// The checkpoint under way uploads what is not stored.
    Upload,
    /// Its manifest is created, or it is given up.
    Finish { complete: bool },
    /// The task is restored from the newest checkpoint.
    Rollback,
    /// A leader collects, protecting what was uploaded.
    Collect { keep: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..4usize, proptest::option::of(0..3usize)).prop_map(|(new, drop)| Step::Work { new, drop }),
        4 => Just(Step::Upload),
        3 => (0..4u8).prop_map(|dice| Step::Finish { complete: dice > 0 }),
        1 => Just(Step::Rollback),
        3 => (0..4usize).prop_map(|keep| Step::Collect { keep }),
    ];
    proptest::collection::vec(step, 1..60)
}

struct Model {
    store: CheckpointStore,
    /// Files of the task now; contents are unique, as SSTs and bundles are.
    live: Vec<FileRef>,
    stored: HashSet<ContentHash>,
    next_file: u64,
    next_epoch: u64,
    /// Files of the checkpoint under way.
    uploaded: Option<Vec<FileRef>>,
}

fn content(number: u64) -> Bytes {
    format!("file {number}").into()
}

impl Model {
    fn new() -> Self {
        Self {
            store: CheckpointStore::memory(WriterId(1)),
            live: Vec::new(),
            stored: HashSet::new(),
            next_file: 0,
            next_epoch: 1,
            uploaded: None,
        }
    }

    async fn step(&mut self, step: &Step) {
        match step {
            Step::Work { new, drop } => {
                let mut index = 0;
                self.live.retain(|_| {
                    index += 1;
                    drop.is_none_or(|remainder| index % 3 != remainder)
                });
                for _ in 0..*new {
                    let bytes = content(self.next_file);
                    let name = format!("{:06}.sst", self.next_file);
                    self.live.push(FileRef { name, hash: ContentHash::of(&bytes), bytes: bytes.len() as u64 });
                    self.next_file += 1;
                }
            }
            Step::Upload => {
                for file in self.live.iter().filter(|file| !self.stored.contains(&file.hash)) {
                    let number = file.name.trim_end_matches(".sst").parse().unwrap();
                    self.store.put_content(file.hash, content(number)).await.unwrap();
                }
                // As an uploader does: what the snapshot lacks is forgotten.
                self.stored = self.live.iter().map(|file| file.hash).collect();
                self.uploaded = Some(self.live.clone());
            }
            Step::Finish { complete } => {
                let (Some(files), true) = (self.uploaded.take(), *complete) else { return };
                let task = TaskId { stage: StageId(0), index: 0 };
                let tasks = vec![TaskFiles { task, files, digest: None }];
                let manifest = Manifest { epoch: Epoch(self.next_epoch), era: Era::default(), tasks, job: () };
                self.next_epoch += 1;
                let checkpoints = Checkpoints::new(self.store.clone());
                assert_eq!(checkpoints.put(&manifest).await.unwrap(), PutManifest::Stored);
            }
            Step::Rollback => {
                let newest = Checkpoints::new(self.store.clone()).newest::<()>().await.unwrap();
                self.live = newest.manifest.map(|m| m.tasks[0].files.clone()).unwrap_or_default();
                self.stored = self.live.iter().map(|file| file.hash).collect();
                self.uploaded = None;
            }
            Step::Collect { keep } => {
                let protected = self.uploaded.iter().flatten().map(|file| file.hash).collect();
                collect(&self.store, *keep, &protected, NO_MARGIN).await.unwrap();
            }
        }
    }

    /// Every manifest can be restored.
    async fn check(&self) {
        let checkpoints = Checkpoints::new(self.store.clone());
        for epoch in checkpoints.list().await.unwrap() {
            let manifest = checkpoints.get::<()>(epoch).await.unwrap().unwrap();
            for file in manifest.tasks.iter().flat_map(|task| &task.files) {
                let read = self.store.read_content(file.hash, file.bytes, |_| async { Ok(()) }).await;
                assert!(read.is_ok(), "checkpoint {epoch} lacks {}: {read:?}", file.name);
            }
        }
    }

    async fn garbage(&self) -> usize {
        let checkpoints = Checkpoints::new(self.store.clone());
        let mut named = HashSet::new();
        for epoch in checkpoints.list().await.unwrap() {
            let manifest = checkpoints.get::<()>(epoch).await.unwrap().unwrap();
            named.extend(manifest.tasks.iter().flat_map(|task| &task.files).map(|file| file.hash));
        }
        let objects = self.store.list("state", None).await.unwrap();
        objects.iter().filter(|object| !named.contains(&hash_of(object).unwrap())).count()
    }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

proptest! {
    #[test]
    fn what_a_manifest_names_is_never_deleted_and_garbage_is_in_the_end(steps in steps()) {
        run(async {
            let mut model = Model::new();
            for step in &steps {
                model.step(step).await;
                model.check().await;
            }
            // Three more checkpoints, and whatever was left behind is old.
            for _ in 0..3 {
                for step in [Step::Work { new: 1, drop: None }, Step::Upload, Step::Finish { complete: true }] {
                    model.step(&step).await;
                }
            }
            model.step(&Step::Collect { keep: 2 }).await;
            model.check().await;
            assert_eq!(model.garbage().await, 0);
        });
    }
}

#[test]
fn protected_hashes_and_young_objects_stay() {
    run(async {
        let mut model = Model::new();
        let orphans = [content(100), content(101)];
        for bytes in &orphans {
            model.store.put_content(ContentHash::of(bytes), bytes.clone()).await.unwrap();
        }
        for _ in 0..3 {
            for step in [Step::Work { new: 1, drop: None }, Step::Upload, Step::Finish { complete: true }] {
                model.step(&step).await;
            }
        }
        let protected = HashSet::from([ContentHash::of(&orphans[0])]);
        let cautious = collect(&model.store, 2, &protected, Duration::from_secs(3600)).await.unwrap();
        assert_eq!((cautious.manifests, cautious.objects), (1, 0), "nothing is an hour old");
        let collected = collect(&model.store, 2, &protected, NO_MARGIN).await.unwrap();
        assert_eq!((collected.objects, collected.bytes), (1, orphans[1].len() as u64));
        assert_eq!(model.garbage().await, 1);
    });
}

#[test]
fn an_unreadable_manifest_holds_all_objects_back() {
    run(async {
        let mut model = Model::new();
        model.store.put_content(ContentHash::of(b"orphan"), Bytes::from_static(b"orphan")).await.unwrap();
        for _ in 0..2 {
            for step in [Step::Work { new: 1, drop: None }, Step::Upload, Step::Finish { complete: true }] {
                model.step(&step).await;
            }
        }
        model.store.create("checkpoints/00000000000000000009", b"{").await.unwrap();
        let collected = collect(&model.store, 2, &HashSet::new(), NO_MARGIN).await.unwrap();
        assert_eq!(collected.objects, 0);
        assert!(collected.held_back.unwrap().contains("checkpoints/00000000000000000009"));
    });
}
