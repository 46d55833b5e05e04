//! The tree of columns that a schema is compiled into.
//!
//! A child of a `Struct` has the rows of its parent; a child of a `List` or `Map` has one row per element, and the rows
//! of parent row `r` begin where those of `r - 1` end.
use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, ListArray, MapArray, StructArray};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, FieldRef, Fields};
use arrow::error::ArrowError;

use super::keys::Keys;
use crate::column::{Bits, Scalar};
use crate::{FormatError, FormatKind};

/// A column or a part of one.
#[derive(Debug)]
pub(crate) enum Node {
    Scalar(Scalar),
    Struct(Box<StructNode>),
    List(Box<ListNode>),
    Map(Box<MapNode>),
}

/// A field of an object.
#[derive(Debug)]
pub(crate) struct FieldNode {
    pub field: FieldRef,
    pub node: Node,
    /// The type as the user wrote it.
    pub type_name: String,
    /// The object is bad if this field is null after it.
    pub required: bool,
}

/// An object.
#[derive(Debug)]
pub(crate) struct StructNode {
    pub fields: Vec<FieldNode>,
    pub keys: Keys,
    pub valid: Bits,
    /// Some field is required.
    pub any_required: bool,
    /// For each field, one more than the row in which its key came last; empty unless all keys must come.
    pub seen: Vec<usize>,
}

/// Where the elements of each row end.
#[derive(Debug, Default)]
pub(crate) struct Spans {
    /// `ends[r]` is the begin of row `r`, `ends[r + 1]` its end; rows that are not written yet have none.
    ends: Vec<i32>,
    pub valid: Bits,
    /// Rows of the children that may have been written.
    touched: usize,
    /// Children of the batch before.
    before: usize,
}

impl Spans {
    fn reset(&mut self, rows: usize) {
        self.ends = Vec::with_capacity(rows + 1);
        self.ends.push(0);
        self.valid.reset(rows);
        self.touched = 0;
    }

    /// Begins `row`, whose value must not have been written; returns the first row of its elements.
    pub(crate) fn begin(&mut self, row: usize) -> usize {
        let last = self.last();
        self.ends.resize(row + 1, last as i32);
        last
    }

    /// Ends `row` with the elements up to `end`.
    pub(crate) fn end(&mut self, row: usize, end: usize) {
        self.ends.push(end as i32);
        self.valid.set(row);
    }

    /// The children up to `end` may have been written.
    #[inline]
    pub(crate) fn touch(&mut self, end: usize) {
        self.touched = self.touched.max(end);
    }

    fn last(&self) -> usize {
        self.ends.last().map_or(0, |e| *e as usize)
    }

    /// Makes rows `[from, to)` null; returns the rows of the children to be cleared.
    fn clear(&mut self, from: usize, to: usize) -> (usize, usize) {
        self.ends.truncate(from + 1);
        self.valid.unset_range(from, to);
        let last = self.last();
        (last, std::mem::replace(&mut self.touched, last))
    }

    fn finish(&mut self, rows: usize) -> (OffsetBuffer<i32>, Option<NullBuffer>, usize) {
        let children = self.last();
        let mut ends = std::mem::take(&mut self.ends);
        ends.resize(rows + 1, children as i32);
        self.before = children;
        (OffsetBuffer::new(ScalarBuffer::from(ends)), self.valid.finish_nulls(rows), children)
    }
}

/// An array.
#[derive(Debug)]
pub(crate) struct ListNode {
    pub spans: Spans,
    pub element: FieldNode,
}

/// An object whose keys are data.
#[derive(Debug)]
pub(crate) struct MapNode {
    pub spans: Spans,
    entries: FieldRef,
    pub key: Scalar,
    key_field: FieldRef,
    pub value: FieldNode,
    /// Keys of the object at hand, to find duplicates.
    pub keys: HashSet<Vec<u8>>,
    /// The key at hand.
    pub scratch: Vec<u8>,
}

impl FieldNode {
    fn new(field: &FieldRef, all_keys: bool) -> Result<Self, FormatError> {
        let node = Node::new(field.data_type(), all_keys).map_err(|error| error.inside(field.name()))?;
        Ok(Self {
            node,
            type_name: type_name(field.data_type()),
            required: !field.is_nullable(),
            field: Arc::clone(field),
        })
    }

    pub(crate) fn finish(&mut self, rows: usize) -> Result<ArrayRef, ArrowError> {
        self.node.finish(rows, self.field.data_type())
    }
}

impl StructNode {
    /// `all_keys`: an object without one of the keys is bad.
    pub(crate) fn new(fields: &Fields, all_keys: bool) -> Result<Self, FormatError> {
        let fields: Vec<_> = fields.iter().map(|f| FieldNode::new(f, all_keys)).collect::<Result<_, _>>()?;
        Ok(Self {
            keys: Keys::new(fields.iter().map(|f| f.field.name().as_str())),
            valid: Bits::default(),
            any_required: fields.iter().any(|f| f.required),
            seen: if all_keys { vec![0; fields.len()] } else { Vec::new() },
            fields,
        })
    }

    pub(crate) fn reset(&mut self, rows: usize) {
        self.valid.reset(rows);
        self.seen.fill(0);
        self.fields.iter_mut().for_each(|f| f.node.reset(rows));
    }

    pub(crate) fn clear(&mut self, from: usize, to: usize) {
        self.valid.unset_range(from, to);
        self.seen.iter_mut().filter(|s| **s > from).for_each(|s| *s = 0);
        self.fields.iter_mut().for_each(|f| f.node.clear(from, to));
    }
}

