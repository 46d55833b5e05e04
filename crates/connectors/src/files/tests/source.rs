use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use arrow::array::AsArray;
use arrow::compute::concat_batches;
use arrow::datatypes::{Int64Type, TimeUnit, TimestampMillisecondType};
use millstream_formats::file::FileWriter;
use millstream_plan::{SourceId, SplitId, SplitRange};

use super::*;
use crate::files::SOURCE_TABLES;
use crate::files::source::FileSource;
use crate::{
    ConnectorError, DeadLetter, DeadLetterReason, Discovery, MetadataColumn, SourceBatch, SourceFactory, SourcePoll,
    SourceSpec,
};

fn spec(path: &Path, given: &[(&str, &str)]) -> SourceSpec {
    let options = options(SOURCE_TABLES, path, given);
    SourceSpec {
        id: SourceId(0),
        table: "t".to_owned(),
        pipeline: "p".to_owned(),
        format: Some(format(&options)),
        options,
        schema: schema(),
        metadata: Vec::new(),
        prefilter: None,
        key: Vec::new(),
        parallelism: 1,
    }
}

fn source(path: &Path, given: &[(&str, &str)]) -> FileSource {
    FileSource::new(spec(path, given)).unwrap()
}

fn names(found: &Discovery) -> Vec<&str> {
    found.splits.iter().map(|s| s.split.0.as_str()).collect()
}

fn none() -> BTreeMap<SplitId, u64> {
    BTreeMap::new()
}

fn planned(files: &[&str]) -> BTreeMap<SplitId, u64> {
    files.iter().map(|f| (SplitId::from(*f), 1)).collect()
}

/// Reads the only file that the source discovers.
fn read_one(source: &FileSource) -> Result<Vec<SourceBatch>, ConnectorError> {
    let found = source.enumerator()?.discover(&none(), 0)?;
    let [split] = &found.splits[..] else { panic!("{found:?}") };
    read(source, &split.split.0, &split.tag)
}

fn read(source: &FileSource, split: &str, tag: &str) -> Result<Vec<SourceBatch>, ConnectorError> {
    let range = SplitRange { split: split.into(), task: 0, from: 0, to: 1, tag: tag.to_owned() };
    let mut reader = source.reader(0)?;
    let (mut batches, started) = (Vec::new(), Instant::now());
    loop {
        match reader.poll(&range)? {
            SourcePoll::Batch(batch) => batches.push(batch),
            SourcePoll::Pending => {
                assert!(started.elapsed() < Duration::from_secs(60), "nothing comes");
                std::thread::yield_now();
            }
            SourcePoll::Done => return Ok(batches),
        }
    }
}

fn ids(batches: &[SourceBatch]) -> Vec<i64> {
    batches.iter().flat_map(|b| b.rows.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
}

fn letters(batches: Vec<SourceBatch>) -> Vec<DeadLetter> {
    batches.into_iter().flat_map(|b| b.bad).collect()
}

fn set_time(path: &Path, seconds: u64) {
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    fs::File::options().write(true).open(path).unwrap().set_modified(at).unwrap();
}

#[test]
fn every_file_is_found_once_in_the_order_of_time_and_path() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("sub/_hidden")).unwrap();
    fs::create_dir_all(dir.path().join(".staging")).unwrap();
    let add = |name: &str, seconds| {
        fs::write(dir.path().join(name), "{}").unwrap();
        set_time(&dir.path().join(name), seconds);
    };
    for (name, seconds) in [("b", 20), ("a", 20), ("sub/z", 10)] {
        add(name, seconds);
    }
    for hidden in ["_SUCCESS", ".crc", "sub/_hidden/x", ".staging/x"] {
        add(hidden, 1);
    }
    let source = source(dir.path(), &[("format", "json"), ("source.monitor-interval", "10 s")]);
    let mut files = source.enumerator().unwrap();
    let found = files.discover(&none(), 0).unwrap();
    assert_eq!((names(&found), found.complete), (vec!["sub/z", "a", "b"], false));
    assert!(found.splits.iter().all(|s| (s.start, s.end, s.closed) == (0, 1, true)));

    // Older than what is known, but found later; and looked for only when it is time.
    add("sub/c", 5);
    assert_eq!(names(&files.discover(&planned(&["sub/z"]), 9_999).unwrap()), ["a", "b"]);
    assert_eq!(names(&files.discover(&planned(&["sub/z"]), 10_000).unwrap()), ["a", "b", "sub/c"]);
    // Rewritten after it was planned, and rewritten before.
    let before = files.discover(&planned(&["sub/z"]), 10_000).unwrap().splits[0].tag.clone();
    add("sub/z", 30);
    add("a", 30);
    let found = files.discover(&planned(&["sub/z"]), 20_000).unwrap();
    assert_eq!(names(&found), ["a", "b", "sub/c"]);
    assert_ne!(found.splits[0].tag, before);
    // A new enumerator goes on from what is planned.
    let mut restarted = source.enumerator().unwrap();
    assert_eq!(names(&restarted.discover(&planned(&["sub/z", "a"]), 0).unwrap()), ["sub/c", "b"]);
}

