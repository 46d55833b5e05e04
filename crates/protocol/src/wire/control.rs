//! Control messages on the wire.
use std::collections::BTreeMap;

use millstream_plan::{Epoch, ExecutorId, OperatorId, SinkId, SourceId, SplitId, TaskId, Watermark};

use super::plan::{digest, digest_to_wire, era, era_to_wire, hash, plan, plan_to_wire, task, task_to_wire};
use super::{Invalid, control_v1 as wire, narrow, required};
use crate::messages::{
    Deployment, Failure, Hello, JobSpec, OperatorReport, Restore, SplitReport, StateFile, TaskDone, TaskState,
    ToDriver, ToExecutor,
};

impl From<ToExecutor> for wire::ToExecutor {
    fn from(message: ToExecutor) -> Self {
        use wire::to_executor::Message;
        let message = match message {
            ToExecutor::Deploy(d) => Message::Deploy(deployment_to_wire(*d)),
            ToExecutor::Run { era, plan } => {
                Message::Run(wire::Run { era: Some(era_to_wire(era)), plan: Some(plan_to_wire(plan)) })
            }
            ToExecutor::Durable { era, epoch } => {
                Message::Durable(wire::EpochMark { era: Some(era_to_wire(era)), epoch: epoch.0 })
            }
            ToExecutor::Checkpointed { era, epoch } => {
                Message::Checkpointed(wire::EpochMark { era: Some(era_to_wire(era)), epoch: epoch.0 })
            }
            ToExecutor::Shutdown => Message::Shutdown(wire::Shutdown {}),
        };
        Self { message: Some(message) }
    }
}

impl TryFrom<wire::ToExecutor> for ToExecutor {
    type Error = Invalid;

    fn try_from(wire: wire::ToExecutor) -> Result<Self, Invalid> {
        use wire::to_executor::Message;
        Ok(match required(wire.message, "message")? {
            Message::Deploy(d) => Self::Deploy(Box::new(deployment(d)?)),
            Message::Run(r) => Self::Run { era: era(r.era)?, plan: plan(r.plan)? },
            Message::Durable(m) => Self::Durable { era: era(m.era)?, epoch: Epoch(m.epoch) },
            Message::Checkpointed(m) => Self::Checkpointed { era: era(m.era)?, epoch: Epoch(m.epoch) },
            Message::Shutdown(wire::Shutdown {}) => Self::Shutdown,
        })
    }
}

fn deployment_to_wire(d: Deployment) -> wire::Deployment {
    let placement = |(task, executor): (TaskId, ExecutorId)| wire::Placement {
        task: Some(task_to_wire(task)),
        executor: executor.0,
    };
    wire::Deployment {
        era: Some(era_to_wire(d.era)),
        job: Some(wire::JobSpec { sql: d.job.sql, conf: d.job.conf }),
        fingerprint: digest_to_wire(d.fingerprint),
        parallelism: d.parallelism.into(),
        placement: d.placement.into_iter().map(placement).collect(),
        peers: d.peers.into_iter().map(|(executor, address)| (executor.0, address)).collect(),
        restore: d.restore.map(restore_to_wire),
    }
}

fn deployment(wire: wire::Deployment) -> Result<Deployment, Invalid> {
    let job = required(wire.job, "job")?;
    let mut placement = BTreeMap::new();
    for p in wire.placement {
        let task = task(p.task)?;
        if placement.insert(task, ExecutorId(p.executor)).is_some() {
            return Err(twice("placement", task));
        }
    }
    Ok(Deployment {
        era: era(wire.era)?,
        job: JobSpec { sql: job.sql, conf: job.conf },
        fingerprint: digest(&wire.fingerprint, "fingerprint")?,
        parallelism: narrow(wire.parallelism, "parallelism")?,
        placement,
        peers: wire.peers.into_iter().map(|(executor, address)| (ExecutorId(executor), address)).collect(),
        restore: wire.restore.map(restore).transpose()?,
    })
}

