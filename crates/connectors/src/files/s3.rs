//! A folder in a bucket of an S3 server. Files are created by a PUT with `If-None-Match: *`.
use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::sync::{Arc, OnceLock, mpsc};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientOptions, Error, GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
    PutPayload, RetryConfig,
};
use tokio::runtime::{Builder, Runtime};

use super::folder::{Created, FileInfo, Folder, OpenFile, is_hidden};
use super::local::changed;
use crate::ConnectorError;

/// One try of a small request; each MiB that is sent or fetched adds [`PER_MIB`].
const ATTEMPT: Duration = Duration::from_secs(5);
const PER_MIB: Duration = Duration::from_secs(1);
const CONNECT: Duration = Duration::from_secs(4);
/// A listing may take many requests.
const LISTING: Duration = Duration::from_secs(60);

/// How a bucket is reached; what is not given comes from `AWS_…` variables.
#[derive(Clone, Default)]
pub struct S3Options {
    /// URL of a server other than AWS.
    pub endpoint: Option<String>,
    pub region: Option<String>,
    pub access_key: Option<String>,
    pub secret_key: Option<String>,
    pub session_token: Option<String>,
    /// Default: with an endpoint.
    pub path_style: Option<bool>,
    /// Default: when the endpoint says `http://`.
    pub allow_http: Option<bool>,
}

impl fmt::Debug for S3Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the keys.
        f.debug_struct("S3Options")
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

/// A prefix in a bucket.
#[derive(Clone, Debug)]
pub struct S3Folder {
    store: Arc<dyn ObjectStore>,
    bucket: String,
    prefix: String,
    /// Of the server, for messages.
    server: String,
}

impl S3Folder {
    pub fn new(bucket: &str, prefix: &str, options: &S3Options) -> Result<Self, ConnectorError> {
        let from_env = AmazonS3Builder::from_env();
        let endpoint = options.endpoint.clone().or_else(|| from_env.get_config_value(&AmazonS3ConfigKey::Endpoint));
        let plain = endpoint.as_ref().is_some_and(|e| e.starts_with("http://"));
        // Whoever calls decides about retries; each try is bounded here, by size.
        let once = RetryConfig { max_retries: 0, retry_timeout: ATTEMPT, backoff: BackoffConfig::default() };
        let client = ClientOptions::new().with_timeout_disabled().with_connect_timeout(CONNECT);
        let mut builder = from_env
            .with_client_options(client)
            .with_retry(once)
            .with_allow_http(options.allow_http.unwrap_or(plain))
            .with_virtual_hosted_style_request(!options.path_style.unwrap_or(endpoint.is_some()))
            .with_bucket_name(bucket);
        let given = [
            (AmazonS3ConfigKey::Endpoint, &endpoint),
            (AmazonS3ConfigKey::Region, &options.region),
            (AmazonS3ConfigKey::AccessKeyId, &options.access_key),
            (AmazonS3ConfigKey::SecretAccessKey, &options.secret_key),
            (AmazonS3ConfigKey::Token, &options.session_token),
        ];
        for (key, value) in given {
            if let Some(value) = value {
                builder = builder.with_config(key, value);
            }
        }
        let server = endpoint.unwrap_or_else(|| "AWS".to_owned());
        let store = builder.build().map_err(|e| {
            ConnectorError::user(
                format!("cannot use bucket '{bucket}' at {server}: {e}"),
                "check 'path', 's3.endpoint', and that both keys are given",
            )
        })?;
        let folder = Self { store: Arc::new(store), bucket: bucket.to_owned(), prefix: prefix.to_owned(), server };
        folder.key("")?;
        Ok(folder)
    }

    fn key(&self, path: &str) -> Result<Path, ConnectorError> {
        Path::parse(format!("{}/{path}", self.prefix).trim_matches('/'))
            .map_err(|e| ConnectorError::user(format!("'{}' is no S3 key: {e}", self.name_of(path)), "correct 'path'"))
    }

    /// Runs a request, for at most `limit`.
    fn run<T: Send + 'static>(
        &self,
        doing: &str,
        path: &str,
        limit: Duration,
        request: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<Result<T, Error>, ConnectorError> {
        let (answer, receiver) = mpsc::sync_channel(1);
        // The task ends with its request or its limit; nobody listens any more if this thread is gone.
        io_runtime()?.spawn(async move {
            let outcome = tokio::time::timeout(limit, request).await;
            drop(answer.send(outcome));
        });
        let gone = || ConnectorError::Retry(format!("cannot {doing} {}: the request was dropped", self.name_of(path)));
        receiver.recv().map_err(|_| gone())?.map_err(|_| {
            ConnectorError::Retry(format!(
                "cannot {doing} {}: no answer from {} within {} s",
                self.name_of(path),
                self.server,
                limit.as_secs()
            ))
        })
    }

