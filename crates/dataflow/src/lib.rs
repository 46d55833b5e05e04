//! The dataflow: the graph that SQL becomes, and the operators that run it on changes.
//!
//! Pure: no tokio, no I/O, no clock. What flows between operators are [`DeltaBatch`]es, rows with weights (DBSP, Budiu et al.,
//! VLDB 2023). Every edge of the [`graph::Graph`] has an [`graph::EdgeType`]; operators are specialised by it.
pub mod cold;
mod delta;
mod error;
pub mod graph;
pub mod hash;
pub mod ipc;
pub mod now;
pub mod operators;
pub mod task;
pub mod times;
pub mod windows;

pub use delta::DeltaBatch;
pub use error::DataflowError;
