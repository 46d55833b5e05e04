//! A folder of files on the local disk or in a bucket.
use std::fmt;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use millstream_plan::options::Resolved;

use super::local::LocalFolder;
use super::options::s3_options;
use super::s3::{S3Folder, S3Options};
use crate::ConnectorError;

/// A file in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// Path below the folder, with `/`.
    pub path: String,
    pub bytes: u64,
    /// Milliseconds since 1970 UTC.
    pub modified_ms: i64,
    /// Changes with the content: the ETag, or size and time of change.
    pub tag: String,
}

/// Outcome of [`Folder::create`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// The file is there, complete and durable.
    New,
    /// A file of this name was there already; it is as it was.
    Exists,
}

/// A folder. Every operation is tried once and blocks for a bounded time.
///
/// Errors are `User` for what will not change by itself (missing bucket, denied access), `Retry` for the rest.
pub trait Folder: fmt::Debug + Send + Sync {
    /// All files below it, at any depth. Names that begin with `_` or `.` are left out, folders of such names with all they hold.
    /// A file is listed only when it is complete.
    fn list(&self) -> Result<Vec<FileInfo>, ConnectorError>;

    /// Checks that the folder is there and may be listed.
    fn check_readable(&self) -> Result<(), ConnectorError>;

    /// Opens a file that must still have this tag; `User` if it has another one or is gone.
    fn open(&self, path: &str, tag: &str) -> Result<Arc<dyn OpenFile>, ConnectorError>;

    /// Writes a file at once or not at all; never replaces one.
    fn create(&self, path: &str, bytes: &Bytes) -> Result<Created, ConnectorError>;

    /// All of a file, or `None` if there is none.
    fn read(&self, path: &str) -> Result<Option<Bytes>, ConnectorError>;

    /// Checks that files can be created here and that [`create`](Self::create) never replaces one.
    fn check_writable(&self) -> Result<(), ConnectorError>;

    /// Removes what earlier owners of files with this prefix of their names left unfinished, so that they cannot finish it.
    fn discard_unfinished(&self, name_prefix: &str) -> Result<(), ConnectorError>;

    /// The full name of a file, for people.
    fn name_of(&self, path: &str) -> String;
}

/// A file that is being read.
pub trait OpenFile: Send + Sync {
    fn info(&self) -> &FileInfo;

    /// Bytes of a range that lies inside the file. `User` if the file has changed since it was opened.
    fn read_at(&self, range: Range<u64>) -> Result<Bytes, ConnectorError>;
}

/// The folder that the option `path` names.
pub fn folder(table: &str, options: &Resolved) -> Result<Arc<dyn Folder>, ConnectorError> {
    match options.text("path") {
        Some(path) if !path.trim().is_empty() => at(path, &s3_options(options)),
        _ => Err(ConnectorError::user(
            format!("table '{table}': option 'path' is missing"),
            "add 'path' = '/folder' or 'path' = 's3://bucket/prefix'",
        )),
    }
}

/// The folder at `location`.
pub fn at(location: &str, s3: &S3Options) -> Result<Arc<dyn Folder>, ConnectorError> {
    let location = location.trim();
    let local = |path: &str| -> Arc<dyn Folder> { Arc::new(LocalFolder::new(path)) };
    match location.split_once("://") {
        None => Ok(local(location)),
        Some(("file", rest)) if rest.starts_with('/') => Ok(local(rest)),
        Some(("s3" | "s3a", rest)) => {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            Ok(Arc::new(S3Folder::new(bucket, prefix.trim_matches('/'), s3)?))
        }
        Some(_) => Err(ConnectorError::user(
            format!("'path' = '{location}' is no folder that can be used"),
            "write s3://bucket/prefix, file:///folder, or a local path",
        )),
    }
}

/// True for names that readers of a folder leave out.
pub fn is_hidden(name: &str) -> bool {
    name.starts_with(['_', '.'])
}

/// How long an operation is tried before the caller hears of it.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    pub limit: Duration,
    pub first_pause: Duration,
    pub longest_pause: Duration,
}

/// Longer than a restart of the other side takes.
pub const PATIENT: Patience = Patience {
    limit: Duration::from_secs(90),
    first_pause: Duration::from_millis(100),
    longest_pause: Duration::from_secs(3),
};

impl Patience {
    /// Tries again while the answer is `Retry` and the limit is not reached.
    pub fn retry<T>(self, mut attempt: impl FnMut() -> Result<T, ConnectorError>) -> Result<T, ConnectorError> {
        let started = Instant::now();
        let mut pause = self.first_pause;
        loop {
            match attempt() {
                Err(ConnectorError::Retry(cause)) if started.elapsed() + pause < self.limit => {
                    tracing::warn!(cause, pause_ms = pause.as_millis() as u64, "trying again");
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(self.longest_pause);
                }
                outcome => return outcome,
            }
        }
    }
}

/// Bytes fetched at once by [`Sequential`].
const CHUNK: u64 = 4 << 20;

/// Reads an open file from its start to its end, patiently.
pub struct Sequential {
    file: Arc<dyn OpenFile>,
    at: u64,
    chunk: Bytes,
    failure: Failure,
}

/// Why a [`Sequential`] could not go on: whatever reads through it may make something else of its [`io::Error`].
#[derive(Clone, Debug, Default)]
pub struct Failure(Arc<Mutex<Option<ConnectorError>>>);

impl Failure {
    /// The error, if there was one.
    pub fn take(&self) -> Option<ConnectorError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Sequential {
    pub fn new(file: Arc<dyn OpenFile>) -> Self {
        Self { file, at: 0, chunk: Bytes::new(), failure: Failure::default() }
    }

    pub fn failure(&self) -> Failure {
        self.failure.clone()
    }
}

impl Read for Sequential {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = self.file.info().bytes;
        if self.chunk.is_empty() && self.at < size {
            let range = self.at..size.min(self.at + CHUNK);
            self.chunk = PATIENT.retry(|| self.file.read_at(range.clone())).map_err(|e| {
                let message = e.to_string();
                *self.failure.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
                io::Error::other(message)
            })?;
            self.at = range.end;
        }
        let n = self.chunk.len().min(buffer.len());
        buffer[..n].copy_from_slice(&self.chunk.split_to(n));
        Ok(n)
    }
}
