//! Splitting an epoch in two leaves the same state, for every operator that has one.
//!
//! The rows of an epoch come in the same order, its windows end in the second half. The state is sealed once, at the end of the input but
//! before the end of its time. (Averages and variances of floats may differ in the last bit: they are added up in another order.)
use crate::harness::Case;

const COLUMNS: &str =
    "k BIGINT, v BIGINT, s STRING, f DOUBLE, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '3' SECOND";
const ROWS: &str = "CASE WHEN rnd(i) % 9 = 0 THEN NULL ELSE rnd(i) % 5 END, CASE WHEN rnd(i + 1000) % 6 = 0 THEN NULL ELSE rnd(i + 7) % 12 END,
    CASE rnd(i * 3) % 4 WHEN 0 THEN NULL WHEN 1 THEN '' ELSE concat('s', rnd(i) % 3) END, rnd(i + 5) % 100 / 8.0,
    1577836800000 + i * 137";

fn appended() -> Case {
    Case::new().table("a", COLUMNS).generated(120, ROWS).table("b", COLUMNS).generated(80, ROWS).max_epochs(5).seeds(6)
}

fn updating() -> Case {
    Case::new()
        .table("a", COLUMNS)
        .generated(120, ROWS)
        .updating()
        .table("b", COLUMNS)
        .generated(80, ROWS)
        .keyed(&["k", "v"])
        .max_epochs(5)
        .seeds(6)
}

fn both(query: &str) {
    appended().query(query).check_associative();
    updating().query(query).check_associative();
}

#[test]
fn windowed_aggregations() {
    for window in [
        "TUMBLE(TABLE a, DESCRIPTOR(ts), INTERVAL '4' SECOND)",
        "HOP(TABLE a, DESCRIPTOR(ts), INTERVAL '2' SECOND, INTERVAL '6' SECOND)",
        "CUMULATE(TABLE a, DESCRIPTOR(ts), INTERVAL '2' SECOND, INTERVAL '8' SECOND)",
    ] {
        both(&format!(
            "SELECT k, window_end AS e, count(*) AS n, sum(v) AS t, min(s) AS lo, avg(f) AS m, count(DISTINCT s) AS d
             FROM TABLE({window}) GROUP BY k, window_start, window_end"
        ));
    }
    let sessions = "SELECT k, window_end AS e, count(*) AS n, sum(v) AS t, max(s) AS hi
        FROM TABLE(SESSION(TABLE a PARTITION BY k, DESCRIPTOR(ts), INTERVAL '1' SECOND)) GROUP BY k, window_start, window_end";
    appended().query(sessions).check_associative();
}

#[test]
fn aggregations() {
    both("SELECT k, count(*) AS n, sum(v) AS t, avg(f) AS m FROM a GROUP BY k");
    both(
        "SELECT k, min(v) AS lo, max(s) AS hi, count(DISTINCT s) AS d, sum(v) FILTER (WHERE v > 3) AS t FROM a GROUP BY k",
    );
    both("SELECT k, s, count(*) AS n, max(f) AS hi FROM a GROUP BY CUBE (k, s)");
    both("SELECT count(*) AS n, bit_xor(v) AS x, sum(f) AS t FROM a");
    both("SELECT DISTINCT k, s FROM a");
    both("SELECT max(n) AS n FROM (SELECT k, count(*) AS n FROM a GROUP BY k)");
}

#[test]
fn joins() {
    for kind in ["JOIN", "LEFT JOIN", "FULL JOIN", "LEFT SEMI JOIN", "LEFT ANTI JOIN"] {
        both(&format!("SELECT a.k, a.v FROM a {kind} b ON a.k = b.k AND a.v < b.v"));
        let near = format!(
            "SELECT a.k, a.v FROM a {kind} b ON a.k = b.k AND b.ts BETWEEN a.ts - INTERVAL '2' SECOND AND a.ts + INTERVAL '1' SECOND"
        );
        appended().query(&near).check_associative();
    }
}

#[test]
fn ranks() {
    for (from, to) in [(1, 1), (1, 3), (2, 4), (1, 1000)] {
        for function in ["ROW_NUMBER", "RANK", "DENSE_RANK"] {
            both(&format!(
                "SELECT * FROM (SELECT *, {function}() OVER (PARTITION BY k ORDER BY v DESC) AS r FROM a) WHERE r >= {from} AND r <= {to}"
            ));
        }
    }
    both("SELECT k, v FROM a ORDER BY v DESC, k, s, f, ts LIMIT 5");
    let windows = "SELECT k, v, window_end AS e FROM (
        SELECT *, ROW_NUMBER() OVER (PARTITION BY window_start, window_end ORDER BY v) AS r
        FROM TABLE(TUMBLE(TABLE a, DESCRIPTOR(ts), INTERVAL '4' SECOND))) WHERE r <= 2";
    both(windows);
}

#[test]
fn functions_over_frames() {
    both(
        "SELECT k, v, sum(v) OVER (PARTITION BY k ORDER BY ts, v, s, f ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) AS t FROM a",
    );
    both(
        "SELECT k, v, LAG(v) OVER (PARTITION BY k ORDER BY ts, v, s, f) AS p, sum(v) OVER (PARTITION BY k) AS t FROM a",
    );
}
