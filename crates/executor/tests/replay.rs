//! Replay: the same plans give the same bytes of output and the same state, whatever runs them.
//!
//! The test is the driver. Plans are drawn from a seed and fixed before anything runs. They are run by one, two and three executors, which
//! shuffle over gRPC; with dispatch delayed per executor by the seed, so that input arrives in other orders; and with everything dropped
//! at random moments, restored from the last complete checkpoint with other placements, and replayed.
//!
//! Same layout (tasks per stage): files and digests of state are identical. Other layouts: the same rows.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use millstream_connectors::{SplitState, connector};
use millstream_executor::{Executor, ExecutorOptions};
use millstream_plan::{
    Attempt, Digest, Epoch, EpochPlan, Era, ExecutorId, Generation, SinkId, SourcePlan, SplitRange, TaskId, Watermark,
};
use millstream_protocol::control::{ControlEvent, ControlServer, ExecutorLink, FromExecutor};
use millstream_protocol::messages::{Deployment, Failure, JobSpec, Restore, TaskState, ToDriver, ToExecutor};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

const ROWS: u64 = 9_000;
const SHARDS: u16 = 3;
/// Event time of row `n` is `BASE + n` milliseconds, shuffled inside groups.
const BASE: i64 = 1_700_000_000_000;
/// Attempts of one run, at most.
const ATTEMPTS: u32 = 20;
const PATIENCE: Duration = Duration::from_secs(60);

fn sql(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "SET 'pipeline.name' = 'replay';
         CREATE TABLE events (
           event_type INT, bid ROW<auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, `dateTime` TIMESTAMP(3)>,
           ts AS bid.`dateTime`, WATERMARK FOR ts AS ts - INTERVAL '1' SECOND
         ) WITH ('connector' = 'nexmark', 'number-of-rows' = '{ROWS}', 'event-rate' = '1000', 'base' = '{BASE}',
                 'out-of-order-group' = '40', 'seed' = '7');
         CREATE VIEW bids AS
         SELECT bid.auction, bid.bidder, bid.price, bid.channel, ts FROM events WHERE event_type = 2;
         CREATE TABLE tumbling (start TIMESTAMP(3), auction BIGINT, channel STRING, bids BIGINT, bidders BIGINT, mean DOUBLE)
         WITH ('connector' = 'filesystem', 'path' = '{folder}/tumbling', 'format' = 'json');
         CREATE TABLE hopping (start TIMESTAMP(3), auction BIGINT, bids BIGINT, highest BIGINT)
         WITH ('connector' = 'filesystem', 'path' = '{folder}/hopping', 'format' = 'json');
         CREATE TABLE sessions (bidder BIGINT, start TIMESTAMP(3), finish TIMESTAMP(3), bids BIGINT, spent BIGINT)
         WITH ('connector' = 'filesystem', 'path' = '{folder}/sessions', 'format' = 'json');
         CREATE TABLE large (auction BIGINT, price BIGINT, channel STRING)
         WITH ('connector' = 'filesystem', 'path' = '{folder}/large', 'format' = 'json');
         CREATE TABLE copies (auction BIGINT, bidder BIGINT, ts TIMESTAMP(3))
         WITH ('connector' = 'filesystem', 'path' = '{folder}/copies', 'format' = 'parquet');
         INSERT INTO tumbling SELECT window_start, auction, channel, count(*), count(DISTINCT bidder), avg(price)
         FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL '1' SECOND)) GROUP BY window_start, window_end, auction, channel;
         INSERT INTO hopping SELECT window_start, auction, count(*), max(price)
         FROM TABLE(HOP(TABLE bids, DESCRIPTOR(ts), INTERVAL '500' MILLISECOND, INTERVAL '2' SECOND))
         GROUP BY window_start, window_end, auction;
         INSERT INTO sessions SELECT bidder, window_start, window_end, count(*), sum(price)
         FROM TABLE(SESSION(TABLE bids PARTITION BY bidder, DESCRIPTOR(ts), INTERVAL '300' MILLISECOND))
         GROUP BY bidder, window_start, window_end;
         INSERT INTO large SELECT auction, price, channel FROM bids WHERE price > 1000000;
         INSERT INTO copies SELECT auction, bidder, ts FROM bids WHERE auction % 5 = 0;"
    )
}

/// Says how to run the seed again, if the test fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "replay with: MILLSTREAM_SEED={} cargo test --release -p millstream-executor --test replay",
                self.0
            );
        }
    }
}

/// The seeds to run: one from `MILLSTREAM_SEED`, or those of the test.
fn seeds(default: &[u64]) -> Vec<u64> {
    match std::env::var("MILLSTREAM_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => default.to_vec(),
    }
}

