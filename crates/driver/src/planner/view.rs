//! What the planner knows of a source and its splits.
use std::collections::BTreeMap;

use millstream_connectors::Discovery;
use millstream_plan::{SplitId, SplitRange, Watermark};
use millstream_protocol::messages::SplitReport;

use crate::chain::{SourceHistory, SplitHistory};
use crate::shape::{Millis, SourceShape};

/// With so few positions per split a position is probably more than a row (a file, a row group).
const COARSE_POSITIONS: u64 = 64;
/// Rows behind such a position until it is measured.
const COARSE_ROWS: f64 = 10_000.0;
/// Weight of the newest epoch in measured averages.
const NEWEST: f64 = 0.3;

#[derive(Clone, Debug, Default)]
pub(super) struct SourceView {
    pub(super) discovered: bool,
    pub(super) complete: bool,
    pub(super) splits: BTreeMap<SplitId, SplitView>,
    /// Splits in the enumerator's order.
    pub(super) order: Vec<SplitId>,
    /// Splits per task.
    load: BTreeMap<u16, usize>,
    /// Measured; `None` before the first report.
    rows_per_position: Option<f64>,
    bytes_per_position: Option<f64>,
    /// When input of this source was last planned.
    pub(super) planned_at: Option<Millis>,
    /// Where the next round begins if not every split gets its turn.
    pub(super) turn: usize,
}

#[derive(Clone, Debug)]
pub(super) struct SplitView {
    pub(super) task: u16,
    /// Position after the last planned range.
    pub(super) next: u64,
    /// Where an unplanned split starts.
    start: u64,
    /// Position after the last record that may be planned.
    pub(super) end: u64,
    pub(super) tag: String,
    /// Nothing will come after `end`.
    closed: bool,
    pub(super) newest: Option<Watermark>,
    /// When it last had rows, or was found.
    active_at: Millis,
}

impl SplitView {
    pub(super) fn available(&self) -> u64 {
        self.end.saturating_sub(self.next)
    }

    /// Everything that it will ever have is planned.
    pub(super) fn is_finished(&self) -> bool {
        self.closed && self.available() == 0
    }

    pub(super) fn is_idle(&self, timeout_ms: Option<u64>, now: Millis) -> bool {
        self.available() == 0 && timeout_ms.is_some_and(|t| now >= self.active_at.saturating_add_unsigned(t))
    }
}

impl SourceView {
    pub(super) fn new(
        history: Option<&SourceHistory>,
        watermarks: Option<&BTreeMap<SplitId, Watermark>>,
        now: Millis,
    ) -> Self {
        let mut view = Self::default();
        for (id, split) in history.into_iter().flat_map(|h| &h.splits) {
            view.remember(id, split, watermarks.and_then(|w| w.get(id)).copied(), now);
        }
        view
    }

    /// What of it is not new.
    pub(super) fn only_known(&self, discovery: &Discovery) -> Discovery {
        let splits = discovery.splits.iter().filter(|s| self.splits.contains_key(&s.split)).cloned();
        Discovery { splits: splits.collect(), complete: discovery.complete }
    }

    /// Takes in what the enumerator found. With `freeze`, what the first discovery found is all that will be read.
    pub(super) fn discover(&mut self, discovery: &Discovery, parallelism: u16, freeze: bool, now: Millis) {
        if freeze && self.discovered {
            return;
        }
        self.order.clear();
        for found in &discovery.splits {
            self.order.push(found.split.clone());
            if let Some(known) = self.splits.get_mut(&found.split) {
                known.end = found.end.max(known.next);
                known.tag.clone_from(&found.tag);
                known.closed = found.closed;
                continue;
            }
            // The task with the fewest splits; a split stays with its task for life.
            let task = (0..parallelism).min_by_key(|t| (self.load.get(t).copied().unwrap_or(0), *t)).unwrap_or(0);
            *self.load.entry(task).or_default() += 1;
            let split = SplitView {
                task,
                next: found.start,
                start: found.start,
                end: found.end.max(found.start),
                tag: found.tag.clone(),
                closed: found.closed,
                newest: None,
                active_at: now,
            };
            self.splits.insert(found.split.clone(), split);
        }
        self.discovered = true;
        self.complete = discovery.complete;
    }

