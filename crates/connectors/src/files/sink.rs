//! The sink: gathers rows into files and hands them over when the plan says `flush`, or before when one has reached its size.
//!
//! Files are named `part-<sink>-<task>-<epoch>-<sequence>.<format>`, in the folder of their partition. A file is handed over in the epoch in
//! which it is finished; at an epoch with `flush` nothing is left behind, so a checkpoint holds no rows of a sink, and a replay from
//! it makes the same files.
//!
//! A table with `changelog.column`, or of a format that holds changes, takes rows back too: the changes of an epoch are added up
//! ([`EpochChanges`]) and written at its end, each row with what becomes of it.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, BooleanArray, Int64Array};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use millstream_formats::debezium::{envelope, envelope_schema};
use millstream_formats::file::{FileWriter, extension};
use millstream_formats::{FormatError, FormatOptions};
use millstream_plan::{EpochPlan, SinkId};

use super::commit::FileCommitter;
use super::folder::{Folder, folder};
use super::options::SinkOptions;
use super::partitions::Partitions;
use crate::changes::{EpochChanges, Op, rows_with, schema_with};
use crate::{ConnectorError, EncodedEpoch, OutputFile, Payload, SinkCommitter, SinkEncoder, SinkFactory, SinkSpec};

/// Files that one task has open at once: each holds buffers of its own.
const MAX_OPEN: usize = 10_000;
/// The size of a file is looked at after every so many of its rows, so that where it ends depends on the rows alone and not on how
/// they arrived in batches.
const PIECE: u64 = 8192;

/// Writes files.
pub struct FileSink {
    table: String,
    id: SinkId,
    folder: Arc<dyn Folder>,
    format: FormatOptions,
    options: SinkOptions,
    form: Form,
    partitions: Partitions,
    /// Columns of the files.
    columns: SchemaRef,
    /// Columns of the rows that arrive, and those that identify one of them.
    schema: SchemaRef,
    key: Vec<usize>,
    updating: bool,
}

/// What a file holds.
#[derive(Clone, Debug)]
enum Form {
    Rows,
    /// Rows with what becomes of them in front.
    Ops(SchemaRef),
    /// The same as changes of the format.
    Changes(SchemaRef),
}

impl FileSink {
    pub fn new(spec: SinkSpec) -> Result<Self, ConnectorError> {
        let Some(mut format) = spec.format.clone() else {
            return Err(ConnectorError::user(
                format!("table '{}': option 'format' is missing", spec.table),
                "add 'format' = 'parquet', 'json' or 'csv'",
            ));
        };
        let column = spec.options.text("changelog.column").filter(|c| !c.is_empty());
        let form = form(&spec, &format, column)?;
        let partitions = match &form {
            Form::Rows => Partitions::new(&spec.schema, &spec.partitioned_by),
            Form::Ops(schema) | Form::Changes(schema) => {
                Partitions::new(schema, &spec.partitioned_by.iter().map(|i| i + 1).collect::<Vec<_>>())
            }
        };
        if spec.schema.fields().len() == spec.partitioned_by.len() {
            return Err(ConnectorError::user(
                format!("table '{}': all columns are in PARTITIONED BY, none is left for the files", spec.table),
                "leave at least one column out of PARTITIONED BY",
            ));
        }
        let columns = match &form {
            Form::Rows | Form::Ops(_) => Arc::clone(partitions.file_schema()),
            Form::Changes(_) => envelope_schema(&without_op(partitions.file_schema())),
        };
        // Positions in the files are those of the columns that stand in them.
        format.columns = columns.fields().iter().map(|f| f.name().clone()).collect();
        let sink = Self {
            id: spec.id,
            folder: folder(&spec.table, &spec.options)?,
            options: SinkOptions::new(&spec.options)?,
            table: spec.table,
            format,
            form,
            partitions,
            columns,
            schema: spec.schema,
            key: spec.key,
            updating: spec.updating,
        };
        // A type that the format cannot hold is an error now, not at the first row.
        FileWriter::new(&sink.columns, &sink.format).map_err(|e| type_error(&sink.table, &e))?;
        sink.changes()?;
        Ok(sink)
    }

    fn prefix(&self, task: u16) -> String {
        format!("part-{}-{task}-", self.id)
    }

