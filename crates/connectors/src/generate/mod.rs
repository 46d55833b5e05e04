//! Generators: sources whose rows are functions of their number, so that nothing needs to be stored to read a row again.
mod datagen;
mod draws;
mod nexmark;
mod reader;
mod shards;
mod times;

use millstream_plan::options::{OptionKind, OptionSpec, Resolved};

use crate::ConnectorError;

pub use nexmark::{Generator as NexmarkGenerator, NexmarkConfig};

pub(crate) use datagen::DATAGEN;
pub(crate) use nexmark::NEXMARK;

const NUMBER_OF_ROWS: OptionSpec = OptionSpec {
    name: "number-of-rows",
    synonyms: &["numRows"],
    kind: OptionKind::Integer,
    default: None,
    text: "Rows after which the input ends; without it there is no end.",
};

const SEED: OptionSpec = OptionSpec {
    name: "seed",
    synonyms: &[],
    kind: OptionKind::Integer,
    default: Some("1"),
    text: "The same seed gives the same rows.",
};

const ROWS_PER_SECOND: &str = "rows-per-second";

/// A whole number that is at least `min`, if the option is there.
fn at_least(options: &Resolved, name: &str, min: u64) -> Result<Option<u64>, ConnectorError> {
    let Some(number) = options.integer(name) else { return Ok(None) };
    match u64::try_from(number) {
        Ok(n) if n >= min => Ok(Some(n)),
        _ => Err(ConnectorError::user(
            format!("'{}' = '{number}' is below {min}", options.given_as(name)),
            format!("give a number of at least {min}"),
        )),
    }
}

/// As [`at_least`], for an option that must be there.
fn required(options: &Resolved, name: &str, min: u64) -> Result<u64, ConnectorError> {
    at_least(options, name, min)?
        .ok_or_else(|| ConnectorError::user(format!("option '{name}' is missing"), format!("add '{name}'")))
}
