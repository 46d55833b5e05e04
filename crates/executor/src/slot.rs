//! A slot: an OS thread that runs its tasks in small steps, so that none blocks another.
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

use millstream_plan::{Epoch, EpochPlan};
use millstream_protocol::control::DriverLink;
use millstream_protocol::messages::ToDriver;
use millstream_protocol::shuffle::{EdgeEnd, Frame};
use tracing::error;

use crate::ExecutorError;
use crate::task::{Progress, RunningTask};

/// How long a slot waits for a source that has nothing yet before it asks again.
const SOURCE_WAIT: Duration = Duration::from_micros(500);

/// What a slot is told.
pub(crate) enum ToSlot {
    Plan(Arc<EpochPlan>),
    /// Frames for tasks of this slot, then ends of epoch of their senders.
    Input {
        epoch: Epoch,
        frames: Vec<Frame>,
        complete: Vec<EdgeEnd>,
    },
    Stop,
}

/// Runs until told to stop or until a task fails.
pub(crate) fn run(mut tasks: Vec<RunningTask>, messages: &Receiver<ToSlot>, driver: &Arc<DriverLink>) {
    loop {
        loop {
            match messages.try_recv() {
                Ok(ToSlot::Stop) | Err(TryRecvError::Disconnected) => return,
                Ok(message) => take(&mut tasks, message),
                Err(TryRecvError::Empty) => break,
            }
        }
        let (mut worked, mut pending) = (false, false);
        for task in &mut tasks {
            match step(task) {
                Ok(Progress::Worked) => worked = true,
                Ok(Progress::Pending) => pending = true,
                Ok(Progress::Idle) => {}
                Err(e) => {
                    error!(era = %task.era(), task = %task.id(), epoch = ?task.epoch(), error = %e, "task failed");
                    let failed = ToDriver::Failed {
                        era: task.era(),
                        task: Some(task.id()),
                        epoch: task.epoch(),
                        failure: e.failure(),
                    };
                    // If the driver is gone, its successor deploys anew.
                    let _gone = driver.send(failed);
                    return;
                }
            }
        }
        if worked {
            continue;
        }
        let next = match pending {
            true => messages.recv_timeout(SOURCE_WAIT),
            false => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match next {
            Ok(ToSlot::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            Ok(message) => take(&mut tasks, message),
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// A panic (hostile input that a decoder could not take) fails the task and not the process.
fn step(task: &mut RunningTask) -> Result<Progress, ExecutorError> {
    catch_unwind(AssertUnwindSafe(|| task.step())).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Err(ExecutorError::Lost(format!("panic: {}", text.unwrap_or("no message"))))
    })
}

fn take(tasks: &mut [RunningTask], message: ToSlot) {
    match message {
        ToSlot::Plan(plan) => tasks.iter_mut().for_each(|t| t.plan(plan.clone())),
        ToSlot::Input { epoch, frames, complete } => {
            for frame in frames {
                if let Some(task) = tasks.iter_mut().find(|t| t.id() == frame.to) {
                    task.frame(epoch, frame);
                }
            }
            for end in complete {
                tasks.iter_mut().for_each(|t| t.end(epoch, end));
            }
        }
        ToSlot::Stop => {}
    }
}
