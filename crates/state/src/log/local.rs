//! The log in a RocksDB of its own.
//!
//! Each append is one write to RocksDB's write-ahead log, synced before it returns. Recovery after a kill or a power cut
//! accepts an incomplete last write (it was never acknowledged) and refuses any other damage of the write-ahead log;
//! each record has its own checksum besides. A lock on the file `holder` keeps a second driver out for as long as the
//! first lives, frozen or not; the system drops it when the process ends, however it ends.
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use millstream_plan::DigestBuilder;
use rocksdb::{DB, DBRecoveryMode, Direction, IteratorMode, ReadOptions, WriteBatch, WriteOptions};

use super::{Append, LogEntry, LogStore};
use crate::{StateError, disk, rocks};

const CHECKSUM: usize = 16;
const HOLDER: &str = "holder";

/// The log on the local disk, held by one process at a time. Cheap to clone; the last clone closes it.
#[derive(Clone)]
pub struct LocalLog {
    inner: Arc<Inner>,
}

struct Inner {
    db: DB,
    dir: PathBuf,
    /// One appender at a time looks whether a slot is free and writes.
    appending: Mutex<()>,
    /// Held as long as the database is open: fields are dropped in this order.
    _holder: File,
}

impl LocalLog {
    /// Opens the log in a folder, creating it if absent.
    ///
    /// # Errors
    /// [`StateError::Fenced`] when another driver has it open; [`StateError::Corrupt`] when it is damaged.
    pub fn open(dir: &Path) -> Result<Self, StateError> {
        disk::create_dirs(dir)?;
        let holder = lock(dir)?;
        let mut options = rocks::options()?;
        options.create_if_missing(true);
        options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
        let db_dir = dir.join("db");
        let db = DB::open(&options, &db_dir).map_err(|e| StateError::rocks(&db_dir, e))?;
        disk::sync_dir(dir)?;
        Ok(Self { inner: Arc::new(Inner { db, dir: db_dir, appending: Mutex::new(()), _holder: holder }) })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, StateError> + Send + 'static,
    ) -> Result<T, StateError> {
        let inner = self.inner.clone();
        let done = tokio::task::spawn_blocking(move || work(&inner)).await;
        done.unwrap_or_else(|e| Err(StateError::io(&self.inner.dir, std::io::Error::other(e))))
    }
}

fn lock(dir: &Path) -> Result<File, StateError> {
    let path = dir.join(HOLDER);
    let failed = |e| StateError::io(&path, e);
    let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = open.map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {
            let write = |file: &mut File| {
                file.set_len(0)?;
                file.rewind()?;
                write!(file, "{}", std::process::id())
            };
            write(&mut file).map_err(failed)?;
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            file.read_to_string(&mut pid).map_err(failed)?;
            let pid = if pid.is_empty() { "unknown" } else { &pid };
            Err(StateError::Fenced {
                what: format!("the plan log in {}", dir.display()),
                holder: format!("another driver (pid {pid}); stop it first or use another folder"),
            })
        }
        Err(TryLockError::Error(e)) => Err(failed(e)),
    }
}

fn checksum(slot: u64, record: &[u8]) -> [u8; CHECKSUM] {
    let mut digest = DigestBuilder::default();
    digest.add(&slot.to_be_bytes());
    digest.add(record);
    digest.finish().0.to_be_bytes()
}

impl Inner {
    fn failed(&self, error: rocksdb::Error) -> StateError {
        StateError::rocks(&self.dir, error)
    }

    fn verify(&self, slot: u64, value: &[u8]) -> Result<Bytes, StateError> {
        match value.split_first_chunk::<CHECKSUM>() {
            Some((sum, record)) if *sum == checksum(slot, record) => Ok(Bytes::copy_from_slice(record)),
            _ => Err(StateError::corrupt(
                format!("slot {slot} of the plan log in {}", self.dir.display()),
                "its checksum does not match",
            )),
        }
    }

    fn read(&self, slot: u64) -> Result<Option<Bytes>, StateError> {
        let value = self.db.get_pinned(slot.to_be_bytes()).map_err(|e| self.failed(e))?;
        value.map(|value| self.verify(slot, &value)).transpose()
    }

    fn append(&self, slot: u64, record: &[u8]) -> Result<Append, StateError> {
        let _one = self.appending.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = self.read(slot)? {
            return Ok(if *found == *record { Append::Appended } else { Append::Occupied(found) });
        }
        let value = [&checksum(slot, record), record].concat();
        let mut durable = WriteOptions::default();
        durable.set_sync(true);
        self.db.put_opt(slot.to_be_bytes(), value, &durable).map_err(|e| self.failed(e))?;
        Ok(Append::Appended)
    }

    fn scan(&self, from: u64) -> Result<Vec<LogEntry>, StateError> {
        let start = from.to_be_bytes();
        let mut entries = Vec::new();
        // Read once, at a start.
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        for entry in self.db.iterator_opt(IteratorMode::From(&start, Direction::Forward), options) {
            let (key, value) = entry.map_err(|e| self.failed(e))?;
            let slot = <[u8; 8]>::try_from(&*key).map(u64::from_be_bytes).map_err(|_| {
                StateError::corrupt(format!("the plan log in {}", self.dir.display()), "a key is not a slot")
            })?;
            entries.push(LogEntry { slot, record: self.verify(slot, &value)? });
        }
        Ok(entries)
    }

    fn truncate_before(&self, slot: u64) -> Result<(), StateError> {
        let (first, end) = (0u64.to_be_bytes(), slot.to_be_bytes());
        let mut batch = WriteBatch::default();
        batch.delete_range(first, end);
        self.db.write(batch).map_err(|e| self.failed(e))?;
        // Whole files first, without rewriting them.
        self.db.delete_file_in_range(first, end).map_err(|e| self.failed(e))
    }
}

#[async_trait]
impl LogStore for LocalLog {
    async fn append(&self, slot: u64, record: &[u8]) -> Result<Append, StateError> {
        let record = record.to_vec();
        self.blocking(move |log| log.append(slot, &record)).await
    }

    async fn read(&self, slot: u64) -> Result<Option<Bytes>, StateError> {
        self.blocking(move |log| log.read(slot)).await
    }

    async fn scan(&self, from: u64) -> Result<Vec<LogEntry>, StateError> {
        self.blocking(move |log| log.scan(from)).await
    }

    async fn truncate_before(&self, slot: u64) -> Result<(), StateError> {
        self.blocking(move |log| log.truncate_before(slot)).await
    }
}
