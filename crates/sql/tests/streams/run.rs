//! A graph at work: `parallelism` tasks per stage, epoch after epoch, as an executor runs them.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use millstream_dataflow::graph::Graph;
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
    sealed: BTreeMap<(StageId, u16), Sealed>,
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
        let mut run = Self { graph, parallelism, order, edges, tasks: BTreeMap::new(), sealed: BTreeMap::new() };
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
        Ok(sunk)
    }

    fn seal(&mut self) -> Result<(), DataflowError> {
        for (id, task) in &mut self.tasks {
            let sealed = self.sealed.entry(*id).or_default();
            for (operator, changes) in task.seal()? {
                let keys: BTreeSet<&[u8]> = changes.iter().map(|c| c.key.as_slice()).collect();
                assert_eq!(keys.len(), changes.len(), "operator {operator} seals a key twice");
                for change in changes {
                    match change.value {
                        Some(value) => sealed.insert((operator, change.key), value),
                        None => sealed.remove(&(operator, change.key)),
                    };
                }
            }
        }
        Ok(())
    }

    /// The entries of all tasks.
    pub fn sealed(&self) -> impl Iterator<Item = (&(OperatorId, Vec<u8>), &Vec<u8>)> {
        self.sealed.values().flatten()
    }

    /// Drops all tasks and makes them again from what they have sealed.
    pub fn restore(&mut self) -> Result<(), DataflowError> {
        for stage in &self.order {
            for at in 0..self.parallelism {
                let mut task = Task::new(self.graph.clone(), *stage, self.parallelism)?;
                for ((operator, key), value) in self.sealed.get(&(*stage, at)).into_iter().flatten() {
                    task.restore(*operator, key, value)?;
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
