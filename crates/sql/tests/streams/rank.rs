//! Top-N, deduplication, `ORDER BY … LIMIT` and functions over frames. Every order is completed by all columns, as the engine does.
use crate::harness::Case;

const COLUMNS: &str =
    "k BIGINT, v BIGINT, s STRING, f DOUBLE, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '3' SECOND";
const ROWS: &str = "CASE WHEN rnd(i) % 9 = 0 THEN NULL ELSE rnd(i) % 5 END, CASE WHEN rnd(i + 1000) % 6 = 0 THEN NULL ELSE rnd(i + 7) % 12 END,
    CASE rnd(i * 3) % 4 WHEN 0 THEN NULL WHEN 1 THEN '' ELSE concat('s', rnd(i) % 3) END, rnd(i + 5) % 100 / 8.0,
    1577836800000 + i * 137";
/// All columns, as ties are completed.
const TIES: &str = "k NULLS FIRST, v NULLS FIRST, s NULLS FIRST, f NULLS FIRST, ts NULLS FIRST";

fn appended() -> Case {
    Case::new().table("a", COLUMNS).generated(300, ROWS)
}

fn updating() -> Case {
    appended().updating()
}

/// The query over rows that are only added, and over rows that also go.
fn check(query: &str) {
    let query = query.replace("TIES", TIES);
    appended().query(&query).check();
    updating().query(&query).check();
}

#[test]
fn top_n_with_and_without_the_rank() {
    let ranked = "(SELECT *, ROW_NUMBER() OVER (PARTITION BY k ORDER BY v DESC, TIES) AS rn FROM a)";
    check(&format!("SELECT k, v, s, ts FROM {ranked} WHERE rn <= 3"));
    check(&format!("SELECT * FROM {ranked} WHERE rn < 4"));
    check(&format!("SELECT rn, v, k FROM {ranked} WHERE 2 <= rn AND rn <= 4 AND v > 3"));
    check(&format!("SELECT k, v, rn * 10 AS r FROM {ranked} AS t WHERE t.rn BETWEEN 1 AND 2"));
    // No last rank, and conditions that are no range.
    check(&format!("SELECT k, v FROM {ranked} WHERE rn > 5"));
    check(&format!("SELECT k, v, rn FROM {ranked} WHERE rn = 2 OR rn = 4"));
}

#[test]
fn ranks_with_ties() {
    for function in ["RANK()", "DENSE_RANK()"] {
        let ranked =
            format!("(SELECT k, v, s, {function} OVER (PARTITION BY k ORDER BY v DESC NULLS LAST) AS r FROM a)");
        check(&format!("SELECT k, v, s FROM {ranked} WHERE r <= 2"));
        check(&format!("SELECT * FROM {ranked} WHERE r <= 3"));
        check(&format!("SELECT * FROM {ranked} WHERE r = 2"));
    }
    check("SELECT k, v FROM a QUALIFY RANK() OVER (ORDER BY v, k) <= 5");
}

#[test]
fn deduplication() {
    let first = "(SELECT *, ROW_NUMBER() OVER (PARTITION BY k, v ORDER BY ts, TIES) AS rn FROM a)";
    check(&format!("SELECT k, v, s, ts FROM {first} WHERE rn = 1"));
    check(&format!("SELECT k, v, s, ts FROM {} WHERE rn <= 1", first.replace("ts, k", "ts DESC, k")));
    check("SELECT k, s, v FROM a QUALIFY ROW_NUMBER() OVER (PARTITION BY k % 2 ORDER BY v + k DESC, TIES) = 1");
    check("SELECT DISTINCT ON (k) k, v, ts FROM a ORDER BY k, v DESC NULLS LAST, s NULLS FIRST, f, ts");
}

#[test]
fn ordered_and_limited() {
    check("SELECT k, v, ts FROM a ORDER BY v DESC NULLS LAST, TIES LIMIT 7");
    check("SELECT k, s FROM a WHERE v > 2 ORDER BY v + k, TIES LIMIT 3 OFFSET 2");
    check("SELECT v FROM a ORDER BY v LIMIT 20");
    check("SELECT v + 1 AS w FROM (SELECT v FROM a ORDER BY v DESC LIMIT 20) WHERE v < 9");
    check("SELECT v FROM a ORDER BY v OFFSET 250");
}

#[test]
fn ranks_of_ranks() {
    check(
        "SELECT k, v, r FROM (
           SELECT k, v, ROW_NUMBER() OVER (ORDER BY v DESC, k) AS r FROM (
             SELECT k, v, ROW_NUMBER() OVER (PARTITION BY k ORDER BY v DESC, TIES) AS rn FROM a) WHERE rn <= 4
         ) WHERE r <= 5",
    );
}

