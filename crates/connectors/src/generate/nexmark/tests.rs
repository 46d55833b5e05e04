#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
use std::collections::BTreeMap;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMillisecondType};
use arrow::record_batch::RecordBatch;
use millstream_formats::PreFilter;
use millstream_plan::options::resolve;
use millstream_plan::{ContentHash, SourceId, SplitRange};

use super::*;
use crate::{SourcePoll, connector};

fn json_hash(config: &NexmarkConfig, events: u64) -> String {
    let generator = Generator::new(config);
    let mut out = Vec::new();
    for k in 0..events {
        generator.write_json(k, generator.event_time(k), &mut out);
        out.push(b'\n');
    }
    ContentHash::of(&out).to_string()
}

/// The hashes are those of the reference generator's output for the same parameters.
#[test]
fn the_bytes_are_those_of_the_reference_generator() {
    let default = NexmarkConfig::default();
    assert_eq!(json_hash(&default, 10_000), "1d5d72b520a1d433fda64c9cc0533cddcf4c46e4957a856410a8ac66b37aad23");
    let shuffled = NexmarkConfig { group: 100, ..default };
    assert_eq!(json_hash(&shuffled, 10_000), "25d22537c21cc8c4baea8be0624c2b2abe7524743bd27760f06715db3953a3f5");
    let other = NexmarkConfig { seed: 7, event_rate: 1000.0, group: 50, base_ms: 1_700_000_000_123 };
    assert_eq!(json_hash(&other, 10_000), "97fcfe8b5be5038005b528dc83cf2296cb5a4043b10226d9ecfc570e74e29c89");
}

const MS: DataType = DataType::Timestamp(TimeUnit::Millisecond, None);

fn record(name: &str, fields: &[(&str, DataType)]) -> Field {
    let fields = fields.iter().map(|(n, t)| Field::new(*n, t.clone(), true)).collect::<Vec<_>>();
    Field::new(name, DataType::Struct(fields.into()), true)
}

fn all_columns() -> SchemaRef {
    let (int, text) = (DataType::Int64, DataType::Utf8);
    let typed = |names: &[&'static str], of: fn(&str) -> DataType| -> Vec<(&'static str, DataType)> {
        names.iter().map(|n| (*n, of(n))).collect()
    };
    let person =
        typed(&["id", "name", "emailAddress", "creditCard", "city", "state", "dateTime", "extra"], |n| match n {
            "id" => DataType::Int64,
            "dateTime" => MS,
            _ => DataType::Utf8,
        });
    let auction = [
        ("id", int.clone()),
        ("itemName", text.clone()),
        ("description", text.clone()),
        ("initialBid", int.clone()),
        ("reserve", int.clone()),
        ("dateTime", MS),
        ("expires", MS),
        ("seller", int.clone()),
        ("category", int.clone()),
        ("extra", text.clone()),
    ];
    let bid = [
        ("auction", int.clone()),
        ("bidder", int.clone()),
        ("price", int),
        ("channel", text.clone()),
        ("url", text.clone()),
        ("dateTime", MS),
        ("extra", text),
    ];
    Arc::new(Schema::new(vec![
        Field::new("event_type", DataType::Int32, true),
        record("person", &person),
        record("auction", &auction),
        record("bid", &bid),
    ]))
}

fn spec(schema: SchemaRef, options: &[(&str, &str)], prefilter: Option<PreFilter>) -> SourceSpec {
    let given = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    SourceSpec {
        id: SourceId(0),
        table: "events".to_owned(),
        pipeline: "p".to_owned(),
        options: resolve(&[OPTIONS], &[], &given).unwrap(),
        format: None,
        schema,
        metadata: Vec::new(),
        prefilter,
        key: Vec::new(),
        parallelism: 2,
    }
}

fn read(spec: SourceSpec, range: &SplitRange) -> Vec<SourceBatch> {
    let factory = (connector("nexmark").unwrap().source)(spec).unwrap();
    let mut reader = factory.reader(0).unwrap();
    let mut batches = Vec::new();
    loop {
        match reader.poll(range).unwrap() {
            SourcePoll::Batch(b) => batches.push(b),
            SourcePoll::Pending => panic!("a generator has nothing to wait for"),
            SourcePoll::Done => return batches,
        }
    }
}

fn range(split: &str, from: u64, to: u64, tag: &str) -> SplitRange {
    SplitRange { split: split.into(), task: 0, from, to, tag: tag.to_owned() }
}

const DEFAULT_TAG: &str = "seed=1 base=1436918400000 event-rate=10000 group=1";

/// Decodes the generator's own JSON for the same rows.
fn through_json(schema: &SchemaRef, rows: impl Iterator<Item = u64>) -> RecordBatch {
    let generator = Generator::new(&NexmarkConfig::default());
    let mut json = Vec::new();
    for k in rows {
        generator.write_json(k, generator.event_time(k), &mut json);
        json.push(b'\n');
    }
    let mut reader = arrow::json::ReaderBuilder::new(Arc::clone(schema)).with_batch_size(1 << 20).build(&json[..]);
    reader.as_mut().unwrap().next().unwrap().unwrap()
}

