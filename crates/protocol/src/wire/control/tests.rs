#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
use millstream_plan::{Attempt, ContentHash, Digest, EpochPlan, Era, Generation, SourcePlan, SplitRange, StageId};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use prost::Message as _;

use super::*;

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,12}"
}

fn era() -> impl Strategy<Value = Era> {
    any::<(u64, u32)>().prop_map(|(g, a)| Era { generation: Generation(g), attempt: Attempt(a) })
}

fn epoch() -> impl Strategy<Value = Epoch> {
    any::<u64>().prop_map(Epoch)
}

fn task() -> impl Strategy<Value = TaskId> {
    any::<(u16, u16)>().prop_map(|(stage, index)| TaskId { stage: StageId(stage), index })
}

fn executor() -> impl Strategy<Value = ExecutorId> {
    text().prop_map(ExecutorId)
}

fn digest() -> impl Strategy<Value = Digest> {
    any::<u128>().prop_map(Digest)
}

fn plan() -> impl Strategy<Value = EpochPlan> {
    let range = (text(), any::<u16>(), any::<(u64, u64)>(), text()).prop_map(|(split, task, (a, b), tag)| SplitRange {
        split: SplitId(split),
        task,
        from: a.min(b),
        to: a.max(b),
        tag,
    });
    let source = (any::<u16>(), any::<i64>(), vec(range, 0..3)).prop_map(|(source, watermark, ranges)| SourcePlan {
        source: SourceId(source),
        watermark: Watermark(watermark),
        ranges,
    });
    (epoch(), any::<i64>(), vec(source, 0..3), any::<(bool, bool, bool)>()).prop_map(
        |(epoch, now_ms, sources, (checkpoint, flush, last))| EpochPlan {
            epoch,
            now_ms,
            sources,
            checkpoint,
            flush,
            last,
        },
    )
}

fn state() -> impl Strategy<Value = TaskState> {
    let file = (text(), any::<[u8; 32]>(), any::<u64>()).prop_map(|(name, hash, bytes)| StateFile {
        name,
        hash: ContentHash(hash),
        bytes,
    });
    (vec(file, 0..3), digest()).prop_map(|(files, digest)| TaskState { files, digest })
}

fn deployment() -> impl Strategy<Value = Deployment> {
    let job = (text(), btree_map(text(), text(), 0..3)).prop_map(|(sql, conf)| JobSpec { sql, conf });
    let restore = (epoch(), btree_map(task(), state(), 0..3)).prop_map(|(epoch, tasks)| Restore { epoch, tasks });
    (
        era(),
        job,
        digest(),
        any::<u16>(),
        btree_map(task(), executor(), 0..4),
        btree_map(executor(), text(), 0..4),
        option::of(restore),
    )
        .prop_map(|(era, job, fingerprint, parallelism, placement, peers, restore)| Deployment {
            era,
            job,
            fingerprint,
            parallelism,
            placement,
            peers,
            restore,
        })
}

fn to_executor() -> impl Strategy<Value = ToExecutor> {
    prop_oneof![
        deployment().prop_map(|d| ToExecutor::Deploy(Box::new(d))),
        (era(), plan()).prop_map(|(era, plan)| ToExecutor::Run { era, plan }),
        (era(), epoch()).prop_map(|(era, epoch)| ToExecutor::Durable { era, epoch }),
        (era(), epoch()).prop_map(|(era, epoch)| ToExecutor::Checkpointed { era, epoch }),
        Just(ToExecutor::Shutdown),
    ]
}

fn done() -> impl Strategy<Value = TaskDone> {
    let split = (any::<u16>(), text(), any::<(u64, u64, u64, u64)>(), option::of(any::<i64>())).prop_map(
        |(source, split, (records, bytes, late, bad), watermark)| SplitReport {
            source: SourceId(source),
            split: SplitId(split),
            records,
            bytes,
            watermark: watermark.map(Watermark),
            late,
            bad,
        },
    );
    let operator = any::<(u16, u64, u64, Option<i64>, Option<i64>, u64)>().prop_map(
        |(operator, keys, bytes, next_timer, next_wake, dropped)| OperatorReport {
            operator: OperatorId(operator),
            keys,
            bytes,
            next_timer,
            next_wake,
            dropped,
        },
    );
    (era(), task(), epoch(), vec(split, 0..3), vec(operator, 0..3), any::<(u64, u64)>()).prop_map(
        |(era, task, epoch, splits, operators, (busy_micros, output_bytes))| TaskDone {
            unsealed_bytes: output_bytes / 3,
            era,
            task,
            epoch,
            splits,
            operators,
            busy_micros,
            output_bytes,
        },
    )
}

