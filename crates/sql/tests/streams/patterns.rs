//! `MATCH_RECOGNIZE`: the examples of Flink's documentation, and random patterns against a matcher that tries everything.
mod reference;

use crate::difference::{Multiset, difference};
use crate::draws::Draws;
use crate::harness::Case;

use self::reference::{Query, Row};

/// What the sink holds in the end must be these rows, for several ways to cut the input.
fn check(case: &Case, expected: &[&[&str]]) {
    let mut rows = Multiset::new();
    for row in expected {
        *rows.entry(row.iter().map(|v| (*v).to_owned()).collect()).or_default() += 1;
    }
    compare(case, &rows, 6);
}

fn compare(case: &Case, expected: &Multiset, seeds: u64) {
    for seed in 0..seeds {
        let (schema, found) = case.stream_result(seed).unwrap_or_else(|e| panic!("{e}"));
        if let Some(what) = difference(&schema, expected, &found) {
            panic!("seed {seed}: {what}\n{}", case.explained());
        }
    }
}

/// The stock ticker of Flink's documentation.
fn ticker(rows: &[(&str, u32, i64, i64)]) -> Case {
    let rows: Vec<String> = rows
        .iter()
        .map(|(symbol, second, price, tax)| {
            format!("('{symbol}', {price}, {tax}, TIMESTAMP '2018-04-01 10:00:{second:02}')")
        })
        .collect();
    Case::new()
        .table(
            "Ticker",
            "symbol STRING, price BIGINT, tax BIGINT, rowtime TIMESTAMP(3), WATERMARK FOR rowtime AS rowtime - INTERVAL '3' SECOND",
        )
        .values(&rows.join(", "))
}

#[test]
fn a_price_that_falls_and_recovers() {
    let case = ticker(&[
        ("ACME", 0, 12, 1),
        ("ACME", 1, 17, 2),
        ("ACME", 2, 19, 1),
        ("ACME", 3, 21, 3),
        ("ACME", 4, 25, 2),
        ("ACME", 5, 18, 1),
        ("ACME", 6, 15, 1),
        ("ACME", 7, 14, 2),
        ("ACME", 8, 24, 2),
        ("ACME", 9, 25, 2),
        ("ACME", 10, 19, 1),
    ]);
    let case = case
        .columns("symbol STRING, start_tstamp TIMESTAMP(3), bottom_tstamp TIMESTAMP(3), end_tstamp TIMESTAMP(3)")
        .query(
            "SELECT * FROM Ticker MATCH_RECOGNIZE (
           PARTITION BY symbol
           ORDER BY rowtime
           MEASURES
             START_ROW.rowtime AS start_tstamp,
             LAST(PRICE_DOWN.rowtime) AS bottom_tstamp,
             LAST(PRICE_UP.rowtime) AS end_tstamp
           ONE ROW PER MATCH
           AFTER MATCH SKIP TO LAST PRICE_UP
           PATTERN (START_ROW PRICE_DOWN+ PRICE_UP)
           DEFINE
             PRICE_DOWN AS
               (LAST(PRICE_DOWN.price, 1) IS NULL AND PRICE_DOWN.price < START_ROW.price) OR
               PRICE_DOWN.price < LAST(PRICE_DOWN.price, 1),
             PRICE_UP AS
               PRICE_UP.price > LAST(PRICE_DOWN.price, 1)
         ) MR",
        );
    check(&case, &[&["\"ACME\"", "2018-04-01T10:00:04", "2018-04-01T10:00:07", "2018-04-01T10:00:08"]]);
}

#[test]
fn the_longest_period_with_a_low_average() {
    let case = ticker(&[
        ("ACME", 1, 12, 1),
        ("ACME", 2, 17, 2),
        ("ACME", 3, 13, 1),
        ("ACME", 4, 16, 3),
        ("ACME", 5, 25, 2),
        ("ACME", 6, 2, 1),
        ("ACME", 7, 4, 1),
        ("ACME", 8, 10, 2),
        ("ACME", 9, 15, 2),
        ("ACME", 10, 25, 2),
        ("ACME", 11, 25, 1),
        ("ACME", 12, 30, 1),
    ]);
    let case =
        case.columns("symbol STRING, start_tstamp TIMESTAMP(3), end_tstamp TIMESTAMP(3), avgPrice DOUBLE").query(
            "SELECT * FROM Ticker MATCH_RECOGNIZE (
           PARTITION BY symbol
           ORDER BY rowtime
           MEASURES
             FIRST(A.rowtime) AS start_tstamp,
             LAST(A.rowtime) AS end_tstamp,
             AVG(A.price) AS avgPrice
           ONE ROW PER MATCH
           AFTER MATCH SKIP PAST LAST ROW
           PATTERN (A+ B)
           DEFINE
             A AS AVG(A.price) < 15
         ) MR",
        );
    check(
        &case,
        &[
            &["\"ACME\"", "2018-04-01T10:00:01", "2018-04-01T10:00:04", "14.5"],
            &["\"ACME\"", "2018-04-01T10:00:06", "2018-04-01T10:00:11", "13.5"],
        ],
    );
}

