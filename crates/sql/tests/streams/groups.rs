//! Aggregation without windows, DISTINCT and UNION: the result after every epoch is the batch's.
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take};
use arrow::datatypes::{Field, Schema};
use millstream_connectors::{SourcePoll, connector};
use millstream_plan::SplitRange;
use millstream_sql::plan;

use crate::harness::Case;

const COLUMNS: &str = "k BIGINT, v BIGINT, f DOUBLE, s STRING, d DECIMAL(10, 2), b BOOLEAN, ts TIMESTAMP(3)";
const ROWS: &str = "CASE WHEN rnd(i + 7) % 9 = 0 THEN NULL ELSE rnd(i) % 5 END,
    CASE WHEN rnd(i + 1000) % 5 = 0 THEN NULL ELSE rnd(i) % 100 - 50 END,
    CASE WHEN rnd(i + 50) % 7 = 0 THEN NULL ELSE rnd(i) % 1000 / 8.0 END,
    CASE rnd(i * 3) % 4 WHEN 0 THEN NULL WHEN 1 THEN '' ELSE concat('s', rnd(i) % 3) END,
    CASE WHEN rnd(i + 3) % 6 = 0 THEN NULL ELSE rnd(i) % 100000 / 7.0 END, rnd(i) % 3 = 0, 1577836800000 + i * 137";

/// The query over rows that are only added, that also go, and that replace each other.
fn check(query: &str) {
    let table = |rows: usize| Case::new().table("a", COLUMNS).generated(rows, ROWS).query(query);
    table(300).seeds(4).check();
    table(200).updating().seeds(6).check();
    table(200).keyed(&["k", "s"]).seeds(2).check();
    table(0).check();
}

#[test]
fn counts_sums_and_averages() {
    check(
        "SELECT k, count(*) AS n, count(v) AS nv, sum(v) AS t, avg(f) AS m, sum(f) AS tf, sum(d) AS td, avg(d) AS md FROM a GROUP BY k",
    );
    check("SELECT s, k + 1 AS k1, sum(v * 2) AS t FROM a WHERE v > 10 GROUP BY s, k + 1");
}

#[test]
fn one_row_without_keys() {
    check("SELECT count(*) AS n, sum(v) AS t, min(s) AS lo, avg(d) AS md, count(DISTINCT k) AS ks FROM a");
    check("SELECT count(*) AS n FROM a WHERE v > 1000");
}

#[test]
fn smallest_and_largest() {
    check(
        "SELECT k, min(v) AS lo, max(v) AS hi, min(s) AS los, max(s) AS his, min(d) AS lod, max(ts) AS hit, min(f) AS lof FROM a GROUP BY k",
    );
    check("SELECT s, max(v) AS hi, max(b) AS hib FROM a GROUP BY s HAVING max(v) < 40");
}

#[test]
fn distinct_arguments_and_filters() {
    check(
        "SELECT k, count(DISTINCT s) AS ds, count(DISTINCT v) AS dv, sum(DISTINCT v) AS sv, max(DISTINCT v) AS mv FROM a GROUP BY k",
    );
    check(
        "SELECT s, count(*) FILTER (WHERE v > 0) AS n, count(DISTINCT k) FILTER (WHERE v > 0) AS k1, count(DISTINCT k) FILTER (WHERE v < 0) AS k2,
           count(DISTINCT k) AS k3, avg(f) FILTER (WHERE b) AS m, min(v) FILTER (WHERE b) AS lo FROM a GROUP BY s",
    );
    check("SELECT count(DISTINCT d) AS n, count(DISTINCT ts) FILTER (WHERE k = 1) AS t FROM a");
}

#[test]
fn aggregates_that_sums_do_not_determine() {
    check(
        "SELECT k, stddev(f) AS sd, var_pop(f) AS vp, bool_and(b) AS ba, bit_xor(v) AS bx, corr(f, v) AS c FROM a GROUP BY k",
    );
    check("SELECT s, median(v) AS m, bit_or(v) AS bo FROM a GROUP BY s");
}

