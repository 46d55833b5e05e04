//! Pipelines over the real broker and the real S3 server, in one process and with a driver and three executors: what comes out is
//! what a batch query of the same SQL over the same records gives.
//!
//! Records come out of order, over partitions of very different size, in many small epochs.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use millstream_tests::files::{Files, json_rows};
use millstream_tests::kafka::{Broker, Isolation, Record};
use millstream_tests::oracle::{Oracle, assert_same_rows};
use millstream_tests::orders::{self, Order};
use millstream_tests::pipeline::{Layout, Pipeline};
use millstream_tests::s3::S3;
use millstream_tests::{temp_dir, unique};

const CLUSTER: Layout = Layout::Cluster(3);

/// Small epochs, many checkpoints.
const SETTINGS: &str = "SET 'parallelism' = '3'; SET 'checkpoint.interval' = '500 ms'; SET 'trigger' = '20 ms';";

/// Seven tenths of the orders are in the last of four partitions.
fn partition(order: &Order) -> i32 {
    (order.customer % 10).min(3) as i32
}

/// The orders of a test in a topic.
struct Input {
    topic: String,
    orders: Vec<Order>,
}

impl Input {
    fn produce(seed: u64, count: i64) -> Self {
        let broker = Broker::shared();
        let topic = unique("orders");
        broker.create_topic(&topic, 4, &[]);
        let orders = orders::orders(seed, 0..count);
        let records: Vec<Record> =
            orders.iter().map(|order| order.record(4).partition((order.customer % 10).min(3) as i32)).collect();
        broker.produce(&topic, &records);
        Self { topic, orders }
    }

    /// The table `orders` that reads the topic to its present end, about twenty epochs.
    fn table(&self) -> String {
        let (columns, bootstrap, topic) = (orders::COLUMNS, Broker::shared().bootstrap(), &self.topic);
        let per_epoch = self.orders.len() / 20;
        format!(
            "CREATE TABLE orders ({columns}, WATERMARK FOR ts AS ts - INTERVAL '5' SECOND) WITH (
               'connector' = 'kafka', 'topic' = '{topic}', 'properties.bootstrap.servers' = '{bootstrap}',
               'scan.startup.mode' = 'earliest-offset', 'scan.bounded.mode' = 'latest-offset',
               'maxOffsetsPerTrigger' = '{per_epoch}', 'format' = 'json');"
        )
    }

    fn oracle(&self) -> Oracle {
        Oracle::default().table("orders", orders::schema(), vec![orders::batch(&self.orders)])
    }
}

fn windows_reach_a_bucket(layout: Layout) {
    let input = Input::produce(11, 6_000);
    let s3 = S3::shared();
    let bucket = s3.create_bucket(&unique("per-minute"));
    let sql = format!(
        "{SETTINGS} {}
         CREATE TABLE per_minute (
           window_start TIMESTAMP(3), window_end TIMESTAMP(3), city STRING, orders BIGINT, cents BIGINT, mean DOUBLE,
           lowest BIGINT, highest BIGINT
         ) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'parquet');
         INSERT INTO per_minute
         SELECT window_start, window_end, city, count(*), sum(cents), avg(cents), min(cents), max(cents)
         FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(ts), INTERVAL '1' MINUTE))
         WHERE cents > 0
         GROUP BY window_start, window_end, city;",
        input.table(),
        bucket.url("out"),
    );
    Pipeline::new("per-minute", sql).conf("checkpointLocation", bucket.url("checkpoints")).env(s3.env()).run(layout);
    let expected = input.oracle().query(
        "SELECT date_bin(INTERVAL '1 minute', ts) AS window_start,
                date_bin(INTERVAL '1 minute', ts) + INTERVAL '1 minute' AS window_end, city,
                count(*) AS orders, sum(cents) AS cents, avg(cents) AS mean, min(cents) AS lowest, max(cents) AS highest
         FROM orders WHERE cents > 0 GROUP BY 1, 2, 3",
    );
    assert_same_rows("per minute and city", &expected, &bucket.files().parquet("out"));
}

#[test]
fn windows_reach_a_bucket_embedded() {
    windows_reach_a_bucket(Layout::Embedded);
}

#[test]
fn windows_reach_a_bucket_with_three_executors() {
    windows_reach_a_bucket(CLUSTER);
}

