//! Checkpoint manifests: `checkpoints/<epoch>` names every file of every task at the end of that epoch, and holds the driver's
//! own part. A manifest is created after all objects that it names are durable, so one that exists and verifies is
//! a complete checkpoint.
use millstream_plan::{Digest, Epoch, Era, TaskId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::StateError;
use crate::backup::FileRef;
use crate::objects::{CheckpointStore, Create, ObjectInfo, number_of, numbered};

const FOLDER: &str = "checkpoints";

/// The state of one task in a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskFiles {
    /// Whose.
    pub task: TaskId,
    /// Everything that [`fetch`](crate::backup::fetch) needs.
    pub files: Vec<FileRef>,
    /// Digest of the logical content, where it was computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
}

/// A complete checkpoint. `T` is the driver's part: position in the log, offsets, watermarks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest<T> {
    /// The state is that at the end of this epoch.
    pub epoch: Epoch,
    /// Who took it.
    pub era: Era,
    /// In order of tasks.
    pub tasks: Vec<TaskFiles>,
    /// The driver's part.
    pub job: T,
}

/// Outcome of [`Checkpoints::put`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutManifest<T> {
    /// The checkpoint is complete.
    Stored,
    /// The epoch has a manifest by another writer, which stays. By determinism its logical state is the same; its files are
    /// that writer's. A higher era in it means that this writer has been replaced.
    Exists(Box<Manifest<T>>),
}

/// The newest checkpoint that can be read, and those after it that cannot.
#[derive(Debug)]
pub struct Newest<T> {
    /// `None` when there is none.
    pub manifest: Option<Manifest<T>>,
    /// Newer ones that are damaged.
    pub skipped: Vec<(Epoch, StateError)>,
}

/// The manifests of a location.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    store: CheckpointStore,
}

impl Checkpoints {
    /// Of this location.
    #[must_use]
    pub fn new(store: CheckpointStore) -> Self {
        Self { store }
    }

    /// Completes a checkpoint. Everything that it names must be durable.
    pub async fn put<T>(&self, manifest: &Manifest<T>) -> Result<PutManifest<T>, StateError>
    where
        T: Serialize + DeserializeOwned,
    {
        let path = path(manifest.epoch);
        let json = serde_json::to_vec_pretty(manifest).map_err(|e| StateError::Config {
            message: format!("the manifest of epoch {} cannot be written as JSON: {e}", manifest.epoch),
            hint: None,
        })?;
        match self.store.create(&path, &json).await? {
            Create::Created | Create::AlreadyOurs => Ok(PutManifest::Stored),
            Create::Exists { bytes, .. } => Ok(PutManifest::Exists(Box::new(self.parse(manifest.epoch, &bytes)?))),
        }
    }

    /// The manifest of an epoch.
    pub async fn get<T: DeserializeOwned>(&self, epoch: Epoch) -> Result<Option<Manifest<T>>, StateError> {
        match self.store.get(&path(epoch)).await? {
            Some(json) => self.parse(epoch, &json).map(Some),
            None => Ok(None),
        }
    }

    /// Epochs with a manifest, oldest first.
    pub async fn list(&self) -> Result<Vec<Epoch>, StateError> {
        Ok(self.listed().await?.into_iter().map(|(epoch, _)| epoch).collect())
    }

    /// The newest manifest that verifies.
    ///
    /// # Errors
    /// When the store cannot be read. Damaged manifests are not an error but in [`Newest::skipped`].
    pub async fn newest<T: DeserializeOwned>(&self) -> Result<Newest<T>, StateError> {
        let mut skipped = Vec::new();
        for epoch in self.list().await?.into_iter().rev() {
            match self.get(epoch).await {
                Ok(Some(manifest)) => return Ok(Newest { manifest: Some(manifest), skipped }),
                Ok(None) => {} // deleted since the listing
                Err(damaged @ StateError::Corrupt { .. }) => skipped.push((epoch, damaged)),
                Err(e) => return Err(e),
            }
        }
        Ok(Newest { manifest: None, skipped })
    }

    pub(crate) async fn listed(&self) -> Result<Vec<(Epoch, ObjectInfo)>, StateError> {
        let listed = self.store.list(FOLDER, None).await?;
        Ok(listed.into_iter().filter_map(|object| Some((Epoch(number_of(&object.path)?), object))).collect())
    }

    pub(crate) async fn delete(&self, epoch: Epoch) -> Result<(), StateError> {
        self.store.delete(&path(epoch)).await
    }

    fn parse<T: DeserializeOwned>(&self, epoch: Epoch, json: &[u8]) -> Result<Manifest<T>, StateError> {
        let what = || self.store.describe(&path(epoch));
        let manifest: Manifest<T> =
            serde_json::from_slice(json).map_err(|e| StateError::corrupt(what(), e.to_string()))?;
        if manifest.epoch != epoch {
            return Err(StateError::corrupt(what(), format!("it is the manifest of epoch {}", manifest.epoch)));
        }
        Ok(manifest)
    }
}

fn path(epoch: Epoch) -> String {
    numbered(FOLDER, epoch.0)
}