/// The splits of the generator, the same for every layout.
fn shards() -> Vec<SplitState> {
    let pipeline = millstream_sql::plan(&sql(Path::new("/nowhere")), &BTreeMap::new(), SHARDS).unwrap();
    let source = (connector("nexmark").unwrap().source)(pipeline.sources[0].clone()).unwrap();
    source.enumerator().unwrap().discover(&BTreeMap::new(), 0).unwrap().splits
}

/// The logged plans: ranges of uneven size, three tenths of the epochs empty, watermarks that make some rows late.
///
/// The task of a range is that of a layout with one task per shard; see [`for_layout`].
fn plans(seed: u64) -> Vec<EpochPlan> {
    let mut random = StdRng::seed_from_u64(seed);
    let splits = shards();
    let mut at: Vec<u64> = splits.iter().map(|s| s.start).collect();
    let (mut watermark, mut now_ms) = (Watermark::MIN, BASE);
    let mut plans: Vec<EpochPlan> = Vec::new();
    while splits.iter().zip(&at).any(|(split, at)| *at < split.end) {
        now_ms += random.random_range(0..200);
        let empty = random.random_bool(0.3);
        // Rows up to here are in earlier epochs.
        let before = at.iter().min().map_or(0, |at| at * u64::from(SHARDS));
        if before > 0 && random.random_bool(0.7) {
            let newest = BASE + before as i64 - random.random_range(-300..700);
            watermark = watermark.max(Watermark(newest));
        }
        let mut ranges = Vec::new();
        for (index, split) in splits.iter().enumerate() {
            let to = (at[index] + random.random_range(0..220)).min(split.end);
            if !empty && to > at[index] {
                let task = index as u16;
                ranges.push(SplitRange {
                    split: split.split.clone(),
                    task,
                    from: at[index],
                    to,
                    tag: split.tag.clone(),
                });
                at[index] = to;
            }
        }
        let checkpoint = random.random_bool(0.2);
        let flush = checkpoint || random.random_bool(0.2);
        let sources = vec![SourcePlan { source: millstream_plan::SourceId(0), watermark, ranges }];
        let epoch = Epoch(plans.len() as u64 + 1);
        plans.push(EpochPlan { epoch, now_ms, sources, checkpoint, flush, last: false });
    }
    let sources =
        vec![SourcePlan { source: millstream_plan::SourceId(0), watermark: Watermark::MAX, ranges: Vec::new() }];
    let epoch = Epoch(plans.len() as u64 + 1);
    plans.push(EpochPlan { epoch, now_ms, sources, checkpoint: true, flush: true, last: true });
    plans
}

fn for_layout(plans: &[EpochPlan], parallelism: u16) -> Vec<EpochPlan> {
    let mut plans = plans.to_vec();
    for range in plans.iter_mut().flat_map(|p| &mut p.sources).flat_map(|s| &mut s.ranges) {
        range.task %= parallelism;
    }
    plans
}

/// How a run is disturbed.
#[derive(Clone, Copy, Debug)]
struct Disturbance {
    seed: u64,
    /// Dispatch to every executor is delayed at random.
    delays: bool,
    /// Times that everything is dropped and restored.
    rollbacks: u32,
}

/// What a run left.
struct Outcome {
    /// Content of every file, sinks' and dead letters', by its path.
    files: BTreeMap<PathBuf, Vec<u8>>,
    /// Digest of every task's state at every checkpoint.
    digests: BTreeMap<(Epoch, TaskId), Digest>,
}

/// How an attempt ended.
enum End {
    Finished,
    /// By the test, at a random moment.
    Dropped,
    /// A connection did not hold.
    Lost(String),
}