#[test]
fn a_reluctant_quantifier_ends_as_soon_as_it_can() {
    let case = ticker(&[("XYZ", 1, 7, 1), ("XYZ", 2, 6, 2), ("XYZ", 3, 9, 1), ("XYZ", 4, 8, 3)]);
    let query = |quantifier: &str| {
        format!(
            "SELECT * FROM Ticker MATCH_RECOGNIZE (
               PARTITION BY symbol ORDER BY rowtime
               MEASURES C.price AS lastPrice, COUNT(B.*) AS n
               ONE ROW PER MATCH AFTER MATCH SKIP PAST LAST ROW
               PATTERN (A B{quantifier} C)
               DEFINE A AS A.price > 6, B AS B.price < 10, C AS C.price < 10)"
        )
    };
    let columns = "symbol STRING, lastPrice BIGINT, n BIGINT";
    check(&case.clone().columns(columns).query(&query("*")), &[&["\"XYZ\"", "8", "2"]]);
    check(&case.columns(columns).query(&query("*?")), &[&["\"XYZ\"", "6", "0"], &["\"XYZ\"", "8", "0"]]);
}

#[test]
fn where_the_search_goes_on() {
    let case = ticker(&[
        ("XYZ", 1, 7, 1),
        ("XYZ", 2, 9, 2),
        ("XYZ", 3, 10, 1),
        ("XYZ", 4, 5, 2),
        ("XYZ", 5, 17, 3),
        ("XYZ", 6, 14, 3),
    ]);
    let query = |skip: &str| {
        format!(
            "SELECT sumPrice, startTime, endTime FROM Ticker MATCH_RECOGNIZE (
               PARTITION BY symbol ORDER BY rowtime
               MEASURES SUM(A.price) AS sumPrice, FIRST(rowtime) AS startTime, LAST(rowtime) AS endTime
               ONE ROW PER MATCH AFTER MATCH SKIP {skip}
               PATTERN (A+ C) DEFINE A AS SUM(A.price) < 30)"
        )
    };
    let columns = "sumPrice BIGINT, startTime TIMESTAMP(3), endTime TIMESTAMP(3)";
    let at = |second: u32| format!("2018-04-01T10:00:{second:02}");
    let expected = |rows: &[(&str, u32, u32)]| -> Multiset {
        rows.iter().map(|(sum, from, to)| (vec![(*sum).to_owned(), at(*from), at(*to)], 1)).collect()
    };
    let run = |skip: &str, rows: &[(&str, u32, u32)]| {
        compare(&case.clone().columns(columns).query(&query(skip)), &expected(rows), 6);
    };
    run("PAST LAST ROW", &[("26", 1, 4), ("17", 5, 6)]);
    run("TO NEXT ROW", &[("26", 1, 4), ("24", 2, 5), ("15", 3, 5), ("22", 4, 6), ("17", 5, 6)]);
    run("TO LAST A", &[("26", 1, 4), ("15", 3, 5), ("22", 4, 6), ("17", 5, 6)]);
}

#[test]
fn matches_within_an_interval() {
    let case = ticker(&[
        ("ACME", 0, 20, 1),
        ("ACME", 17, 17, 2),
        ("ACME", 21, 13, 3),
        ("ACME", 30, 20, 4),
        ("ACME", 55, 11, 4),
    ]);
    let query = |within: &str| {
        format!(
            "SELECT dropTime, dropDiff FROM Ticker MATCH_RECOGNIZE (
               PARTITION BY symbol ORDER BY rowtime
               MEASURES C.rowtime AS dropTime, A.price - C.price AS dropDiff
               ONE ROW PER MATCH AFTER MATCH SKIP PAST LAST ROW
               PATTERN (A B* C) {within}
               DEFINE B AS B.price > A.price - 5, C AS C.price < A.price - 5)"
        )
    };
    let columns = "dropTime TIMESTAMP(3), dropDiff BIGINT";
    let case = case.columns(columns);
    check(&case.clone().query(&query("WITHIN INTERVAL '25' SECOND")), &[&["2018-04-01T10:00:21", "7"]]);
    // The time between the first row and the last is less than the interval.
    check(&case.clone().query(&query("WITHIN INTERVAL '21' SECOND")), &[]);
    check(&case.query(&query("")), &[&["2018-04-01T10:00:21", "7"], &["2018-04-01T10:00:55", "9"]]);
}

