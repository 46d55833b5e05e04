//! Changes in and out over the real broker: results by key, changes as Debezium writes them, topics of which the last record of each key
//! counts. What is left when all changes are applied is what a batch query over the same rows gives, whatever was killed meanwhile.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use millstream_tests::cluster::{Cluster, Member};
use millstream_tests::files::{Files, json_rows, parquet_rows};
use millstream_tests::kafka::{Broker, Isolation, Received, Record};
use millstream_tests::oracle::{Oracle, assert_same_rows, difference};
use millstream_tests::orders;
use millstream_tests::pipeline::{Layout, Pipeline};
use millstream_tests::wait::wait_for;
use millstream_tests::{temp_dir, unique};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const SETTINGS: &str = "SET 'parallelism' = '3'; SET 'checkpoint.interval' = '500 ms'; SET 'trigger' = '20 ms';";
const TIMEOUT: Duration = Duration::from_secs(90);
const CITIES: [&str; 4] = ["Bergen", "Łódź", "京都", "O'Fallon \"IL\""];

fn topic(name: &str, partitions: i32, config: &[(&str, &str)]) -> String {
    let topic = unique(name);
    Broker::shared().create_topic(&topic, partitions, config);
    topic
}

/// `WITH (…)` of a topic.
fn kafka(topic: &str, more: &str) -> String {
    let bootstrap = Broker::shared().bootstrap();
    format!("WITH ('connector' = 'kafka', 'topic' = '{topic}', 'properties.bootstrap.servers' = '{bootstrap}', {more})")
}

fn committed(topic: &str) -> Vec<Received> {
    Broker::shared().wait_settled(topic, TIMEOUT);
    Broker::shared().read(topic, Isolation::Committed)
}

/// What a compacted topic comes to: the last record of each key.
fn last_of_each_key(records: &[Received]) -> Vec<&str> {
    let mut last: BTreeMap<&[u8], &Received> = BTreeMap::new();
    for record in records {
        last.insert(record.key.as_deref().unwrap(), record);
    }
    last.into_values().filter(|r| r.value.is_some()).map(Received::text).collect()
}

fn rows(columns: &[(&str, DataType)], texts: &[&str]) -> Vec<RecordBatch> {
    let fields: Vec<Field> = columns.iter().map(|(name, t)| Field::new(*name, t.clone(), true)).collect();
    json_rows(&Arc::new(Schema::new(fields)), texts.iter().map(|t| t.as_bytes()))
}

/// An aggregation without windows, some rows of which go again, into a topic by key.
fn results_by_key(layout: Layout) {
    let orders = orders::orders(31, 0..4_000);
    let (from, to) = (topic("orders", 4, &[]), topic("per-customer", 3, &[("cleanup.policy", "compact")]));
    let records: Vec<Record> = orders.iter().map(|o| o.record(4)).collect();
    Broker::shared().produce(&from, &records);
    let bounded = "'format' = 'json', 'scan.bounded.mode' = 'latest-offset', 'maxOffsetsPerTrigger' = '200'";
    let sql = format!(
        "{SETTINGS}
         CREATE TABLE orders ({}) {};
         CREATE TABLE per_customer (customer BIGINT, orders BIGINT, cents BIGINT, highest BIGINT, PRIMARY KEY (customer) NOT ENFORCED) {};
         INSERT INTO per_customer
         SELECT customer, count(*), sum(cents), max(cents) FROM orders GROUP BY customer HAVING count(*) % 5 <> 0;",
        orders::COLUMNS,
        kafka(&from, bounded),
        kafka(&to, "'format' = 'json', 'outputMode' = 'update'"),
    );
    Pipeline::new("per-customer", sql).run(layout);
    let expected = Oracle::default().table("orders", orders::schema(), vec![orders::batch(&orders)]).query(
        "SELECT customer, count(*) AS orders, sum(cents) AS cents, max(cents) AS highest FROM orders GROUP BY customer
         HAVING count(*) % 5 <> 0",
    );
    let records = committed(&to);
    assert!(records.iter().any(|r| r.value.is_none()), "no row has gone again");
    let columns = ["customer", "orders", "cents", "highest"].map(|c| (c, DataType::Int64));
    assert_same_rows("per customer", &expected, &rows(&columns, &last_of_each_key(&records)));
    // What a key's next record says is news: equal ones would be changes that came to nothing.
    let mut last = BTreeMap::new();
    for record in &records {
        let before = last.insert(&record.key, &record.value);
        assert!(before != Some(&record.value) && (before.is_some() || record.value.is_some()), "twice: {record:?}");
    }
}

