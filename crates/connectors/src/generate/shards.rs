//! Rows of a generator, dealt out to splits.
//!
//! Row `k` is at position `k / S` of shard `k mod S`. The name of a shard says all that its rows depend on beside the options:
//! `2/4` is the third of four, and `2/4@1700000000000` belongs to a **paced** generator whose row 0 was due at that time. A paced
//! generator takes that time from the clock when it is discovered first; as the name is in every plan and in every checkpoint, the
//! rows stay the same for the life of the pipeline.
use std::collections::BTreeMap;
use std::str::FromStr;

use millstream_plan::SplitId;

use crate::{ConnectorError, Discovery, SplitEnumerator, SplitState};

/// Rows of a generator without an end.
const UNBOUNDED: u64 = 1 << 53;

/// One split of a generator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shard {
    pub index: u16,
    pub count: u16,
    /// When row 0 was due, in milliseconds since 1970 UTC.
    pub start_ms: Option<i64>,
}

impl Shard {
    /// Number of the row at `position`.
    #[inline]
    pub fn row(&self, position: u64) -> u64 {
        position * u64::from(self.count) + u64::from(self.index)
    }

    /// How many of the first `rows` rows are in this shard.
    fn share(&self, rows: u64) -> u64 {
        (rows + u64::from(self.count) - 1 - u64::from(self.index)) / u64::from(self.count)
    }

    pub fn split(&self) -> SplitId {
        let Self { index, count, start_ms } = *self;
        SplitId(match start_ms {
            None => format!("{index}/{count}"),
            Some(at) => format!("{index}/{count}@{at}"),
        })
    }
}

impl FromStr for Shard {
    type Err = ConnectorError;

    fn from_str(name: &str) -> Result<Self, ConnectorError> {
        let parse = || {
            let (shard, start_ms) = match name.split_once('@') {
                Some((shard, at)) => (shard, Some(at.parse().ok()?)),
                None => (name, None),
            };
            let (index, count) = shard.split_once('/')?;
            let (index, count) = (index.parse().ok()?, count.parse().ok()?);
            (index < count).then_some(Self { index, count, start_ms })
        };
        parse().ok_or_else(|| ConnectorError::Fatal(format!("the plan names split '{name}', which no generator has")))
    }
}

/// How a generator's rows become available.
#[derive(Clone, Debug)]
pub(super) struct ShardEnumerator {
    /// Number of shards of a new pipeline.
    pub count: u16,
    /// Rows in all; `None`: no end.
    pub rows: Option<u64>,
    /// `None`: as fast as they are taken.
    pub rows_per_second: Option<u64>,
    /// Says which rows these are.
    pub tag: String,
    /// Rows that were due at the last look: a clock that is set back takes none of them away.
    pub due: u64,
    pub start_ms: Option<i64>,
}

impl ShardEnumerator {
    pub fn new(count: u16, rows: Option<u64>, rows_per_second: Option<u64>, tag: String) -> Self {
        Self { count: count.max(1), rows, rows_per_second, tag, due: 0, start_ms: None }
    }
}

impl SplitEnumerator for ShardEnumerator {
    fn discover(&mut self, positions: &BTreeMap<SplitId, u64>, now_ms: i64) -> Result<Discovery, ConnectorError> {
        if let Some(planned) = positions.keys().next() {
            let planned: Shard = planned.0.parse()?;
            (self.count, self.start_ms) = (planned.count, planned.start_ms);
        }
        let all = self.rows.unwrap_or(UNBOUNDED).min(UNBOUNDED);
        self.due = match self.rows_per_second {
            None => all,
            Some(rate) => {
                let start = *self.start_ms.get_or_insert(now_ms);
                self.due.max(due(now_ms.saturating_sub(start), rate)).min(all)
            }
        };
        let closed = self.rows.is_some() && self.due == all;
        let splits = (0..self.count).map(|index| {
            let shard = Shard { index, count: self.count, start_ms: self.start_ms };
            SplitState { split: shard.split(), start: 0, end: shard.share(self.due), tag: self.tag.clone(), closed }
        });
        Ok(Discovery { splits: splits.collect(), complete: closed })
    }
}

/// Rows due `elapsed_ms` after the start: row `k` is due `k / rate` seconds after it.
fn due(elapsed_ms: i64, rate: u64) -> u64 {
    match u128::try_from(elapsed_ms) {
        Ok(ms) => u64::try_from(ms * u128::from(rate) / 1000 + 1).unwrap_or(UNBOUNDED),
        Err(_) => 0,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn ends(d: &Discovery) -> Vec<(&str, u64)> {
        d.splits.iter().map(|s| (s.split.0.as_str(), s.end)).collect()
    }

    #[test]
    fn every_row_is_in_one_shard() {
        let mut bounded = ShardEnumerator::new(3, Some(10), None, String::new());
        let found = bounded.discover(&BTreeMap::new(), 0).unwrap();
        assert!(found.complete);
        assert_eq!(ends(&found), [("0/3", 4), ("1/3", 3), ("2/3", 3)]);
        let rows = found.splits.iter().flat_map(|s| {
            let shard: Shard = s.split.0.parse().unwrap();
            (0..s.end).map(move |p| shard.row(p))
        });
        let mut rows: Vec<u64> = rows.collect();
        rows.sort_unstable();
        assert_eq!(rows, (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn a_paced_generator_keeps_its_start_over_a_restart_and_a_clock_that_goes_back() {
        let mut first = ShardEnumerator::new(2, Some(25), Some(10), String::new());
        assert_eq!(ends(&first.discover(&BTreeMap::new(), 5_000).unwrap()), [("0/2@5000", 1), ("1/2@5000", 0)]);
        let found = first.discover(&BTreeMap::new(), 5_950).unwrap();
        assert_eq!((ends(&found), found.complete), (vec![("0/2@5000", 5), ("1/2@5000", 5)], false));
        assert_eq!(first.discover(&BTreeMap::new(), 5_100).unwrap(), found);

        let mut second = ShardEnumerator::new(2, Some(25), Some(10), String::new());
        let planned = BTreeMap::from([(SplitId::from("1/2@5000"), 3)]);
        let found = second.discover(&planned, 7_500).unwrap();
        assert_eq!((ends(&found), found.complete), (vec![("0/2@5000", 13), ("1/2@5000", 12)], true));
    }

    #[test]
    fn a_foreign_split_is_refused() {
        for name in ["", "3", "2/2", "a/2", "0/2@x"] {
            assert!(name.parse::<Shard>().is_err(), "{name}");
        }
    }
}
