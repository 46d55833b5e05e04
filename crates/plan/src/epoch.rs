//! The plan of one epoch.
use serde::{Deserialize, Serialize};

use crate::{Epoch, SourceId, SplitId, Watermark};

/// Everything that the result of one epoch may depend on, beside the state left by the epoch before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochPlan {
    /// Number of this epoch.
    pub epoch: Epoch,
    /// Value of `now()` and `PROCTIME()` for every row of the epoch, in milliseconds since 1970 UTC. Never goes back.
    pub now_ms: i64,
    /// One entry per source, ordered by source id.
    pub sources: Vec<SourcePlan>,
    /// Operators seal their state at the end of this epoch. Implies `flush`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub checkpoint: bool,
    /// Sinks that gather rows over epochs (files) publish all they hold at the end of this epoch.
    #[serde(default, skip_serializing_if = "is_false")]
    pub flush: bool,
    /// The input has ended; every source's watermark is [`Watermark::MAX`], and no epoch follows.
    #[serde(default, skip_serializing_if = "is_false")]
    pub last: bool,
}

/// What one source contributes to an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourcePlan {
    /// The source.
    pub source: SourceId,
    /// See [`Watermark`].
    pub watermark: Watermark,
    /// Ranges to read in this order; splits without new input are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<SplitRange>,
}

/// A part `[from, to)` of one split. Units are the connector's: Kafka offsets, rows of a generator, row groups of a
/// Parquet file, or 0..1 for a file that is read whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitRange {
    /// The split.
    pub split: SplitId,
    /// Index of the source task that reads it, fixed for the split's life.
    pub task: u16,
    /// First position of the range.
    pub from: u64,
    /// Position after the range. A range is done when the reader's position has passed `to`: positions may have gaps.
    pub to: u64,
    /// What the split's content was when it was planned (ETag of a file, id of a topic); a reader that finds another one
    /// fails instead of reading different data.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tag: String,
}

impl EpochPlan {
    /// The watermark of `source` in this epoch.
    #[must_use]
    pub fn watermark(&self, source: SourceId) -> Watermark {
        self.sources.iter().find(|s| s.source == source).map_or(Watermark::MIN, |s| s.watermark)
    }

    /// Positions covered by all ranges (an upper bound of the records where positions have gaps).
    #[must_use]
    pub fn positions(&self) -> u64 {
        self.sources.iter().flat_map(|s| &s.ranges).map(|r| r.to - r.from).sum()
    }
}

fn is_false(b: &bool) -> bool {
    !b
}