impl Node {
    fn new(data_type: &DataType, all_keys: bool) -> Result<Self, FormatError> {
        if let Some(scalar) = Scalar::of(data_type) {
            return Ok(Self::Scalar(scalar));
        }
        match data_type {
            DataType::Struct(fields) => Ok(Self::Struct(Box::new(StructNode::new(fields, all_keys)?))),
            DataType::List(element) => Ok(Self::List(Box::new(ListNode {
                spans: Spans::default(),
                element: FieldNode::new(element, all_keys)?,
            }))),
            DataType::Map(entries, _) => match entries.data_type() {
                DataType::Struct(pair) if pair.len() == 2 => {
                    let key = Scalar::of(pair[0].data_type()).ok_or_else(|| unsupported(data_type))?;
                    Ok(Self::Map(Box::new(MapNode {
                        spans: Spans::default(),
                        entries: Arc::clone(entries),
                        key,
                        key_field: Arc::clone(&pair[0]),
                        value: FieldNode::new(&pair[1], all_keys)?,
                        keys: HashSet::new(),
                        scratch: Vec::new(),
                    })))
                }
                _ => Err(unsupported(data_type)),
            },
            _ => Err(unsupported(data_type)),
        }
    }

    pub(crate) fn reset(&mut self, rows: usize) {
        match self {
            Self::Scalar(scalar) => scalar.reset(rows),
            Self::Struct(node) => node.reset(rows),
            Self::List(node) => {
                node.spans.reset(rows);
                node.element.node.reset(node.spans.before);
            }
            Self::Map(node) => {
                node.spans.reset(rows);
                node.key.reset(node.spans.before);
                node.value.node.reset(node.spans.before);
            }
        }
    }

    /// Makes rows `[from, to)` null; no row from `to` on has been written.
    pub(crate) fn clear(&mut self, from: usize, to: usize) {
        match self {
            Self::Scalar(scalar) => scalar.clear(from, to),
            Self::Struct(node) => node.clear(from, to),
            Self::List(node) => {
                let (from, to) = node.spans.clear(from, to);
                node.element.node.clear(from, to);
            }
            Self::Map(node) => {
                let (from, to) = node.spans.clear(from, to);
                node.key.clear(from, to);
                node.value.node.clear(from, to);
            }
        }
    }

    /// True if the row holds a value.
    pub(crate) fn is_set(&self, row: usize) -> bool {
        match self {
            Self::Scalar(scalar) => scalar.is_set(row),
            Self::Struct(node) => node.valid.get(row),
            Self::List(node) => node.spans.valid.get(row),
            Self::Map(node) => node.spans.valid.get(row),
        }
    }

    fn finish(&mut self, rows: usize, data_type: &DataType) -> Result<ArrayRef, ArrowError> {
        Ok(match self {
            Self::Scalar(scalar) => scalar.finish(rows, data_type)?,
            Self::Struct(node) => {
                let columns: Vec<_> = node.fields.iter_mut().map(|f| f.finish(rows)).collect::<Result<_, _>>()?;
                let fields: Fields = node.fields.iter().map(|f| Arc::clone(&f.field)).collect();
                let nulls = node.valid.finish_nulls(rows);
                Arc::new(StructArray::try_new_with_length(fields, columns, nulls, rows)?)
            }
            Self::List(node) => {
                let (offsets, nulls, children) = node.spans.finish(rows);
                let values = node.element.finish(children)?;
                Arc::new(ListArray::try_new(Arc::clone(&node.element.field), offsets, values, nulls)?)
            }
            Self::Map(node) => {
                let (offsets, nulls, children) = node.spans.finish(rows);
                let keys = node.key.finish(children, node.key_field.data_type())?;
                let values = node.value.finish(children)?;
                let fields = Fields::from(vec![Arc::clone(&node.key_field), Arc::clone(&node.value.field)]);
                let entries = StructArray::try_new_with_length(fields, vec![keys, values], None, children)?;
                let sorted = matches!(data_type, DataType::Map(_, true));
                Arc::new(MapArray::try_new(Arc::clone(&node.entries), offsets, entries, nulls, sorted)?)
            }
        })
    }
}

fn unsupported(data_type: &DataType) -> FormatError {
    FormatError::Type {
        column: String::new(),
        format: FormatKind::Json,
        data_type: data_type.to_string(),
        advice: "declare a SQL type",
    }
}

/// SQL name of a type, for messages.
pub(crate) fn type_name(data_type: &DataType) -> String {
    let name = match data_type {
        DataType::Boolean => "BOOLEAN",
        DataType::Int8 => "TINYINT",
        DataType::Int16 => "SMALLINT",
        DataType::Int32 => "INT",
        DataType::Int64 => "BIGINT",
        DataType::UInt8 => "TINYINT UNSIGNED",
        DataType::UInt16 => "SMALLINT UNSIGNED",
        DataType::UInt32 => "INT UNSIGNED",
        DataType::UInt64 => "BIGINT UNSIGNED",
        DataType::Float32 => "FLOAT",
        DataType::Float64 => "DOUBLE",
        DataType::Utf8 => "STRING",
        DataType::Binary => "BYTES",
        DataType::Date32 => "DATE",
        DataType::Time32(_) | DataType::Time64(_) => "TIME",
        DataType::Timestamp(..) => "TIMESTAMP",
        DataType::Struct(_) => "an object (ROW)",
        DataType::List(_) => "an array (ARRAY)",
        DataType::Map(..) => "an object (MAP)",
        DataType::Decimal128(precision, scale) => return format!("DECIMAL({precision}, {scale})"),
        other => return other.to_string(),
    };
    name.to_owned()
}
