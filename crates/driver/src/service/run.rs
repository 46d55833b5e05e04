//! The loop that owns the coordinator.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use millstream_plan::{ExecutorId, SourceId, SplitId};
use millstream_protocol::control::{ControlEvent, ExecutorLink, FromExecutor};
use millstream_protocol::messages::ToDriver;
use tokio::sync::mpsc::{Receiver, UnboundedReceiver, UnboundedSender};
use tracing::{info, warn};

use super::progress::Teller;
use super::sources::{FromSource, Watcher, now_ms};
use super::store::Stores;
use crate::chain::History;
use crate::coordinator::{Command, Coordinator, Event, Exit};
use crate::shape::Millis;

/// Longest time without a look at the clock: heartbeats and timeouts are checked then.
const TICK: Duration = Duration::from_millis(50);
/// How long executors may take to leave at the end.
const FAREWELL: Duration = Duration::from_secs(5);

/// Everything that the loop has.
pub(super) struct Loop {
    pub coordinator: Coordinator,
    pub stores: Stores,
    pub holder: String,
    pub watchers: Vec<Watcher>,
    pub links: BTreeMap<ExecutorId, Arc<dyn ExecutorLink>>,
    pub teller: Teller,
    pub events_in: UnboundedSender<Event>,
    /// Wall clock that never goes back.
    pub now: Millis,
}

/// Where events come from.
pub(super) struct Inputs {
    pub events: UnboundedReceiver<Event>,
    pub sources: UnboundedReceiver<FromSource>,
    pub executors: Receiver<FromExecutor>,
}

impl Loop {
    /// Until the coordinator says how it ended.
    pub async fn run(mut self, first: Vec<Command>, mut inputs: Inputs) -> Exit {
        if let Some(exit) = self.perform(first) {
            return exit;
        }
        loop {
            let wakeup = self.coordinator.wakeup(self.now).map_or(TICK, |at| {
                let wait = u64::try_from(at.saturating_sub(now_ms())).unwrap_or(0);
                Duration::from_millis(wait.max(1)).min(TICK)
            });
            let event = tokio::select! {
                biased;
                Some(event) = inputs.events.recv() => event,
                Some((executor, event)) = inputs.executors.recv() => match event {
                    ControlEvent::Joined(hello, link) => {
                        info!(%executor, slots = hello.slots, shuffle = %hello.shuffle, "executor joined");
                        self.links.insert(executor, link);
                        Event::Joined(hello)
                    }
                    ControlEvent::Message(message) => Event::Message { from: executor, message },
                    ControlEvent::Left { reason } => {
                        warn!(%executor, %reason, "executor left");
                        self.links.remove(&executor);
                        Event::Left(executor)
                    }
                },
                Some(source) = inputs.sources.recv() => match source {
                    FromSource::Event(event) => event,
                    FromSource::Failed { table, error } => {
                        let hint = match &error {
                            millstream_connectors::ConnectorError::User { hint: Some(hint), .. } => format!("; {hint}"),
                            _ => String::new(),
                        };
                        return Exit::Failed(format!("table '{table}': {error}{hint}"));
                    }
                },
                () = tokio::time::sleep(wakeup) => Event::Tick,
            };
            self.now = self.now.max(now_ms());
            let commands = self.coordinator.handle(self.now, event);
            if commands.is_empty() {
                continue;
            }
            if let Some(exit) = self.perform(commands) {
                self.say_farewell(&mut inputs.executors).await;
                return exit;
            }
            self.tell_planned();
        }
    }

    /// Waits until the executors have heard that it is over.
    async fn say_farewell(&mut self, executors: &mut Receiver<FromExecutor>) {
        let all_left = async {
            while !self.links.is_empty() {
                match executors.recv().await {
                    Some((executor, ControlEvent::Left { .. } | ControlEvent::Message(ToDriver::Bye))) => {
                        self.links.remove(&executor);
                    }
                    Some((_, ControlEvent::Joined(_, link))) => link.close("the pipeline has ended"),
                    Some((_, ControlEvent::Message(_))) => {}
                    None => return,
                }
            }
        };
        if tokio::time::timeout(FAREWELL, all_left).await.is_err() {
            warn!("some executors did not leave in time");
        }
    }

    fn perform(&mut self, commands: Vec<Command>) -> Option<Exit> {
        for command in commands {
            match command {
                Command::ClaimGeneration { generation } => {
                    self.stores.claim(generation, self.holder.clone(), self.events_in.clone());
                }
                Command::Log(command) => self.stores.log(command, self.events_in.clone()),
                Command::Send { to, message } => {
                    // A closed link: `Left` is on its way.
                    let _left = self.links.get(&to).map(|link| link.send(message));
                }
                Command::WriteManifest(checkpoint) => self.stores.write_manifest(*checkpoint, self.events_in.clone()),
                Command::Collect { keep, protected, truncate_before } => {
                    self.stores.collect(keep, protected.into_iter().collect(), truncate_before);
                }
                Command::Published { positions } => self.tell_published(positions),
                Command::Report(report) => self.teller.tell(&report, self.coordinator.history()),
                Command::Exit(exit) => return Some(exit),
            }
        }
        self.teller.state(&self.coordinator);
        None
    }

    fn tell_published(&self, mut positions: BTreeMap<SourceId, BTreeMap<SplitId, u64>>) {
        for watcher in &self.watchers {
            if let Some(positions) = positions.remove(&watcher.id()) {
                watcher.published(positions);
            }
        }
    }

    fn tell_planned(&self) {
        for watcher in &self.watchers {
            watcher.planned(positions_of(self.coordinator.history(), watcher.id()));
        }
    }
}

/// Position after the last planned range of every split of a source.
pub(super) fn positions_of(history: &History, source: SourceId) -> BTreeMap<SplitId, u64> {
    let splits = history.sources.get(&source).map(|s| &s.splits);
    splits.map_or_else(BTreeMap::new, |s| s.iter().map(|(id, split)| (id.clone(), split.next)).collect())
}
