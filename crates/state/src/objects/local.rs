//! A folder as a store. An object is written to `.staging/`, synced, and appears under its name by a hard link, which fails
//! if the name is taken; then the folder is synced. A crash in between leaves a file in `.staging/`, nothing else.
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;

use super::backend::{Backend, ByteStream, Failure, ObjectInfo};
use crate::StateError;
use crate::disk;

const STAGING: &str = ".staging";
/// Staged files this old belong to nobody who is alive; should a writer sleep that long, its link fails and is tried again.
const ABANDONED: Duration = Duration::from_secs(3600);

/// Objects in a folder of the local file system, which must have hard links.
#[derive(Clone, Debug)]
pub struct LocalFolder {
    root: Arc<Path>,
}

impl LocalFolder {
    /// Opens a folder, creating it if need be.
    pub fn open(root: &Path) -> Result<Self, StateError> {
        let staging = root.join(STAGING);
        disk::create_dirs(&staging)?;
        let entries = fs::read_dir(&staging).map_err(|e| StateError::io(&staging, e))?;
        for entry in entries.flatten() {
            let age = entry.metadata().and_then(|m| m.modified()).map(|at| at.elapsed().unwrap_or_default());
            if age.is_ok_and(|age| age > ABANDONED)
                && let Err(e) = fs::remove_file(entry.path())
            {
                tracing::debug!(path = %entry.path().display(), error = %e, "cannot remove an abandoned file");
            }
        }
        Ok(Self { root: root.into() })
    }

    fn create(&self, path: &str, bytes: &[u8]) -> Result<(), Failure> {
        let target = self.root.join(path);
        let staged = self.root.join(STAGING).join(format!("{:032x}", rand::random::<u128>()));
        let linked = disk::write_new(&staged, bytes).map_err(Failure::Disk).and_then(|()| link(&staged, &target));
        if let Err(e) = fs::remove_file(&staged) {
            tracing::debug!(path = %staged.display(), error = %e, "cannot remove a staged file");
        }
        if matches!(linked, Ok(()) | Err(Failure::Exists)) {
            // A loser syncs too: it will tell its caller what the winner wrote, and that must not vanish.
            disk::sync_parent(&target).map_err(Failure::Disk)?;
        }
        linked
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(Self) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let folder = self.clone();
        let done = tokio::task::spawn_blocking(move || work(folder)).await;
        done.unwrap_or_else(|e| Err(Failure::Unavailable(format!("the thread for file access failed: {e}"))))
    }
}

fn link(staged: &Path, target: &Path) -> Result<(), Failure> {
    let mut linked = fs::hard_link(staged, target);
    if linked.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
        && let Some(folder) = target.parent()
    {
        disk::create_dirs(folder).map_err(Failure::Disk)?;
        linked = fs::hard_link(staged, target);
    }
    linked.map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists => Failure::Exists,
        io::ErrorKind::NotFound => Failure::Unavailable(format!("the staged file of {} is gone", target.display())),
        // What file systems without hard links say.
        io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied => Failure::Refused {
            message: format!("cannot make a hard link at {}: {e}", target.display()),
            hint: "use a folder on a file system with hard links, such as ext4 or xfs".to_owned(),
        },
        _ => Failure::Disk(StateError::io(target, e)),
    })
}

fn absent(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn info(path: String, file: &Path, meta: &fs::Metadata) -> Result<ObjectInfo, Failure> {
    let modified: SystemTime = meta.modified().map_err(|e| Failure::Disk(StateError::io(file, e)))?;
    Ok(ObjectInfo { path, bytes: meta.len(), modified })
}

#[async_trait]
impl Backend for LocalFolder {
    async fn put_new(&self, path: &str, bytes: Bytes) -> Result<(), Failure> {
        let path = path.to_owned();
        self.blocking(move |folder| folder.create(&path, &bytes)).await
    }

    async fn read(&self, path: &str) -> Result<Option<ByteStream>, Failure> {
        let path = self.root.join(path);
        let bytes = self.blocking(move |_| match fs::read(&path) {
            Ok(bytes) => Ok(Some(Bytes::from(bytes))),
            Err(e) if absent(&e) => Ok(None),
            Err(e) => Err(Failure::Disk(StateError::io(&path, e))),
        });
        Ok(bytes.await?.map(|bytes| futures::stream::iter([Ok(bytes)]).boxed()))
    }

    async fn head(&self, path: &str) -> Result<Option<ObjectInfo>, Failure> {
        let (file, path): (PathBuf, _) = (self.root.join(path), path.to_owned());
        self.blocking(move |_| match fs::metadata(&file) {
            Ok(meta) => info(path, &file, &meta).map(Some),
            Err(e) if absent(&e) => Ok(None),
            Err(e) => Err(Failure::Disk(StateError::io(&file, e))),
        })
        .await
    }

    async fn list(&self, folder: &str, after: Option<&str>) -> Result<Vec<ObjectInfo>, Failure> {
        let (dir, folder, after) = (self.root.join(folder), folder.to_owned(), after.map(str::to_owned));
        self.blocking(move |_| {
            let failed = |e| Failure::Disk(StateError::io(&dir, e));
            let entries = match fs::read_dir(&dir) {
                Ok(entries) => entries,
                Err(e) if absent(&e) => return Ok(Vec::new()),
                Err(e) => return Err(failed(e)),
            };
            let mut found = Vec::new();
            for entry in entries {
                let entry = entry.map_err(failed)?;
                let Ok(name) = entry.file_name().into_string() else { continue };
                let path = format!("{folder}/{name}");
                if after.as_ref().is_some_and(|after| path <= *after) {
                    continue;
                }
                match entry.metadata() {
                    Ok(meta) if meta.is_file() => found.push(info(path, &entry.path(), &meta)?),
                    Ok(_) => {}
                    Err(e) if absent(&e) => {} // deleted since
                    Err(e) => return Err(failed(e)),
                }
            }
            found.sort_by(|a, b| a.path.cmp(&b.path));
            Ok(found)
        })
        .await
    }

    async fn delete(&self, path: &str) -> Result<(), Failure> {
        let path = self.root.join(path);
        self.blocking(move |_| match fs::remove_file(&path) {
            Ok(()) => Ok(()),
            Err(e) if absent(&e) => Ok(()),
            Err(e) => Err(Failure::Disk(StateError::io(&path, e))),
        })
        .await
    }
}
