//! JSON: one object per message.
//!
//! # What is accepted
//! | column | JSON |
//! |---|---|
//! | integers | a number with a whole value (`12`, `12.0`, `1e3`), or a string that spells one |
//! | `FLOAT`, `DOUBLE` | a number, a string that spells one, or `"NaN"`, `"Infinity"`, `"-Infinity"` in quotes (unquoted they are not JSON) |
//! | `DECIMAL` | as above; digits beyond the scale are rounded half up |
//! | `BOOLEAN` | `true`, `false`, or these as strings |
//! | `STRING` | a string; any other value is kept as its JSON text |
//! | `BYTES` | a string in Base64 |
//! | `DATE`, `TIME`, `TIMESTAMP` | a string (see [`crate::text::time`]); a number is days, milliseconds of the day, epoch milliseconds |
//! | `ROW`, `ARRAY`, `MAP` | an object, an array, an object |
//!
//! This is what Flink and Spark accept together, without what they accept by losing data (a fraction cut off, `"abc"`
//! as false). Keys match exactly, with case. A missing field is null; the last of duplicate keys wins, except that the
//! first value of a prefilter's column that does not pass drops the row, and that a `MAP` has no duplicates. Numbers
//! that overflow, wrong types, invalid UTF-8 and halves of surrogate pairs make the row bad
//! ([`crate::BadFields::Reject`]) or the field null; broken syntax, input that ends early or goes on after the object,
//! and nesting deeper than 128 always make the row bad.
//!
//! # What is not looked at
//! A value that no column uses is skipped: of a string only its end is searched, of an object or array only quotes and
//! brackets count. A row that fails the prefilter is left at once. Errors in there are not found, as in any engine that
//! prunes columns.
mod cursor;
mod decode;
mod encode;
mod fault;
mod keys;
mod node;
mod scan;
mod strings;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
mod value;

pub(crate) use decode::JsonDecoder;
pub(crate) use encode::JsonEncoder;
pub(crate) use fault::excerpt;
pub(crate) use node::type_name;
