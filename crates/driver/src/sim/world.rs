//! The world of one seed: virtual time, a queue of what will happen, and everything that lives in it.
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use millstream_connectors::{Discovery, SplitState};
use millstream_plan::{Digest, OperatorId, SinkId, SourceId, SplitId, StageId};

use super::drivers::{Driver, DriverEvent, StoreRequest};
use super::executors::{Executor, ExecutorEvent};
use super::faults::Fault;
use super::random::Random;
use super::store::Store;
use crate::shape::{Millis, PipelineShape, SinkShape, SourceShape, TimerDomain};

/// Faults happen before this time only.
const FAULTS_UNTIL: Millis = 20_000;
/// By then every run must have come to its end.
const END: Millis = 600_000;

/// What happened in a run, or in all.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Stats {
    pub(super) epochs: u64,
    pub(super) claims: u64,
    pub(super) skipped: u64,
    pub(super) voids: u64,
    pub(super) manifests: u64,
    pub(super) collected: u64,
    pub(super) driver_crashes: u64,
    pub(super) freezes: u64,
    pub(super) second_leaders: u64,
    pub(super) fenced_drivers: u64,
    pub(super) fenced_sinks: u64,
    pub(super) executor_crashes: u64,
    pub(super) cut_links: u64,
    pub(super) lost_replies: u64,
    pub(super) fallbacks: u64,
    pub(super) late_looks: u64,
    pub(super) drains: u64,
}

impl Stats {
    pub(super) fn add(&mut self, other: &Self) {
        let sums = self.counts().into_iter().zip(other.counts()).map(|((_, a), (_, b))| a + b).collect::<Vec<_>>();
        for (field, sum) in self.fields().into_iter().zip(sums) {
            *field = sum;
        }
    }

    fn fields(&mut self) -> [&mut u64; 17] {
        [
            &mut self.epochs,
            &mut self.claims,
            &mut self.skipped,
            &mut self.voids,
            &mut self.manifests,
            &mut self.collected,
            &mut self.driver_crashes,
            &mut self.freezes,
            &mut self.second_leaders,
            &mut self.fenced_drivers,
            &mut self.fenced_sinks,
            &mut self.executor_crashes,
            &mut self.cut_links,
            &mut self.lost_replies,
            &mut self.fallbacks,
            &mut self.late_looks,
            &mut self.drains,
        ]
    }

    pub(super) fn counts(&self) -> [(&'static str, u64); 17] {
        [
            ("an epoch", self.epochs),
            ("a claim", self.claims),
            ("a void record", self.skipped),
            ("a voided epoch", self.voids),
            ("a manifest", self.manifests),
            ("a collected object", self.collected),
            ("a driver's crash", self.driver_crashes),
            ("a frozen driver", self.freezes),
            ("a second leader", self.second_leaders),
            ("a fenced driver", self.fenced_drivers),
            ("a fenced sink", self.fenced_sinks),
            ("an executor's crash", self.executor_crashes),
            ("a cut link", self.cut_links),
            ("a lost reply", self.lost_replies),
            ("a fallback to an older checkpoint", self.fallbacks),
            ("a look", self.late_looks),
            ("a drain", self.drains),
        ]
    }
}

pub(super) enum Happening {
    Driver(u32, DriverEvent),
    Store(StoreRequest),
    Executor { name: usize, life: u32, event: ExecutorEvent },
    Fault(Fault),
}

pub(super) struct World {
    pub(super) random: Random,
    pub(super) now: Millis,
    queue: BinaryHeap<Reverse<(Millis, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    sequence: u64,
    pub(super) shape: PipelineShape,
    pub(super) store: Store,
    pub(super) drivers: BTreeMap<u32, Driver>,
    pub(super) next_driver: u32,
    pub(super) executors: Vec<Executor>,
    pub(super) next_life: u32,
    /// An epoch with more positions than this kills the executor that reads it.
    pub(super) memory: Option<u64>,
    totals: BTreeMap<(SourceId, SplitId), u64>,
    pub(super) stats: Stats,
    pub(super) finished: bool,
    pub(super) trace: bool,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let poisoned = random.chance(15);
        let parallelism = random.range(1, 4) as u16;
        let sources = (0..random.range(1, 3) as u16).map(|id| SourceShape {
            side: None,
            id: SourceId(id),
            name: format!("t{id}"),
            uses_watermark: random.chance(80),
            idle_timeout_ms: random.chance(30).then_some(2_000),
            max_per_trigger: random.chance(30).then_some(400),
            min_per_trigger: random.chance(20).then_some(50),
            max_trigger_delay_ms: 700,
        });
        let sources: Vec<SourceShape> = sources.collect();
        let mut sinks =
            vec![SinkShape { id: SinkId(0), name: "k".into(), stage: StageId(1), commit_interval_ms: None }];
        if !poisoned && random.chance(40) {
            sinks.push(SinkShape { id: SinkId(1), name: "f".into(), stage: StageId(1), commit_interval_ms: Some(700) });
        }
        let timers = [(OperatorId(9), TimerDomain::Event(vec![SourceId(0)]))].into();
        let shape = PipelineShape {
            name: "p".into(),
            fingerprint: Digest(7),
            parallelism,
            sources,
            stages: vec![StageId(0), StageId(1)],
            sinks,
            timers,
        };
        let mut totals = BTreeMap::new();
        for source in &shape.sources {
            for split in 0..random.range(1, 5) {
                let id = SplitId(format!("{}-{split}", source.id));
                totals.insert((source.id, id), random.range(200, 4_000) as u64);
            }
        }
        let executors = (0..random.range(1, 4)).map(|_| Executor::default()).collect();
        Self {
            store: Store::new(&shape),
            memory: poisoned.then(|| random.range(150, 300) as u64),
            random,
            now: 1_000,
            queue: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            sequence: 0,
            shape,
            drivers: BTreeMap::new(),
            next_driver: 0,
            executors,
            next_life: 0,
            totals,
            stats: Stats::default(),
            finished: false,
            trace: false,
        }
    }

