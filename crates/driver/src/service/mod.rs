//! The shell of the driver: performs what the coordinator commands, and tells it what happened.
//!
//! | part | does |
//! |---|---|
//! | [`Driver::start`] | opens the stores, reads the log from the newest checkpoint on, plans the SQL, checks sources and sinks |
//! | `run` | the one loop that owns the coordinator: events in, commands out |
//! | `store` | log, manifests, generations, garbage, each command in a task of its own that answers with an event |
//! | `sources` | one thread per source table that asks its enumerator what can be read |
//! | `progress` | what people are told: a record per epoch, metrics |
//! | `http` | `/metrics`, probes and `/api/v1` |
mod error;
mod http;
mod options;
mod progress;
mod run;
mod shape;
mod sources;
mod start;
mod store;

use std::net::SocketAddr;
use std::sync::Arc;

use millstream_protocol::control::ControlServer;
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinHandle;

pub use error::DriverError;
pub use options::DriverOptions;
pub use progress::{Progress, Status};

use crate::coordinator::{Event, Exit};

/// A running driver.
pub struct Driver {
    control: ControlServer,
    control_address: Option<SocketAddr>,
    http_address: Option<SocketAddr>,
    progress: broadcast::Sender<Arc<Progress>>,
    events: mpsc::UnboundedSender<Event>,
    status: Arc<Status>,
    exit: JoinHandle<Exit>,
    _services: Services,
}

/// Asks a driver for a drain.
#[derive(Clone)]
pub struct Stopper(mpsc::UnboundedSender<Event>);

impl Stopper {
    /// See [`Driver::stop`].
    pub fn stop(&self) {
        // If the loop has ended, it is stopped.
        let _ended = self.0.send(Event::StopRequested);
    }
}

/// Servers that end with the driver.
#[derive(Default)]
struct Services(Vec<JoinHandle<()>>);

impl Drop for Services {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

impl Driver {
    /// Where executors of this process connect; see [`ControlServer::local`].
    #[must_use]
    pub fn control(&self) -> &ControlServer {
        &self.control
    }

    /// Where executors of other processes connect.
    #[must_use]
    pub fn control_address(&self) -> Option<SocketAddr> {
        self.control_address
    }

    /// Where metrics, probes and the API are.
    #[must_use]
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http_address
    }

    /// What is known of the pipeline right now.
    #[must_use]
    pub fn status(&self) -> &Arc<Status> {
        &self.status
    }

    /// A record for every epoch from now on; a receiver that is too slow misses the oldest.
    #[must_use]
    pub fn progress(&self) -> broadcast::Receiver<Arc<Progress>> {
        self.progress.subscribe()
    }

    /// Asks for a drain: no new input, a last checkpoint, everything published, then the end.
    pub fn stop(&self) {
        self.stopper().stop();
    }

    /// What can ask for a drain while another one waits for the end.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper(self.events.clone())
    }

    /// Waits for the end.
    pub async fn wait(self) -> Exit {
        self.exit.await.unwrap_or_else(|e| Exit::Failed(format!("the driver's loop failed: {e}")))
    }
}
