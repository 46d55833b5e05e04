//! A task at work: feeds the dataflow's task with the input of one epoch after the other, in the order that the plan gives.
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use arrow::record_batch::RecordBatch;
use metrics::{counter, histogram};
use millstream_connectors::{ConnectorError, DeadLetterEncoder, EncodedEpoch, SinkEncoder};
use millstream_dataflow::task::{Edge, Emit, Task};
use millstream_dataflow::{DataflowError, DeltaBatch};
use millstream_plan::{Epoch, EpochPlan, Era, OperatorId, SinkId, SourceId, TaskId};
use millstream_protocol::control::DriverLink;
use millstream_protocol::messages::{OperatorReport, TaskDone, ToDriver};
use millstream_protocol::shuffle::{EdgeEnd, Frame, Rows};
use tokio::sync::mpsc;
use tracing::trace;

use crate::ExecutorError;
use crate::checkpoint::Sealed;
use crate::exchange::Exchange;
use crate::memory::Share;
use crate::publisher::ToPublisher;
use crate::source::{Read, SourceInput};

/// Rows of one frame, in bytes of memory, unless a single batch is larger.
const FRAME_BYTES: u64 = 32 << 20;

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    Worked,
    /// A source has nothing yet: ask again soon.
    Pending,
    /// Nothing to do until a message comes.
    Idle,
}

/// One way out into a sink.
pub(crate) struct SinkOutput {
    pub sink: SinkId,
    pub encoder: Box<dyn SinkEncoder>,
    pub queue: std::sync::mpsc::Sender<ToPublisher>,
}

/// Dead letters of one source table.
pub(crate) struct DeadLetterOutput {
    pub source: SourceId,
    pub encoder: DeadLetterEncoder,
}

/// A task and its surroundings.
pub(crate) struct RunningTask {
    pub(crate) id: TaskId,
    pub(crate) task: Task,
    pub(crate) sources: Vec<SourceInput>,
    /// Edges into this task: number, and which input they are.
    pub(crate) inputs: Vec<(u32, Edge)>,
    /// Edges out of this task.
    pub(crate) outputs: Vec<u32>,
    pub(crate) out: Outgoing,
    pub(crate) dead_letters: Vec<DeadLetterOutput>,
    /// `None`: dead letters are counted and dropped (no place for them).
    pub(crate) dead_queue: Option<std::sync::mpsc::Sender<ToPublisher>>,
    pub(crate) checkpoint: mpsc::UnboundedSender<Sealed>,
    pub(crate) memory: Share,
    pub(crate) exchange: Arc<Exchange>,
    pub(crate) driver: Arc<DriverLink>,
    pub(crate) plans: VecDeque<Arc<EpochPlan>>,
    pub(crate) current: Option<Current>,
    pub(crate) arrived: BTreeMap<(Epoch, u32, u16), Arrived>,
}

/// Where the epoch at hand stands.
pub(crate) struct Current {
    plan: Arc<EpochPlan>,
    phase: Phase,
    busy_micros: u64,
}

/// Phases of an epoch, in this order.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Reading source `n` of this task.
    Source(usize),
    /// Taking the input of sender `sender` over input `input`.
    Input { input: usize, sender: u16 },
}

/// What has come over one edge from one sender for one epoch.
#[derive(Default)]
pub(crate) struct Arrived {
    rows: Vec<Rows>,
    complete: bool,
}

/// Where the dataflow's output goes until the epoch ends.
pub(crate) struct Outgoing {
    /// Number of every edge out of this task.
    pub edges: BTreeMap<Edge, u32>,
    pub frames: BTreeMap<(u32, u16), Vec<Rows>>,
    pub sinks: Vec<SinkOutput>,
    pub bytes: u64,
    /// Why a sink did not take its rows.
    pub refused: Option<ConnectorError>,
}

impl Emit for Outgoing {
    fn shuffle(&mut self, edge: Edge, to: u16, batch: DeltaBatch) -> Result<(), DataflowError> {
        let missing = || DataflowError::Corrupt(format!("{edge:?} does not leave this task"));
        let number = *self.edges.get(&edge).ok_or_else(missing)?;
        self.bytes += size_of(&batch.rows);
        self.frames.entry((number, to)).or_default().push(Rows { rows: batch.rows, weights: batch.weights });
        Ok(())
    }

