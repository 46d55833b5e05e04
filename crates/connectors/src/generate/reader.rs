//! Reads planned ranges of shards in batches of [`BATCH`] rows.
use std::ops::Range;

use millstream_plan::{SplitId, SplitRange};

use super::shards::Shard;
use crate::{ConnectorError, SourceBatch, SourcePoll, SourceReader};

/// Rows of a batch, counted from the start of the range.
const BATCH: u64 = 8192;

/// Makes the rows of one generator.
pub(super) trait RowMaker: Send {
    /// The rows at `positions` of `shard`, whose split is `split`.
    fn make(&mut self, split: &SplitId, shard: &Shard, positions: Range<u64>) -> Result<SourceBatch, ConnectorError>;
}

/// The half of a generator in a source task.
pub(super) struct ShardReader<M> {
    table: String,
    /// What the ranges must have been planned for.
    tag: String,
    maker: M,
    current: Option<Current>,
}

struct Current {
    shard: Shard,
    range: SplitRange,
    next: u64,
}

impl<M: RowMaker> ShardReader<M> {
    pub fn new(table: String, tag: String, maker: M) -> Self {
        Self { table, tag, maker, current: None }
    }

    fn start(&self, range: &SplitRange) -> Result<Current, ConnectorError> {
        if range.tag != self.tag {
            return Err(ConnectorError::user(
                format!(
                    "table '{}': rows were planned from a generator with '{}', but its options are now '{}'",
                    self.table, range.tag, self.tag
                ),
                "give the generator its old options, or start with another checkpointLocation",
            ));
        }
        Ok(Current { shard: range.split.0.parse()?, range: range.clone(), next: range.from })
    }
}

impl<M: RowMaker> SourceReader for ShardReader<M> {
    fn poll(&mut self, range: &SplitRange) -> Result<SourcePoll, ConnectorError> {
        let mut current = match self.current.take() {
            Some(current) if current.range == *range => current,
            _ => self.start(range)?,
        };
        if current.next >= range.to {
            return Ok(SourcePoll::Done);
        }
        let positions = current.next..range.to.min(current.next + BATCH);
        let batch = self.maker.make(&range.split, &current.shard, positions.clone())?;
        current.next = positions.end;
        self.current = Some(current);
        Ok(SourcePoll::Batch(batch))
    }
}