    pub(super) fn report(&mut self, report: &SplitReport, now: Millis) {
        if let Some(split) = self.splits.get_mut(&report.split) {
            split.newest = split.newest.max(report.watermark);
            if report.records > 0 {
                split.active_at = split.active_at.max(now);
            }
        }
    }

    /// Learns how many rows and bytes a position stands for.
    pub(super) fn measure<'a>(&mut self, ranges: &[SplitRange], reports: impl Iterator<Item = &'a SplitReport>) {
        let positions: u64 = ranges.iter().map(|r| r.to - r.from).sum();
        let (records, bytes) = reports.fold((0, 0), |(r, b), s| (r + s.records, b + s.bytes));
        if positions == 0 {
            return;
        }
        let learn = |old: Option<f64>, sum: u64| {
            let new = sum as f64 / positions as f64;
            Some(old.map_or(new, |old| old + NEWEST * (new - old)))
        };
        self.rows_per_position = learn(self.rows_per_position, records);
        self.bytes_per_position = learn(self.bytes_per_position, bytes);
    }

    /// Expected rows behind one position.
    pub(super) fn rows_per_position(&self) -> f64 {
        let coarse = || self.splits.values().all(|s| s.end.saturating_sub(s.start) <= COARSE_POSITIONS && s.closed);
        match self.rows_per_position {
            Some(rows) => rows.max(1e-6),
            None if coarse() => COARSE_ROWS,
            None => 1.0,
        }
    }

    /// Expected input bytes behind one position; 0 if unknown.
    pub(super) fn bytes_per_position(&self) -> f64 {
        self.bytes_per_position.unwrap_or(0.0)
    }

    pub(super) fn available(&self) -> u64 {
        self.order.iter().filter_map(|id| self.splits.get(id)).map(SplitView::available).sum()
    }

    /// Splits that start where no range has begun yet, in the enumerator's order.
    pub(super) fn unplanned(&self) -> impl Iterator<Item = (&SplitId, &SplitView)> {
        self.order.iter().filter_map(|id| self.splits.get_key_value(id)).filter(|(_, s)| s.next == s.start)
    }

    pub(super) fn ends(&self) -> BTreeMap<SplitId, u64> {
        self.order.iter().filter_map(|id| Some((id.clone(), self.splits.get(id)?.end))).collect()
    }

    pub(super) fn planned(&mut self, ranges: &[SplitRange], now: Millis) {
        for range in ranges {
            if let Some(split) = self.splits.get_mut(&range.split) {
                split.next = range.to;
            }
            if range.to > range.from {
                self.planned_at = Some(now);
            }
        }
    }

    pub(super) fn rewind(&mut self, history: Option<&SourceHistory>, now: Millis) {
        for (id, split) in &mut self.splits {
            split.next = history.and_then(|h| h.splits.get(id)).map_or(split.start, |h| h.next);
        }
        for (id, split) in history.into_iter().flat_map(|h| &h.splits) {
            if !self.splits.contains_key(id) {
                self.remember(id, split, None, now);
            }
        }
    }

    /// A split of which only the chain knows so far: nothing is available until the enumerator finds it.
    fn remember(&mut self, id: &SplitId, split: &SplitHistory, newest: Option<Watermark>, now: Millis) {
        *self.load.entry(split.task).or_default() += 1;
        let view = SplitView {
            task: split.task,
            next: split.next,
            start: split.start,
            end: split.next,
            tag: split.tag.clone(),
            closed: true,
            newest,
            active_at: now,
        };
        self.splits.insert(id.clone(), view);
    }

    pub(super) fn watermarks(&self) -> BTreeMap<SplitId, Watermark> {
        self.splits.iter().filter_map(|(id, s)| Some((id.clone(), s.newest?))).collect()
    }

    /// When time alone changes what can be planned: a split becomes idle, or the longest delay of a small input is over.
    pub(super) fn wakeup(&self, shape: &SourceShape, now: Millis) -> Option<Millis> {
        let idle = shape.idle_timeout_ms.filter(|_| shape.uses_watermark).and_then(|timeout| {
            self.splits.values().map(|s| s.active_at.saturating_add_unsigned(timeout)).filter(|at| *at > now).min()
        });
        let delayed = shape.min_per_trigger.and(self.planned_at).filter(|_| self.available() > 0);
        idle.into_iter().chain(delayed.map(|at| at.saturating_add_unsigned(shape.max_trigger_delay_ms))).min()
    }
}