    /// Where the changes of an epoch are added up, if rows can be taken back.
    fn changes(&self) -> Result<Option<EpochChanges>, ConnectorError> {
        match (&self.form, self.updating) {
            (Form::Rows, _) | (_, false) => Ok(None),
            (Form::Ops(_) | Form::Changes(_), true) => {
                EpochChanges::new(&self.table, &self.schema, &self.key).map(Some)
            }
        }
    }
}

fn form(spec: &SinkSpec, format: &FormatOptions, column: Option<&str>) -> Result<Form, ConnectorError> {
    let Some(column) = column else {
        if format.debezium.schema_include {
            return Err(ConnectorError::user(
                format!("table '{}': changes are written without their schema", spec.table),
                "leave 'debezium-json.schema-include' out",
            ));
        }
        let is_changelog = format.kind.is_changelog();
        return Ok(if is_changelog { Form::Changes(schema_with(&spec.schema, "op")) } else { Form::Rows });
    };
    if format.kind.is_changelog() {
        return Err(ConnectorError::user(
            format!("table '{}': format '{}' says itself what a change is", spec.table, format.kind),
            "leave 'changelog.column' out, or choose another format",
        ));
    }
    if spec.schema.index_of(column).is_ok() {
        return Err(ConnectorError::user(
            format!("table '{}' has a column '{column}' already, so 'changelog.column' needs another name", spec.table),
            "set 'changelog.column' to a name that no column has",
        ));
    }
    Ok(Form::Ops(schema_with(&spec.schema, column)))
}

fn without_op(schema: &SchemaRef) -> SchemaRef {
    Arc::new(Schema::new(schema.fields()[1..].to_vec()))
}

fn type_error(table: &str, e: &FormatError) -> ConnectorError {
    ConnectorError::user(format!("table '{table}': {e}"), "choose another format, or CAST the column in the INSERT")
}

impl SinkFactory for FileSink {
    fn check(&self) -> Result<(), ConnectorError> {
        self.folder.check_writable()
    }

    fn encoder(&self, task: u16) -> Result<Box<dyn SinkEncoder>, ConnectorError> {
        Ok(Box::new(FileEncoder {
            table: self.table.clone(),
            prefix: self.prefix(task),
            format: self.format.clone(),
            options: self.options,
            form: self.form.clone(),
            partitions: self.partitions.clone(),
            columns: Arc::clone(&self.columns),
            changes: self.changes()?,
            open: BTreeMap::new(),
            finished: Vec::new(),
        }))
    }

    fn committer(&self, task: u16) -> Result<Box<dyn SinkCommitter>, ConnectorError> {
        Ok(Box::new(FileCommitter::new(Arc::clone(&self.folder), Some(self.prefix(task)))))
    }

    fn commit_interval(&self) -> Option<Duration> {
        Some(self.options.commit_interval)
    }
}

/// The half that encodes.
struct FileEncoder {
    table: String,
    /// What file names begin with.
    prefix: String,
    format: FormatOptions,
    options: SinkOptions,
    form: Form,
    partitions: Partitions,
    columns: SchemaRef,
    /// Of the current epoch, if rows can be taken back.
    changes: Option<EpochChanges>,
    /// By folder.
    open: BTreeMap<String, FileWriter>,
    /// Of the current epoch, in the order in which they were finished.
    finished: Vec<Finished>,
}

/// A complete file that has no name yet.
struct Finished {
    folder: String,
    bytes: Bytes,
    rows: u64,
}

impl FileEncoder {
    fn failed(&self, e: impl std::fmt::Display) -> ConnectorError {
        ConnectorError::Fatal(format!("table '{}': cannot write rows: {e}", self.table))
    }

