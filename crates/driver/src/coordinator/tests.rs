#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
use millstream_connectors::SplitState;
use millstream_plan::{SinkId, StageId, TaskId};
use millstream_protocol::messages::{Failure, JobSpec, TaskDone};

use super::*;
use crate::chain::WriterId;
use crate::planner::PlanOptions;
use crate::shape::{PipelineShape, SinkShape, SourceShape};

struct Case {
    coordinator: Coordinator,
    now: Millis,
    /// Appends and looks are answered at once, looks and successes of a log of its own.
    log: BTreeMap<Slot, Vec<u8>>,
    /// The log does not answer.
    deaf: bool,
}

fn config() -> Config {
    let shape = PipelineShape {
        name: "p".into(),
        parallelism: 1,
        sources: vec![SourceShape { id: SourceId(0), name: "t".into(), ..SourceShape::default() }],
        stages: vec![StageId(0)],
        sinks: vec![SinkShape::default()],
        ..PipelineShape::default()
    };
    let plan = PlanOptions { checkpoint_interval_ms: 1_000, start_rows: 10, ..PlanOptions::default() };
    Config::new(JobSpec::default(), shape, plan, WriterId("w".into()))
}

impl Case {
    fn new() -> Self {
        let (coordinator, commands) = Coordinator::start(config(), Recovered::default(), 0).unwrap();
        assert_eq!(commands, [Command::ClaimGeneration { generation: Generation(1) }]);
        let mut case = Self { coordinator, now: 0, log: BTreeMap::new(), deaf: false };
        case.event(Event::Generation { holder: None });
        case
    }

    /// Handles an event and what the log says to its commands; returns the other commands without reports.
    fn event(&mut self, event: Event) -> Vec<Command> {
        let mut rest = Vec::new();
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for command in self.coordinator.handle(self.now, event) {
                match command {
                    Command::Log(command) if !self.deaf => events.push(Event::Log(self.answer(command))),
                    Command::Log(_) | Command::Report(_) => {}
                    command => rest.push(command),
                }
            }
        }
        rest
    }

    fn answer(&mut self, command: WriterCommand) -> Reply {
        match command {
            WriterCommand::Append { slot, hash, bytes } => {
                assert!(self.log.insert(slot, bytes).is_none());
                Reply::Appended { slot, hash }
            }
            WriterCommand::Look { slot } => {
                Reply::Looked { slot, found: self.log.get(&slot).cloned(), newest: Generation(1) }
            }
        }
    }

    fn join(&mut self, name: &str) -> Vec<Command> {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        self.event(Event::Joined(Hello { executor: name.into(), slots: 1, shuffle: String::new(), version }))
    }

    fn say(&mut self, from: &str, message: ToDriver) -> Vec<Command> {
        self.event(Event::Message { from: from.into(), message })
    }

    fn available(&mut self, end: u64) -> Vec<Command> {
        let splits = vec![SplitState { split: "s".into(), start: 0, end, tag: String::new(), closed: false }];
        self.event(Event::Available { source: SourceId(0), discovery: Discovery { splits, complete: false } })
    }

    fn done(&mut self, from: &str, era: Era, epoch: u64) -> Vec<Command> {
        let done = TaskDone {
            era,
            task: TaskId { stage: StageId(0), index: 0 },
            epoch: Epoch(epoch),
            splits: Vec::new(),
            operators: Vec::new(),
            busy_micros: 0,
            output_bytes: 0,
            unsealed_bytes: 0,
        };
        self.say(from, ToDriver::TaskDone(Box::new(done)))
    }
}

/// What is sent, in short.
fn sent(commands: &[Command]) -> Vec<String> {
    commands
        .iter()
        .map(|command| match command {
            Command::Send { to, message: ToExecutor::Deploy(d) } => {
                format!("{to}: deploy {} from {:?}", d.era, d.restore.as_ref().map(|r| r.epoch.0))
            }
            Command::Send { to, message: ToExecutor::Run { era, plan } } => {
                format!("{to}: run {} in {era}", plan.epoch)
            }
            Command::Send { to, message: ToExecutor::Durable { epoch, .. } } => format!("{to}: durable {epoch}"),
            Command::Send { to, message } => format!("{to}: {message:?}"),
            Command::WriteManifest(c) => format!("manifest {}", c.epoch),
            Command::Collect { truncate_before, .. } => format!("truncate {truncate_before}"),
            Command::Exit(exit) => format!("{exit:?}"),
            Command::ClaimGeneration { .. } | Command::Log(_) | Command::Published { .. } | Command::Report(_) => {
                format!("{command:?}")
            }
        })
        .collect()
}

