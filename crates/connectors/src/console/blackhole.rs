//! `blackhole` takes rows and keeps only their number.
use arrow::array::Int64Array;
use arrow::record_batch::RecordBatch;
use millstream_plan::{Epoch, EpochPlan};

use crate::registry::{Connector, appended, not_a_source, shown};
use crate::{ConnectorError, EncodedEpoch, Payload, SinkCommitter, SinkContext, SinkEncoder, SinkFactory, SinkSpec};

pub(crate) static BLACKHOLE: Connector = Connector {
    name: "blackhole",
    source_options: None,
    sink_options: Some(&[]),
    pass_through: &[],
    source_metadata: &[],
    sink_metadata: &[],
    has_format: false,
    reads: appended,
    changes: shown,
    source: |spec| Err(not_a_source(&spec, "blackhole")),
    sink: |_: SinkSpec| Ok(Box::new(Blackhole)),
};

struct Blackhole;

impl SinkFactory for Blackhole {
    fn check(&self) -> Result<(), ConnectorError> {
        Ok(())
    }

    fn encoder(&self, _task: u16) -> Result<Box<dyn SinkEncoder>, ConnectorError> {
        Ok(Box::new(Counter { rows: 0 }))
    }

    fn committer(&self, _task: u16) -> Result<Box<dyn SinkCommitter>, ConnectorError> {
        Ok(Box::new(Nothing))
    }

    fn commit_interval(&self) -> Option<std::time::Duration> {
        None
    }
}

struct Counter {
    rows: u64,
}

impl SinkEncoder for Counter {
    fn encode(&mut self, rows: &RecordBatch, _weights: Option<&Int64Array>) -> Result<(), ConnectorError> {
        self.rows += rows.num_rows() as u64;
        Ok(())
    }

    fn end_epoch(&mut self, plan: &EpochPlan) -> Result<EncodedEpoch, ConnectorError> {
        let rows = std::mem::take(&mut self.rows);
        Ok(EncodedEpoch { epoch: plan.epoch, rows, bytes: 0, payload: Payload::Empty })
    }
}

struct Nothing;

impl SinkCommitter for Nothing {
    fn open(&mut self, context: &SinkContext) -> Result<Epoch, ConnectorError> {
        Ok(context.restored)
    }

    fn publish(&mut self, _epochs: Vec<EncodedEpoch>) -> Result<(), ConnectorError> {
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::sync::Arc;

    use arrow::array::ArrayRef;

    use super::*;

    #[test]
    fn rows_are_counted_per_epoch() {
        let rows = |n: i64| {
            let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..n));
            RecordBatch::try_from_iter([("a", column)]).unwrap()
        };
        let plan = |n| EpochPlan {
            epoch: Epoch(n),
            now_ms: 0,
            sources: Vec::new(),
            checkpoint: false,
            flush: false,
            last: false,
        };
        let mut encoder = Blackhole.encoder(0).unwrap();
        encoder.encode(&rows(3), None).unwrap();
        encoder.encode(&rows(4), None).unwrap();
        assert_eq!(encoder.end_epoch(&plan(1)).unwrap().rows, 7);
        assert_eq!(encoder.end_epoch(&plan(2)).unwrap().rows, 0);
    }
}
