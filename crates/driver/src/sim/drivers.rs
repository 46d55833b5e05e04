//! Drivers: the shell around a coordinator, with a slow and forgetful store behind it.
use std::collections::BTreeMap;

use millstream_plan::{Epoch, ExecutorId, Generation};
use millstream_protocol::messages::{JobSpec, ToDriver, ToExecutor};

use super::executors::ExecutorEvent;
use super::world::{Happening, World};
use crate::bugs::{Bug, planted};
use crate::chain::{Fold, Reply, WriterCommand, WriterId};
use crate::coordinator::{Checkpoint, Command, Config, Coordinator, Event, Executors, Exit, Recovered};
use crate::planner::{PlanOptions, Trigger};
use crate::shape::Millis;

const TICK: Millis = 50;
const DISCOVER_EVERY: Millis = 150;

pub(super) struct Driver {
    pub(super) coordinator: Coordinator,
    pub(super) frozen: bool,
    /// What arrived while it was frozen.
    inbox: Vec<Event>,
    /// Links by executor: number of the connection, and when the last message on it arrives there.
    pub(super) links: BTreeMap<usize, (u32, Millis)>,
}

pub(super) enum DriverEvent {
    Tick,
    Discover,
    /// From a link, which must still be the same.
    Link {
        executor: usize,
        life: u32,
        message: Event,
    },
    Other(Event),
    Wake,
}

/// A request on its way to the store.
pub(super) enum StoreRequest {
    Generation { driver: u32, generation: Generation },
    Log { driver: u32, command: WriterCommand, answer: bool },
    Manifest { driver: u32, checkpoint: Box<Checkpoint>, answer: bool },
    Collect { driver: u32, command: Command },
}

impl World {
    /// A driver starts: it reads what is there. What it read may be old when it acts on it.
    pub(super) fn start_driver(&mut self) {
        let id = self.next_driver;
        self.next_driver += 1;
        let mut manifests: Vec<&Checkpoint> = self.store.manifests.values().map(|(_, c)| c).collect();
        if manifests.len() > 1 && self.random.chance(10) {
            // The newest one cannot be read; whoever finds that takes the one before.
            manifests.pop();
            self.stats.fallbacks += 1;
        }
        let checkpoint = manifests.pop().cloned();
        let older = manifests.iter().map(|c| (c.epoch, c.job.tip.next)).collect();
        let mut fold = match &checkpoint {
            Some(c) => Fold::from_checkpoint(c.job.genesis.clone(), c.job.tip.clone(), c.job.history.clone()),
            None => Fold::default(),
        };
        if let Some(newest) = checkpoint.as_ref().map(|c| c.epoch) {
            self.store.manifests.retain(|epoch, _| *epoch <= newest);
        }
        let read = fold.read_listing(self.store.log.iter().map(|(s, b)| (*s, b)));
        let plan = PlanOptions {
            trigger: Trigger::Interval { interval_ms: if self.random.chance(20) { 200 } else { 0 } },
            min_interval_ms: 40,
            start_rows: 500,
            max_rows: 5_000,
            max_bytes: u64::MAX,
            target_ms: 200,
            checkpoint_interval_ms: 1_500,
            max_unsealed_bytes: 256 << 20,
            flush_bytes: u64::MAX,
        };
        let writer = WriterId(format!("driver-{id}"));
        let mut config = Config::new(JobSpec::default(), self.shape.clone(), plan, writer);
        config.executors = Executors { expected: self.executors.len(), wait_ms: 1_000 };
        config.max_crashes = 1_000;
        let generation = self.store.generations.keys().next_back().copied().unwrap_or_default();
        let started = read.map_err(|e| e.to_string()).and_then(|()| {
            let found = Recovered { fold, checkpoint, generation, older };
            Coordinator::start(config, found, self.now).map_err(|e| e.to_string())
        });
        match started {
            Ok((coordinator, commands)) => {
                self.note(|| format!("driver {id} starts as {}", coordinator.era()));
                let driver = Driver { coordinator, frozen: false, inbox: Vec::new(), links: BTreeMap::new() };
                self.drivers.insert(id, driver);
                self.perform(id, commands);
                self.after(1, Happening::Driver(id, DriverEvent::Discover));
                self.after(TICK, Happening::Driver(id, DriverEvent::Tick));
            }
            // Only a planted bug leads here; the run will not come to its end.
            Err(e) => self.note(|| format!("driver {id} cannot start: {e}")),
        }
    }

