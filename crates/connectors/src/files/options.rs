//! Options of the connector `filesystem`.
use std::time::Duration;

use millstream_plan::options::{OptionKind, OptionSpec, Resolved};

use super::s3::S3Options;
use crate::ConnectorError;

const fn option(
    name: &'static str,
    synonyms: &'static [&'static str],
    kind: OptionKind,
    default: Option<&'static str>,
    text: &'static str,
) -> OptionSpec {
    OptionSpec { name, synonyms, kind, default, text }
}

/// Where the files are; the same for source and sink.
pub const LOCATION_OPTIONS: &[OptionSpec] = &[
    option("path", &[], OptionKind::Text, None, "Folder: a local path, file:///folder or s3://bucket/prefix."),
    option(
        "s3.endpoint",
        &["fs.s3a.endpoint"],
        OptionKind::Text,
        None,
        "URL of an S3 server other than AWS; default $AWS_ENDPOINT_URL.",
    ),
    option(
        "s3.region",
        &["fs.s3a.endpoint.region"],
        OptionKind::Text,
        None,
        "Region of the bucket; default $AWS_REGION, or us-east-1.",
    ),
    option(
        "s3.access-key",
        &["fs.s3a.access.key"],
        OptionKind::Text,
        None,
        "Access key; default $AWS_ACCESS_KEY_ID or the machine's role.",
    ),
    option("s3.secret-key", &["fs.s3a.secret.key"], OptionKind::Text, None, "Secret that goes with the access key."),
    option(
        "s3.session-token",
        &["fs.s3a.session.token"],
        OptionKind::Text,
        None,
        "Token of temporary credentials; default $AWS_SESSION_TOKEN.",
    ),
    option(
        "s3.path-style-access",
        &["s3.path.style.access", "fs.s3a.path.style.access"],
        OptionKind::Bool,
        None,
        "Address endpoint/bucket/key instead of bucket.endpoint/key; default true with an endpoint.",
    ),
    option(
        "s3.allow-http",
        &[],
        OptionKind::Bool,
        None,
        "Accept an endpoint without TLS; default true if the endpoint says http://.",
    ),
];

/// Options of the source.
pub const SOURCE_OPTIONS: &[OptionSpec] = &[
    option(
        "source.monitor-interval",
        &[],
        OptionKind::Duration,
        Some("5 s"),
        "How often the folder is listed for new files.",
    ),
    option(
        "source.monitor",
        &[],
        OptionKind::Bool,
        Some("true"),
        "Go on looking for new files; false: read what is there at the start, then end.",
    ),
    option(
        "source.max-line-size",
        &["maxLineLength"],
        OptionKind::Bytes,
        Some("16 mb"),
        "Longest line of a JSON or CSV file; longer ones are bad records.",
    ),
    option(
        "source.max-inflated-size",
        &[],
        OptionKind::Bytes,
        Some("64 gb"),
        "Most bytes that a compressed file may inflate to; the rest of a larger one is a bad record.",
    ),
];

/// Options of the sink.
pub const SINK_OPTIONS: &[OptionSpec] = &[
    option(
        "sink.rolling-policy.rollover-interval",
        &["commit.interval", "commitInterval"],
        OptionKind::Duration,
        Some("10 s"),
        "How often what has been gathered is published as files.",
    ),
    option(
        "sink.rolling-policy.file-size",
        &[],
        OptionKind::Bytes,
        Some("128 mb"),
        "A file that has grown to this size is finished before the interval is over.",
    ),
    option(
        "sink.rolling-policy.file-rows",
        &["maxRecordsPerFile"],
        OptionKind::Integer,
        None,
        "A file never has more rows than this.",
    ),
    option(
        "changelog.column",
        &[],
        OptionKind::Text,
        None,
        "Write every change of the query's rows, with a first column of this name that says what it is: +I (a row that is there now), -U and +U (a row and the one that takes its place), -D (a row that is there no longer).",
    ),
];

/// The S3 part of [`LOCATION_OPTIONS`].
pub fn s3_options(options: &Resolved) -> S3Options {
    let text = |name: &str| options.text(name).filter(|v| !v.is_empty()).map(str::to_owned);
    let flag = |name: &str| options.text(name).map(|_| options.is_true(name));
    S3Options {
        endpoint: text("s3.endpoint"),
        region: text("s3.region"),
        access_key: text("s3.access-key"),
        secret_key: text("s3.secret-key"),
        session_token: text("s3.session-token"),
        path_style: flag("s3.path-style-access"),
        allow_http: flag("s3.allow-http"),
    }
}

/// What [`SOURCE_OPTIONS`] say.
#[derive(Clone, Copy, Debug)]
pub struct SourceOptions {
    /// `None`: the folder is listed once.
    pub monitor: Option<Duration>,
    pub max_line: usize,
    pub max_inflated: u64,
}

impl SourceOptions {
    pub fn new(options: &Resolved) -> Self {
        let interval = options.duration("source.monitor-interval").unwrap_or(Duration::from_secs(5));
        let max_line = options.bytes("source.max-line-size").unwrap_or(16 << 20);
        Self {
            monitor: options.is_true("source.monitor").then_some(interval),
            max_line: usize::try_from(max_line).unwrap_or(usize::MAX),
            max_inflated: options.bytes("source.max-inflated-size").unwrap_or(64 << 30),
        }
    }
}

/// What [`SINK_OPTIONS`] say.
#[derive(Clone, Copy, Debug)]
pub struct SinkOptions {
    pub commit_interval: Duration,
    pub file_bytes: u64,
    pub file_rows: u64,
}

impl SinkOptions {
    pub fn new(options: &Resolved) -> Result<Self, ConnectorError> {
        let rows = options.integer("sink.rolling-policy.file-rows");
        let file_rows = match rows.map(u64::try_from) {
            None => u64::MAX,
            Some(Ok(rows)) if rows > 0 => rows,
            Some(_) => {
                return Err(ConnectorError::user(
                    format!("'{}' must be at least 1", options.given_as("sink.rolling-policy.file-rows")),
                    "leave it out for files without a limit of rows",
                ));
            }
        };
        let interval = options.duration("sink.rolling-policy.rollover-interval");
        Ok(Self {
            commit_interval: interval.unwrap_or(Duration::from_secs(10)),
            file_bytes: options.bytes("sink.rolling-policy.file-size").unwrap_or(128 << 20).max(1),
            file_rows,
        })
    }
}
