//! The checkpoint location: create-only objects in an S3 bucket or in a folder.
//!
//! # Contract
//! - **Every object is written once**, by a PUT that must create. Of any number of racing writers exactly one wins, and
//!   all of them, and every later reader, see the winner's bytes. Nothing is overwritten or renamed.
//! - A successful [`CheckpointStore::create`] is durable: S3 has acknowledged it, or file and folder entry are synced.
//! - Reads and listings are strongly consistent with acknowledged writes and deletions.
//! - Every object beside `state/` starts with a line that names its **writer** and holds a checksum over path, writer and
//!   payload. So a damaged or misplaced object is reported instead of decoded, and a writer whose PUT landed while
//!   the reply was lost recognises its own object: the outcome is [`Create::AlreadyOurs`], not a conflict.
//! - An outcome that is not known is never guessed. After a timeout, a 5xx or a 409 (another PUT in flight) the store is
//!   looked at: an object there decides; none there means the same PUT is sent again. 412 is final: an object exists.
//! - When the deadline passes the result is [`StateError::Retry`](crate::StateError::Retry), and **the write may still land
//!   later**. Whoever reuses the path must send the same bytes or treat what it finds there as the truth.
//! - Deleting what is absent succeeds. A path must not be created again after its deletion by anybody who cares who won.
//!
//! # Layout of a location
//! `log/<slot>` · `checkpoints/<epoch>` · `generation/<number>` (20 digits each, so that names sort like numbers) ·
//! `state/<sha-256>` · `probe/…`. Every folder is flat.
mod backend;
mod envelope;
pub mod faults;
mod local;
mod location;
mod remote;
mod store;

pub use backend::{Backend, ByteStream, Failure, ObjectInfo};
pub use envelope::WriterId;
pub use local::LocalFolder;
pub use location::{Policy, StoreOptions};
pub use remote::Remote;
pub use store::{CheckpointStore, Create};

/// A number as a path component: 20 digits, so that names sort like numbers.
pub(crate) fn numbered(folder: &str, number: u64) -> String {
    format!("{folder}/{number:020}")
}

/// The number of a path made by [`numbered`]; `None` for any other name, which is not ours and is left alone.
pub(crate) fn number_of(path: &str) -> Option<u64> {
    let (_, name) = path.rsplit_once('/')?;
    (name.len() == 20 && name.bytes().all(|b| b.is_ascii_digit())).then(|| name.parse().ok())?
}