#[test]
fn results_by_key_embedded() {
    results_by_key(Layout::Embedded);
}

#[test]
fn results_by_key_with_three_executors() {
    results_by_key(Layout::Cluster(3));
}

#[test]
fn two_rows_of_a_key_stop_the_pipeline_and_are_named() {
    let orders = orders::orders(32, 0..200);
    let (from, to) = (topic("orders", 2, &[]), topic("per-city", 1, &[]));
    Broker::shared().produce(&from, &orders.iter().map(|o| o.record(2)).collect::<Vec<_>>());
    let sql = format!(
        "{SETTINGS}
         CREATE TABLE orders ({}) {};
         CREATE TABLE per_city (city STRING, customer BIGINT, orders BIGINT, PRIMARY KEY (city) NOT ENFORCED) {};
         INSERT INTO per_city SELECT city, customer, count(*) FROM orders GROUP BY city, customer;",
        orders::COLUMNS,
        kafka(&from, "'format' = 'json', 'scan.bounded.mode' = 'latest-offset'"),
        kafka(&to, "'format' = 'json'"),
    );
    let finished = Pipeline::new("per-city", sql).attempt(Layout::Embedded);
    assert!(!finished.status.success());
    let named = finished.stderr.contains("table 'per_city': several rows for key (city) = (");
    assert!(named && finished.stderr.contains("make the query return one row per PRIMARY KEY"), "{}", finished.stderr);
    assert!(committed(&to).is_empty());
}

/// A table of a database and the log of its changes.
struct Database {
    rows: BTreeMap<i64, (usize, i64)>,
    random: StdRng,
}

impl Database {
    fn new(seed: u64) -> Self {
        Self { rows: BTreeMap::new(), random: StdRng::seed_from_u64(seed) }
    }

    fn row(id: i64, (city, cents): (usize, i64)) -> serde_json::Value {
        serde_json::json!({"id": id, "city": CITIES[city], "cents": cents})
    }

    /// Changes one row; a deletion is followed by a tombstone, as Debezium has it.
    fn change(&mut self) -> Vec<Record> {
        let id = self.random.random_range(0..150);
        let old = self.rows.get(&id).copied();
        let gone = old.is_some() && self.random.random_ratio(1, 5);
        let new = (!gone).then(|| (self.random.random_range(0..CITIES.len()), self.random.random_range(0..10_000)));
        match new {
            Some(row) => self.rows.insert(id, row),
            None => self.rows.remove(&id),
        };
        let op = match (old, new) {
            (None, _) => "c",
            (_, Some(_)) => "u",
            (_, None) => "d",
        };
        let side = |row: Option<(usize, i64)>| row.map(|row| Self::row(id, row));
        let change = serde_json::json!({
            "before": side(old), "after": side(new), "op": op, "source": {"db": "shop", "ts_ms": 1}, "ts_ms": 2,
        });
        let key = format!("{{\"id\":{id}}}");
        let mut records = vec![Record::new(change.to_string()).key(key.as_str())];
        if gone {
            records.push(Record::tombstone(key.as_str()));
        }
        records
    }

    fn changes(&mut self, count: usize) -> Vec<Record> {
        (0..count).flat_map(|_| self.change()).collect()
    }

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int64, true),
            Field::new("city", DataType::Utf8, true),
            Field::new("cents", DataType::Int64, true),
        ]))
    }

    fn batch(&self) -> RecordBatch {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(self.rows.keys().copied())),
            Arc::new(StringArray::from_iter_values(self.rows.values().map(|r| CITIES[r.0]))),
            Arc::new(Int64Array::from_iter_values(self.rows.values().map(|r| r.1))),
        ];
        RecordBatch::try_new(Self::schema(), columns).unwrap()
    }

    fn ask(&self, query: &str) -> Vec<RecordBatch> {
        Oracle::default().table("stock", Self::schema(), vec![self.batch()]).query(query)
    }
}

/// The rows that are there when changes in the form of Debezium are applied in order. Panics at one that takes away a row that is not there.
fn applied(records: &[Received]) -> Vec<String> {
    let mut rows: BTreeMap<String, i64> = BTreeMap::new();
    for record in records {
        let change: serde_json::Value = serde_json::from_str(record.text()).unwrap();
        let (row, weight) = match change["op"].as_str().unwrap() {
            "c" => (change["after"].to_string(), 1),
            "d" => (change["before"].to_string(), -1),
            other => panic!("op '{other}': {}", record.text()),
        };
        let count = rows.entry(row).or_default();
        *count += weight;
        assert!(
            (0..=1).contains(count),
            "{} at partition {}, offset {}",
            record.text(),
            record.partition,
            record.offset
        );
    }
    rows.into_iter().filter(|(_, count)| *count > 0).map(|(row, _)| row).collect()
}

