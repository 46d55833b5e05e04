//! The control loop of an executor process.
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use metrics::gauge;
use millstream_plan::{Era, ExecutorId};
use millstream_protocol::control::{DriverInbox, DriverLink};
use millstream_protocol::messages::{Hello, ToDriver, ToExecutor};
use millstream_protocol::shuffle::{Incoming, Options, ShuffleServer};
use millstream_protocol::transport;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use crate::ExecutorError;
use crate::deployment::{Running, Surroundings};
use crate::http::Health;

/// How often the driver hears from an executor; it misses one for good after 3 s.
const HEARTBEAT: Duration = Duration::from_millis(500);

/// Bundles from peers that wait for the control loop.
const INCOMING: usize = 64;

/// What an executor is told at its start.
#[derive(Clone, Debug)]
pub struct ExecutorOptions {
    /// Stable over restarts where the local state is worth finding again.
    pub id: ExecutorId,
    /// Threads that run tasks.
    pub slots: u16,
    /// Folder of local state; a cache of the checkpoint store.
    pub state_dir: PathBuf,
    /// `host:port` of the shuffle service; port 0 takes a free one.
    pub listen: String,
    /// `host` or `host:port` under which peers reach it, if it is another than `listen`.
    pub advertise: Option<String>,
}

/// How serving a driver ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Served {
    /// As the driver or the operator wished.
    Left,
    /// The driver is gone; connect again.
    ConnectionLost(String),
}

/// An executor: its shuffle service and what it runs.
pub struct Executor {
    options: ExecutorOptions,
    advertised: String,
    shuffle: ShuffleServer,
    incoming: Mutex<mpsc::Receiver<Incoming>>,
    service: JoinHandle<()>,
    health: Health,
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.service.abort();
    }
}

