//! Random queries over random rows: nulls, NaN, −0.0, decimals, empty texts; tables that only grow and one that loses rows.
//!
//! 2,000 queries, or `STREAMS_RANDOM` of them from seed `STREAMS_RANDOM_FROM` on; before a release
//! `STREAMS_RANDOM=20000 cargo test --release -p millstream-sql --test streams -- --exact random::random_queries`. A query that the planner refuses
//! counts, if it says properly why; most must run. Of those that fail the simplest is shrunk, in itself and in its input, as long as it
//! fails in the same way.
//!
//! | module | |
//! |---|---|
//! | [`query`] | queries as trees, and their text |
//! | [`expr`] | expressions, conditions, aggregates |
//! | [`known`] | what the planner knows of a query's columns and rows |
//! | [`generate`] | draws a query |
//! | [`shrink`] | simpler queries |
mod expr;
mod generate;
mod known;
mod query;
mod shrink;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex};

use millstream_sql::SqlError;

use self::query::{Asked, Query};
use self::shrink::{simpler, weight};
use crate::draws::Draws;
use crate::harness::{Case, Outcome};

const QUERIES: u64 = 2_000;
/// Of every 100, at least so many must run.
const MUST_RUN: u64 = 80;
/// Of every 100, at most so many may be beyond the batch.
const MAY_NOT_BE_JUDGED: u64 = 3;
/// Sets of tables.
const TABLES: u64 = 9;
/// By table: a, b, u.
const ROWS: [usize; 3] = [40, 20, 24];
const EPOCHS: usize = 5;
/// Simpler cases that are tried.
const SHRINKS: usize = 600;

/// How a case fails.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Failure {
    /// Refused with a message that does not help.
    Refused,
    Rows,
    Restore,
    Error,
    Panic,
}

/// A case but for its query.
#[derive(Clone, Debug)]
struct Setting {
    /// Which tables.
    tables: u64,
    /// Of the rows' order, epochs, watermarks, restores, tasks.
    seed: u64,
    rows: [usize; 3],
    epochs: usize,
}

/// By message: how often, and the first seed.
type Histogram = BTreeMap<String, (u64, u64)>;

#[derive(Default)]
struct Results {
    ran: u64,
    refused: Histogram,
    not_judged: Histogram,
    failed: Vec<(u64, Failure, String)>,
}

static CASES: LazyLock<Vec<Case>> = LazyLock::new(|| (0..TABLES).map(tables).collect());

fn tables(number: u64) -> Case {
    let from = number * 1_000_003;
    let draw = |n: u64| format!("rnd(i * 16 + {n} + {from})");
    let [k, v, s, d, t, b, e] = [0, 1, 2, 3, 4, 5, 6].map(draw);
    let k = format!("CASE WHEN {k} % 9 = 0 THEN NULL ELSE {k} % 6 - 1 END");
    let v = format!(
        "CASE {v} % 12 WHEN 0 THEN NULL WHEN 1 THEN 'NaN'::double WHEN 2 THEN -0.0 WHEN 3 THEN 0.0 ELSE CAST({v} % 64 AS DOUBLE) / 8 END"
    );
    let s = format!(
        "CASE {s} % 7 WHEN 0 THEN NULL WHEN 1 THEN '' WHEN 2 THEN 'a' WHEN 3 THEN 'ab' WHEN 4 THEN 'B' ELSE 'ä' END"
    );
    let d = format!("CASE WHEN {d} % 8 = 0 THEN NULL ELSE ({d} % 500) / 4.0 - 20 END");
    let b = format!("CASE {b} % 5 WHEN 0 THEN NULL WHEN 1 THEN false WHEN 2 THEN false ELSE true END");
    let e = format!("CASE WHEN {e} % 7 = 0 THEN NULL ELSE CAST(18262 + {e} % 3 AS INT) END");
    let ts = |step: u32| format!("CASE WHEN {t} % 40 = 0 THEN NULL ELSE 1577836800000 + i * {step} END");
    let [a_rows, b_rows, u_rows] = ROWS;
    let case = Case::new()
        .table("a", "k BIGINT, v DOUBLE, s STRING, d DECIMAL(10, 2), b BOOLEAN, e DATE, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '2' SECOND")
        .generated(a_rows, &format!("{k}, {v}, {s}, {d}, {b}, {e}, {}", ts(200)))
        .table("b", "k BIGINT, s STRING, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '1' SECOND")
        .generated(b_rows, &format!("{k}, {s}, {}", ts(400)))
        .table("u", "id BIGINT, k BIGINT, v DOUBLE, s STRING, b BOOLEAN, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '2' SECOND")
        .generated(u_rows, &format!("i / 3, {k}, {v}, {s}, {b}, {}", ts(350)));
    match number % 3 {
        0 => case.updating(),
        1 => case.keyed(&["id"]),
        _ => case.upserts(&["id"]),
    }
}

