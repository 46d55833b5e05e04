//! Joins on changes: ΔA⋈B + A⋈ΔB + ΔA⋈ΔB over two indexed states (DBSP, Budiu et al., VLDB 2023), in all kinds, by equal keys and any
//! residual condition.
//!
//! **Four ways.** Where the output is only appended to ([`Join::append_only`]), every row meets the earlier rows of the other side
//! when it arrives, and nothing is ever taken back ([`stream`]). Otherwise the changes of an epoch are gathered, consolidated, and turned
//! into changes of pairs and of unmatched rows at its end ([`delta`]). Joins that are not symmetric ([`Meets`]): with a table that is looked up
//! ([`lookup`]), and with the version that is valid at a row's time ([`version`]).
//!
//! **State.** Both sides keep their rows columnar, in parts, with chains of row ids per key ([`side`]): output is `interleave` over the
//! parts in use, a checkpoint writes new rows as one Arrow IPC batch and changed weights as patches ([`store`]). Entries per key would be
//! simpler, but cost an encoding per row and a lookup per pair; the hot case, an append-only inner join, pays 8 bytes of index per row
//! and one hash per row for both sides ([`keys`]).
//!
//! **Order.** Pairs leave in order of the arriving rows, for each the newest match first; ids follow the order of arrival and are kept by
//! checkpoints, so a restored operator emits the same. In an epoch that takes rows back, everything that is taken back leaves first.
//!
//! **Skew.** A key with a million rows costs a step in a chain per pair that is emitted, or tested by the residual, and nothing else: rows
//! are found by content through an index over whole rows, and semi and anti joins without residual ask only whether a key has a row.
//!
//! **Nulls.** A row with a null key matches nothing, unless nulls are equal, and is stored only to leave unmatched with its time. A residual
//! that is null does not hold.
//!
//! **Time.** With a [`Join::bound`], rows leave the state at the end of the epoch whose watermark they cannot outlive.
//!
//! | entry | value |
//! |---|---|
//! | `0` | the watermark up to which rows have left (i64, big endian), of bounded joins |
//! | `1, …`, `2, …` | left and right rows, see [`store`] |
mod delta;
mod keys;
mod lookup;
mod matcher;
mod side;
mod store;
mod stream;
#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
mod tests;
mod version;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::error::DataFusionError;
use millstream_plan::OperatorId;

use self::delta::Delta;
use self::keys::Keys;
use self::lookup::Lookup;
use self::matcher::Matcher;
use self::side::{Side, Traits};
use self::store::Changes;
use self::stream::Stream;
use self::version::Versions;
use super::{EpochContext, Footprint, Operator, StateChange, StateReport, Step};
use crate::cold::ColdState;
use crate::graph::{Join, Meets};
use crate::{DataflowError, DeltaBatch};

/// Index entries that are of no use any more are removed when there are this many, and more than useful ones.
const MUCH_GARBAGE: usize = 1 << 16;

const CLOSED: u8 = 0;

pub(super) struct JoinOperator {
    id: OperatorId,
    core: Core,
    mode: Mode,
}

enum Mode {
    Stream(Stream),
    Delta(Box<Delta>),
    Lookup(Lookup),
    Version(Versions),
}

/// What both ways share.
struct Core {
    spec: Arc<Join>,
    matcher: Matcher,
    keys: Keys,
    sides: [Side; 2],
    /// Rows that cannot outlive this watermark have left.
    closed: i64,
}

