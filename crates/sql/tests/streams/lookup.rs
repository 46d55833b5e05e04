//! Joins with tables that are looked up, and with the version of a row at a time.
use crate::harness::Case;

const ROWS: &str = "k BIGINT, j STRING, v BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '2' SECOND";
const GENERATED: &str = "CASE WHEN rnd(i) % 3 = 0 THEN 7 WHEN rnd(i) % 11 = 0 THEN NULL ELSE rnd(i * 3) % 12 END,
    concat('s', rnd(i) % 3), CASE WHEN rnd(i + 50) % 7 = 0 THEN NULL ELSE rnd(i + 9) % 10 END,
    CASE WHEN rnd(i + 3) % 40 = 0 THEN NULL ELSE 1577836800000 + i * 211 END";
const SIDE: &str = "k BIGINT, w BIGINT, note STRING";
const OF_SIDE: &str =
    "CASE WHEN i % 9 = 0 THEN NULL ELSE rnd(i * 7) % 15 END, rnd(i + 2) % 10, concat('note ', rnd(i) % 4)";

/// A stream and a table of files.
fn tables(updating: bool) -> Case {
    let case = Case::new().table("a", ROWS).generated(120, GENERATED);
    let case = if updating { case.updating() } else { case };
    case.table("side", SIDE).generated(25, OF_SIDE).files()
}

#[test]
fn files_that_are_read_once_are_looked_up() {
    let queries = [
        "SELECT a.k, a.v, s.w, s.note FROM a JOIN side s ON a.k = s.k",
        "SELECT a.k, a.v, s.w FROM a LEFT JOIN side s ON a.k = s.k AND a.v < s.w",
        "SELECT s.note, a.k, s.w, a.v FROM side s JOIN a ON a.k = s.k AND s.w > 2",
        "SELECT s.note, a.k, s.w, a.v FROM side s RIGHT JOIN a ON a.k = s.k AND s.w = a.v",
        "SELECT a.k, s.w FROM a JOIN side s ON a.k + 1 = s.k WHERE s.w > 3 AND a.v < 8",
        "SELECT k, v FROM a WHERE k IN (SELECT k FROM side WHERE w > 4)",
        "SELECT k, v FROM a WHERE NOT EXISTS (SELECT 1 FROM side WHERE side.k = a.k AND side.w > a.v)",
        "SELECT a.k, s.w FROM a CROSS JOIN side s",
        "SELECT a.k, a.v, s.w, t.note FROM a JOIN side s ON a.k = s.k LEFT JOIN side t ON s.w = t.k",
        "SELECT a.k, a.v, s.w, s.note FROM a LEFT JOIN (SELECT x.k, y.w, x.note FROM side x JOIN side y ON x.k = y.k) s ON a.k = s.k",
    ];
    for updating in [false, true] {
        for query in queries {
            let case = tables(updating).query(query);
            let explained = case.explained();
            assert!(explained.contains("lookup, "), "{explained}");
            assert!(explained.contains("state      left: none"), "{explained}");
            assert!(explained.contains("read       whole, before rows of other tables"), "{explained}");
            assert_eq!(explained.contains("rows       changes"), updating, "{explained}");
            case.check();
        }
    }
}

#[test]
fn what_no_lookup_can_give_is_joined_as_ever() {
    let queries = [
        "SELECT a.k, a.v, s.w FROM a FULL JOIN side s ON a.k = s.k",
        "SELECT a.k, a.v, s.w FROM a RIGHT JOIN side s ON a.k = s.k",
        "SELECT k, w FROM side WHERE k IN (SELECT k FROM a)",
        // What is aggregated changes while it is read.
        "SELECT a.k, a.v, s.w FROM a JOIN (SELECT k, max(w) AS w FROM side GROUP BY k) s ON a.k = s.k",
        "SELECT k, w FROM (SELECT k, w FROM side UNION ALL SELECT k, v FROM a)",
    ];
    for query in queries {
        let case = tables(false).query(query);
        let explained = case.explained();
        assert!(!explained.contains("lookup, ") && !explained.contains("read  "), "{explained}");
        case.check();
    }
}

#[test]
fn files_that_are_looked_up_can_be_read_otherwise_too() {
    let query = "SELECT a.k, s.w FROM a JOIN side s ON a.k = s.k UNION ALL SELECT k, w FROM side";
    let case = tables(false).query(query);
    assert!(case.explained().contains("lookup, "), "{}", case.explained());
    case.check();
    let query = "SELECT x.k, x.w, y.w AS w2 FROM (SELECT a.k, s.w FROM a JOIN side s ON a.k = s.k) x FULL JOIN side y ON x.w = y.w";
    tables(false).query(query).check();
}