    fn failed(&self, doing: &str, path: &str, e: &Error) -> ConnectorError {
        let answer = answer(e);
        let message = format!("cannot {doing} {} at {}: {answer}", self.name_of(path), self.server);
        // A listing reports what it was told as a general error.
        let code = answer.split(':').next().unwrap_or_default();
        match (e, code) {
            (Error::NotFound { .. }, _) | (_, "NoSuchBucket") => {
                ConnectorError::user(message, format!("create bucket '{}', or correct 'path'", self.bucket))
            }
            (Error::PermissionDenied { .. } | Error::Unauthenticated { .. }, _)
            | (_, "AccessDenied" | "InvalidAccessKeyId" | "SignatureDoesNotMatch") => {
                ConnectorError::user(message, "check 's3.access-key', 's3.secret-key' and what they may do")
            }
            (Error::NotImplemented { .. } | Error::NotSupported { .. }, _) | (_, "NotImplemented") => {
                ConnectorError::user(message, "use an S3 server that supports this request")
            }
            (Error::InvalidPath { .. } | Error::UnknownConfigurationKey { .. }, _) | (_, "InvalidBucketName") => {
                ConnectorError::user(message, "correct 'path' and the 's3.' options")
            }
            _ if answer.contains("redirect") => ConnectorError::user(message, "set 's3.region' to the bucket's region"),
            _ => ConnectorError::Retry(message),
        }
    }

    fn put_new(&self, path: &str, bytes: &Bytes) -> Result<Created, ConnectorError> {
        let (store, key, payload) = (Arc::clone(&self.store), self.key(path)?, PutPayload::from(bytes.clone()));
        let request = async move { store.put_opts(&key, payload, PutOptions::from(PutMode::Create)).await };
        match self.run("write", path, limit(bytes.len() as u64), request)? {
            Ok(_) => Ok(Created::New),
            // Also 409: a write of the same name is under way. Whoever compares finds out which.
            Err(Error::AlreadyExists { .. }) => Ok(Created::Exists),
            Err(e) => Err(self.failed("write", path, &e)),
        }
    }

    fn info(&self, meta: &ObjectMeta) -> Option<FileInfo> {
        let path = meta.location.as_ref().strip_prefix(&self.prefix)?.trim_start_matches('/').to_owned();
        if path.is_empty() || path.split('/').any(is_hidden) {
            return None;
        }
        let modified_ms = meta.last_modified.timestamp_millis();
        let tag = meta.e_tag.clone().unwrap_or_else(|| format!("{:x}-{modified_ms:x}", meta.size));
        Some(FileInfo { path, bytes: meta.size, modified_ms, tag })
    }
}

/// Time for one try with so many bytes.
fn limit(bytes: u64) -> Duration {
    ATTEMPT + PER_MIB * u32::try_from(bytes >> 20).unwrap_or(u32::MAX)
}

/// What the server or the client library said, in short: code and message of S3's answer, or the innermost cause.
fn answer(e: &Error) -> String {
    let whole = e.to_string();
    let tag = |name: &str| {
        let after = whole.split_once(&format!("<{name}>"))?.1;
        Some(after.split_once(&format!("</{name}>"))?.0.to_owned())
    };
    if let Some(code) = tag("Code") {
        return tag("Message").map_or(code.clone(), |message| format!("{code}: {message}"));
    }
    let mut cause: &dyn std::error::Error = e;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// Sends and receives for all folders; calls come from threads that may wait.
fn io_runtime() -> Result<&'static Runtime, ConnectorError> {
    static RUNTIME: OnceLock<std::io::Result<Runtime>> = OnceLock::new();
    RUNTIME
        .get_or_init(|| Builder::new_multi_thread().worker_threads(1).thread_name("s3-io").enable_all().build())
        .as_ref()
        .map_err(|e| ConnectorError::Retry(format!("cannot start the thread for S3 requests: {e}")))
}

