//! Joins of all kinds over appended and changing tables.
use crate::harness::Case;

const LEFT: &str = "k BIGINT, j STRING, v BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '2' SECOND";
const RIGHT: &str = "k BIGINT, j STRING, w BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '2' SECOND";
/// Few keys, one of them in half of the rows; nulls and repeated rows.
const ROWS: &str = "CASE WHEN rnd(i) % 2 = 0 THEN 7 WHEN rnd(i) % 11 = 0 THEN NULL ELSE rnd(i * 3) % 20 END,
    CASE rnd(i * 5) % 4 WHEN 0 THEN NULL WHEN 1 THEN '' ELSE concat('s', rnd(i) % 3) END,
    CASE WHEN rnd(i + 50) % 7 = 0 THEN NULL ELSE rnd(i + 9) % 10 END,
    CASE WHEN rnd(i + 3) % 40 = 0 THEN NULL ELSE 1577836800000 + i * 211 END";

const KINDS: [&str; 4] = ["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"];

fn tables(left: usize, right: usize) -> Case {
    Case::new().table("a", LEFT).generated(left, ROWS).table("b", RIGHT).generated(right, ROWS)
}

fn changing(left: usize, right: usize) -> Case {
    Case::new().table("a", LEFT).generated(left, ROWS).updating().table("b", RIGHT).generated(right, ROWS).updating()
}

/// All ways in which tables can change.
fn all_ways() -> Vec<Case> {
    let keyed = Case::new()
        .table("a", LEFT)
        .generated(150, ROWS)
        .keyed(&["k"])
        .table("b", RIGHT)
        .generated(60, ROWS)
        .updating();
    let mixed =
        Case::new().table("a", LEFT).generated(80, ROWS).table("b", RIGHT).generated(80, ROWS).keyed(&["k", "j"]);
    vec![tables(90, 60), changing(90, 60), keyed, mixed]
}

#[test]
fn of_all_kinds() {
    for case in all_ways() {
        for kind in KINDS {
            case.clone().query(&format!("SELECT a.k, a.v, b.k AS bk, b.w FROM a {kind} b ON a.k = b.k")).check();
        }
    }
}

#[test]
fn with_a_residual() {
    for case in all_ways() {
        for kind in KINDS {
            let query = format!("SELECT a.k, a.j, a.v, b.w FROM a {kind} b ON a.k = b.k AND a.v < b.w");
            case.clone().query(&query).check();
        }
    }
}

#[test]
fn of_several_keys() {
    for case in all_ways() {
        for kind in KINDS {
            let query = format!("SELECT a.k, a.j, a.v, b.w FROM a {kind} b ON a.k = b.k + 1 AND a.j = b.j");
            case.clone().query(&query).check();
        }
        case.query("SELECT a.k, a.j, a.v, b.w FROM a JOIN b USING (k, j) WHERE b.w > 2").check();
    }
}

#[test]
fn of_nulls_that_are_equal() {
    for case in all_ways() {
        let query = "SELECT a.k, a.v, b.w FROM a LEFT JOIN b ON (a.k IS NOT DISTINCT FROM b.k) AND (a.j IS NOT DISTINCT FROM b.j)";
        case.query(query).check();
    }
}

#[test]
fn natural_and_by_comma() {
    for case in all_ways() {
        case.clone().query("SELECT a.k, a.v, b.w FROM a, b WHERE a.k = b.k AND a.v = b.w").check();
        case.query("SELECT k, v, w FROM a NATURAL JOIN (SELECT k, j, w FROM b)").check();
    }
}

#[test]
fn without_keys() {
    changing(20, 10).query("SELECT a.k, b.w FROM a CROSS JOIN b").check();
    changing(20, 15).query("SELECT a.k, a.v, b.w FROM a LEFT JOIN b ON a.v < b.w").check();
    tables(20, 15).query("SELECT a.k, a.v, b.w FROM a FULL JOIN b ON a.v > b.w + 4").check();
}

#[test]
fn of_a_table_with_itself() {
    for case in all_ways() {
        case.clone().query("SELECT x.k, x.v, y.v AS v2 FROM a x JOIN a y ON x.k = y.k AND x.v = y.v + 1").check();
        case.query("SELECT x.k, x.v, y.v AS v2 FROM a x LEFT JOIN a y ON x.v = y.v + 3 AND x.j = y.j").check();
    }
}

#[test]
fn of_joins() {
    for case in all_ways() {
        let query = "SELECT x.k, x.v, y.w, z.w AS w2 FROM a x JOIN b y ON x.k = y.k AND x.v = y.w LEFT JOIN b z ON y.j = z.j AND z.w = x.v";
        case.clone().query(query).check();
        let query = "SELECT x.k, y.w, z.v FROM a x LEFT JOIN b y ON x.k = y.k AND x.j = y.j FULL JOIN a z ON y.w = z.v AND z.k < 5";
        case.query(query).check();
    }
}