#[test]
fn windows_reach_a_bucket_with_executors_that_run_starts() {
    windows_reach_a_bucket(Layout::Spawned(3));
}

fn a_topic_is_filtered_into_a_topic(layout: Layout) {
    let input = Input::produce(12, 5_000);
    let broker = Broker::shared();
    let target = unique("large");
    broker.create_topic(&target, 3, &[]);
    let sql = format!(
        "{SETTINGS} {}
         CREATE TABLE large (id BIGINT, city STRING, euros DOUBLE, ts TIMESTAMP(3)) WITH (
           'connector' = 'kafka', 'topic' = '{target}', 'properties.bootstrap.servers' = '{}', 'format' = 'json',
           'key.fields' = 'id', 'sink.delivery-guarantee' = 'exactly-once');
         INSERT INTO large SELECT id, upper(city), cents / 100.0, ts FROM orders WHERE cents >= 500000 OR city = 'Bergen';",
        input.table(),
        broker.bootstrap(),
    );
    Pipeline::new("large", sql).run(layout);
    let expected = input.oracle().query(
        "SELECT id, upper(city) AS city, cents / 100.0 AS euros, ts FROM orders WHERE cents >= 500000 OR city = 'Bergen'",
    );
    broker.wait_settled(&target, std::time::Duration::from_secs(30));
    let schema = Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("city", DataType::Utf8, true),
        Field::new("euros", DataType::Float64, true),
        timestamp("ts"),
    ]));
    let received = broker.read(&target, Isolation::Committed);
    let texts: Vec<&[u8]> = received.iter().map(|r| r.text().as_bytes()).collect();
    assert_same_rows("large orders", &expected, &json_rows(&schema, texts));
    for record in &received {
        let row: serde_json::Value = serde_json::from_str(record.text()).unwrap();
        let key: serde_json::Value = serde_json::from_slice(record.key.as_deref().unwrap()).unwrap();
        assert_eq!(key["id"], row["id"], "the key of {}", record.text());
    }
    // Within a partition of the source, order is kept: ids of one source partition and one key's partition ascend.
    let mut last = std::collections::BTreeMap::new();
    for record in &received {
        let row: serde_json::Value = serde_json::from_str(record.text()).unwrap();
        let order = &input.orders[usize::try_from(row["id"].as_i64().unwrap()).unwrap()];
        let from = partition(order);
        if let Some(earlier) = last.insert((from, record.partition), order.id) {
            assert!(earlier < order.id, "order {} comes after {earlier}", order.id);
        }
    }
}

#[test]
fn a_topic_is_filtered_into_a_topic_embedded() {
    a_topic_is_filtered_into_a_topic(Layout::Embedded);
}

#[test]
fn a_topic_is_filtered_into_a_topic_with_three_executors() {
    a_topic_is_filtered_into_a_topic(CLUSTER);
}

/// One INSERT of a pipeline with several, and the batch query that says what comes out.
struct Query {
    table: &'static str,
    columns: &'static str,
    sql: &'static str,
    batch: &'static str,
}

