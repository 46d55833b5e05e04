//! One task: the operators of a stage, wired as the graph says.
//!
//! Pure: whoever owns a task feeds it batches in a deterministic order ((edge, sender task, sequence) for shuffled input, plan order for
//! sources) and takes what leaves it through [`Emit`]. Between epochs a task holds nothing but its operators' state.
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, UInt32Array};
use arrow::compute::take;
use arrow::record_batch::RecordBatch;
use millstream_plan::{EpochPlan, OperatorId, SinkId, StageId, owner_of};

use crate::cold::ColdState;
use crate::graph::{Exchange, Graph, Input, Node, NodeKind};
use crate::hash::{hash_rows, key_group};
use crate::operators::{EpochContext, Footprint, Operator, StateChange, StateReport, Step, operator};
use crate::{DataflowError, DeltaBatch, now};

/// Where batches go that leave a task.
pub trait Emit {
    /// To task `to` of the stage that holds `reader`, whose input `input` it becomes.
    ///
    /// # Errors
    /// Whatever the owner cannot take.
    fn shuffle(&mut self, edge: Edge, to: u16, batch: DeltaBatch) -> Result<(), DataflowError>;

    /// Into a sink of this task.
    ///
    /// # Errors
    /// Whatever the owner cannot take.
    fn sink(&mut self, sink: SinkId, batch: DeltaBatch) -> Result<(), DataflowError>;
}

/// A shuffled edge of the graph: input `input` of node `reader`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Edge {
    pub reader: OperatorId,
    pub input: u16,
}

/// A shuffled edge with the stages at its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShuffleEdge {
    pub edge: Edge,
    pub from: StageId,
    pub to: StageId,
}

/// All shuffled edges, in the order in which a task takes its input: broadcasts first (what is looked up is known before the rows that look it
/// up), then by reader and input.
#[must_use]
pub fn shuffle_edges(graph: &Graph) -> Vec<ShuffleEdge> {
    let inputs = graph.nodes.iter().flat_map(|n| n.inputs.iter().enumerate().map(move |(i, input)| (n, i, input)));
    let mut shuffled: Vec<_> = inputs.filter(|(_, _, input)| input.exchange != Exchange::Forward).collect();
    shuffled.sort_by_key(|(_, _, input)| input.exchange != Exchange::Broadcast);
    let edge = |(n, i, input): (&Node, usize, &Input)| ShuffleEdge {
        edge: Edge { reader: n.id, input: i as u16 },
        from: graph.node(input.from).stage,
        to: n.stage,
    };
    shuffled.into_iter().map(edge).collect()
}

/// The operators of one task.
pub struct Task {
    graph: Arc<Graph>,
    stage: StageId,
    parallelism: u16,
    /// By node id; `None` for nodes of other stages, sources and sinks.
    operators: Vec<Option<Box<dyn Operator>>>,
}

impl Task {
    /// A task of `stage` with empty state.
    ///
    /// # Errors
    /// A graph that contradicts itself.
    pub fn new(graph: Arc<Graph>, stage: StageId, parallelism: u16) -> Result<Self, DataflowError> {
        let operators = graph
            .nodes
            .iter()
            .map(|n| if n.stage == stage { operator(n) } else { Ok(None) })
            .collect::<Result<_, _>>()?;
        Ok(Self { graph, stage, parallelism, operators })
    }

    /// Tells where the task's sealed state can be read, before anything is restored. Of that, each operator keeps about `keep` bytes in memory.
    pub fn attach(&mut self, cold: &Arc<dyn ColdState>, keep: u64) {
        self.operators.iter_mut().flatten().for_each(|operator| operator.attach(cold.clone(), keep));
    }

    /// What the state of all operators takes in memory.
    #[must_use]
    pub fn footprint(&self) -> Footprint {
        self.operators.iter().flatten().map(|o| o.footprint()).fold(Footprint::default(), |sum, own| Footprint {
            resident: sum.resident + own.resident,
            unsealed: sum.unsealed + own.unsealed,
        })
    }