    /// Input that is there now: every split grows over the first 15 s, the last one of a source is found late.
    pub(super) fn discovery(&self, source: SourceId) -> Discovery {
        let age = self.now.saturating_sub(1_000);
        let grown = |total: u64| total.min(total * age as u64 / 15_000);
        let own = || self.totals.iter().filter(|((s, _), _)| *s == source);
        let late = own().count() - 1;
        let found = own().enumerate().filter(|(i, _)| *i != late || age > 3_000);
        let splits = found
            .map(|(_, ((_, split), total))| SplitState {
                split: split.clone(),
                start: 0,
                end: grown(*total),
                tag: String::new(),
                closed: false,
            })
            .collect();
        Discovery { splits, complete: age >= 15_000 }
    }

    pub(super) fn after(&mut self, delay: Millis, happening: Happening) {
        self.at(self.now + delay.max(0), happening);
    }

    pub(super) fn at(&mut self, time: Millis, happening: Happening) {
        self.sequence += 1;
        self.queue.push(Reverse((time, self.sequence)));
        self.happenings.insert(self.sequence, happening);
    }

    pub(super) fn faults(&self) -> bool {
        self.now < FAULTS_UNTIL
    }

    pub(super) fn note(&self, text: impl FnOnce() -> String) {
        if self.trace {
            println!("{:>7} {}", self.now, text());
        }
    }

    pub(super) fn run(&mut self) -> Result<Stats, String> {
        for name in 0..self.executors.len() {
            self.start_executor(name);
        }
        self.start_driver();
        self.plan_fault();
        while let Some(Reverse((time, sequence))) = self.queue.pop() {
            self.now = self.now.max(time);
            if self.now > END {
                return Err(format!("not finished after {END} ms: {}", self.describe()));
            }
            match self.happenings.remove(&sequence).unwrap() {
                Happening::Driver(id, event) => self.driver_event(id, event)?,
                Happening::Store(request) => self.store_request(request)?,
                Happening::Executor { name, life, event } => self.executor_event(name, life, event)?,
                Happening::Fault(fault) => self.fault(fault),
            }
            if self.finished {
                break;
            }
        }
        self.check_end()?;
        let mut stats = std::mem::take(&mut self.stats);
        stats.epochs = self.store.truth.plans.len() as u64;
        stats.claims = self.store.truth.claims;
        stats.skipped = self.store.truth.skipped;
        stats.voids = self.store.truth.voids;
        stats.collected = self.store.collected;
        Ok(stats)
    }

    fn check_end(&self) -> Result<(), String> {
        let truth = &self.store.truth;
        let Some((last, _)) = truth.plans.last().filter(|(p, _)| p.last) else {
            return Err(format!("ended without a last epoch: {}", self.describe()));
        };
        truth.covers(&self.totals)?;
        for ((sink, task), partition) in &self.store.sinks {
            if partition.marker != last.epoch {
                return Err(format!("sink {sink} task {task} published {} of {}", partition.marker, last.epoch));
            }
        }
        if !self.store.manifests.contains_key(&last.epoch) {
            return Err("the last epoch has no checkpoint".to_owned());
        }
        Ok(())
    }

    pub(super) fn describe(&self) -> String {
        let drivers: Vec<String> = self
            .drivers
            .iter()
            .map(|(id, d)| {
                let text = format!("{:?}", d.coordinator.state());
                format!("driver {id} (frozen {}): {}", d.frozen, text.chars().take(900).collect::<String>())
            })
            .collect();
        format!("{} epochs in the chain; {}", self.store.truth.plans.len(), drivers.join("; "))
    }
}
