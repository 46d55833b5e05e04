//! What [`CheckpointStore`](super::CheckpointStore) needs of a store: five operations, each tried once. Retrying, looking
//! after lost replies and checksums are the store's business, so that they are the same for all backends.
use std::fmt;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use crate::StateError;

/// The bytes of an object as they arrive.
pub type ByteStream = BoxStream<'static, Result<Bytes, Failure>>;

/// An object in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Path relative to the location.
    pub path: String,
    /// Size of the object.
    pub bytes: u64,
    /// When it was created, by the store's clock (S3: in whole seconds).
    pub modified: SystemTime,
}

/// Why one try failed.
#[derive(Debug)]
pub enum Failure {
    /// The PUT was refused: an object exists (412), or another PUT of the same path is in flight (409).
    Exists,
    /// Timeout, connection lost, 5xx, throttled. A write may have taken effect, or may do so later.
    Unavailable(String),
    /// The store will keep saying no: missing bucket, access denied, wrong region. Names the bucket and endpoint.
    Refused {
        /// The cause.
        message: String,
        /// What to change.
        hint: String,
    },
    /// The local disk failed.
    Disk(StateError),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists => f.write_str("another write of the same object is in flight"),
            Self::Unavailable(cause) => f.write_str(cause),
            Self::Refused { message, .. } => f.write_str(message),
            Self::Disk(error) => error.fmt(f),
        }
    }
}

/// One store under one prefix. Paths are relative, of the form `folder/name`, with `[A-Za-z0-9._-]` only.
#[async_trait]
pub trait Backend: fmt::Debug + Send + Sync + 'static {
    /// Creates an object atomically and durably; never replaces one.
    async fn put_new(&self, path: &str, bytes: Bytes) -> Result<(), Failure>;

    /// Reads an object; `None` when there is none.
    async fn read(&self, path: &str) -> Result<Option<ByteStream>, Failure>;

    /// Size and time of an object.
    async fn head(&self, path: &str) -> Result<Option<ObjectInfo>, Failure>;

    /// All objects of a folder whose path sorts after `after`, in order of path.
    async fn list(&self, folder: &str, after: Option<&str>) -> Result<Vec<ObjectInfo>, Failure>;

    /// Deletes an object; absent is fine.
    async fn delete(&self, path: &str) -> Result<(), Failure>;
}
