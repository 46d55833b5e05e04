use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use bytes::Bytes;
use millstream_plan::{Era, SinkId};

use super::*;
use crate::files::SINK_TABLES;
use crate::files::commit::FileCommitter;
use crate::files::folder::{Created, FileInfo, Folder, OpenFile};
use crate::files::local::LocalFolder;
use crate::files::sink::FileSink;
use crate::{ConnectorError, EncodedEpoch, OutputFile, Payload, SinkCommitter, SinkContext, SinkFactory, SinkSpec};

fn sink(path: &Path, partitioned_by: &[usize], given: &[(&str, &str)]) -> FileSink {
    FileSink::new(spec(path, partitioned_by, given)).unwrap()
}

fn spec(path: &Path, partitioned_by: &[usize], given: &[(&str, &str)]) -> SinkSpec {
    let options = options(SINK_TABLES, path, given);
    SinkSpec {
        id: SinkId(3),
        table: "out".to_owned(),
        pipeline: "p".to_owned(),
        format: Some(format(&options)),
        options,
        schema: schema(),
        primary_key: Vec::new(),
        updating: false,
        key: Vec::new(),
        partitioned_by: partitioned_by.to_vec(),
        metadata: Vec::new(),
        parallelism: 2,
    }
}

/// Each epoch's batches, from the first id of each up to another, and whether it flushes.
type Input<'a> = &'a [(u64, &'a [(i64, i64)], bool)];

fn encode(sink: &FileSink, epochs: Input<'_>) -> Vec<EncodedEpoch> {
    let mut encoder = sink.encoder(1).unwrap();
    let run = |(epoch, batches, flush): &(u64, &[(i64, i64)], bool)| {
        for (from, to) in *batches {
            encoder.encode(&rows(*from..*to), None).unwrap();
        }
        encoder.end_epoch(&plan(*epoch, *flush)).unwrap()
    };
    epochs.iter().map(run).collect()
}

fn files(epochs: Vec<EncodedEpoch>) -> Vec<OutputFile> {
    let files = |e: EncodedEpoch| match e.payload {
        Payload::Files(files) => files,
        Payload::Empty => Vec::new(),
        other => panic!("{other:?}"),
    };
    epochs.into_iter().flat_map(files).collect()
}

fn text(file: &OutputFile) -> (&str, u64, &str) {
    (&file.path, file.rows, std::str::from_utf8(&file.bytes).unwrap())
}

#[test]
fn rows_are_gathered_until_a_flush() {
    let dir = tempfile::tempdir().unwrap();
    let sink = sink(dir.path(), &[], &[("format", "json")]);
    let encoded = encode(&sink, &[(7, &[(0, 1)], false), (8, &[(1, 2), (2, 3)], true), (9, &[], true)]);
    assert_eq!(encoded.iter().map(|e| e.rows).collect::<Vec<_>>(), [0, 3, 0]);
    let files = files(encoded);
    let lines = "{\"id\":0,\"name\":\"n0\"}\n{\"id\":1,\"name\":\"n1\"}\n{\"id\":2,\"name\":\"n2\"}\n";
    assert_eq!(files.iter().map(text).collect::<Vec<_>>(), [("part-3-1-0000000008-0.json", 3, lines)]);
}

#[test]
fn a_file_that_is_full_leaves_before_the_flush() {
    let dir = tempfile::tempdir().unwrap();
    let by_rows = sink(dir.path(), &[], &[("format", "csv"), ("maxRecordsPerFile", "2"), ("csv.header", "true")]);
    let found = files(encode(&by_rows, &[(1, &[(0, 3)], false), (2, &[(3, 5)], true)]));
    assert_eq!(
        found.iter().map(text).collect::<Vec<_>>(),
        [
            ("part-3-1-0000000001-0.csv", 2, "id,name\n0,n0\n1,n1\n"),
            ("part-3-1-0000000002-0.csv", 2, "id,name\n2,n2\n3,n0\n"),
            ("part-3-1-0000000002-1.csv", 1, "id,name\n4,n1\n"),
        ]
    );
    let by_size = sink(dir.path(), &[], &[("format", "json"), ("sink.rolling-policy.file-size", "100 kb")]);
    let found = files(encode(&by_size, &[(1, &[(0, 20_000)], true)]));
    assert_eq!(found.iter().map(|f| f.rows).collect::<Vec<_>>(), [8192, 8192, 3616]);
}

#[test]
fn the_same_rows_give_the_same_bytes_however_they_are_cut() {
    let dir = tempfile::tempdir().unwrap();
    for format in [
        &[("format", "parquet"), ("parquet.row-group-rows", "10000")][..],
        &[("format", "parquet"), ("compression", "zstd"), ("sink.rolling-policy.file-size", "16 kb")],
        &[("format", "json"), ("compression", "gzip")],
        &[("format", "csv"), ("compression", "zstd")],
    ] {
        let sink = sink(dir.path(), &[], format);
        let whole = files(encode(&sink, &[(1, &[(0, 30_000)], true)]));
        let cut = files(encode(&sink, &[(1, &[(0, 5), (5, 9000), (9000, 29_999), (29_999, 30_000)], true)]));
        assert_eq!(whole, cut, "{format:?}");
        assert_eq!(whole, files(encode(&sink, &[(1, &[(0, 30_000)], true)])), "{format:?}");
        assert_eq!(whole.iter().map(|f| f.rows).sum::<u64>(), 30_000);
    }
}

#[test]
fn partitions_are_folders() {
    let dir = tempfile::tempdir().unwrap();
    let sink = sink(dir.path(), &[1], &[("format", "json")]);
    let found = files(encode(&sink, &[(4, &[(0, 4), (4, 5)], true)]));
    assert_eq!(
        found.iter().map(text).collect::<Vec<_>>(),
        [
            ("name=n0/part-3-1-0000000004-0.json", 2, "{\"id\":0}\n{\"id\":3}\n"),
            ("name=n1/part-3-1-0000000004-1.json", 2, "{\"id\":1}\n{\"id\":4}\n"),
            ("name=n2/part-3-1-0000000004-2.json", 1, "{\"id\":2}\n"),
        ]
    );
}

#[test]
fn rows_that_are_taken_back_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut encoder = sink(dir.path(), &[], &[("format", "json")]).encoder(0).unwrap();
    encoder.encode(&rows(0..2), Some(&Int64Array::from(vec![1, 1]))).unwrap();
    let refused = encoder.encode(&rows(0..2), Some(&Int64Array::from(vec![1, -1])));
    assert!(matches!(refused, Err(ConnectorError::User { message, .. }) if message.contains("only grow")));
}

/// Files of two epochs of changes of rows that `id` identifies.
fn changed(path: &Path, partitioned_by: &[usize], given: &[(&str, &str)]) -> Vec<OutputFile> {
    let sink = FileSink::new(SinkSpec { updating: true, key: vec![0], ..spec(path, partitioned_by, given) }).unwrap();
    let mut encoder = sink.encoder(1).unwrap();
    let weights = |w: &[i64]| Some(Int64Array::from(w.to_vec()));
    encoder.encode(&rows(0..3), None).unwrap();
    encoder.encode(&rows(2..3), weights(&[-1]).as_ref()).unwrap();
    let first = encoder.end_epoch(&plan(1, false)).unwrap();
    let renamed: ArrayRef = Arc::new(StringArray::from(vec!["n0", "x"]));
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![0, 0]));
    let update = RecordBatch::try_new(schema(), vec![ids, renamed]).unwrap();
    encoder.encode(&update, weights(&[-1, 1]).as_ref()).unwrap();
    encoder.encode(&rows(1..2), weights(&[-1]).as_ref()).unwrap();
    files(vec![first, encoder.end_epoch(&plan(2, true)).unwrap()])
}

