//! What people are told: one record per epoch with the keys of Spark's `StreamingQueryProgress`, metrics, the current state.
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::{counter, gauge, histogram};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use millstream_plan::{Epoch, SinkId, SourceId, SplitId, TaskId, Watermark};
use millstream_sql::Pipeline;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tracing::{debug, info, warn};

use crate::chain::History;
use crate::coordinator::{Coordinator, EpochReport, Report, State};

/// Progress records that are kept for the API.
const RECENT: usize = 100;

/// Buckets of all histograms, which are durations in seconds.
const SECONDS: [f64; 15] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// One epoch, with the keys of Spark's `StreamingQueryProgress` and a few of our own.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Name of the pipeline.
    pub name: String,
    /// Generation and attempt.
    pub run_id: String,
    /// When the epoch was dispatched.
    pub timestamp: String,
    /// The epoch.
    pub batch_id: u64,
    /// Milliseconds from dispatch to the end of processing.
    pub batch_duration: u64,
    pub num_input_rows: u64,
    pub input_rows_per_second: f64,
    pub processed_rows_per_second: f64,
    pub duration_ms: BTreeMap<&'static str, u64>,
    pub event_time: BTreeMap<&'static str, String>,
    pub state_operators: Vec<Value>,
    pub sources: Vec<Value>,
    pub sink: Value,
    /// Rows that took part in no result: late, and not decodable.
    pub late_rows: u64,
    pub bad_rows: u64,
    /// Records that can be read and are not planned.
    pub backlog_rows: u64,
    /// The epoch had been planned before; its output may be published already.
    pub replayed: bool,
    /// Rows published by all sinks since the start.
    pub rows_published: u64,
}

/// What is known of a pipeline right now.
pub struct Status {
    name: String,
    tables: Vec<String>,
    prometheus: Option<PrometheusHandle>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    doing: &'static str,
    recent: VecDeque<Arc<Progress>>,
    checkpoints: VecDeque<Value>,
    largest_checkpoint: u64,
    rows_published: u64,
    epoch_published: u64,
    restarts: u64,
    input_rows: u64,
    busy_micros: u64,
    last_dispatch: Option<i64>,
}