fn era(attempt: u32) -> Era {
    Era { generation: Generation(1), attempt: AttemptNumber(attempt) }
}

#[test]
fn a_rollback_waits_for_all_and_replays_what_the_chain_has() {
    let mut case = Case::new();
    assert_eq!(sent(&case.join("a")), ["a: deploy 1.1 from None"]);
    assert_eq!(sent(&case.available(10)), [""; 0]);
    assert_eq!(
        sent(&case.say("a", ToDriver::Ready { era: era(1) })),
        ["a: durable 0", "a: run 1 in 1.1", "a: durable 1"]
    );
    assert_eq!(sent(&case.join("b")), [""; 0], "it waits for a checkpoint");
    // The executor is lost: both are deployed (one is enough to go on), nothing runs before it is ready.
    assert_eq!(sent(&case.event(Event::Left("a".into()))), ["b: deploy 1.2 from None"]);
    assert_eq!(sent(&case.done("b", era(1), 1)), [""; 0], "of the era before");
    assert_eq!(sent(&case.say("b", ToDriver::Ready { era: era(2) })), ["b: durable 1", "b: run 1 in 1.2"]);
}

#[test]
fn nothing_is_published_while_the_log_is_silent() {
    let mut case = Case::new();
    case.join("a");
    case.available(10);
    case.deaf = true;
    assert_eq!(sent(&case.say("a", ToDriver::Ready { era: era(1) })), ["a: durable 0", "a: run 1 in 1.1"]);
}

#[test]
fn a_manifest_waits_for_state_and_sinks_and_truncation_for_a_look() {
    let mut case = Case::new();
    case.join("a");
    case.available(10);
    case.say("a", ToDriver::Ready { era: era(1) });
    case.done("a", era(1), 1);
    case.now = 1_000;
    assert_eq!(sent(&case.event(Event::Tick)), ["a: run 2 in 1.1", "a: durable 2"]);
    let task = TaskId { stage: StageId(0), index: 0 };
    case.say("a", ToDriver::Uploaded { era: era(1), task, epoch: Epoch(2), state: TaskState::default() });
    assert_eq!(sent(&case.done("a", era(1), 2)), [""; 0], "not published yet");
    let published =
        |epoch| ToDriver::Published { era: era(1), sink: SinkId(0), task, epoch: Epoch(epoch), rows: 0, bytes: 0 };
    assert!(!sent(&case.say("a", published(1))).iter().any(|c| c.starts_with("manifest")));
    assert!(sent(&case.say("a", published(2))).contains(&"manifest 2".to_owned()));
    case.now = 1_001;
    let written = sent(&case.event(Event::ManifestWritten { epoch: Epoch(2) }));
    assert_eq!(
        written,
        [
            "a: Checkpointed { era: Era { generation: Generation(1), attempt: Attempt(1) }, epoch: Epoch(2) }",
            "truncate 3"
        ]
    );
}

#[test]
fn silence_is_a_loss_and_a_users_mistake_is_the_end() {
    let mut case = Case::new();
    case.join("a");
    case.now = 3_001;
    case.event(Event::Tick);
    assert!(matches!(case.coordinator.state(), State::Starting { .. }));
    case.join("a");
    let failure = Failure::User("two live rows for key 7".into());
    let era = case.coordinator.era();
    let commands = case.say("a", ToDriver::Failed { era, task: None, epoch: Some(Epoch(1)), failure });
    assert_eq!(sent(&commands), ["a: Shutdown", "Failed(\"two live rows for key 7 (epoch 1)\")"]);
}

