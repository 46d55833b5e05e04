//! `print` writes rows to standard output: an aligned table on a terminal, JSON lines otherwise.
//!
//! Rows appear when their epoch is published. The console cannot say what it has shown: after a failure, rows of the last epochs appear again.
//! Rows of an updating query have a column `op` in front, see [`changes`](crate::changes): `+I` a row that is there now, `-U` and `+U` a row and the
//! one that takes its place, `-D` a row that is there no longer.
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;

use arrow::array::Int64Array;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use millstream_formats::{Encoder, FormatKind, FormatOptions, encoder};
use millstream_plan::options::{OptionKind, OptionSpec};
use millstream_plan::{Epoch, EpochPlan};

use crate::changes::{EpochChanges, rows_with, schema_with};
use crate::registry::{Connector, appended, not_a_source, shown};
use crate::{ConnectorError, EncodedEpoch, Payload, SinkCommitter, SinkContext, SinkEncoder, SinkFactory, SinkSpec};

const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "print-identifier",
        synonyms: &[],
        kind: OptionKind::Text,
        default: None,
        text: "Text in front of every row.",
    },
    OptionSpec {
        name: "standard-error",
        synonyms: &[],
        kind: OptionKind::Bool,
        default: Some("false"),
        text: "Write to standard error instead of standard output.",
    },
];

pub(crate) static PRINT: Connector = Connector {
    name: "print",
    source_options: None,
    sink_options: Some(&[OPTIONS]),
    pass_through: &[],
    source_metadata: &[],
    sink_metadata: &[],
    has_format: false,
    reads: appended,
    changes: shown,
    source: |spec| Err(not_a_source(&spec, "print")),
    sink: |spec| Ok(Box::new(Print::new(spec))),
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    Out,
    Error,
}

/// How rows are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Table,
    JsonLines,
}

struct Print {
    table: String,
    schema: SchemaRef,
    key: Vec<usize>,
    updating: bool,
    identifier: Option<String>,
    stream: Stream,
    form: Form,
}

impl Print {
    fn new(spec: SinkSpec) -> Self {
        let stream = if spec.options.is_true("standard-error") { Stream::Error } else { Stream::Out };
        let terminal = match stream {
            Stream::Out => io::stdout().is_terminal(),
            Stream::Error => io::stderr().is_terminal(),
        };
        Self {
            identifier: spec.options.text("print-identifier").filter(|i| !i.is_empty()).map(str::to_owned),
            form: if terminal { Form::Table } else { Form::JsonLines },
            table: spec.table,
            schema: spec.schema,
            key: spec.key,
            updating: spec.updating,
            stream,
        }
    }
}

impl SinkFactory for Print {
    fn check(&self) -> Result<(), ConnectorError> {
        Ok(())
    }

    fn encoder(&self, _task: u16) -> Result<Box<dyn SinkEncoder>, ConnectorError> {
        let mut rows = Rows {
            table: self.table.clone(),
            identifier: self.identifier.clone(),
            form: self.form,
            shown: Arc::clone(&self.schema),
            changes: None,
            batches: Vec::new(),
            json: None,
        };
        if self.updating {
            rows.shown = schema_with(&self.schema, "op");
            rows.changes = Some(EpochChanges::new(&self.table, &self.schema, &self.key)?);
        }
        Ok(Box::new(rows))
    }

    fn committer(&self, _task: u16) -> Result<Box<dyn SinkCommitter>, ConnectorError> {
        Ok(Box::new(Console { table: self.table.clone(), stream: self.stream }))
    }

    fn commit_interval(&self) -> Option<std::time::Duration> {
        None
    }
}

struct Rows {
    table: String,
    identifier: Option<String>,
    form: Form,
    /// Columns that are shown.
    shown: SchemaRef,
    /// Of the current epoch, if rows can be taken back.
    changes: Option<EpochChanges>,
    /// Of the current epoch.
    batches: Vec<RecordBatch>,
    json: Option<Box<dyn Encoder>>,
}

impl Rows {
    fn failed(&self, e: impl std::fmt::Display) -> ConnectorError {
        ConnectorError::Fatal(format!("table '{}': cannot print rows: {e}", self.table))
    }

    fn lines(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), ConnectorError> {
        if self.json.is_none() {
            let made = encoder(&self.shown, &FormatOptions::new(FormatKind::Json)).map_err(|e| self.failed(e))?;
            self.json = Some(made);
        }
        let (mut text, mut ends) = (Vec::new(), Vec::new());
        if let Some(json) = &mut self.json {
            json.encode(batch, &mut text, &mut ends)
                .map_err(|e| ConnectorError::Fatal(format!("table '{}': cannot print rows: {e}", self.table)))?;
        }
        let mut start = 0;
        for end in ends {
            self.line(&text[start..end], out);
            start = end;
        }
        Ok(())
    }

    fn line(&self, text: &[u8], out: &mut Vec<u8>) {
        if let Some(identifier) = &self.identifier {
            out.extend_from_slice(identifier.as_bytes());
            out.extend_from_slice(b"> ");
        }
        out.extend_from_slice(text);
        out.push(b'\n');
    }
}