const QUERIES: &[Query] = &[
    Query {
        table: "hopping",
        columns: "window_start TIMESTAMP(3), city STRING, orders BIGINT, cents BIGINT",
        sql: "SELECT window_start, city, count(*), sum(cents)
              FROM TABLE(HOP(TABLE orders, DESCRIPTOR(ts), INTERVAL '10' SECOND, INTERVAL '30' SECOND))
              GROUP BY window_start, window_end, city",
        batch: "SELECT date_bin(INTERVAL '10 seconds', ts) - back AS window_start, city, count(*) AS orders, sum(cents) AS cents
                FROM orders CROSS JOIN (VALUES (INTERVAL '0 seconds'), (INTERVAL '10 seconds'), (INTERVAL '20 seconds')) AS b(back)
                GROUP BY 1, 2",
    },
    Query {
        table: "cumulating",
        columns: "window_start TIMESTAMP(3), window_end TIMESTAMP(3), orders BIGINT, customers BIGINT",
        sql: "SELECT window_start, window_end, count(*), count(DISTINCT customer)
              FROM TABLE(CUMULATE(TABLE orders, DESCRIPTOR(ts), INTERVAL '15' SECOND, INTERVAL '1' MINUTE))
              GROUP BY window_start, window_end",
        batch: "SELECT date_bin(INTERVAL '1 minute', ts) AS window_start, date_bin(INTERVAL '1 minute', ts) + ahead AS window_end,
                       count(*) AS orders, count(DISTINCT customer) AS customers
                FROM orders CROSS JOIN (VALUES (INTERVAL '15 seconds'), (INTERVAL '30 seconds'), (INTERVAL '45 seconds'),
                                               (INTERVAL '60 seconds')) AS a(ahead)
                WHERE ts < date_bin(INTERVAL '1 minute', ts) + ahead
                GROUP BY 1, 2",
    },
    Query {
        table: "sessions",
        columns: "customer BIGINT, first TIMESTAMP(3), after TIMESTAMP(3), orders BIGINT, highest BIGINT",
        sql: "SELECT customer, window_start, window_end, count(*), max(cents)
              FROM TABLE(SESSION(TABLE orders PARTITION BY customer, DESCRIPTOR(ts), INTERVAL '8' SECOND))
              GROUP BY customer, window_start, window_end",
        batch: "WITH marked AS (
                  SELECT *, CASE WHEN ts < lag(ts) OVER (PARTITION BY customer ORDER BY ts, id) + INTERVAL '8 seconds'
                                 THEN 0 ELSE 1 END AS new
                  FROM orders),
                numbered AS (
                  SELECT *, sum(new) OVER (PARTITION BY customer ORDER BY ts, id ROWS UNBOUNDED PRECEDING) AS session FROM marked)
                SELECT customer, min(ts) AS first, max(ts) + INTERVAL '8 seconds' AS after, count(*) AS orders, max(cents) AS highest
                FROM numbered GROUP BY customer, session",
    },
    Query {
        table: "distinct_customers",
        columns: "window_start TIMESTAMP(3), city STRING, customers BIGINT, rich BIGINT",
        sql: "SELECT window_start, city, count(DISTINCT customer), count(DISTINCT customer) FILTER (WHERE cents > 900000)
              FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(ts), INTERVAL '20' SECOND))
              GROUP BY window_start, window_end, city",
        batch: "SELECT date_bin(INTERVAL '20 seconds', ts) AS window_start, city, count(DISTINCT customer) AS customers,
                       count(DISTINCT customer) FILTER (WHERE cents > 900000) AS rich
                FROM orders GROUP BY 1, 2",
    },
    Query {
        table: "spark_windows",
        columns: "start TIMESTAMP(3), parity BIGINT, orders BIGINT",
        sql: "SELECT window.start, customer % 2, count(*) FROM orders GROUP BY window(ts, '25 seconds'), customer % 2",
        batch: "SELECT date_bin(INTERVAL '25 seconds', ts) AS start, customer % 2 AS parity, count(*) AS orders FROM orders GROUP BY 1, 2",
    },
    Query {
        table: "both_ends",
        columns: "id BIGINT, what STRING",
        sql: "SELECT id, 'low' FROM orders WHERE cents < 20000 UNION ALL SELECT id, city FROM orders WHERE cents > 30000 AND id % 7 = 0
              UNION ALL SELECT id, 'high' FROM orders WHERE cents > 980000",
        batch: "SELECT id, 'low' AS what FROM orders WHERE cents < 20000 UNION ALL SELECT id, city FROM orders WHERE cents > 30000 AND id % 7 = 0
                UNION ALL SELECT id, 'high' FROM orders WHERE cents > 980000",
    },
    Query {
        table: "union_windows",
        columns: "window_end TIMESTAMP(3), kind STRING, orders BIGINT",
        sql: "SELECT window_end, kind, count(*) FROM TABLE(TUMBLE(
                TABLE (SELECT ts, 'even' AS kind FROM orders WHERE id % 2 = 0
                       UNION ALL SELECT ts, city FROM orders WHERE id % 3 = 0),
                DESCRIPTOR(ts), INTERVAL '40' SECOND))
              GROUP BY window_start, window_end, kind",
        batch: "SELECT date_bin(INTERVAL '40 seconds', ts) + INTERVAL '40 seconds' AS window_end, kind, count(*) AS orders
                FROM (SELECT ts, 'even' AS kind FROM orders WHERE id % 2 = 0
                      UNION ALL SELECT ts, city FROM orders WHERE id % 3 = 0)
                GROUP BY 1, 2",
    },
];