    fn sink(&mut self, sink: SinkId, batch: DeltaBatch) -> Result<(), DataflowError> {
        let missing = || DataflowError::Corrupt(format!("sink {sink} is not in this task"));
        let output = self.sinks.iter_mut().find(|s| s.sink == sink).ok_or_else(missing)?;
        output.encoder.encode(&batch.rows, batch.weights.as_ref()).map_err(|e| {
            let text = e.to_string();
            self.refused = Some(e);
            DataflowError::Corrupt(text)
        })
    }
}

fn size_of(rows: &RecordBatch) -> u64 {
    rows.get_array_memory_size() as u64
}

impl RunningTask {
    pub fn id(&self) -> TaskId {
        self.id
    }

    pub fn era(&self) -> Era {
        self.exchange.era
    }

    /// The epoch at hand.
    pub fn epoch(&self) -> Option<Epoch> {
        self.current.as_ref().map(|c| c.plan.epoch)
    }

    pub fn plan(&mut self, plan: Arc<EpochPlan>) {
        self.plans.push_back(plan);
    }

    /// A frame for this task. The frames of one sender come in order.
    pub fn frame(&mut self, epoch: Epoch, frame: Frame) {
        self.arrived.entry((epoch, frame.edge, frame.from.index)).or_default().rows.extend(frame.batches);
    }

    /// A sender has ended its epoch over an edge.
    pub fn end(&mut self, epoch: Epoch, end: EdgeEnd) {
        if self.inputs.iter().any(|(number, _)| *number == end.edge) {
            self.arrived.entry((epoch, end.edge, end.from.index)).or_default().complete = true;
        }
    }

    /// Does a small part of the epoch at hand.
    pub fn step(&mut self) -> Result<Progress, ExecutorError> {
        if self.current.is_none() {
            let Some(plan) = self.plans.pop_front() else { return Ok(Progress::Idle) };
            self.current = Some(Current { plan, phase: Phase::Source(0), busy_micros: 0 });
        }
        let Some(mut current) = self.current.take() else { return Ok(Progress::Idle) };
        let began = Instant::now();
        self.task.begin_epoch(&current.plan);
        let stepped = self.advance(&mut current);
        current.busy_micros += began.elapsed().as_micros() as u64;
        let progress = match stepped {
            Ok(Some(progress)) => progress,
            Ok(None) => {
                self.finish(&current)?;
                return Ok(Progress::Worked);
            }
            Err(e) => {
                self.current = Some(current);
                return Err(self.out.refused.take().map_or(e, ExecutorError::from));
            }
        };
        self.current = Some(current);
        Ok(progress)
    }

    /// `None` when all input of the epoch has been processed.
    fn advance(&mut self, current: &mut Current) -> Result<Option<Progress>, ExecutorError> {
        let plan = current.plan.clone();
        match current.phase {
            Phase::Source(at) => {
                let Some(source) = self.sources.get_mut(at) else {
                    current.phase = Phase::Input { input: 0, sender: 0 };
                    return Ok(Some(Progress::Worked));
                };
                match source.read(&plan)? {
                    Read::Pending => Ok(Some(Progress::Pending)),
                    Read::Done => {
                        current.phase = Phase::Source(at + 1);
                        Ok(Some(Progress::Worked))
                    }
                    Read::Batch { rows, dead } => {
                        let id = source.source();
                        if !dead.is_empty()
                            && let Some(output) = self.dead_letters.iter_mut().find(|d| d.source == id)
                        {
                            output.encoder.push(dead)?;
                        }
                        let node = source.node;
                        self.task.source(node, rows, &plan, &mut self.out)?;
                        Ok(Some(Progress::Worked))
                    }
                }
            }
            Phase::Input { input, sender } => {
                let Some(&(number, edge)) = self.inputs.get(input) else { return Ok(None) };
                let key = (plan.epoch, number, sender);
                if !self.arrived.get(&key).is_some_and(|a| a.complete) {
                    return Ok(Some(Progress::Idle));
                }
                let arrived = self.arrived.remove(&key).unwrap_or_default();
                for rows in arrived.rows {
                    let batch = DeltaBatch { rows: rows.rows, weights: rows.weights };
                    self.task.input(edge, batch, &plan, &mut self.out)?;
                }
                current.phase = match sender + 1 {
                    next if next < self.exchange.parallelism => Phase::Input { input, sender: next },
                    _ => Phase::Input { input: input + 1, sender: 0 },
                };
                Ok(Some(Progress::Worked))
            }
        }
    }