/// The rows that are there when files of changes are applied in the order of their names, which is that of each task.
fn applied_files(files: &Files, folder: &str) -> BTreeMap<(i64, String, i64), i64> {
    let mut names = files.keys(folder, ".parquet");
    names.sort();
    let mut rows = BTreeMap::new();
    for batch in names.iter().flat_map(|name| parquet_rows(name, files.get(name))) {
        let text = |name: &str| batch.column_by_name(name).unwrap().as_string::<i32>().clone();
        let number = |name: &str| batch.column_by_name(name).unwrap().as_primitive::<Int64Type>().clone();
        let (op, id, city, cents) = (text("op"), number("id"), text("city"), number("cents"));
        for i in 0..batch.num_rows() {
            let weight = if op.value(i).starts_with('+') { 1 } else { -1 };
            let row = (id.value(i), city.value(i).to_owned(), cents.value(i));
            let count = rows.entry(row.clone()).or_insert(0);
            *count += weight;
            assert!((0..=1).contains(count), "{} {row:?}", op.value(i));
        }
    }
    rows.retain(|_, count| *count > 0);
    rows
}

const PER_CITY: &str =
    "SELECT city, count(*) AS rows, sum(cents) AS cents, min(cents) AS lowest FROM stock GROUP BY city";

/// Changes of a database are aggregated and leave as changes, as results by key and as files, while processes are killed.
fn changes_in_and_changes_out(key: &str) {
    let broker = Broker::shared();
    let from = topic("stock", 3, &[]);
    let (changelog, latest) = (topic("per-city", 2, &[]), topic("latest", 2, &[("cleanup.policy", "compact")]));
    let folder = temp_dir();
    let sql = format!(
        "SET 'pipeline.name' = '{}'; {SETTINGS}
         CREATE TABLE stock (id BIGINT, city STRING, cents BIGINT{key}) {};
         CREATE TABLE per_city (city STRING, rows BIGINT, cents BIGINT, lowest BIGINT, PRIMARY KEY (city) NOT ENFORCED) {};
         CREATE TABLE latest (id BIGINT, city STRING, cents BIGINT, PRIMARY KEY (id) NOT ENFORCED) {};
         CREATE TABLE history (id BIGINT, city STRING, cents BIGINT) WITH (
           'connector' = 'filesystem', 'path' = '{}/history', 'format' = 'parquet', 'changelog.column' = 'op', 'commit.interval' = '500 ms');
         INSERT INTO per_city {PER_CITY};
         INSERT INTO latest SELECT id, city, cents FROM stock WHERE cents >= 1000;
         INSERT INTO history SELECT id, city, cents FROM stock WHERE city <> 'Bergen';",
        unique("stock"),
        kafka(&from, "'format' = 'debezium-json'"),
        kafka(&changelog, "'format' = 'debezium-json'"),
        kafka(&latest, "'format' = 'json', 'key.format' = 'json'"),
        folder.path().display(),
    );
    let location = folder.path().join("checkpoints").display().to_string();
    let mut cluster = Cluster::new(&sql, &[("checkpointLocation", &location)], &[], 2);
    let mut database = Database::new(41);
    broker.produce(&from, &database.changes(400));
    cluster.start_all();
    let mut seen = 0;
    for victim in [Member::Executor(0), Member::Driver, Member::Executor(1)] {
        wait_for("more changes", TIMEOUT, || {
            (broker.read(&changelog, Isolation::Committed).len() > seen).then_some(())
        });
        seen = broker.read(&changelog, Isolation::Committed).len();
        broker.produce(&from, &database.changes(300));
        cluster.kill(victim);
        broker.produce(&from, &database.changes(300));
        cluster.start(victim);
    }
    broker.produce(&from, &database.changes(200));

    let per_city =
        [("city", DataType::Utf8), ("rows", DataType::Int64), ("cents", DataType::Int64), ("lowest", DataType::Int64)];
    let expected = database.ask(PER_CITY);
    let found = || {
        let rows_there = applied(&broker.read(&changelog, Isolation::Committed));
        rows(&per_city, &rows_there.iter().map(String::as_str).collect::<Vec<_>>())
    };
    wait_for("the last changes", TIMEOUT, || difference(&expected, &found()).is_none().then_some(()));
    cluster.drain(TIMEOUT);
    broker.wait_settled(&changelog, TIMEOUT);
    assert_same_rows("per city", &expected, &found());
    let columns = [("id", DataType::Int64), ("city", DataType::Utf8), ("cents", DataType::Int64)];
    let found = committed(&latest);
    let expected = database.ask("SELECT id, city, cents FROM stock WHERE cents >= 1000");
    assert_same_rows("latest", &expected, &rows(&columns, &last_of_each_key(&found)));
    let expected: BTreeMap<_, _> = database
        .rows
        .iter()
        .filter(|(_, (city, _))| CITIES[*city] != "Bergen")
        .map(|(id, (city, cents))| ((*id, CITIES[*city].to_owned(), *cents), 1))
        .collect();
    assert_eq!(applied_files(&Files::local(folder.path()), "history"), expected);
}

