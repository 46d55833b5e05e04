//! Durable things: the log, manifests, generations. Every command runs in a task of its own and answers with one event.
use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use millstream_plan::{ContentHash, Epoch, Generation, TaskId};
use millstream_protocol::messages::{StateFile, TaskState};
use millstream_state::StateError;
use millstream_state::backup::FileRef;
use millstream_state::collect::collect;
use millstream_state::generation::{Claim, Generations};
use millstream_state::log::{Append, LocalLog, LogStore, ObjectLog};
use millstream_state::manifest::{Checkpoints, Manifest, PutManifest, TaskFiles};
use millstream_state::objects::{CheckpointStore, StoreOptions, WriterId};
use tokio::sync::mpsc::UnboundedSender;
use tracing::{debug, info, warn};

use super::DriverError;
use crate::chain::{Fold, Reply, Slot, WriterCommand};
use crate::coordinator::{Checkpoint, Event, JobPart, Recovered};

/// Objects that no manifest names are kept for this long: an upload may be under way.
const GARBAGE_MARGIN: Duration = Duration::from_secs(600);
/// Pause before a store is asked again.
const RETRY: Duration = Duration::from_millis(200);

/// All durable things of one pipeline.
#[derive(Clone)]
pub(super) struct Stores {
    store: CheckpointStore,
    log: Arc<dyn LogStore>,
    pub location: String,
}

impl Stores {
    /// Opens and probes the checkpoint location. A local one holds the log as a RocksDB, which only one driver can open; an object store
    /// holds it as objects.
    pub async fn open(location: &str, durability: Option<&str>) -> Result<Self, DriverError> {
        let remote = location.contains("://") && !location.starts_with("file://");
        let store = CheckpointStore::open(location, &StoreOptions::default(), WriterId::random())?;
        let log: Arc<dyn LogStore> = match (remote, durability) {
            (true, Some("local")) => {
                return Err(DriverError::Config {
                    message: "'log.durability' = 'local' is not possible with a checkpointLocation in an object store"
                        .to_owned(),
                    hint: Some("leave the setting out, or set checkpointLocation to a local path".to_owned()),
                });
            }
            (false, Some("object-store")) => {
                return Err(DriverError::Config {
                    message: format!("'log.durability' = 'object-store', but checkpointLocation '{location}' is local"),
                    hint: Some("set checkpointLocation to s3://bucket/prefix".to_owned()),
                });
            }
            (true, _) => {
                store.probe().await?;
                Arc::new(ObjectLog::new(store.clone()))
            }
            (false, _) => {
                let path = Path::new(location.strip_prefix("file://").unwrap_or(location)).join("plans");
                let opened = tokio::task::spawn_blocking(move || LocalLog::open(&path)).await;
                let log = opened.map_err(|e| DriverError::Internal(e.to_string()))??;
                store.probe().await?;
                Arc::new(log)
            }
        };
        Ok(Self { store, log, location: location.to_owned() })
    }

    /// Reads the newest checkpoint and the log after it.
    pub async fn recover(&self) -> Result<Recovered, DriverError> {
        let checkpoints = Checkpoints::new(self.store.clone());
        let newest = checkpoints.newest::<JobPart>().await?;
        for (epoch, error) in &newest.skipped {
            warn!(%epoch, %error, "a checkpoint cannot be read; an older one is used");
            // Its epoch will be written again, which must not meet the damaged one.
            self.store.delete(&format!("checkpoints/{:020}", epoch.0)).await?;
        }
        let checkpoint = newest.manifest.map(from_manifest);
        let mut fold = match &checkpoint {
            Some(c) => Fold::from_checkpoint(c.job.genesis.clone(), c.job.tip.clone(), c.job.history.clone()),
            None => Fold::default(),
        };
        let entries = self.log.scan(fold.tip.next.0).await?;
        fold.read_listing(entries.into_iter().map(|e| (Slot(e.slot), e.record)))?;
        let generation = Generations::new(self.store.clone()).newest().await?.unwrap_or_default();
        let mut older = Vec::new();
        let newest_epoch = checkpoint.as_ref().map_or(Epoch(0), |c| c.epoch);
        for epoch in checkpoints.list().await?.into_iter().filter(|e| *e < newest_epoch) {
            if let Ok(Some(manifest)) = checkpoints.get::<JobPart>(epoch).await {
                older.push((epoch, manifest.job.tip.next));
            }
        }
        info!(
            location = %self.location,
            checkpoint = %newest_epoch,
            last_epoch = %fold.head.last,
            %generation,
            "read the plan log"
        );
        Ok(Recovered { fold, checkpoint, generation, older })
    }