impl JoinOperator {
    pub(super) fn new(id: OperatorId, spec: &Arc<Join>, output: SchemaRef) -> Result<Self, DataflowError> {
        let types = |side: usize| {
            let input = &spec.inputs[side];
            input.keys.iter().map(|k| input.schema.field(*k).data_type().clone()).collect::<Vec<_>>()
        };
        if types(0) != types(1) {
            return Err(DataflowError::Corrupt(format!("operator {id}: the join's keys have different types")));
        }
        let appends = spec.append_only();
        let inputs_append = spec.inputs.iter().all(|i| i.append_only);
        let side = |side: usize| {
            let is_filter = spec.kind.is_filter();
            let tracked = if is_filter { side == 0 } else { spec.kind.keeps_unmatched(side) };
            let traits = match (&spec.meets, appends) {
                // Left rows are not kept, or go with the watermark.
                (Meets::Known { replaces }, _) => {
                    Traits { weights: side == 1 && !replaces.is_empty(), content: false, counts: false }
                }
                (Meets::Version { .. }, _) => Traits { weights: side == 1, content: false, counts: false },
                (Meets::All, true) => {
                    Traits { weights: is_filter && side == 0, content: false, counts: tracked && !is_filter }
                }
                (Meets::All, false) => Traits {
                    weights: !inputs_append,
                    content: !inputs_append,
                    counts: tracked && spec.residual.is_some(),
                },
            };
            Side::new(side as u8 + 1, &spec.inputs[side], traits, appends && spec.bound.is_some())
        };
        let core = || {
            Ok::<_, DataFusionError>(Core {
                spec: spec.clone(),
                matcher: Matcher::new(spec, output.clone())?,
                keys: Keys::new(&spec.inputs[0].schema, &spec.inputs[0].keys, spec.null_equal)?,
                sides: [side(0)?, side(1)?],
                closed: i64::MIN,
            })
        };
        let core = core().map_err(super::failed(id, "join"))?;
        let mode = match &spec.meets {
            Meets::All if appends => Mode::Stream(Stream::default()),
            Meets::All => Mode::Delta(Box::default()),
            Meets::Known { replaces } => Mode::Lookup(Lookup::new(replaces)),
            Meets::Version { time } => Mode::Version(Versions::new(*time)),
        };
        Ok(Self { id, core, mode })
    }
}

impl Operator for JoinOperator {
    fn process(
        &mut self,
        input: usize,
        batch: DeltaBatch,
        _: &EpochContext<'_>,
        out: &mut Vec<DeltaBatch>,
    ) -> Result<Step, DataflowError> {
        if batch.weights.is_some() && self.core.spec.inputs[input].append_only {
            let message = format!("operator {} (join): input {input} is append-only and was given weights", self.id);
            return Err(DataflowError::Corrupt(message));
        }
        let core = &mut self.core;
        let step = match &mut self.mode {
            Mode::Stream(stream) => stream.process(core, input, batch.rows, out),
            Mode::Lookup(lookup) => lookup.process(core, input, batch, out),
            Mode::Version(versions) => versions.process(core, input, batch.rows, out).map(|()| Step::Done),
            Mode::Delta(delta) => {
                delta.process(input, batch);
                Ok(Step::Done)
            }
        };
        step.map_err(super::failed(self.id, "join"))
    }

    fn resume(&mut self, _: &EpochContext<'_>, out: &mut Vec<DeltaBatch>) -> Result<Step, DataflowError> {
        let step = match &mut self.mode {
            Mode::Stream(stream) => stream.resume(&mut self.core, out),
            Mode::Delta(delta) => delta.resume(&mut self.core, out),
            Mode::Lookup(lookup) => lookup.resume(&mut self.core, out),
            Mode::Version(versions) => versions.resume(&mut self.core, out),
        };
        step.map_err(super::failed(self.id, "join"))
    }

    fn end_epoch(&mut self, cx: &EpochContext<'_>, out: &mut Vec<DeltaBatch>) -> Result<Step, DataflowError> {
        let failed = super::failed(self.id, "join");
        let watermark = self.core.spec.bound.as_ref().map_or(i64::MIN, |domain| cx.watermark(domain));
        match &mut self.mode {
            Mode::Lookup(_) => Ok(Step::Done),
            Mode::Version(versions) => versions.end_epoch(&mut self.core, watermark, out).map_err(failed),
            Mode::Stream(stream) => stream.end_epoch(&mut self.core, watermark, out).map_err(failed),
            Mode::Delta(delta) => {
                if let Some(absent) = delta.end_epoch(&mut self.core).map_err(&failed)? {
                    let side = if absent.side == 0 { "left" } else { "right" };
                    return Err(DataflowError::Corrupt(format!(
                        "operator {} (join): its {side} input takes back a row that is not there: {}",
                        self.id, absent.row
                    )));
                }
                delta.resume(&mut self.core, out).map_err(failed)
            }
        }
    }

