//! `generate`: records of the built-in generators, one JSON object each, to standard output or to a topic.
mod datagen;
mod nexmark;
mod target;

use std::time::{Duration, Instant};

use crate::args::Generate;
use crate::failure::Failure;

/// Runs the command.
///
/// # Errors
/// Wrong options, or the target does not take the records.
pub fn generate(what: &Generate) -> Result<(), Failure> {
    match what {
        Generate::Nexmark(args) => nexmark::generate(args),
        Generate::Datagen(args) => datagen::generate(args),
    }
}

/// What becomes of the records after one was handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    GoOn,
    /// The reader of standard output has seen enough.
    Enough,
}

/// Holds records back until they are due.
struct Pace {
    started: Instant,
    per_second: u64,
}

impl Pace {
    fn new(per_second: u64) -> Self {
        Self { started: Instant::now(), per_second }
    }

    /// How long until record `k` is due.
    fn until(&self, k: u64) -> Duration {
        let due = Duration::from_secs_f64(k as f64 / self.per_second as f64);
        due.saturating_sub(self.started.elapsed())
    }
}