fn twice(field: &'static str, task: TaskId) -> Invalid {
    Invalid::Value { field, value: format!("of task {task} twice") }
}

fn restore_to_wire(restore: Restore) -> wire::Restore {
    let restored = |(task, state): (TaskId, TaskState)| wire::RestoredTask {
        task: Some(task_to_wire(task)),
        state: Some(state_to_wire(state)),
    };
    wire::Restore { epoch: restore.epoch.0, tasks: restore.tasks.into_iter().map(restored).collect() }
}

fn restore(wire: wire::Restore) -> Result<Restore, Invalid> {
    let mut tasks = BTreeMap::new();
    for t in wire.tasks {
        let task = task(t.task)?;
        if tasks.insert(task, state(t.state)?).is_some() {
            return Err(twice("restore.tasks", task));
        }
    }
    Ok(Restore { epoch: Epoch(wire.epoch), tasks })
}

fn state_to_wire(state: TaskState) -> wire::TaskState {
    let file = |f: StateFile| wire::StateFile { name: f.name, hash: f.hash.0.to_vec(), bytes: f.bytes };
    wire::TaskState { files: state.files.into_iter().map(file).collect(), digest: digest_to_wire(state.digest) }
}

fn state(wire: Option<wire::TaskState>) -> Result<TaskState, Invalid> {
    let wire = required(wire, "state")?;
    let file = |f: wire::StateFile| Ok(StateFile { name: f.name, hash: hash(&f.hash)?, bytes: f.bytes });
    Ok(TaskState {
        files: wire.files.into_iter().map(file).collect::<Result<_, _>>()?,
        digest: digest(&wire.digest, "digest")?,
    })
}

impl From<ToDriver> for wire::ToDriver {
    fn from(message: ToDriver) -> Self {
        use wire::to_driver::Message;
        let message = match message {
            ToDriver::Hello(h) => Message::Hello(wire::Hello {
                executor: h.executor.0,
                slots: h.slots.into(),
                shuffle: h.shuffle,
                version: h.version,
            }),
            ToDriver::Heartbeat { memory_bytes } => Message::Heartbeat(wire::Heartbeat { memory_bytes }),
            ToDriver::Ready { era } => Message::Ready(wire::Ready { era: Some(era_to_wire(era)) }),
            ToDriver::TaskDone(done) => Message::TaskDone(done_to_wire(*done)),
            ToDriver::Published { era, sink, task, epoch, rows, bytes } => Message::Published(wire::Published {
                era: Some(era_to_wire(era)),
                sink: sink.0.into(),
                task: Some(task_to_wire(task)),
                epoch: epoch.0,
                rows,
                bytes,
            }),
            ToDriver::Uploaded { era, task, epoch, state } => Message::Uploaded(wire::Uploaded {
                era: Some(era_to_wire(era)),
                task: Some(task_to_wire(task)),
                epoch: epoch.0,
                state: Some(state_to_wire(state)),
            }),
            ToDriver::Failed { era, task, epoch, failure } => Message::Failed(wire::Failed {
                era: Some(era_to_wire(era)),
                task: task.map(task_to_wire),
                epoch: epoch.map(|e| e.0),
                failure: Some(failure_to_wire(failure)),
            }),
            ToDriver::Bye => Message::Bye(wire::Bye {}),
        };
        Self { message: Some(message) }
    }
}

impl TryFrom<wire::ToDriver> for ToDriver {
    type Error = Invalid;

