//! What random queries found, reduced.
use crate::harness::Case;

fn tables() -> Case {
    Case::new()
        .table("a", "k BIGINT, v BIGINT, s STRING")
        .values("(1, 10, 'x'), (1, 20, ''), (2, NULL, NULL), (NULL, 5, 'x')")
        .table("u", "k BIGINT, b BOOLEAN")
        .values("(1, true), (1, NULL), (NULL, false), (3, true)")
        .updating()
}

/// A condition without columns went below the aggregation and emptied its input, so that the row of no input stayed.
#[test]
fn conditions_without_columns_above_aggregations() {
    let none = "SELECT k AS n FROM a WHERE false";
    for query in [
        "SELECT count(*) AS n FROM a HAVING 1 > 2",
        "SELECT max(v) AS n FROM u JOIN a ON u.k = a.k HAVING max(v) < CAST(NULL AS BIGINT)",
        "SELECT n FROM (SELECT count(*) AS n FROM a HAVING count(*) < 1) WHERE n IS NULL",
        "SELECT n FROM (SELECT count(*) AS n, 1 AS x FROM a) WHERE x = 2",
        "SELECT n FROM (SELECT count(*) AS n, CAST(NULL AS STRING) AS x FROM u GROUP BY CUBE (k, b)) WHERE x <> x",
        "SELECT n FROM (SELECT k, count(*) AS n FROM u GROUP BY ROLLUP (k) HAVING bool_and(b) >= CAST(NULL AS BOOLEAN)) WHERE n > 0",
    ] {
        tables().query(query).batch(none).check();
    }
    tables().query("SELECT n FROM (SELECT count(*) AS n, 2 AS x FROM a) WHERE x = 2 AND n >= 0").check();
}

/// Nothing of the right side is read, so that its rows had no columns to be told apart by.
#[test]
fn joins_with_a_side_without_columns() {
    for kind in ["LEFT SEMI JOIN", "LEFT ANTI JOIN", "JOIN", "LEFT JOIN"] {
        tables().query(&format!("SELECT a.k, a.v FROM a {kind} u ON (false IS NULL) OR a.v > 7")).check();
        tables().query(&format!("SELECT a.k, a.v FROM a {kind} u ON false IS NULL")).check();
    }
    tables().query("SELECT k, v FROM a WHERE EXISTS (SELECT 1 FROM u)").check();
    tables().query("SELECT count(*) AS n FROM u AS x CROSS JOIN u AS y").check();
}

/// A constant of a query over rows that nobody looks at.
#[test]
fn constants_of_other_rows() {
    tables().query("SELECT 1 AS one FROM u").check();
    tables().query("SELECT 1 AS one FROM (SELECT DISTINCT k FROM u)").check();
    tables().query("SELECT 1 AS one, count(*) AS n FROM u GROUP BY b").check();
}

/// A condition went below DISTINCT ON, so that another row was the first.
#[test]
fn conditions_above_distinct_on() {
    let first = "(SELECT DISTINCT ON (k) k, v, s FROM a ORDER BY k, v NULLS FIRST, s)";
    tables().query(&format!("SELECT k, v FROM {first} WHERE v > 15")).seeds(8).check();
    tables().query(&format!("SELECT k, v, s FROM {first} WHERE s = 'x' AND v < 15")).check();
}

/// A partition that had lost its last row since a checkpoint was read from the store again.
#[test]
fn partitions_that_are_emptied_and_filled_again() {
    let case = || {
        Case::new()
            .table("p", "k BIGINT, v BIGINT")
            .generated(60, "rnd(i) % 6, rnd(i + 7) % 9")
            .keyed(&["k", "v"])
            .max_epochs(8)
            .min_epochs(4)
            .seeds(16)
    };
    case().query("SELECT k, v, RANK() OVER (PARTITION BY v, k ORDER BY v) AS r FROM p").check();
    case().query("SELECT k, v, sum(v) OVER (PARTITION BY k ORDER BY v) AS t FROM p").check();
    case()
        .query("SELECT * FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY v ORDER BY k) AS r FROM p) WHERE r <= 2")
        .check();
}
