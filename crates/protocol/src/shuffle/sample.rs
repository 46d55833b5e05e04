//! Batches for tests.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::sync::Arc;

use arrow::array::*;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float16Type, Int32Type, Int64Type, IntervalUnit, TimeUnit, i256};
use arrow::record_batch::RecordBatch;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Starts and lengths of slices that cover `rows` rows.
pub(super) fn slices(rows: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut at = 0;
    [1, 0, 8192, 77, 1000, 8191].into_iter().cycle().map_while(move |length| {
        let from = at;
        at = (at + length).min(rows);
        (from < rows).then_some((from, at - from))
    })
}

/// A batch with a column of every type that an edge may have, with nulls, also nested.
pub(super) fn all_types(rows: usize, seed: u64) -> RecordBatch {
    let mut random = StdRng::seed_from_u64(seed);
    let numbers: Int64Array = (0..rows).map(|_| random.random_bool(0.8).then(|| random.random_range(0..100))).collect();
    let texts: Vec<Option<String>> =
        (0..rows).map(|_| random.random_bool(0.8).then(|| "wörter ".repeat(random.random_range(0..5)))).collect();
    let numbers: ArrayRef = Arc::new(numbers);
    let strings: ArrayRef = Arc::new(StringArray::from(texts));
    let mut columns: Vec<(String, ArrayRef)> = Vec::new();
    let mut casts = |from: &ArrayRef, types: &[DataType]| {
        for data_type in types {
            columns.push((data_type.to_string(), cast(from, data_type).unwrap()));
        }
    };
    casts(
        &numbers,
        &[
            DataType::Int8,
            DataType::Int16,
            DataType::Int32,
            DataType::Int64,
            DataType::UInt8,
            DataType::UInt16,
            DataType::UInt32,
            DataType::UInt64,
            DataType::Float32,
            DataType::Float64,
            DataType::Boolean,
            DataType::Decimal128(38, 4),
            DataType::Date64,
            DataType::Time64(TimeUnit::Nanosecond),
            DataType::Timestamp(TimeUnit::Millisecond, None),
            DataType::Timestamp(TimeUnit::Microsecond, Some("+02:00".into())),
            DataType::Duration(TimeUnit::Second),
        ],
    );
    casts(
        &strings,
        &[
            DataType::Utf8,
            DataType::LargeUtf8,
            DataType::Utf8View,
            DataType::Binary,
            DataType::LargeBinary,
            DataType::BinaryView,
        ],
    );
    let as_int32 = cast(&numbers, &DataType::Int32).unwrap();
    columns.push(("Date32".to_owned(), cast(&as_int32, &DataType::Date32).unwrap()));
    columns.push(("Time32".to_owned(), cast(&as_int32, &DataType::Time32(TimeUnit::Second)).unwrap()));
    columns.push(("months".to_owned(), cast(&as_int32, &DataType::Interval(IntervalUnit::YearMonth)).unwrap()));
    let ints = numbers.as_primitive::<Int64Type>();
    let halves = ints.iter().map(|n| n.map(|n| half(n as u16)));
    columns.push(("Float16".to_owned(), Arc::new(PrimitiveArray::<Float16Type>::from_iter(halves))));
    let wide: Decimal256Array = ints.iter().map(|n| n.map(|n| i256::from_i128(i128::from(n) << 90))).collect();
    columns.push(("Decimal256".to_owned(), Arc::new(wide.with_precision_and_scale(76, 0).unwrap())));
    let fixed = ints.iter().map(|n| n.map(|n| n.to_le_bytes()));
    columns.push((
        "FixedSizeBinary".to_owned(),
        Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(fixed, 8).unwrap()),
    ));
    columns.push(("Null".to_owned(), Arc::new(NullArray::new(rows))));
    nested(&mut columns, ints, &strings);
    let fields: Vec<Field> = columns.iter().map(|(n, c)| Field::new(n, c.data_type().clone(), true)).collect();
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    RecordBatch::try_new(Arc::new(arrow::datatypes::Schema::new(fields)), columns).unwrap()
}

/// The half float with these bits: always finite here, so that equality is that of values.
fn half(bits: u16) -> <Float16Type as arrow::datatypes::ArrowPrimitiveType>::Native {
    <Float16Type as arrow::datatypes::ArrowPrimitiveType>::Native::from_bits(bits)
}

fn nested(columns: &mut Vec<(String, ArrayRef)>, ints: &Int64Array, strings: &ArrayRef) {
    let lists = ints.iter().map(|n| n.map(|n| (0..n % 4).map(|i| (i != 2).then_some(i as i32)).collect::<Vec<_>>()));
    let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(lists));
    let large = ints.iter().map(|n| n.map(|n| vec![Some(n); (n % 3) as usize]));
    columns.push(("LargeList".to_owned(), Arc::new(LargeListArray::from_iter_primitive::<Int64Type, _, _>(large))));
    let pairs = ints.iter().map(|n| n.map(|n| vec![Some(n), None]));
    columns.push((
        "FixedSizeList".to_owned(),
        Arc::new(FixedSizeListArray::from_iter_primitive::<Int64Type, _, _>(pairs, 2)),
    ));
    let views = cast(strings, &DataType::Utf8View).unwrap();
    let inner = StructArray::from(vec![
        (Arc::new(Field::new("list", lists.data_type().clone(), true)), Arc::clone(&lists)),
        (Arc::new(Field::new("view", DataType::Utf8View, true)), views),
    ]);
    let outer = StructArray::new(
        vec![Field::new("inner", inner.data_type().clone(), true)].into(),
        vec![Arc::new(inner) as ArrayRef],
        ints.nulls().cloned(),
    );
    columns.push(("List".to_owned(), lists));
    columns.push(("Struct".to_owned(), Arc::new(outer)));
    let mut map = MapBuilder::new(None, StringViewBuilder::new(), Int64Builder::new());
    for n in ints {
        for i in 0..n.unwrap_or(0) % 3 {
            map.keys().append_value(format!("a key that does not fit a view: {i}"));
            map.values().append_option((i != 1).then_some(i));
        }
        map.append(n.is_some()).unwrap();
    }
    columns.push(("Map".to_owned(), Arc::new(map.finish())));
}