    fn seal(&mut self) -> Result<Vec<StateChange>, DataflowError> {
        let (core, mode) = (&mut self.core, &mut self.mode);
        let mut changes = Changes::new();
        let mut seal = || {
            for side in &mut core.sides {
                side.seal(&mut changes)?;
            }
            let live = core.sides[0].live + core.sides[1].live;
            let garbage = core.sides[0].garbage() + core.sides[1].garbage();
            if garbage > live + MUCH_GARBAGE || core.keys.len() > 2 * live + MUCH_GARBAGE {
                core.keys.clear()?;
                core.sides.iter_mut().try_for_each(|side| side.reindex(&mut core.keys))?;
                match mode {
                    Mode::Lookup(lookup) => lookup.renumbered(),
                    Mode::Version(versions) => versions.renumbered(),
                    Mode::Stream(_) | Mode::Delta(_) => {}
                }
            }
            Ok::<_, DataFusionError>(())
        };
        seal().map_err(super::failed(self.id, "join"))?;
        if core.spec.bound.is_some() {
            changes.insert(vec![CLOSED], Some(core.closed.to_be_bytes().to_vec()));
        }
        Ok(changes.into_iter().map(|(key, value)| StateChange { key, value }).collect())
    }

    fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<(), DataflowError> {
        let corrupt = |what: String| DataflowError::Corrupt(format!("operator {}: state entry with {what}", self.id));
        let core = &mut self.core;
        match key {
            [CLOSED] => {
                let bytes = value.try_into().map_err(|_| corrupt("a wrong watermark".to_owned()))?;
                core.closed = i64::from_be_bytes(bytes);
                Ok(())
            }
            [side @ (1 | 2), key @ ..] => {
                let side = &mut core.sides[usize::from(*side) - 1];
                side.restore_entry(&mut core.keys, key, value, core.closed).map_err(corrupt)
            }
            _ => Err(corrupt("a wrong key".to_owned())),
        }
    }

    fn attach(&mut self, cold: Arc<dyn ColdState>, keep: u64) {
        for side in &mut self.core.sides {
            side.cold = Some((self.id, cold.clone()));
            side.keep = usize::try_from(keep / 2).unwrap_or(usize::MAX);
        }
    }

    fn shrink(&mut self, keep: u64) -> Result<(), DataflowError> {
        let Core { keys, sides, .. } = &mut self.core;
        let index = keys.size() + sides[0].index_size() + sides[1].index_size();
        let rows = [sides[0].resident_rows(), sides[1].resident_rows()];
        // Each side gives in proportion to what it holds.
        let keep = usize::try_from(keep).unwrap_or(usize::MAX).saturating_sub(index) as f64;
        let share = (keep / (rows[0] + rows[1]).max(1) as f64).min(1.0);
        for (side, rows) in sides.iter_mut().zip(rows) {
            side.shrink((rows as f64 * share) as usize);
        }
        Ok(())
    }

    fn footprint(&self) -> Footprint {
        let Core { keys, sides, .. } = &self.core;
        let sum = |of: fn(&Side) -> usize| of(&sides[0]) + of(&sides[1]);
        Footprint {
            resident: (keys.size() + sum(Side::index_size) + sum(Side::resident_rows)) as u64,
            unsealed: sum(Side::unsealed) as u64,
        }
    }

    fn report(&self) -> StateReport {
        let core = &self.core;
        let waits = |side: usize| match core.spec.meets {
            Meets::Version { .. } => side == 0,
            Meets::All | Meets::Known { .. } => core.spec.kind.keeps_unmatched(side),
        };
        let timers = (0..2).filter(|side| core.spec.bound.is_some() && waits(*side));
        StateReport {
            keys: (core.sides[0].live + core.sides[1].live) as u64,
            bytes: (core.keys.size() + core.sides[0].size() + core.sides[1].size()) as u64,
            next_timer: timers.filter_map(|side| core.sides[side].next_expiry()).min(),
        }
    }
}
