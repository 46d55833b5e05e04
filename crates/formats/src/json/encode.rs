//! Rows into JSON objects, one per row, without white space. Nulls are written unless
//! [`JsonOptions::omit_nulls`](crate::JsonOptions); timestamps as [`TimestampStandard`] says with the digits of their
//! unit, decimals as numbers with all digits of their scale, binary in Base64, floats that are not finite in quotes.
use arrow::array::{Array, ArrayRef, AsArray, ListArray, MapArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Fields, SchemaRef};
use arrow::error::ArrowError;

use super::scan::find_not_plain;
use crate::column::{Reader, Shape};
use crate::{Encoder, FormatError, FormatKind, FormatOptions, TimestampStandard};

/// Encodes JSON objects.
pub(crate) struct JsonEncoder {
    schema: SchemaRef,
    style: Style,
}

/// Choices of the user.
#[derive(Clone, Copy)]
struct Style {
    omit_nulls: bool,
    iso: bool,
}

/// Access to a column of the batch at hand.
enum Values {
    Scalar(Reader),
    Struct(ArrayRef, Vec<Member>),
    List(ListArray, Box<Values>),
    Map(Box<(MapArray, Reader, Values)>),
}

/// A field of an object with its `"name":`.
struct Member {
    name: Vec<u8>,
    values: Values,
}

impl JsonEncoder {
    pub(crate) fn new(schema: &SchemaRef, options: &FormatOptions) -> Result<Self, FormatError> {
        for field in schema.fields() {
            if let Some(data_type) = unwritable(field) {
                return Err(FormatError::Type {
                    column: field.name().clone(),
                    format: FormatKind::Json,
                    data_type: data_type.to_string(),
                    advice: "cast it to a type that JSON has, such as STRING",
                });
            }
        }
        let iso = options.timestamp == TimestampStandard::Iso8601;
        Ok(Self { schema: schema.clone(), style: Style { omit_nulls: options.json.omit_nulls, iso } })
    }
}

/// The type inside `field` that cannot be written.
fn unwritable(field: &Field) -> Option<&DataType> {
    match field.data_type() {
        DataType::Struct(fields) => fields.iter().find_map(|f| unwritable(f)),
        DataType::List(element) => unwritable(element),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(pair) if pair.len() == 2 && Reader::reads(pair[0].data_type()) => unwritable(&pair[1]),
            _ => Some(field.data_type()),
        },
        other if Reader::reads(other) => None,
        other => Some(other),
    }
}

impl Encoder for JsonEncoder {
    fn encode(&mut self, rows: &RecordBatch, out: &mut Vec<u8>, ends: &mut Vec<usize>) -> Result<(), FormatError> {
        let given = rows.schema();
        let same = |(a, b): (&Field, &Field)| a.name() == b.name() && a.data_type() == b.data_type();
        let expected = self.schema.fields();
        if given.fields().len() != expected.len() || !given.fields().iter().zip(expected).all(|(a, b)| same((a, b))) {
            let problem = format!("got {:?}, expected {:?}", names(given.fields()), names(expected));
            return Err(FormatError::Schema { format: FormatKind::Json, problem });
        }
        let members = members(expected, rows.columns())?;
        ends.reserve(rows.num_rows());
        for row in 0..rows.num_rows() {
            write_object(&members, row, self.style, out);
            ends.push(out.len());
        }
        Ok(())
    }
}

fn names(fields: &Fields) -> Vec<String> {
    fields.iter().map(|f| format!("{} {}", f.name(), f.data_type())).collect()
}

fn members(fields: &Fields, columns: &[ArrayRef]) -> Result<Vec<Member>, ArrowError> {
    let member = |(field, column): (&std::sync::Arc<Field>, &ArrayRef)| {
        let mut name = Vec::new();
        write_text(field.name(), &mut name);
        name.push(b':');
        Ok(Member { name, values: Values::new(column)? })
    };
    fields.iter().zip(columns).map(member).collect()
}

