//! Streams against batches: a query runs over several epochs in real tasks, and after every epoch what its sink holds is compared with
//! batch DataFusion over the rows fed so far.
//!
//! | module | |
//! |---|---|
//! | [`harness`] | [`harness::Case`]: tables, a query, the batch query that it must equal; tries many ways to cut the input |
//! | [`trial`] | one way to run a case, and what its sink must hold |
//! | [`feed`] | rows in an order within the watermark's tolerance, epoch boundaries, watermarks, deletions |
//! | [`run`] | the graph in tasks: shuffles in (edge, sender, sequence) order, sealed and restored state |
//! | [`batch`] | the judge, with window table functions expanded by their definition |
//! | [`difference`] | two multisets of rows |
//! | [`nexmark`], [`duckdb`] | the queries of Nexmark, against DataFusion and against DuckDB |
//! | [`associative`] | splitting an epoch in two leaves the same state |
//! | [`patterns`] | `MATCH_RECOGNIZE` against a matcher that tries everything |
//! | [`random`] | random queries over random rows |
//! | [`found`] | what they found, reduced |
//! | [`draws`] | seeded random numbers |
//!
//! A failure prints the rows that differ, the seed and the command that replays it. `STREAMS_SEEDS=100` tries more seeds per case,
//! `STREAMS_SEED=17` that one alone.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
mod batch;
mod difference;
mod draws;
mod feed;
mod harness;
mod run;
mod trial;

mod associative;
mod changelog;
mod duckdb;
mod found;
mod groups;
mod joins;
mod linear;
mod lookup;
mod nexmark;
mod patterns;
mod random;
mod rank;
mod sets;
mod unnest;
mod windows;
