//! Deterministic orders with event time: order `n` of a seed is always the same, and needs no other order.
//!
//! Sums are exact (whole cents), ids are unique, event time rises by 100 ms per order with up to 3 s of disorder. So a test
//! knows which rows must come out whatever was killed meanwhile.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use crate::kafka::Record;

/// 2024-01-01T00:00:00Z.
const START: i64 = 1_704_067_200_000;

/// How far an order's event time may lie behind that of an earlier one, in milliseconds.
pub const DISORDER: i64 = 3_000;

const CUSTOMERS: u64 = 97;
const CITIES: [&str; 5] = ["Bergen", "Łódź", "São Paulo", "京都", "O'Fallon \"IL\""];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    pub id: i64,
    pub customer: i64,
    pub city: &'static str,
    pub cents: i64,
    /// Event time in milliseconds since 1970.
    pub ts: i64,
}

impl Order {
    pub fn nth(seed: u64, n: i64) -> Self {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (n as u64);
        let mut draw = |below: u64| {
            state = splitmix(state);
            state % below
        };
        Self {
            id: n,
            customer: draw(CUSTOMERS) as i64,
            city: CITIES[draw(CITIES.len() as u64) as usize],
            cents: draw(1_000_000) as i64 - 1_000,
            ts: START + n * 100 - draw(DISORDER as u64 + 1) as i64,
        }
    }

    /// One JSON object with `ts` as SQL text in UTC, the form that both dialects read.
    pub fn json(&self) -> String {
        let time = chrono::DateTime::from_timestamp_millis(self.ts).expect("a time of this century");
        let row = serde_json::json!({
            "id": self.id, "customer": self.customer, "city": self.city, "cents": self.cents,
            "ts": time.format("%Y-%m-%d %H:%M:%S%.3f").to_string(),
        });
        row.to_string()
    }

    /// The record of this order in the partition `id % partitions`.
    pub fn record(&self, partitions: i32) -> Record {
        let partition = self.id.rem_euclid(i64::from(partitions)) as i32;
        Record::new(self.json()).partition(partition).key(self.customer.to_string()).timestamp(self.ts)
    }
}

/// The orders of a range of numbers.
pub fn orders(seed: u64, range: Range<i64>) -> Vec<Order> {
    range.map(|n| Order::nth(seed, n)).collect()
}

/// The columns of an order.
pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("customer", DataType::Int64, true),
        Field::new("city", DataType::Utf8, true),
        Field::new("cents", DataType::Int64, true),
        Field::new("ts", DataType::Timestamp(TimeUnit::Millisecond, None), true),
    ]))
}

/// The same columns for `CREATE TABLE`.
pub const COLUMNS: &str = "id BIGINT, customer BIGINT, city STRING, cents BIGINT, ts TIMESTAMP(3)";

/// Orders as Arrow, for the oracle.
pub fn batch(orders: &[Order]) -> RecordBatch {
    let numbers =
        |value: fn(&Order) -> i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(orders.iter().map(value))) };
    let columns: Vec<ArrayRef> = vec![
        numbers(|order| order.id),
        numbers(|order| order.customer),
        Arc::new(StringArray::from_iter_values(orders.iter().map(|order| order.city))),
        numbers(|order| order.cents),
        Arc::new(TimestampMillisecondArray::from_iter_values(orders.iter().map(|order| order.ts))),
    ];
    RecordBatch::try_new(schema(), columns).expect("columns of the schema")
}

fn splitmix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
