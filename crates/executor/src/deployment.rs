//! Builds the tasks of an era from nothing but the `Deploy` message, and takes them down again.
//!
//! Order: the graph is planned and its fingerprint compared → state is fetched and read into the operators → sinks are opened (which fences
//! every earlier owner of the same sink task) → slots start → streams to peers → `Ready`. Nothing runs before `Ready` has been said by all.
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use millstream_connectors::{Connector, DeadLetterEncoder, S3Options, SinkContext, connector, dead_letter_committer};
use millstream_dataflow::cold::ColdState;
use millstream_dataflow::graph::NodeKind;
use millstream_dataflow::task::{Task, shuffle_edges};
use millstream_plan::{Epoch, EpochPlan, Era, ExecutorId, TaskId};
use millstream_protocol::control::DriverLink;
use millstream_protocol::messages::{Deployment, TaskState, ToDriver};
use millstream_protocol::shuffle::{Bundle, Options, ShuffleClient};
use millstream_sql::Pipeline;
use millstream_state::backup::{FileRef, Uploader, fetch};
use millstream_state::objects::{CheckpointStore, StoreOptions, WriterId};
use millstream_state::task::TaskStore;
use tokio::task::JoinSet;
use tracing::{error, info};

use crate::ExecutorError;
use crate::checkpoint::{Checkpointer, forget_before};
use crate::exchange::Exchange;
use crate::memory::{Share, StateMemory, StoreReader};
use crate::publisher::{Publisher, Subject, ToPublisher};
use crate::slot::{self, ToSlot};
use crate::source::SourceInput;
use crate::task::{DeadLetterOutput, Outgoing, RunningTask, SinkOutput, entry_of};

/// Files of one task's state in flight.
const TRANSFERS: usize = 4;

/// The tasks of one era on this executor.
pub(crate) struct Running {
    pub era: Era,
    exchange: Arc<Exchange>,
    slots: Vec<JoinHandle<()>>,
    publishers: Vec<Publisher>,
    /// Checkpointers and streams to peers; aborted when dropped.
    _background: JoinSet<()>,
    snapshots: Vec<PathBuf>,
}

/// What a deployment needs of its executor.
pub(crate) struct Surroundings<'a> {
    pub me: &'a ExecutorId,
    pub slots: u16,
    pub state_dir: &'a Path,
    pub driver: &'a Arc<DriverLink>,
}

