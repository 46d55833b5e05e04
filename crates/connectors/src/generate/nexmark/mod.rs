//! Nexmark, the auction site that streaming engines are compared with: a source that makes its events instead of reading them.
//!
//! The table declares any of `event_type INT`, `person ROW<…>`, `auction ROW<…>`, `bid ROW<…>`; two of the three records are null in every row.
//! With `rows-per-second` the generator is paced by the clock and event time is the time at which a row is due; otherwise event time
//! begins at `base` and runs at `event-rate`, however fast rows are taken.
mod columns;
mod event;
mod json;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

use millstream_formats::Accept;
use millstream_plan::SplitId;
use millstream_plan::options::{OptionKind, OptionSpec, Resolved};

use self::columns::Columns;
pub use self::event::{Generator, NexmarkConfig};
use super::reader::{RowMaker, ShardReader};
use super::shards::{Shard, ShardEnumerator};
use super::{NUMBER_OF_ROWS, ROWS_PER_SECOND, SEED, at_least, required};
use crate::registry::{Connector, appended, no_changes, not_a_sink};
use crate::{
    ConnectorError, DeadLetter, DeadLetterReason, Origin, SourceBatch, SourceFactory, SourceReader, SourceSpec,
    SplitEnumerator,
};

const OPTIONS: &[OptionSpec] = &[
    NUMBER_OF_ROWS,
    OptionSpec {
        name: ROWS_PER_SECOND,
        synonyms: &["rowsPerSecond"],
        kind: OptionKind::Integer,
        default: None,
        text: "Events per second of the clock; without it, as fast as they are taken.",
    },
    OptionSpec {
        name: "event-rate",
        synonyms: &[],
        kind: OptionKind::Integer,
        default: None,
        text: "Events per second of event time; default rows-per-second, or 10000 without it.",
    },
    OptionSpec {
        name: "base",
        synonyms: &[],
        kind: OptionKind::Integer,
        default: None,
        text: "Event time of the first event in milliseconds since 1970 UTC; default the start of the pipeline with rows-per-second, 2015-07-15 without it.",
    },
    OptionSpec {
        name: "out-of-order-group",
        synonyms: &["group"],
        kind: OptionKind::Integer,
        default: Some("1"),
        text: "Event times are shuffled inside groups of this many events; 1 keeps them in order.",
    },
    SEED,
];

pub(crate) static NEXMARK: Connector = Connector {
    name: "nexmark",
    source_options: Some(&[OPTIONS]),
    sink_options: None,
    pass_through: &[],
    source_metadata: &[],
    sink_metadata: &[],
    has_format: false,
    reads: appended,
    changes: no_changes,
    source: |spec| Ok(Box::new(Nexmark::new(spec)?)),
    sink: |spec| Err(not_a_sink(&spec, "nexmark")),
};

/// Options of the table.
#[derive(Clone, Debug)]
struct Options {
    rows: Option<u64>,
    rows_per_second: Option<u64>,
    /// Given, or to be taken from the start of the pipeline.
    base_ms: Option<i64>,
    event_rate: u64,
    group: u64,
    seed: u64,
}

impl Options {
    fn new(options: &Resolved) -> Result<Self, ConnectorError> {
        let rows_per_second = at_least(options, ROWS_PER_SECOND, 1)?;
        let event_rate = at_least(options, "event-rate", 1)?.or(rows_per_second).unwrap_or(10_000);
        let group = required(options, "out-of-order-group", 1)?;
        // 953 is what places are multiplied with: only then are two events of a group never given the same one.
        if group.is_multiple_of(953) {
            return Err(ConnectorError::user(
                format!("'{}' cannot be a multiple of 953", options.given_as("out-of-order-group")),
                "take the next number",
            ));
        }
        let base_ms = options.integer("base");
        Ok(Self {
            rows: at_least(options, "number-of-rows", 0)?,
            rows_per_second,
            base_ms: base_ms.or_else(|| rows_per_second.is_none().then(|| NexmarkConfig::default().base_ms)),
            event_rate,
            group,
            seed: options.integer("seed").unwrap_or(1) as u64,
        })
    }

