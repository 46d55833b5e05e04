//! [`CheckpointStore`]: the contract of the module on top of a [`Backend`].
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::{Either, select};
use millstream_plan::ContentHash;
use tokio::time::{Instant, sleep, timeout};

use super::backend::{Backend, ByteStream, Failure, ObjectInfo};
use super::envelope::{self, WriterId};
use super::location::Policy;
use super::remote::Remote;
use crate::StateError;

/// All tries of [`CheckpointStore::probe`]; with the last one under way it ends within 15 s.
const PROBE: Duration = Duration::from_secs(10);
const PROBE_ATTEMPT: Duration = Duration::from_secs(4);
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const LAST_BACKOFF: Duration = Duration::from_secs(2);

/// What became of a [`CheckpointStore::create`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Create {
    /// The object is there and is ours.
    Created,
    /// The object was there already, with this writer's id and these bytes: an earlier try landed.
    AlreadyOurs,
    /// Another object has the path, for good.
    Exists {
        /// Its payload.
        bytes: Bytes,
        /// Who wrote it.
        writer: WriterId,
    },
}

/// A checkpoint location. Cheap to clone. The contract is in the [module's documentation](super).
#[derive(Clone, Debug)]
pub struct CheckpointStore {
    backend: Arc<dyn Backend>,
    name: Arc<str>,
    writer: WriterId,
    policy: Policy,
}

pub(super) fn config(message: String, hint: &str) -> StateError {
    StateError::Config { message, hint: Some(hint.to_owned()) }
}

/// Where a PUT ended.
enum Landed {
    New,
    /// An object is there: ours or another's.
    There(ObjectInfo),
}

impl CheckpointStore {
    /// A store over any backend; `name` is what messages call it.
    #[must_use]
    pub fn over(backend: Arc<dyn Backend>, name: impl Into<String>, writer: WriterId, policy: Policy) -> Self {
        Self { backend, name: name.into().into(), writer, policy }
    }

    /// A store in memory, for tests and simulations; clones share its content.
    #[must_use]
    pub fn memory(writer: WriterId) -> Self {
        let remote = Remote::new(Arc::new(object_store::memory::InMemory::new()), "", "memory");
        Self::over(Arc::new(remote), "memory", writer, Policy::default())
    }

    /// The same store as seen by another writer.
    #[must_use]
    pub fn with_writer(&self, writer: WriterId) -> Self {
        Self { writer, ..self.clone() }
    }

    /// What messages call the location.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Who this process is to the store.
    #[must_use]
    pub fn writer(&self) -> WriterId {
        self.writer
    }

    /// Checks that the store can be reached, read, written, and refuses a second PUT of the same object.
    ///
    /// # Errors
    /// [`StateError::Config`], after at most 15 s, which names the location and what to do.
    pub async fn probe(&self) -> Result<(), StateError> {
        let policy = Policy { attempt: PROBE_ATTEMPT, deadline: PROBE, hedge: None };
        let patient = Self { policy, ..self.clone() };
        let path = format!("probe/{}", WriterId::random());
        let until = Instant::now() + PROBE;
        patient.probe_at(&path, until).await.map_err(|e| match e {
            StateError::Retry { cause, .. } => config(
                format!("cannot reach {}: {cause}", self.name),
                "check the location, the endpoint and the network; without keys in the options or the environment \
                 the credentials of an AWS instance are asked for",
            ),
            other => other,
        })
    }

    async fn probe_at(&self, path: &str, until: Instant) -> Result<(), StateError> {
        let (first, second) = (Bytes::from_static(b"first"), Bytes::from_static(b"second"));
        self.put_new(path, first.clone(), until).await?;
        let again = self.retrying("probe", path, until, second.len(), || async {
            match self.backend.put_new(path, second.clone()).await {
                Ok(()) => Ok(false),
                Err(Failure::Exists) => Ok(true),
                Err(e) => Err(e),
            }
        });
        let refused = again.await?;
        let found = self.get_raw(path, first.len(), until).await?;
        self.delete(path).await?;
        if refused && found.as_ref() == Some(&first) {
            return Ok(());
        }
        Err(config(
            format!("{} does not support conditional writes: a PUT with If-None-Match replaced an object", self.name),
            "two drivers could overwrite each other's log; use a store that supports them, as S3, MinIO and versitygw do",
        ))
    }