#[test]
fn without_monitoring_the_first_listing_is_all() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), "{}").unwrap();
    let source = source(dir.path(), &[("format", "json"), ("source.monitor", "false")]);
    let mut files = source.enumerator().unwrap();
    assert!(files.discover(&none(), 0).unwrap().complete);
    fs::write(dir.path().join("b"), "{}").unwrap();
    let found = files.discover(&none(), 1 << 40).unwrap();
    assert_eq!((names(&found), found.complete), (vec!["a"], true));
    // A plan that is given up leaves its file to be planned again.
    assert_eq!(names(&files.discover(&planned(&["a"]), 0).unwrap()), Vec::<&str>::new());
    assert_eq!(names(&files.discover(&none(), 0).unwrap()), ["a"]);
}

#[test]
fn a_missing_folder_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let source = source(&dir.path().join("nowhere"), &[("format", "json")]);
    let Err(ConnectorError::User { message, .. }) = source.enumerator() else { panic!("accepted") };
    assert!(message.contains("/nowhere") && message.contains("No such file"), "{message}");
}

#[test]
fn lines_plain_and_compressed_and_bad_ones_with_their_number() {
    let lines = "{\"id\":1}\n{\"id\":\"x\"}\n{\"id\":3}\nnonsense\n{\"id\":5}\n";
    let gzip = |text: &str| {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        out.write_all(text.as_bytes()).unwrap();
        out.finish().unwrap()
    };
    for bytes in [lines.as_bytes().to_vec(), gzip(lines), zstd::encode_all(lines.as_bytes(), 0).unwrap()] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f.json");
        fs::write(&path, &bytes).unwrap();
        let batches = read_one(&source(dir.path(), &[("format", "json")])).unwrap();
        assert_eq!(ids(&batches), [1, 3, 5]);
        assert_eq!(batches.iter().map(|b| (b.records, b.bad_count)).collect::<Vec<_>>(), [(5, 2)]);
        let late = batches[0].origin.dead_letter(1, DeadLetterReason::Late, "late".to_owned());
        assert_eq!((late.position, &late.value[..]), (2, &b"{\"id\":3}"[..]));
        let bad = letters(batches);
        assert_eq!(bad.iter().map(|l| l.position).collect::<Vec<_>>(), [1, 3]);
        assert_eq!((bad[1].split.0.as_str(), &bad[1].value[..]), ("f.json", &b"nonsense"[..]));
        let place = format!("file {}, record 2: ", path.display());
        assert!(bad[0].detail.starts_with(&place), "{}", bad[0].detail);

        let dropped = read_one(&source(dir.path(), &[("format", "json"), ("bad-records", "drop")])).unwrap();
        assert_eq!((dropped[0].bad_count, dropped[0].bad.len()), (2, 0));
        let failed = read_one(&source(dir.path(), &[("format", "json"), ("bad-records", "fail")]));
        let Err(ConnectorError::User { message, .. }) = failed else { panic!("accepted") };
        assert!(message.contains("record 2"), "{message}");
    }
}

#[test]
fn a_damaged_file_is_a_dead_letter_and_what_stood_before_the_damage_counts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f.json.gz");
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    let line = format!("{{\"id\":1,\"name\":\"{}\"}}\n", "x".repeat(1000));
    out.write_all(line.repeat(20_000).as_bytes()).unwrap();
    let whole = out.finish().unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let table = source(dir.path(), &[("format", "json")]);
    let batches = read_one(&table).unwrap();
    let rows = ids(&batches).len();
    assert!(rows >= 8192, "{rows} rows before the damage");
    assert_eq!(ids(&read_one(&table).unwrap()).len(), rows, "the same on every read");
    let bad = letters(batches);
    assert_eq!(bad.len(), 1);
    assert!(bad[0].detail.contains("f.json.gz: the compressed file is damaged or cut off"), "{}", bad[0].detail);
    let failed = read_one(&source(dir.path(), &[("format", "json"), ("bad-records", "fail")]));
    assert!(matches!(failed, Err(ConnectorError::User { message, .. }) if message.contains("f.json.gz")));
}

fn parquet(rows: &RecordBatch, group_rows: usize) -> Vec<u8> {
    let mut options = FormatOptions::new(millstream_formats::FormatKind::Parquet);
    options.parquet.row_group_rows = group_rows;
    let mut writer = FileWriter::new(&rows.schema(), &options).unwrap();
    writer.write(rows).unwrap();
    writer.finish().unwrap().to_vec()
}

