//! Windows that emit once, when the watermark closes them.
use crate::harness::Case;

const COLUMNS: &str =
    "k BIGINT, v BIGINT, f DOUBLE, s STRING, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '3' SECOND";
const ROWS: &str = "rnd(i) % 5, CASE WHEN rnd(i + 1000) % 5 = 0 THEN NULL ELSE rnd(i) % 100 END, rnd(i) % 1000 / 8.0,
    CASE rnd(i * 3) % 4 WHEN 0 THEN NULL WHEN 1 THEN '' ELSE concat('s', rnd(i) % 3) END,
    CASE WHEN rnd(i) % 50 = 0 THEN NULL ELSE 1577836800000 + i * 137 END";

fn table() -> Case {
    Case::new().table("a", COLUMNS).generated(400, ROWS)
}

fn aggregated(window: &str, keys: &str) -> String {
    format!(
        "SELECT {keys} window_start AS s, window_end AS e, count(*) AS n, count(v) AS nv, sum(v) AS t, min(f) AS lo, max(s) AS hi, avg(f) AS m
         FROM TABLE({window}) GROUP BY {keys} window_start, window_end"
    )
}

#[test]
fn tumbling() {
    let query = aggregated("TUMBLE(TABLE a, DESCRIPTOR(ts), INTERVAL '5' SECOND)", "k,");
    table().query(&query).closes_by("e").seeds(10).check();
    let query = aggregated("TUMBLE(TABLE a, DESCRIPTOR(ts), INTERVAL '5' SECOND)", "");
    table().query(&query).closes_by("e").check();
}

#[test]
fn sliding() {
    let query = aggregated("HOP(TABLE a, DESCRIPTOR(ts), INTERVAL '2' SECOND, INTERVAL '6' SECOND)", "k,");
    table().query(&query).closes_by("e").seeds(10).check();
    // Windows that leave gaps between them.
    let query = aggregated("HOP(TABLE a, DESCRIPTOR(ts), INTERVAL '6' SECOND, INTERVAL '2' SECOND)", "k,");
    table().query(&query).closes_by("e").check();
}

#[test]
fn cumulating() {
    let query = aggregated("CUMULATE(TABLE a, DESCRIPTOR(ts), INTERVAL '2' SECOND, INTERVAL '8' SECOND)", "k,");
    table().query(&query).closes_by("e").seeds(10).check();
}

#[test]
fn windows_that_share_many_panes() {
    for window in [
        "HOP(TABLE a, DESCRIPTOR(ts), INTERVAL '1' SECOND, INTERVAL '20' SECOND)",
        "HOP(TABLE a, DESCRIPTOR(ts), INTERVAL '1' SECOND, INTERVAL '50' SECOND)",
        "CUMULATE(TABLE a, DESCRIPTOR(ts), INTERVAL '1' SECOND, INTERVAL '20' SECOND)",
    ] {
        table().query(&aggregated(window, "k,")).closes_by("e").seeds(4).check();
    }
}

#[test]
fn sessions() {
    let query = aggregated("SESSION(TABLE a PARTITION BY k, DESCRIPTOR(ts), INTERVAL '1' SECOND)", "k,");
    table().query(&query).closes_after("e").seeds(10).check();
}

#[test]
fn sessions_of_renamed_columns() {
    let query = "SELECT x, y, count(*) AS n, window_end AS e
         FROM TABLE(SESSION((SELECT k AS x, s AS y, ts AS t FROM a) PARTITION BY (y, x), DESCRIPTOR(t), INTERVAL '1' SECOND))
         GROUP BY x, y, window_start, window_end";
    table().query(query).closes_after("e").check();
}

#[test]
fn the_windows_alone() {
    let query = |window: &str| format!("SELECT window_end AS e FROM TABLE({window}) GROUP BY window_start, window_end");
    table().query(&query("TUMBLE(TABLE a, DESCRIPTOR(ts), INTERVAL '2' SECOND)")).closes_by("e").check();
    table().query(&query("SESSION(TABLE a, DESCRIPTOR(ts), INTERVAL '1' SECOND)")).closes_after("e").check();
}

#[test]
fn distinct_filters_and_having() {
    let query = "SELECT window_end AS e, count(DISTINCT s) AS d, count(*) FILTER (WHERE v > 50) AS big, sum(v) AS t
         FROM TABLE(TUMBLE(TABLE a, DESCRIPTOR(ts), INTERVAL '4' SECOND)) WHERE k <> 3 GROUP BY window_start, window_end HAVING count(*) > 10";
    table().query(query).closes_by("e").check();
}

