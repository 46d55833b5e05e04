//! The source: its parts for one table.
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef, TimeUnit};
use millstream_formats::file::ReadLimits;
use millstream_formats::{DecodeSpec, FormatKind, FormatOptions, decoder, upsert_schema};

use super::enumerate::FileEnumerator;
use super::folder::{Folder, folder};
use super::options::SourceOptions;
use super::read::{FileReader, Reading};
use crate::registry::BadRecords;
use crate::{ConnectorError, SourceFactory, SourceReader, SourceSpec, SplitEnumerator};

/// Metadata keys with their SQL types.
pub const METADATA: &[(&str, &str)] = &[
    ("file.path", "STRING"),
    ("file.name", "STRING"),
    ("file.size", "BIGINT"),
    ("file.modification-time", "TIMESTAMP(3)"),
];

/// Reads files.
pub struct FileSource {
    folder: Arc<dyn Folder>,
    options: SourceOptions,
    reading: Arc<Reading>,
}

impl FileSource {
    pub fn new(spec: SourceSpec) -> Result<Self, ConnectorError> {
        let Some(format) = spec.format.clone() else {
            return Err(ConnectorError::user(
                format!("table '{}': option 'format' is missing", spec.table),
                "add 'format' = 'parquet', 'json' or 'csv'",
            ));
        };
        let options = SourceOptions::new(&spec.options);
        let folder = folder(&spec.table, &spec.options)?;
        let decode = decode_spec(&spec, format)?;
        let reading = Reading {
            folder: Arc::clone(&folder),
            schema: with_metadata(&spec)?,
            metadata: spec.metadata.iter().map(|m| m.key.clone()).collect(),
            bad_records: BadRecords::of(&spec.options),
            limits: ReadLimits { line_bytes: options.max_line, inflated_bytes: options.max_inflated },
            table: spec.table,
            decode,
        };
        Ok(Self { folder, options, reading: Arc::new(reading) })
    }
}

fn decode_spec(spec: &SourceSpec, format: FormatOptions) -> Result<DecodeSpec, ConnectorError> {
    let kind = format.kind;
    let decode = DecodeSpec { schema: Arc::clone(&spec.schema), options: format, prefilter: spec.prefilter.clone() };
    match kind {
        FormatKind::Json | FormatKind::DebeziumJson | FormatKind::Csv => {
            decoder(decode.clone()).map_err(|e| {
                ConnectorError::user(format!("table '{}': {e}", spec.table), "correct the column's type")
            })?;
        }
        FormatKind::Parquet => {}
        FormatKind::Raw => {
            return Err(ConnectorError::user(
                format!("table '{}': files of format 'raw' cannot be read", spec.table),
                "use 'parquet', 'json' or 'csv'",
            ));
        }
    }
    Ok(decode)
}

/// Columns of the batches.
fn with_metadata(spec: &SourceSpec) -> Result<SchemaRef, ConnectorError> {
    for column in &spec.metadata {
        let is_time = |t: &DataType| matches!(t, DataType::Timestamp(unit, _) if *unit != TimeUnit::Second);
        let fits = match column.key.as_str() {
            "file.path" | "file.name" => *column.field.data_type() == DataType::Utf8,
            "file.size" => *column.field.data_type() == DataType::Int64,
            "file.modification-time" => is_time(column.field.data_type()),
            _ => false,
        };
        if !fits {
            let known: Vec<String> = METADATA.iter().map(|(key, sql)| format!("{key} {sql}")).collect();
            return Err(ConnectorError::user(
                format!(
                    "table '{}': there is no metadata '{}' of type {}",
                    spec.table,
                    column.key,
                    column.field.data_type()
                ),
                format!("there are {}", known.join(", ")),
            ));
        }
    }
    let rows = if spec.key.is_empty() { Arc::clone(&spec.schema) } else { upsert_schema(&spec.schema, &spec.key) };
    let fields = rows.fields().iter().chain(spec.metadata.iter().map(|m| &m.field));
    Ok(Arc::new(Schema::new(fields.cloned().collect::<Vec<_>>())))
}

impl SourceFactory for FileSource {
    fn enumerator(&self) -> Result<Box<dyn SplitEnumerator>, ConnectorError> {
        self.folder.check_readable()?;
        Ok(Box::new(FileEnumerator::new(Arc::clone(&self.folder), self.options.monitor)))
    }

    fn reader(&self, _task: u16) -> Result<Box<dyn SourceReader>, ConnectorError> {
        Ok(Box::new(FileReader::new(Arc::clone(&self.reading))))
    }
}