#[test]
fn columns_hold_what_the_json_says() {
    let batches = read(spec(all_columns(), &[], None), &range("1/2", 100, 400, DEFAULT_TAG));
    assert_eq!(batches.len(), 1);
    assert_eq!(batches[0].rows, through_json(&all_columns(), (100..400).map(|p| p * 2 + 1)));
}

#[test]
fn a_range_read_in_parts_or_pruned_or_filtered_gives_the_same_rows() {
    let whole = read(spec(all_columns(), &[], None), &range("0/2", 0, 20_000, DEFAULT_TAG));
    assert_eq!(whole.iter().map(|b| b.rows.num_rows()).collect::<Vec<_>>(), [8192, 8192, 3616]);
    let whole = arrow::compute::concat_batches(&all_columns(), whole.iter().map(|b| &b.rows)).unwrap();
    let part = read(spec(all_columns(), &[], None), &range("0/2", 777, 5000, DEFAULT_TAG));
    assert_eq!(part[0].rows, whole.slice(777, 4223));

    let pruned: SchemaRef = Arc::new(Schema::new(vec![record("bid", &[("price", DataType::Int64), ("dateTime", MS)])]));
    let only_bids = PreFilter { column: "event_type".to_owned(), accept: Accept::Int(vec![2]) };
    let bids = read(spec(pruned, &[], Some(only_bids)), &range("0/2", 0, 5000, DEFAULT_TAG));
    let (bids, whole) = (bids[0].rows.column(0).as_struct(), whole.slice(0, 5000));
    let whole = whole.column_by_name("bid").unwrap().as_struct();
    let kept: Vec<usize> = (0..5000).filter(|i| whole.is_valid(*i)).collect();
    assert_eq!((bids.null_count(), bids.len()), (0, kept.len()));
    let prices = |s: &arrow::array::StructArray| s.column_by_name("price").unwrap().as_primitive::<Int64Type>().clone();
    let (filtered, all) = (prices(bids), prices(whole));
    assert!(kept.iter().enumerate().all(|(i, row)| filtered.value(i) == all.value(*row)));
}

#[test]
fn a_paced_table_takes_event_time_from_its_start() {
    let schema: SchemaRef = Arc::new(Schema::new(vec![record("bid", &[("dateTime", MS)])]));
    let spec = spec(schema, &[("rows-per-second", "100")], None);
    let factory = (connector("nexmark").unwrap().source)(spec.clone()).unwrap();
    let found = factory.enumerator().unwrap().discover(&BTreeMap::new(), 1_000_000).unwrap();
    let first = &found.splits[0];
    assert_eq!((first.split.0.as_str(), first.end, found.complete), ("0/2@1000000", 1, false));
    let batches = read(spec, &range(&first.split.0, 2, 4, &first.tag));
    let times = batches[0].rows.column(0).as_struct().column(0).as_primitive::<TimestampMillisecondType>().clone();
    assert_eq!(times.values()[..], [1_000_040, 1_000_060]);
}

#[test]
fn a_late_row_is_found_again() {
    let batches = read(spec(all_columns(), &[], None), &range("1/2", 10, 20, DEFAULT_TAG));
    let letter = batches[0].origin.dead_letter(3, DeadLetterReason::Late, "late".to_owned());
    assert_eq!((letter.position, letter.timestamp_ms), (13, Some(1_436_918_400_002)));
    assert!(letter.value.starts_with(br#"{"event_type":2,"person":null,"auction":null,"bid":{"auction":"#));
}

#[test]
fn changed_options_and_wrong_columns_are_refused() {
    let error = |schema: SchemaRef, options: &[(&str, &str)]| match Nexmark::new(spec(schema, options, None)) {
        Ok(_) => panic!("accepted"),
        Err(ConnectorError::User { message, hint }) => format!("{message}; {}", hint.unwrap()),
        Err(e) => panic!("{e}"),
    };
    let one = |f: Field| -> SchemaRef { Arc::new(Schema::new(vec![f])) };
    assert_eq!(
        error(one(record("bid", &[("prise", DataType::Int64)])), &[]),
        "table 'events': nexmark has no column 'bid.prise'; did you mean 'price'? There are auction, bidder, price, channel, url, dateTime, extra"
    );
    assert_eq!(
        error(one(record("bid", &[("price", DataType::Utf8)])), &[]),
        "table 'events': column 'bid.price' of nexmark cannot be Utf8; declare it as BIGINT"
    );
    assert_eq!(
        error(all_columns(), &[("rows-per-second", "0")]),
        "'rows-per-second' = '0' is below 1; give a number of at least 1"
    );
    let factory = Nexmark::new(spec(all_columns(), &[("seed", "2")], None)).unwrap();
    let outcome = factory.reader(0).unwrap().poll(&range("0/2", 0, 1, DEFAULT_TAG));
    assert!(matches!(outcome, Err(ConnectorError::User { message, .. }) if message.contains("seed=1")));
}