#[test]
fn parquet_by_row_groups_and_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let (path, written) = (dir.path().join("f.parquet"), rows(0..30_000));
    let bytes = parquet(&written, 10_000);
    fs::write(&path, &bytes).unwrap();
    let table = source(dir.path(), &[("format", "parquet")]);
    let batches = read_one(&table).unwrap();
    let sizes: Vec<u64> = batches.iter().map(|b| b.records).collect();
    assert_eq!(sizes, [8192, 1808, 8192, 1808, 8192, 1808]);
    assert_eq!(concat_batches(&schema(), batches.iter().map(|b| &b.rows)).unwrap(), written);
    let late = batches[1].origin.dead_letter(2, DeadLetterReason::Late, "late".to_owned());
    assert_eq!((late.position, &late.value[..]), (8194, &b"{\"id\":8194,\"name\":\"n1\"}"[..]));

    fs::write(&path, &bytes[..bytes.len() - 100]).unwrap();
    let bad = letters(read_one(&table).unwrap());
    assert_eq!(bad.len(), 1);
    assert!(bad[0].detail.contains("f.parquet: the Parquet file is cut off"), "{}", bad[0].detail);
}

#[test]
fn a_file_that_has_changed_since_it_was_planned_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f.json");
    fs::write(&path, "{\"id\":1}\n").unwrap();
    let table = source(dir.path(), &[("format", "json")]);
    let tag = table.enumerator().unwrap().discover(&none(), 0).unwrap().splits[0].tag.clone();
    fs::write(&path, "{\"id\":12}\n").unwrap();
    for expected in ["f.json has changed since it was planned", "f.json is gone since it was planned"] {
        let Err(ConnectorError::User { message, .. }) = read(&table, "f.json", &tag) else { panic!("accepted") };
        assert!(message.contains(expected), "{message}");
        drop(fs::remove_file(&path));
    }
}

#[test]
fn metadata_columns() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("sub")).unwrap();
    let path = dir.path().join("sub/f.csv");
    fs::write(&path, "7,x\n").unwrap();
    set_time(&path, 1000);
    let mut spec = spec(dir.path(), &[("format", "csv")]);
    let ms = DataType::Timestamp(TimeUnit::Millisecond, None);
    let columns = [
        ("file.path", DataType::Utf8),
        ("file.name", DataType::Utf8),
        ("file.size", DataType::Int64),
        ("file.modification-time", ms),
    ];
    for (key, data_type) in columns {
        let field = Arc::new(Field::new(key, data_type, true));
        spec.metadata.push(MetadataColumn { field, key: key.to_owned() });
    }
    let rows = read_one(&FileSource::new(spec.clone()).unwrap()).unwrap()[0].rows.clone();
    let text = |i: usize| rows.column(i).as_string::<i32>().value(0).to_owned();
    assert_eq!((text(1), text(2), text(3)), ("x".to_owned(), path.display().to_string(), "f.csv".to_owned()));
    assert_eq!(rows.column(4).as_primitive::<Int64Type>().value(0), 4);
    assert_eq!(rows.column(5).as_primitive::<TimestampMillisecondType>().value(0), 1_000_000);

    spec.metadata[0].key = "file.pat".to_owned();
    let Err(ConnectorError::User { message, .. }) = FileSource::new(spec) else { panic!("accepted") };
    assert_eq!(message, "table 't': there is no metadata 'file.pat' of type Utf8");
}

#[test]
fn lines_may_be_changes() {
    let dir = tempfile::tempdir().unwrap();
    let lines = [
        r#"{"before":null,"after":{"id":1,"name":"a"},"op":"c"}"#,
        r#"{"before":{"id":1,"name":"a"},"after":{"id":1,"name":"b"},"op":"u"}"#,
        r#"{"before":null,"after":{"id":1,"name":"c"},"op":"u"}"#,
        r#"{"before":{"id":1,"name":"b"},"after":null,"op":"d"}"#,
    ];
    fs::write(dir.path().join("changes"), lines.join("\n")).unwrap();
    let weights = |batch: &SourceBatch| batch.weights.as_ref().unwrap().values().to_vec();
    let batch = read_one(&source(dir.path(), &[("format", "debezium-json")])).unwrap().remove(0);
    assert_eq!((weights(&batch), batch.records, batch.bad_count), (vec![1, -1, 1, -1], 4, 1));
    let letter = &batch.bad[0];
    assert!(
        letter.position == 2 && letter.detail.contains("record 3: op 'u' without the row `before` it"),
        "{letter:?}"
    );
    // The record of a row that stands for the second half of a change.
    assert_eq!(batch.origin.dead_letter(2, DeadLetterReason::Late, String::new()).value, lines[1].as_bytes());
    let mut by_key = spec(dir.path(), &[("format", "debezium-json")]);
    by_key.key = vec!["id".to_owned()];
    by_key.format.as_mut().unwrap().debezium.key.clone_from(&by_key.key);
    let batch = read_one(&FileSource::new(by_key).unwrap()).unwrap().remove(0);
    assert_eq!((weights(&batch), batch.bad_count), (vec![1, 1, 1, -1], 0));
}
