//! One thread per source table that asks its enumerator what can be read: often while something new comes, less often while not.
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use millstream_connectors::{ConnectorError, SplitEnumerator};
use millstream_plan::{SourceId, SplitId};
use tokio::sync::mpsc::UnboundedSender;
use tracing::{info, warn};

use super::DriverError;
use crate::coordinator::Event;

/// Pause between two questions while answers change.
const BUSY: Duration = Duration::from_millis(4);
/// Longest pause while nothing changes.
const IDLE: Duration = Duration::from_millis(25);
/// Longest pause while the other side does not answer.
const AWAY: Duration = Duration::from_secs(2);

type Positions = BTreeMap<SplitId, u64>;

/// The thread of one source.
pub(super) struct Watcher {
    id: SourceId,
    published: Sender<Positions>,
    /// Position after the last planned range of every split.
    planned: Arc<Mutex<Positions>>,
    _thread: JoinHandle<()>,
}

/// What a watcher tells the loop.
pub(super) enum FromSource {
    Event(Event),
    /// The pipeline cannot go on.
    Failed {
        table: String,
        error: ConnectorError,
    },
}

impl Watcher {
    /// Starts the thread. It ends when the watcher is dropped, at the latest after a question that is under way.
    pub fn start(
        id: SourceId,
        table: String,
        enumerator: Box<dyn SplitEnumerator>,
        planned: Positions,
        events: UnboundedSender<FromSource>,
    ) -> Result<Self, DriverError> {
        let (published, told) = channel();
        let planned = Arc::new(Mutex::new(planned));
        let watch = Watch { id, table, enumerator, planned: planned.clone(), events, told };
        let thread = std::thread::Builder::new()
            .name(format!("source-{id}"))
            .spawn(move || watch.run())
            .map_err(|source| DriverError::Io { what: "cannot start a thread".to_owned(), source })?;
        Ok(Self { id, published, planned, _thread: thread })
    }

    pub fn id(&self) -> SourceId {
        self.id
    }

    /// Ranges have been planned.
    pub fn planned(&self, positions: Positions) {
        *self.planned.lock().unwrap_or_else(PoisonError::into_inner) = positions;
    }

    /// Everything before these positions is published.
    pub fn published(&self, positions: Positions) {
        let _ended = self.published.send(positions);
    }
}

struct Watch {
    id: SourceId,
    table: String,
    enumerator: Box<dyn SplitEnumerator>,
    planned: Arc<Mutex<Positions>>,
    events: UnboundedSender<FromSource>,
    told: Receiver<Positions>,
}

impl Watch {
    fn run(mut self) {
        let mut last = None;
        let mut pause = BUSY;
        let mut away_since: Option<Instant> = None;
        loop {
            let planned = self.planned.lock().unwrap_or_else(PoisonError::into_inner).clone();
            match self.enumerator.discover(&planned, now_ms()) {
                Ok(found) => {
                    if let Some(since) = away_since.take() {
                        info!(table = %self.table, seconds = since.elapsed().as_secs(), "the source answers again");
                        pause = BUSY;
                    }
                    if last.as_ref() == Some(&found) {
                        pause = (pause * 2).min(IDLE);
                    } else {
                        pause = BUSY;
                        last = Some(found.clone());
                        let event = Event::Available { source: self.id, discovery: found };
                        if self.events.send(FromSource::Event(event)).is_err() {
                            return;
                        }
                    }
                }
                Err(ConnectorError::Retry(reason)) => {
                    if away_since.is_none() {
                        warn!(table = %self.table, %reason, "the source does not answer; asking until it does");
                        away_since = Some(Instant::now());
                        pause = Duration::from_millis(100);
                    }
                    pause = (pause * 2).min(AWAY);
                }
                Err(error) => {
                    let _ended = self.events.send(FromSource::Failed { table: self.table, error });
                    return;
                }
            }
            match self.told.recv_timeout(pause) {
                Ok(positions) => self.enumerator.published(&positions),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }
}

/// Wall clock in milliseconds since 1970 UTC.
pub(super) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}
