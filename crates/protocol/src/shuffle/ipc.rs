//! Batches and schemas as Arrow IPC messages: no dictionaries, no compression, full validation.
use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, Int64Array};
use arrow::buffer::{Buffer, ScalarBuffer};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::convert::fb_to_schema;
use arrow::ipc::reader::read_record_batch;
use arrow::ipc::writer::{CompressionContext, DictionaryTracker, IpcDataGenerator, IpcWriteOptions};
use arrow::ipc::{MetadataVersion, root_as_message};
use arrow::record_batch::RecordBatch;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::Rows;
use super::compact::compact;

/// Rows of one batch, and entries of one nested column: far above what executors send, far below where sums overflow.
const MAX_ROWS: i64 = i32::MAX as i64;
/// Bytes of one weight.
const WEIGHT: usize = size_of::<i64>();

/// A batch on the wire.
pub(super) struct Encoded {
    pub header: Vec<u8>,
    /// The body, then the weights.
    pub data: Vec<u8>,
    pub body_length: usize,
    pub has_weights: bool,
    pub checksum: u64,
}

/// A batch or schema of a peer that cannot be right.
#[derive(Debug, thiserror::Error)]
pub(super) enum Damaged {
    #[error("{0} is damaged")]
    Part(&'static str),
    #[error(transparent)]
    Arrow(#[from] ArrowError),
}

/// The IPC message of `schema`.
pub(super) fn encode_schema(schema: &Schema) -> Result<Vec<u8>, ArrowError> {
    if let Some(field) = schema.fields().iter().find(|f| !supported(f.data_type())) {
        return Err(ArrowError::NotYetImplemented(format!("column '{}' has type {}", field.name(), field.data_type())));
    }
    let mut no_dictionaries = DictionaryTracker::new(true);
    let options = IpcWriteOptions::default();
    let message =
        IpcDataGenerator::default().schema_to_bytes_with_dictionary_tracker(schema, &mut no_dictionaries, &options);
    Ok(message.ipc_message)
}

/// The schema of an IPC message.
pub(super) fn decode_schema(message: &[u8]) -> Result<SchemaRef, Damaged> {
    let message = root_as_message(message).map_err(|_| Damaged::Part("schema message"))?;
    let schema = message.header_as_schema().ok_or(Damaged::Part("schema header"))?;
    let schema = fb_to_schema(schema);
    if schema.fields().iter().all(|f| supported(f.data_type())) {
        Ok(Arc::new(schema))
    } else {
        Err(Damaged::Part("column type"))
    }
}

/// Whether a column of this type may be shuffled.
fn supported(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(..)
        | DataType::RunEndEncoded(..)
        | DataType::Union(..)
        | DataType::ListView(_)
        | DataType::LargeListView(_) => false,
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => supported(field.data_type()),
        DataType::Struct(fields) => fields.iter().all(|f| supported(f.data_type())),
        _ => true,
    }
}

/// `batch`, whose schema has been sent.
pub(super) fn encode(batch: &Rows) -> Result<Encoded, ArrowError> {
    let weights = batch.weights.as_ref();
    if let Some(weights) = weights
        && (weights.len() != batch.rows.num_rows() || weights.null_count() > 0)
    {
        return Err(ArrowError::InvalidArgumentError("rows and weights do not match".to_owned()));
    }
    let compacted = compacted(&batch.rows)?;
    let rows = compacted.as_ref().unwrap_or(&batch.rows);
    let (dictionaries, message) = IpcDataGenerator::default().encode(
        rows,
        &mut DictionaryTracker::new(true),
        &IpcWriteOptions::default(),
        &mut CompressionContext::default(),
    )?;
    if !dictionaries.is_empty() {
        return Err(ArrowError::NotYetImplemented("dictionaries".to_owned()));
    }
    let header = message.ipc_message;
    let mut data = message.arrow_data;
    let body_length = data.len();
    if let Some(weights) = weights {
        data.extend_from_slice(weights.values().inner().as_slice());
    }
    let checksum = checksum(&header, &data);
    Ok(Encoded { header, data, body_length, has_weights: weights.is_some(), checksum })
}

fn compacted(rows: &RecordBatch) -> Result<Option<RecordBatch>, ArrowError> {
    let mut columns = rows.columns().to_vec();
    let mut changed = false;
    for column in &mut columns {
        if let Some(smaller) = compact(column)? {
            *column = smaller;
            changed = true;
        }
    }
    // Without a change the row count of a batch without columns is kept as well.
    changed.then(|| RecordBatch::try_new(rows.schema(), columns)).transpose()
}

pub(super) fn checksum(header: &[u8], data: &[u8]) -> u64 {
    xxh3_64_with_seed(data, xxh3_64(header))
}

/// The batch whose body and weights are `data`, after its checksum was found right. May panic on what Arrow's reader asserts;
/// callers catch that.
pub(super) fn decode(
    header: &[u8],
    data: &Buffer,
    body_length: usize,
    has_weights: bool,
    schema: &SchemaRef,
) -> Result<Rows, Damaged> {
    if body_length > data.len() {
        return Err(Damaged::Part("body length"));
    }
    let body = data.slice_with_length(0, body_length);
    let message = root_as_message(header).map_err(|_| Damaged::Part("batch message"))?;
    if message.version() != MetadataVersion::V5 || usize::try_from(message.bodyLength()) != Ok(body_length) {
        return Err(Damaged::Part("batch message"));
    }
    let batch = message.header_as_record_batch().ok_or(Damaged::Part("batch header"))?;
    check(&batch, body_length)?;
    let rows = read_record_batch(&body, batch, Arc::clone(schema), &HashMap::new(), None, &MetadataVersion::V5)?;
    let rest = data.len() - body_length;
    let weights = match has_weights {
        false if rest == 0 => None,
        true if rest == rows.num_rows() * WEIGHT => {
            // The body is padded, but a peer may say otherwise; the copy is aligned.
            let aligned = if body_length.is_multiple_of(WEIGHT) {
                data.slice(body_length)
            } else {
                Buffer::from_slice_ref(&data[body_length..])
            };
            Some(Int64Array::new(ScalarBuffer::from(aligned), None))
        }
        _ => return Err(Damaged::Part("weights")),
    };
    Ok(Rows { rows, weights })
}

/// What Arrow's reader takes on trust: counts and ranges are possible, and nothing is compressed.
fn check(batch: &arrow::ipc::RecordBatch<'_>, body_length: usize) -> Result<(), Damaged> {
    let possible = |length: i64, nulls: i64| (0..=MAX_ROWS).contains(&length) && (0..=length).contains(&nulls);
    let nodes = batch.nodes().ok_or(Damaged::Part("batch without nodes"))?;
    let buffers = batch.buffers().ok_or(Damaged::Part("batch without buffers"))?;
    let inside = |offset: i64, length: i64| {
        let end = usize::try_from(offset).ok().zip(usize::try_from(length).ok()).and_then(|(o, l)| o.checked_add(l));
        end.is_some_and(|end| end <= body_length)
    };
    if batch.compression().is_some() {
        return Err(Damaged::Part("batch compression"));
    }
    if !possible(batch.length(), 0) || !nodes.iter().all(|n| possible(n.length(), n.null_count())) {
        return Err(Damaged::Part("row count"));
    }
    if !buffers.iter().all(|b| inside(b.offset(), b.length())) {
        return Err(Damaged::Part("buffer range"));
    }
    let variadic = batch.variadicBufferCounts();
    let count = buffers.len() as i64;
    if !variadic.is_none_or(|counts| counts.iter().all(|c| (0..=count).contains(&c))) {
        return Err(Damaged::Part("buffer count"));
    }
    Ok(())
}
