//! The state table of one task: a RocksDB of small footprint, without a write-ahead log.
//!
//! What is applied is durable only in a [`Snapshot`]. After a crash the folder of an open store is worthless: the task
//! restores the last checkpoint ([`crate::backup::fetch`]) into a new folder and opens that. A snapshot is a folder of hard
//! links to files that are never changed, so it is cheap and can be uploaded while the store goes on.
//!
//! Keys are opaque bytes in byte order; [`crate::keys`] has the form that operators use. Values are opaque.
//! Calls block: make them from a task's thread, and in sorted batches ([`TaskStore::apply`], [`TaskStore::get_many`]).
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use millstream_plan::{Digest, DigestBuilder};
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{DB, PrefixRange, ReadOptions, WriteBatch, WriteOptions};

use crate::{StateError, disk, rocks};

/// A write batch is handed over at this size, so that `apply` of any size needs little memory.
const BATCH: usize = 1 << 20;

/// The state of one task.
pub struct TaskStore {
    db: DB,
    dir: PathBuf,
}

/// The immutable files of a store at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Where they are. Whoever took the snapshot deletes the folder when it is no longer wanted.
    pub dir: PathBuf,
    /// Its files, by name.
    pub files: Vec<LocalFile>,
}

/// A file of a [`Snapshot`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalFile {
    /// Name inside the folder.
    pub name: String,
    /// Size.
    pub bytes: u64,
}

impl TaskStore {
    /// A new, empty store in a folder that does not exist yet or is empty.
    pub fn create(dir: &Path) -> Result<Self, StateError> {
        disk::create_dirs(dir)?;
        let mut entries = fs::read_dir(dir).map_err(|e| StateError::io(dir, e))?;
        if entries.next().is_some() {
            return Err(StateError::io(dir, io::Error::new(io::ErrorKind::AlreadyExists, "the folder is not empty")));
        }
        Self::open_with(dir, true)
    }

    /// Opens a restored store.
    pub fn open(dir: &Path) -> Result<Self, StateError> {
        Self::open_with(dir, false)
    }

    fn open_with(dir: &Path, create: bool) -> Result<Self, StateError> {
        let mut options = rocks::options()?;
        options.create_if_missing(create);
        options.set_error_if_exists(create);
        let db = DB::open(&options, dir).map_err(|e| StateError::rocks(dir, e))?;
        Ok(Self { db, dir: dir.to_owned() })
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        self.db.get(key).map_err(|e| self.failed(e))
    }

    /// The values of many keys, in their order; fast when they are sorted.
    pub fn get_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Vec<u8>>>, StateError> {
        self.db.multi_get(keys).into_iter().collect::<Result<_, _>>().map_err(|e| self.failed(e))
    }

    /// Calls `visit` with every key that starts with `prefix`, in order, and its value. Stops at the first error.
    pub fn scan_prefix<E: From<StateError>>(
        &self,
        prefix: &[u8],
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut options = ReadOptions::default();
        options.set_iterate_range(PrefixRange(prefix));
        options.fill_cache(false);
        let mut entries = self.db.raw_iterator_opt(options);
        entries.seek_to_first();
        while let Some((key, value)) = entries.item() {
            visit(key, value)?;
            entries.next();
        }
        entries.status().map_err(|e| E::from(self.failed(e)))
    }

    /// Writes puts (`Some`) and deletes (`None`); fast when sorted by key. Not atomic, and not durable before the next
    /// snapshot: after an error the store is to be dropped and the last checkpoint restored.
    pub fn apply<K, V>(&self, changes: impl IntoIterator<Item = (K, Option<V>)>) -> Result<(), StateError>
    where
        K: AsRef<[u8]>,
        V: AsRef<[u8]>,
    {
        let mut unlogged = WriteOptions::default();
        unlogged.disable_wal(true);
        let write = |batch: WriteBatch| self.db.write_opt(batch, &unlogged).map_err(|e| self.failed(e));
        let mut batch = WriteBatch::default();
        for (key, value) in changes {
            match value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            }
            if batch.size_in_bytes() >= BATCH {
                write(std::mem::take(&mut batch))?;
            }
        }
        write(batch)
    }

    /// Makes everything applied so far durable in a new folder, whose parent must exist on the same file system.
    pub fn snapshot(&self, dir: &Path) -> Result<Snapshot, StateError> {
        self.db.flush().map_err(|e| self.failed(e))?;
        let failed = |e| StateError::rocks(dir, e);
        Checkpoint::new(&self.db).and_then(|c| c.create_checkpoint(dir)).map_err(failed)?;
        disk::sync_dir(dir)?;
        disk::sync_parent(dir)?;
        Snapshot::read(dir)
    }

    /// Digest of all keys and values in order of keys. Reads everything.
    pub fn digest(&self) -> Result<Digest, StateError> {
        let mut digest = DigestBuilder::default();
        self.scan_prefix::<StateError>(&[], |key, value| {
            digest.add(key);
            digest.add(value);
            Ok(())
        })?;
        Ok(digest.finish())
    }

    /// Size of the files on disk.
    pub fn bytes_on_disk(&self) -> Result<u64, StateError> {
        let files = self.db.live_files().map_err(|e| self.failed(e))?;
        Ok(files.iter().map(|file| file.size as u64).sum())
    }

    fn failed(&self, error: rocksdb::Error) -> StateError {
        StateError::rocks(&self.dir, error)
    }
}

impl Snapshot {
    fn read(dir: &Path) -> Result<Self, StateError> {
        let failed = |e| StateError::io(dir, e);
        let mut files = Vec::new();
        for entry in fs::read_dir(dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().into_string().map_err(|name| {
                StateError::corrupt(dir.display().to_string(), format!("{} is no file of RocksDB", name.display()))
            })?;
            let bytes = entry.metadata().map_err(|e| StateError::io(&entry.path(), e))?.len();
            files.push(LocalFile { name, bytes });
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { dir: dir.to_owned(), files })
    }
}
