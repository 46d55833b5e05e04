//! Restores the files of a snapshot into a new folder.
//!
//! The folder is filled under another name and renamed when everything in it is verified and synced: if it exists, it is
//! complete.
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use millstream_plan::ContentHash;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::upload::blocking;
use super::{FileRef, bundle, is_data, is_plain};
use crate::objects::{ByteStream, CheckpointStore, Failure};
use crate::{StateError, disk};

/// Chunks between the network and the disk.
const IN_FLIGHT: usize = 4;
const BLOCK: usize = 1 << 18;
/// In the name of a file that is being downloaded.
const PART: &str = ".part-";

/// Where the files came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Found on local disk and verified.
    pub local: usize,
    /// Taken from the checkpoint location.
    pub downloaded: usize,
    /// Their size.
    pub downloaded_bytes: u64,
}

/// Restores `files` into the new folder `into`. A file that one of the folders `caches` (snapshots taken or restored on this
/// machine) has under the same name is linked if its content hash is right; the others are downloaded and verified.
///
/// # Errors
/// [`StateError::Corrupt`] when an object is missing or damaged: this checkpoint cannot be restored.
pub async fn fetch(
    store: &CheckpointStore,
    files: &[FileRef],
    into: &Path,
    caches: &[PathBuf],
    concurrency: usize,
) -> Result<Fetched, StateError> {
    check(files)?;
    if into.exists() {
        return Err(StateError::io(into, io::Error::from(io::ErrorKind::AlreadyExists)));
    }
    let name = into.file_name().unwrap_or_default().to_string_lossy();
    let part = into.with_file_name(format!("{name}.part"));
    match fs::remove_dir_all(&part) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(StateError::io(&part, e)),
        _ => disk::create_dirs(&part)?,
    }
    let restores = files.iter().map(|file| restore(store, file, &part, caches));
    let sources: Vec<Source> =
        futures::stream::iter(restores).buffer_unordered(concurrency.max(1)).try_collect().await?;
    let (dir, into) = (part, into.to_owned());
    blocking(move || {
        unpack(&dir)?;
        disk::sync_dir(&dir)?;
        fs::rename(&dir, &into).map_err(|e| StateError::io(&into, e))?;
        disk::sync_parent(&into)
    })
    .await?;
    let mut fetched = Fetched::default();
    for source in sources {
        match source {
            Source::Local => fetched.local += 1,
            Source::Downloaded(bytes) => {
                fetched.downloaded += 1;
                fetched.downloaded_bytes += bytes;
            }
        }
    }
    Ok(fetched)
}

enum Source {
    Local,
    Downloaded(u64),
}

fn check(files: &[FileRef]) -> Result<(), StateError> {
    let mut names = HashSet::new();
    for FileRef { name, .. } in files {
        let known = name == bundle::NAME || is_data(name);
        if !known || !is_plain(name) || !names.insert(name) {
            return Err(StateError::corrupt("a checkpoint manifest", format!("it names the file {name:?}")));
        }
    }
    if !names.iter().any(|name| *name == bundle::NAME) {
        return Err(StateError::corrupt("a checkpoint manifest", "it names no bundle"));
    }
    Ok(())
}

async fn restore(
    store: &CheckpointStore,
    file: &FileRef,
    dir: &Path,
    caches: &[PathBuf],
) -> Result<Source, StateError> {
    let target = dir.join(&file.name);
    let (wanted, caches, to) = (file.clone(), caches.to_vec(), target.clone());
    if blocking(move || from_caches(&wanted, &caches, &to)).await? {
        return Ok(Source::Local);
    }
    let download = store.read_content(file.hash, file.bytes, |stream| {
        let part = dir.join(format!("{}{PART}{:x}", file.name, rand::random::<u64>()));
        async move {
            let saved = save(stream, part.clone()).await?;
            Ok((part, saved))
        }
    });
    let (part, found) = download.await?;
    if found != file.hash {
        let why = format!("its content has the hash {found}");
        return Err(StateError::corrupt(store.describe(&format!("state/{}", file.hash)), why));
    }
    fs::rename(&part, &target).map_err(|e| StateError::io(&target, e))?;
    Ok(Source::Downloaded(file.bytes))
}

/// Links the file if a cache has it undamaged.
fn from_caches(file: &FileRef, caches: &[PathBuf], target: &Path) -> Result<bool, StateError> {
    for cache in caches {
        let path = cache.join(&file.name);
        if !fs::metadata(&path).is_ok_and(|meta| meta.is_file() && meta.len() == file.bytes) {
            continue;
        }
        match hash_file(&path) {
            Ok(hash) if hash == file.hash => {}
            Ok(_) => {
                // Names repeat between the lives of a store, so this may be another file; or it is damaged.
                tracing::info!(path = %path.display(), "a local file is not the checkpoint's, it is fetched");
                continue;
            }
            Err(e) => {
                tracing::warn!(path = %path.display(), error = %e, "a local file cannot be read, it is fetched");
                continue;
            }
        }
        if fs::hard_link(&path, target).is_err() {
            // Another file system.
            fs::copy(&path, target).map_err(|e| StateError::io(target, e))?;
        }
        File::open(target).and_then(|f| f.sync_all()).map_err(|e| StateError::io(target, e))?;
        return Ok(true);
    }
    Ok(false)
}

fn hash_file(path: &Path) -> io::Result<ContentHash> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut block = vec![0; BLOCK];
    loop {
        match file.read(&mut block)? {
            0 => return Ok(ContentHash(hash.finalize().into())),
            read => hash.update(&block[..read]),
        }
    }
}

/// Writes a stream to a new file, synced; returns the hash of what was written.
async fn save(mut stream: ByteStream, path: PathBuf) -> Result<ContentHash, Failure> {
    let (chunks, mut received) = mpsc::channel::<Bytes>(IN_FLIGHT);
    let writer = tokio::spawn(blocking(move || {
        let mut write = || {
            let mut file = File::create_new(&path)?;
            let mut hash = Sha256::new();
            while let Some(chunk) = received.blocking_recv() {
                hash.update(&chunk);
                file.write_all(&chunk)?;
            }
            file.sync_all()?;
            Ok(ContentHash(hash.finalize().into()))
        };
        write().map_err(|e| StateError::io(&path, e))
    }));
    let mut broken = None;
    while let Some(chunk) = stream.next().await {
        match chunk {
            Ok(chunk) => {
                if chunks.send(chunk).await.is_err() {
                    break; // the writer has failed, and says how
                }
            }
            Err(failure) => {
                broken = Some(failure);
                break;
            }
        }
    }
    drop(chunks);
    let written = writer.await.map_err(|e| Failure::Unavailable(e.to_string()))?;
    match broken {
        Some(failure) => Err(failure),
        None => written.map_err(Failure::Disk),
    }
}

/// Replaces the bundle by the files in it, and removes what downloads that were begun anew have left.
fn unpack(dir: &Path) -> Result<(), StateError> {
    for entry in fs::read_dir(dir).map_err(|e| StateError::io(dir, e))? {
        let path = entry.map_err(|e| StateError::io(dir, e))?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().contains(PART)) {
            fs::remove_file(&path).map_err(|e| StateError::io(&path, e))?;
        }
    }
    let path = dir.join(bundle::NAME);
    let packed = fs::read(&path).map_err(|e| StateError::io(&path, e))?;
    let files = bundle::unpack(&packed).map_err(|why| StateError::corrupt(path.display().to_string(), why))?;
    for (name, content) in files {
        disk::write_new(&dir.join(name), content)?;
    }
    fs::remove_file(&path).map_err(|e| StateError::io(&path, e))
}
