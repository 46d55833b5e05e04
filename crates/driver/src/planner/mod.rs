//! The planner: decides what the next epoch is. A function of what is available, what tasks have reported, limits and the time that it is
//! given; it reads no clock.
//!
//! # When
//! As soon as there is input, at most once per `trigger`. Without input only if something is due: a window that the watermark
//! has reached, a timer of processing time, the files of a sink, a checkpoint.
//!
//! # How much
//! A budget of rows (see `size`) that grows while epochs are full and quick, shared between sources and splits in proportion to
//! what they hold, so that splits which hold the same stretch of time reach its end together.
//!
//! # Side tables
//! An epoch reads either side tables or others, never both, and side tables come first: nothing else is read before all of them have been listed,
//! or while one has something to read. So a row that looks something up meets exactly what was planned in earlier epochs, which is in
//! the chain, and a replay repeats it. A side table that is read whole is closed when the first other range is planned: what is found
//! later, after a restart, is not read.
//!
//! # Watermarks
//! Per source the minimum over its splits of the newest watermark that their rows gave (`watermark`); it never goes back.
//!
//! # Memory
//! State that has changed since the last checkpoint cannot leave the executors' memory. When it is much (`unsealed`), a checkpoint is due whatever
//! the interval says; when it is twice as much and a checkpoint is still under way, the input waits. Epochs are kept so small that one alone does not
//! bring that about.
//!
//! # The end
//! A bounded input ends with an empty epoch at [`Watermark::MAX`] (`last`). `availableNow`, `once` and a drain stop reading and end with
//! a checkpoint, from which the pipeline can go on.
mod options;
mod ranges;
mod size;
mod unsealed;
mod view;
mod watermark;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use millstream_connectors::Discovery;
use millstream_plan::{Epoch, EpochPlan, OperatorId, SourceId, SourcePlan, SplitId, SplitRange, TaskId, Watermark};
use millstream_protocol::messages::{OperatorReport, SplitReport};

use crate::chain::History;
use crate::shape::{Millis, PipelineShape, Side, SourceShape, TimerDomain};
pub use options::{PlanOptions, Trigger};
use size::Size;
use unsealed::Unsealed;
use view::SourceView;

/// Watermarks that splits gave, by source; part of a checkpoint, because no plan holds them.
pub type SplitWatermarks = BTreeMap<SourceId, BTreeMap<SplitId, Watermark>>;

/// What to do now.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Run this epoch.
    Plan(Box<EpochPlan>),
    /// Nothing; time alone changes that at `until`.
    Wait { until: Option<Millis> },
    /// The last epoch has been planned: it ends the pipeline, or holds a checkpoint after which nothing was read.
    Complete,
}

/// What the epochs that are under way allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Epochs that are not yet processed by all tasks.
    pub in_flight: usize,
    /// A checkpoint may begin: none is under way.
    pub checkpoint: bool,
}

/// What happened in an epoch that all tasks have processed.
#[derive(Clone, Copy, Debug)]
pub struct EpochDone<'a> {
    pub plan: &'a EpochPlan,
    pub splits: &'a [SplitReport],
    /// Time from its dispatch, or from the end of the epoch before it if that was later.
    pub service_ms: u64,
    /// Bytes into shuffles and sinks.
    pub output_bytes: u64,
    /// State that all tasks have to keep in memory until a checkpoint, and how many executors share it.
    pub unsealed_bytes: u64,
    pub executors: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Reads on.
    Continuous,
    /// Reads what was there at the start, then finishes.
    Available,
    /// Reads nothing more.
    Finishing,
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct Planner {
    shape: PipelineShape,
    parallelism: u16,
    options: PlanOptions,
    /// After everything planned.
    history: History,
    sources: BTreeMap<SourceId, SourceView>,
    timers: BTreeMap<(OperatorId, TaskId), i64>,
    /// Of processing time, beside the timers of the operators' own clocks.
    wakes: BTreeMap<(OperatorId, TaskId), i64>,
    /// Some task has reported in this attempt, so that `timers` tells something.
    timers_known: bool,
    size: Size,
    unsealed: Unsealed,
    mode: Mode,
    planned_at: Option<Millis>,
    /// Last epoch with a checkpoint, and when it was planned.
    checkpoint: (Epoch, Millis),
    /// Last epoch with a flush, and when it was planned.
    flush: (Epoch, Millis),
    /// Output since the last flush.
    unflushed_bytes: u64,
    /// Measured output bytes per input position.
    output_per_position: f64,
    /// Most positions of an epoch.
    max_positions: u64,
}