impl Running {
    /// Brings up everything that `deployment` places here.
    pub async fn start(deployment: &Deployment, around: &Surroundings<'_>) -> Result<Self, ExecutorError> {
        let Deployment { era, job, fingerprint, parallelism, .. } = deployment;
        let pipeline = millstream_sql::plan(&job.sql, &job.conf, *parallelism)?;
        if pipeline.graph.fingerprint != *fingerprint {
            return Err(ExecutorError::Mismatch(format!(
                "this executor plans the pipeline as {}, the driver as {fingerprint}; run the same build on both",
                pipeline.graph.fingerprint
            )));
        }
        let graph = Arc::new(pipeline.graph.clone());
        let edges = shuffle_edges(&graph);
        let local: Vec<TaskId> =
            deployment.placement.iter().filter(|(_, e)| *e == around.me).map(|(t, _)| *t).collect();
        let mut background = JoinSet::new();
        let mut slots_in = Vec::new();
        let slots = usize::from(around.slots.max(1));
        let senders: Vec<_> = (0..slots)
            .map(|_| {
                let (sender, receiver) = mpsc::channel();
                slots_in.push(receiver);
                sender
            })
            .collect();
        // Tasks of one stage side by side over the slots, so that a stage uses all of them.
        let slot_of: BTreeMap<TaskId, usize> = local.iter().map(|t| (*t, usize::from(t.index) % slots)).collect();
        let mut peers = BTreeMap::new();
        let others: BTreeSet<&ExecutorId> = deployment.placement.values().filter(|e| *e != around.me).collect();
        if !edges.is_empty() {
            for peer in others {
                peers.insert(peer.clone(), connect(deployment, around, peer, &mut background).await?);
            }
        }
        let exchange = Arc::new(Exchange {
            era: *era,
            me: around.me.clone(),
            parallelism: *parallelism,
            edges,
            placement: deployment.placement.clone(),
            slots: senders,
            slot_of: slot_of.clone(),
            peers,
        });
        let location = pipeline
            .settings
            .text("checkpointLocation")
            .ok_or_else(|| ExecutorError::Mismatch("the deployment has no checkpointLocation".to_owned()))?;
        let build = Build {
            deployment,
            around,
            pipeline: &pipeline,
            graph,
            exchange: exchange.clone(),
            store: CheckpointStore::open(location, &StoreOptions::default(), WriterId::random())?,
            location: location.to_owned(),
            memory: StateMemory::new(pipeline.settings.bytes("state.memory").unwrap_or(u64::MAX)),
            tasks: local.len() as u64,
        };
        let mut by_slot: Vec<Vec<RunningTask>> = (0..slots).map(|_| Vec::new()).collect();
        let (mut publishers, mut snapshots) = (Vec::new(), Vec::new());
        for task in local {
            let running = build.task(task, &mut publishers, &mut snapshots, &mut background).await?;
            by_slot[slot_of[&task]].push(running);
        }
        for publisher in &mut publishers {
            let opened = (&mut publisher.opened).await;
            let epoch = opened.map_err(|_| ExecutorError::Lost("a publisher ended".to_owned()))??;
            if let Subject::Sink(sink) = publisher.subject {
                let published = ToDriver::Published { era: *era, sink, task: publisher.task, epoch, rows: 0, bytes: 0 };
                let _gone = around.driver.send(published);
            }
        }
        let mut threads = Vec::new();
        for ((n, tasks), receiver) in by_slot.into_iter().enumerate().zip(slots_in) {
            let driver = around.driver.clone();
            let thread = std::thread::Builder::new()
                .name(format!("slot-{n}"))
                .spawn(move || slot::run(tasks, &receiver, &driver))
                .map_err(|source| ExecutorError::Io { what: "cannot start a thread".to_owned(), source })?;
            threads.push(thread);
        }
        Ok(Self { era: *era, exchange, slots: threads, publishers, _background: background, snapshots })
    }

    /// A plan for all tasks.
    pub fn run(&self, plan: EpochPlan) {
        let plan = Arc::new(plan);
        for slot in &self.exchange.slots {
            // A slot that has ended said why.
            let _ended = slot.send(ToSlot::Plan(plan.clone()));
        }
    }

    /// Epochs up to `epoch` may be published.
    pub fn durable(&self, epoch: Epoch) {
        for publisher in &self.publishers {
            let _ended = publisher.queue.send(ToPublisher::Durable(epoch));
        }
    }

    /// The checkpoint of `epoch` is complete.
    pub fn checkpointed(&self, epoch: Epoch) {
        self.snapshots.iter().for_each(|s| forget_before(s, epoch));
    }

    /// Frames from another executor.
    pub fn receive(&self, bundle: Bundle) {
        self.exchange.deliver(bundle.epoch, bundle.frames, &bundle.complete);
    }

    /// Stops all threads. What is not published stays so.
    pub async fn stop(self) {
        let Self { era, exchange, slots, publishers, _background, .. } = self;
        drop(_background);
        for slot in &exchange.slots {
            let _ended = slot.send(ToSlot::Stop);
        }
        for publisher in &publishers {
            let _ended = publisher.queue.send(ToPublisher::Stop);
        }
        let threads = slots.into_iter().chain(publishers.into_iter().map(|p| p.thread));
        let threads: Vec<_> = threads.collect();
        let joined = tokio::task::spawn_blocking(move || {
            threads.into_iter().map(JoinHandle::join).filter(Result::is_err).count()
        });
        match joined.await {
            Ok(0) => info!(%era, "stopped"),
            Ok(panics) => error!(%era, panics, "threads had panicked"),
            Err(e) => error!(%era, error = %e, "cannot stop"),
        }
    }
}