#[test]
fn changes_have_a_column_that_says_what_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let json = changed(dir.path(), &[], &[("format", "json"), ("changelog.column", "op")]);
    let lines = "{\"op\":\"+I\",\"id\":0,\"name\":\"n0\"}\n{\"op\":\"+I\",\"id\":1,\"name\":\"n1\"}\n\
                 {\"op\":\"-U\",\"id\":0,\"name\":\"n0\"}\n{\"op\":\"+U\",\"id\":0,\"name\":\"x\"}\n\
                 {\"op\":\"-D\",\"id\":1,\"name\":\"n1\"}\n";
    assert_eq!(json.iter().map(text).collect::<Vec<_>>(), [("part-3-1-0000000002-0.json", 5, lines)]);
    let csv = [("format", "csv"), ("csv.header", "true"), ("changelog.column", "change")];
    let csv = changed(dir.path(), &[1], &csv);
    let found: Vec<(&str, &str)> = csv.iter().map(|f| (text(f).0.split('/').next().unwrap(), text(f).2)).collect();
    assert_eq!(
        found,
        [
            ("name=n0", "change,id\n+I,0\n-U,0\n"),
            ("name=n1", "change,id\n+I,1\n-D,1\n"),
            ("name=x", "change,id\n+U,0\n"),
        ]
    );
    // Rows that are only appended have the column too: it belongs to the table.
    let sink = sink(dir.path(), &[], &[("format", "json"), ("changelog.column", "op")]);
    let appended = files(encode(&sink, &[(1, &[(0, 1)], true)]));
    assert_eq!(text(&appended[0]).2, "{\"op\":\"+I\",\"id\":0,\"name\":\"n0\"}\n");
    let parquet = changed(dir.path(), &[], &[("format", "parquet"), ("changelog.column", "op")]);
    assert_eq!((parquet.len(), parquet[0].rows), (1, 5));
}

