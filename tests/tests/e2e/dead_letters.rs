//! Hostile and late input, on the real broker, the real S3 server and on disk: what takes part in no result is kept with its origin,
//! its reason and its bytes, the pipeline goes on, and good, bad and late records are all records.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use millstream_tests::files::{Files, json_rows};
use millstream_tests::kafka::{Broker, Isolation, Record};
use millstream_tests::oracle::{Oracle, assert_same_rows};
use millstream_tests::orders::{self, Order};
use millstream_tests::pipeline::{Layout, Pipeline};
use millstream_tests::s3::S3;
use millstream_tests::{temp_dir, unique};
use serde_json::Value;

const SETTINGS: &str = "SET 'parallelism' = '2'; SET 'checkpoint.interval' = '500 ms'; SET 'trigger' = '20 ms';";

const LARGE: usize = 20 << 20;

/// A record that no table of orders can take, and what its dead letter says at least.
const BAD: &[(&[u8], &str)] = &[
    (b"{\"id\":1,\"cents\":", ""),
    (b"no JSON at all", ""),
    (b"", ""),
    (b"[1,2,3]", ""),
    (b"{\"id\":\"one\",\"city\":\"Bergen\"}", "id"),
    (b"{\"id\":2,\"cents\":{\"amount\":3}}", "cents"),
    (b"{\"id\":3,\"ts\":\"yesterday\"}", "ts"),
    (b"{\"id\":99999999999999999999,\"cents\":4}", "id"),
    (b"{\"id\":4,\"city\":\"\xff\xfe\"}", "UTF-8"),
    (b"{\"id\":5,\"city\":\"cut \xe4\xba", ""),
    (b"\x00\x01\x02\x03", ""),
];

/// The dead letters of a table, by (split, position).
fn letters(files: &Files, prefix: &str) -> BTreeMap<(String, u64), Value> {
    let mut found = BTreeMap::new();
    for key in files.keys(prefix, ".jsonl") {
        let text = String::from_utf8(files.get(&key).to_vec()).unwrap();
        for line in text.lines() {
            let letter: Value = serde_json::from_str(line).unwrap();
            let place = (letter["split"].as_str().unwrap().to_owned(), letter["position"].as_u64().unwrap());
            assert_eq!(found.insert(place.clone(), letter), None, "{place:?} is there twice");
        }
    }
    found
}

/// The bytes of a letter's `key` or `value`.
fn bytes(letter: &Value, field: &str) -> Vec<u8> {
    match letter[field].as_str() {
        Some(text) => text.as_bytes().to_vec(),
        None => from_base64(letter[format!("{field}_base64")].as_str().unwrap_or_default()),
    }
}

fn from_base64(text: &str) -> Vec<u8> {
    let digit = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        other => panic!("{other} is no digit of base64"),
    };
    let mut bytes = Vec::new();
    for four in text.trim_end_matches('=').as_bytes().chunks(4) {
        let bits = four.iter().fold(0u32, |bits, c| bits << 6 | u32::from(digit(*c))) << (6 * (4 - four.len()));
        bytes.extend_from_slice(&bits.to_be_bytes()[1..four.len()]);
    }
    bytes
}

/// What a record of the topic is, and so where it must end.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Good(i64),
    Bad(&'static str),
    Late,
}

/// A topic of two partitions with good, bad, late and large records, and what each is.
struct Hostile {
    topic: String,
    orders: Vec<Order>,
    records: BTreeMap<(String, u64), (Kind, Record)>,
}

const LARGE_GOOD: i64 = 1_000_000;