    /// Claims a generation; asks until the store answers.
    pub fn claim(&self, generation: Generation, holder: String, events: UnboundedSender<Event>) {
        let generations = Generations::new(self.store.clone());
        tokio::spawn(async move {
            let holder = loop {
                match generations.claim(generation, &holder).await {
                    Ok(Claim::Won) => break None,
                    Ok(Claim::Lost { holder }) => break Some(holder),
                    Err(error) => warn!(%generation, %error, "cannot claim the generation yet"),
                }
                tokio::time::sleep(RETRY).await;
            };
            let _ended = events.send(Event::Generation { holder });
        });
    }

    /// Performs a command of the log's writer.
    pub fn log(&self, command: WriterCommand, events: UnboundedSender<Event>) {
        let (log, store) = (self.log.clone(), self.store.clone());
        tokio::spawn(async move {
            let reply = match command {
                WriterCommand::Append { slot, hash, bytes } => append(&*log, slot, hash, &bytes).await,
                WriterCommand::Look { slot } => look(&*log, store, slot).await,
            };
            let _ended = events.send(Event::Log(reply));
        });
    }

    /// Stores a manifest.
    pub fn write_manifest(&self, checkpoint: Checkpoint, events: UnboundedSender<Event>) {
        let checkpoints = Checkpoints::new(self.store.clone());
        tokio::spawn(async move {
            let epoch = checkpoint.epoch;
            let event = match checkpoints.put(&to_manifest(checkpoint)).await {
                Ok(PutManifest::Stored) => Event::ManifestWritten { epoch },
                Ok(PutManifest::Exists(other)) => Event::ManifestRefused(Box::new(from_manifest(*other))),
                Err(error) => {
                    warn!(%epoch, %error, "cannot store the checkpoint's manifest yet");
                    tokio::time::sleep(RETRY).await;
                    Event::ManifestFailed { epoch }
                }
            };
            let _ended = events.send(event);
        });
    }

    /// Removes what only old checkpoints need. Best effort: the next checkpoint tries again.
    pub fn collect(&self, keep: usize, protected: HashSet<ContentHash>, before: Slot) {
        let (store, log) = (self.store.clone(), self.log.clone());
        tokio::spawn(async move {
            match collect(&store, keep, &protected, GARBAGE_MARGIN).await {
                Ok(c) => debug!(manifests = c.manifests, objects = c.objects, bytes = c.bytes, "collected garbage"),
                Err(error) => warn!(%error, "cannot collect garbage"),
            }
            if let Err(error) = log.truncate_before(before.0).await {
                warn!(%error, "cannot truncate the plan log");
            }
        });
    }
}

async fn append(log: &dyn LogStore, slot: Slot, hash: ContentHash, bytes: &[u8]) -> Reply {
    match log.append(slot.0, bytes).await {
        Ok(Append::Appended) => Reply::Appended { slot, hash },
        Ok(Append::Occupied(found)) => Reply::Refused { slot, hash, found: found.to_vec() },
        Err(error) => {
            warn!(%slot, %error, "cannot append to the plan log yet");
            tokio::time::sleep(RETRY).await;
            Reply::Failed { slot, hash }
        }
    }
}

async fn look(log: &dyn LogStore, store: CheckpointStore, slot: Slot) -> Reply {
    let generations = Generations::new(store);
    loop {
        let looked: Result<_, StateError> = async {
            let found = log.read(slot.0).await?;
            Ok((found, generations.newest().await?))
        }
        .await;
        match looked {
            Ok((found, newest)) => {
                return Reply::Looked { slot, found: found.map(|b| b.to_vec()), newest: newest.unwrap_or_default() };
            }
            Err(error) => warn!(%slot, %error, "cannot read the plan log yet"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

fn to_manifest(checkpoint: Checkpoint) -> Manifest<JobPart> {
    let tasks = checkpoint.tasks.into_iter().map(|(task, state)| TaskFiles {
        task,
        files: state.files.into_iter().map(|f| FileRef { name: f.name, hash: f.hash, bytes: f.bytes }).collect(),
        digest: Some(state.digest),
    });
    Manifest { epoch: checkpoint.epoch, era: checkpoint.era, tasks: tasks.collect(), job: checkpoint.job }
}

fn from_manifest(manifest: Manifest<JobPart>) -> Checkpoint {
    let tasks: BTreeMap<TaskId, TaskState> = manifest
        .tasks
        .into_iter()
        .map(|t| {
            let files = t.files.into_iter().map(|f| StateFile { name: f.name, hash: f.hash, bytes: f.bytes });
            (t.task, TaskState { files: files.collect(), digest: t.digest.unwrap_or_default() })
        })
        .collect();
    Checkpoint { epoch: manifest.epoch, era: manifest.era, tasks, job: manifest.job }
}