#[test]
fn semi_and_anti() {
    for case in all_ways() {
        let queries = [
            "SELECT k, v FROM a WHERE k IN (SELECT k FROM b)",
            "SELECT k, v FROM a WHERE k IN (SELECT k FROM b WHERE b.w > a.v)",
            "SELECT k, v FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.k = a.k AND b.j = a.j)",
            "SELECT k, v FROM a WHERE NOT EXISTS (SELECT 1 FROM b WHERE b.k = a.k)",
            "SELECT k, v FROM a WHERE NOT EXISTS (SELECT 1 FROM b WHERE b.k = a.k AND b.w < a.v)",
            "SELECT a.k, a.v FROM a LEFT SEMI JOIN b ON a.k = b.k",
            "SELECT b.k, b.w FROM a RIGHT SEMI JOIN b ON a.k = b.k AND a.v > b.w",
            "SELECT a.k, a.v FROM a LEFT ANTI JOIN b ON a.k = b.k AND a.j = b.j",
            "SELECT b.k, b.w FROM a RIGHT ANTI JOIN b ON a.k = b.k",
        ];
        for query in queries {
            case.clone().query(query).check();
        }
    }
}

#[test]
fn filtered_and_projected() {
    for case in all_ways() {
        // The filter makes an inner join of it.
        case.clone().query("SELECT a.k, a.v, b.w FROM a LEFT JOIN b ON a.k = b.k WHERE b.w > 3").check();
        case.clone().query("SELECT b.w * 2 AS x FROM a LEFT JOIN b ON a.k = b.k WHERE coalesce(b.w, 0) < 3").check();
        case.query("SELECT 1 AS one FROM a JOIN b ON a.k = b.k").check();
    }
}

#[test]
fn of_windows() {
    let windowed = |table: &str, value: &str| {
        format!(
            "(SELECT k, count(*) AS n, max({value}) AS m, window_start, window_end
              FROM TABLE(TUMBLE(TABLE {table}, DESCRIPTOR(ts), INTERVAL '4' SECOND)) GROUP BY k, window_start, window_end)"
        )
    };
    for kind in ["JOIN", "LEFT JOIN"] {
        let query = format!(
            "SELECT x.k, x.n, y.n AS n2, y.m, x.window_start AS s, x.window_end AS e FROM {} x {kind} {} y
             ON x.k = y.k AND x.window_start = y.window_start AND x.window_end = y.window_end",
            windowed("a", "v"),
            windowed("b", "w")
        );
        let case = tables(150, 90).query(&query).closes_by("e");
        let explained = case.explained();
        assert!(explained.contains("until the lowest watermark of a (ts - "), "{explained}");
        assert!(explained.contains("rows       append only"), "{explained}");
        case.seeds(8).check();
    }
    let full = format!(
        "SELECT x.k, y.k AS k2, x.n, y.n AS n2, coalesce(x.window_end, y.window_end) AS e FROM {} x FULL JOIN {} y
         ON x.k = y.k AND x.window_start = y.window_start AND x.window_end = y.window_end",
        windowed("a", "v"),
        windowed("b", "w")
    );
    tables(150, 90).query(&full).closes_by("e").seeds(8).check();
    let anti = format!(
        "SELECT x.k, x.n, x.window_end AS e FROM {} x WHERE NOT EXISTS
         (SELECT 1 FROM {} y WHERE x.k = y.k AND x.window_start = y.window_start AND x.window_end = y.window_end AND y.n > x.n)",
        windowed("a", "v"),
        windowed("b", "w")
    );
    tables(150, 90).query(&anti).closes_by("e").seeds(8).check();
    let semi = anti.replace("NOT EXISTS", "EXISTS");
    tables(150, 90).query(&semi).closes_by("e").seeds(8).check();
}

#[test]
fn rows_in_windows() {
    // Pairs leave at once; the window's aggregation over them closes with it.
    let rows =
        |table: &str| format!("(SELECT * FROM TABLE(TUMBLE(TABLE {table}, DESCRIPTOR(ts), INTERVAL '3' SECOND)))");
    let pairs = format!(
        "SELECT x.k, x.v, y.w, x.window_start, x.window_end FROM {} x JOIN {} y
         ON x.k = y.k AND x.window_start = y.window_start AND x.window_end = y.window_end",
        rows("a"),
        rows("b")
    );
    tables(150, 90).query(&pairs).check();
    let counted = format!(
        "SELECT k, count(*) AS n, sum(v) AS t, window_end AS e FROM ({pairs}) GROUP BY k, window_start, window_end"
    );
    tables(150, 90).query(&counted).closes_by("e").seeds(8).check();
    let counted = counted.replace(" x JOIN ", " x LEFT JOIN ");
    tables(150, 90).query(&counted).closes_by("e").seeds(8).check();
}

