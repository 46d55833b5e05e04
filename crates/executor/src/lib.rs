//! The executor: runs the tasks that the driver places on it.
//!
//! | part | thread | does |
//! |---|---|---|
//! | [`Executor::serve`] | tokio | control messages, one at a time; a `Deploy` builds everything anew |
//! | `slot` | one OS thread each | runs tasks; an epoch of a task begins when its plan and all of its input are there |
//! | `publisher` | one OS thread per sink task | publishes encoded epochs once their plans are durable |
//! | `checkpoint` | tokio, disk work on blocking threads | writes sealed state, uploads new files, reports them |
//! | `exchange` | the sender's slot, tokio per peer | hands frames to local tasks as they are, to peers over the shuffle |
//!
//! Order of an epoch n in a task: sources (plan order), shuffled input (edge, sender, sequence order), end of epoch, frames out, encoded
//! sink output to the publisher, sealed state to the checkpoint (if the plan says so), `TaskDone`. A crash anywhere loses nothing but work: the plan
//! log has n, and the next era replays it from the last checkpoint.
//!
//! Everything belongs to one era. A new `Deploy` first stops all of it: slots and publishers are joined, checkpoints aborted.
mod checkpoint;
mod deployment;
mod error;
mod exchange;
mod executor;
pub mod http;
mod memory;
mod publisher;
mod slot;
mod source;
mod task;

pub use error::ExecutorError;
pub use executor::{Executor, ExecutorOptions, Served};
