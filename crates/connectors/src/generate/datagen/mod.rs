//! `datagen`: rows of random values or sequences, after Flink's connector of that name.
//!
//! A value depends on (seed, name of the column, number of the row) alone. Differences to Flink: random floating point numbers are by default
//! in `[0, 1)`; a row's timestamps are the time at which the row is due, less up to `max-past`, instead of the clock's.
mod field;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use millstream_formats::{FormatKind, FormatOptions, encoder};
use millstream_plan::SplitId;
use millstream_plan::options::{OptionKind, OptionSpec, did_you_mean};

use self::field::{FieldOptions, FieldRows};
use super::reader::{RowMaker, ShardReader};
use super::shards::{Shard, ShardEnumerator};
use super::{NUMBER_OF_ROWS, ROWS_PER_SECOND, SEED, at_least, required};
use crate::registry::{Connector, appended, no_changes, not_a_sink};
use crate::{
    ConnectorError, DeadLetter, DeadLetterReason, Origin, SourceBatch, SourceFactory, SourceReader, SourceSpec,
    SplitEnumerator,
};

const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: ROWS_PER_SECOND,
        synonyms: &["rowsPerSecond"],
        kind: OptionKind::Integer,
        default: Some("10000"),
        text: "Rows per second of the clock.",
    },
    NUMBER_OF_ROWS,
    SEED,
];

pub(crate) static DATAGEN: Connector = Connector {
    name: "datagen",
    source_options: Some(&[OPTIONS]),
    sink_options: None,
    pass_through: &["fields."],
    source_metadata: &[],
    sink_metadata: &[],
    has_format: false,
    reads: appended,
    changes: no_changes,
    source: |spec| Ok(Box::new(Datagen::new(spec)?)),
    sink: |spec| Err(not_a_sink(&spec, "datagen")),
};

struct Datagen {
    spec: SourceSpec,
    rows: Option<u64>,
    rows_per_second: u64,
    tag: String,
    fields: Vec<FieldRows>,
}

impl Datagen {
    fn new(spec: SourceSpec) -> Result<Self, ConnectorError> {
        let seed = spec.options.integer("seed").unwrap_or(1) as u64;
        let given = by_column(&spec)?;
        let fields = spec.schema.fields().iter().map(|f| {
            let options = given.get(f.name().as_str()).copied().unwrap_or_default();
            FieldRows::new(&spec.table, seed, f, options)
        });
        let fields = fields.collect::<Result<_, _>>()?;
        // Also sequences of columns that no query uses end the table.
        let mut rows = at_least(&spec.options, "number-of-rows", 0)?;
        for options in given.values() {
            if let Some(length) = options.sequence_length()? {
                rows = Some(rows.unwrap_or(u64::MAX).min(length));
            }
        }
        let options: Vec<String> = spec.options.passed.iter().map(|(k, v)| format!(" {k}={v}")).collect();
        let rows_per_second = required(&spec.options, ROWS_PER_SECOND, 1)?;
        let tag = format!("seed={seed} rows-per-second={rows_per_second}{}", options.concat());
        Ok(Self { rows, rows_per_second, tag, fields, spec })
    }
}

/// The options `fields.<column>.<option>` of each column.
fn by_column(spec: &SourceSpec) -> Result<BTreeMap<&str, FieldOptions<'_>>, ConnectorError> {
    let mut columns: BTreeMap<&str, FieldOptions<'_>> = BTreeMap::new();
    for (name, value) in &spec.options.passed {
        let known = || format!("there are {}", FieldOptions::NAMES.join(", "));
        let Some((column, option)) = name.rsplit_once('.') else {
            return Err(ConnectorError::user(format!("unknown option 'fields.{name}'"), known()));
        };
        if !columns.entry(column).or_default().set(option, value) {
            let hint = match did_you_mean(option, FieldOptions::NAMES.iter().copied()) {
                Some(similar) => format!("did you mean 'fields.{column}.{similar}'?"),
                None => known(),
            };
            return Err(ConnectorError::user(format!("unknown option 'fields.{name}'"), hint));
        }
    }
    Ok(columns)
}

impl SourceFactory for Datagen {
    fn enumerator(&self) -> Result<Box<dyn SplitEnumerator>, ConnectorError> {
        let pace = Some(self.rows_per_second);
        Ok(Box::new(ShardEnumerator::new(self.spec.parallelism, self.rows, pace, self.tag.clone())))
    }

    fn reader(&self, _task: u16) -> Result<Box<dyn SourceReader>, ConnectorError> {
        let rows = Rows {
            table: self.spec.table.clone(),
            schema: Arc::clone(&self.spec.schema),
            rows_per_second: self.rows_per_second,
            fields: self.fields.clone(),
        };
        Ok(Box::new(ShardReader::new(self.spec.table.clone(), self.tag.clone(), rows)))
    }
}

struct Rows {
    table: String,
    schema: SchemaRef,
    rows_per_second: u64,
    fields: Vec<FieldRows>,
}

impl RowMaker for Rows {
    fn make(&mut self, split: &SplitId, shard: &Shard, positions: Range<u64>) -> Result<SourceBatch, ConnectorError> {
        let first = positions.start;
        let numbers: Vec<u64> = positions.map(|p| shard.row(p)).collect();
        let start_ms = shard.start_ms.unwrap_or(0);
        let due = |row: &u64| start_ms + (u128::from(*row) * 1000 / u128::from(self.rows_per_second)) as i64;
        let times: Vec<i64> = numbers.iter().map(due).collect();
        let failed = |e| ConnectorError::Fatal(format!("table '{}': {e}", self.table));
        let columns: Result<_, _> = self.fields.iter().map(|f| f.array(&numbers, &times)).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(numbers.len()));
        let rows = columns
            .and_then(|columns| RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options))
            .map_err(failed)?;
        let bytes = rows.get_array_memory_size() as u64;
        let origin = RowOrigin { table: self.table.clone(), split: split.clone(), first, times, rows: rows.clone() };
        let records = numbers.len() as u64;
        Ok(SourceBatch { rows, weights: None, bad: Vec::new(), bad_count: 0, records, bytes, origin: Box::new(origin) })
    }
}

struct RowOrigin {
    table: String,
    split: SplitId,
    first: u64,
    times: Vec<i64>,
    rows: RecordBatch,
}

impl Origin for RowOrigin {
    fn dead_letter(&self, row: usize, reason: DeadLetterReason, detail: String) -> DeadLetter {
        let mut value = Vec::new();
        let json = FormatOptions::new(FormatKind::Json);
        let written = encoder(&self.rows.schema(), &json)
            .and_then(|mut encoder| encoder.encode(&self.rows.slice(row, 1), &mut value, &mut Vec::new()));
        let detail = match written {
            Ok(()) => detail,
            Err(e) => format!("{detail} (the row cannot be shown: {e})"),
        };
        DeadLetter {
            source: self.table.clone(),
            split: self.split.clone(),
            position: self.first + row as u64,
            timestamp_ms: Some(self.times[row]),
            reason,
            detail,
            key: None,
            value,
        }
    }
}
