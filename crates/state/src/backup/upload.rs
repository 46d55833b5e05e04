//! Sends the new files of a snapshot.
use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use millstream_plan::ContentHash;

use super::{FileRef, bundle, is_data};
use crate::objects::CheckpointStore;
use crate::task::Snapshot;
use crate::{StateError, disk};

/// What an upload did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upload {
    /// Everything that a restore needs, for the manifest.
    pub files: Vec<FileRef>,
    /// Objects that were sent.
    pub new_files: usize,
    /// Their size.
    pub new_bytes: u64,
}

/// Uploads the snapshots of **one opened** [`TaskStore`](crate::task::TaskStore): it remembers which data files are stored, by
/// name. A store opened again has names of its own, so it gets an uploader of its own.
pub struct Uploader {
    store: CheckpointStore,
    concurrency: usize,
    stored: Mutex<HashMap<String, Stored>>,
}

#[derive(Clone, Copy)]
struct Stored {
    hash: ContentHash,
    identity: Identity,
}

/// Tells a file from another one of the same name: hard links share all of it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Identity {
    inode: u64,
    bytes: u64,
    modified_ns: i64,
    modified_s: i64,
}

impl Identity {
    fn of(path: &Path) -> Result<Self, StateError> {
        let meta = fs::metadata(path).map_err(|e| StateError::io(path, e))?;
        Ok(Self { inode: meta.ino(), bytes: meta.len(), modified_ns: meta.mtime_nsec(), modified_s: meta.mtime() })
    }
}

impl Uploader {
    /// For a new, empty store. At most `concurrency` files are in memory and in flight; one has about 16 MiB.
    #[must_use]
    pub fn new(store: CheckpointStore, concurrency: usize) -> Self {
        Self { store, concurrency: concurrency.max(1), stored: Mutex::default() }
    }

    /// For a store that was fetched into `dir` from `files`, which a complete checkpoint names. Call it before the store is
    /// opened: it looks at the files.
    pub fn restored(
        store: CheckpointStore,
        concurrency: usize,
        dir: &Path,
        files: &[FileRef],
    ) -> Result<Self, StateError> {
        let mut stored = HashMap::new();
        for file in files.iter().filter(|file| is_data(&file.name)) {
            let identity = Identity::of(&dir.join(&file.name))?;
            stored.insert(file.name.clone(), Stored { hash: file.hash, identity });
        }
        Ok(Self { stored: Mutex::new(stored), ..Self::new(store, concurrency) })
    }

    /// Stores what is not stored yet. When it returns, every file named in the result is durable. After an error it
    /// may be called again with the same snapshot.
    pub async fn upload(&self, snapshot: &Snapshot) -> Result<Upload, StateError> {
        let data = snapshot.files.iter().filter(|file| is_data(&file.name));
        // Gathered first: a lazy stream of borrowing closures would keep this future from being `Send`.
        let uploads: Vec<_> = data.map(|file| self.data(file.name.clone(), snapshot.dir.join(&file.name))).collect();
        let uploads = futures::stream::iter(uploads).buffered(self.concurrency);
        let mut sent: Vec<(FileRef, bool)> = uploads.try_collect().await?;
        sent.push(self.bundle(snapshot).await?);

        let mut upload = Upload::default();
        for (file, new) in sent {
            upload.new_files += usize::from(new);
            upload.new_bytes += if new { file.bytes } else { 0 };
            upload.files.push(file);
        }
        let names: HashMap<_, _> = upload.files.iter().map(|file| (&file.name, file.hash)).collect();
        // What this snapshot lacks was compacted away and never comes back.
        self.stored().retain(|name, _| names.contains_key(name));
        Ok(upload)
    }

    async fn data(&self, name: String, path: PathBuf) -> Result<(FileRef, bool), StateError> {
        let identity = Identity::of(&path)?;
        let known = self.stored().get(&name).copied().filter(|known| known.identity == identity);
        if let Some(known) = known {
            return Ok((FileRef { name, hash: known.hash, bytes: identity.bytes }, false));
        }
        let read = move || {
            let content = fs::read(&path).map_err(|e| StateError::io(&path, e))?;
            Ok((ContentHash::of(&content), Bytes::from(content)))
        };
        let (hash, content) = blocking(read).await?;
        let bytes = content.len() as u64;
        let new = self.store.put_content(hash, content).await?;
        self.stored().insert(name.clone(), Stored { hash, identity });
        Ok((FileRef { name, hash, bytes }, new))
    }

    /// The bundle is kept beside the snapshot's files, so that a restore can be made from local disk alone.
    async fn bundle(&self, snapshot: &Snapshot) -> Result<(FileRef, bool), StateError> {
        let dir = snapshot.dir.clone();
        let others = snapshot.files.iter().map(|file| file.name.clone()).filter(|name| !is_data(name)).collect();
        let content = blocking(move || pack(&dir, others)).await?;
        let (hash, bytes) = (ContentHash::of(&content), content.len() as u64);
        let new = self.store.put_content(hash, content).await?;
        Ok((FileRef { name: bundle::NAME.to_owned(), hash, bytes }, new))
    }

    fn stored(&self) -> MutexGuard<'_, HashMap<String, Stored>> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pack(dir: &Path, names: Vec<String>) -> Result<Bytes, StateError> {
    let path = dir.join(bundle::NAME);
    match fs::read(&path) {
        Ok(made_before) => return Ok(made_before.into()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(StateError::io(&path, e)),
    }
    let mut files = Vec::new();
    for name in names {
        let file = dir.join(&name);
        let content = fs::read(&file).map_err(|e| StateError::io(&file, e))?;
        files.push((name, content));
    }
    let content = bundle::pack(rand::random(), &files)
        .map_err(|why| StateError::corrupt(format!("the snapshot {}", dir.display()), why))?;
    let part = dir.join(format!("{}.part-{:x}", bundle::NAME, rand::random::<u64>()));
    disk::write_new(&part, &content)?;
    fs::rename(&part, &path).map_err(|e| StateError::io(&path, e))?;
    disk::sync_dir(dir)?;
    Ok(content.into())
}

/// Runs blocking work beside the runtime.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StateError> + Send + 'static,
) -> Result<T, StateError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|e| Err(StateError::io(Path::new("a thread for file access"), io::Error::other(e))))
}