#[test]
fn ranks_of_windows_are_emitted_once() {
    let query = "SELECT s, e, k, n FROM (
        SELECT s, e, k, n, ROW_NUMBER() OVER (PARTITION BY s, e ORDER BY n DESC, k NULLS FIRST) AS r FROM (
          SELECT window_start AS s, window_end AS e, k, count(*) AS n
          FROM TABLE(TUMBLE(TABLE a, DESCRIPTOR(ts), INTERVAL '4' SECOND)) GROUP BY k, window_start, window_end)) WHERE r <= 2";
    appended().query(query).closes_by("e").seeds(8).check();
    let query = "SELECT * FROM (
        SELECT k, v, window_end AS e, RANK() OVER (PARTITION BY k, window_start, window_end ORDER BY v) AS r
        FROM TABLE(HOP(TABLE a, DESCRIPTOR(ts), INTERVAL '3' SECOND, INTERVAL '6' SECOND))) WHERE r <= 2";
    appended().query(query).closes_by("e").seeds(8).check();
}

#[test]
fn functions_over_frames() {
    let over = "OVER (PARTITION BY k ORDER BY v, TIES";
    check(&format!("SELECT k, v, ROW_NUMBER() {over}) AS n, sum(v) {over}) AS t, count(*) {over}) AS c FROM a"));
    check(&format!(
        "SELECT k, v, ts, sum(v) {over} ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) AS t, avg(f) {over} ROWS BETWEEN 3 PRECEDING AND 1 FOLLOWING) AS m,
         max(s) {over} ROWS BETWEEN 1 FOLLOWING AND 3 FOLLOWING) AS hi, count(v) {over} ROWS BETWEEN 5 PRECEDING AND 4 PRECEDING) AS c FROM a"
    ));
    check(&format!(
        "SELECT k, v, LAG(v) {over}) AS a, LEAD(s, 2, 'none') {over}) AS b, FIRST_VALUE(v) {over} ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) AS c,
         LAST_VALUE(f) {over} ROWS BETWEEN CURRENT ROW AND 1 FOLLOWING) AS d FROM a"
    ));
    check(&format!(
        "SELECT k, v, NTH_VALUE(v, 3) {over}) AS a, NTILE(4) {over}) AS b, LAST_VALUE(v) IGNORE NULLS {over} ROWS BETWEEN 4 PRECEDING AND 1 PRECEDING) AS c FROM a"
    ));
}

#[test]
fn frames_of_values_and_groups() {
    check(
        "SELECT k, v, sum(v) OVER (PARTITION BY k ORDER BY v) AS t, count(*) OVER (PARTITION BY k ORDER BY v RANGE BETWEEN 2 PRECEDING AND 1 FOLLOWING) AS c FROM a",
    );
    check(
        "SELECT k, ts, count(*) OVER (PARTITION BY k ORDER BY ts RANGE BETWEEN INTERVAL '5' SECOND PRECEDING AND CURRENT ROW) AS c, sum(v) OVER (PARTITION BY k ORDER BY ts RANGE BETWEEN INTERVAL '5' SECOND PRECEDING AND CURRENT ROW) AS t FROM a",
    );
    check(
        "SELECT k, v, max(f) OVER (PARTITION BY k ORDER BY v GROUPS BETWEEN 1 PRECEDING AND 1 FOLLOWING) AS m FROM a",
    );
    check(
        "SELECT k, v, sum(v) OVER (PARTITION BY k) AS t, RANK() OVER (ORDER BY v) AS r, count(*) OVER () AS n, min(v) OVER (PARTITION BY s ORDER BY k) AS m FROM a",
    );
    check(
        "SELECT k, sum(v) FILTER (WHERE v > 3) OVER (PARTITION BY k ORDER BY v, TIES ROWS BETWEEN 3 PRECEDING AND CURRENT ROW) AS t FROM a",
    );
    check(
        "SELECT k, v, row_number() OVER w AS r, max(v) OVER w AS m FROM a WINDOW w AS (PARTITION BY k ORDER BY v, TIES)",
    );
}

#[test]
fn what_is_refused_says_why() {
    let refused = |query: &str| appended().columns("x BIGINT").query(query).refused().unwrap().to_string();
    for (query, why) in [
        ("SELECT k FROM a ORDER BY k", "ORDER BY is not supported"),
        ("SELECT k FROM a LIMIT 3", "LIMIT without ORDER BY"),
        ("SELECT k FROM a WHERE rank() OVER (ORDER BY k) = 1", "cannot stand in WHERE"),
        ("SELECT v FROM (SELECT v FROM a ORDER BY v) WHERE v > 2", "ORDER BY is not supported"),
        ("SELECT k FROM a ORDER BY k LIMIT 0", "LIMIT 0"),
        ("SELECT DISTINCT ON (k) k FROM a", "DISTINCT ON without ORDER BY"),
    ] {
        let error = refused(query);
        assert!(error.contains(why), "{query}\n{error}");
    }
}