impl Planner {
    /// A planner that goes on after `history`; `checkpoint` is the last epoch that takes a checkpoint, complete or not.
    #[must_use]
    pub fn new(
        shape: PipelineShape,
        parallelism: u16,
        options: PlanOptions,
        history: History,
        watermarks: &SplitWatermarks,
        checkpoint: Epoch,
        now: Millis,
    ) -> Self {
        let sources = shape
            .sources
            .iter()
            .map(|s| (s.id, SourceView::new(history.sources.get(&s.id), watermarks.get(&s.id), now)))
            .collect();
        let mode = match options.trigger {
            Trigger::Interval { .. } => Mode::Continuous,
            Trigger::AvailableNow | Trigger::Once => Mode::Available,
        };
        Self {
            shape,
            parallelism: parallelism.max(1),
            size: Size::new(&options),
            unsealed: Unsealed::default(),
            options,
            history,
            sources,
            timers: BTreeMap::new(),
            wakes: BTreeMap::new(),
            timers_known: false,
            mode,
            planned_at: None,
            checkpoint: (checkpoint, now),
            flush: (checkpoint, now),
            unflushed_bytes: 0,
            output_per_position: 0.0,
            max_positions: u64::MAX,
        }
    }

    /// Where the pipeline stands after everything planned.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The newest watermark of every split.
    #[must_use]
    pub fn split_watermarks(&self) -> SplitWatermarks {
        self.sources.iter().map(|(id, view)| (*id, view.watermarks())).collect()
    }

    /// Records by which a source's plans are behind what is available.
    #[must_use]
    pub fn backlog(&self, source: SourceId) -> u64 {
        self.sources.get(&source).map_or(0, SourceView::available)
    }

    /// Position after the last available record, by split.
    #[must_use]
    pub fn latest(&self, source: SourceId) -> BTreeMap<SplitId, u64> {
        self.sources.get(&source).map(SourceView::ends).unwrap_or_default()
    }

    /// Every source has answered at least once.
    #[must_use]
    pub fn all_discovered(&self) -> bool {
        self.sources.values().all(|s| s.discovered)
    }

    /// The last epoch that takes a checkpoint, complete or not.
    #[must_use]
    pub fn last_checkpoint(&self) -> Epoch {
        self.checkpoint.0
    }

    /// Output bytes that an epoch will have, as far as the ones before it tell.
    #[must_use]
    pub fn expected_bytes(&self, plan: &EpochPlan) -> u64 {
        (plan.positions() as f64 * self.output_per_position) as u64
    }

    /// When time alone may make an epoch due.
    #[must_use]
    pub fn wakeup_at(&self, now: Millis, in_flight: usize) -> Option<Millis> {
        let earliest = self.earliest();
        if earliest > now { Some(earliest) } else { self.wakeup(now, Admission { in_flight, checkpoint: true }) }
    }

    /// The checkpoint interval that fits the measured replay.
    pub fn set_checkpoint_interval(&mut self, interval_ms: u64) {
        self.options.checkpoint_interval_ms = interval_ms;
    }

    /// Takes in what can be read.
    pub fn available(&mut self, source: SourceId, discovery: &Discovery, now: Millis) {
        let freeze = self.mode == Mode::Available;
        let side = self.shape.sources.iter().find(|s| s.id == source).and_then(|s| s.side);
        let is_closed = side == Some(Side::Whole) && self.has_begun();
        // One task reads all files of a side table: which row is the last of its key is a question of their order.
        let readers = if side.is_some() { 1 } else { self.parallelism };
        let Some(view) = self.sources.get_mut(&source) else { return };
        match is_closed {
            true => view.discover(&view.only_known(discovery), readers, freeze, now),
            false => view.discover(discovery, readers, freeze, now),
        }
    }

