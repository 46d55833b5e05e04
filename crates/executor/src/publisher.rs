//! Publishes the encoded epochs of one sink task, on a thread of its own.
//!
//! Order: the committer is opened (fences earlier owners, finds the last published epoch) before the deployment is `Ready`; an epoch is
//! published when its plan is durable; `Published` is said after the commit. Epochs that were published before are dropped and
//! said to be published.
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;

use millstream_connectors::{ConnectorError, EncodedEpoch, SinkCommitter, SinkContext};
use millstream_plan::{Epoch, SinkId, TaskId};
use millstream_protocol::control::DriverLink;
use millstream_protocol::messages::ToDriver;
use tokio::sync::{oneshot, watch};
use tracing::{debug, error, info};

use crate::ExecutorError;

/// What a publisher is told.
pub(crate) enum ToPublisher {
    Epoch(EncodedEpoch),
    Durable(Epoch),
    Stop,
}

/// What is published.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Subject {
    Sink(SinkId),
    /// Dead letters of the task: the driver is not told, the task's checkpoint waits for them.
    DeadLetters,
}

/// A running publisher.
pub(crate) struct Publisher {
    pub subject: Subject,
    pub task: TaskId,
    pub queue: Sender<ToPublisher>,
    /// Last published epoch.
    pub published: watch::Receiver<Epoch>,
    pub opened: oneshot::Receiver<Result<Epoch, ConnectorError>>,
    pub thread: JoinHandle<()>,
}

impl Publisher {
    /// Starts the thread; `opened` tells when it is ready.
    pub fn start(
        subject: Subject,
        task: TaskId,
        context: SinkContext,
        committer: Box<dyn SinkCommitter>,
        driver: Arc<DriverLink>,
    ) -> Result<Self, ExecutorError> {
        let (queue, messages) = mpsc::channel();
        let (open, opened) = oneshot::channel();
        let (published_to, published) = watch::channel(Epoch(0));
        let name = format!("publish-{task}");
        let run = move || {
            let mut work =
                Work { subject, task, context, committer, driver, published: published_to, waiting: VecDeque::new() };
            let result = work.committer.open(&work.context);
            let opened = result.clone();
            // Nobody waits any more: the deployment was given up.
            let _gone = open.send(result);
            if let Ok(epoch) = opened
                && let Err(e) = work.run(epoch, &messages)
            {
                let e = ExecutorError::from(e);
                error!(era = %work.context.era, %task, error = %e, "publishing failed");
                let failed =
                    ToDriver::Failed { era: work.context.era, task: Some(task), epoch: None, failure: e.failure() };
                let _gone = work.driver.send(failed);
            }
        };
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(run)
            .map_err(|source| ExecutorError::Io { what: "cannot start a thread".to_owned(), source })?;
        Ok(Self { subject, task, queue, published, opened, thread })
    }
}

struct Work {
    subject: Subject,
    task: TaskId,
    context: SinkContext,
    committer: Box<dyn SinkCommitter>,
    driver: Arc<DriverLink>,
    published: watch::Sender<Epoch>,
    waiting: VecDeque<EncodedEpoch>,
}

impl Work {
    fn run(&mut self, opened: Epoch, messages: &Receiver<ToPublisher>) -> Result<(), ConnectorError> {
        info!(era = %self.context.era, task = %self.task, subject = ?self.subject, published = %opened, "sink task opened");
        let mut durable = Epoch(0);
        let mut done = opened;
        loop {
            let Ok(first) = messages.recv() else { return Ok(()) };
            for message in std::iter::once(first).chain(messages.try_iter()) {
                match message {
                    ToPublisher::Stop => return Ok(()),
                    ToPublisher::Durable(epoch) => durable = durable.max(epoch),
                    ToPublisher::Epoch(epoch) => self.waiting.push_back(epoch),
                }
            }
            let mut due = Vec::new();
            let mut last = None;
            while self.waiting.front().is_some_and(|e| e.epoch <= durable) {
                let Some(epoch) = self.waiting.pop_front() else { break };
                last = Some(epoch.epoch);
                if epoch.epoch > opened {
                    due.push(epoch);
                }
            }
            let Some(last) = last else { continue };
            let (rows, bytes) = due.iter().fold((0, 0), |(r, b), e| (r + e.rows, b + e.bytes));
            if !due.is_empty() {
                self.committer.publish(due)?;
            }
            done = done.max(last);
            debug!(era = %self.context.era, task = %self.task, epoch = %last, rows, "published");
            self.published.send_replace(done);
            if let Subject::Sink(sink) = self.subject {
                let published =
                    ToDriver::Published { era: self.context.era, sink, task: self.task, epoch: last, rows, bytes };
                // If the driver is gone, the next one learns it from the sink's marker.
                let _gone = self.driver.send(published);
            }
        }
    }
}