impl Hostile {
    fn produce(large: bool) -> Self {
        let broker = Broker::shared();
        let topic = unique("hostile");
        broker.create_topic(&topic, 2, &[("max.message.bytes", "25000000")]);
        let orders = orders::orders(21, 0..3_000);
        let mut sent: Vec<(Kind, Record)> = Vec::new();
        for order in &orders {
            sent.push((Kind::Good(order.id), order.record(2)));
            if order.id % 50 == 17 {
                let (text, reason) = BAD[(order.id / 50) as usize % BAD.len()];
                let bad = Record::new(text).partition((order.id / 50 % 2) as i32).key(format!("bad {}", order.id));
                sent.push((Kind::Bad(reason), bad.timestamp(order.ts)));
            }
            if large && order.id == 1_500 {
                let text = order.json().replacen("\"id\":1500", &format!("\"id\":{LARGE_GOOD}"), 1);
                let note = "n".repeat(LARGE);
                let good = format!("{},\"note\":\"{note}\"}}", text.trim_end_matches('}'));
                sent.push((Kind::Good(LARGE_GOOD), Record::new(good).partition(0)));
                sent.push((Kind::Bad(""), Record::new(vec![b'x'; LARGE]).partition(1)));
            }
            // Long after the watermark has passed the first hundred orders.
            if order.id > 2_500 && order.id % 25 == 3 {
                let early = Order::nth(22, order.id - 2_500);
                let late = Order { id: order.id + 100_000, ..early };
                sent.push((Kind::Late, late.record(2)));
            }
        }
        let all: Vec<Record> = sent.iter().map(|(_, record)| record.clone()).collect();
        broker.produce(&topic, &all);
        let mut next = [0, 0];
        let records = sent.into_iter().map(|(kind, record)| {
            let partition = record.partition.unwrap();
            let offset = &mut next[partition as usize];
            *offset += 1;
            ((format!("{topic}/{partition}"), *offset - 1), (kind, record))
        });
        let records = records.collect();
        Self { topic, orders, records }
    }

    fn table(&self, watermark: &str, bad_records: &str) -> String {
        format!(
            "CREATE TABLE orders ({}, note STRING {watermark}) WITH (
               'connector' = 'kafka', 'topic' = '{}', 'properties.bootstrap.servers' = '{}',
               'scan.bounded.mode' = 'latest-offset', 'maxOffsetsPerTrigger' = '100', 'format' = 'json',
               'bad-records' = '{bad_records}');",
            orders::COLUMNS,
            self.topic,
            Broker::shared().bootstrap(),
        )
    }

    fn ids(&self) -> BTreeSet<i64> {
        let good = |kind: &Kind| match kind {
            Kind::Good(id) => Some(*id),
            Kind::Bad(_) | Kind::Late => None,
        };
        self.records.values().filter_map(|(kind, _)| good(kind)).collect()
    }
}

const WATERMARK: &str = ", WATERMARK FOR ts AS ts - INTERVAL '5' SECOND";

fn good_bad_and_late_are_all(layout: Layout) {
    let hostile = Hostile::produce(true);
    let s3 = S3::shared();
    let bucket = s3.create_bucket(&unique("hostile"));
    let sql = format!(
        "{SETTINGS} {}
         CREATE TABLE good (id BIGINT, length BIGINT, city STRING) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'parquet');
         CREATE TABLE sums (window_start TIMESTAMP(3), orders BIGINT, cents BIGINT)
         WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'parquet');
         INSERT INTO good SELECT id, char_length(note), city FROM orders;
         INSERT INTO sums SELECT window_start, count(*), sum(cents)
         FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(ts), INTERVAL '10' SECOND)) GROUP BY window_start, window_end;",
        hostile.table(WATERMARK, "dead-letter"),
        bucket.url("good"),
        bucket.url("sums"),
    );
    Pipeline::new("hostile", sql).conf("checkpointLocation", bucket.url("checkpoints")).env(s3.env()).run(layout);

    let good = bucket.files().parquet("good");
    let length = if hostile.ids().contains(&LARGE_GOOD) { LARGE as i64 } else { 0 };
    let mut ids = Vec::new();
    for batch in &good {
        let column = |name: &str| batch.column_by_name(name).unwrap().as_primitive::<Int64Type>().clone();
        for (id, found) in column("id").iter().zip(column("length").iter()) {
            ids.push(id.unwrap());
            assert_eq!(found, (id == Some(LARGE_GOOD)).then_some(length), "the length of the note of {id:?}");
        }
    }
    ids.sort_unstable();
    assert_eq!(ids, hostile.ids().into_iter().collect::<Vec<_>>(), "each good order once");

    let mut counted = hostile.orders.clone();
    counted.push(Order { id: LARGE_GOOD, ..hostile.orders[1_500].clone() });
    let oracle = Oracle::default().table("orders", orders::schema(), vec![orders::batch(&counted)]);
    let expected = oracle.query(
        "SELECT date_bin(INTERVAL '10 seconds', ts) AS window_start, count(*) AS orders, sum(cents) AS cents FROM orders GROUP BY 1",
    );
    assert_same_rows("sums of good orders", &expected, &bucket.files().parquet("sums"));

    let letters = letters(bucket.files(), "checkpoints/dead-letters");
    assert_eq!(letters.len() + ids.len(), hostile.records.len(), "good, bad and late are all");
    for (place, letter) in &letters {
        let (kind, record) = &hostile.records[place];
        let (reason, detail) = match kind {
            Kind::Bad(detail) => ("bad", *detail),
            Kind::Late => ("late", "watermark"),
            Kind::Good(id) => panic!("the good order {id} is a dead letter: {}", letter["detail"]),
        };
        assert_eq!(letter["reason"], reason, "{place:?}: {}", letter["detail"]);
        let said = letter["detail"].as_str().unwrap();
        assert!(!said.is_empty() && said.contains(detail), "{place:?}: {said}");
        assert_eq!(letter["source"], "orders");
        assert!(bytes(letter, "value") == record.value.clone().unwrap(), "the bytes of {place:?}");
        assert_eq!(Some(bytes(letter, "key")), Some(record.key.clone().unwrap_or_default()), "the key of {place:?}");
        if let Some(timestamp) = record.timestamp {
            assert_eq!(letter["timestamp"], timestamp, "{place:?}");
        }
    }
}