#[test]
fn ordered_values() {
    let query = "SELECT window_end AS e, k, array_to_string(array_agg(v ORDER BY s DESC, v NULLS FIRST), ',', '-') AS vs,
           first_value(s ORDER BY ts, s NULLS FIRST) AS f, last_value(v ORDER BY ts, v NULLS FIRST) AS l, string_agg(s, '|' ORDER BY v NULLS FIRST, s NULLS FIRST) AS ss,
           array_to_string(array_agg(DISTINCT s ORDER BY s NULLS FIRST), ',', '-') AS ds, percentile_cont(0.3) WITHIN GROUP (ORDER BY f) AS p
         FROM TABLE(HOP(TABLE a, DESCRIPTOR(ts), INTERVAL '2' SECOND, INTERVAL '6' SECOND)) GROUP BY k, window_start, window_end";
    table().query(query).closes_by("e").seeds(6).check();
    let query = query.replace(
        "HOP(TABLE a, DESCRIPTOR(ts), INTERVAL '2' SECOND, INTERVAL '6' SECOND)",
        "SESSION(TABLE a PARTITION BY k, DESCRIPTOR(ts), INTERVAL '1' SECOND)",
    );
    table().query(&query).closes_by("e").seeds(6).check();
}

#[test]
fn windows_over_windows_and_unions() {
    let query = "SELECT window_start AS s, window_end AS e, sum(n) AS n, max(n) AS m FROM TABLE(TUMBLE((
           SELECT window_time AS t, k, count(*) AS n FROM TABLE(TUMBLE(TABLE a, DESCRIPTOR(ts), INTERVAL '1' SECOND)) GROUP BY k, window_start, window_end, window_time
         ), DESCRIPTOR(t), INTERVAL '5' SECOND)) GROUP BY window_start, window_end";
    table().query(query).closes_by("e").check();
    let two = table().table("b", COLUMNS).generated(100, ROWS);
    let query = "SELECT window_end AS e, k, count(*) AS n FROM TABLE(TUMBLE((SELECT k, ts FROM a UNION ALL SELECT v, ts FROM b), DESCRIPTOR(ts), INTERVAL '5' SECOND))
         GROUP BY k, window_start, window_end";
    two.query(query).closes_by("e").seeds(10).check();
}

#[test]
fn rows_in_their_windows() {
    let query = "SELECT k, v, window_start AS s, window_end AS e FROM TABLE(HOP(TABLE a, DESCRIPTOR(ts), INTERVAL '2' SECOND, INTERVAL '4' SECOND)) WHERE v > 10";
    table().query(query).check();
}

#[test]
fn windows_of_processing_time() {
    let query = "SELECT k, count(*) AS n, window_start AS s, window_end AS e
         FROM TABLE(TUMBLE((SELECT k, PROCTIME() AS p FROM a), DESCRIPTOR(p), INTERVAL '2' SECOND)) GROUP BY k, window_start, window_end";
    table().with_now().query(query).batch(&query.replace("PROCTIME()", "__now")).closes_by_now("e").check();
}

#[test]
fn rows_beside_their_aggregates() {
    let query = "SELECT k, v, ts FROM a WHERE v > 95 UNION ALL
         SELECT k, count(*), window_end FROM TABLE(TUMBLE(TABLE a, DESCRIPTOR(ts), INTERVAL '2' SECOND)) GROUP BY k, window_start, window_end";
    let batch = "SELECT *, CAST(NULL AS TIMESTAMP(3)) AS __end FROM (SELECT k, v, ts FROM a WHERE v > 95) UNION ALL
         SELECT k, count(*), window_end, window_end AS e FROM TABLE(TUMBLE(TABLE a, DESCRIPTOR(ts), INTERVAL '2' SECOND)) GROUP BY k, window_start, window_end";
    table().query(query).batch(batch).closes_by("__end").check();
}

/// Windows of all kinds over two keys.
const KINDS: &[&str] = &[
    "TUMBLE(TABLE a, DESCRIPTOR(ts), INTERVAL '5' SECOND)",
    "HOP(TABLE a, DESCRIPTOR(ts), INTERVAL '2' SECOND, INTERVAL '6' SECOND)",
    "CUMULATE(TABLE a, DESCRIPTOR(ts), INTERVAL '2' SECOND, INTERVAL '8' SECOND)",
    "SESSION(TABLE a PARTITION BY k, DESCRIPTOR(ts), INTERVAL '1' SECOND)",
];

#[test]
fn early_results_of_every_epoch_are_the_batchs() {
    for kind in KINDS {
        table().setting("emit.early", "0 s").query(&aggregated(kind, "k,")).seeds(8).check();
    }
    table().setting("emit.early", "0 s").query(&aggregated(KINDS[0], "")).check();
    // Rows of a window alone, and windows of windows.
    let query = format!("SELECT k, window_end AS e FROM TABLE({}) GROUP BY k, window_start, window_end", KINDS[1]);
    table().setting("emit.early", "0 s").query(&query).check();
    let query = format!(
        "SELECT e, max(n) AS n FROM (SELECT k, window_end AS e, count(*) AS n FROM TABLE({}) GROUP BY k, window_start, window_end) GROUP BY e",
        KINDS[0]
    );
    table().setting("emit.early", "0 s").query(&query).check();
}

#[test]
fn early_results_are_replaced_at_the_close() {
    for (kind, interval) in KINDS.iter().flat_map(|k| [(k, "5 s"), (k, "1 h")]) {
        // After the last epoch all windows are closed.
        table()
            .setting("emit.early", interval)
            .query(&aggregated(kind, "k,"))
            .min_epochs(4)
            .at_the_end()
            .seeds(8)
            .check();
    }
}
