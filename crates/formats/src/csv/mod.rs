//! CSV: one record per message, columns by position.
//!
//! A record has the columns of [`FormatOptions::columns`](crate::FormatOptions) in order; with fewer fields the missing
//! ones are null, with more the message is bad. A field may stand in quotes, a quote inside is doubled; with an escape
//! character the byte after it is ordinary. An unquoted field equal to the null literal is null; without a null literal
//! the empty unquoted field is. Values are spelled as in the strings of JSON; only those of used columns
//! are looked at. Nested types are refused. A line end at the end of the message is dropped.
mod decode;
mod encode;
mod split;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;

pub(crate) use decode::CsvDecoder;
pub(crate) use encode::{CsvEncoder, write_field};
