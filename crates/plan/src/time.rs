//! Event time: milliseconds since 1970-01-01T00:00:00Z, and the watermark over it.
use std::fmt;

use serde::{Deserialize, Serialize};

/// No row older than this is expected any more. Milliseconds of event time.
///
/// In an epoch whose plan says `W`, a row with event time `< W` is late and a window with `end <= W` closes at the epoch's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Watermark(pub i64);

impl Watermark {
    /// Nothing is known yet: nothing is late and nothing closes.
    pub const MIN: Self = Self(i64::MIN);
    /// The input has ended: everything closes.
    pub const MAX: Self = Self(i64::MAX);
}

impl Default for Watermark {
    fn default() -> Self {
        Self::MIN
    }
}

impl fmt::Display for Watermark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::MIN => f.write_str("none"),
            Self::MAX => f.write_str("end of input"),
            Self(ms) => ms.fmt(f),
        }
    }
}