#[test]
fn of_intervals() {
    let conditions = [
        "b.ts BETWEEN a.ts - INTERVAL '2' SECOND AND a.ts + INTERVAL '1' SECOND",
        "a.ts <= b.ts AND b.ts - INTERVAL '3' SECOND < a.ts",
        "a.ts = b.ts",
        "a.ts = b.ts + INTERVAL '211' MILLISECOND",
    ];
    for condition in conditions {
        let query = format!("SELECT a.k, a.v, b.w, a.ts FROM a JOIN b ON a.k = b.k AND {condition}");
        let case = tables(150, 90).query(&query);
        let explained = case.explained();
        assert!(explained.contains("left: until the lowest watermark of a (ts - "), "{explained}");
        assert!(explained.contains("right: until the lowest watermark of a (ts - "), "{explained}");
        case.seeds(8).check();
        let query = format!("SELECT k, v FROM a WHERE EXISTS (SELECT 1 FROM b WHERE a.k = b.k AND {condition})");
        tables(150, 90).query(&query).check();
    }
}

#[test]
fn intervals_that_pad() {
    // The left time stays a time attribute, so a window above shows when unmatched rows leave.
    for kind in ["LEFT JOIN", "JOIN"] {
        let query = format!(
            "SELECT window_end AS e, count(*) AS n, count(w) AS matched, sum(v) AS t FROM TABLE(TUMBLE((
               SELECT a.ts, a.v, b.w FROM a {kind} b ON a.k = b.k AND b.ts BETWEEN a.ts - INTERVAL '2' SECOND AND a.ts
             ), DESCRIPTOR(ts), INTERVAL '3' SECOND)) GROUP BY window_start, window_end"
        );
        tables(150, 90).query(&query).closes_by("e").seeds(10).check();
    }
    let query = "SELECT window_end AS e, count(*) AS n, sum(v) AS t FROM TABLE(TUMBLE((
           SELECT a.ts, a.v FROM a WHERE NOT EXISTS (SELECT 1 FROM b WHERE a.k = b.k AND b.ts BETWEEN a.ts - INTERVAL '2' SECOND AND a.ts AND b.w > a.v)
         ), DESCRIPTOR(ts), INTERVAL '3' SECOND)) GROUP BY window_start, window_end";
    tables(150, 90).query(query).closes_by("e").seeds(10).check();
    // Both sides wait: right in the end, when all is known.
    for kind in KINDS {
        let query = format!(
            "SELECT a.k, a.v, b.w FROM a {kind} b ON a.k = b.k AND b.ts BETWEEN a.ts - INTERVAL '2' SECOND AND a.ts + INTERVAL '1' SECOND"
        );
        let case = tables(150, 90).query(&query).max_epochs(1);
        assert!(case.explained().contains("rows       append only"), "{}", case.explained());
        case.check();
    }
}

#[test]
fn of_keys_of_different_types() {
    let left = "i INT, l BIGINT, d DECIMAL(10, 2), f DOUBLE, s STRING, t TIMESTAMP(3), b BOOLEAN";
    let right = "i SMALLINT, l BIGINT, d DECIMAL(12, 3), f FLOAT, s STRING, t TIMESTAMP(6), b BOOLEAN";
    let rows = "CASE WHEN i % 9 = 0 THEN NULL ELSE rnd(i) % 7 END, rnd(i + 1) % 7, (rnd(i + 2) % 70) / 10.0,
        CASE rnd(i + 3) % 7 WHEN 0 THEN 0.0 WHEN 1 THEN -0.0 WHEN 2 THEN 'NaN'::DOUBLE WHEN 3 THEN NULL WHEN 4 THEN 0.5 ELSE rnd(i + 3) % 3 END,
        CASE rnd(i + 4) % 4 WHEN 0 THEN NULL WHEN 1 THEN '' ELSE CAST(rnd(i + 4) % 5 AS VARCHAR) END,
        CASE WHEN i % 11 = 0 THEN NULL ELSE 1577836800000 + (rnd(i + 5) % 9) * 500 END, rnd(i + 6) % 3 = 0";
    let tables = |updating: bool| {
        let case = Case::new().table("a", left).generated(60, rows);
        let case = if updating { case.updating() } else { case };
        let case = case.table("b", right).generated(50, rows);
        if updating { case.updating() } else { case }
    };
    let conditions = [
        "a.i = b.i",
        "a.i = b.l",
        "a.l = b.d",
        "a.d = b.d",
        "a.f = b.f",
        "a.i = b.f",
        "a.t = b.t",
        "a.s = b.s AND a.b = b.b",
        "a.l + 1 = b.i * 2",
        "(a.i, a.b) = (b.l, b.b)",
        "a.f IS NOT DISTINCT FROM b.f",
        "a.s IS NOT DISTINCT FROM b.s AND a.i = b.i",
        "(a.l = b.l OR a.i = b.i)",
        "upper(a.s) = concat(b.s, '')",
    ];
    for updating in [false, true] {
        for condition in conditions {
            let queries = [
                format!("SELECT a.i, a.d, a.s, b.l, b.t FROM a FULL JOIN b ON {condition}"),
                format!("SELECT a.i, a.d, a.f FROM a WHERE NOT EXISTS (SELECT 1 FROM b WHERE {condition})"),
            ];
            for query in queries {
                tables(updating).query(&query).batch(&bracketed(&query)).seeds(2).check();
            }
        }
    }
}

