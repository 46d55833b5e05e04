//! The control stream between the driver and each of its executors.
//!
//! | term | meaning |
//! |---|---|
//! | connection | one control stream of one executor, over gRPC or inside the process |
//! | [`ExecutorLink`] | the driver's sending end of a connection |
//! | [`DriverLink`], [`DriverInbox`] | the executor's two ends of a connection |
//! | mailbox | the bounded queue of messages that wait for a connection |
//!
//! The driver sees every connection as `Joined`, messages, `Left`, in this order and with nothing after `Left`. A second
//! connection of the same executor replaces the older one: its `Left` comes before the newer `Joined`.
//!
//! Sending never waits. A mailbox that is full belongs to a peer that does not keep up, which is treated like a lost one.
mod client;
mod mailbox;
mod server;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use millstream_plan::ExecutorId;

pub use client::{ControlClient, DriverInbox, DriverLink};
pub use mailbox::LinkClosed;
pub use server::ControlServer;

use crate::messages::{Hello, ToDriver, ToExecutor};

/// Messages that may wait in a connection's mailbox, each way.
const MAILBOX: usize = 8192;
/// Largest encoded [`ToExecutor`]: a deployment names every file of the state.
const MAX_TO_EXECUTOR: usize = 64 << 20;
/// Largest encoded [`ToDriver`].
const MAX_TO_DRIVER: usize = 16 << 20;

/// What the driver hears, with the executor that it is about.
pub type FromExecutor = (ExecutorId, ControlEvent);

/// Life of one connection, seen from the driver.
pub enum ControlEvent {
    /// A new connection; nothing else is sent before it.
    Joined(Hello, Arc<dyn ExecutorLink>),
    /// Never a `Hello`.
    Message(ToDriver),
    /// The connection is over; the last event of it.
    Left { reason: String },
}

/// The driver's sending end of a connection.
pub trait ExecutorLink: Send + Sync {
    /// Queues a message; messages arrive in order or not at all.
    ///
    /// # Errors
    /// The connection is over; `Left` has come or will come.
    fn send(&self, message: ToExecutor) -> Result<(), LinkClosed>;

    /// Ends the connection after what is queued; the executor is told the reason, and `Left` follows. Does nothing if it is over.
    fn close(&self, reason: &str);
}
