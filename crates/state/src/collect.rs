//! Garbage collection of checkpoints: old manifests, and objects under `state/` that no manifest names.
//!
//! # Why nothing that is needed is deleted
//! An object is deleted only if (a) no manifest that stays names it, (b) the caller does not protect it, and (c) it is older
//! than the second newest manifest, by the store's own clock and a margin.
//! - A manifest that is being created may name objects that are new: uploaded after that checkpoint began, hence, as
//!   one checkpoint at a time is taken, after the manifest before it was written. (c) keeps them.
//! - It may also name objects uploaded for earlier checkpoints of the same tasks. Those are in the newest manifest, or
//!   were uploaded for a checkpoint that was never completed, hence later than the newest manifest: (a) and (c) keep them.
//! - **A file that was dropped never comes back**: an SST's bytes hold the identity of the database session that wrote it, and
//!   the bundle of a snapshot's other files starts with random bytes ([`crate::backup`]). So an object which no manifest
//!   names and which is old stays unnamed for ever, and a decision taken by a leader that was frozen and wakes up is
//!   still right.
//! - If a manifest that stays cannot be read, no object is deleted at all.
//!
//! Manifests go first, then objects: a crash in between leaves only garbage.
use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use futures::{StreamExt, TryStreamExt};
use millstream_plan::{ContentHash, Epoch};
use serde::de::IgnoredAny;

use crate::StateError;
use crate::manifest::Checkpoints;
use crate::objects::{CheckpointStore, ObjectInfo};

/// Requests in flight.
const CONCURRENT: usize = 16;

/// What a collection did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Manifests deleted.
    pub manifests: usize,
    /// Objects deleted.
    pub objects: usize,
    /// Their size.
    pub bytes: u64,
    /// Why no object was deleted, where that is not because there was none.
    pub held_back: Option<String>,
}

/// Deletes all manifests but the newest `keep` (at least two stay), then what nothing names. `protected` are hashes that tasks
/// have reported for the checkpoint in creation; `margin` covers differences between the clocks of the store's
/// machines (a minute is plenty).
pub async fn collect(
    store: &CheckpointStore,
    keep: usize,
    protected: &HashSet<ContentHash>,
    margin: Duration,
) -> Result<Collected, StateError> {
    // Objects before manifests: what appears in between is not in the list and stays.
    let objects = store.list("state", None).await?;
    let checkpoints = Checkpoints::new(store.clone());
    let manifests = checkpoints.listed().await?;
    let (dropped, kept) = manifests.split_at(manifests.len().saturating_sub(keep.max(2)));

    let mut collected = Collected::default();
    for (epoch, _) in dropped {
        checkpoints.delete(*epoch).await?;
        collected.manifests += 1;
    }
    let [.., (_, second_newest), _] = kept else {
        collected.held_back = Some("there are fewer than two checkpoints".to_owned());
        return Ok(collected);
    };
    let named = match named_by(&checkpoints, kept.iter().map(|(epoch, _)| *epoch)).await? {
        Ok(named) => named,
        Err(damaged) => {
            collected.held_back = Some(damaged.to_string());
            return Ok(collected);
        }
    };
    let before = second_newest.modified.checked_sub(margin).unwrap_or(SystemTime::UNIX_EPOCH);
    let garbage = objects.iter().filter(|object| object.modified < before).filter(|object| {
        // A name that is no hash is not ours.
        hash_of(object).is_some_and(|hash| !named.contains(&hash) && !protected.contains(&hash))
    });
    // Gathered first: a lazy stream of borrowing closures would keep this future from being `Send`.
    let deletions: Vec<_> = garbage.map(|object| delete(store, object)).collect();
    let mut deletions = futures::stream::iter(deletions).buffer_unordered(CONCURRENT);
    while let Some(bytes) = deletions.try_next().await? {
        collected.objects += 1;
        collected.bytes += bytes;
    }
    Ok(collected)
}

async fn delete(store: &CheckpointStore, object: &ObjectInfo) -> Result<u64, StateError> {
    store.delete(&object.path).await?;
    Ok(object.bytes)
}

/// All hashes that these manifests name, or the damage that keeps one from being read.
async fn named_by(
    checkpoints: &Checkpoints,
    epochs: impl Iterator<Item = Epoch>,
) -> Result<Result<HashSet<ContentHash>, StateError>, StateError> {
    let mut named = HashSet::new();
    for epoch in epochs {
        match checkpoints.get::<IgnoredAny>(epoch).await {
            Ok(Some(manifest)) => named.extend(manifest.tasks.iter().flat_map(|t| &t.files).map(|f| f.hash)),
            Ok(None) => {} // deleted meanwhile by another collector, which kept newer ones
            Err(damaged @ StateError::Corrupt { .. }) => return Ok(Err(damaged)),
            Err(e) => return Err(e),
        }
    }
    Ok(Ok(named))
}

fn hash_of(object: &ObjectInfo) -> Option<ContentHash> {
    object.path.rsplit_once('/')?.1.parse().ok()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
