//! Snapshots of a task's store to and from the checkpoint location.
//!
//! Vocabulary: a **data file** is one of RocksDB's sorted tables or blob files, immutable and named once in the life of a database;
//! the **bundle** is one object with the few other, small files of a snapshot (`CURRENT`, `MANIFEST-…`, `OPTIONS-…`). Every object
//! is stored under the SHA-256 of its bytes. A data file that an earlier snapshot of the same open database had is neither read
//! nor sent again.
//!
//! The bundle starts with random bytes. Without them the file `CURRENT` would have equal bytes in many snapshots, so an
//! object that is garbage could become needed again while it is being deleted ([`crate::collect`] relies on this
//! never happening).
mod bundle;
mod fetch;
mod upload;

use millstream_plan::ContentHash;
use serde::{Deserialize, Serialize};

pub use fetch::{Fetched, fetch};
pub use upload::{Upload, Uploader};

/// A stored file of a snapshot, as a manifest names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRef {
    /// Name inside the snapshot's folder.
    pub name: String,
    /// Where and what it is.
    pub hash: ContentHash,
    /// Size.
    pub bytes: u64,
}

/// Files that are never written again, each an object of its own: sorted tables, and blobs with the large values.
fn is_data(name: &str) -> bool {
    name.ends_with(".sst") || name.ends_with(".blob")
}

/// Whether a name is safe inside a folder: it may come from a damaged or hostile manifest.
fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('.')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}
