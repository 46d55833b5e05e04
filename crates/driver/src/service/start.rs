//! From options to a running driver.
use std::collections::BTreeMap;
use std::sync::Arc;

use millstream_connectors::{ConnectorError, SplitEnumerator};
use millstream_plan::SourceId;
use millstream_protocol::control::ControlServer;
use millstream_protocol::messages::JobSpec;
use millstream_protocol::transport;
use millstream_state::objects::WriterId as StoreWriter;
use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc};
use tracing::{error, info};

use super::progress::{Status, Teller};
use super::run::{Inputs, Loop, positions_of};
use super::shape::{Tables, plan_options, shape_of};
use super::sources::{Watcher, now_ms};
use super::store::Stores;
use super::{Driver, DriverError, DriverOptions, Services, http};
use crate::chain::{History, WriterId};
use crate::coordinator::{Config, Coordinator, Executors};

/// Control events that wait for the loop.
const CONTROL_EVENTS: usize = 4096;
/// Pause between two upkeeps of the metrics.
const UPKEEP: std::time::Duration = std::time::Duration::from_secs(5);
/// Progress records that a slow receiver may lag behind.
const PROGRESS: usize = 1024;

impl Driver {
    /// Starts a driver: everything that can be wrong with the pipeline or its surroundings is found here, before any task runs.
    ///
    /// # Errors
    /// See [`DriverError`]; those about sources, sinks and stores come within 15 s.
    pub async fn start(options: DriverOptions) -> Result<Self, DriverError> {
        let mut conf = options.conf.clone();
        let settings = millstream_sql::settings(&options.sql, &conf)?;
        let location = match settings.text("checkpointLocation") {
            Some(location) => location.to_owned(),
            None => {
                let local = options.state_dir.join("checkpoint").display().to_string();
                info!(location = %local, "no checkpointLocation is set; plans and checkpoints are kept here");
                local
            }
        };
        // Executors run in other folders: they are told the absolute path.
        let location = absolute(location)?;
        conf.insert("checkpointLocation".to_owned(), location.clone());
        if settings.text("pipeline.name").is_none() {
            conf.insert("pipeline.name".to_owned(), options.default_name.clone());
        }
        let wanted = settings.integer("parallelism").and_then(|p| u16::try_from(p).ok()).unwrap_or(options.parallelism);
        // Mistakes in the text are told before anything outside is asked.
        millstream_sql::plan(&options.sql, &conf, wanted)?;
        let stores = Stores::open(&location, settings.text("log.durability")).await?;
        let found = stores.recover().await?;
        let parallelism = found.fold.genesis.as_ref().map_or(wanted, |g| g.parallelism);
        let pipeline = millstream_sql::plan(&options.sql, &conf, parallelism)?;
        let name = pipeline.settings.text("pipeline.name").unwrap_or("pipeline").to_owned();
        let tables = Arc::new(Tables::of(&pipeline)?);
        let logged = found.fold.genesis.as_ref().map(|g| (g.options.clone(), found.fold.head.clone()));
        let (enumerators, first) = check(tables.clone(), logged).await?;

        let shape = shape_of(&pipeline, &tables, name.clone(), parallelism);
        let job = JobSpec { sql: options.sql.clone(), conf: conf.clone() };
        let writer = StoreWriter::random();
        let mut config = Config::new(job, shape, plan_options(&pipeline), WriterId(format!("{:032x}", writer.0)));
        config.host.clone_from(&options.host);
        config.options = conf;
        config.options.extend(first);
        config.executors = Executors { expected: options.executors.max(1), wait_ms: 5_000 };
        if let Some(in_flight) = pipeline.settings.integer("epoch.in-flight") {
            config.max_in_flight = usize::try_from(in_flight).unwrap_or(1).max(1);
        }
        let now = now_ms();
        let history = found.fold.head.clone();
        let (coordinator, first) = Coordinator::start(config, found, now)?;

        let status = Arc::new(Status::new(name.clone(), &pipeline));
        let (progress, _) = broadcast::channel(PROGRESS);
        let (events_in, events) = mpsc::unbounded_channel();
        let (sources_in, sources) = mpsc::unbounded_channel();
        let (control, executors) = ControlServer::new(CONTROL_EVENTS);
        let mut services = Services::default();
        let control_address = match &options.control {
            Some(address) => {
                let (listener, bound) = listen(address, "executors").await?;
                let routes = control.routes();
                services.0.push(tokio::spawn(async move {
                    if let Err(e) = transport::serve(listener, routes, std::future::pending()).await {
                        error!(error = %e, "the control service ended");
                    }
                }));
                Some(bound)
            }
            None => None,
        };
        let http_address = match &options.http {
            Some(address) => {
                let (listener, bound) = listen(address, "HTTP").await?;
                services.0.push(http::serve(listener, status.clone()));
                Some(bound)
            }
            None => None,
        };
        let kept = status.clone();
        services.0.push(tokio::spawn(async move {
            loop {
                tokio::time::sleep(UPKEEP).await;
                kept.upkeep();
            }
        }));
        let mut watchers = Vec::new();
        for (source, enumerator) in pipeline.sources.iter().zip(enumerators) {
            let planned = positions_of(&history, source.id);
            watchers.push(Watcher::start(source.id, source.table.clone(), enumerator, planned, sources_in.clone())?);
        }
        let running = Loop {
            coordinator,
            stores,
            holder: format!("{} ({})", options.host, std::process::id()),
            watchers,
            links: BTreeMap::new(),
            teller: Teller::new(name, status.clone(), progress.clone(), &pipeline),
            events_in: events_in.clone(),
            now,
        };
        let exit = tokio::spawn(running.run(first, Inputs { events, sources, executors }));
        Ok(Self {
            control,
            control_address,
            http_address,
            progress,
            events: events_in,
            status,
            exit,
            _services: services,
        })
    }
}

