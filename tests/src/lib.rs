//! The harness of the end-to-end tests: real brokers, real S3 servers, real processes, and a batch engine to compare with.
//!
//! | module | gives |
//! |---|---|
//! | [`kafka`] | a broker to start, kill and freeze; topics, transactions, reading a topic to its end |
//! | [`s3`] | an S3 server, likewise, and its buckets |
//! | [`files`] | rows of all files below a prefix, in a bucket or on the local disk |
//! | [`process`] | our three programs: start, wait for a line, signal, and never leave one behind |
//! | [`pipeline`] | a pipeline from its start to its end, in one process or with a driver and executors |
//! | [`cluster`] | a driver and its executors, to be killed and started again |
//! | [`shop`] | the pipeline that the tests of faults run, and the check of its output |
//! | [`oracle`] | DataFusion as the judge: a batch query over the same rows, compared as a multiset |
//! | [`orders`] | deterministic rows with event time, as JSON and as Arrow |
//! | [`wait`] | waiting for a condition |
//!
//! Everything blocks, has a timeout and fails by panicking with what it waited for. It may be called from plain tests and
//! from inside a multi-threaded tokio runtime.
//!
//! Servers: the tests use the broker at `MILLSTREAM_TEST_KAFKA` and the S3 server at `MILLSTREAM_TEST_S3` when these are
//! set (`make test` does), otherwise each test program starts its own. A test that stops or freezes a server starts its own
//! always. Names of topics and buckets come from [`unique`], so that tests can share both.

#![expect(clippy::panic, clippy::expect_used, reason = "a test fails by panicking, and so does its harness")]

pub mod cluster;
pub mod files;
pub mod kafka;
pub mod oracle;
pub mod orders;
pub mod pipeline;
pub mod process;
pub mod s3;
mod server;
pub mod shop;
pub mod wait;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// `name` with a suffix that no other test of this or another run has.
pub fn unique(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{name}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A fresh folder, gone when dropped, on a file system that the S3 server can use (a `tmpfs` may lack extended attributes).
pub fn temp_dir() -> tempfile::TempDir {
    let run = cache_dir().join("run");
    std::fs::create_dir_all(&run).unwrap_or_else(|e| panic!("cannot make the folder {}: {e}", run.display()));
    tempfile::Builder::new().prefix("test-").tempdir_in(run).expect("cannot make a temporary folder")
}

/// The root of the checkout.
pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is a folder of the repository").to_path_buf()
}

fn cache_dir() -> PathBuf {
    match std::env::var_os("MILLSTREAM_CACHE") {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(std::env::var_os("HOME").expect("HOME is not set")).join(".cache/millstream"),
    }
}