impl Setting {
    fn new(seed: u64) -> Self {
        Self { tables: seed % TABLES, seed: seed / TABLES, rows: ROWS, epochs: EPOCHS }
    }

    fn case(&self, query: &Query) -> Case {
        let case = CASES[self.tables as usize].clone();
        let case = ["a", "b", "u"].iter().zip(self.rows).fold(case, |case, (table, rows)| case.first_rows(table, rows));
        let case = if query.late { case.at_the_end() } else { case.settles() };
        let case = case.min_epochs(self.epochs.min(2)).max_epochs(self.epochs);
        case.query(&query.sql(Asked::Stream)).batch(&query.sql(Asked::Batch))
    }

    /// Smaller ones.
    fn smaller(&self) -> Vec<Self> {
        let mut all = Vec::new();
        if self.epochs > 1 {
            let fewer = (1..self.epochs).flat_map(|epochs| (0..4).map(move |i| (epochs, i)));
            all.extend(fewer.map(|(epochs, i)| Self { epochs, seed: self.seed + i * 2, ..self.clone() }));
        }
        for table in 0..self.rows.len() {
            let rows = self.rows[table];
            for fewer in [0, rows / 2, rows.saturating_sub(1)] {
                let mut smaller = self.clone();
                smaller.rows[table] = fewer;
                all.extend((fewer < rows).then_some(smaller));
            }
        }
        all
    }
}

/// Why a refusal is not what a user should see.
fn improper(error: &SqlError) -> Option<&'static str> {
    let inner = ["bug", "DataFusion", "LogicalPlan", "nternal", "physical", "not implemented", "optimizer", "__"];
    match error {
        e if e.line == 0 => Some("it has no place"),
        e if e.hint.is_none() => Some("it has no hint"),
        e if inner.iter().any(|word| e.message.contains(word)) => Some("it talks of the planner"),
        _ => None,
    }
}

fn attempt(query: &Query, setting: &Setting) -> Result<Outcome, (Failure, String)> {
    let tried = catch_unwind(AssertUnwindSafe(|| setting.case(query).outcome(setting.seed)));
    match tried {
        Ok(Outcome::Refused(error)) => match improper(&error) {
            None => Ok(Outcome::Refused(error)),
            Some(why) => Err((Failure::Refused, format!("{why}:\n{error}\n{}", query.sql(Asked::Stream)))),
        },
        Ok(Outcome::Failed(text)) if text.contains("rows expected") => Err((Failure::Rows, text)),
        Ok(Outcome::Failed(text)) if text.contains("after a restore") => Err((Failure::Restore, text)),
        Ok(Outcome::Failed(text)) => Err((Failure::Error, text)),
        Ok(outcome) => Ok(outcome),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "a panic".to_owned());
            Err((Failure::Panic, format!("{text}\n{}", query.sql(Asked::Stream))))
        }
    }
}

