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

#[test]
fn state_that_never_lapses_is_the_batchs_and_restores_make_no_difference_to_what_lapses() {
    for query in [
        "SELECT k, count(*) AS n, sum(v) AS t, max(f) AS hi, count(DISTINCT s) AS d FROM a GROUP BY k",
        "SELECT k, count(*) AS n, sum(f) AS t FROM a GROUP BY k",
        "SELECT count(*) AS n FROM (SELECT DISTINCT k, s FROM a)",
    ] {
        for mode in ["freeze", "retract"] {
            let table =
                || Case::new().table("a", COLUMNS).generated(200, ROWS).setting("state.ttl.mode", mode).query(query);
            for case in [table(), table().updating()] {
                case.clone().setting("state.ttl", "1 d").check();
                for seed in 0..6 {
                    case.clone().setting("state.ttl", "1 s").stream_result(seed).unwrap();
                }
            }
        }
    }
}

/// Calls of each aggregate of DataFusion: function, call. Values are ordered to the last, so that ties have one order.
const AGGREGATES: &[(&str, &str)] = &[
    ("array_agg", "array_to_string(array_agg(v ORDER BY s DESC, v NULLS FIRST), ',', '-')"),
    ("array_agg", "array_to_string(array_agg(DISTINCT s ORDER BY s NULLS FIRST), ',', '-')"),
    ("array_agg", "array_to_string(array_agg(v ORDER BY b, v NULLS FIRST) FILTER (WHERE v > 0), ',', '-')"),
    ("first_value", "first_value(v ORDER BY ts, v NULLS FIRST)"),
    ("first_value", "first_value(s ORDER BY v DESC NULLS LAST, s NULLS FIRST) FILTER (WHERE b)"),
    ("last_value", "last_value(s ORDER BY f NULLS FIRST, s NULLS FIRST)"),
    ("nth_value", "nth_value(v, 2 ORDER BY ts, v NULLS FIRST)"),
    ("string_agg", "string_agg(s, '|' ORDER BY d DESC, s NULLS FIRST)"),
    ("covar_samp", "covar_samp(f, v)"),
    ("covar_pop", "covar_pop(f, v)"),
    ("corr", "corr(f, v)"),
    ("sum", "sum(v)"),
    ("max", "max(d)"),
    ("min", "min(s)"),
    ("median", "median(f)"),
    ("median", "median(DISTINCT v)"),
    ("count", "count(*)"),
    ("regr_slope", "regr_slope(f, v)"),
    ("regr_intercept", "regr_intercept(f, v)"),
    ("regr_count", "regr_count(f, v)"),
    ("regr_r2", "regr_r2(f, v)"),
    ("regr_avgx", "regr_avgx(f, v)"),
    ("regr_avgy", "regr_avgy(f, v)"),
    ("regr_sxx", "regr_sxx(f, v)"),
    ("regr_syy", "regr_syy(f, v)"),
    ("regr_sxy", "regr_sxy(f, v)"),
    ("var", "var(v)"),
    ("var_pop", "var_pop(f)"),
    ("stddev", "stddev(f)"),
    ("stddev_pop", "stddev_pop(v)"),
    ("approx_distinct", "approx_distinct(v)"),
    ("percentile_cont", "percentile_cont(0.3) WITHIN GROUP (ORDER BY f)"),
    ("percentile_cont", "percentile_cont(f, 0.8)"),
    ("bit_and", "bit_and(v)"),
    ("bit_or", "bit_or(v)"),
    ("bit_xor", "bit_xor(v)"),
    ("bool_and", "bool_and(b)"),
    ("bool_or", "bool_or(b)"),
    ("avg", "avg(d)"),
];

/// Functions that are tested elsewhere: results of the approximate ones are as good as the batch's, but not the same.
const OTHERS: &[&str] = &["grouping", "approx_median", "approx_percentile_cont", "approx_percentile_cont_with_weight"];

#[test]
fn every_aggregate_of_datafusion() {
    for function in datafusion::execution::SessionStateDefaults::default_aggregate_functions() {
        let tested = |name: &&str| *name == function.name() || function.aliases().iter().any(|a| a == name);
        let known = AGGREGATES.iter().map(|(name, _)| name).chain(OTHERS).any(tested);
        assert!(known, "{} is not tested", function.name());
    }
    // The batch takes one order per query.
    let (ordered, free): (Vec<_>, Vec<_>) = AGGREGATES.iter().partition(|(_, call)| call.contains("ORDER BY"));
    for calls in ordered.chunks(1).chain(free.chunks(9)) {
        let calls: Vec<String> = calls.iter().enumerate().map(|(i, (_, call))| format!("{call} AS c{i}")).collect();
        check(&format!("SELECT k, {} FROM a GROUP BY k", calls.join(", ")));
    }
}

