//! Views without the bytes that nobody looks at.
//!
//! A slice or selection of a string view array shares the whole buffers of the array it was taken from, and IPC writes buffers whole: after
//! a partitioning into n parts, everything would be sent n times.
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, GenericByteViewArray, make_array};
use arrow::datatypes::{ByteViewType, DataType};
use arrow::error::ArrowError;

/// Bytes not worth a copy.
const NEGLIGIBLE: usize = 4096;

/// `array` with compact views, or `None` if it is good as it is.
pub(super) fn compact(array: &ArrayRef) -> Result<Option<ArrayRef>, ArrowError> {
    Ok(match array.data_type() {
        DataType::Utf8View => wasteful(array.as_string_view()).then(|| Arc::new(array.as_string_view().gc()) as _),
        DataType::BinaryView => wasteful(array.as_binary_view()).then(|| Arc::new(array.as_binary_view().gc()) as _),
        nested if has_views(nested) => {
            let data = array.to_data();
            let mut changed = false;
            let mut children = data.child_data().to_vec();
            for child in &mut children {
                if let Some(smaller) = compact(&make_array(child.clone()))? {
                    *child = smaller.to_data();
                    changed = true;
                }
            }
            if changed { Some(make_array(data.into_builder().child_data(children).build()?)) } else { None }
        }
        _ => None,
    })
}

fn wasteful<T: ByteViewType + ?Sized>(array: &GenericByteViewArray<T>) -> bool {
    let held: usize = array.data_buffers().iter().map(|buffer| buffer.len()).sum();
    held > NEGLIGIBLE && held / 2 > array.total_buffer_bytes_used()
}

fn has_views(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8View | DataType::BinaryView => true,
        DataType::Struct(fields) => fields.iter().any(|f| has_views(f.data_type())),
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => has_views(field.data_type()),
        _ => false,
    }
}
