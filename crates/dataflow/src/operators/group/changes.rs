//! Results of groups before and after an epoch, as the changes that leave the operator.
use arrow::array::{ArrayRef, Int64Array, UInt32Array, new_empty_array};
use arrow::compute::{interleave, take};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, SortField};
use datafusion::error::Result;

use super::super::BATCH_ROWS;
use crate::DeltaBatch;

/// Results of some groups: columns, and for each group that the epoch touched its row in them, if it has one.
pub(super) struct Results {
    pub columns: Vec<ArrayRef>,
    pub rows: Vec<Option<u32>>,
}

/// The changes of groups with these keys: for each one whose result is another, the old row, then the new one.
pub(super) fn changes(
    output: &SchemaRef,
    append_only: bool,
    keys: &[ArrayRef],
    old: &Results,
    new: &Results,
    out: &mut Vec<DeltaBatch>,
) -> Result<()> {
    let types = output.fields()[keys.len()..].iter().map(|f| f.data_type());
    let fit = |columns: &[ArrayRef]| {
        let cast = |(c, t): (&ArrayRef, _)| match c.data_type() == t {
            true => Ok(c.clone()),
            false => arrow::compute::cast(c, t),
        };
        columns.iter().zip(types.clone()).map(cast).collect::<Result<Vec<_>, _>>()
    };
    let (before, after) = (fit(&old.columns)?, fit(&new.columns)?);
    let same: Box<dyn Fn(u32, u32) -> bool> = if after.is_empty() {
        Box::new(|_, _| true)
    } else {
        let converter = RowConverter::new(types.map(|t| SortField::new(t.clone())).collect())?;
        let (before, after) = (converter.convert_columns(&before)?, converter.convert_columns(&after)?);
        Box::new(move |o, n| before.row(o as usize) == after.row(n as usize))
    };
    let (mut groups, mut results, mut weights) = (Vec::new(), Vec::new(), Vec::new());
    for (group, (o, n)) in old.rows.iter().zip(&new.rows).enumerate() {
        if let (Some(o), Some(n)) = (o, n)
            && same(*o, *n)
        {
            continue;
        }
        for (side, row, weight) in [(0, o, -1), (1, n, 1)] {
            if let Some(row) = row {
                groups.push(group as u32);
                results.push((side, *row as usize));
                weights.push(weight);
            }
        }
    }
    for from in (0..groups.len()).step_by(BATCH_ROWS) {
        let to = (from + BATCH_ROWS).min(groups.len());
        let at = UInt32Array::from(groups[from..to].to_vec());
        let mut columns = keys.iter().map(|k| take(k, &at, None)).collect::<Result<Vec<_>, _>>()?;
        for (before, after) in before.iter().zip(&after) {
            columns.push(interleave(&[before.as_ref(), after.as_ref()], &results[from..to])?);
        }
        let weights = (!append_only).then(|| Int64Array::from(weights[from..to].to_vec()));
        out.push(DeltaBatch { rows: RecordBatch::try_new(output.clone(), columns)?, weights });
    }
    Ok(())
}

/// Takes back the results of groups that are gone.
pub(super) fn gone(
    output: &SchemaRef,
    keys: &[ArrayRef],
    results: Vec<ArrayRef>,
    groups: usize,
    out: &mut Vec<DeltaBatch>,
) -> Result<()> {
    let none = results.iter().map(|c| new_empty_array(c.data_type())).collect();
    let old = Results { columns: results, rows: (0..groups as u32).map(Some).collect() };
    changes(output, false, keys, &old, &Results { columns: none, rows: vec![None; groups] }, out)
}
