//! A driver with its executors, from the start to the end of a pipeline.
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use millstream_driver::coordinator::Exit;
use millstream_driver::{Driver, DriverOptions, Progress, Status};
use millstream_executor::{Executor, ExecutorOptions, Served};
use millstream_plan::ExecutorId;
use millstream_protocol::control::ControlServer;
use tokio::runtime::Handle;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::warn;

use super::processes::Executors;
use crate::config::{Job, cores};
use crate::failure::Failure;

/// Pause before an executor in this process connects again.
const RECONNECT: Duration = Duration::from_millis(50);
/// How long the executor in this process may take to stop when the driver has ended.
const GRACE: Duration = Duration::from_secs(5);

/// What to run, and how.
pub struct Engine {
    pub job: Job,
    /// `host:port` of metrics, probes and the API; `None`: not served.
    pub http: Option<String>,
    /// Number of executor processes; `None`: the tasks run in this process.
    pub executors: Option<u16>,
    pub state_dir: PathBuf,
}

/// How a pipeline ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Its input has ended.
    Finished,
    /// It was asked to stop, or all that was there is processed; the next start goes on from here.
    Drained,
}

/// A pipeline that ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    pub how: How,
    /// Records read since the start.
    pub rows_in: u64,
    /// Rows published by all sinks since the start.
    pub rows_out: u64,
}

/// Is told what happens.
pub trait Observer {
    /// The driver runs; executors are being waited for.
    fn started(&mut self, driver: &Driver);
    /// An epoch is processed.
    fn epoch(&mut self, progress: &Progress);
    /// A second has passed.
    fn second(&mut self, status: &Status);
}

impl Engine {
    /// Runs until the input ends, or until `stop` is true and everything is drained.
    ///
    /// # Errors
    /// It could not be started, or failed.
    pub async fn run(self, mut stop: watch::Receiver<bool>, observer: &mut dyn Observer) -> Result<Ended, Failure> {
        let driver = Driver::start(DriverOptions {
            sql: self.job.sql.clone(),
            conf: self.job.conf.clone(),
            default_name: "pipeline".to_owned(),
            parallelism: self.job.parallelism(),
            state_dir: self.state_dir.clone(),
            control: self.executors.map(|_| "127.0.0.1:0".to_owned()),
            http: self.http.clone(),
            executors: self.executors.map_or(1, usize::from),
            host: host(),
        })
        .await?;
        let tasks = Tasks::start(&self, &driver).await?;
        observer.started(&driver);
        let mut progress = driver.progress();
        let (stopper, status) = (driver.stopper(), driver.status().clone());
        let mut end = pin!(driver.wait());
        let mut every = tokio::time::interval(Duration::from_secs(1));
        let mut asked = false;
        let exit = loop {
            tokio::select! {
                biased;
                exit = &mut end => break exit,
                Ok(_) = stop.wait_for(|stop| *stop), if !asked => {
                    asked = true;
                    stopper.stop();
                }
                received = progress.recv() => match received {
                    Ok(epoch) => observer.epoch(&epoch),
                    Err(RecvError::Lagged(missed)) => warn!(missed, "progress of some epochs is not shown"),
                    // The loop has ended; so will the wait.
                    Err(RecvError::Closed) => tokio::task::yield_now().await,
                },
                _ = every.tick() => observer.second(&status),
            }
        };
        loop {
            match progress.try_recv() {
                Ok(epoch) => observer.epoch(&epoch),
                Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        observer.second(&status);
        tasks.end().await;
        let ended = |how| Ended { how, rows_in: status.input_rows(), rows_out: status.rows_published() };
        match exit {
            Exit::Finished => Ok(ended(How::Finished)),
            Exit::Drained => Ok(ended(How::Drained)),
            Exit::Abandoned => {
                Err(Failure::job("stopped before everything was finished; the next start replays the last epochs"))
            }
            Exit::Failed(reason) => Err(Failure::job(reason)),
            Exit::Fenced(reason) => Err(Failure::Job {
                message: format!("another driver leads this pipeline: {reason}"),
                hint: Some("stop that one first, or give this pipeline a checkpointLocation of its own".to_owned()),
            }),
        }
    }
}

/// Whatever runs the tasks.
enum Tasks {
    Processes(Executors),
    Here { done: watch::Sender<bool>, executor: JoinHandle<()> },
}

impl Tasks {
    async fn start(engine: &Engine, driver: &Driver) -> Result<Self, Failure> {
        if let Some(count) = engine.executors {
            let control = driver.control_address();
            let control = control.ok_or_else(|| Failure::job("the driver does not listen for executors"))?;
            let slots = engine.job.parallelism().div_ceil(count).max(1);
            let started = Executors::start(count, &control.to_string(), slots, &engine.state_dir)?;
            return Ok(Self::Processes(started));
        }
        let executor = Executor::bind(ExecutorOptions {
            id: ExecutorId::from("embedded"),
            slots: cores(),
            state_dir: engine.state_dir.join("embedded"),
            listen: "127.0.0.1:0".to_owned(),
            advertise: None,
        })
        .await
        .map_err(|e| Failure::job(e.to_string()))?;
        let (done, stop) = watch::channel(false);
        let (control, runtime) = (driver.control().clone(), Handle::current());
        // A thread of its own: what it runs does not move between threads.
        let executor = tokio::task::spawn_blocking(move || runtime.block_on(serve(executor, control, stop)));
        Ok(Self::Here { done, executor })
    }

    async fn end(self) {
        match self {
            // Waits for threads.
            Self::Processes(executors) => {
                if let Err(e) = tokio::task::spawn_blocking(move || drop(executors)).await {
                    warn!(error = %e, "ending the executors");
                }
            }
            Self::Here { done, executor } => {
                done.send_replace(true);
                if tokio::time::timeout(GRACE, executor).await.is_err() {
                    warn!("the tasks of this process do not stop");
                }
            }
        }
    }
}

/// Serves the driver of this process until it has ended.
async fn serve(executor: Executor, control: ControlServer, stop: watch::Receiver<bool>) {
    while !*stop.borrow() {
        let (link, inbox) = control.local(executor.hello());
        match executor.serve(link, inbox, stop.clone()).await {
            Served::Left => return,
            Served::ConnectionLost(reason) => {
                tracing::debug!(reason, "the connection inside this process ended");
                tokio::time::sleep(RECONNECT).await;
            }
        }
    }
}

/// Name of this machine, for people.
fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "localhost".to_owned() } else { name.to_owned() }
}

/// A runtime for an engine.
///
/// # Errors
/// The system gives no threads.
pub fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let built = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    built.map_err(|e| Failure::job(format!("cannot start threads: {e}")))
}
