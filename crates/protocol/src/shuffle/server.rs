//! The receiving side: a gRPC service for the streams of all peers.
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use futures::{StreamExt, stream};
use millstream_plan::{Attempt, Era, ExecutorId, Generation};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, info, warn};

use super::assemble::{Assembler, Progress};
use super::{Incoming, MAX_PART, Options, PeerLost, VERSION};
use crate::transport::{CONNECT_WITHIN, reason_of};
use crate::wire::shuffle_v1 as wire;

/// Messages of credit that may wait for the wire.
const CREDITS: usize = 64;

/// Streams of the current era and higher.
const MAX_STREAMS: usize = 1 << 16;

/// The receiving end of all streams to one executor. Clones share it.
#[derive(Clone)]
pub struct ShuffleServer {
    me: ExecutorId,
    options: Options,
    sink: mpsc::Sender<Incoming>,
    entered: watch::Sender<Era>,
    /// Streams that were opened, those of the current era and higher: a second one could bring rows twice.
    opened: Arc<Mutex<HashSet<(Era, ExecutorId)>>>,
}

impl ShuffleServer {
    /// A receiver for executor `me`, before its first era. When `sink` is full, streams wait, and so do their senders.
    #[must_use]
    pub fn new(me: ExecutorId, options: Options, sink: mpsc::Sender<Incoming>) -> Self {
        Self { me, options, sink, entered: watch::Sender::new(Era::default()), opened: Arc::default() }
    }

    /// Goes on to `era`: lower streams are ended, those that wait for it are read. Lower eras than the current one change nothing.
    pub fn enter(&self, era: Era) {
        let higher = self.entered.send_if_modified(|entered| {
            let higher = era > *entered;
            if higher {
                *entered = era;
            }
            higher
        });
        if higher {
            self.opened.lock().unwrap_or_else(PoisonError::into_inner).retain(|(opened, _)| *opened >= era);
        }
    }

    /// The gRPC service, for [`crate::transport::serve`].
    #[must_use]
    pub fn routes(&self) -> Routes {
        Routes::new(wire::shuffle_server::ShuffleServer::new(self.clone()).max_decoding_message_size(MAX_PART))
    }

    fn accept(&self, open: wire::Open) -> Result<(Era, ExecutorId), Status> {
        if open.version != VERSION {
            return Err(Status::failed_precondition(format!(
                "it speaks version {VERSION} of the shuffle, not {}",
                open.version
            )));
        }
        if open.to_executor != self.me.0 {
            return Err(Status::failed_precondition(format!(
                "it is executor '{}', not '{}'",
                self.me, open.to_executor
            )));
        }
        let era = Era { generation: Generation(open.generation), attempt: Attempt(open.attempt) };
        let from = ExecutorId(open.from_executor);
        // Under the lock, so that `enter` forgets exactly what was opened before it.
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let entered = *self.entered.borrow();
        if era < entered {
            return Err(left(era, entered));
        }
        if opened.len() >= MAX_STREAMS {
            return Err(Status::resource_exhausted("it has too many streams"));
        }
        if !opened.insert((era, from.clone())) {
            return Err(Status::failed_precondition(format!("it has had a stream from '{from}' in era {era}")));
        }
        Ok((era, from))
    }

    /// Waits until `era` or a higher one is entered; returns which.
    async fn entered_from(&self, era: Era) -> Era {
        let mut entered = self.entered.subscribe();
        // The sender of the watch is `self`, so waiting cannot fail.
        entered.wait_for(|entered| *entered >= era).await.map_or(era, |entered| *entered)
    }

    /// One stream from its opening to its end; returns what to tell the sender.
    async fn run(
        self,
        era: Era,
        from: ExecutorId,
        parts: Streaming<wire::Part>,
        credits: &mpsc::Sender<Result<wire::Credit, Status>>,
    ) -> Status {
        if tokio::time::timeout(self.options.era_patience, self.entered_from(era)).await.is_err() {
            warn!(%era, %from, "the era of a shuffle stream was never entered");
            return Status::unavailable(format!("it has not entered era {era} in time"));
        }
        let reason = tokio::select! {
            biased;
            entered = self.entered_from(next(era)) => {
                debug!(%era, %from, "shuffle stream ended with its era");
                return left(era, entered);
            }
            reason = self.receive(era, &from, parts, credits) => reason,
        };
        let Some(reason) = reason else { return Status::ok("") };
        // Whether that matters is for the receiver to say: at a drain executors leave one after the other.
        info!(%era, %from, reason, "shuffle stream broke");
        let status = Status::aborted(reason.clone());
        if self.sink.send(Incoming::Lost(PeerLost { era, executor: from, reason })).await.is_err() {
            debug!(%era, "nobody listens to the shuffle");
        }
        status
    }

    /// Hands bundles over until the stream ends; returns why it broke, or `None` if the sender has finished.
    async fn receive(
        &self,
        era: Era,
        from: &ExecutorId,
        mut parts: Streaming<wire::Part>,
        credits: &mpsc::Sender<Result<wire::Credit, Status>>,
    ) -> Option<String> {
        let mut assembler = Assembler::new(era, from.clone(), self.options.max_bundle);
        loop {
            let part = match parts.message().await {
                Ok(Some(part)) => part,
                // HTTP/2 reports a cancelled stream like one that has ended.
                Ok(None) => return Some("the sender is gone".to_owned()),
                Err(status) => return Some(reason_of(&status)),
            };
            let (bundle, cost) = match assembler.push(part) {
                Ok(Progress::Bundle(bundle, cost)) => (bundle, cost),
                Ok(Progress::Partial) => continue,
                Ok(Progress::Finished) => return None,
                Err(broken) => return Some(broken.to_string()),
            };
            if self.sink.send(Incoming::Bundle(bundle)).await.is_err() {
                return Some("the receiver has stopped".to_owned());
            }
            if credits.send(Ok(wire::Credit { bytes: cost })).await.is_err() {
                return Some("the sender is gone".to_owned());
            }
        }
    }
}

/// The lowest era above `era`.
fn next(era: Era) -> Era {
    match era.attempt.0.checked_add(1) {
        Some(attempt) => Era { attempt: Attempt(attempt), ..era },
        None => Era { generation: era.generation.next(), attempt: Attempt(0) },
    }
}

fn left(era: Era, entered: Era) -> Status {
    Status::failed_precondition(format!("it has left era {era} for {entered}"))
}

#[tonic::async_trait]
impl wire::shuffle_server::Shuffle for ShuffleServer {
    type ExchangeStream = stream::BoxStream<'static, Result<wire::Credit, Status>>;

    async fn exchange(
        &self,
        request: Request<Streaming<wire::Part>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let mut parts = request.into_inner();
        let first = tokio::time::timeout(CONNECT_WITHIN, parts.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no Open came"))??
            .and_then(|first| first.part);
        let Some(wire::part::Part::Open(open)) = first else {
            return Err(Status::invalid_argument("the first part is not Open"));
        };
        let (era, from) = self.accept(open)?;
        let (credits, outgoing) = mpsc::channel(CREDITS);
        let server = self.clone();
        // Ends with the stream, with its era, or with the sink.
        tokio::spawn(async move {
            let status = server.run(era, from, parts, &credits).await;
            if status.code() != tonic::Code::Ok && credits.send(Err(status)).await.is_err() {
                debug!(%era, "the sender of a shuffle stream is gone");
            }
        });
        Ok(Response::new(ReceiverStream::new(outgoing).boxed()))
    }
}
