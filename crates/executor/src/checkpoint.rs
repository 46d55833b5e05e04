//! A task's part of checkpoints: sealed changes into the task's RocksDB, a snapshot of hard links, upload of new files, then the report.
//!
//! Order of writes: changes applied → snapshot → files in the checkpoint store → dead letters up to the epoch published → `Uploaded`. The driver
//! writes the manifest after that, so a manifest names only what is there. A crash in between leaves objects that no manifest names.
use std::path::{Path, PathBuf};
use std::sync::Arc;

use millstream_dataflow::operators::StateChange;
use millstream_plan::{Digest, Epoch, Era, OperatorId, TaskId};
use millstream_protocol::control::DriverLink;
use millstream_protocol::messages::{StateFile, TaskState, ToDriver};
use millstream_state::backup::Uploader;
use millstream_state::task::TaskStore;
use millstream_state::{StateError, keys};
use tokio::sync::{mpsc, watch};
use tracing::{debug, error};

use crate::ExecutorError;
use crate::memory::StoreReader;

/// Namespace of operators' state entries in a task's store.
pub(crate) const ENTRIES: u8 = 0;

/// The digest of a task's state is computed with every checkpoint up to this size; it reads all of it.
const DIGEST_BYTES: u64 = 64 << 20;

/// Sealed state of an epoch, by operator.
pub(crate) struct Sealed {
    pub epoch: Epoch,
    pub changes: Vec<(OperatorId, Vec<StateChange>)>,
}

/// The checkpoint side of one task.
pub(crate) struct Checkpointer {
    pub era: Era,
    pub task: TaskId,
    pub store: Arc<TaskStore>,
    /// Told when a seal is in the store.
    pub reader: Arc<StoreReader>,
    pub uploader: Uploader,
    /// Folder of snapshots of this task.
    pub snapshots: PathBuf,
    /// Last epoch whose dead letters are published.
    pub dead_letters: Option<watch::Receiver<Epoch>>,
    pub driver: Arc<DriverLink>,
}

impl Checkpointer {
    /// Works off sealed states in order until the queue is closed.
    pub async fn run(mut self, mut sealed: mpsc::UnboundedReceiver<Sealed>) {
        while let Some(next) = sealed.recv().await {
            let epoch = next.epoch;
            if let Err(e) = self.write(next).await {
                error!(era = %self.era, task = %self.task, %epoch, error = %e, "checkpoint failed");
                let failed =
                    ToDriver::Failed { era: self.era, task: Some(self.task), epoch: Some(epoch), failure: e.failure() };
                let _gone = self.driver.send(failed);
                return;
            }
        }
    }

    async fn write(&mut self, sealed: Sealed) -> Result<(), ExecutorError> {
        let Sealed { epoch, changes } = sealed;
        let (reader, store, dir) =
            (self.reader.clone(), self.store.clone(), self.snapshots.join(format!("{:020}", epoch.0)));
        let write = move || {
            let entries = changes.into_iter().flat_map(|(operator, changes)| {
                changes.into_iter().map(move |c| (keys::state_key(operator, ENTRIES, &c.key), c.value))
            });
            let mut entries: Vec<_> = entries.collect();
            entries.sort();
            store.apply(entries)?;
            reader.stored();
            let snapshot = store.snapshot(&dir)?;
            let bytes: u64 = snapshot.files.iter().map(|f| f.bytes).sum();
            let digest = if bytes <= DIGEST_BYTES { store.digest()? } else { Digest::default() };
            Ok::<_, StateError>((snapshot, digest))
        };
        let blocking = tokio::task::spawn_blocking(write).await;
        let (snapshot, digest) = blocking.map_err(|e| ExecutorError::Lost(format!("checkpoint thread: {e}")))??;
        let upload = self.uploader.upload(&snapshot).await?;
        debug!(era = %self.era, task = %self.task, %epoch, files = upload.new_files, bytes = upload.new_bytes, "state uploaded");
        if let Some(dead_letters) = &mut self.dead_letters {
            let published = dead_letters.wait_for(|e| *e >= epoch).await;
            // The publisher said itself why it ended.
            published.map_err(|_| ExecutorError::Lost("the publisher of dead letters ended".to_owned()))?;
        }
        let files =
            upload.files.into_iter().map(|f| StateFile { name: f.name, hash: f.hash, bytes: f.bytes }).collect();
        let state = TaskState { files, digest };
        let _gone = self.driver.send(ToDriver::Uploaded { era: self.era, task: self.task, epoch, state });
        Ok(())
    }
}

/// Removes snapshots of epochs before `epoch`: the checkpoint store has a newer one.
pub(crate) fn forget_before(snapshots: &Path, epoch: Epoch) {
    let Ok(folders) = std::fs::read_dir(snapshots) else { return };
    for folder in folders.flatten() {
        let number = folder.file_name().to_str().and_then(|n| n.parse::<u64>().ok());
        if number.is_some_and(|n| n < epoch.0)
            && let Err(e) = std::fs::remove_dir_all(folder.path())
        {
            debug!(path = %folder.path().display(), error = %e, "cannot remove an old snapshot");
        }
    }
}
