//! Random queries over random rows: nulls, NaN, −0.0, decimals, empty texts; tables that only grow and one that loses rows.
//!
//! 200 queries, or `STREAMS_RANDOM` of them from seed `STREAMS_RANDOM_FROM` on. `STREAMS_FEATURES=joins,sets` (or `all`) adds what the engine
//! does not have yet. A failing query is shrunk, in itself and in its rows, as long as it fails in the same way.
mod generate;
mod query;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use self::generate::{Features, Generator};
use self::query::Query;
use crate::draws::Draws;
use crate::harness::Case;

/// What works today.
const TODAY: Features = Features {
    unions: true,
    windows: true,
    updating: true,
    joins: false,
    aggregates: false,
    top_n: false,
    sets: false,
    subqueries: false,
};

const QUERIES: u64 = 200;
const ROWS: usize = 120;
/// Simpler queries that are tried.
const SHRINKS: usize = 300;

#[derive(Debug, PartialEq, Eq)]
enum Failure {
    Refused,
    Rows,
    Restore,
    Error,
    Panic,
}

fn case(query: &Query, seed: u64, rows: usize) -> Case {
    let (sql, names) = query.sql();
    let from = seed * 1_000_003;
    let draw = |n: u64| format!("rnd(i * 16 + {n} + {from})");
    let [k, v, s, d, t] = [0, 1, 2, 3, 4].map(draw);
    let k = format!("CASE WHEN {k} % 9 = 0 THEN NULL ELSE {k} % 6 - 1 END");
    let v = format!(
        "CASE {v} % 12 WHEN 0 THEN NULL WHEN 1 THEN 'NaN'::double WHEN 2 THEN -0.0 WHEN 3 THEN 0.0 ELSE CAST({v} % 64 AS DOUBLE) / 8 END"
    );
    let s = format!(
        "CASE {s} % 7 WHEN 0 THEN NULL WHEN 1 THEN '' WHEN 2 THEN 'a' WHEN 3 THEN 'ab' WHEN 4 THEN 'B' ELSE 'ä' END"
    );
    let d = format!("CASE WHEN {d} % 8 = 0 THEN NULL ELSE ({d} % 500) / 4.0 - 20 END");
    let ts = format!("CASE WHEN {t} % 40 = 0 THEN NULL ELSE 1577836800000 + i * 151 END");
    let case = Case::new()
        .table("a", "k BIGINT, v DOUBLE, s STRING, d DECIMAL(10, 2), ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '2' SECOND")
        .generated(rows, &format!("{k}, {v}, {s}, {d}, {ts}"))
        .table("b", "k BIGINT, s STRING, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '1' SECOND")
        .generated(rows / 2, &format!("{k}, {s}, {ts}"))
        .table("u", "id BIGINT, k BIGINT, v DOUBLE, s STRING")
        .generated(rows / 2, &format!("i / 3, {k}, {v}, {s}"));
    let case = match seed % 3 {
        0 => case.updating(),
        1 => case.keyed(&["id"]),
        _ => case.upserts(&["id"]),
    };
    let case = match query.closes {
        Some(closes) => case.closes_by(&names[closes]),
        None => case,
    };
    case.query(&sql)
}

fn attempt(query: &Query, seed: u64, rows: usize) -> Result<(), (Failure, String)> {
    let tried = catch_unwind(AssertUnwindSafe(|| {
        let case = case(query, seed, rows);
        match case.refused() {
            Some(error) => Err((Failure::Refused, format!("{error}\n{}", query.sql().0))),
            None => case.try_seed(seed).map_err(|text| match &text {
                t if t.contains("rows expected") => (Failure::Rows, text),
                t if t.contains("after a restore") => (Failure::Restore, text),
                _ => (Failure::Error, text),
            }),
        }
    }));
    tried.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "a panic".to_owned());
        Err((Failure::Panic, format!("{text}\n{}", query.sql().0)))
    })
}

/// The simplest query and number of rows that fail like these, and how.
fn shrink(mut query: Query, seed: u64, failure: &Failure, mut text: String) -> (Query, usize, String) {
    let mut rows = ROWS;
    let mut tries = 0;
    let mut fails = |query: &Query, rows: usize| {
        tries += 1;
        match attempt(query, seed, rows) {
            Err((same, text)) if same == *failure && tries < SHRINKS => Some(text),
            _ => None,
        }
    };
    while let Some((simpler, why)) = query.simpler().into_iter().find_map(|q| fails(&q, rows).map(|why| (q, why))) {
        (query, text) = (simpler, why);
    }
    while let Some(why) = Some(rows / 2).filter(|r| *r > 0).and_then(|r| fails(&query, r)) {
        (rows, text) = (rows / 2, why);
    }
    (query, rows, text)
}

fn features() -> Features {
    let given = std::env::var("STREAMS_FEATURES").unwrap_or_default();
    let has = |name: &str| given.split(',').any(|f| f == name || f == "all");
    Features {
        joins: TODAY.joins || has("joins"),
        aggregates: TODAY.aggregates || has("aggregates"),
        top_n: TODAY.top_n || has("top_n"),
        sets: TODAY.sets || has("sets"),
        subqueries: TODAY.subqueries || has("subqueries"),
        ..TODAY
    }
}

fn generated(seed: u64, features: Features) -> Query {
    let mut generator = Generator { draws: Draws::new(seed.wrapping_mul(0x9e37_79b9)), features };
    let depth = 1 + generator.draws.below(4);
    generator.query(depth)
}

#[test]
fn random_queries() {
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |v| v.parse().expect("a number"));
    let first = number("STREAMS_RANDOM_FROM", 0);
    let end = first + number("STREAMS_RANDOM", QUERIES);
    let next = AtomicU64::new(first);
    let failed = std::sync::Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some(seed) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|s| *s < end) {
                    let query = generated(seed, features());
                    if let Err((failure, text)) = attempt(&query, seed, ROWS) {
                        next.store(end, Ordering::Relaxed);
                        let shrunk = shrink(query.clone(), seed, &failure, text);
                        *failed.lock().unwrap() = Some((seed, failure, query, shrunk));
                    }
                }
            });
        }
    });
    if let Some((seed, failure, query, (simplest, rows, text))) = failed.into_inner().unwrap() {
        panic!(
            "seed {seed}: {failure:?}\n{}\nshrunk, with {rows} rows in table a:\n{}\n\n{text}\n\nreplay: STREAMS_RANDOM_FROM={seed} STREAMS_RANDOM=1 cargo test --release -p millstream-sql --test streams -- --exact random::random_queries",
            query.sql().0,
            simplest.sql().0,
        );
    }
}

/// Also what is not switched on yet is SQL that the batch can answer.
#[test]
fn every_text_is_valid() {
    let all = Features { joins: true, aggregates: true, top_n: true, sets: true, subqueries: true, ..TODAY };
    for seed in 0..100 {
        case(&generated(seed, all), seed, 20).batch_result();
    }
}
