//! Ids, plans and digests on the wire.
use millstream_plan::{
    Attempt, ContentHash, Digest, Epoch, EpochPlan, Era, Generation, SourceId, SourcePlan, SplitId, SplitRange,
    StageId, TaskId, Watermark,
};

use super::{Invalid, control_v1 as wire, exact, narrow, required};

pub(super) fn era_to_wire(era: Era) -> wire::Era {
    wire::Era { generation: era.generation.0, attempt: era.attempt.0 }
}

pub(super) fn era(wire: Option<wire::Era>) -> Result<Era, Invalid> {
    let wire = required(wire, "era")?;
    Ok(Era { generation: Generation(wire.generation), attempt: Attempt(wire.attempt) })
}

pub(super) fn task_to_wire(task: TaskId) -> wire::TaskId {
    wire::TaskId { stage: task.stage.0.into(), index: task.index.into() }
}

pub(super) fn task(wire: Option<wire::TaskId>) -> Result<TaskId, Invalid> {
    let wire = required(wire, "task")?;
    Ok(TaskId { stage: StageId(narrow(wire.stage, "task.stage")?), index: narrow(wire.index, "task.index")? })
}

pub(super) fn digest_to_wire(digest: Digest) -> Vec<u8> {
    digest.0.to_be_bytes().to_vec()
}

pub(super) fn digest(bytes: &[u8], field: &'static str) -> Result<Digest, Invalid> {
    Ok(Digest(u128::from_be_bytes(exact(bytes, field)?)))
}

pub(super) fn hash(bytes: &[u8]) -> Result<ContentHash, Invalid> {
    Ok(ContentHash(exact(bytes, "hash")?))
}

pub(super) fn plan_to_wire(plan: EpochPlan) -> wire::EpochPlan {
    wire::EpochPlan {
        epoch: plan.epoch.0,
        now_ms: plan.now_ms,
        sources: plan.sources.into_iter().map(source_to_wire).collect(),
        checkpoint: plan.checkpoint,
        flush: plan.flush,
        last: plan.last,
    }
}

fn source_to_wire(source: SourcePlan) -> wire::SourcePlan {
    let range =
        |r: SplitRange| wire::SplitRange { split: r.split.0, task: r.task.into(), from: r.from, to: r.to, tag: r.tag };
    wire::SourcePlan {
        source: source.source.0.into(),
        watermark: source.watermark.0,
        ranges: source.ranges.into_iter().map(range).collect(),
    }
}

pub(super) fn plan(wire: Option<wire::EpochPlan>) -> Result<EpochPlan, Invalid> {
    let wire = required(wire, "plan")?;
    Ok(EpochPlan {
        epoch: Epoch(wire.epoch),
        now_ms: wire.now_ms,
        sources: wire.sources.into_iter().map(source).collect::<Result<_, _>>()?,
        checkpoint: wire.checkpoint,
        flush: wire.flush,
        last: wire.last,
    })
}

fn source(wire: wire::SourcePlan) -> Result<SourcePlan, Invalid> {
    Ok(SourcePlan {
        source: SourceId(narrow(wire.source, "source")?),
        watermark: Watermark(wire.watermark),
        ranges: wire.ranges.into_iter().map(range).collect::<Result<_, _>>()?,
    })
}

fn range(wire: wire::SplitRange) -> Result<SplitRange, Invalid> {
    if wire.from > wire.to {
        return Err(Invalid::Value { field: "range", value: format!("{}..{}", wire.from, wire.to) });
    }
    Ok(SplitRange {
        split: SplitId(wire.split),
        task: narrow(wire.task, "range.task")?,
        from: wire.from,
        to: wire.to,
        tag: wire.tag,
    })
}
