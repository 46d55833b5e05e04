//! Records and their bytes: a header of magic, version, length and checksum, then a JSON body that a person can read.
use std::collections::BTreeMap;
use std::fmt;

use millstream_plan::{ContentHash, Digest, DigestBuilder, Epoch, EpochPlan, Generation};
use serde::{Deserialize, Serialize};

const MAGIC: &[u8; 4] = b"MSLG";
const VERSION: u16 = 1;
/// Magic, version (LE), length of the body (LE), XXH3-128 of the body (LE).
const HEADER: usize = 4 + 2 + 4 + 16;
/// A plan for 10,000 splits is about 1 MiB.
const MAX_BODY: usize = 64 << 20;

/// A place in the log, written at most once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Slot(pub u64);

impl Slot {
    /// The one after this.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Name of one run of a driver; never used by another run.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WriterId(pub String);

impl fmt::Display for WriterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One record of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Hash of the record before it; all zeros for the first.
    pub prev: ContentHash,
    /// The leadership in which it was written.
    pub generation: Generation,
    /// Tells our own record with a lost reply from another driver's.
    pub writer: WriterId,
    pub body: Body,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Body {
    /// First record of a pipeline.
    Genesis(Genesis),
    /// The next epoch.
    Plan(EpochPlan),
    /// A driver takes over.
    Claim(Claim),
    /// Epochs `from` and later are taken out.
    Void { from: Epoch },
}

/// What is fixed for a pipeline's life.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Genesis {
    /// `pipeline.name`.
    pub pipeline: String,
    /// Of the graph at the first start.
    pub fingerprint: Digest,
    /// Tasks per stage.
    pub parallelism: u16,
    /// Settings at the first start, for the record.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

/// A takeover.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// Where the new leader runs, for people.
    pub host: String,
    /// When, in milliseconds since 1970 UTC, for people.
    pub at_ms: i64,
}

/// The bytes of a slot are damaged: they were written whole, so this is not a torn write but a broken store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("it is {0} bytes long, too short for a record")]
    Short(usize),
    #[error("it does not begin with the mark of a record")]
    Magic,
    #[error("its version is {0}, this build reads {VERSION}")]
    Version(u16),
    #[error("its length field says {said}, it has {has} bytes")]
    Length { said: usize, has: usize },
    #[error("its checksum does not match")]
    Checksum,
    #[error("its body cannot be read: {0}")]
    Body(String),
}

impl Record {
    /// The record as bytes. The same record always has the same bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // Every map key of a record is a string, so this cannot fail; an empty body would be refused by every reader.
        let body = serde_json::to_vec(self).unwrap_or_default();
        let mut bytes = Vec::with_capacity(HEADER + body.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&checksum(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }

    /// Reads a record.
    ///
    /// # Errors
    /// The bytes are damaged or of another version.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let Some((header, body)) = bytes.split_at_checked(HEADER) else { return Err(RecordError::Short(bytes.len())) };
        if !header.starts_with(MAGIC) {
            return Err(RecordError::Magic);
        }
        let version = u16::from_le_bytes([header[4], header[5]]);
        if version != VERSION {
            return Err(RecordError::Version(version));
        }
        let said = u32::from_le_bytes([header[6], header[7], header[8], header[9]]) as usize;
        if said != body.len() || said > MAX_BODY {
            return Err(RecordError::Length { said, has: body.len() });
        }
        if header[10..] != checksum(body).to_le_bytes() {
            return Err(RecordError::Checksum);
        }
        serde_json::from_slice(body).map_err(|e| RecordError::Body(e.to_string()))
    }
}

fn checksum(body: &[u8]) -> u128 {
    let mut digest = DigestBuilder::default();
    digest.add(body);
    digest.finish().0
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            prev: ContentHash::of(b"before"),
            generation: Generation(3),
            writer: WriterId("w".into()),
            body: Body::Void { from: Epoch(7) },
        }
    }

    #[test]
    fn a_record_survives_its_bytes() {
        assert_eq!(Record::decode(&record().encode()).unwrap(), record());
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let bytes = record().encode();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                assert!(Record::decode(&damaged).is_err(), "byte {at} bit {bit}");
            }
            assert!(Record::decode(&bytes[..at]).is_err(), "cut at {at}");
        }
    }
}