#[test]
fn having_and_nested() {
    check("SELECT k, count(*) AS n FROM a GROUP BY k HAVING count(*) > 20 AND sum(v) > 0");
    check("SELECT avg(m) AS am, count(*) AS n, max(m) AS hi FROM (SELECT k, s, max(v) AS m FROM a GROUP BY k, s)");
    check("SELECT s, avg(m) AS am FROM (SELECT k, s, max(v) AS m FROM a GROUP BY k, s) GROUP BY s");
    check("SELECT n, count(*) AS groups FROM (SELECT s, count(*) AS n FROM a GROUP BY s) GROUP BY n");
}

#[test]
fn grouping_sets() {
    check("SELECT k, s, count(*) AS n, sum(v) AS t FROM a GROUP BY GROUPING SETS ((k, s), (k), ())");
    check(
        "SELECT k, b, grouping(k) AS gk, grouping(b) AS gb, grouping(k, b) AS g, count(DISTINCT s) AS n FROM a GROUP BY ROLLUP (k, b)",
    );
    check("SELECT k, s, max(v) AS hi FROM a GROUP BY CUBE (k, s) HAVING max(v) > 0");
    check("SELECT k, s, count(*) AS n FROM a GROUP BY GROUPING SETS ((k), (s), (k))");
    check("SELECT b, k, count(*) AS n FROM a GROUP BY b, ROLLUP (k)");
}

#[test]
fn distinct_rows_and_unions() {
    check("SELECT DISTINCT k, s FROM a");
    check("SELECT DISTINCT f FROM a WHERE k > 2");
    check("SELECT k, v FROM a WHERE v > 0 UNION SELECT k, v FROM a WHERE b");
    check("SELECT count(*) AS n FROM (SELECT DISTINCT k, s FROM a)");
    check("SELECT DISTINCT n FROM (SELECT k, count(*) AS n FROM a GROUP BY k)");
}

