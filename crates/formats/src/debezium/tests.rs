//! Literals in, literals out.
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::{envelope, envelope_schema, wrap};
use crate::{Accept, BadFields, DecodeSpec, Decoded, FormatKind, FormatOptions, PreFilter, decoder, encoder};

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("name", DataType::Utf8, true),
        Field::new("n", DataType::Int64, false),
    ]))
}

fn spec(key: &[&str]) -> DecodeSpec {
    let mut options = FormatOptions::new(FormatKind::DebeziumJson);
    options.debezium.key = key.iter().map(|k| (*k).to_owned()).collect();
    DecodeSpec { schema: schema(), options, prefilter: None }
}

/// Rows as `message weight {row}`, then bad messages as `message: reason`.
fn shown(spec: DecodeSpec, messages: &[&str]) -> Vec<String> {
    let bytes: Vec<&[u8]> = messages.iter().map(|m| m.as_bytes()).collect();
    let Decoded { rows, weights, origin, bad } = decoder(spec).unwrap().decode(&bytes).unwrap();
    rows.columns().iter().for_each(|c| c.to_data().validate_full().unwrap());
    let mut lines = Vec::new();
    for (row, text) in json(&rows).into_iter().enumerate() {
        let weight = weights.as_ref().map_or(1, |w| w.value(row));
        lines.push(format!("{} {weight:+} {text}", origin[row]));
    }
    lines.extend(bad.iter().map(|b| format!("{}: {}", b.message, b.reason)));
    lines
}

fn json(rows: &RecordBatch) -> Vec<String> {
    let (mut out, mut ends) = (Vec::new(), Vec::new());
    encoder(&rows.schema(), &FormatOptions::new(FormatKind::Json)).unwrap().encode(rows, &mut out, &mut ends).unwrap();
    let begins = std::iter::once(0).chain(ends.iter().copied());
    begins.zip(&ends).map(|(b, e)| String::from_utf8(out[b..*e].to_vec()).unwrap()).collect()
}

const A: &str = r#"{"id":1,"name":"a","n":1}"#;
const B: &str = r#"{"id":1,"name":null,"n":2}"#;