    pub(super) fn driver_event(&mut self, id: u32, event: DriverEvent) -> Result<(), String> {
        let Some(driver) = self.drivers.get_mut(&id) else { return Ok(()) };
        let event = match event {
            DriverEvent::Wake => {
                driver.frozen = false;
                let inbox = std::mem::take(&mut driver.inbox);
                self.note(|| format!("driver {id} wakes up with {} messages", inbox.len()));
                return inbox.into_iter().try_for_each(|event| self.handle(id, event));
            }
            DriverEvent::Tick => {
                self.after(TICK, Happening::Driver(id, DriverEvent::Tick));
                Event::Tick
            }
            DriverEvent::Discover => {
                self.after(DISCOVER_EVERY, Happening::Driver(id, DriverEvent::Discover));
                let sources: Vec<_> = self.shape.sources.iter().map(|s| s.id).collect();
                for source in sources {
                    let discovery = self.discovery(source);
                    self.deliver(id, Event::Available { source, discovery })?;
                }
                return Ok(());
            }
            DriverEvent::Link { executor, life, message } => {
                if driver.links.get(&executor).is_none_or(|(l, _)| *l != life) {
                    return Ok(());
                }
                message
            }
            DriverEvent::Other(event) => event,
        };
        self.deliver(id, event)
    }

    fn deliver(&mut self, id: u32, event: Event) -> Result<(), String> {
        match self.drivers.get_mut(&id) {
            Some(driver) if driver.frozen => {
                if event != Event::Tick {
                    driver.inbox.push(event);
                }
                Ok(())
            }
            Some(_) => self.handle(id, event),
            None => Ok(()),
        }
    }

    fn handle(&mut self, id: u32, event: Event) -> Result<(), String> {
        let now = self.now;
        let Some(driver) = self.drivers.get_mut(&id) else { return Ok(()) };
        let commands = driver.coordinator.handle(now, event);
        let exit = commands.iter().find_map(|c| match c {
            Command::Exit(exit) => Some(exit.clone()),
            Command::ClaimGeneration { .. }
            | Command::Log(_)
            | Command::Send { .. }
            | Command::WriteManifest(_)
            | Command::Collect { .. }
            | Command::Published { .. }
            | Command::Report(_) => None,
        });
        self.perform(id, commands);
        match exit {
            Some(exit) => self.driver_exits(id, exit),
            None => Ok(()),
        }
    }

    fn driver_exits(&mut self, id: u32, exit: Exit) -> Result<(), String> {
        let driver = self.drivers.remove(&id).unwrap();
        let leads = driver.coordinator.era().generation >= self.store.truth.generation;
        self.note(|| format!("driver {id} exits: {exit:?}"));
        match exit {
            Exit::Finished => self.finished = true,
            Exit::Fenced(_) => self.stats.fenced_drivers += 1,
            // What an old leader hears from fenced sinks.
            Exit::Failed(_) if !leads => self.stats.fenced_drivers += 1,
            Exit::Failed(message) => return Err(format!("driver {id} failed: {message}")),
            Exit::Drained => {
                self.stats.drains += 1;
                let last = driver.coordinator.history().last;
                if !self.store.manifests.contains_key(&last) && last > Epoch(0) && leads {
                    return Err(format!("driver {id} drained without a checkpoint of epoch {last}"));
                }
            }
            Exit::Abandoned => {}
        }
        self.ensure_driver();
        Ok(())
    }

    /// Somebody starts a driver again.
    pub(super) fn ensure_driver(&mut self) {
        if self.drivers.is_empty() && !self.finished {
            let delay = self.random.range(50, 2_000);
            self.after(delay, Happening::Fault(super::faults::Fault::StartDriver));
        }
    }

