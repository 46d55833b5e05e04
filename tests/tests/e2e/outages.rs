//! A broker or an S3 server that is stopped, killed or frozen and comes back, and a sink that does not keep up: the same processes go on by themselves.

#![expect(clippy::panic, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use millstream_tests::cluster::{Cluster, Member};
use millstream_tests::files::json_rows;
use millstream_tests::kafka::{Broker, Isolation};
use millstream_tests::s3::S3;
use millstream_tests::shop::Shop;
use millstream_tests::wait::{poll, wait_for};
use millstream_tests::{temp_dir, unique};

const EXECUTORS: usize = 2;
const TIMEOUT: Duration = Duration::from_secs(90);
/// How long the server is away.
const AWAY: Duration = Duration::from_secs(20);

#[test]
fn a_broker_that_is_away_for_20_s_costs_nothing() {
    let (broker, s3) = (Broker::start(), S3::shared());
    let back = || broker.start_again();
    outages("broker", &broker, s3, &[(&|| broker.stop(), &back), (&|| broker.kill(), &back)]);
}

#[test]
fn a_broker_that_is_frozen_for_20_s_costs_nothing() {
    let (broker, s3) = (Broker::start(), S3::shared());
    outages("frozen", &broker, s3, &[(&|| broker.freeze(), &|| broker.thaw())]);
}

#[test]
fn an_s3_server_that_is_away_for_20_s_costs_nothing() {
    let (broker, s3) = (Broker::shared(), S3::start());
    let back = || s3.start_again();
    outages("s3", broker, &s3, &[(&|| s3.stop(), &back), (&|| s3.kill(), &back), (&|| s3.freeze(), &|| s3.thaw())]);
}

/// How a server goes away, and how it comes back.
type Outage<'a> = (&'a dyn Fn(), &'a dyn Fn());

/// Lets the pipeline lose one of its servers in several ways, each for [`AWAY`]. Its own processes stay the same.
fn outages(name: &str, broker: &Broker, s3: &S3, outages: &[Outage<'_>]) {
    let shop = Shop::new(broker, s3.create_bucket(&unique(name)), name, 11);
    let mut cluster = Cluster::new(&shop.sql(), &[("checkpointLocation", &shop.checkpoints())], &s3.env(), EXECUTORS);
    shop.produce_during(|| {
        cluster.start_all();
        shop.wait_for_progress(TIMEOUT);
        for (go, come_back) in outages {
            go();
            sleep(AWAY);
            come_back();
            let since = Instant::now();
            shop.wait_for_progress(TIMEOUT);
            println!("{name}: both outputs went on {:?} after it was back", since.elapsed());
            cluster.assert_alive();
        }
    });
    shop.finish(&mut cluster, TIMEOUT);
}

/// Rows that are there while the sink takes none: more than 1.1 GiB once they are encoded.
const ROWS: i64 = 1_000_000;
const ROW_BYTES: usize = 1_000;
/// Resident memory of an executor, whatever waits for its sink: 256 MiB of output that is not published and a tenth more around it, four
/// admitted epochs of 16 MiB as they come in and as they go out, the library's queue of 64 MiB for each of two tasks, and the process.
const MEMORY: u64 = 768 << 20;
/// The source waits when nothing was read for this long though there is more.
const STILL: Duration = Duration::from_secs(5);

#[test]
fn a_sink_that_takes_nothing_makes_the_source_wait_in_bounded_memory() {
    let broker = Broker::start();
    broker.create_topic("slow", 2, &[]);
    let (bootstrap, checkpoints) = (broker.bootstrap(), temp_dir());
    let sql = format!(
        "SET 'pipeline.name' = 'slow';
         SET 'parallelism' = '2';
         SET 'epoch.max-bytes' = '16 mb';
         CREATE TABLE rows (id BIGINT, filler STRING) WITH (
           'connector' = 'datagen', 'rows-per-second' = '200000', 'number-of-rows' = '{ROWS}',
           'fields.id.kind' = 'sequence', 'fields.filler.length' = '{ROW_BYTES}');
         CREATE TABLE slow (id BIGINT, filler STRING) WITH (
           'connector' = 'kafka', 'topic' = 'slow', 'properties.bootstrap.servers' = '{bootstrap}',
           'format' = 'json', 'sink.delivery-guarantee' = 'exactly-once');
         INSERT INTO slow SELECT id, filler FROM rows;"
    );
    let location = checkpoints.path().display().to_string();
    let mut cluster = Cluster::new(&sql, &[("checkpointLocation", &location)], &[], 1);
    cluster.start_all();
    let written = || broker.end_offsets("slow", Isolation::Uncommitted).iter().sum::<i64>();
    wait_for("the first rows", TIMEOUT, || (written() > 0).then_some(()));

    broker.freeze();
    let mut peak = 0;
    // Rows may be written while the first epoch is still being processed: no progress is known before its end.
    let mut read = (Progress::default(), Instant::now());
    wait_for("a source that waits although there is more", TIMEOUT, || {
        peak = peak.max(cluster.process(Member::Executor(0)).resident_bytes());
        let now = progress(&cluster)?;
        if now.epoch != read.0.epoch {
            read = (now, Instant::now());
        }
        (now.backlog > 0 && read.1.elapsed() >= STILL).then_some(())
    });
    broker.thaw();
    let ended = poll(TIMEOUT, || {
        let process = cluster.process(Member::Executor(0));
        peak = peak.max(process.resident_bytes());
        (!cluster.process(Member::Driver).is_running()).then_some(())
    });
    assert!(ended.is_some(), "the input ends and so does the driver");
    assert!(cluster.wait(Member::Driver, TIMEOUT).success());
    println!("{} MiB at most", peak >> 20);
    assert!(peak <= MEMORY, "an executor had {} MiB", peak >> 20);

    let schema = Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("filler", DataType::Utf8, true),
    ]));
    let mut seen = vec![false; ROWS as usize];
    let records = broker.read("slow", Isolation::Committed);
    for rows in json_rows(&schema, records.iter().map(|record| record.text().as_bytes())) {
        for id in rows["id"].as_primitive::<Int64Type>().iter().flatten() {
            assert!(!std::mem::replace(&mut seen[id as usize], true), "row {id} is there twice");
        }
    }
    assert_eq!(seen.iter().filter(|there| !**there).count(), 0, "rows are missing");
}

/// What the driver tells of the newest epoch that was processed.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    epoch: u64,
    /// Rows that are there and not planned.
    backlog: u64,
}

/// Nothing before the first epoch has been processed.
fn progress(cluster: &Cluster) -> Option<Progress> {
    let records = cluster.get("/api/v1/jobs/slow/progress")?;
    let newest = records.as_array()?.last()?;
    let number = |name: &str| newest[name].as_u64().unwrap_or_else(|| panic!("no {name} in {newest}"));
    Some(Progress { epoch: number("batchId"), backlog: number("backlogRows") })
}
