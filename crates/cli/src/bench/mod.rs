//! `bench`: events per second, CPU and memory of Nexmark queries.
//!
//! Every query runs in a process of its own, so that its CPU time and its peak of memory are nobody else's. The process measures
//! itself and prints one JSON object, which this one shows.
mod measure;
mod queries;
pub mod topic;
mod usage;

use std::process::{Command, Stdio};

use clap::builder::PossibleValuesParser;
use serde_json::Value;

use self::queries::Source;
use crate::args::{Bench, BenchNexmarkArgs, BenchSource, Output};
use crate::failure::Failure;
use crate::inspect::print;
use crate::run::show::thousands;

/// Events of a run from memory if nobody says how many.
const FROM_MEMORY: u64 = 10_000_000;

/// Names of the queries, for the command line.
pub fn query_names() -> PossibleValuesParser {
    PossibleValuesParser::new(queries::names())
}

/// Runs the command.
///
/// # Errors
/// A query cannot be started or failed.
pub fn bench(what: &Bench) -> Result<(), Failure> {
    let Bench::Nexmark(args) = what;
    let source = source(args)?;
    if args.in_process {
        let Some(query) = args.queries.first() else { return Ok(()) };
        return print(&format!("{}\n", measure::measure(query, &source, &args.settings)?));
    }
    if args.output == Output::Text {
        let names = [
            "query",
            "events",
            "seconds",
            "events/s",
            "CPU-s/M",
            "peak MiB",
            "rows out",
            "state MiB",
            "bytes/key",
            "ckpt MiB",
        ];
        print(&format!("{}\n", row(names)))?;
    }
    let all: Vec<String> = queries::names().filter(|name| *name != queries::PART).map(str::to_owned).collect();
    for query in if args.queries.is_empty() { &all } else { &args.queries } {
        let result = in_own_process(query)?;
        match args.output {
            Output::Json => print(&format!("{result}\n"))?,
            Output::Text => print(&format!("{}\n", text(&result)))?,
        }
    }
    Ok(())
}

/// Where the events come from.
fn source(args: &BenchNexmarkArgs) -> Result<Source, Failure> {
    match (args.source, &args.bootstrap_servers, &args.topic) {
        (Some(BenchSource::Memory) | None, None, _) => {
            Ok(Source::Memory { events: args.events.unwrap_or(FROM_MEMORY) })
        }
        (Some(BenchSource::Memory), Some(_), _) => {
            Err(Failure::usage("--source memory reads no topic", "leave out --bootstrap-servers and --topic"))
        }
        (_, Some(servers), Some(topic)) => {
            let ends = topic::shares(&topic::ends(servers, topic)?, args.events)?;
            Ok(Source::Kafka { servers: servers.clone(), topic: topic.clone(), ends })
        }
        (_, _, None) | (_, None, _) => {
            Err(Failure::usage("--source kafka needs a topic", "add --bootstrap-servers HOST:PORT --topic NAME"))
        }
    }
}

/// This program again, with one query.
fn in_own_process(query: &str) -> Result<Value, Failure> {
    let failed = |e: &dyn std::fmt::Display| Failure::job(format!("query {query}: {e}"));
    let program = std::env::current_exe().map_err(|e| failed(&e))?;
    let mut arguments: Vec<String> = Vec::new();
    let mut given = std::env::args().skip(1);
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "-q" | "--query" => drop(given.next()),
            other if other.starts_with("--query=") || (other.starts_with("-q") && !other.starts_with("--")) => {}
            _ => arguments.push(argument),
        }
    }
    let output = Command::new(program)
        .args(arguments)
        .args(["--query", query, "--in-process"])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| failed(&e))?;
    if !output.status.success() {
        return Err(failed(&output.status));
    }
    // Nothing but the object is on standard output.
    serde_json::from_slice(&output.stdout).map_err(|e| failed(&e))
}

fn text(result: &Value) -> String {
    let of = |key: &str| result[key].as_f64().unwrap_or(0.0);
    let mib = |key: &str| of(key) / f64::from(1 << 20);
    let per_key = if of("state_keys") > 0.0 { of("state_bytes") / of("state_keys") } else { 0.0 };
    row([
        result["query"].as_str().unwrap_or("?"),
        &thousands(of("events") as u64),
        &format!("{:.2}", of("seconds")),
        &thousands(of("events_per_second") as u64),
        &format!("{:.3}", of("cpu_seconds_per_million_events")),
        &format!("{:.0}", mib("peak_rss_bytes")),
        &thousands(of("rows_out") as u64),
        &format!("{:.1}", mib("state_bytes")),
        &format!("{per_key:.0}"),
        &format!("{:.1}", mib("checkpoint_bytes")),
    ])
}

fn row(cells: [&str; 10]) -> String {
    let [query, events, seconds, rate, cpu, memory, out, state, per_key, checkpoint] = cells;
    format!(
        "{query:<6} {events:>12} {seconds:>9} {rate:>12} {cpu:>9} {memory:>9} {out:>12} {state:>9} {per_key:>9} {checkpoint:>9}"
    )
}
