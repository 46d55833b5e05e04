//! Nexmark events.
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use millstream_connectors::{NexmarkConfig, NexmarkGenerator};

use super::target::Target;
use super::{Pace, Taken};
use crate::args::NexmarkArgs;
use crate::failure::Failure;

/// Shortest pause of a paced generator: shorter ones only burn CPU.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);

pub(super) fn generate(args: &NexmarkArgs) -> Result<(), Failure> {
    let defaults = NexmarkConfig::default();
    let now_ms = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
    let generator = NexmarkGenerator::new(&NexmarkConfig {
        seed: args.seed,
        base_ms: args.base.unwrap_or_else(|| if args.rate.is_some() { now_ms() } else { defaults.base_ms }),
        event_rate: args.event_rate.or(args.rate).map_or(defaults.event_rate, |rate| rate as f64),
        group: defaults.group,
    });
    let mut target = Target::open(&args.target)?;
    let pace = args.rate.map(Pace::new);
    let mut json = Vec::with_capacity(1024);
    for k in 0..args.events.unwrap_or(u64::MAX) {
        if let Some(pause) = pace.as_ref().map(|p| p.until(k)).filter(|p| *p >= SHORTEST_PAUSE) {
            target.flush()?;
            std::thread::sleep(pause);
        }
        json.clear();
        generator.write_json(k, generator.event_time(k), &mut json);
        if target.write(&json)? == Taken::Enough {
            return Ok(());
        }
    }
    target.flush()
}