/// All of [`QUERIES`] from one read of the topic, each into Parquet files.
fn every_query_of_one_source(layout: Layout) {
    let input = Input::produce(13, 4_000);
    let folder = temp_dir();
    let inserts: Vec<String> = QUERIES
        .iter()
        .map(|Query { table, columns, sql, .. }| {
            format!(
                "CREATE TABLE {table} ({columns}) WITH ('connector' = 'filesystem', 'path' = '{}/{table}', 'format' = 'parquet');
                 INSERT INTO {table} {sql};",
                folder.path().display()
            )
        })
        .collect();
    Pipeline::new("queries", format!("{SETTINGS} {} {}", input.table(), inserts.join("\n"))).run(layout);
    let (files, oracle) = (Files::local(folder.path()), input.oracle());
    for query in QUERIES {
        let expected = oracle.query(query.batch);
        assert!(expected.iter().map(RecordBatch::num_rows).sum::<usize>() > 10, "{} says little", query.table);
        assert_same_rows(query.table, &expected, &files.parquet(query.table));
    }
}

#[test]
fn every_query_of_one_source_embedded() {
    every_query_of_one_source(Layout::Embedded);
}

#[test]
fn every_query_of_one_source_with_three_executors() {
    every_query_of_one_source(CLUSTER);
}

fn timestamp(name: &str) -> Field {
    Field::new(name, DataType::Timestamp(TimeUnit::Millisecond, None), true)
}

/// `ROW`s, arrays and maps with nulls at every level.
fn nested_schema() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let address = DataType::Struct(Fields::from(vec![text("zip"), Field::new("floor", DataType::Int32, true)]));
    let who = DataType::Struct(Fields::from(vec![text("name"), Field::new("address", address, true)]));
    let entries = DataType::Struct(Fields::from(vec![
        Field::new("key", DataType::Utf8, false),
        Field::new("value", DataType::Int64, true),
    ]));
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        timestamp("ts"),
        Field::new("who", who, true),
        Field::new("tags", DataType::List(Arc::new(Field::new("item", DataType::Utf8, true))), true),
        Field::new("counts", DataType::Map(Arc::new(Field::new("entries", entries, false)), false), true),
        Field::new("score", DataType::Float64, true),
        Field::new("good", DataType::Boolean, true),
    ]))
}

