//! The pipeline that the tests of faults run: orders from Kafka, the large ones to Kafka and sums per window to Parquet files.
//!
//! Both outputs must hold every expected row exactly once, whatever was killed, frozen or away meanwhile. Which rows these are depends on
//! the number of orders alone: [`Shop::check`] asks a batch engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema};

use crate::cluster::Cluster;
use crate::files::json_rows;
use crate::kafka::{Broker, Isolation, Received, Record};
use crate::oracle::{Oracle, assert_same_rows};
use crate::orders::{self, Order};
use crate::s3::Bucket;
use crate::unique;
use crate::wait::{poll, wait_for};

/// Partitions of the topic of orders.
const PARTITIONS: i32 = 4;
/// Partitions of the topic of large orders.
const OUT_PARTITIONS: i32 = 2;
/// Orders that are produced at once.
const BATCH: i64 = 250;
/// Pause between two batches.
const PACE: Duration = Duration::from_millis(200);
/// Orders of at least this much are large: about half of them.
const LARGE: i64 = 500_000;
/// Prefix of the files.
const FILES: &str = "per-window";

/// One run of the pipeline with topics and a bucket of its own.
pub struct Shop<'a> {
    broker: &'a Broker,
    bucket: Bucket,
    name: String,
    seed: u64,
    produced: AtomicI64,
    closed: AtomicBool,
}

impl<'a> Shop<'a> {
    pub fn new(broker: &'a Broker, bucket: Bucket, name: &str, seed: u64) -> Self {
        let name = unique(name);
        let shop = Self { broker, bucket, name, seed, produced: AtomicI64::new(0), closed: AtomicBool::new(false) };
        broker.create_topic(&shop.topic("orders"), PARTITIONS, &[]);
        broker.create_topic(&shop.topic("large"), OUT_PARTITIONS, &[]);
        shop
    }

    fn topic(&self, name: &str) -> String {
        format!("{}-{name}", self.name)
    }

    /// `checkpointLocation` in the bucket.
    pub fn checkpoints(&self) -> String {
        self.bucket.url("checkpoints")
    }

