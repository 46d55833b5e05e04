//! Reads planned files.
//!
//! Each range is read by a thread of its own, which is a few batches ahead of the task and ends when its file does or when the task has lost
//! interest. A batch is at most [`BATCH_ROWS`] records or [`BATCH_BYTES`] of text, counted from the start of the file, or of the row group.
//!
//! What can go wrong: a record that cannot be decoded is bad by itself; a file that is damaged is bad as a whole from there on, and what
//! stood before the damage counts; a file that is not the planned one stops the pipeline, because its rows would be different ones when it
//! is read again.
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread;

use arrow::array::{ArrayRef, Int64Array, StringArray, TimestampMillisecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use millstream_formats::file::{LineReader, Lines, ParquetFile, ReadLimits};
use millstream_formats::{DecodeSpec, FormatError, FormatKind, FormatOptions, decoder, encoder};
use millstream_plan::{SplitId, SplitRange};

use super::folder::{FileInfo, Folder, OpenFile, PATIENT, Sequential};
use crate::registry::BadRecords;
use crate::{ConnectorError, DeadLetter, DeadLetterReason, Origin, SourceBatch, SourcePoll, SourceReader};

const BATCH_ROWS: usize = 8192;
const BATCH_BYTES: usize = 8 << 20;
/// Batches that wait for the task.
const AHEAD: usize = 2;

/// What all files of a table have in common.
pub struct Reading {
    pub table: String,
    pub folder: Arc<dyn Folder>,
    pub decode: DecodeSpec,
    /// Keys of the metadata columns.
    pub metadata: Vec<String>,
    /// Decoded columns, then metadata columns.
    pub schema: SchemaRef,
    pub bad_records: BadRecords,
    pub limits: ReadLimits,
}

/// The half in a source task.
pub struct FileReader {
    reading: Arc<Reading>,
    job: Option<Job>,
}

/// A range that is being read.
struct Job {
    range: SplitRange,
    batches: Receiver<Result<Message, ConnectorError>>,
}

/// What the thread has to say, beside an error.
enum Message {
    Batch(SourceBatch),
    /// All batches of the range have been sent.
    End,
}

impl FileReader {
    pub fn new(reading: Arc<Reading>) -> Self {
        Self { reading, job: None }
    }

    fn start(&self, range: &SplitRange) -> Result<Job, ConnectorError> {
        let (sender, batches) = sync_channel(AHEAD);
        let (reading, planned) = (Arc::clone(&self.reading), range.clone());
        let work = move || {
            let outcome = reading.read(&planned, &sender).map(|()| Message::End);
            // If nobody listens, nobody needs it.
            drop(sender.send(outcome));
        };
        // Ends by itself when the receiver is dropped with the job.
        thread::Builder::new().name("file-reader".to_owned()).spawn(work).map_err(|e| {
            ConnectorError::Retry(format!("table '{}': cannot start a thread to read files: {e}", self.reading.table))
        })?;
        Ok(Job { range: range.clone(), batches })
    }
}

impl SourceReader for FileReader {
    fn poll(&mut self, range: &SplitRange) -> Result<SourcePoll, ConnectorError> {
        if range.from >= range.to {
            return Ok(SourcePoll::Done);
        }
        let job = match self.job.take() {
            Some(job) if job.range == *range => job,
            _ => self.start(range)?,
        };
        match job.batches.try_recv() {
            Ok(Ok(Message::End)) => Ok(SourcePoll::Done),
            Ok(Ok(Message::Batch(batch))) => {
                self.job = Some(job);
                Ok(SourcePoll::Batch(batch))
            }
            Ok(Err(e)) => Err(e),
            Err(TryRecvError::Empty) => {
                self.job = Some(job);
                Ok(SourcePoll::Pending)
            }
            Err(TryRecvError::Disconnected) => Err(ConnectorError::Fatal(format!(
                "the thread that reads file {} has panicked",
                self.reading.folder.name_of(&range.split.0)
            ))),
        }
    }
}

/// Why a file is not read to its end.
enum Stop {
    /// It is damaged.
    Bad(FormatError),
    Error(ConnectorError),
    /// Nobody listens.
    Cancelled,
}

impl From<FormatError> for Stop {
    fn from(e: FormatError) -> Self {
        Self::Bad(e)
    }
}

impl From<ConnectorError> for Stop {
    fn from(e: ConnectorError) -> Self {
        Self::Error(e)
    }
}

type Batches = SyncSender<Result<Message, ConnectorError>>;

fn send(out: &Batches, batch: SourceBatch) -> Result<(), Stop> {
    out.send(Ok(Message::Batch(batch))).map_err(|_| Stop::Cancelled)
}

impl Reading {
    fn read(&self, range: &SplitRange, out: &Batches) -> Result<(), ConnectorError> {
        let file = PATIENT.retry(|| self.folder.open(&range.split.0, &range.tag))?;
        let mut records = 0;
        let outcome = match self.decode.options.kind {
            FormatKind::Parquet => self.read_parquet(&file, &mut records, out),
            _ => self.read_lines(&file, &mut records, out),
        };
        match outcome {
            Ok(()) | Err(Stop::Cancelled) => Ok(()),
            Err(Stop::Error(e)) => Err(e),
            Err(Stop::Bad(e)) => {
                let detail = format!("file {}: {e}", self.folder.name_of(&range.split.0));
                let origin = RowOrigin { letters: self.letters(file.info(), records), rows: None };
                let letter = origin.letters.letter(0, DeadLetterReason::Bad, detail, Vec::new());
                let rows = RecordBatch::new_empty(Arc::clone(&self.schema));
                let mut batch = self.batch(rows, 0, Box::new(origin));
                self.bad(&mut batch, vec![letter])?;
                drop(out.send(Ok(Message::Batch(batch))));
                Ok(())
            }
        }
    }

    fn read_lines(&self, file: &Arc<dyn OpenFile>, records: &mut u64, out: &Batches) -> Result<(), Stop> {
        let input = Sequential::new(Arc::clone(file));
        let failure = input.failure();
        // An error of the folder comes out as one of the format.
        let fault = |e: FormatError| failure.take().map_or(Stop::Bad(e), Stop::Error);
        let mut lines = LineReader::new(input, &self.decode.options, self.limits).map_err(fault)?;
        let mut decoder = decoder(self.decode.clone())?;
        while let Some(lines) = lines.next(BATCH_ROWS, BATCH_BYTES).map_err(fault)? {
            if let Some(begin) = lines.too_long() {
                let letters = self.letters(file.info(), lines.first());
                let place = format!("file {}, record {}", letters.file, lines.first() + 1);
                let limit = self.limits.line_bytes;
                let detail =
                    format!("{place}: longer than {limit} bytes, which are kept here; raise 'source.max-line-size'");
                let letter = letters.letter(0, DeadLetterReason::Bad, detail, begin.to_vec());
                *records += 1;
                let origin = RowOrigin { letters, rows: None };
                let rows = RecordBatch::new_empty(Arc::clone(&self.schema));
                let mut batch = SourceBatch { bytes: begin.len() as u64, ..self.batch(rows, 1, Box::new(origin)) };
                self.bad(&mut batch, vec![letter])?;
                send(out, batch)?;
                continue;
            }
            let messages = lines.messages();
            let decoded = decoder.decode(&messages)?;
            let bytes = messages.iter().map(|m| m.len() as u64).sum();
            let letters = self.letters(file.info(), lines.first());
            let bad = decoded.bad.into_iter().map(|bad| {
                let place = format!("file {}, record {}", letters.file, lines.first() + u64::from(bad.message) + 1);
                let value = messages[bad.message as usize].to_vec();
                letters.letter(bad.message.into(), DeadLetterReason::Bad, format!("{place}: {}", bad.reason), value)
            });
            let bad = bad.collect();
            let count = messages.len() as u64;
            *records += count;
            let rows = self.complete(&decoded.rows, file.info())?;
            let origin = LineOrigin { letters, lines, message_of: decoded.origin };
            let weights = decoded.weights;
            let batch = self.batch(rows, 0, Box::new(origin));
            let mut batch = SourceBatch { weights, records: count, bytes, ..batch };
            self.bad(&mut batch, bad)?;
            send(out, batch)?;
        }
        Ok(())
    }

    fn read_parquet(&self, file: &Arc<dyn OpenFile>, records: &mut u64, out: &Batches) -> Result<(), Stop> {
        let size = file.info().bytes;
        let bytes = PATIENT.retry(|| file.read_at(0..size))?;
        let parquet = ParquetFile::open(bytes, &self.decode.schema)?;
        for group in 0..parquet.row_groups() {
            for rows in parquet.read(group, BATCH_ROWS)? {
                let rows = self.complete(&rows?, file.info())?;
                let origin = RowOrigin { letters: self.letters(file.info(), *records), rows: Some(rows.clone()) };
                let count = rows.num_rows() as u64;
                *records += count;
                send(out, self.batch(rows, count, Box::new(origin)))?;
            }
        }
        Ok(())
    }

    /// Adds the metadata columns.
    fn complete(&self, rows: &RecordBatch, info: &FileInfo) -> Result<RecordBatch, FormatError> {
        let count = rows.num_rows();
        let text =
            |value: &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(std::iter::repeat_n(value, count))) };
        let mut columns = rows.columns().to_vec();
        for (key, field) in self.metadata.iter().zip(&self.schema.fields()[columns.len()..]) {
            let column = match key.as_str() {
                "file.path" => text(&self.folder.name_of(&info.path)),
                "file.name" => text(info.path.rsplit('/').next().unwrap_or(&info.path)),
                "file.size" => Arc::new(Int64Array::from_value(info.bytes as i64, count)) as ArrayRef,
                _ => modification_time(info.modified_ms, count, field.data_type())?,
            };
            columns.push(column);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }

    fn batch(&self, rows: RecordBatch, records: u64, origin: Box<dyn Origin>) -> SourceBatch {
        let bytes = rows.get_array_memory_size() as u64;
        SourceBatch { rows, weights: None, bad: Vec::new(), bad_count: 0, records, bytes, origin }
    }

    /// Does with bad records what the option says.
    fn bad(&self, batch: &mut SourceBatch, letters: Vec<DeadLetter>) -> Result<(), ConnectorError> {
        batch.bad_count += letters.len() as u64;
        match (self.bad_records, letters.first()) {
            (_, None) | (BadRecords::Drop, _) => Ok(()),
            (BadRecords::DeadLetter | BadRecords::Null, _) => {
                batch.bad.extend(letters);
                Ok(())
            }
            (BadRecords::Fail, Some(letter)) => Err(ConnectorError::user(
                format!("table '{}': {}", self.table, letter.detail),
                "correct the file, or set 'bad-records' = 'dead-letter'",
            )),
        }
    }

    fn letters(&self, info: &FileInfo, first: u64) -> Letters {
        Letters {
            table: self.table.clone(),
            split: SplitId(info.path.clone()),
            file: self.folder.name_of(&info.path),
            modified_ms: info.modified_ms,
            first,
        }
    }
}