    /// Says which events these are.
    fn tag(&self) -> String {
        let base = self.base_ms.map_or_else(|| "start".to_owned(), |ms| ms.to_string());
        format!("seed={} base={base} event-rate={} group={}", self.seed, self.event_rate, self.group)
    }
}

struct Nexmark {
    spec: SourceSpec,
    options: Options,
    columns: Columns,
}

impl Nexmark {
    fn new(spec: SourceSpec) -> Result<Self, ConnectorError> {
        let options = Options::new(&spec.options)?;
        let kinds = match &spec.prefilter {
            Some(filter) if filter.column == "event_type" => match &filter.accept {
                Accept::Int(types) => [0, 1, 2].map(|t| types.contains(&t)),
                Accept::Text(_) => [true; 3],
            },
            _ => [true; 3],
        };
        let columns = Columns::new(&spec.table, &spec.schema, kinds)?;
        Ok(Self { spec, options, columns })
    }
}

impl SourceFactory for Nexmark {
    fn enumerator(&self) -> Result<Box<dyn SplitEnumerator>, ConnectorError> {
        let Options { rows, rows_per_second, .. } = self.options;
        Ok(Box::new(ShardEnumerator::new(self.spec.parallelism, rows, rows_per_second, self.options.tag())))
    }

    fn reader(&self, _task: u16) -> Result<Box<dyn SourceReader>, ConnectorError> {
        let events = Events {
            table: self.spec.table.clone(),
            options: self.options.clone(),
            columns: self.columns.clone(),
            generator: None,
        };
        Ok(Box::new(ShardReader::new(self.spec.table.clone(), self.options.tag(), events)))
    }
}

struct Events {
    table: String,
    options: Options,
    columns: Columns,
    /// With the base that it was made for: known when the first range is read.
    generator: Option<(i64, Arc<Generator>)>,
}

impl Events {
    fn generator(&mut self, shard: &Shard) -> Result<Arc<Generator>, ConnectorError> {
        let base_ms = self.options.base_ms.or(shard.start_ms).ok_or_else(|| {
            ConnectorError::Fatal(format!("table '{}': the plan does not say when its generator started", self.table))
        })?;
        if let Some((made_for, generator)) = &self.generator
            && *made_for == base_ms
        {
            return Ok(Arc::clone(generator));
        }
        let Options { seed, event_rate, group, .. } = self.options;
        let config = NexmarkConfig { seed, base_ms, event_rate: event_rate as f64, group };
        let generator = Arc::new(Generator::new(&config));
        self.generator = Some((base_ms, Arc::clone(&generator)));
        Ok(generator)
    }
}

impl RowMaker for Events {
    fn make(&mut self, split: &SplitId, shard: &Shard, positions: Range<u64>) -> Result<SourceBatch, ConnectorError> {
        let generator = self.generator(shard)?;
        let records = positions.end - positions.start;
        let events: Vec<(u64, i64)> = positions
            .map(|p| shard.row(p))
            .filter(|k| self.columns.takes(Generator::kind(*k)))
            .map(|k| (k, generator.event_time(k)))
            .collect();
        let rows = self
            .columns
            .rows(&generator, &events)
            .map_err(|e| ConnectorError::Fatal(format!("table '{}': {e}", self.table)))?;
        let bytes = rows.get_array_memory_size() as u64;
        let origin = EventOrigin { table: self.table.clone(), split: split.clone(), shard: *shard, generator, events };
        Ok(SourceBatch { rows, weights: None, bad: Vec::new(), bad_count: 0, records, bytes, origin: Box::new(origin) })
    }
}

struct EventOrigin {
    table: String,
    split: SplitId,
    shard: Shard,
    generator: Arc<Generator>,
    events: Vec<(u64, i64)>,
}

impl Origin for EventOrigin {
    fn dead_letter(&self, row: usize, reason: DeadLetterReason, detail: String) -> DeadLetter {
        let (k, time_ms) = self.events[row];
        let mut value = Vec::new();
        self.generator.write_json(k, time_ms, &mut value);
        DeadLetter {
            source: self.table.clone(),
            split: self.split.clone(),
            position: k / u64::from(self.shard.count),
            timestamp_ms: Some(time_ms),
            reason,
            detail,
            key: None,
            value,
        }
    }
}