#[test]
fn a_drain_ends_with_a_checkpoint_and_a_failure_outside_is_waited_for() {
    let mut case = Case::new();
    case.join("a");
    case.available(10);
    case.say("a", ToDriver::Ready { era: era(1) });
    let failure = Failure::Retry("broker does not answer".into());
    assert_eq!(
        sent(&case.say("a", ToDriver::Failed { era: era(1), task: None, epoch: Some(Epoch(1)), failure })),
        [""; 0]
    );
    case.now = 99;
    assert_eq!(sent(&case.event(Event::Tick)), [""; 0]);
    case.now = 100;
    assert_eq!(sent(&case.event(Event::Tick)), ["a: deploy 1.2 from None"]);
    case.event(Event::StopRequested);
    assert_eq!(sent(&case.say("a", ToDriver::Ready { era: era(2) })), ["a: durable 1", "a: run 1 in 1.2"]);
    assert_eq!(sent(&case.done("a", era(2), 1)), ["a: run 2 in 1.2", "a: durable 2"]);
    case.done("a", era(2), 2);
    let task = TaskId { stage: StageId(0), index: 0 };
    case.say("a", ToDriver::Uploaded { era: era(2), task, epoch: Epoch(2), state: TaskState::default() });
    case.say("a", ToDriver::Published { era: era(2), sink: SinkId(0), task, epoch: Epoch(2), rows: 0, bytes: 0 });
    let end = sent(&case.event(Event::ManifestWritten { epoch: Epoch(2) }));
    assert_eq!(end.last().unwrap(), "Drained");
}

#[test]
fn another_pipeline_or_another_text_is_refused() {
    let genesis = Genesis { pipeline: "p".into(), fingerprint: millstream_plan::Digest(1), ..Genesis::default() };
    let fold = Fold { genesis: Some(genesis), ..Fold::default() };
    let found = Recovered { fold, ..Recovered::default() };
    let Err(error) = Coordinator::start(config(), found, 0) else { panic!("accepted") };
    assert!(matches!(error, StartError::Fingerprint { .. }));
}

#[test]
fn what_is_waited_for_is_said_when_nothing_has_moved_for_10_s_and_whenever_that_has_doubled() {
    let task = |index| TaskId { stage: StageId(0), index };
    let mut attempt = Attempt::new(era(1), BTreeMap::new(), Epoch(0), Epoch(0), 0);
    let held = |attempt: &mut Attempt, now| {
        let sinks = [(SinkId(3), task(1), false), (SinkId(4), task(1), true)];
        attempt.held_up(now, [task(0), task(1)].into_iter(), sinks.into_iter())
    };
    let says = |epoch, seconds, processing: &[TaskId], publishing: &[(SinkId, TaskId, u64)]| {
        let publishing = publishing.iter().map(|(sink, task, epoch)| ((*sink, *task), Epoch(*epoch)));
        let (processing, publishing) = (processing.iter().copied().collect(), publishing.collect());
        Some(HeldUp { epoch: Epoch(epoch), seconds, processing, publishing })
    };
    assert_eq!(held(&mut attempt, 0), None);
    attempt.flights.insert(Epoch(1), attempt::Flight::default());
    attempt.flights.insert(Epoch(2), attempt::Flight { flush: true, ..attempt::Flight::default() });
    assert_eq!(held(&mut attempt, 1_000), None);
    assert_eq!(held(&mut attempt, 10_999), None);
    assert_eq!(held(&mut attempt, 11_000), says(1, 10, &[task(0), task(1)], &[]));
    attempt.flights.get_mut(&Epoch(1)).unwrap().done.insert(task(0));
    assert_eq!(held(&mut attempt, 20_999), None);
    assert_eq!(held(&mut attempt, 21_000), says(1, 20, &[task(1)], &[]));
    attempt.flights.get_mut(&Epoch(1)).unwrap().complete = true;
    attempt.done = Epoch(1);
    assert_eq!(held(&mut attempt, 41_000), None, "something has moved");
    assert_eq!(held(&mut attempt, 51_000), says(2, 10, &[task(0), task(1)], &[(SinkId(3), task(1), 1)]));
    attempt.flights.get_mut(&Epoch(2)).unwrap().complete = true;
    attempt.done = Epoch(2);
    assert_eq!(held(&mut attempt, 52_000), None);
    let both = [(SinkId(3), task(1), 1), (SinkId(4), task(1), 1)];
    assert_eq!(held(&mut attempt, 62_000), says(2, 10, &[], &both), "the epoch with the flush is there");
    attempt.task_published(SinkId(3), task(1), Epoch(2), 0, 0);
    attempt.task_published(SinkId(4), task(1), Epoch(2), 0, 0);
    assert_eq!(held(&mut attempt, 99_000), None);
}