impl Executor {
    /// Opens the shuffle service.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub async fn bind(options: ExecutorOptions) -> Result<Self, ExecutorError> {
        let what = || format!("cannot listen on '{}' for the shuffle", options.listen);
        let listener =
            TcpListener::bind(&options.listen).await.map_err(|source| ExecutorError::Io { what: what(), source })?;
        let bound = listener.local_addr().map_err(|source| ExecutorError::Io { what: what(), source })?;
        let advertised = match &options.advertise {
            None => bound.to_string(),
            Some(address) if address.contains(':') => address.clone(),
            Some(host) => format!("{host}:{}", bound.port()),
        };
        let (sink, incoming) = mpsc::channel(INCOMING);
        let shuffle = ShuffleServer::new(options.id.clone(), Options::default(), sink);
        let routes = shuffle.routes();
        let service = tokio::spawn(async move {
            if let Err(e) = transport::serve(listener, routes, std::future::pending()).await {
                error!(error = %e, "the shuffle service ended");
            }
        });
        let health = Health::default();
        Ok(Self { options, advertised, shuffle, incoming: Mutex::new(incoming), service, health })
    }

    /// How it introduces itself.
    #[must_use]
    pub fn hello(&self) -> Hello {
        Hello {
            executor: self.options.id.clone(),
            slots: self.options.slots,
            shuffle: self.advertised.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// What probes tell of it.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Serves one connection to a driver until it ends, or until `stop` is true (SIGTERM). Everything that runs is stopped then.
    pub async fn serve(&self, link: DriverLink, mut inbox: DriverInbox, mut stop: watch::Receiver<bool>) -> Served {
        let driver = Arc::new(link);
        let heart = tokio::spawn(beat(driver.clone()));
        let mut incoming = self.incoming.lock().await;
        let mut running: Option<Running> = None;
        let served = loop {
            tokio::select! {
                biased;
                () = asked(&mut stop) => {
                    let _gone = driver.send(ToDriver::Bye);
                    break Served::Left;
                }
                message = inbox.recv() => match message {
                    Ok(ToExecutor::Shutdown) => {
                        let _gone = driver.send(ToDriver::Bye);
                        break Served::Left;
                    }
                    Ok(message) => self.handle(message, &mut running, &driver).await,
                    Err(e) => break Served::ConnectionLost(e.to_string()),
                },
                Some(incoming) = incoming.recv() => receive(incoming, running.as_ref(), &driver),
            }
        };
        heart.abort();
        self.health.set_deployed(false);
        if let Some(running) = running {
            running.stop().await;
        }
        served
    }

    async fn handle(&self, message: ToExecutor, running: &mut Option<Running>, driver: &Arc<DriverLink>) {
        let current = |running: &Option<Running>, era: Era| running.as_ref().is_some_and(|r| r.era == era);
        match message {
            ToExecutor::Deploy(deployment) => {
                let era = deployment.era;
                info!(%era, restore = ?deployment.restore.as_ref().map(|r| r.epoch), "deploying");
                if let Some(old) = running.take() {
                    if old.era >= era {
                        warn!(%era, current = %old.era, "a deployment of an older era is refused");
                        *running = Some(old);
                        return;
                    }
                    self.health.set_deployed(false);
                    old.stop().await;
                }
                let around = Surroundings {
                    me: &self.options.id,
                    slots: self.options.slots,
                    state_dir: &self.options.state_dir,
                    driver,
                };
                match Running::start(&deployment, &around).await {
                    Ok(started) => {
                        *running = Some(started);
                        self.health.set_deployed(true);
                        self.shuffle.enter(era);
                        let _gone = driver.send(ToDriver::Ready { era });
                    }
                    Err(e) => {
                        error!(%era, error = %e, "cannot deploy");
                        let failed = ToDriver::Failed { era, task: None, epoch: None, failure: e.failure() };
                        let _gone = driver.send(failed);
                    }
                }
            }
            ToExecutor::Run { era, plan } if current(running, era) => {
                if let Some(r) = running {
                    r.run(plan);
                }
            }
            ToExecutor::Durable { era, epoch } if current(running, era) => {
                if let Some(r) = running {
                    r.durable(epoch);
                }
            }
            ToExecutor::Checkpointed { era, epoch } if current(running, era) => {
                if let Some(r) = running {
                    r.checkpointed(epoch);
                }
            }
            // Of an era that is over here.
            ToExecutor::Run { .. } | ToExecutor::Durable { .. } | ToExecutor::Checkpointed { .. } => {}
            // Handled by the loop.
            ToExecutor::Shutdown => {}
        }
    }
}

/// Returns when `stop` is true or nobody can say it any more.
async fn asked(stop: &mut watch::Receiver<bool>) {
    // The value is locked while its reference lives, which must not be across other waits.
    let _seen = stop.wait_for(|s| *s).await.is_ok();
}

fn receive(incoming: Incoming, running: Option<&Running>, driver: &DriverLink) {
    match (incoming, running) {
        (Incoming::Bundle(bundle), Some(running)) if bundle.era == running.era => running.receive(bundle),
        (Incoming::Lost(lost), Some(running)) if lost.era == running.era => {
            warn!(era = %lost.era, error = %lost, "lost a peer");
            let failure = ExecutorError::Lost(lost.to_string()).failure();
            let _gone = driver.send(ToDriver::Failed { era: lost.era, task: None, epoch: None, failure });
        }
        // Of an era that is over here.
        (Incoming::Bundle(_) | Incoming::Lost(_), _) => {}
    }
}

/// Says that this process lives, and how much memory it has.
async fn beat(driver: Arc<DriverLink>) {
    let mut every = tokio::time::interval(HEARTBEAT);
    loop {
        every.tick().await;
        gauge!("millstream_memory_resident_bytes").set(resident_bytes() as f64);
        if driver.send(ToDriver::Heartbeat { memory_bytes: resident_bytes() }).is_err() {
            return;
        }
    }
}

/// Resident memory of this process; 0 where the system does not tell.
fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    pages.and_then(|s| s.split_whitespace().nth(1)?.parse::<u64>().ok()).map_or(0, |p| p * 4096)
}
