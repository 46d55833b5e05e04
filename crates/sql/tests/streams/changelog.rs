//! Tables whose records take each other's place: what comes in is the new row alone, or a key that goes; the result is that over the last
//! row of each key.
use crate::harness::Case;

const COLUMNS: &str = "k BIGINT, v BIGINT, s STRING, d DECIMAL(10, 2), ts TIMESTAMP(3)";
const ROWS: &str = "rnd(i) % 7,
    CASE WHEN rnd(i + 1000) % 5 = 0 THEN NULL ELSE rnd(i) % 20 END,
    CASE rnd(i * 3) % 3 WHEN 0 THEN '' ELSE concat('s', rnd(i) % 3) END, rnd(i) % 100000 / 7.0, 1577836800000 + i * 137";

/// One table with a key of two columns.
fn table(rows: usize) -> Case {
    Case::new().table("a", COLUMNS).generated(rows, ROWS).upserts(&["k", "s"])
}

fn check(query: &str) {
    table(150).query(query).seeds(6).check();
    table(0).query(query).seeds(1).check();
}

#[test]
fn the_last_rows_themselves() {
    check("SELECT * FROM a");
    check("SELECT v, d FROM a");
    check("SELECT s FROM a");
    // A row that no longer satisfies the condition goes.
    check("SELECT k, s FROM a WHERE v = 3 OR v = 4");
    check("SELECT k, v FROM a WHERE v > 10 AND s = 's1'");
}

#[test]
fn aggregated() {
    check("SELECT count(*) AS n FROM a");
    check("SELECT s, count(*) AS n, sum(v) AS t, max(d) AS hi, count(DISTINCT v) AS dv FROM a GROUP BY s");
    check("SELECT n, count(*) AS groups FROM (SELECT k, count(*) AS n FROM a GROUP BY k) GROUP BY n");
    check("SELECT k, s, v FROM a UNION ALL SELECT k, s, v + 1 FROM a WHERE v < 5");
}

#[test]
fn ranked() {
    check(
        "SELECT s, k, v FROM (SELECT s, k, v, ROW_NUMBER() OVER (PARTITION BY s ORDER BY v DESC NULLS LAST, k, d, ts) AS r FROM a)
         WHERE r <= 2",
    );
    check("SELECT k, s, v FROM a ORDER BY v NULLS LAST, k NULLS LAST, s, d, ts LIMIT 5");
}

#[test]
fn joined() {
    let appended = table(80).table("b", "j BIGINT, w BIGINT").generated(60, "rnd(i) % 7, i");
    appended.clone().query("SELECT k, v, w FROM b JOIN a ON j = k").check();
    appended.query("SELECT j, w, s, v FROM b LEFT JOIN a ON j = k AND v > 5").check();
    let both = table(80).table("b", "j BIGINT, w BIGINT").generated(60, "rnd(i) % 12, rnd(i + 5) % 9").upserts(&["j"]);
    both.clone().query("SELECT k, s, v, w FROM a FULL JOIN b ON k = j").check();
    both.clone().query("SELECT k, s FROM a WHERE NOT EXISTS (SELECT 1 FROM b WHERE j = k)").check();
    both.query("SELECT s, sum(w) AS t FROM a JOIN b ON k = j GROUP BY s").check();
    table(40).query("SELECT x.k, x.v, y.v AS u FROM a x JOIN a y ON x.k = y.k AND x.s < y.s").check();
}

#[test]
fn windows_are_never_final() {
    let columns = format!("{COLUMNS}, WATERMARK FOR ts AS ts - INTERVAL '2' SECOND");
    Case::new()
        .table("a", &columns)
        .generated(150, ROWS)
        .upserts(&["k"])
        .query(
            "SELECT window_start, count(*) AS n, sum(v) AS t FROM TABLE(TUMBLE(TABLE a, DESCRIPTOR(ts), INTERVAL '5' SECOND))
             GROUP BY window_start, window_end",
        )
        .batch("SELECT date_bin(INTERVAL '5 seconds', ts) AS window_start, count(*) AS n, sum(v) AS t FROM a GROUP BY 1")
        .check();
}
