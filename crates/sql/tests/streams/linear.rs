//! Filters, projections and unions: rows pass with their weights.
use crate::harness::Case;

const A: &str =
    "k BIGINT, v DOUBLE, s STRING, d DECIMAL(10, 2), ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '2' SECOND";
const ROWS: &str =
    "rnd(i) % 7, CASE WHEN rnd(i + 1000) % 5 = 0 THEN NULL WHEN rnd(i) % 11 = 0 THEN 'NaN'::double ELSE i / 3.0 END,
    CASE rnd(i * 3) % 4 WHEN 0 THEN NULL WHEN 1 THEN '' ELSE concat('s', rnd(i) % 3) END, rnd(i) % 1000 / 7.0,
    1577836800000 + i * 100";

fn two_tables() -> Case {
    Case::new()
        .table("a", A)
        .generated(300, ROWS)
        .table("b", "k BIGINT, s STRING")
        .values("(1, 'x'), (1, 'x'), (NULL, ''), (3, NULL)")
}

#[test]
fn filters_and_projections() {
    two_tables().query("SELECT k + 1 AS k1, v * 2 AS v2, upper(s) AS s, d FROM a WHERE k > 2 OR s IS NULL").check();
    two_tables().query("SELECT s, v FROM a WHERE v > 20 AND s <> ''").check();
    two_tables().query("SELECT CASE WHEN d > 50 THEN 'big' END AS size, coalesce(v, 0) AS v FROM a").check();
}

#[test]
fn unions() {
    two_tables()
        .query("SELECT k, s FROM a WHERE k < 4 UNION ALL SELECT k, s FROM b UNION ALL SELECT k, s FROM a")
        .check();
}

#[test]
fn changes_pass_with_their_weights() {
    let updating = Case::new().table("a", A).generated(200, ROWS).updating();
    updating.clone().query("SELECT s, v FROM a WHERE k > 1").check();
    updating.query("SELECT s, k FROM a WHERE k > 1 UNION ALL SELECT s, k FROM a").check();
    let keyed = Case::new().table("a", A).generated(200, ROWS).keyed(&["k"]);
    keyed.query("SELECT k, v, s FROM a").check();
}

#[test]
fn a_wrong_result_is_noticed() {
    let wrong = |query: &str, batch: &str| two_tables().query(query).batch(batch).try_seed(1).unwrap_err();
    let text = wrong("SELECT k FROM a WHERE k > 3", "SELECT k FROM a WHERE k >= 3");
    assert!(text.contains("missing: 1 different rows") && text.contains("seed 1"), "{text}");
    let text = wrong("SELECT k FROM a", "SELECT DISTINCT k FROM a");
    assert!(text.contains("too many"), "{text}");
    let text = wrong("SELECT v * 1.000001 AS v FROM a", "SELECT v FROM a");
    assert!(text.contains("missing"), "{text}");
    two_tables().query("SELECT v * 1.00000000000001 AS v FROM a").batch("SELECT v FROM a").try_seed(1).unwrap();
}