    /// Lets go of sealed state until about `keep` bytes are in memory, between epochs. Each operator gives in proportion to what it holds.
    ///
    /// # Errors
    /// See [`Operator::shrink`].
    pub fn shrink(&mut self, keep: u64) -> Result<(), DataflowError> {
        let share = keep as f64 / self.footprint().resident.max(1) as f64;
        for operator in self.operators.iter_mut().flatten().filter(|_| share < 1.0) {
            operator.shrink((operator.footprint().resident as f64 * share) as u64)?;
        }
        Ok(())
    }

    /// Takes one state entry of the last checkpoint; see [`Operator::restore`].
    ///
    /// # Errors
    /// `Corrupt` if no operator of this task takes it.
    pub fn restore(&mut self, id: OperatorId, key: &[u8], value: &[u8]) -> Result<(), DataflowError> {
        match self.operators.get_mut(usize::from(id.0)) {
            Some(Some(operator)) => operator.restore(key, value),
            _ => Err(DataflowError::Corrupt(format!("state of operator {id}, which is not in stage {}", self.stage))),
        }
    }

    /// Sets the plan's time on this thread. Call before feeding an epoch.
    pub fn begin_epoch(&self, plan: &EpochPlan) {
        now::set(plan.now_ms);
    }

    /// Output of source node `source` (which is in this stage).
    ///
    /// # Errors
    /// See [`Operator::process`].
    pub fn source(
        &mut self,
        source: OperatorId,
        batch: DeltaBatch,
        plan: &EpochPlan,
        emit: &mut dyn Emit,
    ) -> Result<(), DataflowError> {
        self.forward(source, batch, &EpochContext { plan }, emit)
    }

    /// Input that came over a shuffled edge.
    ///
    /// # Errors
    /// See [`Operator::process`].
    pub fn input(
        &mut self,
        edge: Edge,
        batch: DeltaBatch,
        plan: &EpochPlan,
        emit: &mut dyn Emit,
    ) -> Result<(), DataflowError> {
        self.deliver(edge.reader, usize::from(edge.input), batch, &EpochContext { plan }, emit)
    }