#[test]
fn good_bad_and_late_are_all_embedded() {
    good_bad_and_late_are_all(Layout::Embedded);
}

#[test]
fn good_bad_and_late_are_all_with_executors() {
    good_bad_and_late_are_all(Layout::Cluster(2));
}

/// The orders that come through with an option, and the dead letters.
fn with_option(hostile: &Hostile, option: &str) -> (Vec<RecordBatch>, BTreeMap<(String, u64), Value>) {
    let folder = temp_dir();
    let dead = folder.path().join("dead");
    let sql = format!(
        "{SETTINGS} {}
         CREATE TABLE good ({}) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'parquet');
         INSERT INTO good SELECT id, customer, city, cents, ts FROM orders;",
        hostile.table("", option),
        orders::COLUMNS,
        folder.path().join("good").display(),
    );
    Pipeline::new(option, sql).conf("dead-letter.location", dead.display().to_string()).run(Layout::Embedded);
    let files = Files::local(folder.path());
    (files.parquet("good"), letters(&files, "dead"))
}

/// Orders, also those that are late elsewhere (no query has a window here), and further rows.
fn expected(hostile: &Hostile, further: &[&str]) -> Vec<RecordBatch> {
    let taken = hostile.records.values().filter(|(kind, _)| !matches!(kind, Kind::Bad(_)));
    let taken = taken.map(|(_, record)| record.value.as_deref().unwrap());
    json_rows(&orders::schema(), taken.chain(further.iter().map(|text| text.as_bytes())))
}

#[test]
fn dropped_records_leave_nothing() {
    let hostile = Hostile::produce(false);
    let (rows, letters) = with_option(&hostile, "drop");
    assert_same_rows("what is not dropped", &expected(&hostile, &[]), &rows);
    assert!(letters.is_empty(), "{letters:?}");
}

#[test]
fn fields_that_do_not_parse_become_null_and_broken_records_dead_letters() {
    let hostile = Hostile::produce(false);
    let (rows, letters) = with_option(&hostile, "null");
    let mut further = Vec::new();
    for (place, (kind, record)) in &hostile.records {
        if !matches!(kind, Kind::Bad(_)) {
            continue;
        }
        let with_null = match record.value.as_deref().unwrap() {
            b"{\"id\":\"one\",\"city\":\"Bergen\"}" => r#"{"city":"Bergen"}"#,
            b"{\"id\":2,\"cents\":{\"amount\":3}}" => r#"{"id":2}"#,
            b"{\"id\":3,\"ts\":\"yesterday\"}" => r#"{"id":3}"#,
            b"{\"id\":99999999999999999999,\"cents\":4}" => r#"{"cents":4}"#,
            b"{\"id\":4,\"city\":\"\xff\xfe\"}" => r#"{"id":4}"#,
            broken => {
                let letter = letters.get(place).unwrap_or_else(|| panic!("{place:?} is lost"));
                assert_eq!(bytes(letter, "value"), broken);
                continue;
            }
        };
        assert!(!letters.contains_key(place), "{place:?} is broken: {}", letters[place]["detail"]);
        further.push(with_null);
    }
    assert!(further.len() > 20 && letters.len() > 20, "{} and {}", further.len(), letters.len());
    assert_same_rows("rows with nulls", &expected(&hostile, &further), &rows);
}