/// The stream to one peer: a queue and the task that empties it.
async fn connect(
    deployment: &Deployment,
    around: &Surroundings<'_>,
    peer: &ExecutorId,
    background: &mut JoinSet<()>,
) -> Result<tokio::sync::mpsc::UnboundedSender<Bundle>, ExecutorError> {
    let era = deployment.era;
    let address = deployment
        .peers
        .get(peer)
        .ok_or_else(|| ExecutorError::Mismatch(format!("the deployment has no address of executor '{peer}'")))?;
    let stream = ShuffleClient::connect(era, around.me, peer, address, &Options::default()).await?;
    let (queue, mut bundles) = tokio::sync::mpsc::unbounded_channel::<Bundle>();
    let driver = around.driver.clone();
    background.spawn(async move {
        let lost = loop {
            tokio::select! {
                biased;
                lost = stream.lost() => break lost.to_string(),
                bundle = bundles.recv() => {
                    let Some(bundle) = bundle else { return };
                    if let Err(e) = stream.send(bundle).await {
                        break e.to_string();
                    }
                }
            }
        };
        let failure = ExecutorError::Lost(lost).failure();
        let _gone = driver.send(ToDriver::Failed { era, task: None, epoch: None, failure });
    });
    Ok(queue)
}

/// What all tasks of a deployment share while they are built.
struct Build<'a> {
    deployment: &'a Deployment,
    around: &'a Surroundings<'a>,
    pipeline: &'a Pipeline,
    graph: Arc<millstream_dataflow::graph::Graph>,
    exchange: Arc<Exchange>,
    store: CheckpointStore,
    location: String,
    memory: Arc<StateMemory>,
    /// Tasks on this executor.
    tasks: u64,
}