/// One executor of this process, as the driver sees it.
struct Peer {
    id: ExecutorId,
    link: Arc<dyn ExecutorLink>,
    shuffle: String,
    serving: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

async fn start(executors: u16, folder: &Path) -> (Vec<Peer>, mpsc::Receiver<FromExecutor>) {
    let (server, mut events) = ControlServer::new(4096);
    let mut peers = Vec::new();
    for n in 0..executors {
        let id = ExecutorId(format!("e{n}"));
        let executor = Executor::bind(ExecutorOptions {
            id: id.clone(),
            slots: 2,
            state_dir: folder.join(format!("state-{n}")),
            listen: "127.0.0.1:0".to_owned(),
            advertise: None,
        });
        let executor = executor.await.unwrap();
        let (driver, inbox) = server.local(executor.hello());
        let (stop, stopped) = watch::channel(false);
        let runtime = tokio::runtime::Handle::current();
        let serving = tokio::task::spawn_blocking(move || {
            runtime.block_on(executor.serve(driver, inbox, stopped));
        });
        // The others may say something meanwhile.
        let (link, shuffle) = loop {
            if let (_, ControlEvent::Joined(hello, link)) = events.recv().await.unwrap() {
                break (link, hello.shuffle);
            }
        };
        peers.push(Peer { id, link, shuffle, serving, stop });
    }
    (peers, events)
}

/// A pipeline and the driver's knowledge of it.
struct Run<'a> {
    plans: &'a [EpochPlan],
    tasks: BTreeSet<TaskId>,
    sinks: BTreeSet<(SinkId, TaskId)>,
    template: Deployment,
    disturbance: Disturbance,
    digests: BTreeMap<(Epoch, TaskId), Digest>,
    /// The last complete checkpoint.
    restore: Option<Restore>,
}

/// Runs all plans and gathers what comes of them.
async fn run(plans: &[EpochPlan], parallelism: u16, executors: u16, disturbance: Disturbance) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    std::fs::create_dir_all(&out).unwrap();
    let location = folder.path().join("checkpoints");
    let conf = BTreeMap::from([
        ("checkpointLocation".to_owned(), location.display().to_string()),
        ("dead-letter.location".to_owned(), out.join("dead-letters").display().to_string()),
    ]);
    let job = JobSpec { sql: sql(&out), conf };
    let pipeline = millstream_sql::plan(&job.sql, &job.conf, parallelism).unwrap();
    let plans = for_layout(plans, parallelism);
    let indexes = || 0..parallelism;
    let stages = pipeline.graph.stages.iter().map(|s| s.id);
    let tasks = stages.flat_map(|stage| indexes().map(move |index| TaskId { stage, index })).collect();
    let sinks = pipeline.graph.sinks();
    let sinks = sinks.flat_map(|(node, sink)| {
        let (stage, sink) = (node.stage, sink.sink);
        indexes().map(move |index| (sink, TaskId { stage, index })).collect::<Vec<_>>()
    });
    let mut run = Run {
        plans: &plans,
        tasks,
        sinks: sinks.collect(),
        template: Deployment {
            era: Era { generation: Generation(1), attempt: Attempt(0) },
            job,
            fingerprint: pipeline.graph.fingerprint,
            parallelism,
            placement: BTreeMap::new(),
            peers: BTreeMap::new(),
            restore: None,
        },
        disturbance,
        digests: BTreeMap::new(),
        restore: None,
    };
    let (peers, mut events) = start(executors, folder.path()).await;
    let mut random = StdRng::seed_from_u64(disturbance.seed);
    let mut drops = disturbance.rollbacks;
    for attempt in 1.. {
        match run.attempt(Attempt(attempt), &peers, &mut events, &mut random, drops).await {
            End::Finished => break,
            End::Dropped => drops -= 1,
            // A busy machine: the driver would try again, too.
            End::Lost(reason) => assert!(attempt < ATTEMPTS, "attempt {attempt} failed as well: {reason}"),
        }
    }
    for peer in peers {
        peer.stop.send_replace(true);
        // The executor's last words need a listener.
        while !peer.serving.is_finished() {
            let _ = tokio::time::timeout(Duration::from_millis(5), events.recv()).await;
        }
        peer.serving.await.unwrap();
    }
    let mut files = BTreeMap::new();
    gather(&out, &out, &mut files);
    Outcome { files, digests: run.digests }
}

