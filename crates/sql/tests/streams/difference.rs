//! Rows as text, and what differs between two multisets of them.
//!
//! Floats that were summed in another order differ in their last digits: rows that have no partner are paired once more with a relative
//! tolerance. NaN equals NaN and −0.0 equals 0.0.
use std::collections::BTreeMap;
use std::fmt::Write as _;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};

/// Rows with how often each is there.
pub type Multiset = BTreeMap<Vec<String>, i64>;

const SHOWN: usize = 12;
const TOLERANCE: f64 = 1e-9;

/// The rows of a batch as text: texts in quotes, so that '' and 'NULL' are not taken for others.
pub fn texts(batch: &RecordBatch) -> Vec<Vec<String>> {
    let columns: Vec<Vec<String>> = batch.columns().iter().map(column).collect();
    (0..batch.num_rows()).map(|row| columns.iter().map(|c| c[row].clone()).collect()).collect()
}

fn column(array: &ArrayRef) -> Vec<String> {
    if *array.data_type() == DataType::Utf8 {
        let texts = array.as_string::<i32>();
        return texts.iter().map(|t| t.map_or_else(|| "NULL".to_owned(), |t| format!("{t:?}"))).collect();
    }
    let options = FormatOptions::new().with_null("NULL");
    let formatter = ArrayFormatter::try_new(array, &options).unwrap();
    let texts = (0..array.len()).map(|row| formatter.value(row).to_string());
    match array.data_type().is_floating() {
        true => texts.map(|t| if t == "-0.0" { "0.0".to_owned() } else { t }).collect(),
        false => texts.collect(),
    }
}

/// What differs, for a reader; nothing when both are the same.
pub fn difference(schema: &SchemaRef, expected: &Multiset, found: &Multiset) -> Option<String> {
    let mut missing = Multiset::new();
    let mut surplus = Multiset::new();
    for (row, count) in expected {
        let more = count - found.get(row).copied().unwrap_or(0);
        if more > 0 {
            missing.insert(row.clone(), more);
        }
    }
    for (row, count) in found {
        let more = count - expected.get(row).copied().unwrap_or(0);
        if more > 0 || *count < 0 {
            surplus.insert(row.clone(), if *count < 0 { *count } else { more });
        }
    }
    let floats: Vec<bool> = schema.fields().iter().map(|f| f.data_type().is_floating()).collect();
    if floats.contains(&true) {
        pair_floats(&floats, &mut missing, &mut surplus);
    }
    if missing.is_empty() && surplus.is_empty() {
        return None;
    }
    let size = |rows: &Multiset| rows.values().sum::<i64>();
    let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
    let mut text = format!("{} rows expected, {} there\n  {}", size(expected), size(found), names.join(" | "));
    for (title, rows) in [("missing", &missing), ("too many", &surplus)] {
        let _ = write!(text, "\n{title}: {} different rows", rows.len());
        for (row, count) in rows.iter().take(SHOWN) {
            let _ = write!(text, "\n  {}", row.join(" | "));
            if *count != 1 {
                let _ = write!(text, "   ({count} times)");
            }
        }
        if rows.len() > SHOWN {
            let _ = write!(text, "\n  …");
        }
    }
    Some(text)
}

/// Takes away rows of both sides that are the same but for the last digits of their floats.
fn pair_floats(floats: &[bool], missing: &mut Multiset, surplus: &mut Multiset) {
    let exact = |row: &[String]| -> Vec<String> {
        row.iter().zip(floats).filter(|(_, float)| !**float).map(|(t, _)| t.clone()).collect()
    };
    let mut by_exact: BTreeMap<Vec<String>, Vec<Vec<String>>> = BTreeMap::new();
    for row in surplus.keys() {
        by_exact.entry(exact(row)).or_default().push(row.clone());
    }
    for (row, count) in missing.iter_mut() {
        for partner in by_exact.get(&exact(row)).into_iter().flatten() {
            let Some(there) = surplus.get_mut(partner).filter(|c| **c > 0) else { continue };
            if *count > 0 && row.iter().zip(partner).zip(floats).all(|((a, b), float)| a == b || *float && near(a, b)) {
                let taken = (*count).min(*there);
                *count -= taken;
                *there -= taken;
            }
        }
    }
    missing.retain(|_, count| *count != 0);
    surplus.retain(|_, count| *count != 0);
}

fn near(a: &str, b: &str) -> bool {
    match (a.parse::<f64>(), b.parse::<f64>()) {
        (Ok(a), Ok(b)) => (a - b).abs() <= TOLERANCE * a.abs().max(b.abs()).max(1.0),
        _ => false,
    }
}