    fn perform(&mut self, id: u32, commands: Vec<Command>) {
        for command in commands {
            let (delay, lost) = (self.random.delay(), self.faults() && self.random.chance(3));
            match command {
                Command::ClaimGeneration { generation } => {
                    self.after(delay, Happening::Store(StoreRequest::Generation { driver: id, generation }));
                }
                Command::Log(command) => {
                    if matches!(command, WriterCommand::Look { .. }) {
                        self.stats.late_looks += 1;
                    }
                    if lost && let WriterCommand::Append { slot, hash, .. } = &command {
                        // The answer never comes; the caller gives up waiting, perhaps before the request has even arrived.
                        self.stats.lost_replies += 1;
                        let failed = Event::Log(Reply::Failed { slot: *slot, hash: *hash });
                        let timeout = self.random.range(50, 1_500);
                        self.after(timeout, Happening::Driver(id, DriverEvent::Other(failed)));
                        if self.random.chance(40) {
                            continue;
                        }
                    }
                    let answer = !lost || matches!(command, WriterCommand::Look { .. });
                    self.after(delay, Happening::Store(StoreRequest::Log { driver: id, command, answer }));
                }
                Command::WriteManifest(checkpoint) => {
                    if lost {
                        self.stats.lost_replies += 1;
                        let failed = Event::ManifestFailed { epoch: checkpoint.epoch };
                        let timeout = self.random.range(50, 1_500);
                        self.after(timeout, Happening::Driver(id, DriverEvent::Other(failed)));
                    }
                    let request = StoreRequest::Manifest { driver: id, checkpoint, answer: !lost };
                    self.after(delay, Happening::Store(request));
                }
                Command::Collect { .. } => {
                    self.after(delay, Happening::Store(StoreRequest::Collect { driver: id, command }));
                }
                Command::Send { to, message } => self.send_to_executor(id, &to, message),
                Command::Report(report) => self.note(|| {
                    let text = format!("{report:?}");
                    format!("driver {id}: {}", text.chars().take(160).collect::<String>())
                }),
                Command::Published { .. } | Command::Exit(_) => {}
            }
        }
    }

    fn send_to_executor(&mut self, id: u32, to: &ExecutorId, message: ToExecutor) {
        let name = to.0.trim_start_matches('e').parse::<usize>().unwrap();
        let delay = self.random.range(1, 15);
        let now = self.now;
        let Some((life, last)) = self.drivers.get_mut(&id).and_then(|d| d.links.get_mut(&name)) else { return };
        *last = (now + delay).max(*last);
        let (life, at) = (*life, *last);
        let event = ExecutorEvent::FromDriver { driver: id, link: life, message };
        let life = self.executors[name].life;
        self.at(at, Happening::Executor { name, life, event });
    }

    pub(super) fn store_request(&mut self, request: StoreRequest) -> Result<(), String> {
        match request {
            StoreRequest::Generation { driver, generation } => {
                let owner = *self.store.generations.entry(generation).or_insert(driver);
                let holder = (owner != driver && !planted(Bug::LookAtLogOnly)).then(|| format!("driver-{owner}"));
                let delay = self.random.delay();
                self.after(delay, Happening::Driver(driver, DriverEvent::Other(Event::Generation { holder })));
            }
            StoreRequest::Log { driver, command, answer } => {
                let reply = match command {
                    WriterCommand::Append { slot, hash, bytes } => match self.store.append(slot, &bytes)? {
                        None => Reply::Appended { slot, hash },
                        Some(found) => Reply::Refused { slot, hash, found },
                    },
                    WriterCommand::Look { slot } => Reply::Looked {
                        slot,
                        found: self.store.log.get(&slot).cloned(),
                        newest: self.store.generations.keys().next_back().copied().unwrap_or_default(),
                    },
                };
                if answer {
                    let delay = self.random.delay();
                    self.after(delay, Happening::Driver(driver, DriverEvent::Other(Event::Log(reply))));
                }
            }
            StoreRequest::Manifest { driver, checkpoint, answer } => {
                let epoch = checkpoint.epoch;
                self.stats.manifests += 1;
                let event = match self.store.manifest(self.now, &checkpoint)? {
                    None => Event::ManifestWritten { epoch },
                    Some(other) => Event::ManifestRefused(Box::new(other)),
                };
                if answer {
                    let delay = self.random.delay();
                    self.after(delay, Happening::Driver(driver, DriverEvent::Other(event)));
                }
            }
            StoreRequest::Collect { driver, command } => {
                if let Command::Collect { keep, protected, truncate_before } = command
                    && self.drivers.contains_key(&driver)
                {
                    self.store.collect(keep, &protected, truncate_before);
                }
            }
        }
        Ok(())
    }

    /// An executor's message to a driver, on a link that must still be the same when it arrives.
    pub(super) fn send_to_driver(&mut self, id: u32, executor: usize, message: ToDriver) {
        let at = self.executors[executor].arrival(id, self.now, self.random.range(1, 15));
        let Some(life) = self.drivers.get(&id).and_then(|d| d.links.get(&executor)).map(|(l, _)| *l) else { return };
        let from = ExecutorId(format!("e{executor}"));
        let message = match message {
            ToDriver::Hello(hello) => Event::Joined(hello),
            message => Event::Message { from, message },
        };
        self.at(at, Happening::Driver(id, DriverEvent::Link { executor, life, message }));
    }
}