    /// Some range of a table that is not a side table has been planned.
    fn has_begun(&self) -> bool {
        let sides = |id: &SourceId| self.shape.sources.iter().any(|s| s.id == *id && s.side.is_some());
        let mut others = self.history.sources.iter().filter(|(id, _)| !sides(id));
        others.any(|(_, source)| source.splits.values().any(|split| split.next > split.start))
    }

    /// Takes in what a task says about the splits it read and the timers it has.
    pub fn report(&mut self, task: TaskId, splits: &[SplitReport], operators: &[OperatorReport], now: Millis) {
        for report in splits {
            if let Some(view) = self.sources.get_mut(&report.source) {
                view.report(report, now);
            }
        }
        for report in operators {
            match report.next_timer {
                Some(at) => self.timers.insert((report.operator, task), at),
                None => self.timers.remove(&(report.operator, task)),
            };
            match report.next_wake {
                Some(at) => self.wakes.insert((report.operator, task), at),
                None => self.wakes.remove(&(report.operator, task)),
            };
        }
        self.timers_known = true;
    }

    /// Takes in that all tasks have processed an epoch.
    pub fn epoch_done(&mut self, done: &EpochDone<'_>) {
        for source in &done.plan.sources {
            if let Some(view) = self.sources.get_mut(&source.source) {
                view.measure(&source.ranges, done.splits.iter().filter(|r| r.source == source.source));
            }
        }
        self.size.epoch_done(done.plan.epoch, done.service_ms);
        self.unsealed.epoch_done(done);
        self.unflushed_bytes += done.output_bytes;
        let positions = done.plan.positions();
        if positions > 0 {
            self.output_per_position = done.output_bytes as f64 / positions as f64;
        }
    }

    /// The tasks start again from a checkpoint; everything planned stays planned and is run again.
    pub fn restarted(&mut self, failures: u32) {
        self.timers.clear();
        self.wakes.clear();
        self.timers_known = false;
        self.size.restart(&self.options, failures);
        self.unsealed = Unsealed::default();
    }

    /// The chain is another than thought: plan on from `history`; `checkpoint` as in [`new`](Self::new).
    pub fn rewind(&mut self, history: History, checkpoint: Epoch, now: Millis) {
        for (id, view) in &mut self.sources {
            view.rewind(history.sources.get(id), now);
        }
        self.checkpoint.0 = checkpoint;
        self.flush.0 = checkpoint;
        self.history = history;
    }

    /// An epoch with so many positions was too much for an executor: none will have more than half of them.
    pub fn too_large(&mut self, positions: u64) {
        self.max_positions = self.max_positions.min((positions / 2).max(1));
    }

    /// Reads nothing more and finishes with a checkpoint.
    pub fn finish(&mut self) {
        self.mode = Mode::Finishing;
    }

    /// Decides.
    pub fn next(&mut self, now: Millis, admission: Admission) -> Next {
        if self.mode == Mode::Available && self.all_discovered() {
            if self.sources.values().all(|s| s.complete) {
                // A bounded input has an end of its own.
                self.mode = Mode::Continuous;
            } else if self.sources.values().all(|s| s.available() == 0) {
                self.mode = Mode::Finishing;
            }
        }
        if self.is_complete() {
            return Next::Complete;
        }
        let earliest = self.earliest();
        if now < earliest {
            return Next::Wait { until: Some(earliest) };
        }
        if !admission.checkpoint && self.unsealed.bytes() >= self.options.max_unsealed_bytes.saturating_mul(2) {
            // The end of the checkpoint changes that.
            return Next::Wait { until: None };
        }
        let plan = self.draft(now, admission);
        if !self.worth(&plan, admission) {
            return Next::Wait { until: self.wakeup(now, admission) };
        }
        self.commit(&plan, now);
        Next::Plan(Box::new(plan))
    }