#[test]
fn changes_as_debezium_writes_them() {
    let dir = tempfile::tempdir().unwrap();
    let found = changed(dir.path(), &[], &[("format", "debezium-json")]);
    let change =
        |before: &str, after: &str, op: &str| format!("{{\"before\":{before},\"after\":{after},\"op\":\"{op}\"}}\n");
    let [n0, n1, x] = [(0, "n0"), (1, "n1"), (0, "x")].map(|(id, name)| format!("{{\"id\":{id},\"name\":\"{name}\"}}"));
    let lines = [
        change("null", &n0, "c"),
        change("null", &n1, "c"),
        change(&n0, "null", "d"),
        change("null", &x, "c"),
        change(&n1, "null", "d"),
    ];
    assert_eq!(text(&found[0]), ("part-3-1-0000000002-0.json", 5, lines.concat().as_str()));
}

#[test]
fn mistakes_of_changelogs() {
    let dir = tempfile::tempdir().unwrap();
    let message = |given: &[(&str, &str)]| FileSink::new(spec(dir.path(), &[], given)).err().unwrap().to_string();
    assert!(message(&[("format", "json"), ("changelog.column", "name")]).contains("has a column 'name' already"));
    assert!(message(&[("format", "debezium-json"), ("changelog.column", "op")]).contains("says itself"));
    let schema = [("format", "debezium-json"), ("debezium-json.schema-include", "true")];
    assert!(message(&schema).contains("without their schema"));
}

fn context() -> SinkContext {
    SinkContext { era: Era::default(), task: 1, restored: Epoch(5) }
}

fn file(path: &str, bytes: &'static [u8]) -> OutputFile {
    OutputFile { path: path.to_owned(), bytes: Bytes::from_static(bytes), rows: 1 }
}

fn epoch(files: Vec<OutputFile>) -> EncodedEpoch {
    EncodedEpoch { epoch: Epoch(6), payload: Payload::Files(files), ..EncodedEpoch::default() }
}

/// Paths below a folder, hidden ones too.
fn tree(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path.strip_prefix(root).unwrap().to_owned()) }
        }
    }
    found.sort();
    found
}

#[test]
fn publishing_again_changes_nothing_and_other_content_stops_the_pipeline() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("a/b");
    let sink = sink(&root, &[], &[("format", "json")]);
    sink.check().unwrap();
    let mut committer = sink.committer(1).unwrap();
    assert_eq!(committer.open(&context()).unwrap(), Epoch(5));
    let both = || epoch(vec![file("x=1/part-3-1-6-0.json", b"one"), file("part-3-1-6-1.json", b"two")]);
    committer.publish(vec![both()]).unwrap();
    committer.publish(vec![both()]).unwrap();
    let expected = [PathBuf::from("part-3-1-6-1.json"), PathBuf::from("x=1/part-3-1-6-0.json")];
    assert_eq!(tree(&root), expected);
    let other = committer.publish(vec![epoch(vec![file("part-3-1-6-1.json", b"three")])]);
    let Err(ConnectorError::Fatal(message)) = other else { panic!("{other:?}") };
    assert!(message.contains("part-3-1-6-1.json is there already with other content"), "{message}");
    assert_eq!(fs::read(root.join("part-3-1-6-1.json")).unwrap(), b"two");
}

