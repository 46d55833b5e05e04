//! The sending end of a connection: a bounded queue that can be closed with a reason.
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, watch};

use super::{ExecutorLink, MAILBOX};
use crate::messages::ToExecutor;

/// The connection is over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("connection closed: {reason}")]
pub struct LinkClosed {
    pub reason: String,
}

/// Queue of messages `T` towards the peer.
pub(super) struct Mailbox<T> {
    queue: Mutex<Option<mpsc::Sender<T>>>,
    reason: watch::Sender<Option<String>>,
}

impl<T> Mailbox<T> {
    pub(super) fn new() -> (Self, mpsc::Receiver<T>) {
        let (sender, receiver) = mpsc::channel(MAILBOX);
        (Self { queue: Mutex::new(Some(sender)), reason: watch::Sender::new(None) }, receiver)
    }

    fn queue(&self) -> MutexGuard<'_, Option<mpsc::Sender<T>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn send(&self, message: T) -> Result<(), LinkClosed> {
        let sent = match &*self.queue() {
            Some(queue) => queue.try_send(message),
            None => return Err(LinkClosed { reason: self.reason() }),
        };
        sent.map_err(|error| {
            self.close(match error {
                mpsc::error::TrySendError::Full(_) => "it does not read its messages: the mailbox is full",
                mpsc::error::TrySendError::Closed(_) => "the peer is gone",
            });
            LinkClosed { reason: self.reason() }
        })
    }

    /// Closes for good; the first reason stays.
    pub(super) fn close(&self, reason: &str) {
        self.reason.send_if_modified(|current| {
            let first = current.is_none();
            if first {
                *current = Some(reason.to_owned());
            }
            first
        });
        // The receiver sees the end after what is queued.
        self.queue().take();
    }

    /// Why it was closed.
    pub(super) fn reason(&self) -> String {
        self.reason.borrow().clone().unwrap_or_else(|| "closed".to_owned())
    }

    /// Resolves with the reason when the mailbox is closed.
    pub(super) async fn closed(&self) -> String {
        // The sender of the watch is `self`, so waiting cannot fail before the reason is there.
        let _ = self.reason.subscribe().wait_for(Option::is_some).await;
        self.reason()
    }
}

impl ExecutorLink for Mailbox<ToExecutor> {
    fn send(&self, message: ToExecutor) -> Result<(), LinkClosed> {
        Mailbox::send(self, message)
    }

    fn close(&self, reason: &str) {
        Mailbox::close(self, reason);
    }
}
