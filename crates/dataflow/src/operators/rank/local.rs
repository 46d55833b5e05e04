//! First half of a rank over all rows, before the shuffle that brings them to one task: of an epoch's rows only those can be among the first of all
//! that are among the first of their task. Without state.
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use millstream_plan::OperatorId;

use super::{shorten, wanted};
use crate::graph::Rank;
use crate::operators::ordered::{EncodedRows, Kept, Partitions};
use crate::operators::{EpochContext, Operator, Step};
use crate::{DataflowError, DeltaBatch};

pub(in crate::operators) struct LocalRankOperator {
    id: OperatorId,
    spec: Arc<Rank>,
    schema: SchemaRef,
    partitions: Partitions,
}

impl LocalRankOperator {
    pub fn new(id: OperatorId, spec: &Arc<Rank>, schema: SchemaRef) -> Result<Self, DataflowError> {
        if !spec.is_bounded() {
            return Err(DataflowError::Corrupt(format!("operator {id}: a rank that needs all rows")));
        }
        Ok(Self { id, spec: spec.clone(), schema, partitions: Partitions::new(id, &spec.rows, Kept::Few)? })
    }
}

impl Operator for LocalRankOperator {
    fn process(
        &mut self,
        _: usize,
        batch: DeltaBatch,
        _: &EpochContext<'_>,
        _: &mut Vec<DeltaBatch>,
    ) -> Result<Step, DataflowError> {
        if batch.weights.is_some() {
            return Err(DataflowError::Corrupt(format!("operator {}: weights on an append-only edge", self.id)));
        }
        let spec = &self.spec;
        self.partitions.gather(&batch, |b, o, r| wanted(spec, b, o, r), |pending| shorten(spec, pending))?;
        Ok(Step::Done)
    }

    fn end_epoch(&mut self, _: &EpochContext<'_>, out: &mut Vec<DeltaBatch>) -> Result<Step, DataflowError> {
        let mut rows = EncodedRows::default();
        for slot in self.partitions.touched().to_vec() {
            let mut pending = self.partitions.take_pending(slot);
            shorten(&self.spec, &mut pending);
            let key = self.partitions.get(slot).key.clone();
            for (row, weight) in &pending {
                (0..*weight).for_each(|_| rows.push(&key, row));
            }
        }
        self.partitions.end_epoch();
        if rows.len() > 0 {
            let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
            let columns = rows.decode(&self.partitions.layout)?;
            let rows = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
            out.push(DeltaBatch::appended(rows));
        }
        Ok(Step::Done)
    }
}
