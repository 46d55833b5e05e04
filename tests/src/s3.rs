//! A real S3 server: its life and its buckets.

use std::sync::{Arc, OnceLock};

use object_store::aws::{AmazonS3Builder, S3ConditionalPut};

use crate::files::Files;
use crate::server::{Server, run_script};

/// A server: one of its own, which the test may stop and freeze, or one that all tests share.
pub struct S3 {
    server: Option<Server>,
    endpoint: String,
}

impl S3 {
    /// The server for tests that leave it alone.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<S3> = OnceLock::new();
        SHARED.get_or_init(|| match std::env::var("MILLSTREAM_TEST_S3") {
            Ok(endpoint) => Self { server: None, endpoint },
            Err(_) => Self::start(),
        })
    }

    /// A server of the test's own, empty, gone when dropped.
    pub fn start() -> Self {
        let server = Server::start("s3.sh", "S3", 1);
        let endpoint = format!("http://127.0.0.1:{}", server.port());
        Self { server: Some(server), endpoint }
    }

    /// `http://host:port`.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The variables by which a program finds this server.
    pub fn env(&self) -> Vec<(String, String)> {
        [
            ("AWS_ENDPOINT", self.endpoint.as_str()),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", &credential("AWS_ACCESS_KEY_ID", "test")),
            ("AWS_SECRET_ACCESS_KEY", &credential("AWS_SECRET_ACCESS_KEY", "testsecret")),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    /// Makes a bucket.
    pub fn create_bucket(&self, name: &str) -> Bucket {
        match &self.server {
            Some(server) => server.run("bucket", &[name]),
            None => {
                let port = self.endpoint.rsplit(':').next().unwrap_or_default();
                run_script("s3.sh", &[("S3_PORT".into(), port.into())], "bucket", &[name]);
            }
        }
        let store = AmazonS3Builder::new()
            .with_endpoint(&self.endpoint)
            .with_allow_http(true)
            .with_region("us-east-1")
            .with_bucket_name(name)
            .with_access_key_id(credential("AWS_ACCESS_KEY_ID", "test"))
            .with_secret_access_key(credential("AWS_SECRET_ACCESS_KEY", "testsecret"))
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            .build()
            .unwrap_or_else(|e| panic!("no client for the bucket {name}: {e}"));
        Bucket { name: name.to_owned(), files: Files::new(Arc::new(store)) }
    }

    /// Ends the server in order; its data stay.
    pub fn stop(&self) {
        self.own().run("stop", &[]);
    }

    /// SIGKILL; its data stay.
    pub fn kill(&self) {
        self.own().run("kill", &[]);
    }

    /// Starts a stopped or killed server again, on the same port and data.
    pub fn start_again(&self) {
        self.own().run("start", &[]);
    }

    /// SIGSTOP: connections stay open and nothing answers.
    pub fn freeze(&self) {
        self.own().signal(libc::SIGSTOP);
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.own().signal(libc::SIGCONT);
    }

    fn own(&self) -> &Server {
        self.server.as_ref().expect("a test that stops or freezes an S3 server starts its own with S3::start")
    }
}

/// A bucket and what is in it.
pub struct Bucket {
    name: String,
    files: Files,
}

impl Bucket {
    /// `s3://bucket/key`.
    pub fn url(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.name)
    }

    pub fn files(&self) -> &Files {
        &self.files
    }
}

fn credential(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}