    fn try_from(wire: wire::ToDriver) -> Result<Self, Invalid> {
        use wire::to_driver::Message;
        Ok(match required(wire.message, "message")? {
            Message::Hello(h) => Self::Hello(Hello {
                executor: ExecutorId(h.executor),
                slots: narrow(h.slots, "slots")?,
                shuffle: h.shuffle,
                version: h.version,
            }),
            Message::Heartbeat(h) => Self::Heartbeat { memory_bytes: h.memory_bytes },
            Message::Ready(r) => Self::Ready { era: era(r.era)? },
            Message::TaskDone(d) => Self::TaskDone(Box::new(done(d)?)),
            Message::Published(p) => Self::Published {
                era: era(p.era)?,
                sink: SinkId(narrow(p.sink, "sink")?),
                task: task(p.task)?,
                epoch: Epoch(p.epoch),
                rows: p.rows,
                bytes: p.bytes,
            },
            Message::Uploaded(u) => {
                Self::Uploaded { era: era(u.era)?, task: task(u.task)?, epoch: Epoch(u.epoch), state: state(u.state)? }
            }
            Message::Failed(f) => Self::Failed {
                era: era(f.era)?,
                task: f.task.map(|t| task(Some(t))).transpose()?,
                epoch: f.epoch.map(Epoch),
                failure: failure(f.failure)?,
            },
            Message::Bye(wire::Bye {}) => Self::Bye,
        })
    }
}

fn done_to_wire(done: TaskDone) -> wire::TaskDone {
    let split = |s: SplitReport| wire::SplitReport {
        source: s.source.0.into(),
        split: s.split.0,
        records: s.records,
        bytes: s.bytes,
        watermark: s.watermark.map(|w| w.0),
        late: s.late,
        bad: s.bad,
    };
    let operator = |o: OperatorReport| wire::OperatorReport {
        operator: o.operator.0.into(),
        keys: o.keys,
        bytes: o.bytes,
        next_timer: o.next_timer,
        next_wake: o.next_wake,
        dropped: o.dropped,
    };
    wire::TaskDone {
        era: Some(era_to_wire(done.era)),
        task: Some(task_to_wire(done.task)),
        epoch: done.epoch.0,
        splits: done.splits.into_iter().map(split).collect(),
        operators: done.operators.into_iter().map(operator).collect(),
        busy_micros: done.busy_micros,
        output_bytes: done.output_bytes,
        unsealed_bytes: done.unsealed_bytes,
    }
}

fn done(wire: wire::TaskDone) -> Result<TaskDone, Invalid> {
    let split = |s: wire::SplitReport| {
        Ok(SplitReport {
            source: SourceId(narrow(s.source, "source")?),
            split: SplitId(s.split),
            records: s.records,
            bytes: s.bytes,
            watermark: s.watermark.map(Watermark),
            late: s.late,
            bad: s.bad,
        })
    };
    let operator = |o: wire::OperatorReport| {
        Ok(OperatorReport {
            operator: OperatorId(narrow(o.operator, "operator")?),
            keys: o.keys,
            bytes: o.bytes,
            next_timer: o.next_timer,
            next_wake: o.next_wake,
            dropped: o.dropped,
        })
    };
    Ok(TaskDone {
        era: era(wire.era)?,
        task: task(wire.task)?,
        epoch: Epoch(wire.epoch),
        splits: wire.splits.into_iter().map(split).collect::<Result<_, _>>()?,
        operators: wire.operators.into_iter().map(operator).collect::<Result<_, _>>()?,
        busy_micros: wire.busy_micros,
        output_bytes: wire.output_bytes,
        unsealed_bytes: wire.unsealed_bytes,
    })
}

fn failure_to_wire(failure: Failure) -> wire::Failure {
    use wire::failure::Failure as Kind;
    let kind = match failure {
        Failure::User(text) => Kind::User(text),
        Failure::Retry(text) => Kind::Retry(text),
        Failure::Fatal(text) => Kind::Fatal(text),
    };
    wire::Failure { failure: Some(kind) }
}

fn failure(wire: Option<wire::Failure>) -> Result<Failure, Invalid> {
    use wire::failure::Failure as Kind;
    Ok(match required(required(wire, "failure")?.failure, "failure")? {
        Kind::User(text) => Failure::User(text),
        Kind::Retry(text) => Failure::Retry(text),
        Kind::Fatal(text) => Failure::Fatal(text),
    })
}

#[cfg(test)]
mod tests;
