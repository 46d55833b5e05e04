//! The connector `filesystem` on a real S3 server.
//!
//! The server is the one at `MILLSTREAM_TEST_S3` (a URL), else one that `dev/s3.sh` starts for this run.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use millstream_connectors::{
    ConnectorError, DeadLetter, DeadLetterEncoder, DeadLetterReason, EncodedEpoch, S3Options, SinkContext, SinkFactory,
    SinkSpec, SourceFactory, SourcePoll, SourceSpec, connector, dead_letter_committer,
};
use millstream_formats::{FORMAT_OPTIONS, FormatOptions};
use millstream_plan::options::{OptionSpec, Resolved, resolve};
use millstream_plan::{Epoch, EpochPlan, Era, SinkId, SourceId, SplitRange};

struct Server {
    endpoint: String,
    port: String,
    /// Of a server that this run has started.
    dir: Option<PathBuf>,
}

static SERVER: LazyLock<Server> = LazyLock::new(|| {
    if let Ok(endpoint) = std::env::var("MILLSTREAM_TEST_S3") {
        let port = endpoint.rsplit_once(':').unwrap().1.to_owned();
        return Server { endpoint, port, dir: None };
    }
    start("s3")
});

/// Starts a server of its own; `name` is its folder.
fn start(name: &str) -> Server {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    // Nothing drops a static: the folder of the run before is removed here.
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if dir.exists() {
        std::fs::remove_dir_all(&dir).unwrap();
    }
    let server = Server { endpoint: format!("http://127.0.0.1:{port}"), port, dir: Some(dir) };
    server.run(&["start"]);
    server
}

impl Server {
    fn run(&self, args: &[&str]) {
        let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dev/s3.sh"));
        command.args(args).env("S3_PORT", &self.port);
        command.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "testsecret");
        if let Some(dir) = &self.dir {
            // It ends with this process.
            command.env("S3_DIR", dir).env("MILLSTREAM_OWNER", std::process::id().to_string());
        }
        let status = command.stdout(Stdio::null()).status().unwrap();
        assert!(status.success(), "dev/s3.sh {args:?}");
    }

    /// A new bucket.
    fn bucket(&self) -> String {
        static BUCKETS: AtomicU32 = AtomicU32::new(0);
        let name = format!("files-{}-{}", std::process::id(), BUCKETS.fetch_add(1, Ordering::Relaxed));
        self.run(&["bucket", &name]);
        name
    }
}

fn options(server: &Server, tables: &[&[OptionSpec]], path: &str, given: &[(&str, &str)]) -> Resolved {
    let s3 = [
        ("path", path),
        ("s3.endpoint", &server.endpoint),
        ("s3.access-key", "test"),
        ("s3.secret-key", "testsecret"),
        ("s3.region", "us-east-1"),
    ];
    let all: BTreeMap<String, String> =
        s3.iter().chain(given).map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let tables: Vec<_> = tables.iter().copied().chain([FORMAT_OPTIONS]).collect();
    resolve(&tables, &[], &all).unwrap()
}

fn schema() -> SchemaRef {
    let fields = ["id", "day"].map(|name| Field::new(name, DataType::Int64, true));
    Arc::new(Schema::new(fields.to_vec()))
}

fn rows(of: std::ops::Range<i64>) -> RecordBatch {
    let id: ArrayRef = Arc::new(Int64Array::from_iter_values(of.clone()));
    let day: ArrayRef = Arc::new(Int64Array::from_iter_values(of.map(|i| i % 2)));
    RecordBatch::try_new(schema(), vec![id, day]).unwrap()
}

fn sink(server: &Server, path: &str, given: &[(&str, &str)]) -> Box<dyn SinkFactory> {
    let filesystem = connector("filesystem").unwrap();
    let options = options(server, filesystem.sink_options.unwrap(), path, given);
    let spec = SinkSpec {
        id: SinkId(0),
        table: "out".to_owned(),
        pipeline: "p".to_owned(),
        format: FormatOptions::from_resolved(&options).unwrap(),
        options,
        schema: schema(),
        primary_key: Vec::new(),
        updating: false,
        key: Vec::new(),
        partitioned_by: vec![1],
        metadata: Vec::new(),
        parallelism: 1,
    };
    (filesystem.sink)(spec).unwrap()
}

