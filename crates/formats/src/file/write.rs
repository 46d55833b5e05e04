//! Files that sinks write.
use std::io::Write;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::BatchCoalescer;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression as ParquetCompression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use crate::csv::write_field;
use crate::{Compression, Encoder, FormatError, FormatKind, FormatOptions, encoder};

/// Rows that go to the Parquet writer at once. It decides about pages after each such piece, so pieces of one size make
/// the bytes independent of how the rows arrived.
const PIECE: usize = 8192;

/// Gathers rows and gives the bytes of one file.
pub struct FileWriter {
    rows: u64,
    kind: Kind,
}

enum Kind {
    Parquet { pieces: BatchCoalescer, writer: Box<ArrowWriter<Vec<u8>>> },
    Lines { encoder: Box<dyn Encoder>, out: Deflate, text: Vec<u8>, ends: Vec<usize> },
}

enum Deflate {
    None(Vec<u8>),
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

/// What the names of such files end in, without the dot before it.
#[must_use]
pub fn extension(options: &FormatOptions) -> &'static str {
    match (options.kind, options.compression) {
        (FormatKind::Parquet, _) => "parquet",
        (FormatKind::Json | FormatKind::DebeziumJson, Compression::Gzip) => "json.gz",
        (FormatKind::Json | FormatKind::DebeziumJson, Compression::Zstd) => "json.zst",
        (FormatKind::Json | FormatKind::DebeziumJson, _) => "json",
        (FormatKind::Csv, Compression::Gzip) => "csv.gz",
        (FormatKind::Csv, Compression::Zstd) => "csv.zst",
        (FormatKind::Csv, _) => "csv",
        (FormatKind::Raw, Compression::Gzip) => "txt.gz",
        (FormatKind::Raw, Compression::Zstd) => "txt.zst",
        (FormatKind::Raw, _) => "txt",
    }
}

impl FileWriter {
    /// A writer of rows with `schema`. Text formats write one line per row.
    ///
    /// # Errors
    /// If the format cannot hold a type of the schema.
    pub fn new(schema: &SchemaRef, options: &FormatOptions) -> Result<Self, FormatError> {
        let kind = match options.kind {
            FormatKind::Parquet => parquet_writer(schema, options)?,
            FormatKind::Json | FormatKind::DebeziumJson | FormatKind::Csv | FormatKind::Raw => {
                let mut out = Deflate::new(options.compression)?;
                if options.kind == FormatKind::Csv && options.csv.header {
                    out.write(&header(schema, options))?;
                }
                Kind::Lines { encoder: encoder(schema, options)?, out, text: Vec::new(), ends: Vec::new() }
            }
        };
        Ok(Self { rows: 0, kind })
    }

    /// Adds rows.
    ///
    /// # Errors
    /// If the rows do not have the schema of the writer.
    pub fn write(&mut self, rows: &RecordBatch) -> Result<(), FormatError> {
        match &mut self.kind {
            Kind::Parquet { pieces, writer } => {
                let rows = RecordBatch::try_new(pieces.schema(), rows.columns().to_vec())
                    .map_err(|error| FormatError::Schema { format: FormatKind::Parquet, problem: error.to_string() })?;
                pieces.push_batch(rows)?;
                while let Some(piece) = pieces.next_completed_batch() {
                    writer.write(&piece)?;
                }
            }
            Kind::Lines { encoder, out, text, ends } => {
                text.clear();
                ends.clear();
                encoder.encode(rows, text, ends)?;
                let mut lines = Vec::with_capacity(text.len() + ends.len());
                let mut begin = 0;
                for end in ends {
                    lines.extend_from_slice(&text[begin..*end]);
                    lines.push(b'\n');
                    begin = *end;
                }
                out.write(&lines)?;
            }
        }
        self.rows += rows.num_rows() as u64;
        Ok(())
    }

    /// Rows so far.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Bytes that the writer holds: what is encoded and an estimate of what is not yet. A function of the rows alone.
    #[must_use]
    pub fn size(&self) -> usize {
        match &self.kind {
            Kind::Parquet { writer, .. } => writer.bytes_written() + writer.in_progress_size(),
            Kind::Lines { out, .. } => out.buffer().len(),
        }
    }

    /// The bytes of the complete file.
    ///
    /// # Errors
    /// If the last rows cannot be encoded.
    pub fn finish(self) -> Result<Bytes, FormatError> {
        match self.kind {
            Kind::Parquet { mut pieces, mut writer } => {
                pieces.finish_buffered_batch()?;
                while let Some(piece) = pieces.next_completed_batch() {
                    writer.write(&piece)?;
                }
                Ok(writer.into_inner()?.into())
            }
            Kind::Lines { out, .. } => Ok(out.finish()?.into()),
        }
    }
}

fn parquet_writer(schema: &SchemaRef, options: &FormatOptions) -> Result<Kind, FormatError> {
    let compression = match options.compression {
        Compression::None | Compression::Gzip => ParquetCompression::UNCOMPRESSED,
        Compression::Snappy => ParquetCompression::SNAPPY,
        Compression::Zstd => ParquetCompression::ZSTD(ZstdLevel::default()),
    };
    let properties = WriterProperties::builder()
        .set_created_by("millstream".to_owned())
        .set_compression(compression)
        .set_max_row_group_row_count(Some(options.parquet.row_group_rows.max(1)))
        .build();
    // Parquet's own types say enough, and the metadata of an Arrow schema has no fixed order.
    let settings = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    let writer = ArrowWriter::try_new_with_options(Vec::new(), Arc::clone(schema), settings)?;
    Ok(Kind::Parquet { pieces: BatchCoalescer::new(Arc::clone(schema), PIECE), writer: Box::new(writer) })
}

fn header(schema: &SchemaRef, options: &FormatOptions) -> Vec<u8> {
    let mut line = Vec::new();
    for (i, field) in schema.fields().iter().enumerate() {
        if i > 0 {
            line.push(options.csv.delimiter);
        }
        write_field(&options.csv, field.name().as_bytes(), false, &mut line);
    }
    line.push(b'\n');
    line
}

impl Deflate {
    fn new(compression: Compression) -> Result<Self, FormatError> {
        Ok(match compression {
            Compression::None | Compression::Snappy => Self::None(Vec::new()),
            // The header holds no time and no name.
            Compression::Gzip => Self::Gzip(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default())),
            Compression::Zstd => Self::Zstd(zstd::stream::write::Encoder::new(Vec::new(), 0)?),
        })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), FormatError> {
        match self {
            Self::None(out) => out.extend_from_slice(bytes),
            Self::Gzip(out) => out.write_all(bytes)?,
            Self::Zstd(out) => out.write_all(bytes)?,
        }
        Ok(())
    }

    fn buffer(&self) -> &Vec<u8> {
        match self {
            Self::None(out) => out,
            Self::Gzip(out) => out.get_ref(),
            Self::Zstd(out) => out.get_ref(),
        }
    }

    fn finish(self) -> Result<Vec<u8>, FormatError> {
        Ok(match self {
            Self::None(out) => out,
            Self::Gzip(out) => out.finish()?,
            Self::Zstd(out) => out.finish()?,
        })
    }
}
