//! Bundles into parts of the stream. Pure; the sending half of [`super::assemble`].
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use millstream_plan::{Epoch, TaskId};

use super::ipc::{self, Encoded};
use super::{CHUNK, EdgeEnd, Frame, MAX_HEADER, SendError};
use crate::wire::shuffle_v1 as wire;
use crate::wire::shuffle_v1::part::Part;

/// Frames are gathered up to this size before a bundle is cut in two.
const PIECE: usize = 8 << 20;

/// What the stream's receiver knows already.
pub(super) struct Encoder {
    max_bundle: usize,
    schemas: HashMap<u32, SchemaRef>,
}

/// A part of a bundle that is a bundle of its own.
pub(super) struct Piece {
    pub parts: Vec<wire::Part>,
    /// Encoded bytes, taken from the window.
    pub cost: u32,
}

impl Encoder {
    pub(super) fn new(max_bundle: usize) -> Self {
        Self { max_bundle, schemas: HashMap::new() }
    }

    /// The next piece of a bundle of which `frames` and `complete` are left; takes what it sends. The last piece carries the ends.
    pub(super) fn piece(
        &mut self,
        epoch: Epoch,
        frames: &mut impl Iterator<Item = Frame>,
        complete: &mut Vec<EdgeEnd>,
    ) -> Result<Option<Piece>, SendError> {
        let mut parts = Vec::new();
        let mut bytes = 0;
        let mut exhausted = true;
        for frame in frames {
            bytes += self.frame(&frame, &mut parts)?;
            if bytes >= PIECE {
                exhausted = false;
                break;
            }
        }
        let complete = if exhausted { std::mem::take(complete) } else { Vec::new() };
        if parts.is_empty() && complete.is_empty() {
            return Ok(None);
        }
        let end = |e: EdgeEnd| wire::EdgeEnd { edge: e.edge, from: Some(task(e.from)) };
        let complete: Vec<_> = complete.into_iter().map(end).collect();
        bytes += complete.len() * size_of::<EdgeEnd>();
        let cost = u32::try_from(bytes.max(1)).unwrap_or(u32::MAX);
        parts.push(part(Part::End(wire::End { epoch: epoch.0, complete, cost: cost.into() })));
        Ok(Some(Piece { parts, cost }))
    }

    fn frame(&mut self, frame: &Frame, parts: &mut Vec<wire::Part>) -> Result<usize, SendError> {
        let edge = frame.edge;
        let unsupported = |error: arrow::error::ArrowError| SendError::Unsupported { edge, reason: error.to_string() };
        let too_large = |bytes, limit| SendError::TooLarge { edge, bytes, limit };
        let mut total = 0;
        for (i, batch) in frame.batches.iter().enumerate() {
            total += self.schema(edge, &batch.rows.schema(), parts)?;
            let Encoded { header, data, body_length, has_weights, checksum } =
                ipc::encode(batch).map_err(unsupported)?;
            total += header.len() + data.len();
            if header.len() > MAX_HEADER {
                return Err(too_large(header.len(), MAX_HEADER));
            }
            if total > self.max_bundle {
                return Err(too_large(total, self.max_bundle));
            }
            let weights_length = has_weights.then(|| (data.len() - body_length) as u64);
            let mut data = Bytes::from(data);
            parts.push(part(Part::Batch(wire::Batch {
                edge,
                from: Some(task(frame.from)),
                to: Some(task(frame.to)),
                sequence: frame.sequence,
                first: i == 0,
                header: header.into(),
                body_length: body_length as u64,
                weights_length,
                checksum,
                data: data.split_to(data.len().min(CHUNK)),
            })));
            while !data.is_empty() {
                parts.push(part(Part::Chunk(wire::Chunk { data: data.split_to(data.len().min(CHUNK)) })));
            }
        }
        Ok(total)
    }

    /// Sends the schema if the receiver does not know it; returns its size.
    fn schema(&mut self, edge: u32, schema: &SchemaRef, parts: &mut Vec<wire::Part>) -> Result<usize, SendError> {
        match self.schemas.entry(edge) {
            Entry::Occupied(known) if Arc::ptr_eq(known.get(), schema) => return Ok(0),
            Entry::Occupied(mut known) if known.get() == schema => {
                // So that the next batch with it is recognised by its address.
                known.insert(Arc::clone(schema));
                return Ok(0);
            }
            entry => entry.insert_entry(Arc::clone(schema)),
        };
        let message =
            ipc::encode_schema(schema).map_err(|error| SendError::Unsupported { edge, reason: error.to_string() })?;
        let bytes = message.len();
        if bytes > MAX_HEADER {
            return Err(SendError::TooLarge { edge, bytes, limit: MAX_HEADER });
        }
        parts.push(part(Part::Schema(wire::Schema { edge, message: message.into() })));
        Ok(bytes)
    }
}

fn part(part: Part) -> wire::Part {
    wire::Part { part: Some(part) }
}

fn task(task: TaskId) -> wire::TaskId {
    wire::TaskId { stage: task.stage.0.into(), index: task.index.into() }
}
