//! Topics whose records have a key: the last one of each counts, and one without a value takes it away.
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use arrow::util::display::array_value_to_string;
use millstream_connectors::{SourceBatch, SourceSpec, connector};

use crate::broker::{Broker, range, read};

/// Columns `id`, `name`, `n`, of which `id` is the key.
fn spec(broker: &Broker, options: &[(&str, &str)]) -> SourceSpec {
    let mut spec = broker.source_spec(options, &[("offset", DataType::Int64)]);
    spec.schema = Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("name", DataType::Utf8, true),
        Field::new("n", DataType::Int64, false),
    ]));
    spec.key = vec!["id".to_owned()];
    if let Some(format) = &mut spec.format {
        format.debezium.key.clone_from(&spec.key);
    }
    spec
}

fn read_all(name: &str, spec: SourceSpec, topic: &str, records: u64) -> SourceBatch {
    let source = (connector(name).unwrap().source)(spec).unwrap();
    let mut batches = read(&mut *source.reader(0).unwrap(), &range(topic, 0, 0, records));
    assert_eq!(batches.len(), 1);
    batches.remove(0)
}

/// Rows as `weight values`, then bad records as `offset: reason`.
fn shown(batch: &SourceBatch) -> Vec<String> {
    let value = |column: usize, row: usize| match batch.rows.column(column).is_null(row) {
        true => "-".to_owned(),
        false => array_value_to_string(batch.rows.column(column), row).unwrap(),
    };
    let line = |row: usize| {
        let values: Vec<String> = (0..batch.rows.num_columns()).map(|c| value(c, row)).collect();
        format!("{:+} {}", batch.weights.as_ref().map_or(1, |w| w.value(row)), values.join(" "))
    };
    let mut lines: Vec<String> = (0..batch.rows.num_rows()).map(line).collect();
    lines.extend(batch.bad.iter().map(|b| format!("{}: {}", b.position, b.detail)));
    lines
}

