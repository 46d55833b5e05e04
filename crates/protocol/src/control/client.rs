//! The executor's side.
use std::sync::Arc;

use futures::{StreamExt, stream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Streaming};

use super::mailbox::{LinkClosed, Mailbox};
use super::{MAX_TO_DRIVER, MAX_TO_EXECUTOR};
use crate::messages::{Hello, ToDriver, ToExecutor};
use crate::transport::{self, CONNECT_WITHIN, ConnectError, reason_of};
use crate::wire::control_v1 as wire;

/// Makes control connections to a driver.
pub struct ControlClient;

impl ControlClient {
    /// Connects to the driver at `host:port` and says `hello`. When the connection breaks, connecting again is the caller's matter.
    ///
    /// # Errors
    /// See [`ConnectError`]; takes at most 6 s.
    pub async fn connect(address: &str, hello: Hello) -> Result<(DriverLink, DriverInbox), ConnectError> {
        let channel = transport::connect(address).await?;
        let mut client = wire::control_client::ControlClient::new(channel)
            .max_decoding_message_size(MAX_TO_EXECUTOR)
            .max_encoding_message_size(MAX_TO_DRIVER);
        let (link, outgoing) = Mailbox::new();
        let hello = stream::once(async move { ToDriver::Hello(hello) });
        let outgoing = hello.chain(ReceiverStream::new(outgoing)).map(wire::ToDriver::from);
        let silent = || ConnectError::Unreachable {
            address: address.to_owned(),
            reason: "the driver does not answer".to_owned(),
        };
        let incoming = tokio::time::timeout(CONNECT_WITHIN, client.connect(Request::new(outgoing)))
            .await
            .map_err(|_| silent())?
            .map_err(|status| transport::refused(address, &status))?
            .into_inner();
        Ok((DriverLink(link), DriverInbox(Inbox::Remote(Box::new(incoming)))))
    }
}

/// The executor's sending end of its connection. Dropping it ends the connection after what is queued; the driver has read
/// everything when [`DriverInbox::recv`] then reports the end.
pub struct DriverLink(pub(super) Mailbox<ToDriver>);

impl DriverLink {
    /// Queues a message; messages arrive in order or not at all.
    ///
    /// # Errors
    /// The connection is over, or the driver does not keep up, which ends the connection too.
    pub fn send(&self, message: ToDriver) -> Result<(), LinkClosed> {
        self.0.send(message)
    }
}

/// The executor's receiving end of its connection. Dropping it ends the connection.
pub struct DriverInbox(Inbox);

enum Inbox {
    Remote(Box<Streaming<wire::ToExecutor>>),
    Local(Local),
}

struct Local {
    messages: mpsc::Receiver<ToExecutor>,
    link: Arc<Mailbox<ToExecutor>>,
}

impl Drop for Local {
    fn drop(&mut self) {
        self.link.close("the executor has closed the connection");
    }
}

impl DriverInbox {
    pub(super) fn local(messages: mpsc::Receiver<ToExecutor>, link: Arc<Mailbox<ToExecutor>>) -> Self {
        Self(Inbox::Local(Local { messages, link }))
    }

    /// The next message. May be cancelled without losing one.
    ///
    /// # Errors
    /// The connection is over; the reason is the driver's if it gave one.
    pub async fn recv(&mut self) -> Result<ToExecutor, LinkClosed> {
        match &mut self.0 {
            Inbox::Local(local) => {
                local.messages.recv().await.ok_or_else(|| LinkClosed { reason: local.link.reason() })
            }
            Inbox::Remote(stream) => match stream.message().await {
                Ok(Some(message)) => {
                    ToExecutor::try_from(message).map_err(|e| LinkClosed { reason: format!("invalid message: {e}") })
                }
                Ok(None) => Err(LinkClosed { reason: "the driver has closed the connection".to_owned() }),
                Err(status) => Err(LinkClosed { reason: reason_of(&status) }),
            },
        }
    }
}
