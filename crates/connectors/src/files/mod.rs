//! `filesystem`: folders of files, on the local disk or in a bucket, as source and as sink; and the files of dead letters.
mod commit;
mod dead_letters;
mod enumerate;
mod folder;
mod local;
mod options;
mod partitions;
mod read;
mod s3;
mod sink;
mod source;
#[cfg(test)]
mod tests;

use millstream_plan::options::OptionSpec;

pub use self::dead_letters::{DeadLetterEncoder, dead_letter_committer};
use self::options::{LOCATION_OPTIONS, SINK_OPTIONS, SOURCE_OPTIONS};
pub use self::s3::S3Options;
use self::sink::FileSink;
use self::source::{FileSource, METADATA};
use crate::registry::{Changes, Connector, RECORD_OPTIONS, Reads};

const SOURCE_TABLES: &[&[OptionSpec]] = &[LOCATION_OPTIONS, SOURCE_OPTIONS, RECORD_OPTIONS];
const SINK_TABLES: &[&[OptionSpec]] = &[LOCATION_OPTIONS, SINK_OPTIONS];

pub(crate) static FILESYSTEM: Connector = Connector {
    name: "filesystem",
    source_options: Some(SOURCE_TABLES),
    sink_options: Some(SINK_TABLES),
    pass_through: &[],
    source_metadata: METADATA,
    sink_metadata: &[],
    has_format: true,
    reads: |table| match (table.changelog_format, table.has_key) {
        (false, _) => Reads::Appended,
        (true, false) => Reads::Changes,
        (true, true) => Reads::Upserts,
    },
    changes: |table| match table.changelog_format || table.changelog_column {
        true => Changes::All,
        false => Changes::Refused {
            hint: "set 'changelog.column' = 'op' on the table to write every change with what it is, or write to a kafka table with \
                   PRIMARY KEY (…) NOT ENFORCED, which keeps the last row of each key",
        },
    },
    source: |spec| Ok(Box::new(FileSource::new(spec)?)),
    sink: |spec| Ok(Box::new(FileSink::new(spec)?)),
};