#[test]
fn a_record_takes_the_place_of_the_one_with_its_key() {
    let broker = Broker::shared();
    let topic = broker.topic("upserts", 1, &[]);
    let records: [(Option<&str>, Option<&str>); 8] = [
        (Some(r#"{"id":1}"#), Some(r#"{"name":"a","n":1}"#)),
        (Some(r#"{"id":2}"#), Some(r#"{"id":7,"name":"b","n":2}"#)),
        (Some(r#"{"id":1}"#), None),
        (None, Some(r#"{"id":3,"name":"c","n":3}"#)),
        (Some(r#"{"id":"x"}"#), Some(r#"{"name":"d","n":4}"#)),
        (Some(r#"{"id":5}"#), Some(r#"{"name":"e"}"#)),
        (Some(r#"{"no":6}"#), None),
        (Some(r#"{"id":6}"#), Some(r#"{"n":6}"#)),
    ];
    for (key, value) in records {
        broker.send_raw(&topic, key.map(str::as_bytes), value.map(str::as_bytes), &[]);
    }
    let batch = read_all("upsert-kafka", spec(broker, &[("topic", &topic)]), &topic, 8);
    assert_eq!(
        shown(&batch),
        [
            "+1 1 a 1 0",
            "+1 2 b 2 1",
            "-1 1 - - 2",
            "+1 6 - 6 7",
            "3: the record has no key, which the table's PRIMARY KEY is read from",
            "4: key: field `id`: expected BIGINT, found 'x' at byte 6",
            "5: field `n`: null or missing, but BIGINT NOT NULL is declared at byte 12",
            "6: key: field `id`: null or missing, but BIGINT NOT NULL is declared at byte 8",
        ]
    );
    assert_eq!((batch.records, batch.bad_count), (8, 4));
}

#[test]
fn a_topic_that_is_said_to_keep_its_records_must_do_so() {
    let broker = Broker::shared();
    let compacted = broker.topic("compacted", 1, &[("cleanup.policy", "compact")]);
    let patient = [("cleanup.policy", "compact,delete"), ("min.compaction.lag.ms", "86400000")];
    let (patient, kept) = (broker.topic("patient", 1, &patient), broker.topic("kept", 1, &[]));
    let open = |topic: &str, given: &[(&str, &str)]| {
        let spec = spec(broker, &[given, &[("topic", topic)]].concat());
        let source = (connector("kafka").unwrap().source)(spec).unwrap();
        source.enumerator().map(|_| ()).map_err(|e| e.to_string())
    };
    let says_no = [("scan.compacted", "false")];
    let message = open(&compacted, &says_no).unwrap_err();
    assert!(message.contains("is compacted, with min.compaction.lag.ms = 0"), "{message}");
    for (topic, given) in [(&compacted, &[][..]), (&patient, &says_no), (&kept, &says_no)] {
        assert_eq!(open(topic, given), Ok(()));
    }
}

#[test]
fn the_records_of_a_key_stay_together() {
    let mut spec = Broker::shared().sink_spec("together", &[("topic", "t"), ("sink.partitioner", "round-robin")]);
    spec.primary_key = vec![0];
    let error = (connector("kafka").unwrap().sink)(spec).err().unwrap().to_string();
    assert!(error.contains("would spread the records of a key"), "{error}");
}

#[test]
fn keys_of_another_format_and_under_other_names() {
    let broker = Broker::shared();
    let topic = broker.topic("raw-keys", 1, &[]);
    broker.send_raw(&topic, Some(b"5"), Some(b"a,1"), &[]);
    broker.send_raw(&topic, Some(b"5"), None, &[]);
    let given = [
        ("topic", topic.as_str()),
        ("format", "csv"),
        ("key.format", "raw"),
        ("key.fields-prefix", "key_"),
        ("value.fields-include", "EXCEPT_KEY"),
    ];
    let mut spec = spec(broker, &given);
    let mut fields: Vec<Field> = spec.schema.fields().iter().map(|f| f.as_ref().clone()).collect();
    fields[0] = Field::new("key_id", DataType::Utf8, false);
    spec.schema = Arc::new(Schema::new(fields));
    spec.key = vec!["key_id".to_owned()];
    if let Some(format) = &mut spec.format {
        format.columns = ["key_id", "name", "n"].map(str::to_owned).to_vec();
    }
    assert_eq!(shown(&read_all("kafka", spec, &topic, 2)), ["+1 5 a 1 0", "-1 5 - - 1"]);
}

#[test]
fn changes_skip_tombstones() {
    let broker = Broker::shared();
    let topic = broker.topic("debezium", 1, &[]);
    let row = |id: i64, n: i64| format!(r#"{{"id":{id},"name":null,"n":{n}}}"#);
    let records = [
        Some(format!(r#"{{"before":null,"after":{},"op":"c"}}"#, row(1, 1))),
        Some(format!(r#"{{"payload":{{"before":{},"after":{},"op":"u"}}}}"#, row(1, 1), row(1, 2))),
        Some(format!(r#"{{"before":{},"after":null,"op":"d"}}"#, row(1, 2))),
        None,
        Some(format!(r#"{{"before":null,"after":{},"op":"u"}}"#, row(2, 2))),
    ];
    for value in &records {
        broker.send_raw(&topic, Some(b"k"), value.as_deref().map(str::as_bytes), &[]);
    }
    let by_key = spec(broker, &[("topic", &topic), ("format", "debezium-json")]);
    let mut plain = spec(broker, &[("topic", &topic), ("format", "debezium-json")]);
    plain.key.clear();
    plain.format.as_mut().unwrap().debezium.key.clear();
    assert_eq!(shown(&read_all("kafka", by_key, &topic, 5)), ["+1 1 - 1 0", "+1 1 - 2 1", "-1 1 - - 2", "+1 2 - 2 4"]);
    assert_eq!(
        shown(&read_all("kafka", plain, &topic, 5)),
        [
            "+1 1 - 1 0",
            "-1 1 - 1 1",
            "+1 1 - 2 1",
            "-1 1 - 2 2",
            "4: op 'u' without the row `before` it: set REPLICA IDENTITY FULL for the table in PostgreSQL, or declare a PRIMARY KEY here",
        ]
    );
}