#[test]
fn a_lookup_keeps_times_and_windows() {
    let windows = "SELECT window_end AS e, note, count(*) AS n, sum(v) AS t FROM TABLE(TUMBLE((
           SELECT a.ts, a.v, s.note FROM a LEFT JOIN side s ON a.k = s.k
         ), DESCRIPTOR(ts), INTERVAL '3' SECOND)) GROUP BY window_start, window_end, note";
    tables(false).query(windows).closes_by("e").seeds(8).check();
    let joined = "SELECT x.window_end AS e, x.n, s.note FROM (
           SELECT k, count(*) AS n, window_start, window_end FROM TABLE(TUMBLE(TABLE a, DESCRIPTOR(ts), INTERVAL '3' SECOND))
           GROUP BY k, window_start, window_end) x JOIN side s ON x.k = s.k";
    tables(false).query(joined).closes_by("e").seeds(8).check();
    let cascade = format!(
        "SELECT e, count(*) AS c FROM ({}) GROUP BY s, e",
        joined.replace("x.window_end AS e", "x.window_start AS s, x.window_end AS e")
    );
    tables(false).query(&cascade).closes_by("e").seeds(8).check();
}

#[test]
fn updating_rows_look_up_files_that_are_read_once() {
    let query = "SELECT x.k, x.n, s.note FROM (SELECT k, count(*) AS n FROM a GROUP BY k) x LEFT JOIN side s ON x.k = s.k AND x.n > s.w";
    tables(false).query(query).check();
    tables(true).query(query).check();
    let query = "SELECT s.note, count(*) AS n, max(a.v) AS m FROM a JOIN side s ON a.k = s.k GROUP BY s.note";
    tables(true).query(query).check();
}

#[test]
fn files_that_grow_are_looked_up_as_they_are() {
    let case = || {
        let rows = "k BIGINT, j STRING, v BIGINT, ts TIMESTAMP(3), p AS PROCTIME()";
        Case::new()
            .table("a", rows)
            .generated(120, GENERATED)
            .table("side", SIDE)
            .generated(25, OF_SIDE)
            .growing_files()
            .with_now()
    };
    let of = |kind: &str, condition: &str, rest: &str| {
        case()
            .query(&format!("SELECT a.k, a.v, s.w FROM a {kind} side FOR SYSTEM_TIME AS OF a.p AS s ON a.k = s.k {condition} {rest}"))
            .batch(&format!(
                "SELECT a.k, a.v, s.w FROM a {kind} side AS s ON a.k = s.k AND s.\"__now\" < a.\"__now\" {condition} {rest}"
            ))
    };
    let explained = of("JOIN", "", "").explained();
    assert!(explained.contains("read       what is there, before each epoch of other tables"), "{explained}");
    assert!(explained.contains("rows       append only"), "{explained}");
    of("JOIN", "", "").seeds(8).check();
    of("LEFT JOIN", "AND s.w > a.v", "").seeds(8).check();
    of("JOIN", "AND s.w > 3", "WHERE a.v < 5 AND s.note <> 'note 1'").seeds(8).check();
    // Any name of the present will do.
    let query = "SELECT b.k, b.v, s.w FROM (SELECT *, PROCTIME() AS now FROM a) b LEFT JOIN side FOR SYSTEM_TIME AS OF b.now AS s ON b.k = s.k";
    let batch = "SELECT a.k, a.v, s.w FROM a LEFT JOIN side s ON a.k = s.k AND s.\"__now\" < a.\"__now\"";
    case().query(query).batch(batch).seeds(8).check();
    let query = "SELECT a.k, a.v, s.w FROM a LEFT JOIN side FOR SYSTEM_TIME AS OF PROCTIME() AS s ON a.k = s.k";
    case().query(query).batch(batch).seeds(8).check();
    // Without FOR SYSTEM_TIME what comes later counts for all rows.
    let plain = case().query("SELECT a.k, a.v, s.w FROM a LEFT JOIN side s ON a.k = s.k");
    assert!(!plain.explained().contains("lookup"), "{}", plain.explained());
    plain.check();
}

