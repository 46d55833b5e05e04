//! The watermark of a source in the next epoch.
use millstream_plan::Watermark;

use super::{Mode, Planner};
use crate::shape::{Millis, SourceShape};

impl Planner {
    /// The minimum over the splits that may still give rows; what a finished or idle split gave does not hold it back. If there is
    /// no such split, the newest of all. Never less than planned before.
    ///
    /// A split that has given no rows yet holds the watermark back, unless it is idle: its rows may be the oldest of all.
    pub(super) fn watermark(&self, source: &SourceShape, reads_nothing: bool, now: Millis) -> Watermark {
        let planned = self.planned_watermark(source.id);
        let Some(view) = self.sources.get(&source.id) else { return planned };
        if self.mode == Mode::Continuous && self.has_ended(source) && reads_nothing {
            return Watermark::MAX;
        }
        if !source.uses_watermark || !view.discovered {
            return planned;
        }
        let splits = || view.order.iter().filter_map(|id| view.splits.get(id));
        let active = splits().filter(|s| !s.is_finished() && !s.is_idle(source.idle_timeout_ms, now));
        let newest = match active.map(|s| s.newest.unwrap_or(Watermark::MIN)).min() {
            Some(oldest) => oldest,
            None => view.splits.values().filter_map(|s| s.newest).max().unwrap_or(Watermark::MIN),
        };
        // `MAX` is kept for the end of the input.
        newest.min(Watermark(i64::MAX - 1)).max(planned)
    }
}