#[test]
fn the_time_of_a_match_is_a_time_attribute() {
    let rows: Vec<String> = (0..120).map(|i| format!("({}, {}, {})", i % 3, (i * 7) % 10, i * 250)).collect();
    let case = Case::new()
        .table("a", "k BIGINT, v BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '2' SECOND")
        .values(&rows.join(", "));
    let query = "SELECT window_end, count(*) FROM TABLE(TUMBLE((SELECT * FROM m), DESCRIPTOR(t), INTERVAL '5' SECOND)) GROUP BY window_start, window_end";
    let search = |pattern: &str| {
        format!(
            "SELECT t FROM a MATCH_RECOGNIZE (PARTITION BY k ORDER BY ts MEASURES MATCH_ROWTIME() AS t
             PATTERN {pattern} DEFINE U AS U.v > PREV(U.v), D AS D.v < PREV(D.v))"
        )
    };
    for pattern in ["(U D)", "(U+ D) WITHIN INTERVAL '4' SECOND"] {
        let case =
            case.clone().view_as("m", &search(pattern), "SELECT ts AS t FROM a").columns("e TIMESTAMP(3), n BIGINT");
        let case = case.query(query);
        let whole = case.clone().max_epochs(1).min_epochs(1).stream_result(0).unwrap().1;
        assert!(whole.len() > 3, "{whole:?}");
        compare(&case, &whole, 8);
    }
}

/// Random searches over a table of few values.
fn random(seed: u64) -> (Case, Multiset) {
    let mut draws = Draws::new(seed ^ 0x70a7);
    let query = Query::draw(&mut draws);
    let rows = Row::draw(&mut draws);
    let values: Vec<String> = rows
        .iter()
        .map(|r| {
            let number = |n: Option<i64>| n.map_or("CAST(NULL AS BIGINT)".to_owned(), |n| n.to_string());
            format!("({}, {}, {}, {})", r.id, number(r.k), number(r.v), r.ts)
        })
        .collect();
    let case = Case::new()
        .table("a", "id BIGINT, k BIGINT, v BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '2' SECOND")
        .values(&values.join(", "))
        .columns("k BIGINT, f BIGINT, l BIGINT, n BIGINT, na BIGINT, sb BIGINT, la BIGINT, p BIGINT")
        .query(&query.sql());
    let mut expected = Multiset::new();
    for row in query.matches(&rows) {
        *expected.entry(row).or_default() += 1;
    }
    (case, expected)
}

#[test]
fn random_patterns_match_as_one_that_tries_everything() {
    let number = |name: &str| std::env::var(name).ok().map(|v| v.parse::<u64>().expect("a number"));
    let seeds = match number("STREAMS_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("STREAMS_SEEDS").unwrap_or(120),
    };
    let mut found = 0;
    for seed in seeds {
        let (case, expected) = random(seed);
        found += expected.len();
        for run in 0..2 {
            let (schema, rows) = case.stream_result(seed * 2 + run).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            if let Some(what) = difference(&schema, &expected, &rows) {
                panic!("seed {seed}: {what}\n{}", case.explained());
            }
        }
    }
    assert!(found > 0);
}

