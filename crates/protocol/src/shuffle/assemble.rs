//! Parts of the stream into bundles. Pure; the receiving half of [`super::encode`].
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::buffer::{Buffer, MutableBuffer};
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use millstream_plan::{Epoch, Era, ExecutorId, StageId, TaskId};

use super::ipc::{self, Damaged};
use super::{Bundle, EdgeEnd, Frame, MAX_HEADER};
use crate::wire::shuffle_v1 as wire;
use crate::wire::shuffle_v1::part::Part;
use crate::wire::{Invalid, narrow, required};

/// Edges of one stream.
const MAX_EDGES: usize = 1 << 16;

/// A stream that cannot be right.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("invalid part: {0}")]
    Invalid(#[from] Invalid),
    #[error("unexpected part: {0}")]
    Unexpected(&'static str),
    #[error("{what} is {size}, the limit is {limit}")]
    Limit { what: &'static str, size: u64, limit: usize },
    #[error("edge {edge}: {damaged}")]
    Damaged { edge: u32, damaged: Damaged },
    #[error("edge {edge}: a batch has the wrong checksum")]
    Checksum { edge: u32 },
    #[error("the decoder panicked")]
    Panicked,
}

/// What a part brought.
#[derive(Debug)]
pub(super) enum Progress {
    /// More parts belong to it.
    Partial,
    /// A complete bundle and the credit for it.
    Bundle(Bundle, u64),
    /// The sender has ended the stream.
    Finished,
}

/// The receiving state of one stream.
pub(super) struct Assembler {
    era: Era,
    from: ExecutorId,
    max_bundle: usize,
    schemas: HashMap<u32, SchemaRef>,
    frames: Vec<Frame>,
    /// Encoded bytes of `frames` and `pending`.
    bytes: u64,
    pending: Option<Pending>,
}

/// A batch whose data is still coming.
struct Pending {
    edge: u32,
    from: TaskId,
    to: TaskId,
    sequence: u32,
    first: bool,
    header: Bytes,
    body_length: usize,
    has_weights: bool,
    checksum: u64,
    total: usize,
    data: MutableBuffer,
}

impl Assembler {
    pub(super) fn new(era: Era, from: ExecutorId, max_bundle: usize) -> Self {
        Self { era, from, max_bundle, schemas: HashMap::new(), frames: Vec::new(), bytes: 0, pending: None }
    }

    /// Takes the next part. After an error the assembler is of no more use.
    pub(super) fn push(&mut self, part: wire::Part) -> Result<Progress, Broken> {
        // Arrow's reader asserts where it could return an error. Nothing of `self` is used after a panic.
        catch_unwind(AssertUnwindSafe(|| self.take(part))).unwrap_or(Err(Broken::Panicked))
    }

    fn take(&mut self, part: wire::Part) -> Result<Progress, Broken> {
        match required(part.part, "part")? {
            Part::Open(_) => Err(Broken::Unexpected("a second Open")),
            Part::Chunk(chunk) => {
                let Some(mut pending) = self.pending.take() else {
                    return Err(Broken::Unexpected("a chunk of no batch"));
                };
                pending.add(&chunk.data)?;
                self.settle(pending)?;
                Ok(Progress::Partial)
            }
            _ if self.pending.is_some() => Err(Broken::Unexpected("the batch before is not complete")),
            Part::Schema(schema) => {
                self.schema(&schema)?;
                Ok(Progress::Partial)
            }
            Part::Batch(batch) => {
                self.batch(batch)?;
                Ok(Progress::Partial)
            }
            Part::End(end) => self.end(end),
            Part::Finish(wire::Finish {}) if self.frames.is_empty() => Ok(Progress::Finished),
            Part::Finish(wire::Finish {}) => Err(Broken::Unexpected("the bundle before has no end")),
        }
    }

    fn schema(&mut self, schema: &wire::Schema) -> Result<(), Broken> {
        let edge = schema.edge;
        limit("a schema", schema.message.len() as u64, MAX_HEADER)?;
        limit("the number of edges", self.schemas.len() as u64 + 1, MAX_EDGES)?;
        let schema = ipc::decode_schema(&schema.message).map_err(|damaged| Broken::Damaged { edge, damaged })?;
        self.schemas.insert(edge, schema);
        Ok(())
    }

    fn batch(&mut self, batch: wire::Batch) -> Result<(), Broken> {
        limit("a batch header", batch.header.len() as u64, MAX_HEADER)?;
        let total = batch.body_length.saturating_add(batch.weights_length.unwrap_or(0));
        self.bytes = self.bytes.saturating_add(total).saturating_add(batch.header.len() as u64);
        limit("a bundle", self.bytes, self.max_bundle)?;
        let total: usize = narrow(total, "body_length")?;
        let mut pending = Pending {
            edge: batch.edge,
            from: task(batch.from)?,
            to: task(batch.to)?,
            sequence: batch.sequence,
            first: batch.first,
            header: batch.header,
            body_length: narrow(batch.body_length, "body_length")?,
            has_weights: batch.weights_length.is_some(),
            checksum: batch.checksum,
            total,
            data: MutableBuffer::with_capacity(total),
        };
        pending.add(&batch.data)?;
        self.settle(pending)
    }

    /// Decodes the batch if all of its data is there.
    fn settle(&mut self, pending: Pending) -> Result<(), Broken> {
        if pending.data.len() < pending.total {
            self.pending = Some(pending);
            return Ok(());
        }
        let Pending { edge, from, to, sequence, first, header, body_length, has_weights, checksum, data, .. } = pending;
        let schema = self.schemas.get(&edge).ok_or(Broken::Unexpected("a batch without schema"))?;
        let data = Buffer::from(data);
        if ipc::checksum(&header, &data) != checksum {
            return Err(Broken::Checksum { edge });
        }
        let rows = ipc::decode(&header, &data, body_length, has_weights, schema)
            .map_err(|damaged| Broken::Damaged { edge, damaged })?;
        if first {
            self.frames.push(Frame { edge, from, to, sequence, batches: vec![rows] });
            return Ok(());
        }
        match self.frames.last_mut() {
            Some(frame) if (frame.edge, frame.from, frame.to, frame.sequence) == (edge, from, to, sequence) => {
                frame.batches.push(rows);
                Ok(())
            }
            _ => Err(Broken::Unexpected("a batch that continues no frame")),
        }
    }

    fn end(&mut self, end: wire::End) -> Result<Progress, Broken> {
        let edge_end = |e: wire::EdgeEnd| Ok(EdgeEnd { edge: e.edge, from: task(e.from)? });
        let complete = end.complete.into_iter().map(edge_end).collect::<Result<_, Broken>>()?;
        self.bytes = 0;
        let frames = std::mem::take(&mut self.frames);
        let bundle = Bundle { era: self.era, epoch: Epoch(end.epoch), from: self.from.clone(), frames, complete };
        Ok(Progress::Bundle(bundle, end.cost))
    }
}

impl Pending {
    fn add(&mut self, data: &[u8]) -> Result<(), Broken> {
        if data.len() > self.total - self.data.len() {
            return Err(Broken::Unexpected("more data than the batch has"));
        }
        self.data.extend_from_slice(data);
        Ok(())
    }
}

fn limit(what: &'static str, size: u64, limit: usize) -> Result<(), Broken> {
    if size > limit as u64 { Err(Broken::Limit { what, size, limit }) } else { Ok(()) }
}

fn task(wire: Option<wire::TaskId>) -> Result<TaskId, Broken> {
    let wire = required(wire, "task")?;
    Ok(TaskId { stage: StageId(narrow(wire.stage, "task.stage")?), index: narrow(wire.index, "task.index")? })
}
