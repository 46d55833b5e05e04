//! Durable steps on the local disk. A file is durable when its content is synced *and* the folder that names it is.
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::StateError;

/// Creates `dir` and its parents; every new entry is synced.
pub fn create_dirs(dir: &Path) -> Result<(), StateError> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        create_dirs(parent)?;
    }
    match fs::create_dir(dir) {
        Ok(()) => sync_parent(dir),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(StateError::io(dir, e)),
    }
}

/// Syncs the entries of a folder.
pub fn sync_dir(dir: &Path) -> Result<(), StateError> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(|e| StateError::io(dir, e))
}

/// Syncs the folder that holds `path`.
pub fn sync_parent(path: &Path) -> Result<(), StateError> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => sync_dir(Path::new(".")),
        Some(parent) => sync_dir(parent),
        None => Ok(()),
    }
}

/// Writes a new file and syncs its content (not the folder). Refuses to overwrite.
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<(), StateError> {
    let write = || {
        let mut file = File::create_new(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|e| StateError::io(path, e))
}
