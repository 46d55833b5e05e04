//! The sink: gathers rows into files and hands them over when the plan says `flush`, or before when one has reached its size.
//!
//! Files are named `part-<sink>-<task>-<epoch>-<sequence>.<format>`, in the folder of their partition. A file is handed over in the epoch in
//! which it is finished; at an epoch with `flush` nothing is left behind, so a checkpoint holds no rows of a sink, and a replay from
//! it makes the same files.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::Int64Array;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use millstream_formats::file::{FileWriter, extension};
use millstream_formats::{FormatError, FormatOptions};
use millstream_plan::{EpochPlan, SinkId};

use super::commit::FileCommitter;
use super::folder::{Folder, folder};
use super::options::SinkOptions;
use super::partitions::Partitions;
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
    partitions: Partitions,
}

impl FileSink {
    pub fn new(spec: SinkSpec) -> Result<Self, ConnectorError> {
        let Some(mut format) = spec.format else {
            return Err(ConnectorError::user(
                format!("table '{}': option 'format' is missing", spec.table),
                "add 'format' = 'parquet', 'json' or 'csv'",
            ));
        };
        let partitions = Partitions::new(&spec.schema, &spec.partitioned_by);
        if partitions.file_schema().fields().is_empty() {
            return Err(ConnectorError::user(
                format!("table '{}': all columns are in PARTITIONED BY, none is left for the files", spec.table),
                "leave at least one column out of PARTITIONED BY",
            ));
        }
        // Positions in the files are those of the columns that stand in them.
        format.columns = partitions.file_schema().fields().iter().map(|f| f.name().clone()).collect();
        let sink = Self {
            id: spec.id,
            folder: folder(&spec.table, &spec.options)?,
            options: SinkOptions::new(&spec.options)?,
            table: spec.table,
            format,
            partitions,
        };
        // A type that the format cannot hold is an error now, not at the first row.
        FileWriter::new(sink.partitions.file_schema(), &sink.format).map_err(|e| type_error(&sink.table, &e))?;
        Ok(sink)
    }

    fn prefix(&self, task: u16) -> String {
        format!("part-{}-{task}-", self.id)
    }
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
            partitions: self.partitions.clone(),
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
    partitions: Partitions,
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
                    FileWriter::new(self.partitions.file_schema(), &self.format).map_err(|e| self.failed(e))?
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

    fn finish(&mut self, folder: String, part: FileWriter) -> Result<(), ConnectorError> {
        let rows = part.rows();
        let bytes = part.finish().map_err(|e| self.failed(e))?;
        self.finished.push(Finished { folder, bytes, rows });
        Ok(())
    }
}

impl SinkEncoder for FileEncoder {
    fn encode(&mut self, rows: &RecordBatch, weights: Option<&Int64Array>) -> Result<(), ConnectorError> {
        if weights.is_some_and(|w| w.iter().any(|w| w != Some(1))) {
            return Err(ConnectorError::user(
                format!("table '{}': rows are taken back, but files only grow", self.table),
                "write changing results to a sink with a PRIMARY KEY, such as a keyed Kafka topic",
            ));
        }
        let parts = self.partitions.split(rows).map_err(|e| self.failed(e))?;
        parts.into_iter().try_for_each(|(folder, rows)| self.append(folder, rows))
    }

    fn end_epoch(&mut self, plan: &EpochPlan) -> Result<EncodedEpoch, ConnectorError> {
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