fn source(server: &Server, path: &str, given: &[(&str, &str)]) -> Box<dyn SourceFactory> {
    let filesystem = connector("filesystem").unwrap();
    let options = options(server, filesystem.source_options.unwrap(), path, given);
    let mut format = FormatOptions::from_resolved(&options).unwrap().unwrap();
    format.columns = vec!["id".to_owned()];
    let spec = SourceSpec {
        id: SourceId(0),
        table: "in".to_owned(),
        pipeline: "p".to_owned(),
        format: Some(format),
        options,
        schema: Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true)])),
        metadata: Vec::new(),
        prefilter: None,
        key: Vec::new(),
        parallelism: 1,
    };
    (filesystem.source)(spec).unwrap()
}

fn plan(epoch: u64) -> EpochPlan {
    EpochPlan { epoch: Epoch(epoch), now_ms: 0, sources: Vec::new(), checkpoint: false, flush: true, last: false }
}

fn encode(sink: &dyn SinkFactory, epoch: u64, of: std::ops::Range<i64>) -> EncodedEpoch {
    let mut encoder = sink.encoder(0).unwrap();
    encoder.encode(&rows(of), None).unwrap();
    encoder.end_epoch(&plan(epoch)).unwrap()
}

fn context() -> SinkContext {
    SinkContext { era: Era::default(), task: 0, restored: Epoch(0) }
}

/// Everything that is there, read through the source: (files, ids in ascending order).
fn read_all(source: &dyn SourceFactory) -> (Vec<String>, Vec<i64>) {
    let found = source.enumerator().unwrap().discover(&BTreeMap::new(), 0).unwrap();
    let mut ids = Vec::new();
    for split in &found.splits {
        let range = SplitRange { split: split.split.clone(), task: 0, from: 0, to: 1, tag: split.tag.clone() };
        let mut reader = source.reader(0).unwrap();
        let started = Instant::now();
        loop {
            match reader.poll(&range).unwrap() {
                SourcePoll::Batch(batch) => {
                    assert_eq!(batch.bad, []);
                    ids.extend_from_slice(batch.rows.column(0).as_primitive::<Int64Type>().values());
                }
                SourcePoll::Pending => assert!(started.elapsed() < Duration::from_secs(60), "nothing comes"),
                SourcePoll::Done => break,
            }
        }
    }
    ids.sort_unstable();
    let mut files: Vec<String> = found.splits.into_iter().map(|s| s.split.0).collect();
    files.sort();
    (files, ids)
}

#[test]
fn what_the_sink_wrote_the_source_reads() {
    for given in [&[("format", "parquet")][..], &[("format", "json"), ("compression", "zstd")]] {
        let path = format!("s3://{}/some/prefix", SERVER.bucket());
        let sink = sink(&SERVER, &path, given);
        sink.check().unwrap();
        let mut committer = sink.committer(0).unwrap();
        committer.open(&context()).unwrap();
        committer.publish(vec![encode(&*sink, 1, 0..10_000), encode(&*sink, 2, 10_000..10_001)]).unwrap();
        let (files, ids) = read_all(&*source(&SERVER, &path, given));
        let suffix = if given.len() == 1 { "parquet" } else { "json.zst" };
        let expected = ["day=0/part-0-0-0000000001-0", "day=0/part-0-0-0000000002-0", "day=1/part-0-0-0000000001-1"];
        assert_eq!(files, expected.map(|f| format!("{f}.{suffix}")));
        assert_eq!(ids, (0..10_001).collect::<Vec<_>>());
    }
}

#[test]
fn a_second_write_of_the_same_bytes_is_success_and_of_other_bytes_stops_the_pipeline() {
    let path = format!("s3://{}/x", SERVER.bucket());
    let sink = sink(&SERVER, &path, &[("format", "parquet")]);
    let mut committer = sink.committer(0).unwrap();
    committer.publish(vec![encode(&*sink, 1, 0..100)]).unwrap();
    committer.publish(vec![encode(&*sink, 1, 0..100)]).unwrap();
    let other = committer.publish(vec![encode(&*sink, 1, 0..101)]);
    let Err(ConnectorError::Fatal(message)) = other else { panic!("{other:?}") };
    assert!(
        message.contains(&format!("file {path}/day=0/part-0-0-0000000001-0.parquet is there already")),
        "{message}"
    );
    let (_, ids) = read_all(&*source(&SERVER, &path, &[("format", "parquet")]));
    assert_eq!(ids, (0..100).collect::<Vec<_>>());
}

