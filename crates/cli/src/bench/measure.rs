//! One query in this process.
use std::time::{Duration, Instant};

use millstream_driver::{Driver, Progress, Status};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::queries::{self, Source};
use super::topic::quoted;
use super::usage;
use crate::args::SettingArgs;
use crate::config::Job;
use crate::failure::Failure;
use crate::logging;
use crate::run::Places;
use crate::run::engine::{self, Engine, Observer};

/// Takes the time, and the most state that there was after any epoch.
#[derive(Default)]
struct Stopwatch {
    /// When the first epoch with input was dispatched.
    first: Option<Instant>,
    state_keys: u64,
    state_bytes: u64,
    checkpoint_bytes: u64,
}

impl Observer for Stopwatch {
    fn started(&mut self, _driver: &Driver) {}

    fn epoch(&mut self, progress: &Progress) {
        if progress.num_input_rows > 0 && self.first.is_none() {
            let now = Instant::now();
            self.first = now.checked_sub(Duration::from_millis(progress.batch_duration)).or(Some(now));
        }
        let sum = |key: &str| progress.state_operators.iter().filter_map(|o| o[key].as_u64()).sum::<u64>();
        self.state_keys = self.state_keys.max(sum("numRowsTotal"));
        self.state_bytes = self.state_bytes.max(sum("memoryUsedBytes"));
    }

    fn second(&mut self, status: &Status) {
        self.checkpoint_bytes = status.largest_checkpoint();
    }
}

/// Runs a query to its end.
pub(super) fn measure(query: &str, source: &Source, settings: &SettingArgs) -> Result<Value, Failure> {
    logging::start();
    end_with_parent();
    let sql = queries::text(query, source).ok_or_else(|| Failure::job(format!("there is no query '{query}'")))?;
    let places = Places::prepare(None)?;
    let sql = with_side_table(sql, &places)?;
    let job = Job::new(sql, Some(query), settings, std::env::vars())?;
    let engine = Engine { job, http: None, executors: None, state_dir: places.state_dir().to_owned() };
    let mut stopwatch = Stopwatch::default();
    let runtime = engine::runtime()?;
    let (_never, stop) = watch::channel(false);
    let ended = runtime.block_on(engine.run(stop, &mut stopwatch))?;
    let seconds = stopwatch.first.map_or(0.0, |first| first.elapsed().as_secs_f64());
    let cpu = usage::cpu().as_secs_f64();
    let events = ended.rows_in;
    let per = |amount: f64, of: f64| if of > 0.0 { amount / of } else { 0.0 };
    Ok(json!({
        "query": query,
        "source": match source { Source::Memory { .. } => "memory", Source::Kafka { .. } => "kafka" },
        "events": events,
        "seconds": rounded(seconds),
        "events_per_second": per(events as f64, seconds).round() as u64,
        "cpu_seconds_per_million_events": rounded(per(cpu * 1e6, events as f64)),
        "peak_rss_bytes": usage::peak_rss(),
        "rows_out": ended.rows_out,
        "state_keys": stopwatch.state_keys,
        "state_bytes": stopwatch.state_bytes,
        "checkpoint_bytes": stopwatch.checkpoint_bytes,
    }))
}

/// The side table of q13 is written where this run may write, so that it can be started anywhere.
fn with_side_table(sql: String, places: &Places) -> Result<String, Failure> {
    if !sql.contains(queries::SIDE_PATH) {
        return Ok(sql);
    }
    let folder = places.state_dir().join("side_input");
    let written =
        std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(folder.join("part-0.csv"), queries::SIDE_ROWS));
    written.map_err(|e| Failure::job(format!("cannot write '{}': {e}", folder.display())))?;
    Ok(sql.replace(queries::SIDE_PATH, &format!("'path' = {}", quoted(&folder.display().to_string()))))
}

fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

/// Should the program that waits for this one be killed, this one ends too.
fn end_with_parent() {
    // SAFETY: prctl takes numbers here and touches no memory of ours.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } != 0 {
        tracing::debug!("this process may outlive the one that started it");
    }
}