#[test]
fn changes_in_and_changes_out_while_processes_are_killed() {
    changes_in_and_changes_out("");
}

#[test]
fn changes_by_key_in_and_changes_out_while_processes_are_killed() {
    changes_in_and_changes_out(", PRIMARY KEY (id) NOT ENFORCED");
}

#[test]
fn the_last_record_of_each_key_is_joined() {
    let broker = Broker::shared();
    let orders = orders::orders(33, 0..3_000);
    let (from, people, to) = (
        topic("orders", 3, &[]),
        topic("customers", 2, &[("cleanup.policy", "compact")]),
        topic("per-level", 2, &[("cleanup.policy", "compact")]),
    );
    broker.produce(&from, &orders.iter().map(|o| o.record(3)).collect::<Vec<_>>());
    // Customers change their level, and some leave.
    let mut random = StdRng::seed_from_u64(5);
    let mut levels: BTreeMap<i64, i64> = BTreeMap::new();
    let mut records = Vec::new();
    for _ in 0..1_000 {
        let id = random.random_range(0..97);
        let key = format!("{{\"id\":{id}}}");
        if random.random_ratio(1, 6) {
            levels.remove(&id);
            records.push(Record::tombstone(key));
        } else {
            let level = random.random_range(0..6);
            levels.insert(id, level);
            records.push(Record::new(format!("{{\"level\":{level}}}")).key(key));
        }
    }
    broker.produce(&people, &records);
    let bounded = "'scan.bounded.mode' = 'latest-offset'";
    let sql = format!(
        "{SETTINGS}
         CREATE TABLE orders ({}) {};
         CREATE TABLE customers (id BIGINT, level BIGINT NOT NULL, PRIMARY KEY (id) NOT ENFORCED) {};
         CREATE TABLE per_level (level BIGINT, orders BIGINT, cents BIGINT, PRIMARY KEY (level) NOT ENFORCED) {};
         INSERT INTO per_level
         SELECT c.level, count(*), sum(o.cents) FROM orders o JOIN customers c ON o.customer = c.id GROUP BY c.level;",
        orders::COLUMNS,
        kafka(&from, &format!("'format' = 'json', 'maxOffsetsPerTrigger' = '200', {bounded}")),
        kafka(
            &people,
            &format!("'key.format' = 'json', 'value.format' = 'json', 'value.fields-include' = 'EXCEPT_KEY', 'maxOffsetsPerTrigger' = '70', {bounded}")
        )
        .replace("'kafka'", "'upsert-kafka'"),
        kafka(&to, "'key.format' = 'json', 'value.format' = 'json'").replace("'kafka'", "'upsert-kafka'"),
    );
    Pipeline::new("per-level", sql).run(Layout::Spawned(2));
    let schema = Arc::new(Schema::new(["id", "level"].map(|c| Field::new(c, DataType::Int64, true)).to_vec()));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(levels.keys().copied())),
        Arc::new(Int64Array::from_iter_values(levels.values().copied())),
    ];
    let customers = RecordBatch::try_new(schema.clone(), columns).unwrap();
    let oracle = Oracle::default().table("orders", orders::schema(), vec![orders::batch(&orders)]);
    let expected = oracle.table("customers", schema, vec![customers]).query(
        "SELECT c.level, count(*) AS orders, sum(o.cents) AS cents FROM orders o JOIN customers c ON o.customer = c.id GROUP BY c.level",
    );
    let columns = ["level", "orders", "cents"].map(|c| (c, DataType::Int64));
    assert_same_rows("per level", &expected, &rows(&columns, &last_of_each_key(&committed(&to))));
}
