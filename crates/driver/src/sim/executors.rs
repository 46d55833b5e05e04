//! Executors: two stages of tasks with a shuffle between them, and sinks that publish what is durable.
use std::collections::{BTreeMap, BTreeSet};

use millstream_plan::{ContentHash, Epoch, EpochPlan, Era, ExecutorId, OperatorId, SinkId, StageId, TaskId, Watermark};
use millstream_protocol::messages::{
    Deployment, Failure, Hello, OperatorReport, SplitReport, StateFile, TaskDone, TaskState, ToDriver, ToExecutor,
};

use super::drivers::DriverEvent;
use super::random::combine;
use super::store::Publish;
use super::truth::{initial, step};
use super::world::{Happening, World};
use crate::coordinator::Event;
use crate::shape::Millis;

const HEARTBEAT: Millis = 500;
const RECONNECT: Millis = 300;

#[derive(Default)]
pub(super) struct Executor {
    pub(super) alive: bool,
    /// One start of the process.
    pub(super) life: u32,
    /// Drivers that it is connected to, with the number of the link.
    pub(super) links: BTreeMap<u32, u32>,
    arrivals: BTreeMap<u32, Millis>,
    era: Era,
    placement: BTreeMap<TaskId, ExecutorId>,
    plans: BTreeMap<Epoch, EpochPlan>,
    durable: Epoch,
    tasks: BTreeMap<TaskId, Task>,
    frames: BTreeMap<Epoch, BTreeSet<TaskId>>,
}

struct Task {
    done: Epoch,
    state: u64,
    /// Ready to work.
    open: bool,
    busy: bool,
    /// States after processed epochs that a sink has still to publish.
    outputs: BTreeMap<SinkId, BTreeMap<Epoch, u64>>,
    /// What was published when the task was opened: that much of a replay is dropped.
    markers: BTreeMap<SinkId, Epoch>,
    publishing: BTreeSet<SinkId>,
    /// A file that all checkpoints of this deployment share.
    base: Option<ContentHash>,
}

pub(super) enum ExecutorEvent {
    FromDriver { driver: u32, link: u32, message: ToExecutor },
    Opened { era: Era },
    Worked { era: Era, task: TaskId },
    Frame { era: Era, from: TaskId, epoch: Epoch },
    Publish { era: Era, sink: SinkId, task: TaskId, epoch: Epoch, state: u64 },
    PublishAnswer { era: Era, sink: SinkId, task: TaskId, epoch: Epoch, lost: bool },
    Upload { era: Era, task: TaskId, epoch: Epoch, state: u64 },
    Heartbeat,
    Reconnect,
}

impl Executor {
    /// When a message that is sent now arrives, behind those sent before.
    pub(super) fn arrival(&mut self, driver: u32, now: Millis, delay: Millis) -> Millis {
        let last = self.arrivals.entry(driver).or_default();
        *last = (now + delay).max(*last);
        *last
    }
}

impl World {
    pub(super) fn start_executor(&mut self, name: usize) {
        self.next_life += 1;
        self.executors[name] = Executor { alive: true, life: self.next_life, ..Executor::default() };
        self.executor_after(name, 1, ExecutorEvent::Reconnect);
        self.executor_after(name, HEARTBEAT, ExecutorEvent::Heartbeat);
    }

    fn executor_after(&mut self, name: usize, delay: Millis, event: ExecutorEvent) {
        let life = self.executors[name].life;
        self.after(delay, Happening::Executor { name, life, event });
    }

    pub(super) fn crash_executor(&mut self, name: usize) {
        if !self.executors[name].alive {
            return;
        }
        self.stats.executor_crashes += 1;
        self.note(|| format!("executor e{name} crashes"));
        let drivers: Vec<u32> = self.executors[name].links.keys().copied().collect();
        for driver in drivers {
            self.cut(name, driver);
        }
        self.executors[name].alive = false;
        let delay = self.random.range(20, 4_000);
        self.after(delay, Happening::Fault(super::faults::Fault::StartExecutor(name)));
    }

    /// The link between an executor and a driver breaks; both sides notice, the driver after a while.
    pub(super) fn cut(&mut self, name: usize, driver: u32) {
        self.executors[name].links.remove(&driver);
        if let Some(node) = self.drivers.get_mut(&driver) {
            node.links.remove(&name);
            let delay = self.random.range(1, 3_500);
            // A new link may be there before the driver notices that the old one is gone.
            let left = Event::Left(ExecutorId(format!("e{name}")));
            let life = self.executors[name].life;
            self.after(delay, Happening::Executor { name, life, event: ExecutorEvent::Reconnect });
            self.after(delay.min(5), Happening::Driver(driver, DriverEvent::Other(left)));
        }
    }