fn modification_time(ms: i64, count: usize, data_type: &DataType) -> Result<ArrayRef, ArrowError> {
    cast(&TimestampMillisecondArray::from_value(ms, count), data_type)
}

/// Makes dead letters of one batch.
struct Letters {
    table: String,
    split: SplitId,
    /// Full name of the file.
    file: String,
    modified_ms: i64,
    /// Number of the batch's first record in the file.
    first: u64,
}

impl Letters {
    fn letter(&self, record: u64, reason: DeadLetterReason, detail: String, value: Vec<u8>) -> DeadLetter {
        DeadLetter {
            source: self.table.clone(),
            split: self.split.clone(),
            position: self.first + record,
            timestamp_ms: Some(self.modified_ms),
            reason,
            detail,
            key: None,
            value,
        }
    }
}

/// Rows that were lines.
struct LineOrigin {
    letters: Letters,
    lines: Lines,
    message_of: Vec<u32>,
}

impl Origin for LineOrigin {
    fn dead_letter(&self, row: usize, reason: DeadLetterReason, detail: String) -> DeadLetter {
        let message = self.message_of[row];
        let value = self.lines.messages()[message as usize].to_vec();
        self.letters.letter(message.into(), reason, detail, value)
    }
}

/// Rows that have no text of their own: shown as JSON.
struct RowOrigin {
    letters: Letters,
    rows: Option<RecordBatch>,
}

impl Origin for RowOrigin {
    fn dead_letter(&self, row: usize, reason: DeadLetterReason, detail: String) -> DeadLetter {
        let mut value = Vec::new();
        let json = FormatOptions::new(FormatKind::Json);
        let written = self.rows.as_ref().map_or(Ok(()), |rows| {
            encoder(&rows.schema(), &json)?.encode(&rows.slice(row, 1), &mut value, &mut Vec::new())
        });
        let detail = match written {
            Ok(()) => detail,
            Err(e) => format!("{detail} (the row cannot be shown: {e})"),
        };
        self.letters.letter(row as u64, reason, detail, value)
    }
}
