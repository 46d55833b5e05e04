//! A planned pipeline as the control plane sees it.
use std::collections::BTreeMap;

use millstream_connectors::{SinkFactory, SourceFactory, connector};
use millstream_dataflow::graph::{NodeKind, SideTable, TimeDomain};
use millstream_plan::options::Resolved;
use millstream_sql::{Pipeline, Trigger as SqlTrigger};

use super::DriverError;
use crate::planner::{PlanOptions, Trigger};
use crate::shape::{PipelineShape, Side, SinkShape, SourceShape, TimerDomain};

/// The factories of all tables, by id.
pub(super) struct Tables {
    pub sources: Vec<(String, Box<dyn SourceFactory>)>,
    pub sinks: Vec<(String, Box<dyn SinkFactory>)>,
}

impl Tables {
    pub fn of(pipeline: &Pipeline) -> Result<Self, DriverError> {
        let missing = |table: &str| DriverError::Internal(format!("the connector of table '{table}' is gone"));
        let named = |options: &Resolved, table: &str| {
            options.text("connector").and_then(connector).ok_or_else(|| missing(table))
        };
        let (mut sources, mut sinks) = (Vec::new(), Vec::new());
        for spec in &pipeline.sources {
            let factory = (named(&spec.options, &spec.table)?.source)(spec.clone());
            let factory = factory.map_err(|error| DriverError::Connector { table: spec.table.clone(), error })?;
            sources.push((spec.table.clone(), factory));
        }
        for spec in &pipeline.sinks {
            let factory = (named(&spec.options, &spec.table)?.sink)(spec.clone());
            let factory = factory.map_err(|error| DriverError::Connector { table: spec.table.clone(), error })?;
            sinks.push((spec.table.clone(), factory));
        }
        Ok(Self { sources, sinks })
    }
}

/// The shape of a pipeline.
pub(super) fn shape_of(pipeline: &Pipeline, tables: &Tables, name: String, parallelism: u16) -> PipelineShape {
    let graph = &pipeline.graph;
    let sources = graph.sources().map(|(_, node)| {
        let options = &pipeline.sources[usize::from(node.source.0)].options;
        let limit = |name: &str| options.integer(name).and_then(|v| u64::try_from(v).ok());
        SourceShape {
            id: node.source,
            name: node.table.clone(),
            uses_watermark: node.watermark.is_some(),
            idle_timeout_ms: node.watermark.as_ref().and_then(|w| w.idle_timeout_ms),
            max_per_trigger: limit("maxOffsetsPerTrigger"),
            min_per_trigger: limit("minOffsetsPerTrigger"),
            max_trigger_delay_ms: options.duration("maxTriggerDelay").map_or(900_000, |d| d.as_millis() as u64),
            side: node.side.map(|side| match side {
                SideTable::Whole => Side::Whole,
                SideTable::Refreshed => Side::Refreshed,
            }),
        }
    });
    let sinks = graph.sinks().map(|(node, sink)| SinkShape {
        id: sink.sink,
        name: sink.table.clone(),
        stage: node.stage,
        commit_interval_ms: tables.sinks[usize::from(sink.sink.0)].1.commit_interval().map(|d| d.as_millis() as u64),
    });
    let clock = |domain: &TimeDomain| match domain.clock().0 {
        TimeDomain::Event(sources) => TimerDomain::Event(sources.clone()),
        TimeDomain::Processing | TimeDomain::Delayed(..) => TimerDomain::Processing,
    };
    let timers = graph.nodes.iter().filter_map(|n| {
        let domain = match &n.kind {
            NodeKind::WindowAggregate(aggregate) => &aggregate.domain,
            NodeKind::Join(join) => join.bound.as_ref()?,
            NodeKind::Rank(rank) => &rank.rows.close.as_ref()?.domain,
            NodeKind::Over(over) => over.close.as_ref()?,
            NodeKind::RowPattern(pattern) => &pattern.domain,
            // What lapses must be noticed without input.
            NodeKind::GroupAggregate(group) if group.ttl.is_some() => &TimeDomain::Processing,
            _ => return None,
        };
        Some((n.id, clock(domain)))
    });
    let mut sources: Vec<SourceShape> = sources.collect();
    let mut sinks: Vec<SinkShape> = sinks.collect();
    sources.sort_by_key(|s| s.id);
    sinks.sort_by_key(|s| s.id);
    PipelineShape {
        name,
        fingerprint: graph.fingerprint,
        parallelism,
        sources,
        stages: graph.stages.iter().map(|s| s.id).collect(),
        sinks,
        timers: timers.collect::<BTreeMap<_, _>>(),
    }
}

/// Settings of the planner.
pub(super) fn plan_options(pipeline: &Pipeline) -> PlanOptions {
    let settings = &pipeline.settings;
    let defaults = PlanOptions::default();
    let count = |name: &str| settings.integer(name).and_then(|v| u64::try_from(v).ok());
    PlanOptions {
        trigger: match settings.trigger() {
            SqlTrigger::Interval(interval) => Trigger::Interval { interval_ms: interval.as_millis() as u64 },
            SqlTrigger::AvailableNow => Trigger::AvailableNow,
            SqlTrigger::Once => Trigger::Once,
        },
        max_rows: count("epoch.max-records").unwrap_or(defaults.max_rows),
        max_bytes: settings.bytes("epoch.max-bytes").unwrap_or(defaults.max_bytes),
        max_unsealed_bytes: settings
            .bytes("state.memory")
            .map_or(defaults.max_unsealed_bytes, |bytes| (bytes / 4).max(1)),
        checkpoint_interval_ms: settings
            .duration("checkpoint.interval")
            .map_or(defaults.checkpoint_interval_ms, |d| d.as_millis() as u64),
        ..defaults
    }
}
