//! A backend that misbehaves on request, for tests of everything that stands on a checkpoint location.
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::backend::{Backend, ByteStream, Failure, ObjectInfo};

/// The operations of a [`Backend`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Put,
    Read,
    Head,
    List,
    Delete,
}

/// What to do instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Waits, then does what was asked.
    Delay(Duration),
    /// Does nothing and reports a lost connection.
    Fail,
    /// Does what was asked and reports a lost connection.
    LoseReply,
    /// Reports a lost connection; a PUT takes effect so much later, after its sender may have moved on.
    LandAfter(Duration),
    /// A PUT reports success without having written: a store that lies. For tests of the checker itself.
    Forget,
}

/// One planned misbehaviour.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Which operation.
    pub operation: Operation,
    /// On which paths.
    pub path_contains: String,
    /// How.
    pub kind: Kind,
    /// How many times; it is used up then.
    pub times: usize,
}

/// A backend with faults. Faults are tried in the order of their injection.
#[derive(Clone)]
pub struct Faulty {
    inner: Arc<dyn Backend>,
    plan: Arc<Mutex<Plan>>,
}

#[derive(Default)]
struct Plan {
    faults: Vec<Fault>,
    fired: usize,
}

impl Faulty {
    /// Behaves like `inner` until faults are injected.
    #[must_use]
    pub fn new(inner: Arc<dyn Backend>) -> Self {
        Self { inner, plan: Arc::default() }
    }

    /// Plans a fault.
    pub fn inject(&self, fault: Fault) {
        self.plan().faults.push(fault);
    }

    /// How many faults have happened: a test whose fault never fired has tested nothing.
    #[must_use]
    pub fn fired(&self) -> usize {
        self.plan().fired
    }

    fn plan(&self) -> std::sync::MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self, operation: Operation, path: &str) -> Option<Kind> {
        let mut plan = self.plan();
        let matches = |f: &&mut Fault| f.times > 0 && f.operation == operation && path.contains(&f.path_contains);
        let fault = plan.faults.iter_mut().find(matches)?;
        fault.times -= 1;
        let kind = fault.kind;
        plan.fired += 1;
        Some(kind)
    }

    /// Any operation but a PUT: what is put off by `LandAfter` or `Forget` does not happen at all.
    async fn disturb<T>(
        &self,
        operation: Operation,
        path: &str,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        match self.next(operation, path) {
            None => work.await,
            Some(Kind::Delay(time)) => {
                tokio::time::sleep(time).await;
                work.await
            }
            Some(Kind::LoseReply) => {
                work.await?;
                Err(lost())
            }
            Some(Kind::Fail | Kind::LandAfter(_) | Kind::Forget) => Err(lost()),
        }
    }
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faulty").field("inner", &self.inner).finish_non_exhaustive()
    }
}

fn lost() -> Failure {
    Failure::Unavailable("connection lost (injected)".to_owned())
}

#[async_trait]
impl Backend for Faulty {
    async fn put_new(&self, path: &str, bytes: Bytes) -> Result<(), Failure> {
        match self.next(Operation::Put, path) {
            None => self.inner.put_new(path, bytes).await,
            Some(Kind::Delay(time)) => {
                tokio::time::sleep(time).await;
                self.inner.put_new(path, bytes).await
            }
            Some(Kind::Fail) => Err(lost()),
            Some(Kind::LoseReply) => {
                self.inner.put_new(path, bytes).await?;
                Err(lost())
            }
            Some(Kind::LandAfter(time)) => {
                let (inner, path) = (self.inner.clone(), path.to_owned());
                tokio::spawn(async move {
                    tokio::time::sleep(time).await;
                    // Nobody waits for it: that is the fault.
                    if let Err(failure) = inner.put_new(&path, bytes).await {
                        tracing::debug!(path, %failure, "a late PUT was refused");
                    }
                });
                Err(lost())
            }
            Some(Kind::Forget) => Ok(()),
        }
    }

    async fn read(&self, path: &str) -> Result<Option<ByteStream>, Failure> {
        self.disturb(Operation::Read, path, self.inner.read(path)).await
    }

    async fn head(&self, path: &str) -> Result<Option<ObjectInfo>, Failure> {
        self.disturb(Operation::Head, path, self.inner.head(path)).await
    }

    async fn list(&self, folder: &str, after: Option<&str>) -> Result<Vec<ObjectInfo>, Failure> {
        self.disturb(Operation::List, folder, self.inner.list(folder, after)).await
    }

    async fn delete(&self, path: &str) -> Result<(), Failure> {
        self.disturb(Operation::Delete, path, self.inner.delete(path)).await
    }
}
