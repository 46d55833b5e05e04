//! A folder of the local file system.
//!
//! A file is written to `.staging/` below the folder, synced, and appears under its name by a hard link, which fails if the name
//! is taken; then the folders are synced. A crash in between leaves a file in `.staging/`, which no reader looks at.
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use bytes::Bytes;

use super::folder::{Created, FileInfo, Folder, OpenFile, is_hidden};
use crate::ConnectorError;

const STAGING: &str = ".staging";

/// Makes the names of staged files of this process different.
static STAGED: AtomicU64 = AtomicU64::new(0);

/// A local folder; it need not exist before it is written to.
#[derive(Debug)]
pub struct LocalFolder {
    root: PathBuf,
}

impl LocalFolder {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn staging(&self) -> PathBuf {
        self.root.join(STAGING)
    }

    fn walk(&self, folder: &Path, below: &str, found: &mut Vec<FileInfo>) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            // Names that are no UTF-8 cannot stand in a plan.
            let Ok(name) = entry.file_name().into_string() else { continue };
            if is_hidden(&name) {
                continue;
            }
            let path = if below.is_empty() { name } else { format!("{below}/{name}") };
            // Follows links. A file that is gone by now is not listed.
            match fs::metadata(entry.path()) {
                Ok(meta) if meta.is_dir() => self.walk(&entry.path(), &path, found)?,
                Ok(meta) if meta.is_file() => found.push(info(path, &meta)),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Writes and syncs a file in the staging folder.
    fn stage(&self, name: &str, bytes: &[u8]) -> io::Result<PathBuf> {
        create_dirs(&self.staging())?;
        loop {
            let number = STAGED.fetch_add(1, Ordering::Relaxed);
            let staged = self.staging().join(format!("{name}.{}-{number}", std::process::id()));
            match OpenOptions::new().write(true).create_new(true).open(&staged) {
                Ok(mut file) => {
                    file.write_all(bytes)?;
                    file.sync_all()?;
                    return Ok(staged);
                }
                // Left over by a process with the same number.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
            }
        }
    }

    fn link(&self, path: &str, bytes: &[u8]) -> io::Result<Created> {
        let target = self.root.join(path);
        let name = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let staged = self.stage(&name, bytes)?;
        let parent = target.parent().unwrap_or(&self.root);
        let linked = create_dirs(parent).and_then(|()| fs::hard_link(&staged, &target));
        // What stays behind is discarded by the next owner.
        drop(fs::remove_file(&staged));
        let created = match linked {
            Ok(()) => Created::New,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Created::Exists,
            Err(e) => return Err(e),
        };
        // Also for a file that another owner linked: the caller may count on it from now on.
        File::open(parent)?.sync_all()?;
        Ok(created)
    }

    fn failed(&self, doing: &str, path: &str, e: &io::Error) -> ConnectorError {
        let message = format!("cannot {doing} {}: {e}", self.name_of(path));
        match e.kind() {
            io::ErrorKind::NotFound => ConnectorError::user(message, "create the folder, or correct 'path'"),
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                ConnectorError::user(message, "give a folder that this user may use")
            }
            io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => {
                ConnectorError::user(message, "give the path of a folder")
            }
            io::ErrorKind::Unsupported => {
                ConnectorError::user(message, "use a file system with hard links, such as ext4 or xfs")
            }
            _ => ConnectorError::Retry(message),
        }
    }
}

impl Folder for LocalFolder {
    fn list(&self) -> Result<Vec<FileInfo>, ConnectorError> {
        let mut found = Vec::new();
        self.walk(&self.root, "", &mut found).map_err(|e| self.failed("list", "", &e))?;
        Ok(found)
    }

    fn check_readable(&self) -> Result<(), ConnectorError> {
        fs::read_dir(&self.root).map(drop).map_err(|e| self.failed("list", "", &e))
    }

