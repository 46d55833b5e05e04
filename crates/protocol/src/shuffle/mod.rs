//! The shuffle between executors: rows of one epoch from the tasks of one executor to those of another.
//!
//! | term | meaning |
//! |---|---|
//! | frame | what one task sends to another over one edge, in a sequence per epoch |
//! | bundle | frames from one executor to another in one epoch, with the ends of epoch that come after them |
//! | end | "this task has sent everything of this epoch over this edge"; explicit, so that empty slices need no frame |
//! | window | bytes that a sender may have on the way before the receiver has taken them over (credit) |
//!
//! # Streams
//! Per ordered pair of executors and era there is one stream. It is ordered and is never repaired: when it breaks, both sides report
//! [`PeerLost`], and the driver starts the next era. So a bundle arrives once or the era is over.
//!
//! A sender may send any number of bundles per epoch, also of several epochs in turn. A large bundle may arrive as several, in order, the
//! ends with the last one.
//!
//! # Eras
//! A receiver [`enters`](ShuffleServer::enter) an era when its tasks are deployed. Streams of lower eras are refused, and ended when the
//! receiver goes on to the next era; what they still held is dropped. The stream of a higher era is accepted and not read until the receiver
//! has entered it, for at most [`Options::era_patience`]: the executors take up a deployment one after another. Nothing is buffered beyond the
//! transport's window meanwhile.
//!
//! # Trust
//! Peers are of the same build, but what they send is checked like anything from outside: a checksum over every batch, Arrow's full
//! validation, limits before anything is allocated. A panic inside a decoder breaks the stream and not the process.
mod assemble;
mod client;
mod compact;
mod encode;
#[cfg(test)]
mod hostile;
mod ipc;
#[cfg(test)]
mod sample;
mod server;
#[cfg(test)]
mod tests;

use std::time::Duration;

use arrow::array::Int64Array;
use arrow::record_batch::RecordBatch;
use millstream_plan::{Epoch, Era, ExecutorId, TaskId};

pub use client::{ShuffleClient, ShuffleSender};
pub use server::ShuffleServer;

/// Layout of `shuffle.proto`.
const VERSION: u32 = 1;
/// Largest part of the stream: headers and one chunk of data.
const MAX_PART: usize = 4 << 20;
/// Data of a batch in one part.
const CHUNK: usize = 1 << 20;
/// Largest Arrow IPC header of a batch or schema.
const MAX_HEADER: usize = 2 << 20;

/// What leaves an executor for another one. Inside an executor it is handed over as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Bundle {
    pub era: Era,
    pub epoch: Epoch,
    /// The sending executor.
    pub from: ExecutorId,
    pub frames: Vec<Frame>,
    /// Ends of the epoch; they come after all frames that they are about.
    pub complete: Vec<EdgeEnd>,
}

/// Rows from one task to another.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// Number of the edge in the graph, as both sides count them.
    pub edge: u32,
    pub from: TaskId,
    pub to: TaskId,
    /// Position among the frames of (epoch, edge, from, to).
    pub sequence: u32,
    /// At least one; a frame without batches is not sent. Boundaries are kept.
    pub batches: Vec<Rows>,
}

/// Rows with weights; no weights means +1 for every row.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    pub rows: RecordBatch,
    /// One per row, without nulls.
    pub weights: Option<Int64Array>,
}

/// A task has sent everything of the epoch over an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EdgeEnd {
    pub edge: u32,
    pub from: TaskId,
}

/// What a receiver hears.
#[derive(Clone, Debug, PartialEq)]
pub enum Incoming {
    /// Its era may have been left meanwhile: compare.
    Bundle(Bundle),
    /// The stream from this peer broke.
    Lost(PeerLost),
}

/// The stream with a peer broke; the era cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("lost executor '{executor}' in era {era}: {reason}")]
pub struct PeerLost {
    pub era: Era,
    pub executor: ExecutorId,
    pub reason: String,
}

/// A bundle could not be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Worth another attempt.
    #[error(transparent)]
    Lost(#[from] PeerLost),
    /// This build's fault: the edge carries something that the shuffle does not.
    #[error("edge {edge} cannot be shuffled: {reason}")]
    Unsupported { edge: u32, reason: String },
    /// The rows of one frame are too many for one message.
    #[error("a frame of edge {edge} has {bytes} bytes, the limit is {limit}; send smaller frames")]
    TooLarge { edge: u32, bytes: usize, limit: usize },
}

/// Limits of the shuffle; the same on all executors.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Encoded bytes on the way per pair of executors.
    pub window: u32,
    /// Encoded bytes of one frame, and of what a receiver gathers before it hands a bundle over.
    pub max_bundle: usize,
    /// How long a stream waits for its receiver to enter the era.
    pub era_patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { window: 64 << 20, max_bundle: 256 << 20, era_patience: Duration::from_secs(60) }
    }
}
