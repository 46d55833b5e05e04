#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
use arrow::array::{ArrayRef, Int64Array, StringArray, TimestampMillisecondArray};
use arrow::datatypes::Field;
use millstream_formats::FORMAT_OPTIONS;
use millstream_plan::options::resolve;
use millstream_plan::{Epoch, SinkId};

use super::super::options::{KEY_OPTIONS, SINK_OPTIONS};
use super::*;

/// Columns `id`, `name`, `at`.
fn spec(options: &[(&str, &str)], primary_key: &[usize], metadata: &[(usize, &str)]) -> SinkSpec {
    let given = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let options = resolve(&[SINK_OPTIONS, KEY_OPTIONS, FORMAT_OPTIONS], &["properties."], &given).unwrap();
    SinkSpec {
        id: SinkId(0),
        table: "out".to_owned(),
        pipeline: "p".to_owned(),
        format: FormatOptions::from_resolved(&options).unwrap(),
        options,
        schema: Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int64, true),
            Field::new("name", DataType::Utf8, true),
            Field::new("at", DataType::Timestamp(TimeUnit::Millisecond, None), true),
        ])),
        primary_key: primary_key.to_vec(),
        updating: false,
        key: Vec::new(),
        partitioned_by: Vec::new(),
        metadata: metadata.iter().map(|(c, k)| (*c, (*k).to_owned())).collect(),
        parallelism: 1,
    }
}

fn make(spec: &SinkSpec) -> Result<KafkaEncoder, ConnectorError> {
    let format = spec.format.as_ref().unwrap();
    let writes = match (format.kind.is_changelog(), spec.primary_key.is_empty()) {
        (true, _) => Writes::Changelog,
        (false, true) => Writes::Append,
        (false, false) => Writes::Upsert,
    };
    KafkaEncoder::new(spec, format, writes)
}

fn rows(spec: &SinkSpec, rows: &[(i64, &str)]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.0))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.1))),
        Arc::new(TimestampMillisecondArray::from_value(7, rows.len())),
    ];
    RecordBatch::try_new(Arc::clone(&spec.schema), columns).unwrap()
}

