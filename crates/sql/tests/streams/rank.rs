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
    updating().query(&format!("SELECT k, v, s, ts FROM {first} WHERE rn = 1").replace("TIES", TIES)).check();
    check(&format!("SELECT k, v, s, ts FROM {} WHERE rn <= 1", first.replace("ts, T", "ts DESC, T")));
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
fn ranks_of_aggregates() {
    let counts = "(SELECT k, s, count(*) AS n, sum(v) AS t FROM a GROUP BY k, s)";
    check(&format!(
        "SELECT k, s, n, r FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY k ORDER BY n DESC, t NULLS FIRST, s NULLS FIRST) AS r FROM {counts}) WHERE r <= 2"
    ));
    check(&format!("SELECT k, s, n FROM {counts} ORDER BY n DESC, t, k NULLS FIRST, s NULLS FIRST LIMIT 3"));
    check(&format!(
        "SELECT k, sum(n) AS m FROM (SELECT k, n, RANK() OVER (PARTITION BY k ORDER BY n) AS r FROM {counts}) WHERE r = 1 GROUP BY k"
    ));
}

#[test]
fn ten_thousand_rows_in_one_partition() {
    let rows = ROWS
        .replace("END, CASE WHEN rnd(i + 1000) % 6 = 0 THEN NULL ELSE rnd(i + 7) % 12 END", "END, rnd(i + 7) % 3000");
    let case = Case::new().table("a", COLUMNS).generated(10_000, &rows);
    for query in [
        "SELECT k, v, ts FROM a ORDER BY v DESC, TIES LIMIT 5",
        "SELECT k, v, ts, r FROM (SELECT *, ROW_NUMBER() OVER (ORDER BY v, TIES) AS r FROM a) WHERE r BETWEEN 3 AND 300",
        "SELECT k, v, ts FROM (SELECT *, DENSE_RANK() OVER (ORDER BY v) AS r FROM a) WHERE r <= 2",
        "SELECT k, v, ts, sum(v) OVER (ORDER BY v, TIES ROWS BETWEEN 2 PRECEDING AND 1 FOLLOWING) AS t FROM a",
    ] {
        let case = case.clone().query(&query.replace("TIES", TIES)).seeds(1).max_epochs(4);
        case.check();
        case.updating().check();
    }
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
        "SELECT k, ts, count(*) OVER (PARTITION BY k ORDER BY ts RANGE BETWEEN INTERVAL '5' SECOND PRECEDING AND INTERVAL '1' SECOND FOLLOWING) AS c, sum(v) OVER (PARTITION BY k ORDER BY ts RANGE BETWEEN INTERVAL '5' SECOND PRECEDING AND CURRENT ROW) AS t FROM a",
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

/// Rows of equal times, in the order of event time: each is emitted when the watermark has passed it.
fn close(columns: &str, rest: &str) {
    let rows = ROWS.replace("i * 137", "(i / 3) * 400");
    let columns = columns.replace("TIES", TIES);
    let case = Case::new().table("a", COLUMNS).generated(300, &rows);
    let case = case.query(&format!("SELECT {columns} {rest}"));
    let case = case.batch(&format!("SELECT {columns}, ts + INTERVAL '1 millisecond' AS \"__end\" {rest}"));
    assert!(case.explained().contains("emits      each row once"), "{}", case.explained());
    case.closes_by("__end").seeds(8).check();
}

#[test]
fn functions_in_the_order_of_event_time_are_emitted_once() {
    let over = "OVER (PARTITION BY k ORDER BY ts, TIES";
    close(
        &format!(
            "k, v, ts, sum(v) {over} ROWS BETWEEN 3 PRECEDING AND CURRENT ROW) AS t, avg(f) {over} ROWS BETWEEN 2 PRECEDING AND 1 PRECEDING) AS m"
        ),
        "FROM a",
    );
    close(
        &format!("k, v, ts, LAG(v) {over}) AS a, LAG(s, 3, 'none') {over}) AS b, LEAD(v, -2) {over}) AS c"),
        "FROM a",
    );
    close(
        &format!(
            "k, v, ts, ROW_NUMBER() {over}) AS n, RANK() OVER (PARTITION BY k ORDER BY ts) AS r, DENSE_RANK() OVER (PARTITION BY k ORDER BY ts) AS d"
        ),
        "FROM a",
    );
    close(
        &format!(
            "k, v, ts, FIRST_VALUE(v) {over}) AS a, NTH_VALUE(s, 3) {over}) AS b, LAST_VALUE(v) {over}) AS c, FIRST_VALUE(f) {over} ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) AS d"
        ),
        "FROM a",
    );
    close(
        &format!(
            "k, v, ts, LAST_VALUE(v) IGNORE NULLS {over}) AS a, sum(v) {over} ROWS BETWEEN UNBOUNDED PRECEDING AND 2 PRECEDING) AS b"
        ),
        "FROM a",
    );
}

#[test]
fn sums_and_times_in_the_order_of_event_time() {
    let range = "OVER (PARTITION BY k ORDER BY ts RANGE BETWEEN INTERVAL '2' SECOND PRECEDING AND CURRENT ROW)";
    close(&format!("k, v, ts, count(*) {range} AS c, avg(f) {range} AS m, max(s) {range} AS x"), "FROM a");
    let sums = "OVER (PARTITION BY k ORDER BY ts)";
    close(
        &format!(
            "k, v, ts, sum(v) {sums} AS t, count(s) {sums} AS c, avg(f) {sums} AS m, min(s) {sums} AS x, stddev(f) {sums} AS d"
        ),
        "FROM a",
    );
    let rows = "OVER (PARTITION BY k ORDER BY ts, TIES ROWS UNBOUNDED PRECEDING)";
    close(
        &format!(
            "k, v, ts, sum(v) {rows} AS t, count(DISTINCT s) {rows} AS c, sum(v) FILTER (WHERE v > 3) {rows} AS m"
        ),
        "FROM a",
    );
    close(
        "ts, v, count(*) OVER (ORDER BY ts) AS c, sum(v) OVER (ORDER BY ts GROUPS BETWEEN 2 PRECEDING AND CURRENT ROW) AS g",
        "FROM a",
    );
}

#[test]
fn the_first_rows_of_event_time_are_known_for_good() {
    let first =
        "FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY k, v ORDER BY ts, TIES) AS rn FROM a)".replace("TIES", TIES);
    close("k, v, s, ts", &format!("{first} WHERE rn = 1"));
    close("k, v, ts, rn", &format!("{first} WHERE rn BETWEEN 2 AND 3"));
    // Windows over what is emitted.
    let late = "SELECT window_end AS e, sum(t) AS t FROM TABLE(TUMBLE((SELECT ts, sum(v) OVER (PARTITION BY k ORDER BY ts) AS t FROM a), DESCRIPTOR(ts), INTERVAL '4' SECOND)) GROUP BY window_start, window_end";
    appended().query(late).closes_by("e").seeds(8).check();
}

#[test]
fn a_function_that_looks_ahead_changes_rows() {
    let over = "OVER (PARTITION BY k ORDER BY ts, TIES";
    check(&format!("SELECT k, v, ts, LEAD(v) {over}) AS a, LAG(v) {over}) AS b FROM a"));
    check(&format!(
        "SELECT k, v, ts, sum(v) {over} ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING) AS a, NTILE(3) {over}) AS b FROM a"
    ));
    // One such function, and the others wait for nothing either.
    check("SELECT k, v, ts, RANK() OVER (ORDER BY v) AS r, count(*) OVER (PARTITION BY k ORDER BY ts) AS n FROM a");
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