impl Values {
    fn new(column: &ArrayRef) -> Result<Self, ArrowError> {
        Ok(match column.data_type() {
            DataType::Struct(fields) => Self::Struct(column.clone(), members(fields, column.as_struct().columns())?),
            DataType::List(_) => {
                let list = column.as_list::<i32>().clone();
                let elements = Box::new(Self::new(list.values())?);
                Self::List(list, elements)
            }
            DataType::Map(..) => {
                let map = column.as_map().clone();
                let (keys, values) = (Reader::new(map.keys())?, Self::new(map.values())?);
                Self::Map(Box::new((map, keys, values)))
            }
            _ => Self::Scalar(Reader::new(column)?),
        })
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Scalar(reader) => reader.is_null(row),
            Self::Struct(array, _) => array.is_null(row),
            Self::List(array, _) => array.is_null(row),
            Self::Map(map) => map.0.is_null(row),
        }
    }

    fn write(&self, row: usize, style: Style, out: &mut Vec<u8>) {
        if self.is_null(row) {
            out.extend_from_slice(b"null");
            return;
        }
        match self {
            Self::Scalar(reader) => write_scalar(reader, row, style, out),
            Self::Struct(_, members) => write_object(members, row, style, out),
            Self::List(array, elements) => {
                let offsets = array.value_offsets();
                out.push(b'[');
                for (i, element) in (offsets[row]..offsets[row + 1]).enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    elements.write(element as usize, style, out);
                }
                out.push(b']');
            }
            Self::Map(map) => {
                let (array, keys, values) = map.as_ref();
                let offsets = array.value_offsets();
                out.push(b'{');
                for (i, entry) in (offsets[row]..offsets[row + 1]).enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    write_key(keys, entry as usize, style, out);
                    out.push(b':');
                    values.write(entry as usize, style, out);
                }
                out.push(b'}');
            }
        }
    }
}

fn write_object(members: &[Member], row: usize, style: Style, out: &mut Vec<u8>) {
    out.push(b'{');
    let mut first = true;
    for member in members {
        if style.omit_nulls && member.values.is_null(row) {
            continue;
        }
        if !first {
            out.push(b',');
        }
        first = false;
        out.extend_from_slice(&member.name);
        member.values.write(row, style, out);
    }
    out.push(b'}');
}

fn write_scalar(reader: &Reader, row: usize, style: Style, out: &mut Vec<u8>) {
    match reader.shape(row) {
        Shape::Bare => reader.write(row, style.iso, out),
        Shape::Quoted => {
            out.push(b'"');
            reader.write(row, style.iso, out);
            out.push(b'"');
        }
        Shape::Text => write_text(reader.text(row).unwrap_or_default(), out),
    }
}

/// Keys are strings, whatever their type.
fn write_key(reader: &Reader, row: usize, style: Style, out: &mut Vec<u8>) {
    match reader.text(row) {
        Some(text) => write_text(text, out),
        None => {
            out.push(b'"');
            reader.write(row, style.iso, out);
            out.push(b'"');
        }
    }
}

/// Appends a string with quotes and escapes.
fn write_text(text: &str, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    out.push(b'"');
    let mut done = 0;
    let mut at = 0;
    while let Some(stop) = find_not_plain(bytes, at) {
        at = stop + 1;
        if bytes[stop] >= 0x80 {
            continue;
        }
        out.extend_from_slice(&bytes[done..stop]);
        done = at;
        let short = match bytes[stop] {
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            8 => b'b',
            12 => b'f',
            byte @ (b'"' | b'\\') => byte,
            byte => {
                let hex = |n: u8| if n < 10 { b'0' + n } else { b'a' + n - 10 };
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', hex(byte >> 4), hex(byte & 15)]);
                continue;
            }
        };
        out.extend_from_slice(&[b'\\', short]);
    }
    out.extend_from_slice(&bytes[done..]);
    out.push(b'"');
}