/// (key, value) of the epoch's records; `-` stands for none.
fn finish(encoder: &mut KafkaEncoder) -> Result<Vec<(String, String)>, ConnectorError> {
    let plan =
        EpochPlan { epoch: Epoch(1), now_ms: 0, sources: Vec::new(), checkpoint: false, flush: false, last: false };
    let text = |b: Option<Vec<u8>>| b.map_or("-".to_owned(), |b| String::from_utf8(b).unwrap());
    Ok(match encoder.end_epoch(&plan)?.payload {
        Payload::Kafka(records) => records.into_iter().map(|r| (text(r.key), text(r.value))).collect(),
        _ => Vec::new(),
    })
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

#[test]
fn keys_and_values() {
    let s = spec(
        &[("format", "json"), ("key.fields", "id"), ("value.fields-include", "EXCEPT_KEY")],
        &[],
        &[(2, "timestamp")],
    );
    let mut e = make(&s).unwrap();
    e.encode(&rows(&s, &[(1, "a"), (2, "b")]), None).unwrap();
    assert_eq!(
        finish(&mut e).unwrap(),
        pairs(&[(r#"{"id":1}"#, r#"{"name":"a"}"#), (r#"{"id":2}"#, r#"{"name":"b"}"#)])
    );
    assert_eq!(finish(&mut e).unwrap(), pairs(&[]));

    let s = spec(
        &[("format", "json"), ("key.format", "raw"), ("key.fields", "name")],
        &[],
        &[(2, "timestamp"), (0, "partition")],
    );
    let mut e = make(&s).unwrap();
    e.encode(&rows(&s, &[(1, "a")]), None).unwrap();
    assert_eq!(finish(&mut e).unwrap(), pairs(&[("a", r#"{"name":"a"}"#)]));
}

#[test]
fn weights_of_an_appending_sink() {
    let s = spec(&[("format", "json")], &[], &[(2, "timestamp"), (0, "partition")]);
    let mut e = make(&s).unwrap();
    e.encode(&rows(&s, &[(0, "a"), (0, "b")]), Some(&Int64Array::from(vec![2, 1]))).unwrap();
    let (a, b) = (r#"{"name":"a"}"#, r#"{"name":"b"}"#);
    assert_eq!(finish(&mut e).unwrap(), pairs(&[("-", a), ("-", a), ("-", b)]));
    let error = e.encode(&rows(&s, &[(0, "a")]), Some(&Int64Array::from(vec![-1]))).unwrap_err();
    assert!(error.to_string().contains("only takes new rows"), "{error}");
}

#[test]
fn an_upsert_writes_once_per_key_and_epoch() {
    let s = spec(&[("format", "json")], &[0], &[(2, "timestamp")]);
    let mut e = make(&s).unwrap();
    let batch = rows(&s, &[(1, "old"), (2, "x"), (1, "new"), (3, "gone"), (2, "x"), (4, "old4"), (4, "old4")]);
    e.encode(&batch, Some(&Int64Array::from(vec![-1, 1, 1, -1, -1, 1, -1]))).unwrap();
    let expected = pairs(&[(r#"{"id":1}"#, r#"{"id":1,"name":"new"}"#), (r#"{"id":3}"#, "-")]);
    assert_eq!(finish(&mut e).unwrap(), expected);
    // An epoch starts without memory of the one before.
    e.encode(&rows(&s, &[(1, "newer")]), None).unwrap();
    assert_eq!(finish(&mut e).unwrap(), pairs(&[(r#"{"id":1}"#, r#"{"id":1,"name":"newer"}"#)]));
}

#[test]
fn the_last_of_added_rows_stays() {
    let s = spec(&[("format", "json")], &[0], &[(2, "timestamp")]);
    let mut e = make(&s).unwrap();
    e.encode(&rows(&s, &[(1, "a"), (2, "x"), (1, "b")]), None).unwrap();
    e.encode(&rows(&s, &[(2, "y"), (1, "a")]), None).unwrap();
    let expected = [(r#"{"id":1}"#, r#"{"id":1,"name":"a"}"#), (r#"{"id":2}"#, r#"{"id":2,"name":"y"}"#)];
    assert_eq!(finish(&mut e).unwrap(), pairs(&expected));
}

#[test]
fn two_live_rows_for_a_key_are_an_error() {
    let s = spec(&[("format", "json")], &[0], &[(2, "timestamp")]);
    let mut e = make(&s).unwrap();
    e.encode(&rows(&s, &[(1, "c"), (1, "a"), (1, "b")]), Some(&Int64Array::from(vec![-1, 1, 1]))).unwrap();
    let error = finish(&mut e).unwrap_err().to_string();
    assert!(error.contains(r#"key {"id":1}"#) && error.contains(r#""a""#) && error.contains(r#""b""#), "{error}");
}

#[test]
fn a_changelog_writes_what_is_left_of_the_changes() {
    let s = spec(&[("format", "debezium-json")], &[0], &[(2, "timestamp")]);
    let mut e = make(&s).unwrap();
    let batch = rows(&s, &[(1, "new"), (2, "x"), (1, "old"), (3, "gone"), (2, "x"), (4, "twice")]);
    e.encode(&batch, Some(&Int64Array::from(vec![1, 1, -1, -1, -1, 2]))).unwrap();
    let change = |id: i64, name: &str, op: &str| {
        let row = format!(r#"{{"id":{id},"name":"{name}"}}"#);
        let (before, after) = if op == "d" { (row.as_str(), "null") } else { ("null", row.as_str()) };
        (format!(r#"{{"id":{id}}}"#), format!(r#"{{"before":{before},"after":{after},"op":"{op}"}}"#))
    };
    let twice = change(4, "twice", "c");
    let expected = [change(1, "old", "d"), change(1, "new", "c"), change(3, "gone", "d"), twice.clone(), twice];
    assert_eq!(finish(&mut e).unwrap(), expected);
    // Rows that are only added are changes too; without a key each stands for itself.
    let given = [("format", "debezium-json"), ("debezium-json.encode.ignore-null-fields", "true")];
    let s = spec(&given, &[], &[(2, "timestamp"), (0, "partition")]);
    let mut e = make(&s).unwrap();
    e.encode(&rows(&s, &[(0, "a"), (0, "b")]), None).unwrap();
    let expected = pairs(&[("-", r#"{"after":{"name":"a"},"op":"c"}"#), ("-", r#"{"after":{"name":"b"},"op":"c"}"#)]);
    assert_eq!(finish(&mut e).unwrap(), expected);
}

#[test]
fn mistakes() {
    let message = |s: &SinkSpec| make(s).err().unwrap().to_string();
    assert!(message(&spec(&[("format", "json"), ("key.fields", "nope")], &[], &[])).contains("no column 'nope'"));
    assert!(message(&spec(&[("format", "json"), ("key.fields", "id")], &[], &[(1, "key")])).contains("given twice"));
    assert!(message(&spec(&[("format", "json"), ("key.fields", "name")], &[0], &[])).contains("differ"));
    assert!(message(&spec(&[("format", "json")], &[], &[(1, "offset")])).contains("'offset'"));
}