    fn connect(&mut self, name: usize) {
        let drivers: Vec<u32> = self.drivers.keys().copied().collect();
        let newest = drivers.last().copied();
        for driver in drivers {
            if self.executors[name].links.contains_key(&driver) {
                continue;
            }
            // Old leaders are still reachable for some.
            if Some(driver) != newest && !self.random.chance(30) {
                continue;
            }
            self.next_life += 1;
            let link = self.next_life;
            self.executors[name].links.insert(driver, link);
            let now = self.now;
            if let Some(node) = self.drivers.get_mut(&driver) {
                node.links.insert(name, (link, now));
            }
            let hello = Hello {
                executor: ExecutorId(format!("e{name}")),
                slots: 1 + name as u16 % 2,
                shuffle: String::new(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
            };
            self.send_to_driver(driver, name, ToDriver::Hello(hello));
        }
    }

    fn tell(&mut self, name: usize, message: &ToDriver) {
        let drivers: Vec<u32> = self.executors[name].links.keys().copied().collect();
        for driver in drivers {
            self.send_to_driver(driver, name, message.clone());
        }
    }

    pub(super) fn executor_event(&mut self, name: usize, life: u32, event: ExecutorEvent) -> Result<(), String> {
        // What is on its way to a sink or an object store arrives even if its sender is dead.
        let alive = self.executors[name].alive && self.executors[name].life == life;
        match event {
            ExecutorEvent::Publish { era, sink, task, epoch, state } => {
                return self.publish(name, life, era, (sink, task), epoch, state);
            }
            ExecutorEvent::Upload { era, task, epoch, state } => self.upload(name, alive, era, task, epoch, state),
            _ if !alive => {}
            ExecutorEvent::Heartbeat => {
                self.tell(name, &ToDriver::Heartbeat { memory_bytes: 1 });
                self.executor_after(name, HEARTBEAT, ExecutorEvent::Heartbeat);
            }
            ExecutorEvent::Reconnect => {
                self.connect(name);
                self.executor_after(name, RECONNECT * 5, ExecutorEvent::Reconnect);
            }
            ExecutorEvent::FromDriver { driver, link, message } => {
                if self.executors[name].links.get(&driver) == Some(&link) {
                    return self.hear(name, message);
                }
            }
            ExecutorEvent::Opened { era } => self.opened(name, era),
            ExecutorEvent::Worked { era, task } => self.worked(name, era, task),
            ExecutorEvent::Frame { era, from, epoch } => {
                let executor = &mut self.executors[name];
                // One that has just started knows nothing; its driver will notice that it is another.
                if era > executor.era && executor.era != Era::default() {
                    return Err(format!("a frame of era {era} arrives at e{name}, which is at {}", executor.era));
                }
                if era == executor.era {
                    executor.frames.entry(epoch).or_default().insert(from);
                    self.work(name);
                }
            }
            ExecutorEvent::PublishAnswer { era, sink, task, epoch, lost } => {
                if self.executors[name].era != era {
                    return Ok(());
                }
                if lost {
                    let failure = Failure::Retry("the sink does not answer".into());
                    self.tell(name, &ToDriver::Failed { era, task: Some(task), epoch: Some(epoch), failure });
                    return Ok(());
                }
                if let Some(t) = self.executors[name].tasks.get_mut(&task) {
                    t.publishing.remove(&sink);
                    if let Some(outputs) = t.outputs.get_mut(&sink) {
                        *outputs = outputs.split_off(&epoch.next());
                    }
                }
                self.tell(name, &ToDriver::Published { era, sink, task, epoch, rows: 1, bytes: 1 });
                self.publish_more(name);
            }
        }
        Ok(())
    }

    fn hear(&mut self, name: usize, message: ToExecutor) -> Result<(), String> {
        let executor = &mut self.executors[name];
        match message {
            ToExecutor::Deploy(deployment) if deployment.era > executor.era => return self.deploy(name, *deployment),
            ToExecutor::Run { era, plan } if era == executor.era => {
                if plan.epoch.previous().is_some_and(|p| p.0 > 0 && !executor.plans.contains_key(&p))
                    && executor.tasks.values().any(|t| t.done.next() < plan.epoch)
                {
                    return Err(format!("e{name}: epoch {} is dispatched out of order", plan.epoch));
                }
                executor.plans.insert(plan.epoch, plan);
                self.work(name);
            }
            ToExecutor::Durable { era, epoch } if era == executor.era => {
                executor.durable = executor.durable.max(epoch);
                self.publish_more(name);
            }
            ToExecutor::Deploy(_)
            | ToExecutor::Run { .. }
            | ToExecutor::Durable { .. }
            | ToExecutor::Checkpointed { .. }
            | ToExecutor::Shutdown => {}
        }
        Ok(())
    }

    fn deploy(&mut self, name: usize, deployment: Deployment) -> Result<(), String> {
        let restored = deployment.restore.as_ref().map_or(Epoch(0), |r| r.epoch);
        let me = ExecutorId(format!("e{name}"));
        let mut tasks = BTreeMap::new();
        for task in deployment.placement.iter().filter(|(_, e)| **e == me).map(|(t, _)| *t) {
            let mut state = initial(task);
            if let Some(restore) = &deployment.restore {
                for file in &restore.tasks[&task].files {
                    match self.store.objects.get(&file.hash) {
                        Some((_, content)) if file.name == "state" => state = *content,
                        Some(_) => {}
                        None => return Err(format!("e{name}: an object of checkpoint {restored} is gone")),
                    }
                }
                if self.store.truth.state(task, restored) != Some(state) {
                    return Err(format!("task {task}: the restored state is not that of epoch {restored}"));
                }
            }
            let fresh = Task {
                done: restored,
                state,
                open: false,
                busy: false,
                outputs: BTreeMap::new(),
                markers: BTreeMap::new(),
                publishing: BTreeSet::new(),
                base: None,
            };
            tasks.insert(task, fresh);
        }
        let executor = &mut self.executors[name];
        executor.era = deployment.era;
        executor.placement = deployment.placement;
        executor.plans.clear();
        executor.frames.clear();
        executor.durable = Epoch(0);
        executor.tasks = tasks;
        let delay = self.random.delay().min(500);
        self.executor_after(name, delay, ExecutorEvent::Opened { era: deployment.era });
        Ok(())
    }

    /// The sinks are fenced and have told what they published.
    fn opened(&mut self, name: usize, era: Era) {
        if self.executors[name].era != era {
            return;
        }
        let tasks: Vec<TaskId> = self.executors[name].tasks.keys().copied().collect();
        let sinks = self.shape.sinks.clone();
        for task in tasks {
            for sink in sinks.iter().filter(|s| s.stage == task.stage) {
                let Some(marker) = self.store.open(sink.id, task, era) else {
                    let failure = Failure::Fatal("a newer generation is at work".into());
                    self.tell(name, &ToDriver::Failed { era, task: Some(task), epoch: None, failure });
                    return;
                };
                self.executors[name].tasks.get_mut(&task).unwrap().markers.insert(sink.id, marker);
                let published = ToDriver::Published { era, sink: sink.id, task, epoch: marker, rows: 0, bytes: 0 };
                self.tell(name, &published);
            }
            self.executors[name].tasks.get_mut(&task).unwrap().open = true;
        }
        self.tell(name, &ToDriver::Ready { era });
    }

    /// Starts every task that has all of its input.
    fn work(&mut self, name: usize) {
        let parallelism = usize::from(self.shape.parallelism);
        let executor = &mut self.executors[name];
        let era = executor.era;
        let mut starting = Vec::new();
        for (id, task) in &mut executor.tasks {
            let next = task.done.next();
            let input = id.stage == StageId(0) || executor.frames.get(&next).is_some_and(|f| f.len() == parallelism);
            if task.open && !task.busy && input && executor.plans.contains_key(&next) {
                task.busy = true;
                starting.push(*id);
            }
        }
        for task in starting {
            let delay = self.random.range(1, 40);
            self.executor_after(name, delay, ExecutorEvent::Worked { era, task });
        }
    }

    fn worked(&mut self, name: usize, era: Era, id: TaskId) {
        if self.executors[name].era != era {
            return;
        }
        let sinks = self.shape.sinks.clone();
        let executor = &mut self.executors[name];
        let (Some(task), placement) = (executor.tasks.get_mut(&id), executor.placement.clone()) else { return };
        let epoch = task.done.next();
        let Some(plan) = executor.plans.get(&epoch).cloned() else { return };
        if id.stage == StageId(0) && self.memory.is_some_and(|memory| plan.positions() > memory) {
            self.note(|| format!("e{name} runs out of memory in epoch {epoch}"));
            self.crash_executor(name);
            return;
        }
        task.busy = false;
        task.done = epoch;
        task.state = step(task.state, &plan);
        let state = task.state;
        for sink in sinks.iter().filter(|s| s.stage == id.stage) {
            let marker = task.markers.get(&sink.id).copied().unwrap_or_default();
            if epoch > marker && (sink.commit_interval_ms.is_none() || plan.flush) {
                task.outputs.entry(sink.id).or_default().insert(epoch, state);
            }
        }
        let ranges = plan.sources.iter().flat_map(|s| s.ranges.iter().map(|r| (s.source, r)));
        let own = ranges.filter(|(_, r)| id.stage == StageId(0) && r.task == id.index);
        let splits = own.map(|(source, r)| SplitReport {
            source,
            split: r.split.clone(),
            records: r.to - r.from,
            bytes: r.to - r.from,
            watermark: Some(Watermark(r.to as i64 * 10 - 50)),
            late: 0,
            bad: 0,
        });
        let watermark = plan.watermark(millstream_plan::SourceId(0));
        let timer = (watermark < Watermark(i64::MAX / 2))
            .then(|| (watermark.0.max(0) / 1_000 + 1) * 1_000)
            .filter(|_| id.stage == StageId(1));
        let operators = match id.stage {
            StageId(1) => vec![OperatorReport {
                operator: OperatorId(9),
                keys: 1,
                bytes: 8,
                next_timer: timer,
                next_wake: None,
                dropped: 0,
            }],
            StageId(_) => Vec::new(),
        };
        let splits = splits.collect();
        let done =
            TaskDone { era, task: id, epoch, splits, operators, busy_micros: 10, output_bytes: 100, unsealed_bytes: 0 };
        if id.stage == StageId(0) {
            let targets: BTreeSet<usize> = placement
                .iter()
                .filter(|(t, _)| t.stage == StageId(1))
                .map(|(_, e)| e.0.trim_start_matches('e').parse().unwrap())
                .collect();
            for target in targets {
                let delay = self.random.range(1, 60);
                self.executor_after(target, delay, ExecutorEvent::Frame { era, from: id, epoch });
            }
        }
        self.tell(name, &ToDriver::TaskDone(Box::new(done)));
        if plan.checkpoint {
            let delay = self.random.delay().min(1_000);
            self.executor_after(name, delay, ExecutorEvent::Upload { era, task: id, epoch, state });
        }
        self.publish_more(name);
        self.work(name);
    }

    /// Sends every sink task's next epoch that is durable.
    fn publish_more(&mut self, name: usize) {
        let executor = &mut self.executors[name];
        let (era, durable) = (executor.era, executor.durable);
        let mut sending = Vec::new();
        for (id, task) in &mut executor.tasks {
            for (sink, outputs) in &task.outputs {
                if let Some((&epoch, &state)) = outputs.first_key_value()
                    && epoch <= durable
                    && task.publishing.insert(*sink)
                {
                    sending.push(ExecutorEvent::Publish { era, sink: *sink, task: *id, epoch, state });
                }
            }
        }
        for event in sending {
            let delay = self.random.delay();
            self.executor_after(name, delay, event);
        }
    }

    fn publish(
        &mut self,
        name: usize,
        life: u32,
        era: Era,
        (sink, task): (SinkId, TaskId),
        epoch: Epoch,
        state: u64,
    ) -> Result<(), String> {
        match self.store.publish(era, (sink, task), epoch, state)? {
            Publish::Done => {
                let lost = self.faults() && self.random.chance(1);
                if lost {
                    self.stats.lost_replies += 1;
                }
                let delay = self.random.range(1, 20);
                let event = ExecutorEvent::PublishAnswer { era, sink, task, epoch, lost };
                self.after(delay, Happening::Executor { name, life, event });
            }
            Publish::Fenced => {
                self.stats.fenced_sinks += 1;
                let failure = Failure::Fatal("the sink is fenced".into());
                if self.executors[name].alive && self.executors[name].life == life {
                    self.tell(name, &ToDriver::Failed { era, task: Some(task), epoch: Some(epoch), failure });
                }
            }
        }
        Ok(())
    }

    fn upload(&mut self, name: usize, alive: bool, era: Era, task: TaskId, epoch: Epoch, state: u64) {
        let salt = combine(self.random.next(), epoch.0);
        let hash = |text: &str| ContentHash::of(format!("{text} {salt} {task} {epoch}").as_bytes());
        let now = self.now;
        self.store.objects.insert(hash("state"), (now, state));
        let executor = &mut self.executors[name];
        let current = alive && executor.era == era;
        let Some(t) = executor.tasks.get_mut(&task).filter(|_| current) else { return };
        if t.base.is_none() {
            self.store.objects.insert(hash("base"), (now, 0));
        }
        let base = *t.base.get_or_insert(hash("base"));
        let file = |name: &str, hash| StateFile { name: name.to_owned(), hash, bytes: 8 };
        let files = vec![file("base", base), file("state", hash("state"))];
        let digest = millstream_plan::Digest(u128::from(state));
        self.tell(name, &ToDriver::Uploaded { era, task, epoch, state: TaskState { files, digest } });
    }
}