#[test]
fn floats_are_told_apart_by_their_bits() {
    let rows = "(1, 'NaN'), (1, 'NaN'), (1, '-0.0'), (2, '0.0'), (2, 'inf'), (3, '-inf'), (3, 'inf'), (4, '1e20'), (4, '1.0'), (4, '-1e20'), (5, NULL)";
    let case = |query: &str| Case::new().table("a", "k BIGINT, f DOUBLE").values(rows).query(query);
    for query in [
        "SELECT f, count(*) AS n FROM a GROUP BY f",
        "SELECT DISTINCT f FROM a",
        "SELECT count(DISTINCT f) AS n FROM a",
    ] {
        case(query).check();
        case(query).updating().check();
    }
    case("SELECT k, sum(f) AS t, avg(f) AS m FROM a WHERE k <> 4 GROUP BY k").updating().seeds(20).check();
    // In any order, and whatever was there in between: (1e20 + 1) − 1e20 is 1.
    let exact = case("SELECT sum(f) AS t FROM a WHERE k = 4").keyed(&["k", "f"]);
    exact.batch("SELECT CASE sum(x) WHEN 1 THEN 1e20 WHEN 10 THEN 1.0 WHEN 100 THEN -1e20 WHEN 11 THEN 1e20 WHEN 101 THEN 0.0 WHEN 110 THEN -1e20 WHEN 111 THEN 1.0 END AS t
        FROM (SELECT CASE f WHEN 1e20 THEN 1 WHEN 1.0 THEN 10 ELSE 100 END AS x FROM a WHERE k = 4)").seeds(20).check();
}

#[test]
fn windowed_results_are_aggregated_and_windows_over_changes_are_updated() {
    let table = || {
        Case::new()
            .table("a", "k BIGINT, v BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '1' SECOND")
            .generated(200, "rnd(i) % 5, rnd(i) % 100, 1577836800000 + i * 137")
    };
    let tumble = "TABLE(TUMBLE(TABLE a, DESCRIPTOR(ts), INTERVAL '5' SECOND))";
    table().query(&format!("SELECT k, count(*) AS n FROM {tumble} GROUP BY k")).check();
    let query = format!(
        "SELECT k, window_start AS s, window_end AS e, count(*) AS n FROM {tumble} GROUP BY k, window_start, window_end"
    );
    table().query(&query).updating().check();
    let hop = "TABLE(HOP(TABLE a, DESCRIPTOR(ts), INTERVAL '2' SECOND, INTERVAL '6' SECOND))";
    let query = format!("SELECT window_end AS e, max(v) AS hi FROM {hop} GROUP BY window_start, window_end");
    table().query(&query).updating().check();
}

/// The bids among the first `events` Nexmark events.
fn bids(events: u64, rate: u64) -> RecordBatch {
    let sql = format!(
        "CREATE TABLE nexmark (event_type INT, bid ROW<auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, url STRING, `dateTime` TIMESTAMP(3), extra STRING>)
         WITH ('connector' = 'nexmark', 'number-of-rows' = '{events}', 'event-rate' = '{rate}');
         CREATE TABLE s (b ROW<auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, url STRING, `dateTime` TIMESTAMP(3), extra STRING>)
         WITH ('connector' = 'blackhole');
         INSERT INTO s SELECT bid FROM nexmark WHERE bid IS NOT NULL;"
    );
    let pipeline = plan(&sql, &BTreeMap::new(), 1).unwrap_or_else(|e| panic!("{e}"));
    let factory = (connector("nexmark").unwrap().source)(pipeline.sources[0].clone()).unwrap();
    let discovery = factory.enumerator().unwrap().discover(&BTreeMap::new(), 0).unwrap();
    let mut reader = factory.reader(0).unwrap();
    let mut found = Vec::new();
    for split in discovery.splits {
        let range = SplitRange { split: split.split, task: 0, from: split.start, to: split.end, tag: split.tag };
        loop {
            match reader.poll(&range).unwrap() {
                SourcePoll::Done => break,
                SourcePoll::Pending => {}
                SourcePoll::Batch(batch) => {
                    let bids = batch.rows.column_by_name("bid").unwrap();
                    let there = (0..bids.len()).filter(|i| bids.is_valid(*i)).map(|i| i as u32);
                    let there = take(bids, &UInt32Array::from_iter_values(there), None).unwrap();
                    found.push(RecordBatch::from(there.as_struct().clone()));
                }
            }
        }
    }
    let fields: Vec<Field> =
        found[0].schema().fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let found = found.iter().map(|b| RecordBatch::try_new(schema.clone(), b.columns().to_vec()).unwrap());
    concat_batches(&schema, &found.collect::<Vec<_>>()).unwrap()
}

/// The query of an example over bids of two days.
fn nexmark(query: &str, events: u64) -> Case {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../examples/nexmark/{query}.sql"));
    let sql = std::fs::read_to_string(path).unwrap();
    let select = sql.split("INSERT INTO result").nth(1).unwrap().trim().trim_end_matches(';').to_owned();
    let batch = select.replace("DATE_FORMAT(`dateTime`, 'yyyy-MM-dd')", "to_char(\"dateTime\", '%Y-%m-%d')");
    let batch = batch.replace("DATE_FORMAT(`dateTime`, 'HH:mm')", "to_char(\"dateTime\", '%H:%M')").replace('`', "\"");
    Case::new()
        .table("bid", "auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, url STRING, `dateTime` TIMESTAMP(3), extra STRING")
        .rows(bids(events, events / 160_000 + 1))
        .query(&select)
        .batch(&batch)
}

#[test]
fn nexmark_q15_q16_q17() {
    for query in ["q15", "q16", "q17"] {
        nexmark(query, 40_000).seeds(2).check();
        nexmark(query, 2_000).updating().seeds(2).check();
    }
}
