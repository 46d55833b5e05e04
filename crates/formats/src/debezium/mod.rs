//! `debezium-json`: changes of rows, one JSON object per message.
//!
//! | `op` | | rows that come out |
//! |---|---|---|
//! | `c`, `r` | a row was created, or read by a snapshot | `after` comes |
//! | `u` | a row was updated | `before` goes, `after` comes |
//! | `d` | a row was deleted | `before` goes |
//!
//! The object may be the `payload` of `{"schema": …, "payload": …}`. A message with another `op`, or without the row that its `op` needs,
//! is bad.
//!
//! **By key** ([`DebeziumOptions::key`](crate::DebeziumOptions)) the rows that come out are upserts: a row that comes takes the place of the one
//! with its key, and of one that goes only the key is decoded. Then an update needs no `before` (PostgreSQL sends none unless the
//! table's `REPLICA IDENTITY` is `FULL`); if there is one, its row goes only if its key is another.
//!
//! Written are `c` and `d` alone, as Flink does: an update is the deletion of the old row and the creation of the new one.
mod decode;
mod encode;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;

pub(crate) use decode::DebeziumDecoder;
pub use encode::{envelope, envelope_schema, wrap};