#[test]
fn a_bad_record_stops_the_pipeline_if_it_must() {
    let hostile = Hostile::produce(false);
    let folder = temp_dir();
    let sql = format!(
        "{SETTINGS} {}
         CREATE TABLE good (id BIGINT) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'parquet');
         INSERT INTO good SELECT id FROM orders;",
        hostile.table(WATERMARK, "fail"),
        folder.path().join("good").display(),
    );
    for layout in [Layout::Embedded, Layout::Cluster(1)] {
        let ended = Pipeline::new("fail", sql.as_str()).attempt(layout);
        assert_eq!(ended.code(), 1, "{layout:?}: {}\n{}", ended.stdout, ended.stderr);
        let words = ["bad record", hostile.topic.as_str(), "partition", "offset", "'bad-records' = 'dead-letter'"];
        let told = ended.stderr.lines().any(|line| words.iter().all(|word| line.contains(word)));
        assert!(told, "{layout:?}: it is not said which record is bad and what to do:\n{}", ended.stderr);
    }
}

fn parquet(orders: &[Order]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut file, orders::schema(), None).unwrap();
    writer.write(&orders::batch(orders)).unwrap();
    writer.close().unwrap();
    file
}

/// Reads `folder/in` in a format and returns the ids that come through, and the dead letters by (file, position).
fn read_folder(folder: &Path, format: &str) -> (Vec<RecordBatch>, BTreeMap<(String, u64), Value>) {
    let sql = format!(
        "{SETTINGS}
         CREATE TABLE incoming ({}) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = '{format}', 'source.monitor' = 'false');
         CREATE TABLE good (id BIGINT, cents BIGINT) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'json');
         INSERT INTO good SELECT id, cents FROM incoming;",
        orders::COLUMNS,
        folder.join("in").display(),
        folder.join("out").display(),
    );
    let dead = folder.join("dead").display().to_string();
    Pipeline::new("folder", sql).conf("dead-letter.location", dead).run(Layout::Embedded);
    let files = Files::local(folder);
    let schema = Schema::new(vec![Field::new("id", DataType::Int64, true), Field::new("cents", DataType::Int64, true)]);
    (files.json("out", &schema), letters(&files, "dead"))
}

fn ids_and_cents(orders: &[Order]) -> Vec<RecordBatch> {
    let oracle = Oracle::default().table("orders", orders::schema(), vec![orders::batch(orders)]);
    oracle.query("SELECT id, cents FROM orders")
}

#[test]
fn damaged_parquet_files_are_told_and_the_others_read() {
    let folder = temp_dir();
    let files = Files::local(folder.path());
    let parts: Vec<Vec<Order>> = (0..4).map(|n| orders::orders(23, n * 500..(n + 1) * 500)).collect();
    for (n, part) in parts.iter().enumerate() {
        files.put(&format!("in/good-{n}.parquet"), parquet(part));
    }
    let whole = parquet(&orders::orders(24, 0..500));
    files.put("in/truncated.parquet", whole[..whole.len() / 2].to_vec());
    files.put("in/garbage.parquet", vec![0x5a; 4_000]);
    files.put("in/tiny.parquet", "PAR1");
    let mut footer = whole.clone();
    let length = footer.len();
    footer[length - 8..length - 4].fill(0xff);
    files.put("in/footer.parquet", footer);

    let (rows, letters) = read_folder(folder.path(), "parquet");
    assert_same_rows("the good files", &ids_and_cents(&parts.concat()), &rows);
    let told: Vec<&str> = letters.keys().map(|(file, _)| file.rsplit('/').next().unwrap()).collect();
    assert_eq!(told, ["footer.parquet", "garbage.parquet", "tiny.parquet", "truncated.parquet"]);
    for ((file, _), letter) in &letters {
        assert_eq!(letter["reason"], "bad");
        assert!(letter["detail"].as_str().unwrap().contains(file.as_str()), "{letter}");
    }
}