    fn append(&mut self, folder: String, mut rows: RecordBatch) -> Result<(), ConnectorError> {
        while rows.num_rows() > 0 {
            let mut part = match self.open.remove(&folder) {
                Some(part) => part,
                None if self.open.len() < MAX_OPEN => {
                    FileWriter::new(&self.columns, &self.format).map_err(|e| self.failed(e))?
                }
                None => {
                    return Err(ConnectorError::user(
                        format!(
                            "table '{}': PARTITIONED BY makes more than {MAX_OPEN} folders at once, such as '{folder}'",
                            self.table
                        ),
                        "partition by columns with fewer values",
                    ));
                }
            };
            let until_look = (PIECE - part.rows() % PIECE).min(self.options.file_rows - part.rows());
            let take = rows.num_rows().min(usize::try_from(until_look).unwrap_or(usize::MAX));
            part.write(&rows.slice(0, take)).map_err(|e| self.failed(e))?;
            rows = rows.slice(take, rows.num_rows() - take);
            let is_large = part.rows().is_multiple_of(PIECE) && part.size() as u64 >= self.options.file_bytes;
            let full = is_large || part.rows() >= self.options.file_rows;
            if full {
                self.finish(folder.clone(), part)?;
            } else {
                self.open.insert(folder.clone(), part);
            }
        }
        Ok(())
    }

    /// Writes rows with what becomes of them.
    fn write(&mut self, rows: &RecordBatch, ops: impl Iterator<Item = Op>) -> Result<(), ConnectorError> {
        let rows = match &self.form {
            Form::Rows => rows.clone(),
            Form::Ops(schema) | Form::Changes(schema) => rows_with(schema, ops, rows).map_err(|e| self.failed(e))?,
        };
        let parts = self.partitions.split(&rows).map_err(|e| self.failed(e))?;
        for (folder, rows) in parts {
            let rows = match &self.form {
                Form::Rows | Form::Ops(_) => rows,
                Form::Changes(_) => as_changes(&self.columns, &rows).map_err(|e| self.failed(e))?,
            };
            self.append(folder, rows)?;
        }
        Ok(())
    }

    fn finish(&mut self, folder: String, part: FileWriter) -> Result<(), ConnectorError> {
        let rows = part.rows();
        let bytes = part.finish().map_err(|e| self.failed(e))?;
        self.finished.push(Finished { folder, bytes, rows });
        Ok(())
    }
}

impl SinkEncoder for FileEncoder {
    fn encode(&mut self, rows: &RecordBatch, weights: Option<&Int64Array>) -> Result<(), ConnectorError> {
        if let Some(changes) = &mut self.changes {
            let added = changes.add(rows, weights);
            return added.map_err(|e| self.failed(e));
        }
        if weights.is_some_and(|w| w.iter().any(|w| w != Some(1))) {
            return Err(ConnectorError::user(
                format!("table '{}': rows are taken back, but files only grow", self.table),
                "write changing results to a sink with a PRIMARY KEY, such as a keyed Kafka topic",
            ));
        }
        self.write(rows, std::iter::repeat_n(Op::Insert, rows.num_rows()))
    }

    fn end_epoch(&mut self, plan: &EpochPlan) -> Result<EncodedEpoch, ConnectorError> {
        let changes = self.changes.as_mut().map(EpochChanges::take).transpose().map_err(|e| self.failed(e))?;
        for (rows, ops) in changes.unwrap_or_default() {
            self.write(&rows, ops.into_iter())?;
        }
        if plan.flush || plan.checkpoint || plan.last {
            for (folder, part) in std::mem::take(&mut self.open) {
                self.finish(folder, part)?;
            }
        }
        let mut encoded = EncodedEpoch { epoch: plan.epoch, ..EncodedEpoch::default() };
        let mut files = Vec::new();
        for (sequence, Finished { folder, bytes, rows }) in self.finished.drain(..).enumerate() {
            let (prefix, extension) = (&self.prefix, extension(&self.format));
            let path = format!("{folder}{prefix}{:010}-{sequence}.{extension}", plan.epoch.0);
            encoded.rows += rows;
            encoded.bytes += bytes.len() as u64;
            files.push(OutputFile { path, bytes, rows });
        }
        if !files.is_empty() {
            encoded.payload = Payload::Files(files);
        }
        Ok(encoded)
    }
}

/// Rows with their op in front as changes; `schema` is that of the changes.
fn as_changes(schema: &SchemaRef, rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let deleted: BooleanArray =
        rows.column(0).as_string::<i32>().iter().map(|op| op.map(|o| o.starts_with('-'))).collect();
    envelope(schema, &rows.project(&(1..rows.num_columns()).collect::<Vec<_>>())?, &deleted)
}