impl Build<'_> {
    async fn task(
        &self,
        id: TaskId,
        publishers: &mut Vec<Publisher>,
        snapshots: &mut Vec<PathBuf>,
        background: &mut JoinSet<()>,
    ) -> Result<RunningTask, ExecutorError> {
        let mut task = Task::new(self.graph.clone(), id.stage, self.deployment.parallelism)?;
        let folder = self.around.state_dir.join(format!("task-{id}"));
        let snapshot_dir = folder.join("snapshots");
        let (store, uploader) = self.open_state(id, &folder, &snapshot_dir).await?;
        let store = Arc::new(store);
        let reader = Arc::new(StoreReader::new(store.clone()));
        let cold: Arc<dyn ColdState> = reader.clone();
        task.attach(&cold, self.memory.budget() / self.tasks.max(1));
        restore(&store, &mut task)?;
        let (mut sources, mut dead_letters, mut sinks) = (Vec::new(), Vec::new(), Vec::new());
        for node in self.graph.nodes.iter().filter(|n| n.stage == id.stage) {
            match &node.kind {
                NodeKind::Source(source) => {
                    let spec = &self.pipeline.sources[usize::from(source.source.0)];
                    let reader = (named(spec.options.text("connector"))?.source)(spec.clone())?.reader(id.index)?;
                    sources.push(SourceInput::new(node.id, source, &node.output, reader, id.index));
                    let encoder = DeadLetterEncoder::new(&source.table, id.index);
                    dead_letters.push(DeadLetterOutput { source: source.source, encoder });
                }
                NodeKind::Sink(sink) => {
                    let spec = &self.pipeline.sinks[usize::from(sink.sink.0)];
                    let factory = (named(spec.options.text("connector"))?.sink)(spec.clone())?;
                    let committer = factory.committer(id.index)?;
                    let publisher = self.publisher(Subject::Sink(sink.sink), id, committer)?;
                    let queue = publisher.queue.clone();
                    sinks.push(SinkOutput { sink: sink.sink, encoder: factory.encoder(id.index)?, queue });
                    publishers.push(publisher);
                }
                _ => {}
            }
        }
        let (mut dead_queue, mut dead_published) = (None, None);
        if !dead_letters.is_empty() {
            let committer = dead_letter_committer(&self.dead_letter_location(), &S3Options::default())?;
            let publisher = self.publisher(Subject::DeadLetters, id, committer)?;
            dead_queue = Some(publisher.queue.clone());
            dead_published = Some(publisher.published.clone());
            publishers.push(publisher);
        }
        let (checkpoint, sealed) = tokio::sync::mpsc::unbounded_channel();
        let checkpointer = Checkpointer {
            era: self.deployment.era,
            task: id,
            store,
            reader,
            uploader,
            snapshots: snapshot_dir.clone(),
            dead_letters: dead_published,
            driver: self.around.driver.clone(),
        };
        background.spawn(checkpointer.run(sealed));
        snapshots.push(snapshot_dir);
        let numbered = || self.exchange.edges.iter().enumerate().map(|(n, e)| (n as u32, e));
        Ok(RunningTask {
            id,
            task,
            sources,
            inputs: numbered().filter(|(_, e)| e.to == id.stage).map(|(n, e)| (n, e.edge)).collect(),
            outputs: numbered().filter(|(_, e)| e.from == id.stage).map(|(n, _)| n).collect(),
            out: Outgoing {
                edges: numbered().filter(|(_, e)| e.from == id.stage).map(|(n, e)| (e.edge, n)).collect(),
                frames: BTreeMap::new(),
                sinks,
                bytes: 0,
                refused: None,
            },
            dead_letters,
            dead_queue,
            checkpoint,
            memory: Share::new(&self.memory),
            exchange: self.exchange.clone(),
            driver: self.around.driver.clone(),
            plans: VecDeque::new(),
            current: None,
            arrived: BTreeMap::new(),
        })
    }

    fn dead_letter_location(&self) -> String {
        match self.pipeline.settings.text("dead-letter.location") {
            Some(location) => location.to_owned(),
            None => format!("{}/dead-letters", self.location.trim_end_matches('/')),
        }
    }

    fn publisher(
        &self,
        subject: Subject,
        task: TaskId,
        committer: Box<dyn millstream_connectors::SinkCommitter>,
    ) -> Result<Publisher, ExecutorError> {
        let restored = self.deployment.restore.as_ref().map_or(Epoch(0), |r| r.epoch);
        let context = SinkContext { era: self.deployment.era, task: task.index, restored };
        Publisher::start(subject, task, context, committer, self.around.driver.clone())
    }

    /// The task's store: fetched from the checkpoint, or empty.
    async fn open_state(
        &self,
        id: TaskId,
        folder: &Path,
        snapshots: &Path,
    ) -> Result<(TaskStore, Uploader), ExecutorError> {
        let era = self.deployment.era;
        let live = folder.join(format!("live-{era}"));
        let io = |what: &str, path: &Path| {
            let what = format!("cannot {what} '{}'", path.display());
            move |source| ExecutorError::Io { what, source }
        };
        std::fs::create_dir_all(snapshots).map_err(io("create", snapshots))?;
        for old in std::fs::read_dir(folder).map_err(io("read", folder))?.flatten() {
            if old.file_name().to_string_lossy().starts_with("live-") {
                std::fs::remove_dir_all(old.path()).map_err(io("remove", &old.path()))?;
            }
        }
        let caches: Vec<PathBuf> = match std::fs::read_dir(snapshots) {
            Ok(entries) => entries.flatten().map(|e| e.path()).collect(),
            Err(_) => Vec::new(),
        };
        // Snapshots beyond the restored epoch are of a history that may not come again, and would stand where the new ones belong.
        let forget = || {
            caches.iter().for_each(|c| {
                let _kept = std::fs::remove_dir_all(c);
            });
        };
        let empty = TaskState::default();
        let state = self.deployment.restore.as_ref().and_then(|r| r.tasks.get(&id)).unwrap_or(&empty);
        if state.files.is_empty() {
            forget();
            return Ok((TaskStore::create(&live)?, Uploader::new(self.store.clone(), TRANSFERS)));
        }
        let files: Vec<FileRef> =
            state.files.iter().map(|f| FileRef { name: f.name.clone(), hash: f.hash, bytes: f.bytes }).collect();
        let fetched = fetch(&self.store, &files, &live, &caches, TRANSFERS).await?;
        info!(%era, task = %id, local = fetched.local, downloaded = fetched.downloaded, bytes = fetched.downloaded_bytes, "state restored");
        forget();
        let uploader = Uploader::restored(self.store.clone(), TRANSFERS, &live, &files)?;
        Ok((TaskStore::open(&live)?, uploader))
    }
}

fn named(name: Option<&str>) -> Result<&'static Connector, ExecutorError> {
    let name = name.unwrap_or_default();
    connector(name).ok_or_else(|| ExecutorError::Mismatch(format!("there is no connector '{name}'")))
}

/// Reads all entries into the operators.
fn restore(store: &TaskStore, task: &mut Task) -> Result<(), ExecutorError> {
    store.scan_prefix(&[], |key, value| {
        let (operator, own) = entry_of(key)
            .ok_or_else(|| ExecutorError::Mismatch(format!("the state has an entry that nobody owns: {key:?}")))?;
        Ok::<_, ExecutorError>(task.restore(operator, own, value)?)
    })
}