#[test]
fn distinct_values_count_once_also_where_the_batch_forgets_it() {
    let table = || Case::new().table("a", COLUMNS).generated(150, ROWS);
    let query = "SELECT k, bit_xor(DISTINCT v) AS x FROM a GROUP BY k";
    let batch = "SELECT k, bit_xor(v) AS x FROM (SELECT DISTINCT k, v FROM a) GROUP BY k";
    table().query(query).batch(batch).check();
    table().updating().query(query).batch(batch).check();
}

#[test]
fn values_in_no_order_come_in_their_own() {
    let table = || Case::new().table("a", COLUMNS).generated(150, ROWS);
    let query = "SELECT k, array_to_string(array_agg(v), ',', '-') AS vs, string_agg(s, '|') AS ss FROM a GROUP BY k";
    let batch = "SELECT k, array_to_string(array_agg(v ORDER BY v NULLS FIRST), ',', '-') AS vs, string_agg(s, '|' ORDER BY s NULLS FIRST) AS ss FROM a GROUP BY k";
    table().query(query).batch(batch).check();
    table().updating().query(query).batch(batch).check();
}

#[test]
fn approximate_percentiles_are_near() {
    let table = || Case::new().table("a", COLUMNS).generated(150, ROWS);
    let within = |call: &str| format!("{call} BETWEEN min(f) AND max(f)");
    let calls = [
        within("approx_median(f)"),
        within("approx_percentile_cont(f, 0.4)"),
        within("approx_percentile_cont_with_weight(f, 1, 0.6)"),
    ];
    let query = format!("SELECT k, {} AS a, {} AS b, {} AS c FROM a GROUP BY k", calls[0], calls[1], calls[2]);
    table().query(&query).check();
    table().updating().query(&query).check();
}

#[test]
fn sessions_of_changes_merge_and_split() {
    let columns = format!("{COLUMNS}, WATERMARK FOR ts AS ts - INTERVAL '2' SECOND");
    let rows = ROWS.replace(
        "1577836800000 + i * 137",
        "CASE WHEN rnd(i + 9) % 20 = 0 THEN NULL ELSE 1577836800000 + (rnd(i) % 200) * 250 END",
    );
    let table = |columns: &str| Case::new().table("a", columns).generated(150, &rows);
    for (columns, updating) in [(COLUMNS, true), (COLUMNS, false), (columns.as_str(), true)] {
        let case = || if updating { table(columns).updating() } else { table(columns).keyed(&["k", "s"]) };
        for query in [
            "SELECT k, window_start AS s, window_end AS e, count(*) AS n, sum(v) AS t, max(f) AS hi
             FROM TABLE(SESSION(TABLE a PARTITION BY k, DESCRIPTOR(ts), INTERVAL '1' SECOND)) GROUP BY k, window_start, window_end",
            "SELECT window_start AS s, count(DISTINCT k) AS n FROM TABLE(SESSION(TABLE a, DESCRIPTOR(ts), INTERVAL '1' SECOND)) GROUP BY window_start, window_end",
            // Of other keys than the sessions', and the sessions' rows themselves.
            "SELECT s, window_end AS e, count(*) AS n FROM TABLE(SESSION(TABLE a PARTITION BY (k, b), DESCRIPTOR(ts), INTERVAL '3' SECOND)) GROUP BY s, window_end",
            "SELECT k, v, window_start AS s, window_end AS e, window_time AS t FROM TABLE(SESSION(TABLE a PARTITION BY k, DESCRIPTOR(ts), INTERVAL '1' SECOND)) WHERE v > 0",
        ] {
            case().query(query).seeds(4).check();
        }
    }
}

#[test]
fn windows_of_aggregated_rows() {
    let table = || Case::new().table("a", COLUMNS).generated(200, ROWS);
    let latest = "(SELECT s, max(ts) AS t, count(*) AS n FROM a GROUP BY s, k)";
    for window in [
        "TUMBLE({}, DESCRIPTOR(t), INTERVAL '5' SECOND)",
        "HOP({}, DESCRIPTOR(t), INTERVAL '2' SECOND, INTERVAL '6' SECOND)",
        "CUMULATE({}, DESCRIPTOR(t), INTERVAL '2' SECOND, INTERVAL '6' SECOND)",
        "SESSION({} PARTITION BY s, DESCRIPTOR(t), INTERVAL '4' SECOND)",
    ] {
        let window = window.replace("{}", latest);
        let query = format!(
            "SELECT s, window_start AS ws, window_end AS we, sum(n) AS n, count(*) AS c FROM TABLE({window}) GROUP BY s, window_start, window_end"
        );
        table().query(&query).check();
        table().updating().query(&query).check();
    }
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
