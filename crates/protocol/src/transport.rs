//! HTTP/2 under both services: listening, connecting, and noticing a lost peer.
//!
//! Each side of a connection pings when it has read nothing for [`PING_AFTER`] and gives the connection up when the answer takes
//! longer than [`PONG_WITHIN`]: a peer that was killed, whose host vanished, or that was stopped (SIGSTOP) is noticed within
//! 3 s. The answer comes from the peer's I/O runtime, so no task of a pipeline may run on that runtime's threads.
use std::error::Error;
use std::future::Future;
use std::time::Duration;

use tokio::net::TcpListener;
use tonic::Status;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};

/// Silence after which a side pings.
pub const PING_AFTER: Duration = Duration::from_millis(700);
/// How long the answer to a ping may take.
pub const PONG_WITHIN: Duration = Duration::from_millis(1900);
/// How long a connection and the answer to its first message may take.
pub(crate) const CONNECT_WITHIN: Duration = Duration::from_secs(3);

/// Window of one HTTP/2 stream: what a sender may have on the way to a receiver that does not read.
const STREAM_WINDOW: u32 = 8 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
const MAX_FRAME: u32 = 1 << 20;

/// A connection could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The user's mistake.
    #[error("'{0}' is not an address; write host:port")]
    Address(String),
    /// Try again later.
    #[error("cannot connect to {address}: {reason}")]
    Unreachable { address: String, reason: String },
    /// The peer is there and does not want this connection; the same attempt fails again.
    #[error("{address} refused the connection: {reason}")]
    Refused { address: String, reason: String },
}

/// Serves `routes` (of the control or shuffle service, or others added to them) until `shutdown`
/// resolves. Then the listener is closed; open streams live on until their owners end them.
///
/// # Errors
/// The listener's address cannot be served.
pub async fn serve(
    listener: TcpListener,
    routes: Routes,
    shutdown: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let server = Server::builder()
        .http2_keepalive_interval(Some(PING_AFTER))
        .http2_keepalive_timeout(Some(PONG_WITHIN))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .add_routes(routes)
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
    tokio::select! {
        served = server => served,
        () = shutdown => Ok(()),
    }
}

/// Connects to `host:port`.
pub(crate) async fn connect(address: &str) -> Result<Channel, ConnectError> {
    let invalid = || ConnectError::Address(address.to_owned());
    let (host, port) = address.rsplit_once(':').ok_or_else(invalid)?;
    if host.is_empty() || port.parse::<u16>().is_err() {
        return Err(invalid());
    }
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|_| invalid())?
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PONG_WITHIN)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME);
    let unreachable = |reason| ConnectError::Unreachable { address: address.to_owned(), reason };
    // Around the whole of it: looking up the host's name has no limit of its own.
    match tokio::time::timeout(CONNECT_WITHIN, endpoint.connect()).await {
        Ok(connected) => connected.map_err(|error| unreachable(root_cause(&error))),
        Err(_) => Err(unreachable("no connection in time".to_owned())),
    }
}

/// The error to report when a call to `address` failed before anything was exchanged.
pub(crate) fn refused(address: &str, status: &Status) -> ConnectError {
    let address = address.to_owned();
    match status.code() {
        tonic::Code::FailedPrecondition | tonic::Code::InvalidArgument | tonic::Code::Unimplemented => {
            ConnectError::Refused { address, reason: status.message().to_owned() }
        }
        _ => ConnectError::Unreachable { address, reason: reason_of(status) },
    }
}

/// Why a stream broke.
pub(crate) fn reason_of(status: &Status) -> String {
    match status.source() {
        Some(source) => root_cause(source),
        None if status.message().is_empty() => status.code().description().to_owned(),
        None => status.message().to_owned(),
    }
}

fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
