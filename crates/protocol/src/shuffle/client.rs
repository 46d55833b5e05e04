//! The sending side of a stream.
use std::sync::Arc;

use futures::{StreamExt, stream};
use millstream_plan::{Era, ExecutorId};
use tokio::sync::{Mutex, Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Streaming};

use super::encode::{Encoder, Piece};
use super::{Bundle, MAX_PART, Options, PeerLost, SendError, VERSION};
use crate::transport::{self, CONNECT_WITHIN, ConnectError, reason_of};
use crate::wire::shuffle_v1 as wire;

/// Largest message of credit.
const MAX_CREDIT: usize = 1 << 10;

/// Opens streams to other executors.
pub struct ShuffleClient;

impl ShuffleClient {
    /// Opens the stream of `era` from executor `me` to executor `peer` at `host:port`.
    ///
    /// # Errors
    /// See [`ConnectError`]; refused means that the peer has left `era`, or is not `peer`. Takes at most 6 s.
    pub async fn connect(
        era: Era,
        me: &ExecutorId,
        peer: &ExecutorId,
        address: &str,
        options: &Options,
    ) -> Result<ShuffleSender, ConnectError> {
        let channel = transport::connect(address).await?;
        let mut client = wire::shuffle_client::ShuffleClient::new(channel)
            .max_decoding_message_size(MAX_CREDIT)
            .max_encoding_message_size(MAX_PART);
        let open = wire::Open {
            version: VERSION,
            generation: era.generation.0,
            attempt: era.attempt.0,
            from_executor: me.0.clone(),
            to_executor: peer.0.clone(),
        };
        let open = wire::Part { part: Some(wire::part::Part::Open(open)) };
        // Bounded by the window: parts are queued only with credit for them.
        let (parts, queued) = mpsc::unbounded_channel();
        let outgoing = stream::once(async move { open }).chain(UnboundedReceiverStream::new(queued));
        let silent =
            || ConnectError::Unreachable { address: address.to_owned(), reason: "the peer does not answer".to_owned() };
        let credits = tokio::time::timeout(CONNECT_WITHIN, client.exchange(Request::new(outgoing)))
            .await
            .map_err(|_| silent())?
            .map_err(|status| transport::refused(address, &status))?
            .into_inner();
        let window = Arc::new(Semaphore::new(options.window as usize));
        let lost = watch::Sender::new(None);
        let watching = tokio::spawn(watch_credits(credits, Arc::clone(&window), options.window, lost.clone()));
        Ok(ShuffleSender {
            era,
            peer: peer.clone(),
            window_size: options.window,
            window,
            lost,
            watching,
            stream: Mutex::new(Stream {
                encoder: Encoder::new(options.max_bundle),
                parts: Some(parts),
                sending: false,
            }),
        })
    }
}

/// The sending end of a stream. Dropping it gives up what has not arrived.
pub struct ShuffleSender {
    era: Era,
    peer: ExecutorId,
    window_size: u32,
    window: Arc<Semaphore>,
    /// Why the stream is over.
    lost: watch::Sender<Option<String>>,
    /// Ends with the stream and is aborted with the sender.
    watching: JoinHandle<()>,
    stream: Mutex<Stream>,
}

struct Stream {
    encoder: Encoder,
    /// `None` when finished.
    parts: Option<mpsc::UnboundedSender<wire::Part>>,
    /// A send is under way, or was given up in the middle of a bundle.
    sending: bool,
}

impl ShuffleSender {
    /// Sends a bundle of this sender's era; bundles arrive in the order of the calls. Waits while the window is full. A call that is given
    /// up breaks the stream, as it may have sent half a bundle.
    ///
    /// # Errors
    /// See [`SendError`]; after any of them the stream is of no more use.
    pub async fn send(&self, bundle: Bundle) -> Result<(), SendError> {
        let mut stream = self.stream.lock().await;
        if std::mem::replace(&mut stream.sending, true) {
            return Err(self.peer_lost("an earlier bundle was not sent in full".to_owned()).into());
        }
        let mut frames = bundle.frames.into_iter();
        let mut complete = bundle.complete;
        while let Some(Piece { parts, cost }) = stream.encoder.piece(bundle.epoch, &mut frames, &mut complete)? {
            // A piece larger than the window goes alone.
            match self.window.acquire_many(cost.min(self.window_size)).await {
                Ok(credit) => credit.forget(),
                Err(_) => return Err(self.lost().await.into()),
            }
            for part in parts {
                if stream.parts.as_ref().is_none_or(|queue| queue.send(part).is_err()) {
                    return Err(self.lost().await.into());
                }
            }
        }
        stream.sending = false;
        Ok(())
    }

    /// Encoded bytes that the peer has not taken over yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        (self.window_size as usize).saturating_sub(self.window.available_permits())
    }

    /// Resolves when the stream has broken.
    pub async fn lost(&self) -> PeerLost {
        // The sender of the watch is `self`, so waiting cannot fail before the reason is there.
        let _ = self.lost.subscribe().wait_for(Option::is_some).await;
        let reason = self.lost.borrow().clone();
        self.peer_lost(reason.unwrap_or_default())
    }

    fn peer_lost(&self, reason: String) -> PeerLost {
        PeerLost { era: self.era, executor: self.peer.clone(), reason }
    }

    /// Ends the stream after the peer has taken everything over.
    ///
    /// # Errors
    /// The stream broke before.
    pub async fn finish(mut self) -> Result<(), PeerLost> {
        if self.window.acquire_many(self.window_size).await.is_err() {
            return Err(self.lost().await);
        }
        if let Some(parts) = self.stream.get_mut().parts.take() {
            let finish = wire::Part { part: Some(wire::part::Part::Finish(wire::Finish {})) };
            parts.send(finish).map_err(|_| self.peer_lost("the stream has broken".to_owned()))?;
        }
        self.lost().await;
        Ok(())
    }
}

impl Drop for ShuffleSender {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

/// Gives credit back to the window until the stream ends.
async fn watch_credits(
    mut credits: Streaming<wire::Credit>,
    window: Arc<Semaphore>,
    size: u32,
    lost: watch::Sender<Option<String>>,
) {
    let reason = loop {
        match credits.message().await {
            Ok(Some(credit)) => {
                // What a piece took: at most the whole window, and never more than is out.
                let bytes = credit.bytes.min(size.into()) as usize;
                if window.available_permits() + bytes > size as usize {
                    break "it gave credit for more than it got".to_owned();
                }
                window.add_permits(bytes);
            }
            Ok(None) => break "it closed the stream".to_owned(),
            Err(status) => break reason_of(&status),
        }
    };
    lost.send_replace(Some(reason));
    window.close();
}