fn nested_record(id: i64) -> String {
    let who = match id % 5 {
        0 => "null".to_owned(),
        1 => r#"{"name":null,"address":{"zip":"00100","floor":3}}"#.to_owned(),
        2 => format!(r#"{{"name":"n{}","address":null}}"#, id % 4),
        3 => format!(r#"{{"address":{{"floor":{}}},"name":"\u00e9\ud83d\ude00 {}"}}"#, id % 6, id % 3),
        _ => r#"{"name":"q\"uote","extra":{"deep":[1,2]},"address":{"zip":"99999"}}"#.to_owned(),
    };
    let tags = ["null", "[]", r#"["a"]"#, r#"["b",null,"c"]"#][id as usize % 4];
    let counts = ["null", "{}", r#"{"x":1,"y":null}"#, r#"{"y":20,"x":-7}"#][id as usize / 3 % 4];
    let score = ["null", "0.5", "-1e3", "12"][id as usize / 2 % 4];
    let good = ["true", "false", "null"][id as usize % 3];
    let (minute, second) = (id / 60, id % 60);
    let mut fields = vec![
        format!(r#""ts":"2024-03-01 10:{minute:02}:{second:02}.{:03}""#, id % 1000),
        format!(r#""who":{who}"#),
        format!(r#""tags":{tags}"#),
        format!(r#""counts":{counts}"#),
        format!(r#""score":{score}"#),
        format!(r#""id":{id}"#),
    ];
    if id % 3 != 2 {
        fields.push(format!(r#""good":{good}"#));
    }
    format!("{{{}}}", fields.join(","))
}

fn nested_columns_and_nulls(layout: Layout) {
    let broker = Broker::shared();
    let (source, flat) = (unique("nested"), unique("flat"));
    broker.create_topic(&source, 2, &[]);
    broker.create_topic(&flat, 1, &[]);
    let texts: Vec<String> = (0..600).map(nested_record).collect();
    let records: Vec<Record> = (0..).zip(&texts).map(|(n, t)| Record::new(t.as_str()).partition(n % 2)).collect();
    broker.produce(&source, &records);
    let folder = temp_dir();
    let bootstrap = broker.bootstrap();
    let sql = format!(
        "{SETTINGS}
         CREATE TABLE nested (
           id BIGINT, ts TIMESTAMP(3), who ROW<name STRING, address ROW<zip STRING, floor INT>>, tags ARRAY<STRING>,
           counts MAP<STRING, BIGINT>, score DOUBLE, good BOOLEAN, WATERMARK FOR ts AS ts - INTERVAL '5' SECOND
         ) WITH ('connector' = 'kafka', 'topic' = '{source}', 'properties.bootstrap.servers' = '{bootstrap}',
                 'scan.bounded.mode' = 'latest-offset', 'maxOffsetsPerTrigger' = '50', 'format' = 'json');
         CREATE TABLE flat (id BIGINT, name STRING, zip STRING, floor INT, good BOOLEAN, tags ARRAY<STRING>, score DOUBLE)
         WITH ('connector' = 'kafka', 'topic' = '{flat}', 'properties.bootstrap.servers' = '{bootstrap}', 'format' = 'json');
         CREATE TABLE counted (start TIMESTAMP(3), name STRING, good BOOLEAN, rows BIGINT, scores BIGINT, total DOUBLE, mean DOUBLE, top DOUBLE)
         WITH ('connector' = 'filesystem', 'path' = '{0}/counted', 'format' = 'parquet');
         CREATE TABLE copied (id BIGINT, who ROW<name STRING, address ROW<zip STRING, floor INT>>, counts MAP<STRING, BIGINT>)
         WITH ('connector' = 'filesystem', 'path' = '{0}/copied', 'format' = 'json');
         INSERT INTO flat SELECT id, who.name, who.address.zip, who.address.floor, good, tags, score FROM nested
         WHERE good IS NULL OR who.name IS NOT NULL;
         INSERT INTO counted SELECT window_start, who.name, good, count(*), count(score), sum(score), avg(score), max(score)
         FROM TABLE(TUMBLE(TABLE nested, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end, who.name, good;
         INSERT INTO copied SELECT id, who, counts FROM nested WHERE id % 2 = 1;",
        folder.path().display()
    );
    Pipeline::new("nested", sql).run(layout);

    let schema = nested_schema();
    // The oracle's reader refuses fields that the table does not declare; the engine skips them.
    let known: Vec<String> = texts.iter().map(|t| t.replace(r#""extra":{"deep":[1,2]},"#, "")).collect();
    let rows = json_rows(&schema, known.iter().map(String::as_bytes));
    let oracle = Oracle::default().table("nested", Arc::clone(&schema), rows);
    let field = |name: &str| schema.field_with_name(name).unwrap().clone();
    let flat_schema = Arc::new(Schema::new(vec![
        field("id"),
        Field::new("name", DataType::Utf8, true),
        Field::new("zip", DataType::Utf8, true),
        Field::new("floor", DataType::Int32, true),
        field("good"),
        field("tags"),
        field("score"),
    ]));
    let expected = oracle.query(
        "SELECT id, who['name'] AS name, who['address']['zip'] AS zip, who['address']['floor'] AS floor, good, tags, score FROM nested
         WHERE good IS NULL OR who['name'] IS NOT NULL",
    );
    let received = broker.read(&flat, Isolation::Committed);
    let actual = json_rows(&flat_schema, received.iter().map(|r| r.text().as_bytes()));
    assert_same_rows("flat rows", &expected, &actual);
    let files = Files::local(folder.path());
    let expected = oracle.query(
        "SELECT date_bin(INTERVAL '1 minute', ts) AS start, who['name'] AS name, good, count(*) AS rows, count(score) AS scores,
                sum(score) AS total, avg(score) AS mean, max(score) AS top
         FROM nested GROUP BY 1, 2, 3",
    );
    assert_same_rows("counted rows", &expected, &files.parquet("counted"));
    let expected = oracle.query("SELECT id, who, counts FROM nested WHERE id % 2 = 1");
    let copied = Schema::new(vec![field("id"), field("who"), field("counts")]);
    assert_same_rows("copied rows", &expected, &files.json("copied", &copied));
}

#[test]
fn nested_columns_and_nulls_embedded() {
    nested_columns_and_nulls(Layout::Embedded);
}

#[test]
fn nested_columns_and_nulls_with_three_executors() {
    nested_columns_and_nulls(CLUSTER);
}

/// Files of three formats in a bucket, each read once, into one table.
fn files_of_every_format(layout: Layout) {
    let s3 = S3::shared();
    let bucket = s3.create_bucket(&unique("files"));
    let parts: Vec<Vec<Order>> = (0..9).map(|n| orders::orders(14, n * 300..(n + 1) * 300)).collect();
    for (n, part) in parts.iter().enumerate() {
        match n % 3 {
            0 => {
                let lines: Vec<String> = part.iter().map(Order::json).collect();
                bucket.files().put(&format!("in/json/day={n}/part.json"), lines.join("\n"));
            }
            1 => bucket.files().put(&format!("in/csv/part-{n}.csv"), csv(part)),
            _ => {
                let mut file = Vec::new();
                let mut writer = parquet::arrow::ArrowWriter::try_new(&mut file, orders::schema(), None).unwrap();
                writer.write(&orders::batch(part)).unwrap();
                writer.close().unwrap();
                bucket.files().put(&format!("in/parquet/part-{n}.parquet"), file);
            }
        }
    }
    let tables: Vec<String> = ["json", "csv", "parquet"]
        .iter()
        .map(|format| {
            format!(
                "CREATE TABLE of_{format} ({}, WATERMARK FOR ts AS ts - INTERVAL '1' HOUR) WITH ('connector' = 'filesystem',
                   'path' = '{}', 'format' = '{format}', 'source.monitor' = 'false');",
                orders::COLUMNS,
                bucket.url(&format!("in/{format}")),
            )
        })
        .collect();
    let sql = format!(
        "{SETTINGS} {}
         CREATE VIEW everything AS SELECT * FROM of_json UNION ALL SELECT * FROM of_csv UNION ALL SELECT * FROM of_parquet;
         CREATE TABLE rows_out ({}) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'json');
         CREATE TABLE sums (window_start TIMESTAMP(3), city STRING, cents BIGINT, highest BIGINT)
         PARTITIONED BY (city) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'csv');
         INSERT INTO rows_out SELECT * FROM everything;
         INSERT INTO sums SELECT window_start, city, sum(cents), max(cents)
         FROM TABLE(TUMBLE(TABLE everything, DESCRIPTOR(ts), INTERVAL '30' SECOND)) GROUP BY window_start, window_end, city;",
        tables.join("\n"),
        orders::COLUMNS,
        bucket.url("rows"),
        bucket.url("sums"),
    );
    Pipeline::new("files", sql).conf("checkpointLocation", bucket.url("checkpoints")).env(s3.env()).run(layout);
    let all: Vec<Order> = parts.concat();
    let rows = vec![orders::batch(&all)];
    assert_same_rows("rows of files", &rows, &bucket.files().json("rows", &orders::schema()));
    let oracle = Oracle::default().table("orders", orders::schema(), rows);
    let expected = oracle.query(
        "SELECT date_bin(INTERVAL '30 seconds', ts) AS window_start, sum(cents) AS cents, max(cents) AS highest FROM orders GROUP BY 1, city",
    );
    let schema = Arc::new(Schema::new(vec![
        timestamp("window_start"),
        Field::new("cents", DataType::Int64, true),
        Field::new("highest", DataType::Int64, true),
    ]));
    let keys = bucket.files().keys("sums", ".csv");
    assert!(keys.iter().all(|key| key.starts_with("sums/city=")), "{keys:?}");
    let actual: Vec<RecordBatch> = keys
        .iter()
        .flat_map(|key| {
            let content = std::io::Cursor::new(bucket.files().get(key));
            let reader = arrow::csv::ReaderBuilder::new(Arc::clone(&schema)).build(content).unwrap();
            reader.map(|batch| batch.unwrap_or_else(|e| panic!("{key}: {e}"))).collect::<Vec<_>>()
        })
        .collect();
    assert_same_rows("sums of files", &expected, &actual);
}

fn csv(orders: &[Order]) -> String {
    let line = |order: &Order| {
        let row: serde_json::Value = serde_json::from_str(&order.json()).unwrap();
        let city = order.city.replace('"', "\"\"");
        format!("{},{},\"{city}\",{},{}\n", order.id, order.customer, order.cents, row["ts"].as_str().unwrap())
    };
    orders.iter().map(line).collect()
}

#[test]
fn files_of_every_format_embedded() {
    files_of_every_format(Layout::Embedded);
}

#[test]
fn files_of_every_format_with_three_executors() {
    files_of_every_format(CLUSTER);
}

/// Runs that each end with what is there: the next one goes on from the checkpoint in the bucket, in another layout and on another disk,
/// and windows that were open are closed by rows of later runs.
#[test]
fn a_pipeline_goes_on_where_it_was() {
    let broker = Broker::shared();
    let topic = unique("continued");
    broker.create_topic(&topic, 4, &[]);
    let s3 = S3::shared();
    let bucket = s3.create_bucket(&unique("continued"));
    let columns = orders::COLUMNS;
    let sql = format!(
        "{SETTINGS}
         CREATE TABLE orders ({columns}, WATERMARK FOR ts AS ts - INTERVAL '5' SECOND) WITH (
           'connector' = 'kafka', 'topic' = '{topic}', 'properties.bootstrap.servers' = '{}', 'maxOffsetsPerTrigger' = '300',
           'format' = 'json');
         CREATE TABLE archive ({columns}) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'json');
         CREATE TABLE sums (window_start TIMESTAMP(3), city STRING, parity BIGINT, orders BIGINT, cents BIGINT)
         WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'parquet');
         CREATE TABLE archived ({columns}) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'parquet');
         INSERT INTO sums SELECT window_start, city, customer % 2, count(*), sum(cents)
         FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end, city, customer % 2;
         INSERT INTO archived SELECT * FROM archive;",
        broker.bootstrap(),
        bucket.url("archive"),
        bucket.url("sums"),
        bucket.url("archived"),
    );
    let pipeline = Pipeline::new("continued", sql)
        .conf("checkpointLocation", bucket.url("checkpoints"))
        .conf("trigger", "availableNow")
        .env(s3.env());
    let (mut all, mut archived) = (Vec::new(), Vec::new());
    for (run, layout) in (0..).zip([Layout::Embedded, CLUSTER, Layout::Embedded]) {
        // The third run finds nothing new.
        let part = if run < 2 { orders::orders(15, run * 2_000..(run + 1) * 2_000) } else { Vec::new() };
        let records: Vec<Record> = part.iter().map(|order| order.record(4).partition(partition(order))).collect();
        broker.produce(&topic, &records);
        all.extend(part);
        if run < 2 {
            let kept = orders::orders(16, run * 100..(run + 1) * 100);
            let lines: Vec<String> = kept.iter().map(Order::json).collect();
            bucket.files().put(&format!("archive/{run}.json"), lines.join("\n"));
            archived.extend(kept);
        }
        pipeline.run(layout);

        assert_same_rows("archived orders", &[orders::batch(&archived)], &bucket.files().parquet("archived"));
        let newest = |p: i32| all.iter().filter(|order| partition(order) == p).map(|order| order.ts).max();
        let watermark = (0..4).filter_map(newest).min().unwrap() - 5_000;
        let oracle = Oracle::default().table("orders", orders::schema(), vec![orders::batch(&all)]);
        let expected = oracle.query(&format!(
            "SELECT date_bin(INTERVAL '1 minute', ts) AS window_start, city, customer % 2 AS parity, count(*) AS orders, sum(cents) AS cents
             FROM orders GROUP BY 1, 2, 3
             HAVING date_bin(INTERVAL '1 minute', ts) + INTERVAL '1 minute' <= to_timestamp_millis({watermark})"
        ));
        let closed = expected.iter().map(RecordBatch::num_rows).sum::<usize>();
        assert!(closed > 20, "only {closed} windows are closed");
        assert_same_rows(&format!("sums after run {run}"), &expected, &bucket.files().parquet("sums"));
    }
}
