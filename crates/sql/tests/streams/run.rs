//! A graph at work: `parallelism` tasks per stage, epoch after epoch, as an executor runs them.
//!
//! Every task has a store that takes in what it seals, at once or one checkpoint later, and every other epoch each task lets go of all state that it can
//! read there again: no result may depend on that.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use millstream_dataflow::cold::{ColdState, Entries};
use millstream_dataflow::graph::Graph;
use millstream_dataflow::operators::StateChange;
use millstream_dataflow::task::{Edge, Emit, ShuffleEdge, Task, shuffle_edges};
use millstream_dataflow::{DataflowError, DeltaBatch};
use millstream_plan::{EpochPlan, OperatorId, SinkId, StageId};

/// State of one task as its checkpoints hold it.
type Sealed = BTreeMap<(OperatorId, Vec<u8>), Vec<u8>>;

/// Batches on a shuffled edge, by edge, receiver and sender.
type Shuffled = BTreeMap<(Edge, u16, u16), Vec<DeltaBatch>>;

/// All tasks of a pipeline.
pub struct Run {
    graph: Arc<Graph>,
    parallelism: u16,
    /// In an order in which each stage comes after those it reads.
    order: Vec<StageId>,
    edges: Vec<ShuffleEdge>,
    tasks: BTreeMap<(StageId, u16), Task>,
    stores: BTreeMap<(StageId, u16), Arc<Store>>,
    /// How often all tasks were made.
    made: usize,
}

/// What a task has sealed.
#[derive(Default)]
struct Store(Mutex<Stored>);

#[derive(Default)]
struct Stored {
    entries: Sealed,
    seals: u64,
    /// Sealed and not yet written.
    queued: Vec<Vec<(OperatorId, Vec<StateChange>)>>,
}

impl Store {
    /// Takes in a seal; the last `late` ones are not to be read yet.
    fn seal(&self, changes: Vec<(OperatorId, Vec<StateChange>)>, late: usize) {
        let stored = &mut *self.0.lock().unwrap();
        stored.queued.push(changes);
        while stored.queued.len() > late {
            for (operator, changes) in stored.queued.remove(0) {
                for change in changes {
                    match change.value {
                        Some(value) => stored.entries.insert((operator, change.key), value),
                        None => stored.entries.remove(&(operator, change.key)),
                    };
                }
            }
            stored.seals += 1;
        }
    }

    /// Everything that was sealed, for a task that starts again.
    fn restart(&self) -> Sealed {
        self.seal(Vec::new(), 0);
        let stored = &mut *self.0.lock().unwrap();
        stored.seals = 0;
        stored.entries.clone()
    }
}

impl ColdState for Store {
    fn stored_seals(&self) -> u64 {
        self.0.lock().unwrap().seals
    }

    fn get(&self, operator: OperatorId, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, DataflowError> {
        assert!(keys.is_sorted(), "keys are asked for in order");
        let stored = self.0.lock().unwrap();
        Ok(keys.iter().map(|key| stored.entries.get(&(operator, key.clone())).cloned()).collect())
    }

    fn scan(&self, operator: OperatorId, prefix: &[u8]) -> Result<Entries, DataflowError> {
        let stored = self.0.lock().unwrap();
        let from = stored.entries.range((operator, prefix.to_vec())..);
        let found = from.take_while(|((o, key), _)| *o == operator && key.starts_with(prefix));
        Ok(found.map(|((_, key), value)| (key.clone(), value.clone())).collect())
    }
}

struct Outgoing<'a> {
    from: u16,
    shuffled: &'a mut Shuffled,
    sunk: &'a mut Vec<DeltaBatch>,
}

impl Emit for Outgoing<'_> {
    fn shuffle(&mut self, edge: Edge, to: u16, batch: DeltaBatch) -> Result<(), DataflowError> {
        self.shuffled.entry((edge, to, self.from)).or_default().push(batch);
        Ok(())
    }

    fn sink(&mut self, _: SinkId, batch: DeltaBatch) -> Result<(), DataflowError> {
        self.sunk.push(batch);
        Ok(())
    }
}