impl SinkEncoder for Rows {
    fn encode(&mut self, rows: &RecordBatch, weights: Option<&Int64Array>) -> Result<(), ConnectorError> {
        match &mut self.changes {
            None => self.batches.push(rows.clone()),
            Some(changes) => changes.add(rows, weights).map_err(|e| self.failed(e))?,
        }
        Ok(())
    }

    fn end_epoch(&mut self, plan: &EpochPlan) -> Result<EncodedEpoch, ConnectorError> {
        let changes = self.changes.as_mut().map(EpochChanges::take).transpose().map_err(|e| self.failed(e))?;
        for (rows, ops) in changes.unwrap_or_default() {
            self.batches.push(rows_with(&self.shown, ops.into_iter(), &rows).map_err(|e| self.failed(e))?);
        }
        let mut batches = std::mem::take(&mut self.batches);
        batches.retain(|b| b.num_rows() > 0);
        let rows = batches.iter().map(|b| b.num_rows() as u64).sum();
        let mut text = Vec::new();
        match self.form {
            Form::JsonLines => batches.iter().try_for_each(|b| self.lines(b, &mut text))?,
            Form::Table if batches.is_empty() => {}
            Form::Table => {
                let table = pretty_format_batches(&batches).map_err(|e| self.failed(e))?.to_string();
                table.lines().for_each(|line| self.line(line.as_bytes(), &mut text));
            }
        }
        let payload = if text.is_empty() { Payload::Empty } else { Payload::Text(text) };
        let bytes = if let Payload::Text(text) = &payload { text.len() as u64 } else { 0 };
        Ok(EncodedEpoch { epoch: plan.epoch, rows, bytes, payload })
    }
}

struct Console {
    table: String,
    stream: Stream,
}

impl SinkCommitter for Console {
    fn open(&mut self, context: &SinkContext) -> Result<Epoch, ConnectorError> {
        Ok(context.restored)
    }

    fn publish(&mut self, epochs: Vec<EncodedEpoch>) -> Result<(), ConnectorError> {
        let write = |out: &mut dyn Write| {
            for epoch in &epochs {
                if let Payload::Text(text) = &epoch.payload {
                    out.write_all(text)?;
                }
            }
            out.flush()
        };
        let written = match self.stream {
            Stream::Out => write(&mut io::stdout().lock()),
            Stream::Error => write(&mut io::stderr().lock()),
        };
        written.map_err(|e| {
            ConnectorError::user(
                format!("table '{}': cannot write to the console: {e}", self.table),
                "the reader of the output is gone; start the pipeline again with one",
            )
        })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
mod tests {
    use arrow::array::ArrayRef;
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    fn print(form: Form, identifier: Option<&str>, updating: bool) -> Box<dyn SinkEncoder> {
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, false)]));
        let identifier = identifier.map(str::to_owned);
        let print =
            Print { table: "t".to_owned(), schema, key: vec![0], updating, identifier, stream: Stream::Out, form };
        print.encoder(0).unwrap()
    }

    fn batch(values: &[i64]) -> RecordBatch {
        let column: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
        RecordBatch::try_from_iter([("a", column)]).unwrap()
    }

    fn shown(rows: &mut dyn SinkEncoder) -> String {
        let plan =
            EpochPlan { epoch: Epoch(1), now_ms: 0, sources: Vec::new(), checkpoint: false, flush: false, last: false };
        match rows.end_epoch(&plan).unwrap().payload {
            Payload::Text(text) => String::from_utf8(text).unwrap(),
            Payload::Empty => String::new(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn json_lines_with_identifier_and_changes() {
        let mut rows = print(Form::JsonLines, Some("out"), false);
        rows.encode(&batch(&[1, 2]), None).unwrap();
        assert_eq!(shown(&mut *rows), "out> {\"a\":1}\nout> {\"a\":2}\n");
        assert_eq!(shown(&mut *rows), "");
        let mut rows = print(Form::JsonLines, None, true);
        rows.encode(&batch(&[3, 4]), Some(&Int64Array::from(vec![-1, 1]))).unwrap();
        rows.encode(&batch(&[5, 6]), None).unwrap();
        rows.encode(&batch(&[6]), Some(&Int64Array::from(vec![-1]))).unwrap();
        let lines = ["{\"op\":\"-D\",\"a\":3}", "{\"op\":\"+I\",\"a\":4}", "{\"op\":\"+I\",\"a\":5}"];
        assert_eq!(shown(&mut *rows).lines().collect::<Vec<_>>(), lines);
    }

    #[test]
    fn a_table_per_epoch() {
        let mut rows = print(Form::Table, None, false);
        rows.encode(&batch(&[1]), None).unwrap();
        rows.encode(&batch(&[]), None).unwrap();
        rows.encode(&batch(&[23]), None).unwrap();
        assert_eq!(shown(&mut *rows), "+----+\n| a  |\n+----+\n| 1  |\n| 23 |\n+----+\n");
    }
}