/// The simplest case that fails like this one, and how.
fn shrink(mut query: Query, mut setting: Setting, failure: &Failure, mut text: String) -> (Query, Setting, String) {
    let mut tries = 0;
    let mut fails = |query: &Query, setting: &Setting| {
        tries += 1;
        match attempt(query, setting) {
            Err((same, text)) if same == *failure && tries < SHRINKS => Some(text),
            _ => None,
        }
    };
    loop {
        let found = simpler(&query).into_iter().find_map(|q| fails(&q, &setting).map(|why| (q, why)));
        if let Some((simpler, why)) = found {
            (query, text) = (simpler, why);
            continue;
        }
        let found = setting.smaller().into_iter().find_map(|s| fails(&query, &s).map(|why| (s, why)));
        match found {
            Some((smaller, why)) => (setting, text) = (smaller, why),
            None => return (query, setting, text),
        }
    }
}

fn generated(seed: u64) -> Query {
    let mut draws = Draws::new(seed.wrapping_mul(0x9e37_79b9));
    let depth = 1 + draws.below(4);
    generate::query(&mut draws, depth)
}

/// Messages that differ in names and numbers only are one.
fn class(message: &str) -> String {
    let words = message.split_inclusive([' ', '(', ')', ',', '\'', '"', '.']).map(|word| {
        let named = word.starts_with('q') && word.chars().any(|c| c.is_ascii_digit());
        if named { "…".to_owned() } else { word.chars().filter(|c| !c.is_ascii_digit()).collect() }
    });
    let text: String = words.collect();
    text.replace('\n', " ").chars().take(200).collect()
}

fn add(histogram: &mut Histogram, message: &str, seed: u64) {
    let (count, first) = histogram.entry(class(message)).or_insert((0, seed));
    (*count, *first) = (*count + 1, seed.min(*first));
}

fn listed(histogram: &Histogram) -> String {
    let mut counts: Vec<_> = histogram.iter().collect();
    counts.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
    counts.iter().fold(String::new(), |mut text, (message, (count, seed))| {
        let _ = writeln!(text, "  {count:>5}  {message}  (seed {seed})");
        text
    })
}

#[test]
fn random_queries() {
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |v| v.parse().expect("a number"));
    let (first, count) = (number("STREAMS_RANDOM_FROM", 0), number("STREAMS_RANDOM", QUERIES));
    let next = AtomicU64::new(first);
    let results = Mutex::new(Results::default());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some(seed) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|s| *s < first + count) {
                    let outcome = attempt(&generated(seed), &Setting::new(seed));
                    let mut results = results.lock().unwrap();
                    match outcome {
                        Ok(Outcome::Refused(error)) => add(&mut results.refused, &error.message, seed),
                        Ok(Outcome::NotJudged(why)) => add(&mut results.not_judged, &why, seed),
                        Ok(_) => results.ran += 1,
                        Err((failure, text)) => results.failed.push((seed, failure, text)),
                    }
                }
            });
        }
    });
    let Results { ran, refused, not_judged, failed } = results.into_inner().unwrap();
    let beyond = not_judged.values().map(|(count, _)| count).sum::<u64>();
    println!("{count} queries, {ran} ran\nrefused:\n{}not judged:\n{}", listed(&refused), listed(&not_judged));
    if let Some((seed, failure, text)) = failed.iter().min_by_key(|(seed, ..)| weight(&generated(*seed))) {
        let others: Vec<String> = failed.iter().map(|(seed, failure, _)| format!("{seed} {failure:?}")).collect();
        let (query, setting, text) = shrink(generated(*seed), Setting::new(*seed), failure, text.clone());
        panic!(
            "{} of {count} fail: {}\nseed {seed}: {failure:?}\n{}\n\nshrunk to {setting:?}:\n{}\n\n{text}\n\nreplay: STREAMS_RANDOM_FROM={seed} STREAMS_RANDOM=1 cargo test --release -p millstream-sql --test streams -- --exact random::random_queries",
            failed.len(),
            others.join(", "),
            generated(*seed).sql(Asked::Stream),
            query.sql(Asked::Stream),
        );
    }
    if count >= 100 {
        assert!(ran * 100 >= count * MUST_RUN, "only {ran} of {count} queries ran; refused:\n{}", listed(&refused));
        let few = beyond * 100 <= count * MAY_NOT_BE_JUDGED;
        assert!(few, "the batch cannot answer {beyond} of {count}:\n{}", listed(&not_judged));
    }
}