#[test]
fn ten_thousand_rows_in_one_partition() {
    let case = Case::new()
        .table("a", "id BIGINT, v BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '2' SECOND")
        .generated(10_000, "i, i % 100, 1577836800000 + (i / 3) * 100")
        .columns("f BIGINT, l BIGINT, n BIGINT, s BIGINT");
    // A rise of 100 rows each; the last row of one is the first of no other.
    let rises = case.clone().query(
        "SELECT * FROM a MATCH_RECOGNIZE (ORDER BY ts, id MEASURES FIRST(id) AS f, LAST(id) AS l, COUNT(*) AS n, SUM(v) AS s
         PATTERN (A B+) DEFINE B AS B.v > LAST(v, 1) AND SUM(v) < 100000)",
    );
    let expected =
        (0..100).map(|i| vec![(i * 100).to_string(), (i * 100 + 99).to_string(), "100".to_owned(), "4950".to_owned()]);
    compare(&rises, &expected.map(|row| (row, 1)).collect(), 2);
    // One match of all rows, and none of any.
    let all = case.clone().query(
        "SELECT * FROM a MATCH_RECOGNIZE (ORDER BY ts, id MEASURES FIRST(id) AS f, LAST(id) AS l, COUNT(*) AS n, SUM(v) AS s PATTERN (A+) DEFINE A AS A.v >= 0)",
    );
    let row = ["0", "9999", "10000", "495000"].map(str::to_owned).to_vec();
    compare(&all, &Multiset::from([(row, 1)]), 2);
    let none = case.query(
        "SELECT * FROM a MATCH_RECOGNIZE (ORDER BY ts, id MEASURES FIRST(id) AS f, LAST(id) AS l, COUNT(*) AS n, SUM(v) AS s
         PATTERN (A+ B) WITHIN INTERVAL '1' SECOND DEFINE A AS A.v >= 0, B AS B.v > 1000)",
    );
    compare(&none, &Multiset::new(), 2);
}

#[test]
fn what_is_refused_says_why() {
    let case = Case::new().table(
        "a",
        "k BIGINT, v BIGINT, ts TIMESTAMP(3), t2 TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '2' SECOND",
    );
    let refused = |case: &Case, clauses: &str| {
        let query = format!("SELECT * FROM a MATCH_RECOGNIZE ({clauses})");
        case.clone().columns("k BIGINT").query(&query).refused().map(|e| e.to_string()).unwrap_or_default()
    };
    let updating = refused(&case.clone().updating(), "ORDER BY ts MEASURES LAST(k) AS k PATTERN (A) DEFINE A AS TRUE");
    assert!(updating.contains("takes only appended rows"), "{updating}");
    for (clauses, why) in [
        ("ORDER BY t2 MEASURES LAST(k) AS k PATTERN (A) DEFINE A AS TRUE", "is not a time attribute"),
        ("MEASURES LAST(k) AS k PATTERN (A) DEFINE A AS TRUE", "needs an order"),
        ("ORDER BY ts DESC MEASURES LAST(k) AS k PATTERN (A) DEFINE A AS TRUE", "ascending"),
        ("ORDER BY ts MEASURES LAST(k) AS k PATTERN (A*) DEFINE A AS TRUE", "matches without any row"),
        ("ORDER BY ts MEASURES LAST(k) AS k PATTERN (A (B*)+) DEFINE A AS TRUE", "repeats what may be empty"),
        ("ORDER BY ts MEASURES LAST(k) AS k PATTERN (A{3,2}) DEFINE A AS TRUE", "repeats nothing"),
        ("ORDER BY ts MEASURES LAST(k) AS k PATTERN ((A{100}){100}) DEFINE A AS TRUE", "places"),
        ("ORDER BY ts MEASURES LAST(k) AS k PATTERN (A B) DEFINE C AS TRUE", "not a variable of the pattern"),
        ("ORDER BY ts MEASURES LAST(k) AS k ALL ROWS PER MATCH PATTERN (A) DEFINE A AS TRUE", "ALL ROWS PER MATCH"),
        ("ORDER BY ts MEASURES LAST(k) AS k PATTERN (A) DEFINE A AS NEXT(A.v) > 1", "NEXT looks at rows"),
        ("ORDER BY ts MEASURES CLASSIFIER() AS k PATTERN (A) DEFINE A AS TRUE", "CLASSIFIER() is not supported"),
        ("ORDER BY ts MEASURES LAST(A.v + B.v) AS k PATTERN (A B) DEFINE A AS TRUE", "several variables"),
        ("ORDER BY ts MEASURES LAST(k) AS k PATTERN (A) DEFINE A AS A.v", "not true or false"),
        ("ORDER BY ts MEASURES LAST(k) AS k PATTERN (A) DEFINE A AS A.ts < now()", "the time at which"),
        ("ORDER BY ts MEASURES LAST(k) AS k PATTERN (A) DEFINE A AS A.w > 1", "there is no column 'w'"),
    ] {
        let error = refused(&case, clauses);
        assert!(error.contains(why), "{clauses}\n{error}");
    }
}