#[test]
fn rows_come_and_go() {
    let messages = [
        format!(r#"{{"before":null,"after":{A},"source":{{"ts_ms":1,"before":7}},"op":"c","ts_ms":1700000000000}}"#),
        format!(r#"{{"op":"u","before":{A},"after":{B}}}"#),
        format!(r#"{{"before":{B},"after":null,"op":"d"}}"#),
        format!(r#"{{"after":{A},"op":"r"}}"#),
    ];
    let rows =
        ["0 +1 A", "1 -1 A", "1 +1 B", "2 -1 B", "3 +1 A"].map(|r| r.replace('A', A).replace(" B", &format!(" {B}")));
    assert_eq!(shown(spec(&[]), &messages.each_ref().map(String::as_str)), rows);
}

#[test]
fn with_a_schema_and_mixed() {
    let inner = format!(r#"{{"before":{A},"after":{B},"op":"u"}}"#);
    let wrapped = format!(r#"{{"schema":{{"type":"struct","fields":[]}},"payload":{inner}}}"#);
    let update = |i: usize| [format!("{i} -1 {A}"), format!("{i} +1 {B}")];
    assert_eq!(shown(spec(&[]), &[&wrapped, &wrapped]), [update(0), update(1)].concat());
    assert_eq!(shown(spec(&[]), &[&inner, &wrapped, &inner]), [update(0), update(1), update(2)].concat());
}

#[test]
fn a_snapshot_has_no_weights() {
    let message = format!(r#"{{"after":{A},"op":"r"}}"#);
    let decoded = decoder(spec(&[])).unwrap().decode(&[message.as_bytes(), message.as_bytes()]).unwrap();
    assert!(decoded.weights.is_none() && decoded.rows.num_rows() == 2);
    let decoded = decoder(spec(&[])).unwrap().decode(&[]).unwrap();
    assert!(decoded.weights.is_none() && decoded.rows.num_rows() == 0 && decoded.bad.is_empty());
}

#[test]
fn what_is_bad_and_why() {
    let messages = [
        format!(r#"{{"before":null,"after":{B},"op":"u"}}"#),
        r#"{"before":null,"after":null,"op":"d"}"#.to_owned(),
        r#"{"before":null,"after":null,"op":"c"}"#.to_owned(),
        A.to_owned(),
        format!(r#"{{"before":{A},"op":"t"}}"#),
        r#"{"after":{"id":"x","n":1},"op":"c"}"#.to_owned(),
        r#"{"before":{"id":1},"op":"d"}"#.to_owned(),
        "{".to_owned(),
        format!(r#"{{"after":{A},"op":"c"}}"#),
    ];
    let messages: Vec<&str> = messages.iter().map(String::as_str).collect();
    assert_eq!(
        shown(spec(&[]), &messages),
        [
            format!("8 +1 {A}").as_str(),
            "0: op 'u' without the row `before` it: set REPLICA IDENTITY FULL for the table in PostgreSQL, or declare a PRIMARY KEY here",
            "1: op 'd' without the row `before` it: set REPLICA IDENTITY for the table in PostgreSQL",
            "2: op 'c' without the row `after` it",
            "3: field `op` is missing: not a change as Debezium writes it",
            "4: op 't' is none of c, r, u and d, which change rows",
            "5: field `after`.`id`: expected BIGINT, found 'x' at byte 15",
            "6: field `before`.`n`: null or missing, but BIGINT NOT NULL is declared at byte 18",
            "7: expected a key, found the end of the message at byte 1",
        ]
    );
}

#[test]
fn by_key_only_the_key_of_what_goes_counts() {
    let other = r#"{"id":2,"name":"a","n":1}"#;
    let messages = [
        format!(r#"{{"before":null,"after":{B},"op":"u"}}"#),
        format!(r#"{{"before":{{"id":1,"name":null,"n":null}},"after":{B},"op":"u"}}"#),
        format!(r#"{{"before":{A},"after":{other},"op":"u"}}"#),
        r#"{"before":{"id":2},"after":null,"op":"d"}"#.to_owned(),
        r#"{"before":{"name":"a"},"after":null,"op":"d"}"#.to_owned(),
    ];
    let messages: Vec<&str> = messages.iter().map(String::as_str).collect();
    assert_eq!(
        shown(spec(&["id"]), &messages),
        [
            format!("0 +1 {B}").as_str(),
            format!("1 +1 {B}").as_str(),
            r#"2 -1 {"id":1,"name":null,"n":null}"#,
            format!("2 +1 {other}").as_str(),
            r#"3 -1 {"id":2,"name":null,"n":null}"#,
            "4: field `before`.`id`: null or missing, but BIGINT NOT NULL is declared at byte 22",
        ]
    );
}

#[test]
fn fields_that_do_not_parse_may_be_null() {
    let mut spec = spec(&[]);
    spec.options.bad_fields = BadFields::Null;
    let message = r#"{"after":{"id":1,"name":{"x":1},"n":2},"op":"c"}"#;
    assert_eq!(shown(spec.clone(), &[message]), [r#"0 +1 {"id":1,"name":"{\"x\":1}","n":2}"#]);
    spec.prefilter = Some(PreFilter { column: "id".to_owned(), accept: Accept::Int(vec![1]) });
    assert!(decoder(spec).is_err());
}

#[test]
fn written_as_flink_does() {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![1, 2])),
        Arc::new(StringArray::from(vec![Some("a"), None])),
        Arc::new(Int64Array::from(vec![1, 2])),
    ];
    let rows = RecordBatch::try_new(schema(), columns).unwrap();
    let changes = envelope_schema(&schema());
    let batch = envelope(&changes, &rows, &BooleanArray::from(vec![true, false])).unwrap();
    let old = r#"{"before":{"id":1,"name":"a","n":1},"after":null,"op":"d"}"#;
    let new = r#"{"before":null,"after":{"id":2,"name":null,"n":2},"op":"c"}"#;
    assert_eq!(json(&batch), [old, new]);
    assert_eq!(wrap(A.as_bytes(), true, false), old.as_bytes());
    assert_eq!(wrap(br#"{"id":2,"name":null,"n":2}"#, false, false), new.as_bytes());
    assert_eq!(wrap(b"{}", true, true), br#"{"before":{},"op":"d"}"#);
    assert_eq!(wrap(b"{}", false, true), br#"{"after":{},"op":"c"}"#);
    // What is written is read again.
    let read = shown(spec(&[]), &[old, new]);
    assert_eq!(read, [format!("0 -1 {A}"), r#"1 +1 {"id":2,"name":null,"n":2}"#.to_owned()]);
}