    fn open(&self, path: &str, tag: &str) -> Result<Arc<dyn OpenFile>, ConnectorError> {
        let name = self.name_of(path);
        let open = || {
            let file = File::open(self.root.join(path))?;
            let info = info(path.to_owned(), &file.metadata()?);
            io::Result::Ok((file, info))
        };
        let (file, info) = match open() {
            Ok(opened) => opened,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(changed(&name, "is gone")),
            Err(e) => return Err(self.failed("open", path, &e)),
        };
        if info.tag != tag {
            return Err(changed(&name, "has changed"));
        }
        Ok(Arc::new(LocalFile { name, file, info }))
    }

    fn create(&self, path: &str, bytes: &Bytes) -> Result<Created, ConnectorError> {
        self.link(path, bytes).map_err(|e| self.failed("write", path, &e))
    }

    fn read(&self, path: &str) -> Result<Option<Bytes>, ConnectorError> {
        match fs::read(self.root.join(path)) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(self.failed("read", path, &e)),
        }
    }

    fn check_writable(&self) -> Result<(), ConnectorError> {
        let probe = || {
            create_dirs(&self.root)?;
            let staged = self.stage("probe", b"")?;
            let linked = staged.with_extension("linked");
            let outcome = fs::hard_link(&staged, &linked);
            drop(fs::remove_file(&linked));
            drop(fs::remove_file(&staged));
            outcome
        };
        probe().map_err(|e| self.failed("write to", "", &e))
    }

    fn discard_unfinished(&self, name_prefix: &str) -> Result<(), ConnectorError> {
        let discard = || -> io::Result<()> {
            for entry in fs::read_dir(self.staging())? {
                let entry = entry?;
                if entry.file_name().to_string_lossy().starts_with(name_prefix) {
                    fs::remove_file(entry.path())?;
                }
            }
            Ok(())
        };
        match discard() {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(self.failed("clear", STAGING, &e)),
            _ => Ok(()),
        }
    }

    fn name_of(&self, path: &str) -> String {
        self.root.join(path).display().to_string().trim_end_matches('/').to_owned()
    }
}

struct LocalFile {
    name: String,
    file: File,
    info: FileInfo,
}

impl OpenFile for LocalFile {
    fn info(&self) -> &FileInfo {
        &self.info
    }

    fn read_at(&self, range: Range<u64>) -> Result<Bytes, ConnectorError> {
        let failed = |e: io::Error| ConnectorError::Retry(format!("cannot read {}: {e}", self.name));
        let mut bytes = vec![0; (range.end - range.start) as usize];
        match self.file.read_exact_at(&mut bytes, range.start) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(changed(&self.name, "has changed")),
            outcome => outcome.map_err(failed)?,
        }
        let now = info(String::new(), &self.file.metadata().map_err(failed)?);
        if now.tag != self.info.tag {
            return Err(changed(&self.name, "has changed"));
        }
        Ok(bytes.into())
    }
}

/// The error about a file that is no longer what was planned.
pub fn changed(name: &str, how: &str) -> ConnectorError {
    ConnectorError::user(
        format!("file {name} {how} since it was planned"),
        "files of a source must stay as they are until they are read; write them elsewhere and move them in",
    )
}

fn info(path: String, meta: &fs::Metadata) -> FileInfo {
    let modified = meta.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    FileInfo {
        path,
        bytes: meta.len(),
        modified_ms: modified.as_millis() as i64,
        tag: format!("{:x}-{:x}", meta.len(), modified.as_nanos()),
    }
}

/// Creates a folder and those above it, each durably.
fn create_dirs(folder: &Path) -> io::Result<()> {
    let Err(e) = fs::create_dir(folder) else {
        return match folder.parent().filter(|p| !p.as_os_str().is_empty()) {
            Some(parent) => File::open(parent)?.sync_all(),
            None => Ok(()),
        };
    };
    match (e.kind(), folder.parent()) {
        (io::ErrorKind::AlreadyExists, _) => Ok(()),
        (io::ErrorKind::NotFound, Some(parent)) if !parent.as_os_str().is_empty() => {
            create_dirs(parent)?;
            create_dirs(folder)
        }
        _ => Err(e),
    }
}