    /// Creates an object.
    ///
    /// # Errors
    /// [`StateError::Retry`] when the outcome is still unknown at the deadline; [`StateError::Corrupt`] when an object
    /// is there and damaged.
    pub async fn create(&self, path: &str, payload: &[u8]) -> Result<Create, StateError> {
        let until = self.deadline();
        match self.put_new(path, envelope::seal(path, self.writer, payload), until).await? {
            Landed::New => return Ok(Create::Created),
            Landed::There(_) => {}
        }
        let Some(object) = self.get_raw(path, payload.len(), until).await? else {
            return Err(self.retry("create", path, "it was there and was deleted meanwhile"));
        };
        let (writer, bytes) = self.unseal(path, &object)?;
        Ok(if writer == self.writer && *bytes == *payload {
            Create::AlreadyOurs
        } else {
            Create::Exists { bytes, writer }
        })
    }

    /// Reads an object; `None` when there is none.
    pub async fn get(&self, path: &str) -> Result<Option<Bytes>, StateError> {
        Ok(self.get_with_writer(path).await?.map(|(_, bytes)| bytes))
    }

    /// Reads an object and who wrote it.
    pub async fn get_with_writer(&self, path: &str) -> Result<Option<(WriterId, Bytes)>, StateError> {
        match self.get_raw(path, 0, self.deadline()).await? {
            Some(object) => self.unseal(path, &object).map(Some),
            None => Ok(None),
        }
    }

    /// The objects of a folder in order of path, those after `after` only.
    pub async fn list(&self, folder: &str, after: Option<&str>) -> Result<Vec<ObjectInfo>, StateError> {
        self.retrying("list", folder, self.deadline(), 0, || self.backend.list(folder, after)).await
    }

    /// Deletes an object; absent is fine.
    pub async fn delete(&self, path: &str) -> Result<(), StateError> {
        self.retrying("delete", path, self.deadline(), 0, || self.backend.delete(path)).await
    }

    /// Stores bytes under `state/` and their hash. Returns whether they were new.
    pub(crate) async fn put_content(&self, hash: ContentHash, bytes: Bytes) -> Result<bool, StateError> {
        let (path, size) = (content_path(hash), bytes.len() as u64);
        match self.put_new(&path, bytes, self.deadline()).await? {
            Landed::New => Ok(true),
            Landed::There(found) if found.bytes == size => Ok(false),
            Landed::There(found) => {
                let why = format!("it has {} bytes, and content with this hash has {size}", found.bytes);
                Err(StateError::corrupt(self.describe(&path), why))
            }
        }
    }