#[test]
fn what_is_wrong_with_the_server_is_said_in_time() {
    let started = Instant::now();
    let refused = |path: &str, given: &[(&str, &str)]| {
        let given: Vec<_> = given.iter().copied().chain([("format", "json")]).collect();
        let check = sink(&SERVER, path, &given).check().unwrap_err();
        let list = source(&SERVER, path, &given).enumerator().map(drop).unwrap_err();
        [check, list]
    };
    for error in refused("s3://there-is-no-such-bucket/x", &[]) {
        let ConnectorError::User { message, hint } = error else { panic!("{error:?}") };
        assert!(message.contains("s3://there-is-no-such-bucket/x") && message.contains("NoSuchBucket"), "{message}");
        assert!(hint.unwrap().contains("create bucket 'there-is-no-such-bucket'"));
    }
    let path = format!("s3://{}/x", SERVER.bucket());
    let wrong = options_with_secret(&path);
    let ConnectorError::User { message, hint } = wrong.check().unwrap_err() else { panic!("accepted") };
    assert!(message.contains("SignatureDoesNotMatch") || message.contains("AccessDenied"), "{message}");
    assert!(hint.unwrap().contains("s3.secret-key"));

    let nobody = Server { endpoint: "http://127.0.0.1:1".to_owned(), port: "1".to_owned(), dir: None };
    let error = sink(&nobody, "s3://b/x", &[("format", "json")]).check().unwrap_err();
    let ConnectorError::Retry(message) = error else { panic!("{error:?}") };
    assert!(message.contains("http://127.0.0.1:1") && message.contains("refused"), "{message}");
    assert!(started.elapsed() < Duration::from_secs(15), "took {:?}", started.elapsed());
}

/// A sink whose secret is not the server's.
fn options_with_secret(path: &str) -> Box<dyn SinkFactory> {
    let filesystem = connector("filesystem").unwrap();
    let given = [
        ("path", path),
        ("format", "json"),
        ("s3.endpoint", &SERVER.endpoint),
        ("s3.access-key", "test"),
        ("s3.secret-key", "guess"),
    ];
    let given = given.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let tables: Vec<_> = filesystem.sink_options.unwrap().iter().copied().chain([FORMAT_OPTIONS]).collect();
    let options = resolve(&tables, &[], &given).unwrap();
    let spec = SinkSpec {
        id: SinkId(0),
        table: "out".to_owned(),
        pipeline: "p".to_owned(),
        format: FormatOptions::from_resolved(&options).unwrap(),
        options,
        schema: schema(),
        primary_key: Vec::new(),
        updating: false,
        key: Vec::new(),
        partitioned_by: Vec::new(),
        metadata: Vec::new(),
        parallelism: 1,
    };
    (filesystem.sink)(spec).unwrap()
}

#[test]
fn an_outage_is_waited_out() {
    let server = start("s3-outage");
    let path = format!("s3://{}/x", server.bucket());
    let sink = sink(&server, &path, &[("format", "parquet")]);
    server.run(&["stop"]);
    std::thread::scope(|scope| {
        let publishing = scope.spawn(|| {
            let mut committer = sink.committer(0).unwrap();
            committer.publish(vec![encode(&*sink, 1, 0..100)])
        });
        // The first tries find nobody.
        std::thread::sleep(Duration::from_secs(2));
        assert!(!publishing.is_finished(), "published to nobody");
        server.run(&["start"]);
        publishing.join().unwrap().unwrap();
    });
    assert_eq!(read_all(&*source(&server, &path, &[("format", "parquet")])).1, (0..100).collect::<Vec<_>>());
    server.run(&["stop"]);
}

#[test]
fn dead_letters_go_to_a_bucket() {
    let location = format!("s3://{}/checkpoints/dead-letters", SERVER.bucket());
    let mut encoder = DeadLetterEncoder::new("orders", 0);
    let letter = DeadLetter {
        source: "orders".to_owned(),
        split: "t/0".into(),
        position: 42,
        timestamp_ms: None,
        reason: DeadLetterReason::Late,
        detail: "late".to_owned(),
        key: None,
        value: b"{}".to_vec(),
    };
    encoder.push(vec![letter]).unwrap();
    let s3 = S3Options {
        endpoint: Some(SERVER.endpoint.clone()),
        access_key: Some("test".to_owned()),
        secret_key: Some("testsecret".to_owned()),
        ..S3Options::default()
    };
    let mut committer = dead_letter_committer(&location, &s3).unwrap();
    committer.open(&context()).unwrap();
    committer.publish(vec![encoder.end_epoch(&plan(3))]).unwrap();
    let found = source(&SERVER, &location, &[("format", "json")]).enumerator().unwrap().discover(&BTreeMap::new(), 0);
    let found: Vec<String> = found.unwrap().splits.into_iter().map(|s| s.split.0).collect();
    assert_eq!(found, ["orders/epoch-0000000003-task-000.jsonl"]);
}