impl Folder for S3Folder {
    fn list(&self) -> Result<Vec<FileInfo>, ConnectorError> {
        let (store, prefix) = (Arc::clone(&self.store), self.key("")?);
        let request = async move { store.list(Some(&prefix)).try_collect::<Vec<_>>().await };
        let found = self.run("list", "", LISTING, request)?.map_err(|e| self.failed("list", "", &e))?;
        Ok(found.iter().filter_map(|meta| self.info(meta)).collect())
    }

    fn check_readable(&self) -> Result<(), ConnectorError> {
        let (store, prefix) = (Arc::clone(&self.store), self.key("")?);
        let request = async move { store.list(Some(&prefix)).try_next().await };
        self.run("list", "", ATTEMPT, request)?.map(drop).map_err(|e| self.failed("list", "", &e))
    }

    fn open(&self, path: &str, tag: &str) -> Result<Arc<dyn OpenFile>, ConnectorError> {
        let (store, key) = (Arc::clone(&self.store), self.key(path)?);
        let head = match self.run("open", path, ATTEMPT, async move { store.head(&key).await })? {
            Ok(head) => head,
            Err(Error::NotFound { .. }) => return Err(changed(&self.name_of(path), "is gone")),
            Err(e) => return Err(self.failed("open", path, &e)),
        };
        match self.info(&head) {
            Some(info) if info.tag == tag => {
                Ok(Arc::new(S3File { folder: self.clone(), key: head.location, info, e_tag: head.e_tag }))
            }
            _ => Err(changed(&self.name_of(path), "has changed")),
        }
    }

    fn create(&self, path: &str, bytes: &Bytes) -> Result<Created, ConnectorError> {
        self.put_new(path, bytes)
    }

    fn read(&self, path: &str) -> Result<Option<Bytes>, ConnectorError> {
        let (store, key) = (Arc::clone(&self.store), self.key(path)?);
        // The size is not known before: a file of the sink's own size at most.
        let request = async move { store.get(&key).await?.bytes().await };
        match self.run("read", path, LISTING, request)? {
            Ok(bytes) => Ok(Some(bytes)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(self.failed("read", path, &e)),
        }
    }

    fn check_writable(&self) -> Result<(), ConnectorError> {
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let probe = format!(".probe-{}-{nanos}", std::process::id());
        let content = Bytes::from_static(b"millstream looks whether it may write here\n");
        self.put_new(&probe, &content)?;
        let second = self.put_new(&probe, &content);
        let (store, key) = (Arc::clone(&self.store), self.key(&probe)?);
        // Not every writer may delete; a hidden file that stays is no harm.
        if let Err(e) = self.run("delete", &probe, ATTEMPT, async move { store.delete(&key).await })? {
            tracing::debug!(file = self.name_of(&probe), error = answer(&e), "cannot delete the probe");
        }
        match second? {
            Created::Exists => Ok(()),
            Created::New => Err(ConnectorError::user(
                format!("{} replaces objects in spite of If-None-Match", self.server),
                "use an S3 server with conditional writes: without them exactly-once cannot be kept",
            )),
        }
    }

    fn discard_unfinished(&self, _name_prefix: &str) -> Result<(), ConnectorError> {
        // A PUT is there as a whole or not at all.
        Ok(())
    }

    fn name_of(&self, path: &str) -> String {
        let key = format!("{}/{path}", self.prefix);
        format!("s3://{}/{}", self.bucket, key.trim_matches('/'))
    }
}

struct S3File {
    folder: S3Folder,
    key: Path,
    info: FileInfo,
    e_tag: Option<String>,
}

impl OpenFile for S3File {
    fn info(&self) -> &FileInfo {
        &self.info
    }

    fn read_at(&self, range: Range<u64>) -> Result<Bytes, ConnectorError> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let (store, key) = (Arc::clone(&self.folder.store), self.key.clone());
        let limit = limit(range.end - range.start);
        let options = GetOptions::new().with_range(Some(range)).with_if_match(self.e_tag.clone());
        let request = async move { store.get_opts(&key, options).await?.bytes().await };
        match self.folder.run("read", &self.info.path, limit, request)? {
            Ok(bytes) => Ok(bytes),
            Err(Error::Precondition { .. }) => Err(changed(&self.folder.name_of(&self.info.path), "has changed")),
            Err(Error::NotFound { .. }) => Err(changed(&self.folder.name_of(&self.info.path), "is gone")),
            Err(e) => Err(self.folder.failed("read", &self.info.path, &e)),
        }
    }
}
