//! Bytes of messages and files into Arrow, and back.
//!
//! Pure: no threads, no clock, no I/O beyond bytes in memory and [`std::io::Read`]. The same bytes with the same
//! [`DecodeSpec`] give the same rows on every machine.
//!
//! | term | meaning |
//! |---|---|
//! | message | the value of one Kafka record, one line of a JSON file, one record of a CSV file |
//! | spec | what to decode: only the columns and the nested fields that the pipeline uses |
//! | bad message | one that gives no row; it is named with a reason and leaves no trace among the rows |
//! | prefilter | a condition on one column by which a row is dropped before the rest of it is decoded |
//!
//! Decoding is the hottest path of the engine, so a decoder is compiled from its spec once and then only touches the
//! bytes it must: the JSON decoder predicts the order of keys from the row before, skips values that no column uses
//! without parsing them and writes numbers straight from the message into the columns. What that means for malformed
//! input is said in the module of each format.
mod column;
mod csv;
pub mod debezium;
mod error;
pub mod file;
mod json;
mod options;
mod raw;
mod text;

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};

pub use error::FormatError;
pub use options::{
    BadFields, Compression, CsvOptions, DebeziumOptions, FORMAT_OPTIONS, FormatKind, FormatOptions, JsonOptions,
    ParquetOptions, TimestampStandard,
};

/// What to decode: only what the pipeline uses.
#[derive(Clone, Debug)]
pub struct DecodeSpec {
    /// Top-level columns, with nested `Struct`, `List` and `Map` types pruned to the fields that are used. Types:
    /// `Boolean`,
    /// `Int8`–`Int64`, `UInt8`–`UInt64`, `Float32`, `Float64`, `Decimal128`, `Utf8`, `Binary`, `Date32`, `Time32`, `Time64`,
    /// `Timestamp` (any unit; without zone or in UTC), `Struct`, `List`, `Map`. A row without a value for a field that is
    /// not nullable is bad.
    pub schema: SchemaRef,
    /// The format and how it is read.
    pub options: FormatOptions,
    /// Rows that do not satisfy it are dropped before the rest of the row is decoded.
    pub prefilter: Option<PreFilter>,
}

/// A condition on one top-level integer or string column. Null never passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreFilter {
    /// Name of the column. It need not be in the schema; it is then decoded as the type of `accept`.
    pub column: String,
    /// Values that pass.
    pub accept: Accept,
}

/// Values that pass a [`PreFilter`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accept {
    /// Of an integer column.
    Int(Vec<i64>),
    /// Of a string column.
    Text(Vec<String>),
}

/// Decodes message values.
pub trait Decoder: Send {
    /// Decodes `messages` in order.
    ///
    /// # Errors
    /// Only for a call that cannot be carried out at all; bad messages are part of the result.
    fn decode(&mut self, messages: &[&[u8]]) -> Result<Decoded, FormatError>;
}

/// Result of [`Decoder::decode`].
#[derive(Clone, Debug)]
pub struct Decoded {
    /// The good rows, in the schema of the spec; of upserts in that of [`upsert_schema`].
    pub rows: RecordBatch,
    /// Of changes: 1 for a row that comes, -1 for one that goes. `None`: all come.
    pub weights: Option<Int64Array>,
    /// Row `r` of `rows` came from message `origin[r]`; ascending, with gaps where a message was bad or filtered, and twice the same
    /// where a row takes the place of another.
    pub origin: Vec<u32>,
    /// Messages that gave no row because of their content, ascending.
    pub bad: Vec<BadMessage>,
}

/// A message that gave no row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadMessage {
    /// Index among the messages of the call.
    pub message: u32,
    /// Such as "field `bid`.`price`: expected BIGINT, found string at byte 17".
    pub reason: String,
}

/// Encodes rows as message values.
pub trait Encoder: Send {
    /// Appends one message value per row to `out` and its end (an index of `out`) to `ends`.
    ///
    /// # Errors
    /// If the rows do not have the schema that the encoder was made for.
    fn encode(&mut self, rows: &RecordBatch, out: &mut Vec<u8>, ends: &mut Vec<usize>) -> Result<(), FormatError>;
}

/// Compiles `spec` into a decoder of single messages. Parquet has none: its unit is the file ([`file::ParquetFile`]).
///
/// # Errors
/// If the format cannot hold a type of the schema, or the prefilter does not fit its column.
pub fn decoder(spec: DecodeSpec) -> Result<Box<dyn Decoder>, FormatError> {
    match spec.options.kind {
        FormatKind::Json => Ok(Box::new(json::JsonDecoder::new(spec)?)),
        FormatKind::Csv => Ok(Box::new(csv::CsvDecoder::new(spec)?)),
        FormatKind::Raw => Ok(Box::new(raw::RawDecoder::new(spec)?)),
        FormatKind::DebeziumJson => Ok(Box::new(debezium::DebeziumDecoder::new(spec)?)),
        FormatKind::Parquet => Err(FormatError::NotForMessages { format: FormatKind::Parquet }),
    }
}

/// Columns of upserts: a deletion has only its key, so all others may be null.
#[must_use]
pub fn upsert_schema(schema: &SchemaRef, key: &[String]) -> SchemaRef {
    let fields = schema.fields().iter().map(|f| {
        let nullable = f.is_nullable() || !key.contains(f.name());
        Arc::new(f.as_ref().clone().with_nullable(nullable))
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// An encoder of rows with `schema` into single messages. Changes are encoded from their [`debezium::envelope`].
///
/// # Errors
/// If the format cannot hold a type of the schema.
pub fn encoder(schema: &SchemaRef, options: &FormatOptions) -> Result<Box<dyn Encoder>, FormatError> {
    match options.kind {
        FormatKind::Json | FormatKind::DebeziumJson => Ok(Box::new(json::JsonEncoder::new(schema, options)?)),
        FormatKind::Csv => Ok(Box::new(csv::CsvEncoder::new(schema, options)?)),
        FormatKind::Raw => Ok(Box::new(raw::RawEncoder::new(schema)?)),
        FormatKind::Parquet => Err(FormatError::NotForMessages { format: FormatKind::Parquet }),
    }
}