impl Status {
    pub(super) fn new(name: String, pipeline: &Pipeline) -> Self {
        // A second driver in one process shares the first one's recorder and has no page of its own.
        let buckets = PrometheusBuilder::new().set_buckets(&SECONDS);
        let prometheus = buckets.ok().and_then(|b| b.install_recorder().ok());
        gauge!("millstream_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        let tables = pipeline.sources.iter().map(|s| s.table.clone()).collect();
        Self { name, tables, prometheus, inner: Mutex::new(Inner { doing: "starting", ..Inner::default() }) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Name of the pipeline.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// One word for what the driver is doing.
    #[must_use]
    pub fn doing(&self) -> String {
        self.inner().doing.to_owned()
    }

    /// Rows that all sinks have published since the start.
    #[must_use]
    pub fn rows_published(&self) -> u64 {
        self.inner().rows_published
    }

    /// Records read since the start.
    #[must_use]
    pub fn input_rows(&self) -> u64 {
        self.inner().input_rows
    }

    /// Bytes of the largest checkpoint since the start: all that is needed to restore from it.
    #[must_use]
    pub fn largest_checkpoint(&self) -> u64 {
        self.inner().largest_checkpoint
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.inner().doing, "running" | "draining")
    }

    pub(super) fn is_leading(&self) -> bool {
        !matches!(self.inner().doing, "starting" | "claiming")
    }

    /// Takes the samples of histograms in, which would otherwise wait for the next look at the page.
    pub(super) fn upkeep(&self) {
        if let Some(prometheus) = &self.prometheus {
            prometheus.run_upkeep();
        }
    }

    pub(super) fn metrics(&self) -> String {
        self.prometheus.as_ref().map(PrometheusHandle::render).unwrap_or_default()
    }

    pub(super) fn recent(&self) -> Vec<Arc<Progress>> {
        self.inner().recent.iter().cloned().collect()
    }

    pub(super) fn sources(&self) -> Vec<Value> {
        self.inner().recent.back().map(|p| p.sources.clone()).unwrap_or_default()
    }

    pub(super) fn checkpoints(&self) -> Vec<Value> {
        self.inner().checkpoints.iter().cloned().collect()
    }
}

/// Turns the coordinator's reports into what people see.
pub(super) struct Teller {
    name: String,
    status: Arc<Status>,
    progress: broadcast::Sender<Arc<Progress>>,
    sink: String,
}

impl Teller {
    pub fn new(
        name: String,
        status: Arc<Status>,
        progress: broadcast::Sender<Arc<Progress>>,
        pipeline: &Pipeline,
    ) -> Self {
        let sinks: Vec<&str> = pipeline.sinks.iter().map(|s| s.table.as_str()).collect();
        Self { name, status, progress, sink: sinks.join(", ") }
    }

    /// What the coordinator is doing now.
    pub fn state(&self, coordinator: &Coordinator) {
        let doing = match coordinator.state() {
            State::Claiming => "claiming",
            State::Starting { .. } => "waiting for executors",
            State::BackingOff { .. } => "backing off",
            State::Deploying { .. } => "restoring",
            State::Running(_) => "running",
            State::Draining(_) => "draining",
            State::Done => "done",
        };
        self.status.inner().doing = doing;
        gauge!("millstream_executors_registered").set(coordinator.executors() as f64);
        gauge!("millstream_leader").set(f64::from(u8::from(doing != "claiming" && doing != "done")));
        gauge!("millstream_generation").set(coordinator.era().generation.0 as f64);
    }

    pub fn tell(&self, report: &Report, history: &History) {
        match report {
            Report::Leading { era, adopted } => info!(%era, %adopted, "this driver leads"),
            Report::Epoch(epoch) => self.epoch(epoch),
            Report::Published { epoch, after_ms, rows, bytes } => {
                debug!(%epoch, after_ms, rows, "published");
                counter!("millstream_sink_records_total").increment(*rows);
                counter!("millstream_sink_bytes_total").increment(*bytes);
                counter!("millstream_sink_commits_total").increment(1);
                histogram!("millstream_publish_latency_seconds").record(*after_ms as f64 / 1000.0);
                let mut inner = self.status.inner();
                inner.rows_published += rows;
                inner.epoch_published = epoch.0;
            }
            Report::Checkpoint { epoch, duration_ms, bytes } => {
                info!(%epoch, duration_ms, bytes, "checkpoint complete");
                counter!("millstream_checkpoints_completed_total").increment(1);
                gauge!("millstream_checkpoint_size_bytes").set(*bytes as f64);
                histogram!("millstream_checkpoint_duration_seconds").record(*duration_ms as f64 / 1000.0);
                gauge!("millstream_checkpoint_last_success_timestamp_seconds")
                    .set(super::sources::now_ms() as f64 / 1000.0);
                let mut inner = self.status.inner();
                inner.largest_checkpoint = inner.largest_checkpoint.max(*bytes);
                inner.checkpoints.push_back(json!({"epoch": epoch, "durationMs": duration_ms, "bytes": bytes}));
                while inner.checkpoints.len() > RECENT {
                    inner.checkpoints.pop_front();
                }
            }
            Report::Deploying { era, restore, replay_to, executors } => {
                info!(%era, %restore, %replay_to, executors, "tasks start from a checkpoint");
                self.status.inner().restarts += 1;
            }
            Report::Recovered { era, duration_ms } => {
                info!(%era, duration_ms, "recovered");
                counter!("millstream_recoveries_total").increment(1);
                histogram!("millstream_recovery_duration_seconds").record(*duration_ms as f64 / 1000.0);
            }
            Report::Joined { executor } => debug!(%executor, "joined"),
            Report::Lost { executor, reason } => {
                warn!(%executor, %reason, "lost an executor");
                counter!("millstream_executor_losses_total").increment(1);
            }
            Report::Failure { epoch, message } => {
                warn!(?epoch, %message, "an attempt failed");
                counter!("millstream_tasks_failed_total").increment(1);
            }
            Report::HeldUp(held) => {
                let tasks: Vec<String> = held.processing.iter().map(ToString::to_string).collect();
                let sink = |((sink, task), epoch): (&(SinkId, TaskId), &Epoch)| {
                    format!("{sink} of task {task}: epoch {epoch}")
                };
                let sinks: Vec<String> = held.publishing.iter().map(sink).collect();
                warn!(
                    epoch = %held.epoch,
                    seconds = held.seconds,
                    processing = tasks.join(", "),
                    publishing = sinks.join(", "),
                    "nothing moves"
                );
            }
            Report::Voided { from } => warn!(%from, last = %history.last, "epochs are planned again, smaller"),
        }
    }

    fn epoch(&self, report: &EpochReport) {
        let plan = &report.plan;
        let rows: u64 = report.splits.iter().map(|s| s.records).sum();
        let bytes: u64 = report.splits.iter().map(|s| s.bytes).sum();
        let late: u64 = report.splits.iter().map(|s| s.late).sum();
        let bad: u64 = report.splits.iter().map(|s| s.bad).sum();
        let duration = u64::try_from(report.done_at - report.dispatched_at).unwrap_or(0);
        counter!("millstream_source_records_total").increment(rows);
        counter!("millstream_source_bytes_total").increment(bytes);
        counter!("millstream_late_records_total").increment(late);
        counter!("millstream_dead_letters_total").increment(late + bad);
        gauge!("millstream_source_lag_records").set(report.backlog.values().sum::<u64>() as f64);
        gauge!("millstream_epoch").set(plan.epoch.0 as f64);
        histogram!("millstream_epoch_duration_seconds").record(duration as f64 / 1000.0);
        let state_keys: u64 = report.operators.iter().map(|o| o.keys).sum();
        let state_bytes: u64 = report.operators.iter().map(|o| o.bytes).sum();
        gauge!("millstream_state_keys").set(state_keys as f64);
        gauge!("millstream_state_size_bytes").set(state_bytes as f64);
        let mut inner = self.status.inner();
        let since = inner.last_dispatch.map_or(duration, |l| u64::try_from(report.dispatched_at - l).unwrap_or(0));
        inner.last_dispatch = Some(report.dispatched_at);
        inner.input_rows += rows;
        inner.busy_micros += report.busy_micros;
        counter!("millstream_operator_busy_seconds_total").absolute(inner.busy_micros / 1_000_000);
        let per_second = |ms: u64| if ms == 0 { 0.0 } else { rows as f64 * 1000.0 / ms as f64 };
        let mut durations = BTreeMap::from([("triggerExecution", duration), ("addBatch", duration)]);
        if let Some(durable) = report.durable_after_ms {
            durations.insert("walCommit", durable);
        }
        let watermark = plan.sources.iter().map(|s| s.watermark).filter(|w| *w > Watermark::MIN).min();
        let progress = Arc::new(Progress {
            name: self.name.clone(),
            run_id: report.era.to_string(),
            timestamp: timestamp(report.dispatched_at),
            batch_id: plan.epoch.0,
            batch_duration: duration,
            num_input_rows: rows,
            input_rows_per_second: per_second(since),
            processed_rows_per_second: per_second(duration),
            duration_ms: durations,
            event_time: watermark.map(|w| ("watermark", time_of(w))).into_iter().collect(),
            state_operators: self.operators(report),
            sources: self.sources(report),
            sink: json!({"description": self.sink, "numOutputRows": -1}),
            late_rows: late,
            bad_rows: bad,
            backlog_rows: report.backlog.values().sum(),
            replayed: report.replayed,
            rows_published: inner.rows_published,
        });
        inner.recent.push_back(progress.clone());
        while inner.recent.len() > RECENT {
            inner.recent.pop_front();
        }
        drop(inner);
        // Nobody listens: that is fine.
        let _nobody = self.progress.send(progress);
    }

    fn operators(&self, report: &EpochReport) -> Vec<Value> {
        let stateful = report.operators.iter().filter(|o| o.keys > 0 || o.next_timer.is_some());
        stateful
            .map(|o| {
                json!({
                    "operatorName": format!("operator-{}", o.operator),
                    "numRowsTotal": o.keys,
                    "memoryUsedBytes": o.bytes,
                    "retractionsDropped": o.dropped,
                })
            })
            .collect()
    }

    fn sources(&self, report: &EpochReport) -> Vec<Value> {
        let plan = &report.plan;
        let offsets = |f: fn(&millstream_plan::SplitRange) -> u64, source: SourceId| {
            let ranges = plan.sources.iter().find(|s| s.source == source).map(|s| &s.ranges[..]).unwrap_or_default();
            ranges.iter().map(|r| (r.split.clone(), f(r))).collect::<BTreeMap<SplitId, u64>>()
        };
        let named = self.status.tables.iter().enumerate();
        named
            .map(|(n, table)| {
                let id = SourceId(n as u16);
                let rows: u64 = report.splits.iter().filter(|s| s.source == id).map(|s| s.records).sum();
                json!({
                    "description": table,
                    "startOffset": offsets(|r| r.from, id),
                    "endOffset": offsets(|r| r.to, id),
                    "latestOffset": report.latest.get(&id),
                    "numInputRows": rows,
                    "lagRows": report.backlog.get(&id),
                })
            })
            .collect()
    }
}

fn time_of(watermark: Watermark) -> String {
    if watermark == Watermark::MAX { "end of input".to_owned() } else { timestamp(watermark.0) }
}

/// RFC 3339 in UTC with milliseconds.
fn timestamp(ms: i64) -> String {
    // Civil date from days, after Howard Hinnant's algorithm.
    let (days, ms_of_day) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    let (s, milli) = (ms_of_day / 1000, ms_of_day % 1000);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{milli:03}Z", s / 3600, s / 60 % 60, s % 60)
}

#[cfg(test)]
mod tests {
    use super::timestamp;

    #[test]
    fn times_are_written_as_rfc_3339() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(timestamp(1_436_918_400_123), "2015-07-15T00:00:00.123Z");
        assert_eq!(timestamp(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(timestamp(-1), "1969-12-31T23:59:59.999Z");
    }
}