    pub fn sql(&self) -> String {
        let (name, bootstrap, columns) = (&self.name, self.broker.bootstrap(), orders::COLUMNS);
        let (orders, large, files) = (self.topic("orders"), self.topic("large"), self.bucket.url(FILES));
        format!(
            "SET 'pipeline.name' = '{name}';
             SET 'checkpoint.interval' = '1 s';
             SET 'parallelism' = '4';
             CREATE TABLE orders ({columns}, WATERMARK FOR ts AS ts - INTERVAL '5' SECOND) WITH (
               'connector' = 'kafka', 'topic' = '{orders}', 'properties.bootstrap.servers' = '{bootstrap}',
               'scan.startup.mode' = 'earliest-offset', 'format' = 'json');
             CREATE TABLE large (id BIGINT, customer BIGINT, cents BIGINT) WITH (
               'connector' = 'kafka', 'topic' = '{large}', 'properties.bootstrap.servers' = '{bootstrap}',
               'format' = 'json', 'sink.delivery-guarantee' = 'exactly-once');
             CREATE TABLE per_window (window_start TIMESTAMP(3), city STRING, orders BIGINT, cents BIGINT) WITH (
               'connector' = 'filesystem', 'path' = '{files}', 'format' = 'parquet', 'commit.interval' = '1 s');
             INSERT INTO large SELECT id, customer, cents FROM orders WHERE cents >= {LARGE};
             INSERT INTO per_window
             SELECT window_start, city, count(*), sum(cents)
             FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(ts), INTERVAL '10' SECOND))
             GROUP BY window_start, window_end, city;"
        )
    }

    /// Produces orders without a pause until `work` is done, then one order per partition that closes all windows.
    pub fn produce_during<T>(&self, work: impl FnOnce() -> T) -> T {
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let stopped = AtomicBool::new(false);
        let result = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stopped.load(Ordering::Relaxed) {
                    self.produce(BATCH);
                    std::thread::sleep(PACE);
                }
            });
            // Also when the work panics, or the scope would wait for ever.
            let _stop = Stop(&stopped);
            work()
        });
        self.close();
        result
    }

    /// Produces the next orders.
    pub fn produce(&self, count: i64) {
        let first = self.produced.load(Ordering::Relaxed);
        let records: Vec<Record> =
            orders::orders(self.seed, first..first + count).iter().map(|order| order.record(PARTITIONS)).collect();
        self.broker.produce(&self.topic("orders"), &records);
        self.produced.store(first + count, Ordering::Relaxed);
    }

    /// Ends the input: an order per partition, an hour later, that belongs to no result.
    pub fn close(&self) {
        assert!(!self.closed.swap(true, Ordering::Relaxed), "the input is ended once");
        let end = self.produced.load(Ordering::Relaxed);
        let last = Order { cents: 0, ts: Order::nth(self.seed, end).ts + 3_600_000, ..Order::nth(self.seed, end) };
        let records: Vec<Record> =
            (0..PARTITIONS).map(|p| Order { id: end + i64::from(p), ..last.clone() }.record(PARTITIONS)).collect();
        self.broker.produce(&self.topic("orders"), &records);
    }

    /// How many orders were produced.
    pub fn produced(&self) -> i64 {
        self.produced.load(Ordering::Relaxed)
    }

    /// The large orders that a reader of committed records sees.
    pub fn large(&self) -> Vec<Received> {
        self.broker.read(&self.topic("large"), Isolation::Committed)
    }

    /// How many files there are.
    pub fn files(&self) -> usize {
        self.bucket.files().keys(FILES, ".parquet").len()
    }

    /// Waits until both outputs have grown, so that what comes next does not hit a dead pipeline.
    pub fn wait_for_progress(&self, timeout: Duration) {
        let (large, files) = (self.large().len(), self.files());
        wait_for(&format!("more than {large} large orders"), timeout, || (self.large().len() > large).then_some(()));
        wait_for(&format!("more than {files} files"), timeout, || (self.files() > files).then_some(()));
    }

    /// Waits until as many rows are there as there must be, drains, and compares every row.
    pub fn finish(&self, cluster: &mut Cluster, timeout: Duration) {
        assert!(self.closed.load(Ordering::Relaxed), "the input has not ended");
        let (large, windows) = self.expected();
        let count = |rows: &[RecordBatch]| rows.iter().map(RecordBatch::num_rows).sum::<usize>();
        let wanted = count(&large);
        if poll(timeout, || (self.large().len() >= wanted).then_some(())).is_none() {
            panic!("waited {timeout:?} in vain for all {wanted} large orders\n{}", self.where_they_are(cluster));
        }
        let wanted = count(&windows);
        wait_for(&format!("all {wanted} rows of windows"), timeout, || {
            (count(&self.bucket.files().parquet(FILES)) >= wanted).then_some(())
        });
        // What would come twice may still be on its way: a drain publishes everything.
        cluster.drain(timeout);
        self.check();
    }

    /// How far each part has come.
    fn where_they_are(&self, cluster: &Cluster) -> String {
        let mut text = String::new();
        for topic in ["orders", "large"] {
            for isolation in [Isolation::Committed, Isolation::Uncommitted] {
                let ends = self.broker.end_offsets(&self.topic(topic), isolation);
                let rows = self.broker.read(&self.topic(topic), isolation).len();
                text += &format!("{topic}, {isolation:?}: ends at {ends:?}, {rows} records\n");
            }
        }
        let newest = |what: &str| {
            let path = format!("/api/v1/jobs/{}/{what}", self.name);
            let answer = cluster.get(&path);
            answer.map(|a| a.as_array().and_then(|a| a.last()).unwrap_or(&a).to_string()).unwrap_or_default()
        };
        text + &["progress", "sources", "checkpoints"].map(|what| format!("{what}: {}\n", newest(what))).concat()
    }

    /// Panics unless both outputs hold every expected row exactly once.
    pub fn check(&self) {
        let (large, windows) = self.expected();
        let schema = Arc::new(Schema::new(
            ["id", "customer", "cents"].map(|name| Field::new(name, DataType::Int64, true)).to_vec(),
        ));
        let received = self.large();
        let found = json_rows(&schema, received.iter().map(|record| record.text().as_bytes()));
        assert_same_rows("large orders", &large, &found);
        assert_same_rows("windows", &windows, &self.bucket.files().parquet(FILES));
    }

    fn expected(&self) -> (Vec<RecordBatch>, Vec<RecordBatch>) {
        let all = orders::batch(&orders::orders(self.seed, 0..self.produced()));
        let oracle = Oracle::default().table("orders", orders::schema(), vec![all]);
        let large = oracle.query(&format!("SELECT id, customer, cents FROM orders WHERE cents >= {LARGE}"));
        let windows = oracle.query(
            "SELECT date_bin(INTERVAL '10 seconds', ts) AS window_start, city, count(*) AS orders, sum(cents) AS cents
             FROM orders GROUP BY 1, 2",
        );
        (large, windows)
    }
}