    /// Ends the epoch: see the order in the crate's documentation.
    fn finish(&mut self, current: &Current) -> Result<(), ExecutorError> {
        let began = Instant::now();
        let plan = &current.plan;
        let epoch = plan.epoch;
        if let Err(e) = self.task.end_epoch(plan, &mut self.out) {
            return Err(self.out.refused.take().map_or(e.into(), ExecutorError::from));
        }
        let mut frames = Vec::new();
        for ((edge, to), batches) in std::mem::take(&mut self.out.frames) {
            let to = TaskId { stage: self.exchange.edges[edge as usize].to, index: to };
            for (sequence, batches) in cut(batches).into_iter().enumerate() {
                frames.push(Frame { edge, from: self.id, to, sequence: sequence as u32, batches });
            }
        }
        self.exchange.send(epoch, self.id, frames, &self.outputs);
        let shuffled = std::mem::take(&mut self.out.bytes);
        let mut output_bytes = shuffled;
        for sink in &mut self.out.sinks {
            let encoded = EncodedEpoch { epoch, ..sink.encoder.end_epoch(plan)? };
            output_bytes += encoded.bytes;
            // A publisher that has ended said why.
            let _ended = sink.queue.send(ToPublisher::Epoch(encoded));
        }
        if let Some(queue) = &self.dead_queue {
            for output in &mut self.dead_letters {
                let encoded = output.encoder.end_epoch(plan);
                let _ended = queue.send(ToPublisher::Epoch(EncodedEpoch { epoch, ..encoded }));
            }
        }
        if plan.checkpoint {
            let changes = self.task.seal()?;
            // A checkpointer that has ended said why.
            let _ended = self.checkpoint.send(Sealed { epoch, changes });
        }
        let footprint = self.task.footprint();
        if let Some(keep) = self.memory.holds(footprint.resident) {
            self.task.shrink(keep)?;
            let _still_more = self.memory.holds(self.task.footprint().resident);
        }
        let reports = self.task.reports().map(|(operator, r)| OperatorReport {
            operator,
            keys: r.keys,
            bytes: r.bytes,
            next_timer: r.next_timer,
            next_wake: self.task.next_wake(operator),
            dropped: self.task.dropped(operator),
        });
        let done = TaskDone {
            era: self.era(),
            task: self.id,
            epoch,
            splits: self.sources.iter_mut().flat_map(SourceInput::end_epoch).collect(),
            operators: reports.collect(),
            busy_micros: current.busy_micros + began.elapsed().as_micros() as u64,
            output_bytes,
            unsealed_bytes: footprint.unsealed,
        };
        counter!("millstream_tasks_completed_total").increment(1);
        histogram!("millstream_task_duration_seconds").record(done.busy_micros as f64 / 1e6);
        counter!("millstream_shuffle_bytes_total").increment(shuffled);
        trace!(era = %self.era(), task = %self.id, %epoch, busy_micros = done.busy_micros, "epoch done");
        let _gone = self.driver.send(ToDriver::TaskDone(Box::new(done)));
        Ok(())
    }
}

/// Batches for one receiver as frames of a size that the shuffle takes.
fn cut(batches: Vec<Rows>) -> Vec<Vec<Rows>> {
    let mut frames = vec![Vec::new()];
    let mut bytes = 0;
    for batch in batches {
        let size = size_of(&batch.rows);
        if bytes + size > FRAME_BYTES && bytes > 0 {
            frames.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        if let Some(last) = frames.last_mut() {
            last.push(batch);
        }
    }
    frames
}

/// The operator whose state entry this is, and the entry's own key.
pub(crate) fn entry_of(key: &[u8]) -> Option<(OperatorId, &[u8])> {
    millstream_state::keys::split_key(key)
        .filter(|(_, namespace, _)| *namespace == crate::checkpoint::ENTRIES)
        .map(|(operator, _, own)| (operator, own))
}