    /// The next epoch, if there is to be one now.
    fn draft(&mut self, now: Millis, admission: Admission) -> EpochPlan {
        let mut ranges = match self.mode {
            Mode::Continuous | Mode::Available => self.ranges(now),
            Mode::Finishing => BTreeMap::new(),
        };
        let now_ms = now.max(self.history.now_ms);
        let sources: Vec<SourcePlan> = self
            .shape
            .sources
            .iter()
            .map(|s| {
                let ranges = ranges.remove(&s.id).unwrap_or_default();
                SourcePlan { source: s.id, watermark: self.watermark(s, ranges.is_empty(), now), ranges }
            })
            .collect();
        let last = self.mode == Mode::Continuous
            && !self.shape.sources.is_empty()
            && self.shape.sources.iter().all(|s| self.has_ended(s))
            && sources.iter().all(|s| s.ranges.is_empty());
        let mut plan =
            EpochPlan { epoch: self.history.last.next(), now_ms, sources, checkpoint: false, flush: false, last };
        let dirty = plan.positions() > 0 || self.history.last > self.checkpoint.0 || self.timer_due(&plan);
        let finishing = self.mode == Mode::Finishing && admission.in_flight == 0 && !self.timer_due(&plan);
        plan.checkpoint =
            last || admission.checkpoint && dirty && (finishing || now >= self.checkpoint_at() || self.is_heavy());
        plan.flush = plan.checkpoint || self.flush_due(&plan, now);
        self.record_starts(&mut plan);
        plan
    }

    /// Nothing more will be read of it. Side tables that are refreshed end with the others.
    pub(super) fn has_ended(&self, source: &SourceShape) -> bool {
        let is_read = |id: SourceId| self.sources.get(&id).is_some_and(|view| view.complete && view.available() == 0);
        if source.side != Some(Side::Refreshed) {
            return is_read(source.id);
        }
        self.sources.get(&source.id).is_some_and(|view| view.discovered && view.available() == 0)
            && self.shape.sources.iter().all(|s| s.side == Some(Side::Refreshed) || is_read(s.id))
    }

    /// Writes down where splits start that have no planned position yet, as empty ranges: after a restart an enumerator cannot tell a
    /// quiet split that was found at the start (and begins, say, at the latest offset) from one that is new and begins at 0.
    fn record_starts(&self, plan: &mut EpochPlan) {
        for source in &mut plan.sources {
            let known = self.history.sources.get(&source.source).map(|h| &h.splits);
            let Some(view) = self.sources.get(&source.source) else { continue };
            let unknown = view.unplanned().filter(|(id, split)| {
                split.next > 0
                    && known.is_none_or(|k| !k.contains_key(*id))
                    && source.ranges.iter().all(|r| r.split != **id)
            });
            let starts: Vec<SplitRange> = unknown
                .map(|(id, s)| SplitRange {
                    split: id.clone(),
                    task: s.task,
                    from: s.next,
                    to: s.next,
                    tag: s.tag.clone(),
                })
                .collect();
            source.ranges.extend(starts);
        }
    }

    fn worth(&self, plan: &EpochPlan, admission: Admission) -> bool {
        plan.last || plan.positions() > 0 || plan.checkpoint || plan.flush || self.timer_due(plan) || {
            // After a start without replay nobody knows which timers there are: an empty epoch asks.
            !self.timers_known && !self.shape.timers.is_empty() && plan.epoch > Epoch(1) && admission.in_flight == 0
        }
    }

    fn commit(&mut self, plan: &EpochPlan, now: Millis) {
        // `apply` refuses only what `draft` does not produce; the log's readers check the same.
        let applied = self.history.apply(plan);
        debug_assert!(applied.is_ok(), "{applied:?}");
        for source in &plan.sources {
            if let Some(view) = self.sources.get_mut(&source.source) {
                view.planned(&source.ranges, now);
            }
        }
        self.size.planned(plan, &self.sources);
        self.planned_at = Some(now);
        if plan.checkpoint {
            self.checkpoint = (plan.epoch, now);
        }
        if plan.flush {
            self.flush = (plan.epoch, now);
            self.unflushed_bytes = 0;
        }
        if plan.positions() > 0 && self.options.trigger == Trigger::Once && !self.reads_sides(plan) {
            self.mode = Mode::Finishing;
        }
    }

