//! The judge: the same SQL run as a batch by DataFusion over the same rows, and the comparison as multisets.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;

use crate::wait::block_on;

/// How many missing and how many surplus rows a failure shows.
const SHOWN: usize = 20;

/// Tables in memory to ask in SQL.
#[derive(Default)]
pub struct Oracle {
    context: SessionContext,
}

impl Oracle {
    /// Adds a table.
    pub fn table(self, name: &str, schema: SchemaRef, rows: Vec<RecordBatch>) -> Self {
        let table =
            MemTable::try_new(schema, vec![rows]).unwrap_or_else(|e| panic!("cannot make the table {name}: {e}"));
        self.context
            .register_table(name, Arc::new(table))
            .unwrap_or_else(|e| panic!("cannot add the table {name}: {e}"));
        self
    }

    /// The rows of a query.
    pub fn query(&self, sql: &str) -> Vec<RecordBatch> {
        block_on(async { self.context.sql(sql).await?.collect().await }).unwrap_or_else(|e| panic!("{e}\n{sql}"))
    }
}

/// Panics unless both have the same rows, each equally often, in any order.
///
/// Columns are matched by name and values by their text, so that a `BIGINT` equals an `INT` and a timestamp in
/// milliseconds one in microseconds. Names must agree as a set, as must NULLs.
pub fn assert_same_rows(what: &str, expected: &[RecordBatch], actual: &[RecordBatch]) {
    if let Some(difference) = difference(expected, actual) {
        panic!("{what}: {difference}");
    }
}

/// What differs between two multisets of rows, for a reader; nothing when they are the same.
pub fn difference(expected: &[RecordBatch], actual: &[RecordBatch]) -> Option<String> {
    let columns = column_names(expected.first().or(actual.first())?);
    let mut counts: BTreeMap<Vec<String>, i64> = BTreeMap::new();
    for (batches, step) in [(expected, 1), (actual, -1)] {
        for batch in batches {
            let (mut here, mut there) = (column_names(batch), columns.clone());
            if here != there {
                here.sort();
                there.sort();
                if here != there {
                    return Some(format!("the columns are {here:?} instead of {there:?}"));
                }
            }
            for row in texts(batch, &columns) {
                *counts.entry(row).or_default() += step;
            }
        }
    }
    counts.retain(|_, count| *count != 0);
    if counts.is_empty() {
        return None;
    }
    let size = |batches: &[RecordBatch]| batches.iter().map(RecordBatch::num_rows).sum::<usize>();
    let mut text = format!("{} rows expected, {} there\n  {}", size(expected), size(actual), columns.join(" | "));
    for (sign, title) in [(1, "missing"), (-1, "too many")] {
        let rows: Vec<_> = counts.iter().filter(|(_, count)| count.signum() == sign).collect();
        let _ = write!(text, "\n{title}: {}", rows.iter().map(|(_, count)| count.abs()).sum::<i64>());
        for (row, count) in rows.iter().take(SHOWN) {
            let _ = write!(text, "\n  {}", row.join(" | "));
            if count.abs() > 1 {
                let _ = write!(text, "   ({} times)", count.abs());
            }
        }
        if rows.len() > SHOWN {
            let _ = write!(text, "\n  …");
        }
    }
    Some(text)
}

fn column_names(batch: &RecordBatch) -> Vec<String> {
    batch.schema().fields().iter().map(|field| field.name().clone()).collect()
}

fn texts(batch: &RecordBatch, columns: &[String]) -> Vec<Vec<String>> {
    let options = FormatOptions::new().with_null("NULL");
    let formatters: Vec<ArrayFormatter<'_>> = columns
        .iter()
        .map(|name| {
            let column = batch.column_by_name(name).unwrap_or_else(|| panic!("the column {name} is there twice"));
            ArrayFormatter::try_new(column, &options).unwrap_or_else(|e| panic!("cannot show the column {name}: {e}"))
        })
        .collect();
    (0..batch.num_rows()).map(|row| formatters.iter().map(|column| column.value(row).to_string()).collect()).collect()
}
