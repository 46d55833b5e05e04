//! From what the user wrote (`s3://bucket/prefix`, `file:///folder`, a path) to a store.
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::{BackoffConfig, ClientOptions, RetryConfig};

use super::local::LocalFolder;
use super::remote::Remote;
use super::store::{CheckpointStore, config};
use super::{Backend, WriterId};
use crate::StateError;

/// How to reach the store. What is `None` is taken from the environment (`AWS_ENDPOINT_URL`, `AWS_REGION`,
/// `AWS_ACCESS_KEY_ID`, …, and the credential providers of an AWS instance, task or pod).
#[derive(Clone, Default)]
pub struct StoreOptions {
    /// URL of an S3 server other than AWS.
    pub endpoint: Option<String>,
    /// Default `us-east-1`.
    pub region: Option<String>,
    /// Goes with `secret_key`.
    pub access_key: Option<String>,
    /// Goes with `access_key`.
    pub secret_key: Option<String>,
    /// Of temporary credentials.
    pub session_token: Option<String>,
    /// `endpoint/bucket/key` instead of `bucket.endpoint/key`. Default: yes with an endpoint, no without.
    pub path_style: Option<bool>,
    /// Whether plain HTTP is accepted. Default: when the endpoint says `http://`.
    pub allow_http: Option<bool>,
    /// Timeouts.
    pub policy: Policy,
}

impl fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreOptions")
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("path_style", &self.path_style)
            .field("allow_http", &self.allow_http)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

/// How long to try.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// One try of one small request; a large object gets a second more for each MiB.
    pub attempt: Duration,
    /// All tries of one operation, after which it fails with [`StateError::Retry`].
    pub deadline: Duration,
    /// When a PUT has not been answered after this time, the same PUT is sent a second time beside it, which cuts the tail
    /// of the latency. `None`: never.
    pub hedge: Option<Duration>,
}

impl Default for Policy {
    fn default() -> Self {
        Self { attempt: Duration::from_secs(10), deadline: Duration::from_secs(60), hedge: None }
    }
}

impl CheckpointStore {
    /// Opens a location. A folder is created if absent; a bucket is not contacted: call [`Self::probe`].
    ///
    /// # Errors
    /// [`StateError::Config`] for a location or options that cannot work.
    pub fn open(location: &str, options: &StoreOptions, writer: WriterId) -> Result<Self, StateError> {
        let (backend, name): (Arc<dyn Backend>, String) = match parse(location)? {
            Location::Bucket { bucket, prefix } => {
                let remote = bucket_store(&bucket, &prefix, options)?;
                (Arc::new(remote), format!("s3://{bucket}/{prefix}"))
            }
            Location::Folder(folder) => {
                let name = folder.display().to_string();
                let opened = LocalFolder::open(&folder).map_err(|e| match e {
                    StateError::Io { path, source } => config(
                        format!("cannot use the folder {name}: {}: {source}", path.display()),
                        "give a folder that this user may write to",
                    ),
                    other => other,
                });
                (Arc::new(opened?), name)
            }
        };
        Ok(Self::over(backend, name, writer, options.policy))
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Location {
    Bucket { bucket: String, prefix: String },
    Folder(PathBuf),
}

fn parse(location: &str) -> Result<Location, StateError> {
    let forms = "write s3://bucket/prefix, file:///folder, or a path";
    let Some((scheme, rest)) = location.split_once("://") else {
        let path = Path::new(location);
        let absolute =
            std::path::absolute(path).map_err(|e| config(format!("{location:?} is not a path: {e}"), forms))?;
        return Ok(Location::Folder(absolute));
    };
    match scheme {
        "s3" | "s3a" => {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let prefix = prefix.trim_matches('/');
            let legal = |c: char| c.is_ascii_alphanumeric() || "-._=/".contains(c);
            if bucket.is_empty() || !bucket.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)) {
                return Err(config(format!("{location:?} names no valid bucket"), forms));
            }
            if !prefix.chars().all(legal) || prefix.split('/').any(|part| part == "." || part == "..") {
                return Err(config(
                    format!("the prefix in {location:?} has characters that are not the same on every store"),
                    "use letters, digits, '-', '.', '_', '=' and '/'",
                ));
            }
            Ok(Location::Bucket { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
        }
        "file" if rest.starts_with('/') => Ok(Location::Folder(rest.into())),
        "file" => Err(config(format!("{location:?} names a host"), "write file:///folder with three slashes")),
        _ => Err(config(format!("{scheme}:// in {location:?} is not supported"), forms)),
    }
}

fn bucket_store(bucket: &str, prefix: &str, options: &StoreOptions) -> Result<Remote, StateError> {
    let from_env = AmazonS3Builder::from_env();
    let endpoint = options.endpoint.clone().or_else(|| from_env.get_config_value(&AmazonS3ConfigKey::Endpoint));
    let name = match &endpoint {
        Some(endpoint) => format!("bucket {bucket} at {endpoint}"),
        None => format!("bucket {bucket} at AWS"),
    };
    let plain = endpoint.as_ref().is_some_and(|e| e.starts_with("http://"));
    let path_style = options.path_style.unwrap_or(endpoint.is_some());
    // Retries are CheckpointStore's; its timeouts know the size of what is sent.
    let retry =
        RetryConfig { max_retries: 0, retry_timeout: options.policy.deadline, backoff: BackoffConfig::default() };
    let client = ClientOptions::new()
        .with_timeout_disabled()
        .with_connect_timeout(options.policy.attempt.min(Duration::from_secs(5)));
    let mut builder = from_env
        .with_client_options(client)
        .with_allow_http(options.allow_http.unwrap_or(plain))
        .with_bucket_name(bucket)
        .with_virtual_hosted_style_request(!path_style)
        .with_retry(retry);
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(region) = &options.region {
        builder = builder.with_region(region);
    }
    if let Some(key) = &options.access_key {
        builder = builder.with_access_key_id(key);
    }
    if let Some(secret) = &options.secret_key {
        builder = builder.with_secret_access_key(secret);
    }
    if let Some(token) = &options.session_token {
        builder = builder.with_token(token);
    }
    let store = builder
        .build()
        .map_err(|e| config(format!("cannot use {name}: {e}"), "check the endpoint and that both keys are given"))?;
    Ok(Remote::new(Arc::new(store), prefix, name))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn locations_are_understood_or_refused_with_what_to_write() {
        let bucket = |b: &str, p: &str| Location::Bucket { bucket: b.to_owned(), prefix: p.to_owned() };
        assert_eq!(parse("s3://b/a/c/").unwrap(), bucket("b", "a/c"));
        assert_eq!(parse("s3a://b").unwrap(), bucket("b", ""));
        assert_eq!(parse("file:///tmp/x").unwrap(), Location::Folder("/tmp/x".into()));
        assert!(matches!(parse("some/path").unwrap(), Location::Folder(p) if p.is_absolute()));
        for wrong in ["s3://", "s3:///x", "gs://b/x", "file://host/x", "s3://b/../x", "s3://b/a b", "hdfs://n/x"] {
            assert!(matches!(parse(wrong), Err(StateError::Config { hint: Some(_), .. })), "{wrong}");
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let options = StoreOptions {
            secret_key: Some("hush".into()),
            session_token: Some("hush".into()),
            ..StoreOptions::default()
        };
        assert!(!format!("{options:?}").contains("hush"));
    }
}