    /// The epoch is one of side tables, and the others still have something to read.
    fn reads_sides(&self, plan: &EpochPlan) -> bool {
        let reads = |s: &SourceShape| plan.sources.iter().any(|p| p.source == s.id && !p.ranges.is_empty());
        let waits = |s: &SourceShape| self.sources.get(&s.id).is_some_and(|view| view.available() > 0);
        self.shape.sources.iter().any(|s| s.side.is_some() && reads(s)) && self.shape.sources.iter().any(waits)
    }

    fn is_complete(&self) -> bool {
        self.history.ended || (self.mode == Mode::Finishing && self.history.last == self.checkpoint.0)
    }

    /// Some operator has something to do in `plan` that it had not in the epoch before.
    fn timer_due(&self, plan: &EpochPlan) -> bool {
        let passes = |at: i64| self.history.now_ms < at && at <= plan.now_ms;
        let wakes = self.wakes.values().any(|at| passes(*at));
        wakes
            || self.timers.iter().any(|((operator, _), &at)| match self.shape.timers.get(operator) {
                None => false,
                Some(TimerDomain::Processing) => passes(at),
                Some(TimerDomain::Event(sources)) => {
                    let before = sources.iter().map(|s| self.planned_watermark(*s)).min().unwrap_or_default();
                    let after = sources.iter().map(|s| plan.watermark(*s)).min().unwrap_or_default();
                    before.0 < at && at <= after.0
                }
            })
    }

    fn planned_watermark(&self, source: SourceId) -> Watermark {
        self.history.sources.get(&source).map_or(Watermark::MIN, |s| s.watermark)
    }

    fn checkpoint_at(&self) -> Millis {
        self.checkpoint.1.saturating_add_unsigned(self.options.checkpoint_interval_ms)
    }

    /// So much state has changed that it has to be written before the interval is over.
    fn is_heavy(&self) -> bool {
        self.unsealed.bytes() >= self.options.max_unsealed_bytes
    }

    fn commit_interval(&self) -> Option<u64> {
        self.shape.sinks.iter().filter_map(|s| s.commit_interval_ms).min()
    }

    fn flush_due(&self, plan: &EpochPlan, now: Millis) -> bool {
        let Some(interval) = self.commit_interval() else { return false };
        let holds = self.history.last > self.flush.0 || plan.positions() > 0;
        holds
            && (now >= self.flush.1.saturating_add_unsigned(interval)
                || self.unflushed_bytes >= self.options.flush_bytes)
    }

    /// No epoch before this time.
    fn earliest(&self) -> Millis {
        let Some(planned_at) = self.planned_at else { return Millis::MIN };
        let floor = planned_at.saturating_add_unsigned(self.options.min_interval_ms);
        match self.options.trigger {
            // On multiples of the interval, as Spark does it.
            Trigger::Interval { interval_ms } if interval_ms > 0 && self.mode != Mode::Finishing => {
                let interval = i64::try_from(interval_ms).unwrap_or(Millis::MAX);
                planned_at.div_euclid(interval).saturating_add(1).saturating_mul(interval).max(floor)
            }
            Trigger::Interval { .. } | Trigger::AvailableNow | Trigger::Once => floor,
        }
    }

    /// When time alone makes an epoch due.
    fn wakeup(&self, now: Millis, admission: Admission) -> Option<Millis> {
        let unsaved = self.history.last > self.checkpoint.0;
        let checkpoint = (unsaved && admission.checkpoint).then(|| self.checkpoint_at());
        let flush = self
            .commit_interval()
            .filter(|_| self.history.last > self.flush.0)
            .map(|i| self.flush.1.saturating_add_unsigned(i));
        let processing = self
            .timers
            .iter()
            .filter(|((operator, _), _)| self.shape.timers.get(operator) == Some(&TimerDomain::Processing))
            .map(|(_, at)| *at)
            .chain(self.wakes.values().copied())
            .min();
        let views = self.shape.sources.iter().filter_map(|s| self.sources.get(&s.id)?.wakeup(s, now)).min();
        [checkpoint, flush, processing, views].into_iter().flatten().filter(|at| *at > now).min()
    }
}