impl Run<'_> {
    /// One deployment: to the end, or until it is dropped at a random moment.
    async fn attempt(
        &mut self,
        attempt: Attempt,
        peers: &[Peer],
        events: &mut mpsc::Receiver<FromExecutor>,
        random: &mut StdRng,
        drops: u32,
    ) -> End {
        let era = Era { attempt, ..self.template.era };
        let mut order: Vec<&Peer> = peers.iter().collect();
        order.shuffle(random);
        let deployment = Deployment {
            era,
            placement: self
                .tasks
                .iter()
                .zip(order.iter().cycle())
                .map(|(task, peer)| (*task, peer.id.clone()))
                .collect(),
            peers: peers.iter().map(|p| (p.id.clone(), p.shuffle.clone())).collect(),
            restore: self.restore.clone(),
            ..self.template.clone()
        };
        for peer in peers {
            peer.link.send(ToExecutor::Deploy(Box::new(deployment.clone()))).unwrap();
        }
        let mut ready = 0;
        while ready < peers.len() {
            match next(events, era, "Ready").await {
                ToDriver::Ready { era: of } if of == era => ready += 1,
                ToDriver::Failed { era: of, failure, .. } if of == era => return lost(failure),
                _ => {}
            }
        }
        let from = self.restore.as_ref().map_or(0, |r| r.epoch.0 as usize);
        let dispatchers: Vec<JoinHandle<()>> =
            peers.iter().map(|peer| self.dispatch(peer, era, from, random)).collect();
        // Tasks done in this attempt until it is dropped.
        let all = (self.plans.len() - from) * self.tasks.len();
        let until = if drops == 0 { usize::MAX } else { random.random_range(0..all) };
        // The first is dropped at any moment; later ones not before there is a checkpoint to restore.
        let restorable = drops < self.disturbance.rollbacks;
        let end = self.listen(era, peers, events, until, restorable).await;
        dispatchers.iter().for_each(JoinHandle::abort);
        end
    }

    /// Sends the plans after `from` to one executor.
    fn dispatch(&self, peer: &Peer, era: Era, from: usize, random: &mut StdRng) -> JoinHandle<()> {
        let delays: Vec<Duration> = self.plans[from..]
            .iter()
            .map(|_| match self.disturbance.delays && random.random_bool(0.5) {
                true => Duration::from_micros(random.random_range(0..12_000)),
                false => Duration::ZERO,
            })
            .collect();
        let (link, plans) = (Arc::clone(&peer.link), self.plans[from..].to_vec());
        tokio::spawn(async move {
            for (plan, delay) in plans.into_iter().zip(delays) {
                if !delay.is_zero() {
                    tokio::time::sleep(delay).await;
                }
                let epoch = plan.epoch;
                link.send(ToExecutor::Run { era, plan }).unwrap();
                link.send(ToExecutor::Durable { era, epoch }).unwrap();
            }
        })
    }

    /// Takes reports until so many tasks are done and, if it must be `restorable`, a checkpoint is complete; or until the last epoch is
    /// done, published and in its checkpoint.
    async fn listen(
        &mut self,
        era: Era,
        peers: &[Peer],
        events: &mut mpsc::Receiver<FromExecutor>,
        until: usize,
        restorable: bool,
    ) -> End {
        let last = self.plans.last().unwrap().epoch;
        let mut done = 0;
        let mut states: BTreeMap<Epoch, BTreeMap<TaskId, TaskState>> = BTreeMap::new();
        let mut published = BTreeSet::new();
        while done < until || (restorable && self.restore.is_none()) {
            let what = format!(
                "{done} of {until} tasks done, restore {:?}, {} published",
                self.restore.as_ref().map(|r| r.epoch),
                published.len()
            );
            match next(events, era, &what).await {
                ToDriver::TaskDone(report) if report.era == era => done += 1,
                ToDriver::Published { era: of, sink, task, epoch, .. } if of == era && epoch == last => {
                    published.insert((sink, task));
                }
                ToDriver::Uploaded { era: of, task, epoch, state } if of == era => {
                    let before = self.digests.insert((epoch, task), state.digest);
                    assert!(
                        before.is_none_or(|before| before == state.digest),
                        "task {task} has another state after epoch {epoch} than before it was dropped"
                    );
                    let states = states.entry(epoch).or_default();
                    states.insert(task, state);
                    if states.len() == self.tasks.len() {
                        self.restore = Some(Restore { epoch, tasks: std::mem::take(states) });
                        for peer in peers {
                            peer.link.send(ToExecutor::Checkpointed { era, epoch }).unwrap();
                        }
                    }
                }
                ToDriver::Failed { era: of, failure, .. } if of == era => return lost(failure),
                _ => {}
            }
            if published == self.sinks && self.restore.as_ref().is_some_and(|r| r.epoch == last) {
                return End::Finished;
            }
        }
        End::Dropped
    }
}

fn lost(failure: Failure) -> End {
    match failure {
        Failure::Retry(reason) => End::Lost(reason),
        Failure::User(reason) | Failure::Fatal(reason) => panic!("an attempt failed for good: {reason}"),
    }
}

async fn next(events: &mut mpsc::Receiver<FromExecutor>, era: Era, waits: &str) -> ToDriver {
    let silence = tokio::time::sleep(PATIENCE);
    tokio::pin!(silence);
    loop {
        let event = tokio::select! {
            event = events.recv() => event.unwrap(),
            () = &mut silence => panic!("era {era}: the executors do nothing ({waits})"),
        };
        match event {
            (_, ControlEvent::Message(ToDriver::Heartbeat { .. })) => {}
            (_, ControlEvent::Message(message)) => return message,
            (id, ControlEvent::Left { reason }) => panic!("executor {id} left: {reason}"),
            (id, ControlEvent::Joined(..)) => panic!("executor {id} joined again"),
        }
    }
}

