//! How many rows an epoch may have: small when caught up (whatever is there), large when behind.
use std::collections::BTreeMap;

use millstream_plan::{Epoch, EpochPlan, SourceId};

use super::options::PlanOptions;
use super::view::SourceView;

/// An epoch that fills this part of the budget counts as full.
const FULL: f64 = 0.8;
const MIN_ROWS: f64 = 1_000.0;

/// The budget, and which epochs under way used it up.
#[derive(Clone, Debug)]
pub(super) struct Size {
    rows: f64,
    max: f64,
    target_ms: f64,
    full: BTreeMap<Epoch, f64>,
}

impl Size {
    pub(super) fn new(options: &PlanOptions) -> Self {
        let max = (options.max_rows.max(1)) as f64;
        Self {
            rows: (options.start_rows as f64).clamp(1.0, max),
            max,
            target_ms: options.target_ms.max(1) as f64,
            full: BTreeMap::new(),
        }
    }

    /// Rows of the next epoch.
    pub(super) fn rows(&self) -> f64 {
        self.rows
    }

    pub(super) fn planned(&mut self, plan: &EpochPlan, sources: &BTreeMap<SourceId, SourceView>) {
        let rows: f64 = plan
            .sources
            .iter()
            .filter_map(|s| {
                let positions: u64 = s.ranges.iter().map(|r| r.to - r.from).sum();
                Some(positions as f64 * sources.get(&s.source)?.rows_per_position())
            })
            .sum();
        if rows >= FULL * self.rows {
            self.full.insert(plan.epoch, rows);
        }
    }

    /// A full epoch took this long: the next ones come closer to the target, by a factor of 2 at most.
    pub(super) fn epoch_done(&mut self, epoch: Epoch, service_ms: u64) {
        if let Some(rows) = self.full.remove(&epoch) {
            let wanted = rows * self.target_ms / (service_ms.max(1) as f64);
            self.rows = wanted.clamp(self.rows / 2.0, self.rows * 2.0).clamp(MIN_ROWS.min(self.max), self.max);
        }
    }

    /// After a restart the first epochs are small again, smaller with every failure in a row: the last one may have been too much.
    pub(super) fn restart(&mut self, options: &PlanOptions, failures: u32) {
        *self = Self::new(options);
        self.rows = (self.rows / f64::from(1u32 << failures.min(16))).max(1.0);
    }
}
