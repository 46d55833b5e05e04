//! A bucket as a store, through `object_store` with its own retries switched off: what may be sent again, and when to look
//! first, is decided in one place, [`CheckpointStore`](super::CheckpointStore).
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions};

use super::backend::{Backend, ByteStream, Failure, ObjectInfo};

/// Objects of any `object_store` implementation whose `PutMode::Create` is atomic, under a prefix.
pub struct Remote {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    /// Bucket and endpoint, for messages.
    name: String,
}

impl Remote {
    /// `name` is what messages call the store: bucket and endpoint.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>, prefix: &str, name: impl Into<String>) -> Self {
        Self { store, prefix: Path::from(prefix), name: name.into() }
    }

    fn full(&self, path: &str) -> Path {
        path.split('/').fold(self.prefix.clone(), Path::join)
    }

    fn info(&self, meta: ObjectMeta) -> ObjectInfo {
        let path = match meta.location.prefix_match(&self.prefix) {
            Some(parts) => parts.collect::<Path>().to_string(),
            None => meta.location.to_string(),
        };
        ObjectInfo { path, bytes: meta.size, modified: meta.last_modified.into() }
    }

    fn failure(&self, error: &Error) -> Failure {
        failure(&self.name, error)
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("name", &self.name).field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// The innermost message: the outer ones repeat the URL and the inner ones.
fn cause(error: &Error) -> String {
    let mut inner: &dyn std::error::Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    let text = inner.to_string();
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(1000).collect()
}

/// The text of an element of S3's error document.
fn element<'a>(document: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = document.split_once(&format!("<{name}>"))?;
    Some(rest.split_once(&format!("</{name}>"))?.0)
}

fn failure(name: &str, error: &Error) -> Failure {
    let refused = |message: String, hint: &str| Failure::Refused { message, hint: hint.to_owned() };
    let full = cause(error);
    let code = element(&full, "Code");
    let cause = match (code, element(&full, "Message")) {
        (Some(code), Some(message)) => format!("{message} ({code})"),
        _ => full.clone(),
    };
    let denied = || {
        refused(
            format!("access to {name} was denied: {cause}"),
            "check the access key, the secret key and the bucket's policy (get, put, list and delete are needed)",
        )
    };
    match (error, code) {
        (_, Some("NoSuchBucket")) => {
            let hint = "create the bucket, or correct the location or the endpoint";
            return refused(format!("{name} does not exist"), hint);
        }
        // Some servers say so of the user. Only a missing key means that there is no object.
        (Error::NotFound { .. }, Some(code)) if code != "NoSuchKey" => return denied(),
        _ => {}
    }
    match error {
        Error::AlreadyExists { .. } | Error::Precondition { .. } | Error::NotModified { .. } => Failure::Exists,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => denied(),
        Error::NotImplemented { .. } | Error::NotSupported { .. } => refused(
            format!("{name} lacks an operation: {cause}"),
            "use a store that supports conditional writes (If-None-Match)",
        ),
        Error::Generic { .. } if is_client_error(&full) => refused(
            format!("{name} refused the request: {cause}"),
            "check the endpoint, the region and whether the store needs path-style addressing",
        ),
        _ => Failure::Unavailable(format!("{name}: {cause}")),
    }
}

/// Whether repeating the request is pointless: a 4xx that is neither a timeout nor throttling, or a redirect to elsewhere.
/// `object_store` keeps the status code private, so its message is read.
fn is_client_error(cause: &str) -> bool {
    let status = cause.split_once("status code: ").and_then(|(_, rest)| rest.get(..3)?.parse::<u16>().ok());
    match status {
        Some(408 | 429) => false,
        Some(status) => (300..500).contains(&status),
        None => cause.contains("redirect without LOCATION"),
    }
}

#[async_trait]
impl Backend for Remote {
    async fn put_new(&self, path: &str, bytes: Bytes) -> Result<(), Failure> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let put = self.store.put_opts(&self.full(path), bytes.into(), options).await;
        put.map(|_| ()).map_err(|e| self.failure(&e))
    }

    async fn read(&self, path: &str) -> Result<Option<ByteStream>, Failure> {
        match self.store.get(&self.full(path)).await {
            Ok(found) => {
                let name = self.name.clone();
                Ok(Some(found.into_stream().map_err(move |e| failure(&name, &e)).boxed()))
            }
            Err(e) => match (self.failure(&e), e) {
                (Failure::Unavailable(_), Error::NotFound { .. }) => Ok(None),
                (failure, _) => Err(failure),
            },
        }
    }

    async fn head(&self, path: &str) -> Result<Option<ObjectInfo>, Failure> {
        match self.store.head(&self.full(path)).await {
            Ok(meta) => Ok(Some(self.info(meta))),
            Err(e) => match (self.failure(&e), e) {
                (Failure::Unavailable(_), Error::NotFound { .. }) => Ok(None),
                (failure, _) => Err(failure),
            },
        }
    }

    async fn list(&self, folder: &str, after: Option<&str>) -> Result<Vec<ObjectInfo>, Failure> {
        let folder = self.full(folder);
        let listing = match after {
            Some(after) => self.store.list_with_offset(Some(&folder), &self.full(after)),
            None => self.store.list(Some(&folder)),
        };
        let found: Vec<ObjectMeta> = listing.try_collect().await.map_err(|e| self.failure(&e))?;
        let mut found: Vec<_> = found.into_iter().map(|meta| self.info(meta)).collect();
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    async fn delete(&self, path: &str) -> Result<(), Failure> {
        match self.store.delete(&self.full(path)).await {
            Ok(()) => Ok(()),
            Err(e) => match (self.failure(&e), e) {
                (Failure::Unavailable(_), Error::NotFound { .. }) => Ok(()),
                (failure, _) => Err(failure),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &str) -> Error {
        Error::Generic { store: "S3", source: text.to_owned().into() }
    }

    #[test]
    fn what_the_store_says_decides_what_the_caller_can_do() {
        let is_refused = |error: &Error| matches!(failure("bucket b", error), Failure::Refused { .. });
        assert!(is_refused(&generic(
            "Server returned non-2xx status code: 400 Bad Request: AuthorizationHeaderMalformed"
        )));
        assert!(is_refused(&generic("Received redirect without LOCATION, this normally indicates …")));
        assert!(is_refused(&Error::NotFound { path: "x".into(), source: "<Code>NoSuchBucket</Code>".into() }));
        let missing =
            |code: &str| Error::NotFound { path: "x".into(), source: format!("404: <Code>{code}</Code>").into() };
        assert!(is_refused(&missing("UserNotFound")));
        assert!(!is_refused(&missing("NoSuchKey")));
        assert!(is_refused(&Error::PermissionDenied { path: "x".into(), source: "AccessDenied".into() }));
        for passing in ["status code: 503 Slow Down", "status code: 429 Too Many", "status code: 500", "timed out"] {
            assert!(matches!(failure("b", &generic(passing)), Failure::Unavailable(_)), "{passing}");
        }
        let conflict = Error::AlreadyExists { path: "x".into(), source: "status code: 409".into() };
        assert!(matches!(failure("b", &conflict), Failure::Exists));
    }
}
