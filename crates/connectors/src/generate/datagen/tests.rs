#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
use std::collections::BTreeMap;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{
    DataType, Field, Float64Type, Int32Type, Int64Type, Schema, TimeUnit, TimestampMillisecondType,
};
use millstream_plan::options::resolve;
use millstream_plan::{SourceId, SplitRange};

use super::*;
use crate::SourcePoll;

const MS: DataType = DataType::Timestamp(TimeUnit::Millisecond, None);

fn datagen(columns: &[(&str, DataType)], options: &[(&str, &str)]) -> Result<Datagen, ConnectorError> {
    let given = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let fields: Vec<Field> = columns.iter().map(|(n, t)| Field::new(*n, t.clone(), true)).collect();
    Datagen::new(SourceSpec {
        id: SourceId(0),
        table: "t".to_owned(),
        pipeline: "p".to_owned(),
        options: resolve(&[OPTIONS], DATAGEN.pass_through, &given).unwrap(),
        format: None,
        schema: Arc::new(Schema::new(fields)),
        metadata: Vec::new(),
        prefilter: None,
        key: Vec::new(),
        parallelism: 1,
    })
}

fn read(datagen: &Datagen, from: u64, to: u64) -> SourceBatch {
    let range = SplitRange { split: "0/1@5000".into(), task: 0, from, to, tag: datagen.tag.clone() };
    match datagen.reader(0).unwrap().poll(&range).unwrap() {
        SourcePoll::Batch(batch) => batch,
        _ => panic!("no batch"),
    }
}

#[test]
fn sequences_count_and_end_the_table() {
    let columns = [("id", DataType::Int64), ("name", DataType::Utf8), ("ts", MS)];
    let options = [
        ("rows-per-second", "100"),
        ("fields.id.kind", "sequence"),
        ("fields.id.start", "10"),
        ("fields.id.end", "14"),
        ("fields.name.kind", "sequence"),
    ];
    let table = datagen(&columns, &options).unwrap();
    let found = table.enumerator().unwrap().discover(&BTreeMap::new(), 0).unwrap();
    assert_eq!((found.splits[0].end, found.complete), (1, false));
    assert_eq!(table.rows, Some(5));
    let batch = read(&table, 1, 4);
    assert_eq!(batch.rows.column(0).as_primitive::<Int64Type>().values()[..], [11, 12, 13]);
    assert_eq!(batch.rows.column(1).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["1", "2", "3"]);
    let due = batch.rows.column(2).as_primitive::<TimestampMillisecondType>();
    assert_eq!(due.values()[..], [5010, 5020, 5030]);
    let letter = batch.origin.dead_letter(2, DeadLetterReason::Late, "late".to_owned());
    assert_eq!(letter.position, 3);
    let value = r#"{"id":13,"name":"3","ts":"1970-01-01 00:00:05.030"}"#;
    assert_eq!(String::from_utf8(letter.value).unwrap(), value);
}

#[test]
fn random_values_keep_their_bounds_and_depend_on_the_row_alone() {
    let columns = [("a", DataType::Int32), ("b", DataType::Float64), ("c", DataType::Utf8), ("d", MS)];
    let options = [
        ("fields.a.min", "-3"),
        ("fields.a.max", "3"),
        ("fields.a.null-rate", "0.25"),
        ("fields.b.min", "10"),
        ("fields.b.max", "20"),
        ("fields.c.length", "5"),
        ("fields.d.max-past", "1 s"),
    ];
    let table = datagen(&columns, &options).unwrap();
    let all = read(&table, 0, 4000).rows;
    assert_eq!(read(&table, 500, 900).rows, all.slice(500, 400));
    let a = all.column(0).as_primitive::<Int32Type>();
    let mut seen: Vec<i32> = a.iter().flatten().collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, [-3, -2, -1, 0, 1, 2, 3]);
    assert!((800..1200).contains(&a.null_count()), "{} of 4000 are null", a.null_count());
    assert!(all.column(1).as_primitive::<Float64Type>().values().iter().all(|v| (10.0..20.0).contains(v)));
    assert!(all.column(2).as_string::<i32>().iter().flatten().all(|s| s.len() == 5));
    let times = all.column(3).as_primitive::<TimestampMillisecondType>().values();
    let past = times.iter().zip(0..).map(|(t, row)| 5000 + row / 10 - t);
    assert!(past.clone().all(|p| (0..=1000).contains(&p)) && past.clone().any(|p| p > 500));
}

#[test]
fn every_primitive_type_has_values() {
    let types = [
        DataType::Boolean,
        DataType::Int8,
        DataType::Int16,
        DataType::UInt8,
        DataType::UInt16,
        DataType::UInt32,
        DataType::UInt64,
        DataType::Float32,
        DataType::Decimal128(20, 4),
        DataType::Binary,
        DataType::Date32,
        DataType::Time32(TimeUnit::Second),
        DataType::Time32(TimeUnit::Millisecond),
        DataType::Time64(TimeUnit::Microsecond),
        DataType::Time64(TimeUnit::Nanosecond),
        DataType::Timestamp(TimeUnit::Second, None),
        DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        DataType::Timestamp(TimeUnit::Nanosecond, None),
    ];
    let columns: Vec<(&str, DataType)> = types.iter().map(|t| ("x", t.clone())).collect();
    let table = datagen(&columns, &[]).unwrap();
    let rows = read(&table, 0, 10).rows;
    assert_eq!((rows.num_rows(), rows.num_columns()), (10, types.len()));
}

#[test]
fn mistakes_are_named() {
    let error = |column: DataType, option: (&str, &str)| match datagen(&[("x", column)], &[option]) {
        Err(ConnectorError::User { message, hint }) => format!("{message}; {}", hint.unwrap()),
        Err(e) => panic!("{e}"),
        Ok(_) => panic!("accepted"),
    };
    assert_eq!(
        error(DataType::Int32, ("fields.x.mim", "1")),
        "unknown option 'fields.x.mim'; did you mean 'fields.x.min'?"
    );
    assert_eq!(
        error(DataType::Int8, ("fields.x.max", "300")),
        "a column's min -128 and max 300 do not fit its type; give -128 ≤ min ≤ max ≤ 127"
    );
    assert!(error(DataType::Boolean, ("fields.x.kind", "sequence")).starts_with("table 't': datagen has no sequence"));
    let list = DataType::List(Arc::new(Field::new("item", DataType::Int8, true)));
    assert!(error(list, ("fields.x.kind", "random")).contains("datagen has no random values of type List"));
}