#[test]
fn bad_lines_of_files_are_told_by_their_number() {
    let folder = temp_dir();
    let files = Files::local(folder.path());
    let orders = orders::orders(25, 0..40);
    let mut lines: Vec<String> = orders.iter().map(Order::json).collect();
    lines.insert(7, "{\"id\":7,".to_owned());
    lines.insert(20, "{\"id\":1,\"cents\":\"much\"}".to_owned());
    lines.push("{\"id\":".to_owned());
    let mut content = lines.join("\n").into_bytes();
    content.extend_from_slice(b"\n{\"id\":8,\"cents\":1,\xff}\n");
    files.put("in/some.json", content);
    files.put("in/none.json", "");

    let (rows, letters) = read_folder(folder.path(), "json");
    assert_same_rows("the good lines", &ids_and_cents(&orders), &rows);
    let positions: Vec<u64> = letters.keys().map(|(_, position)| *position).collect();
    assert_eq!(positions, [7, 20, 42, 43]);
    let values: Vec<Vec<u8>> = letters.values().map(|letter| bytes(letter, "value")).collect();
    assert_eq!(values[0], b"{\"id\":7,");
    assert_eq!(values[1], b"{\"id\":1,\"cents\":\"much\"}");
    assert_eq!(values[3], b"{\"id\":8,\"cents\":1,\xff}");
}

#[test]
fn endless_lines_and_cut_archives_cost_only_themselves() {
    let folder = temp_dir();
    let files = Files::local(folder.path());
    let orders = orders::orders(26, 0..4_000);
    let lines = |range: std::ops::Range<usize>| -> Vec<String> { orders[range].iter().map(Order::json).collect() };
    let mut with_long = lines(0..20);
    with_long.insert(11, format!("{{\"id\":1,\"city\":\"{}\"}}", "x".repeat(17 << 20)));
    files.put("in/long.json", with_long.join("\n"));
    let archive = |texts: &[String]| {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        writer.write_all(texts.join("\n").as_bytes()).unwrap();
        writer.finish().unwrap()
    };
    files.put("in/whole.json.gz", archive(&lines(20..1_000)));
    let cut = archive(&lines(1_000..4_000));
    files.put("in/cut.json.gz", cut[..cut.len() * 2 / 3].to_vec());

    let (rows, letters) = read_folder(folder.path(), "json");
    let told: Vec<(&str, &Value)> =
        letters.iter().map(|((file, _), letter)| (file.rsplit('/').next().unwrap(), letter)).collect();
    assert_eq!(told.iter().map(|(file, _)| *file).collect::<Vec<_>>(), ["cut.json.gz", "long.json"]);
    // What stood before the damage counts.
    let read = usize::try_from(told[0].1["position"].as_u64().unwrap()).unwrap();
    assert_eq!(told[1].1["position"], 11);
    assert_eq!(bytes(told[1].1, "value").len(), 16 << 20, "the begin of the line");
    assert!((100..3_000).contains(&read), "{read} orders of the archive that is cut");
    assert_same_rows("all that is whole", &ids_and_cents(&orders[..1_000 + read]), &rows);
}

#[test]
fn dead_letters_reach_no_reader_of_the_topic_and_offsets_stay_whole() {
    // A filter that drops almost all rows must not hide bad records, and the sink gets each good one once.
    let hostile = Hostile::produce(false);
    let broker = Broker::shared();
    let target = unique("few");
    broker.create_topic(&target, 1, &[]);
    let folder = temp_dir();
    let sql = format!(
        "{SETTINGS} {}
         CREATE TABLE few (id BIGINT) WITH ('connector' = 'kafka', 'topic' = '{target}', 'properties.bootstrap.servers' = '{}', 'format' = 'json');
         INSERT INTO few SELECT id FROM orders WHERE id = 77 OR id = 2999;",
        hostile.table("", "dead-letter"),
        broker.bootstrap(),
    );
    let location = folder.path().display().to_string();
    Pipeline::new("few", sql).conf("dead-letter.location", location).run(Layout::Cluster(2));
    let mut received: Vec<String> =
        broker.read(&target, Isolation::Committed).iter().map(|r| r.text().to_owned()).collect();
    received.sort();
    assert_eq!(received, ["{\"id\":2999}", "{\"id\":77}"]);
    let letters = letters(&Files::local(folder.path()), "");
    let syntax = hostile.records.iter().filter(|(_, (_, record))| {
        let value = record.value.as_deref().unwrap();
        matches!(value, b"no JSON at all" | b"" | b"[1,2,3]" | b"\x00\x01\x02\x03")
    });
    for (place, _) in syntax {
        assert!(letters.contains_key(place), "{place:?} is no dead letter");
    }
}