async fn listen(address: &str, what: &str) -> Result<(TcpListener, std::net::SocketAddr), DriverError> {
    let failed = |source| DriverError::Io { what: format!("cannot listen on '{address}' for {what}"), source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

fn absolute(location: String) -> Result<String, DriverError> {
    if location.contains("://") {
        return Ok(location);
    }
    let path = std::path::absolute(&location)
        .map_err(|source| DriverError::Io { what: format!("checkpointLocation '{location}'"), source })?;
    Ok(path.display().to_string())
}

/// Where the log keeps what a source's options meant at the first start.
fn first_start_of(source: usize) -> String {
    format!("source.{source}.first-start")
}

/// Options that only the log has.
type FirstStarts = BTreeMap<String, String>;

/// Asks every source and sink whether it is there. The sources are told what their options meant when the pipeline was new
/// (`logged`, with where they stand), or say it, for the log.
async fn check(
    tables: Arc<Tables>,
    logged: Option<(BTreeMap<String, String>, History)>,
) -> Result<(Vec<Box<dyn SplitEnumerator>>, FirstStarts), DriverError> {
    let checked = tokio::task::spawn_blocking(move || {
        let refused = |table: &str| {
            let table = table.to_owned();
            move |error: ConnectorError| DriverError::Connector { table, error }
        };
        for (table, sink) in &tables.sinks {
            sink.check().map_err(refused(table))?;
        }
        let (mut enumerators, mut first) = (Vec::new(), FirstStarts::new());
        for (id, (table, source)) in tables.sources.iter().enumerate() {
            let mut enumerator = source.enumerator().map_err(refused(table))?;
            match &logged {
                Some((options, history)) => {
                    let first = options.get(&first_start_of(id)).map(String::as_str);
                    let splits = history.sources.get(&SourceId(id as u16)).map(|s| &s.splits);
                    let tags = splits.into_iter().flatten().map(|(split, s)| (split.clone(), s.tag.clone())).collect();
                    enumerator.resume(first, &tags).map_err(refused(table))?;
                }
                None => {
                    first.extend(enumerator.first_start().map_err(refused(table))?.map(|t| (first_start_of(id), t)))
                }
            }
            enumerators.push(enumerator);
        }
        Ok((enumerators, first))
    });
    checked.await.map_err(|e| DriverError::Internal(format!("checking sources and sinks: {e}")))?
}
