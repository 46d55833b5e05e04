//! Whole files: JSON lines and CSV, plain or compressed, and Parquet.
//!
//! Reading: [`LineReader`] inflates and splits a text file into messages, which a [`crate::Decoder`] decodes like those
//! of a broker; [`ParquetFile`] gives the row groups of a Parquet file in the schema that was asked for. Writing:
//! [`FileWriter`] gathers rows and gives the bytes of one complete file. The bytes are a function of the sequence of
//! rows alone: how the rows were cut into batches, the time and the machine leave no mark, so that a sink can compare
//! what it wrote before a crash.
mod adapt;
mod lines;
mod parquet;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
mod write;

pub use self::lines::{LineReader, Lines, ReadLimits};
pub use self::parquet::ParquetFile;
pub use self::write::{FileWriter, extension};
