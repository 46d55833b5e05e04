//! The log as objects `log/<slot>`.
use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

use super::{Append, LogEntry, LogStore};
use crate::StateError;
use crate::objects::{CheckpointStore, Create, number_of, numbered};

const FOLDER: &str = "log";
/// Requests in flight of a scan or truncation.
const CONCURRENT: usize = 16;

/// The log in a checkpoint location. Any number of processes may open it.
#[derive(Clone, Debug)]
pub struct ObjectLog {
    store: CheckpointStore,
}

impl ObjectLog {
    /// The log of a location.
    #[must_use]
    pub fn new(store: CheckpointStore) -> Self {
        Self { store }
    }
}

#[async_trait]
impl LogStore for ObjectLog {
    async fn append(&self, slot: u64, record: &[u8]) -> Result<Append, StateError> {
        Ok(match self.store.create(&numbered(FOLDER, slot), record).await? {
            Create::Created | Create::AlreadyOurs => Append::Appended,
            Create::Exists { bytes, .. } if *bytes == *record => Append::Appended,
            Create::Exists { bytes, .. } => Append::Occupied(bytes),
        })
    }

    async fn read(&self, slot: u64) -> Result<Option<Bytes>, StateError> {
        self.store.get(&numbered(FOLDER, slot)).await
    }

    async fn scan(&self, from: u64) -> Result<Vec<LogEntry>, StateError> {
        let after = from.checked_sub(1).map(|slot| numbered(FOLDER, slot));
        let listed = self.store.list(FOLDER, after.as_deref()).await?;
        let slots = listed.into_iter().filter_map(|object| number_of(&object.path));
        let entries = futures::stream::iter(slots).map(|slot| async move {
            // `None`: truncated since the listing.
            Ok::<_, StateError>(self.read(slot).await?.map(|record| LogEntry { slot, record }))
        });
        let entries: Vec<Option<LogEntry>> = entries.buffered(CONCURRENT).try_collect().await?;
        Ok(entries.into_iter().flatten().collect())
    }

    async fn truncate_before(&self, slot: u64) -> Result<(), StateError> {
        let listed = self.store.list(FOLDER, None).await?;
        let old = listed.into_iter().filter(|object| number_of(&object.path).is_some_and(|found| found < slot));
        let deletions = futures::stream::iter(old).map(|object| async move { self.store.delete(&object.path).await });
        deletions.buffer_unordered(CONCURRENT).try_collect().await
    }
}