    /// Ends the epoch: every operator in topological order emits what the epoch still has.
    ///
    /// # Errors
    /// See [`Operator::end_epoch`].
    pub fn end_epoch(&mut self, plan: &EpochPlan, emit: &mut dyn Emit) -> Result<(), DataflowError> {
        let cx = EpochContext { plan };
        for at in 0..self.operators.len() {
            let id = OperatorId(at as u16);
            let mut first = true;
            while let Some(operator) = &mut self.operators[at] {
                let mut out = Vec::new();
                let step = if first { operator.end_epoch(&cx, &mut out)? } else { operator.resume(&cx, &mut out)? };
                first = false;
                for batch in out {
                    self.forward(id, batch, &cx, emit)?;
                }
                if step == Step::Done {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Seals the state of all operators at a checkpoint epoch, after [`end_epoch`](Self::end_epoch).
    ///
    /// # Errors
    /// See [`Operator::seal`].
    pub fn seal(&mut self) -> Result<Vec<(OperatorId, Vec<StateChange>)>, DataflowError> {
        let mut sealed = Vec::new();
        for (at, operator) in self.operators.iter_mut().enumerate() {
            if let Some(operator) = operator {
                let changes = operator.seal()?;
                if !changes.is_empty() {
                    sealed.push((OperatorId(at as u16), changes));
                }
            }
        }
        Ok(sealed)
    }

    /// State sizes and timers of all operators. Timers are moments of the clock that the operator's time domain follows.
    pub fn reports(&self) -> impl Iterator<Item = (OperatorId, StateReport)> {
        let operators = self.operators.iter().enumerate();
        operators.filter_map(|(at, o)| {
            let mut report = o.as_ref()?.report();
            let domain = match &self.graph.nodes[at].kind {
                NodeKind::WindowAggregate(spec) => Some(&spec.domain),
                NodeKind::Join(spec) => spec.bound.as_ref(),
                NodeKind::Rank(spec) => spec.rows.close.as_ref().map(|c| &c.domain),
                NodeKind::Over(spec) => spec.close.as_ref(),
                NodeKind::RowPattern(spec) => Some(&spec.domain),
                _ => None,
            };
            let behind = domain.map_or(0, |d| d.clock().1);
            report.next_timer = report.next_timer.map(|t| t.saturating_add(behind));
            Some((OperatorId(at as u16), report))
        })
    }

    /// Time of the plan at which an operator has something to do, beside its timer; see [`Operator::next_wake`].
    #[must_use]
    pub fn next_wake(&self, id: OperatorId) -> Option<i64> {
        self.operators.get(usize::from(id.0))?.as_ref()?.next_wake()
    }

    /// See [`Operator::dropped`].
    #[must_use]
    pub fn dropped(&self, id: OperatorId) -> u64 {
        self.operators.get(usize::from(id.0)).and_then(Option::as_ref).map_or(0, |o| o.dropped())
    }

    fn deliver(
        &mut self,
        to: OperatorId,
        input: usize,
        batch: DeltaBatch,
        cx: &EpochContext<'_>,
        emit: &mut dyn Emit,
    ) -> Result<(), DataflowError> {
        if let NodeKind::Sink(sink) = &self.graph.node(to).kind {
            return emit.sink(sink.sink, batch);
        }
        let at = usize::from(to.0);
        let missing = || DataflowError::Corrupt(format!("operator {to} is not in stage {}", self.stage));
        let operator = self.operators.get_mut(at).and_then(Option::as_mut).ok_or_else(missing)?;
        let mut out = Vec::new();
        let mut step = operator.process(input, batch, cx, &mut out)?;
        loop {
            for batch in out.drain(..) {
                self.forward(to, batch, cx, emit)?;
            }
            match (step, &mut self.operators[at]) {
                (Step::More, Some(operator)) => step = operator.resume(cx, &mut out)?,
                _ => return Ok(()),
            }
        }
    }

    /// Hands a node's output to all of its readers.
    fn forward(
        &mut self,
        from: OperatorId,
        batch: DeltaBatch,
        cx: &EpochContext<'_>,
        emit: &mut dyn Emit,
    ) -> Result<(), DataflowError> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let graph = self.graph.clone();
        let mut readers = graph.readers(from).peekable();
        let mut batch = Some(batch);
        while let Some((reader, input)) = readers.next() {
            let next = if readers.peek().is_some() { batch.clone() } else { batch.take() };
            let Some(next) = next else { break };
            match &reader.inputs[input].exchange {
                Exchange::Forward => self.deliver(reader.id, input, next, cx, emit)?,
                Exchange::Hash { columns } => {
                    let edge = Edge { reader: reader.id, input: input as u16 };
                    for (to, part) in partition(next, columns, self.parallelism)? {
                        emit.shuffle(edge, to, part)?;
                    }
                }
                Exchange::Broadcast => {
                    let edge = Edge { reader: reader.id, input: input as u16 };
                    for to in 0..self.parallelism {
                        emit.shuffle(edge, to, next.clone())?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Splits a batch by the owner of each row's key group; rows keep their order, empty parts are left out.
fn partition(batch: DeltaBatch, columns: &[usize], parallelism: u16) -> Result<Vec<(u16, DeltaBatch)>, DataflowError> {
    let rows = batch.num_rows();
    if parallelism == 1 {
        return Ok(vec![(0, batch)]);
    }
    let keys: Vec<ArrayRef> = columns.iter().map(|c| batch.rows.column(*c).clone()).collect();
    let hashes = hash_rows(&keys, rows)?;
    let mut indices: Vec<Vec<u32>> = vec![Vec::new(); usize::from(parallelism)];
    for (row, hash) in hashes.iter().enumerate() {
        indices[usize::from(owner_of(key_group(*hash), parallelism))].push(row as u32);
    }
    let mut parts = Vec::with_capacity(indices.len());
    for (to, indices) in indices.into_iter().enumerate().filter(|(_, i)| !i.is_empty()) {
        if indices.len() == rows {
            return Ok(vec![(to as u16, batch)]);
        }
        let indices = UInt32Array::from(indices);
        let columns = batch.rows.columns().iter().map(|c| take(c, &indices, None)).collect::<Result<Vec<_>, _>>()?;
        let weights = match &batch.weights {
            Some(w) => Some(take(w, &indices, None)?.as_primitive().clone()),
            None => None,
        };
        parts.push((to as u16, DeltaBatch { rows: RecordBatch::try_new(batch.rows.schema(), columns)?, weights }));
    }
    Ok(parts)
}