    /// Runs `sink` on the stream of the content with this hash, again from the start after each failure on the way.
    pub(crate) async fn read_content<T, F>(
        &self,
        hash: ContentHash,
        bytes: u64,
        sink: impl Fn(ByteStream) -> F,
    ) -> Result<T, StateError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let (path, sink) = (content_path(hash), &sink);
        let size = usize::try_from(bytes).unwrap_or(usize::MAX);
        let read = self.retrying("read", &path, self.deadline(), size, || async {
            match self.backend.read(&path).await? {
                Some(stream) => sink(stream).await.map(Some),
                None => Ok(None),
            }
        });
        read.await?
            .ok_or_else(|| StateError::corrupt(self.describe(&path), "it does not exist, and a manifest names it"))
    }

    /// Path and location, for messages.
    pub(crate) fn describe(&self, path: &str) -> String {
        format!("{path} in {}", self.name)
    }

    fn unseal(&self, path: &str, object: &Bytes) -> Result<(WriterId, Bytes), StateError> {
        envelope::unseal(path, object).map_err(|why| StateError::corrupt(self.describe(path), why))
    }

    async fn get_raw(&self, path: &str, size: usize, until: Instant) -> Result<Option<Bytes>, StateError> {
        self.retrying("read", path, until, size, || async {
            let Some(stream) = self.backend.read(path).await? else { return Ok(None) };
            collect(stream).await.map(Some)
        })
        .await
    }

    /// Sends a PUT until an object is known to be there.
    async fn put_new(&self, path: &str, object: Bytes, until: Instant) -> Result<Landed, StateError> {
        self.retrying("create", path, until, object.len(), || async {
            let sent = timeout(self.patience(object.len()), self.put_hedged(path, &object)).await;
            let failure = match sent {
                Ok(Ok(())) => return Ok(Landed::New),
                Ok(Err(failure @ (Failure::Exists | Failure::Unavailable(_)))) => failure,
                Ok(Err(failure)) => return Err(failure),
                Err(_) => Failure::Unavailable("no answer in time".to_owned()),
            };
            // Look before deciding: the object is there, or the PUT is sent again.
            match self.backend.head(path).await? {
                Some(found) => Ok(Landed::There(found)),
                None => Err(failure),
            }
        })
        .await
    }

    async fn put_hedged(&self, path: &str, object: &Bytes) -> Result<(), Failure> {
        let first = self.backend.put_new(path, object.clone());
        let Some(hedge) = self.policy.hedge else { return first.await };
        let first = match select(first, Box::pin(sleep(hedge))).await {
            Either::Left((done, _)) => return done,
            Either::Right(((), first)) => first,
        };
        // Whichever succeeds counts: the bytes are the same, and the loser cannot replace them.
        match select(first, self.backend.put_new(path, object.clone())).await {
            Either::Left((Ok(()), _)) | Either::Right((Ok(()), _)) => Ok(()),
            Either::Left((Err(_), other)) | Either::Right((Err(_), other)) => other.await,
        }
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.policy.deadline
    }

    fn patience(&self, bytes: usize) -> Duration {
        self.policy.attempt + Duration::from_secs(bytes as u64 >> 20)
    }

    fn retry(&self, operation: &str, path: &str, cause: impl Into<String>) -> StateError {
        StateError::Retry { what: format!("cannot {operation} {}", self.describe(path)), cause: cause.into() }
    }

    /// Tries until success, a refusal, or the deadline; at least once.
    async fn retrying<T, F>(
        &self,
        operation: &str,
        path: &str,
        until: Instant,
        bytes: usize,
        attempt: impl Fn() -> F,
    ) -> Result<T, StateError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        // A PUT is followed by a look.
        let patience = self.patience(bytes) + self.policy.attempt;
        let mut backoff = FIRST_BACKOFF;
        loop {
            let failure = match timeout(patience, attempt()).await {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(failure)) => failure,
                Err(_) => Failure::Unavailable("no answer in time".to_owned()),
            };
            match failure {
                Failure::Refused { message, hint } => return Err(StateError::Config { message, hint: Some(hint) }),
                Failure::Disk(error) => return Err(error),
                Failure::Exists | Failure::Unavailable(_) => {}
            }
            let pause = backoff.mul_f64(rand::random_range(0.5..1.0));
            if Instant::now() + pause >= until {
                return Err(self.retry(operation, path, failure.to_string()));
            }
            tracing::debug!(operation, path, store = %self.name, %failure, "trying again");
            sleep(pause).await;
            backoff = (backoff * 2).min(LAST_BACKOFF);
        }
    }
}

/// Where the content with this hash is.
pub(crate) fn content_path(hash: ContentHash) -> String {
    format!("state/{hash}")
}

/// Reads a whole stream; for small objects only.
async fn collect(mut stream: ByteStream) -> Result<Bytes, Failure> {
    let mut whole = Vec::new();
    while let Some(chunk) = stream.next().await {
        whole.extend_from_slice(&chunk?);
    }
    Ok(whole.into())
}