impl Run {
    pub fn new(graph: Arc<Graph>, parallelism: u16) -> Self {
        let edges = shuffle_edges(&graph);
        let order = stage_order(&graph, &edges);
        let mut run =
            Self { graph, parallelism, order, edges, tasks: BTreeMap::new(), stores: BTreeMap::new(), made: 0 };
        run.restore().unwrap();
        run
    }

    /// Runs one epoch; `input` gives the batches of a source node in a task. Returns what reached the sink, in order.
    pub fn epoch(
        &mut self,
        plan: &EpochPlan,
        input: &dyn Fn(OperatorId, u16) -> Vec<DeltaBatch>,
    ) -> Result<Vec<DeltaBatch>, DataflowError> {
        let mut shuffled = Shuffled::new();
        let mut sunk = Vec::new();
        for stage in &self.order {
            for at in 0..self.parallelism {
                let task = self.tasks.get_mut(&(*stage, at)).unwrap();
                // What comes in is complete: every sender's stage has run.
                let mut coming = Vec::new();
                for edge in self.edges.iter().filter(|e| e.to == *stage) {
                    for sender in 0..self.parallelism {
                        let batches = shuffled.remove(&(edge.edge, at, sender)).unwrap_or_default();
                        coming.extend(batches.into_iter().map(|b| (edge.edge, b)));
                    }
                }
                let mut emit = Outgoing { from: at, shuffled: &mut shuffled, sunk: &mut sunk };
                task.begin_epoch(plan);
                for (node, _) in self.graph.sources().filter(|(n, _)| n.stage == *stage) {
                    for batch in input(node.id, at) {
                        task.source(node.id, batch, plan, &mut emit)?;
                    }
                }
                for (edge, batch) in coming {
                    task.input(edge, batch, plan, &mut emit)?;
                }
                task.end_epoch(plan, &mut emit)?;
            }
        }
        assert!(shuffled.is_empty(), "batches went over edges that nobody reads");
        if plan.checkpoint {
            self.seal()?;
        }
        if plan.epoch.0 % 2 == 1 {
            self.tasks.values_mut().try_for_each(|task| task.shrink(0))?;
        }
        Ok(sunk)
    }

    fn seal(&mut self) -> Result<(), DataflowError> {
        for (id, task) in &mut self.tasks {
            let changes = task.seal()?;
            for (operator, changes) in &changes {
                let keys: BTreeSet<&[u8]> = changes.iter().map(|c| c.key.as_slice()).collect();
                assert_eq!(keys.len(), changes.len(), "operator {operator} seals a key twice");
            }
            self.stores[id].seal(changes, usize::from(id.1) % 2);
        }
        Ok(())
    }

    /// Drops all tasks and makes them again from what they have sealed.
    pub fn restore(&mut self) -> Result<(), DataflowError> {
        let keep = if self.made % 2 == 1 { 0 } else { u64::MAX };
        self.made += 1;
        for stage in &self.order {
            for at in 0..self.parallelism {
                let mut task = Task::new(self.graph.clone(), *stage, self.parallelism)?;
                let store = self.stores.entry((*stage, at)).or_default().clone();
                let entries = store.restart();
                let cold: Arc<dyn ColdState> = store;
                task.attach(&cold, keep);
                for ((operator, key), value) in entries {
                    task.restore(operator, &key, &value)?;
                }
                self.tasks.insert((*stage, at), task);
            }
        }
        Ok(())
    }
}

fn stage_order(graph: &Graph, edges: &[ShuffleEdge]) -> Vec<StageId> {
    let mut order: Vec<StageId> = Vec::new();
    while order.len() < graph.stages.len() {
        let ready = |id: StageId| edges.iter().all(|e| e.to != id || order.contains(&e.from));
        let next = graph.stages.iter().map(|s| s.id).find(|id| !order.contains(id) && ready(*id));
        order.push(next.unwrap_or_else(|| panic!("stages wait for each other: {edges:?}")));
    }
    order
}
