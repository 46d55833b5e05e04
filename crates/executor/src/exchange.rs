//! Ways out of a task: to tasks in this process without copying, to other executors over the shuffle.
use std::collections::BTreeMap;
use std::sync::mpsc;

use millstream_dataflow::task::ShuffleEdge;
use millstream_plan::{Epoch, Era, ExecutorId, TaskId};
use millstream_protocol::shuffle::{Bundle, EdgeEnd, Frame};
use tokio::sync::mpsc as async_mpsc;

use crate::slot::ToSlot;

/// Where every task of an era is.
pub(crate) struct Exchange {
    pub era: Era,
    pub me: ExecutorId,
    pub parallelism: u16,
    /// Edges by number.
    pub edges: Vec<ShuffleEdge>,
    pub placement: BTreeMap<TaskId, ExecutorId>,
    /// Slots of this executor, and which of them runs a local task.
    pub slots: Vec<mpsc::Sender<ToSlot>>,
    pub slot_of: BTreeMap<TaskId, usize>,
    /// Queues of the streams to the other executors; bounded by what the driver admits.
    pub peers: BTreeMap<ExecutorId, async_mpsc::UnboundedSender<Bundle>>,
}

impl Exchange {
    /// Sends frames of task `from`, and the ends of its epoch over `ends` (edge numbers). A closed way belongs to an era that is over.
    pub fn send(&self, epoch: Epoch, from: TaskId, frames: Vec<Frame>, ends: &[u32]) {
        let mut local = Vec::new();
        let mut remote: BTreeMap<&ExecutorId, Bundle> = BTreeMap::new();
        let bundle =
            || Bundle { era: self.era, epoch, from: self.me.clone(), frames: Vec::new(), complete: Vec::new() };
        for frame in frames {
            match self.placement.get(&frame.to) {
                Some(at) if *at != self.me => remote.entry(at).or_insert_with(bundle).frames.push(frame),
                _ => local.push(frame),
            }
        }
        let complete: Vec<EdgeEnd> = ends.iter().map(|&edge| EdgeEnd { edge, from }).collect();
        for end in &complete {
            let Some(edge) = self.edges.get(end.edge as usize) else { continue };
            for index in 0..self.parallelism {
                if let Some(at) = self.placement.get(&TaskId { stage: edge.to, index })
                    && *at != self.me
                {
                    let ends = &mut remote.entry(at).or_insert_with(bundle).complete;
                    if !ends.contains(end) {
                        ends.push(*end);
                    }
                }
            }
        }
        for (peer, bundle) in remote {
            if let Some(queue) = self.peers.get(peer) {
                // A closed queue: the stream broke and said so.
                let _closed = queue.send(bundle);
            }
        }
        self.deliver(epoch, local, &complete);
    }

    /// Hands frames and ends to the local tasks that they are for.
    pub fn deliver(&self, epoch: Epoch, frames: Vec<Frame>, complete: &[EdgeEnd]) {
        let mut by_slot: Vec<Vec<Frame>> = (0..self.slots.len()).map(|_| Vec::new()).collect();
        for frame in frames {
            if let Some(slot) = self.slot_of.get(&frame.to) {
                by_slot[*slot].push(frame);
            }
        }
        for (slot, frames) in self.slots.iter().zip(by_slot) {
            if frames.is_empty() && complete.is_empty() {
                continue;
            }
            // A closed slot failed and said so.
            let _closed = slot.send(ToSlot::Input { epoch, frames, complete: complete.to_vec() });
        }
    }
}
