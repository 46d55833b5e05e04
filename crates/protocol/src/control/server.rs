//! The driver's side: one registry of connections, fed by the gRPC service and by executors in this process.
use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{Stream, StreamExt, stream};
use millstream_plan::ExecutorId;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, info};

use super::mailbox::Mailbox;
use super::{ControlEvent, DriverInbox, DriverLink, FromExecutor, MAX_TO_DRIVER, MAX_TO_EXECUTOR};
use crate::messages::{Hello, ToDriver, ToExecutor};
use crate::transport::{CONNECT_WITHIN, reason_of};
use crate::wire::control_v1 as wire;

/// What an executor is told whose place was taken. When it reads this it lives, so the newcomer is another process.
pub(super) const REPLACED: &str = "an executor of the same name has connected; give each executor an --id of its own";

/// The driver's end of all control streams. Clones share the registry.
#[derive(Clone)]
pub struct ControlServer {
    registry: Arc<Registry>,
}

impl ControlServer {
    /// A registry without connections, and the receiver of everything that happens on them. `events` is the number of events that
    /// may wait; when they do, connections wait too.
    #[must_use]
    pub fn new(events: usize) -> (Self, mpsc::Receiver<FromExecutor>) {
        let (sender, receiver) = mpsc::channel(events.max(1));
        (Self { registry: Arc::new(Registry { events: sender, executors: Mutex::default() }) }, receiver)
    }

    /// The gRPC service, for [`crate::transport::serve`].
    #[must_use]
    pub fn routes(&self) -> Routes {
        Routes::new(
            wire::control_server::ControlServer::new(self.clone())
                .max_decoding_message_size(MAX_TO_DRIVER)
                .max_encoding_message_size(MAX_TO_EXECUTOR),
        )
    }

    /// Connects an executor in this process: the same events and messages without serialization. Must be called inside a tokio
    /// runtime.
    #[must_use]
    pub fn local(&self, hello: Hello) -> (DriverLink, DriverInbox) {
        let (to_executor, inbox) = Mailbox::new();
        let (to_driver, incoming) = Mailbox::new();
        let to_executor = Arc::new(to_executor);
        let incoming = ReceiverStream::new(incoming).map(Ok);
        tokio::spawn(Arc::clone(&self.registry).run(hello, Arc::clone(&to_executor), incoming));
        (DriverLink(to_driver), DriverInbox::local(inbox, to_executor))
    }
}

#[tonic::async_trait]
impl wire::control_server::Control for ControlServer {
    type ConnectStream = stream::BoxStream<'static, Result<wire::ToExecutor, Status>>;

    async fn connect(
        &self,
        request: Request<Streaming<wire::ToDriver>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let mut incoming = request.into_inner();
        let first = tokio::time::timeout(CONNECT_WITHIN, incoming.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no Hello came"))??
            .ok_or_else(|| Status::invalid_argument("the stream ended before Hello"))?;
        let hello = match ToDriver::try_from(first) {
            Ok(ToDriver::Hello(hello)) => hello,
            Ok(_) => return Err(Status::invalid_argument("the first message is not Hello")),
            Err(invalid) => return Err(Status::invalid_argument(invalid.to_string())),
        };
        let (link, outgoing) = Mailbox::new();
        let link = Arc::new(link);
        let incoming = incoming.map(|message| {
            let message = message.map_err(|status| reason_of(&status))?;
            ToDriver::try_from(message).map_err(|invalid| format!("invalid message: {invalid}"))
        });
        // Ends with the connection: its stream, its link, or the driver's receiver.
        tokio::spawn(Arc::clone(&self.registry).run(hello, Arc::clone(&link), incoming));
        let end = stream::once(async move { Err(Status::aborted(link.reason())) });
        let outgoing = ReceiverStream::new(outgoing).map(|message| Ok(message.into())).chain(end);
        Ok(Response::new(outgoing.boxed()))
    }
}

struct Registry {
    events: mpsc::Sender<FromExecutor>,
    executors: Mutex<HashMap<ExecutorId, Executor>>,
}

/// Connections of one executor.
struct Executor {
    newest: Arc<Mailbox<ToExecutor>>,
    /// Held from before `Joined` to after `Left`, so that connections of one executor do not overlap.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Registry {
    fn executors(&self) -> MutexGuard<'_, HashMap<ExecutorId, Executor>> {
        self.executors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes `link` the executor's newest connection and closes the one before.
    fn replace(&self, id: &ExecutorId, link: &Arc<Mailbox<ToExecutor>>) -> Arc<tokio::sync::Mutex<()>> {
        let mut executors = self.executors();
        if let Some(executor) = executors.get_mut(id) {
            executor.newest.close(REPLACED);
            executor.newest = Arc::clone(link);
            return Arc::clone(&executor.turn);
        }
        let turn = Arc::default();
        executors.insert(id.clone(), Executor { newest: Arc::clone(link), turn: Arc::clone(&turn) });
        turn
    }

    fn forget(&self, id: &ExecutorId, link: &Arc<Mailbox<ToExecutor>>) {
        let mut executors = self.executors();
        if executors.get(id).is_some_and(|executor| Arc::ptr_eq(&executor.newest, link)) {
            executors.remove(id);
        }
    }

    /// One connection from `Joined` to `Left`.
    async fn run(
        self: Arc<Self>,
        hello: Hello,
        link: Arc<Mailbox<ToExecutor>>,
        incoming: impl Stream<Item = Result<ToDriver, String>> + Send,
    ) {
        let id = hello.executor.clone();
        let turn = self.replace(&id, &link);
        let _turn = turn.lock().await;
        info!(executor = %id, slots = hello.slots, shuffle = hello.shuffle, "executor connected");
        if self.events.send((id.clone(), ControlEvent::Joined(hello, Arc::clone(&link) as _))).await.is_ok() {
            let reason = tokio::select! {
                biased;
                reason = link.closed() => reason,
                reason = self.forward(&id, incoming) => reason,
            };
            info!(executor = %id, reason, "executor left");
            link.close(&reason);
            if self.events.send((id.clone(), ControlEvent::Left { reason })).await.is_err() {
                debug!(executor = %id, "the driver has stopped listening");
            }
        }
        link.close("the driver has stopped");
        self.forget(&id, &link);
    }

    /// Hands messages over until the connection is over; returns why.
    async fn forward(&self, id: &ExecutorId, incoming: impl Stream<Item = Result<ToDriver, String>>) -> String {
        let mut incoming = pin!(incoming);
        while let Some(message) = incoming.next().await {
            match message {
                Ok(ToDriver::Hello(_)) => return "invalid message: a second Hello".to_owned(),
                Ok(message) => {
                    if self.events.send((id.clone(), ControlEvent::Message(message))).await.is_err() {
                        return "the driver has stopped".to_owned();
                    }
                }
                Err(reason) => return reason,
            }
        }
        "the executor has closed the connection".to_owned()
    }
}