fn gather(root: &Path, folder: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            gather(root, &path, files);
        } else {
            files.insert(path.strip_prefix(root).unwrap().to_owned(), std::fs::read(&path).unwrap());
        }
    }
}

fn assert_same(what: &str, expected: &Outcome, actual: &Outcome) {
    let names = |outcome: &Outcome| outcome.files.keys().cloned().collect::<BTreeSet<_>>();
    let (here, there) = (names(expected), names(actual));
    let (missing, surplus) = (here.difference(&there).collect::<Vec<_>>(), there.difference(&here).collect::<Vec<_>>());
    assert!(missing.is_empty() && surplus.is_empty(), "{what}: missing {missing:?}, too many {surplus:?}");
    for (path, content) in &expected.files {
        assert!(actual.files[path] == *content, "{what}: {} has other bytes", path.display());
    }
    let differing: Vec<_> = expected
        .digests
        .iter()
        .filter(|(at, digest)| actual.digests.get(at) != Some(digest))
        .map(|(at, _)| at)
        .collect();
    assert!(differing.is_empty(), "{what}: other state after (epoch, task) {differing:?}");
    assert_eq!(expected.digests.len(), actual.digests.len(), "{what}: checkpoints");
}

/// The rows of all JSON files of every folder, in order.
fn rows(outcome: &Outcome) -> BTreeMap<PathBuf, Vec<String>> {
    let mut rows: BTreeMap<PathBuf, Vec<String>> = BTreeMap::new();
    for (path, content) in &outcome.files {
        let text = match path.extension().and_then(|e| e.to_str()) {
            Some("json" | "jsonl") => std::str::from_utf8(content).unwrap(),
            _ => continue,
        };
        rows.entry(path.parent().unwrap().to_owned()).or_default().extend(text.lines().map(str::to_owned));
    }
    rows.values_mut().for_each(|rows| rows.sort());
    rows
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap()
}

const CALM: Disturbance = Disturbance { seed: 0, delays: false, rollbacks: 0 };

#[test]
fn logged_plans_give_the_same_bytes_and_states_on_any_executors() {
    for seed in seeds(&[1, 2]) {
        let _told = Seed(seed);
        let plans = plans(seed);
        runtime().block_on(async {
            let expected = run(&plans, 3, 1, CALM).await;
            let all = rows(&expected);
            for table in ["tumbling", "hopping", "sessions", "large", "dead-letters/events"] {
                let rows = all.get(Path::new(table)).map_or(0, Vec::len);
                assert!(rows > 10, "only {rows} rows in {table}");
            }
            assert!(expected.digests.values().collect::<Vec<_>>().len() > 20, "hardly any checkpoint");
            for executors in 1..=3 {
                let disturbance = Disturbance { seed: seed * 100 + u64::from(executors), delays: true, rollbacks: 2 };
                let actual = run(&plans, 3, executors, disturbance).await;
                assert_same(&format!("seed {seed}, {executors} executors, {disturbance:?}"), &expected, &actual);
            }
        });
    }
}

#[test]
fn other_layouts_give_the_same_rows() {
    for seed in seeds(&[3]) {
        let _told = Seed(seed);
        let plans = plans(seed);
        runtime().block_on(async {
            let expected = rows(&run(&plans, 1, 1, CALM).await);
            for parallelism in [2, 3] {
                let disturbance = Disturbance { seed: seed * 100, delays: true, rollbacks: 1 };
                let actual = rows(&run(&plans, parallelism, 2, disturbance).await);
                assert!(
                    expected == actual,
                    "other rows with {parallelism} tasks per stage: {}",
                    first_difference(&expected, &actual)
                );
            }
        });
    }
}

fn first_difference(expected: &BTreeMap<PathBuf, Vec<String>>, actual: &BTreeMap<PathBuf, Vec<String>>) -> String {
    let differs = |table: &&PathBuf| expected.get(*table) != actual.get(*table);
    let Some(table) = expected.keys().chain(actual.keys()).find(differs) else { return String::new() };
    let none = Vec::new();
    let (here, there) = (expected.get(table).unwrap_or(&none), actual.get(table).unwrap_or(&none));
    let row = here.iter().zip(there).find(|(a, b)| a != b);
    format!("{} has {} rows instead of {}; first: {row:?}", table.display(), there.len(), here.len())
}
