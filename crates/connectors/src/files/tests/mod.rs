#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
mod sink;
mod source;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use millstream_formats::{FORMAT_OPTIONS, FormatOptions};
use millstream_plan::options::{Resolved, resolve};
use millstream_plan::{Epoch, EpochPlan};

/// Columns `id BIGINT, name STRING`.
fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true), Field::new("name", DataType::Utf8, true)]))
}

fn rows(of: std::ops::Range<i64>) -> RecordBatch {
    let id: ArrayRef = Arc::new(Int64Array::from_iter_values(of.clone()));
    let name: ArrayRef = Arc::new(StringArray::from_iter_values(of.map(|i| format!("n{}", i % 3))));
    RecordBatch::try_new(schema(), vec![id, name]).unwrap()
}

fn options(tables: &[&[millstream_plan::options::OptionSpec]], path: &Path, given: &[(&str, &str)]) -> Resolved {
    let mut all: BTreeMap<String, String> = given.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    all.insert("path".to_owned(), path.display().to_string());
    let tables: Vec<_> = tables.iter().copied().chain([FORMAT_OPTIONS]).collect();
    resolve(&tables, &[], &all).unwrap()
}

fn format(resolved: &Resolved) -> FormatOptions {
    let mut format = FormatOptions::from_resolved(resolved).unwrap().unwrap();
    format.columns = vec!["id".to_owned(), "name".to_owned()];
    format
}

fn plan(epoch: u64, flush: bool) -> EpochPlan {
    EpochPlan { epoch: Epoch(epoch), now_ms: 0, sources: Vec::new(), checkpoint: false, flush, last: false }
}