fn to_driver() -> impl Strategy<Value = ToDriver> {
    let hello = (executor(), any::<u16>(), text(), text()).prop_map(|(executor, slots, shuffle, version)| Hello {
        executor,
        slots,
        shuffle,
        version,
    });
    let failure =
        prop_oneof![text().prop_map(Failure::User), text().prop_map(Failure::Retry), text().prop_map(Failure::Fatal),];
    prop_oneof![
        hello.prop_map(ToDriver::Hello),
        any::<u64>().prop_map(|memory_bytes| ToDriver::Heartbeat { memory_bytes }),
        era().prop_map(|era| ToDriver::Ready { era }),
        done().prop_map(|d| ToDriver::TaskDone(Box::new(d))),
        (era(), any::<u16>(), task(), epoch(), any::<(u64, u64)>()).prop_map(
            |(era, sink, task, epoch, (rows, bytes))| {
                ToDriver::Published { era, sink: SinkId(sink), task, epoch, rows, bytes }
            }
        ),
        (era(), task(), epoch(), state()).prop_map(|(era, task, epoch, state)| ToDriver::Uploaded {
            era,
            task,
            epoch,
            state
        }),
        (era(), option::of(task()), option::of(epoch()), failure)
            .prop_map(|(era, task, epoch, failure)| { ToDriver::Failed { era, task, epoch, failure } }),
        Just(ToDriver::Bye),
    ]
}

proptest! {
    #[test]
    fn to_executor_survives_the_wire(message in to_executor()) {
        let bytes = wire::ToExecutor::from(message.clone()).encode_to_vec();
        prop_assert_eq!(ToExecutor::try_from(wire::ToExecutor::decode(&bytes[..]).unwrap()).unwrap(), message);
    }

    #[test]
    fn to_driver_survives_the_wire(message in to_driver()) {
        let bytes = wire::ToDriver::from(message.clone()).encode_to_vec();
        prop_assert_eq!(ToDriver::try_from(wire::ToDriver::decode(&bytes[..]).unwrap()).unwrap(), message);
    }

    /// What survives damage is at least a value of the domain; nothing panics.
    #[test]
    fn damaged_messages_do_not_panic(message in to_executor(), other in to_driver(), at in any::<prop::sample::Index>(), with in any::<u8>()) {
        let mut bytes = wire::ToExecutor::from(message).encode_to_vec();
        let i = at.index(bytes.len());
        bytes[i] = with;
        if let Ok(wire) = wire::ToExecutor::decode(&bytes[..]) {
            let _ = ToExecutor::try_from(wire);
        }
        let mut bytes = wire::ToDriver::from(other).encode_to_vec();
        let i = at.index(bytes.len());
        bytes.truncate(i);
        if let Ok(wire) = wire::ToDriver::decode(&bytes[..]) {
            let _ = ToDriver::try_from(wire);
        }
    }
}

#[test]
fn missing_and_impossible_fields_are_named() {
    use wire::to_executor::Message;
    let error = |message| ToExecutor::try_from(wire::ToExecutor { message }).unwrap_err().to_string();
    assert_eq!(error(None), "field 'message' is missing");
    assert_eq!(error(Some(Message::Run(wire::Run { era: None, plan: None }))), "field 'era' is missing");
    let era = Some(wire::Era { generation: 1, attempt: 1 });
    assert_eq!(error(Some(Message::Run(wire::Run { era, plan: None }))), "field 'plan' is missing");
    let job = Some(wire::JobSpec::default());
    let deployment = wire::Deployment { era, job, parallelism: 70_000, fingerprint: vec![0; 16], ..Default::default() };
    assert_eq!(error(Some(Message::Deploy(deployment.clone()))), "field 'parallelism' has the impossible value 70000");
    let deployment = wire::Deployment { fingerprint: vec![0; 15], ..deployment };
    assert_eq!(error(Some(Message::Deploy(deployment))), "field 'fingerprint' has the impossible value of 15 bytes");
}