#[test]
fn what_an_earlier_owner_left_unfinished_goes_away_and_that_of_others_stays() {
    let dir = tempfile::tempdir().unwrap();
    let sink = sink(dir.path(), &[], &[("format", "json")]);
    let staging = dir.path().join(".staging");
    fs::create_dir(&staging).unwrap();
    for name in ["part-3-1-0000000009-0.json.77-0", "part-3-12-0000000009-0.json.77-1"] {
        fs::write(staging.join(name), "half").unwrap();
    }
    sink.committer(1).unwrap().open(&context()).unwrap();
    assert_eq!(tree(dir.path()), [PathBuf::from(".staging/part-3-12-0000000009-0.json.77-1")]);
}

#[test]
fn a_listing_never_shows_a_part_of_a_file() {
    const SIZE: usize = 2 << 20;
    let dir = tempfile::tempdir().unwrap();
    let folder: Arc<dyn Folder> = Arc::new(LocalFolder::new(dir.path()));
    let (done, bytes) = (AtomicBool::new(false), Bytes::from(vec![7; SIZE]));
    thread::scope(|scope| {
        scope.spawn(|| {
            for i in 0..20 {
                assert_eq!(folder.create(&format!("part-{i}"), &bytes).unwrap(), Created::New);
            }
            done.store(true, Ordering::Release);
        });
        let mut seen = 0;
        while !done.load(Ordering::Acquire) {
            for entry in fs::read_dir(dir.path()).unwrap() {
                let entry = entry.unwrap();
                if !entry.file_name().to_string_lossy().starts_with(['_', '.']) {
                    assert_eq!(entry.metadata().unwrap().len(), SIZE as u64);
                    seen += 1;
                }
            }
        }
        assert!(seen > 0, "nothing was listed while files were written");
    });
    assert_eq!(folder.list().unwrap().len(), 20);
}

/// A store whose answers go wrong in turn.
#[derive(Debug, Default)]
struct Shaky {
    files: Mutex<BTreeMap<String, Bytes>>,
    /// What happens to the next creations; afterwards they succeed.
    faults: Mutex<Vec<Fault>>,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The other side does not answer.
    Down,
    /// The file is written, but the answer is lost.
    ReplyLost,
    /// 409: somebody else seems to be writing.
    Conflict,
}

impl Folder for Shaky {
    fn list(&self) -> Result<Vec<FileInfo>, ConnectorError> {
        panic!("a committer does not list")
    }

    fn check_readable(&self) -> Result<(), ConnectorError> {
        Ok(())
    }

    fn open(&self, _path: &str, _tag: &str) -> Result<Arc<dyn OpenFile>, ConnectorError> {
        panic!("a committer opens nothing")
    }

    fn create(&self, path: &str, bytes: &Bytes) -> Result<Created, ConnectorError> {
        let fault = self.faults.lock().unwrap().pop();
        let mut files = self.files.lock().unwrap();
        match fault {
            Some(Fault::Down) => return Err(ConnectorError::Retry("down".to_owned())),
            Some(Fault::Conflict) => return Ok(Created::Exists),
            Some(Fault::ReplyLost) => {
                files.insert(path.to_owned(), bytes.clone());
                return Err(ConnectorError::Retry("no answer".to_owned()));
            }
            None => {}
        }
        if files.contains_key(path) {
            return Ok(Created::Exists);
        }
        files.insert(path.to_owned(), bytes.clone());
        Ok(Created::New)
    }

    fn read(&self, path: &str) -> Result<Option<Bytes>, ConnectorError> {
        Ok(self.files.lock().unwrap().get(path).cloned())
    }

    fn check_writable(&self) -> Result<(), ConnectorError> {
        Ok(())
    }

    fn discard_unfinished(&self, _name_prefix: &str) -> Result<(), ConnectorError> {
        Ok(())
    }

    fn name_of(&self, path: &str) -> String {
        path.to_owned()
    }
}

#[test]
fn lost_answers_and_conflicts_are_looked_into() {
    let store = Arc::new(Shaky::default());
    *store.faults.lock().unwrap() = vec![Fault::ReplyLost, Fault::Conflict, Fault::Down];
    let mut committer = FileCommitter::new(Arc::clone(&store) as Arc<dyn Folder>, None);
    committer.publish(vec![epoch(vec![file("a", b"one")])]).unwrap();
    assert!(store.faults.lock().unwrap().is_empty());
    assert_eq!(*store.files.lock().unwrap(), BTreeMap::from([("a".to_owned(), Bytes::from_static(b"one"))]));
}
