//! Which ranges the next epoch reads.
use std::collections::BTreeMap;

use millstream_plan::{SourceId, SplitId, SplitRange};

use super::view::SourceView;
use super::{Mode, Planner, Trigger};
use crate::shape::{Millis, SourceShape};

impl Planner {
    /// Ranges by source, within the budget and the sources' own limits.
    pub(super) fn ranges(&mut self, now: Millis) -> BTreeMap<SourceId, Vec<SplitRange>> {
        let ready: Vec<SourceShape> = self.shape.sources.iter().filter(|s| self.is_ready(s, now)).cloned().collect();
        let ready = self.sides_first(ready);
        let rows = |view: &SourceView| view.available() as f64 * view.rows_per_position();
        let positions: u64 = ready.iter().filter_map(|s| self.sources.get(&s.id)).map(SourceView::available).sum();
        let total: f64 = ready.iter().filter_map(|s| self.sources.get(&s.id)).map(rows).sum();
        let unlimited = self.options.trigger == Trigger::Once;
        let share = if unlimited { 1.0 } else { (self.size.rows() / total.max(1e-9)).min(1.0) };
        let most = self.max_positions.min(self.unsealed.max_positions(self.options.max_unsealed_bytes));
        let share = share.min(most as f64 / (positions.max(1) as f64));
        let max_bytes = self.options.max_bytes as f64;
        ready
            .iter()
            .filter_map(|source| {
                let view = self.sources.get_mut(&source.id)?;
                let available = view.available();
                let mut limit = (available as f64 * share).floor();
                if !unlimited && view.bytes_per_position() > 0.0 {
                    limit = limit.min((max_bytes / view.bytes_per_position()).floor());
                }
                let mut limit = (limit.max(1.0) as u64).min(available);
                if let (Some(max), false) = (source.max_per_trigger, unlimited) {
                    limit = limit.min(max.max(1));
                }
                Some((source.id, share_out(view, limit)))
            })
            .filter(|(_, ranges)| !ranges.is_empty())
            .collect()
    }

    /// The side tables, as long as one is not listed yet or has something to read; otherwise the others.
    fn sides_first(&self, ready: Vec<SourceShape>) -> Vec<SourceShape> {
        let is_waited_for = |s: &SourceShape| {
            let view = self.sources.get(&s.id);
            s.side.is_some() && view.is_none_or(|v| !v.discovered || v.available() > 0)
        };
        match self.shape.sources.iter().any(is_waited_for) {
            true => ready.into_iter().filter(|s| s.side.is_some()).collect(),
            false => ready,
        }
    }

    /// `minOffsetsPerTrigger` is reached, or waited for long enough.
    fn is_ready(&self, source: &SourceShape, now: Millis) -> bool {
        let Some(view) = self.sources.get(&source.id) else { return false };
        let available = view.available();
        if source.side.is_some() {
            return available > 0;
        }
        let waited = |at: Millis| now >= at.saturating_add_unsigned(source.max_trigger_delay_ms);
        available > 0
            && (source.min_per_trigger.is_none_or(|min| available >= min)
                || view.complete
                || self.mode == Mode::Available
                || view.planned_at.is_none_or(waited))
    }
}

/// Shares `limit` positions out among the splits: in proportion to what each holds, at least one for each; if there are fewer
/// positions than splits, one for each in turn, and the next epoch goes on behind the last one served.
fn share_out(view: &mut SourceView, limit: u64) -> Vec<SplitRange> {
    let held: Vec<(SplitId, u64)> = view
        .order
        .iter()
        .filter_map(|id| Some((id.clone(), view.splits.get(id)?.available())))
        .filter(|(_, available)| *available > 0)
        .collect();
    let total: u64 = held.iter().map(|(_, a)| a).sum();
    let mut takes: Vec<u64> = vec![0; held.len()];
    if limit < held.len() as u64 {
        for i in 0..limit as usize {
            takes[(view.turn + i) % held.len()] = 1;
        }
        // Splits that are served whole leave the list: the next turn begins where they stood.
        view.turn = if total == held.len() as u64 { 0 } else { (view.turn + limit as usize) % held.len() };
    } else {
        let mut left = limit;
        for (take, (_, available)) in takes.iter_mut().zip(&held) {
            *take = ((u128::from(limit) * u128::from(*available) / u128::from(total.max(1))) as u64).max(1).min(left);
            left -= *take;
        }
        for (take, (_, available)) in takes.iter_mut().zip(&held) {
            let more = (available - *take).min(left);
            *take += more;
            left -= more;
        }
    }
    held.into_iter()
        .zip(takes)
        .filter(|(_, take)| *take > 0)
        .filter_map(|((id, _), take)| {
            let split = view.splits.get(&id)?;
            let (from, to) = (split.next, split.next + take);
            Some(SplitRange { task: split.task, from, to, tag: split.tag.clone(), split: id })
        })
        .collect()
}