/// What DataFusion's parser reads another way than it is meant.
fn bracketed(query: &str) -> String {
    let pairs = [("a.f", "b.f"), ("a.s", "b.s"), ("x.k", "y.k"), ("b.k", "a.k")];
    pairs.iter().fold(query.to_owned(), |query, (left, right)| {
        let plain = format!("{left} IS NOT DISTINCT FROM {right}");
        query.replace(&plain, &format!("({plain})"))
    })
}

#[test]
fn of_aggregates_on_both_sides() {
    let of = |table: &str, value: &str| format!("(SELECT k, count(*) AS n, max({value}) AS m FROM {table} GROUP BY k)");
    for case in all_ways() {
        for kind in KINDS {
            let query = format!(
                "SELECT x.k, x.n, x.m, y.k AS k2, y.n AS n2, y.m AS m2 FROM {} x {kind} {} y ON x.k = y.k AND x.n >= y.n",
                of("a", "v"),
                of("b", "w")
            );
            case.clone().query(&query).check();
        }
        // A table with what is aggregated of it.
        case.clone().query("SELECT a.k, a.v FROM a WHERE a.v > (SELECT avg(x.v) FROM a x WHERE x.k = a.k)").check();
        case.clone().query("SELECT a.k, a.v FROM a WHERE a.v >= (SELECT max(w) FROM b)").check();
        let nested = format!(
            "SELECT n, count(*) AS c, sum(m2) AS t FROM (SELECT x.n, y.m AS m2 FROM {} x LEFT JOIN {} y ON x.k = y.k) GROUP BY n",
            of("a", "v"),
            of("b", "w")
        );
        case.query(&nested).check();
    }
}

#[test]
fn of_a_hot_key() {
    // Half of the rows on either side have one key, and matches come and go.
    let rows = "CASE WHEN i % 2 = 0 THEN 7 ELSE rnd(i) % 50 END, 's', rnd(i + 9) % 10, 1577836800000 + i * 21";
    let hot = |updating: bool| {
        let case = Case::new().table("a", LEFT).generated(700, rows);
        let case = if updating { case.updating() } else { case };
        let case = case.table("b", RIGHT).generated(500, rows);
        if updating { case.updating() } else { case }
    };
    for updating in [false, true] {
        let query = "SELECT count(*) AS n, sum(a.v) AS t FROM a LEFT JOIN b ON a.k = b.k AND a.v <> b.w";
        hot(updating).query(query).seeds(2).check();
        hot(updating)
            .query("SELECT a.k, a.v FROM a WHERE NOT EXISTS (SELECT 1 FROM b WHERE a.k = b.k AND b.w > a.v + 5)")
            .seeds(2)
            .check();
    }
}

#[test]
fn of_nulls_that_are_equal_and_others() {
    let queries = [
        "SELECT x.k, x.v, y.w, z.v AS v2 FROM a x JOIN b y ON x.k IS NOT DISTINCT FROM y.k AND x.v < y.w LEFT JOIN a z ON y.j = z.j AND z.k = 7",
        "SELECT x.k, x.v, y.w FROM a x FULL JOIN b y ON x.k IS NOT DISTINCT FROM y.k AND x.j = y.j",
        "SELECT k, v FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.k IS NOT DISTINCT FROM a.k AND b.w = a.v)",
    ];
    for case in all_ways() {
        for query in queries {
            case.clone().query(query).batch(&bracketed(query)).check();
        }
    }
}