/// A stream and a table with versions.
fn versions() -> Case {
    let rates = "k BIGINT, w BIGINT, note STRING, since TIMESTAMP(3), WATERMARK FOR since AS since - INTERVAL '3' SECOND, PRIMARY KEY (k) NOT ENFORCED";
    let of_rates =
        "CASE WHEN i % 9 = 0 THEN NULL ELSE rnd(i * 7) % 12 END, rnd(i + 2) % 10, concat('note ', rnd(i) % 4),
        CASE WHEN rnd(i + 5) % 30 = 0 THEN NULL ELSE 1577836800000 + i * 405 - 7 END";
    Case::new().table("a", ROWS).generated(120, GENERATED).table("rates", rates).generated(60, of_rates)
}

/// Each version with the time until which it is valid.
const VALID: &str = "(SELECT k, w, note, since, lead(since) OVER (PARTITION BY k ORDER BY since) AS \"until\" FROM rates WHERE k IS NOT NULL AND since IS NOT NULL)";

fn at_time(kind: &str, condition: &str, rest: &str) -> Case {
    let select = "SELECT a.k, a.v, r.w, r.note, a.ts";
    versions()
        .query(&format!("{select} FROM a {kind} rates FOR SYSTEM_TIME AS OF a.ts AS r ON a.k = r.k {condition} {rest}"))
        .batch(&format!(
            "{select}, a.ts + INTERVAL '1 millisecond' AS \"__due\" FROM a {kind} {VALID} r
             ON a.k = r.k AND r.since <= a.ts AND (r.\"until\" IS NULL OR a.ts < r.\"until\") {condition} {rest}"
        ))
        .closes_by("__due")
        .seeds(12)
}

#[test]
fn a_row_meets_the_version_of_its_time() {
    let explained = at_time("JOIN", "", "").explained();
    assert!(explained.contains("inner join with the version of since that is valid at ts"), "{explained}");
    assert!(explained.contains("rows       append only"), "{explained}");
    for kind in ["JOIN", "LEFT JOIN"] {
        at_time(kind, "", "").check();
        // Conditions on the version do not make an older one valid.
        at_time(kind, "AND r.w > 4", "").check();
        at_time(kind, "AND r.w > a.v AND r.note = a.j", "").check();
        at_time(kind, "AND a.v > 2", "WHERE a.j <> 's1'").check();
    }
    at_time("JOIN", "", "WHERE r.w > 4").check();
    at_time("LEFT JOIN", "", "WHERE r.w > 4").check();
    at_time("LEFT JOIN", "", "WHERE r.w IS NULL OR r.w > 4").check();
    at_time("JOIN", "", "WHERE a.k = 7").check();
}

#[test]
fn a_window_of_rows_with_their_versions() {
    let window = |inner: &str| {
        format!(
            "SELECT window_end AS e, note, count(*) AS n, sum(v * w) AS t FROM TABLE(TUMBLE(({inner}), DESCRIPTOR(ts), INTERVAL '3' SECOND))
             GROUP BY window_start, window_end, note"
        )
    };
    let stream = "SELECT a.ts, a.v, r.w, r.note FROM a LEFT JOIN rates FOR SYSTEM_TIME AS OF a.ts AS r ON a.k = r.k";
    let batch = format!(
        "SELECT a.ts, a.v, r.w, r.note FROM a LEFT JOIN {VALID} r ON a.k = r.k AND r.since <= a.ts AND (r.\"until\" IS NULL OR a.ts < r.\"until\")"
    );
    versions().query(&window(stream)).batch(&window(&batch)).closes_by("e").seeds(12).check();
}

#[test]
fn versions_of_versions() {
    let query = "SELECT a.k, a.v, r.w, q.note FROM a
        JOIN rates FOR SYSTEM_TIME AS OF a.ts AS r ON a.k = r.k
        LEFT JOIN rates FOR SYSTEM_TIME AS OF a.ts AS q ON q.k = r.w";
    let valid = |name: &str| format!("{name}.since <= a.ts AND ({name}.\"until\" IS NULL OR a.ts < {name}.\"until\")");
    let batch = format!(
        "SELECT a.k, a.v, r.w, q.note, a.ts + INTERVAL '1 millisecond' AS \"__due\" FROM a
         JOIN {VALID} r ON a.k = r.k AND {} LEFT JOIN {VALID} q ON q.k = r.w AND {}",
        valid("r"),
        valid("q")
    );
    // The second join waits once more.
    versions().query(query).batch(&batch).closes_by("__due").seeds(12).check();
}
