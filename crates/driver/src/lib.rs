//! The driver: cuts the input into epochs, keeps the chain of plans, and watches over the executors that run them.
//!
//! The control plane is pure: functions of (state, event) that do no I/O and read no clock. A seeded simulation runs it through crashes,
//! delays, reordering and two leaders.
//!
//! | module | decides |
//! |---|---|
//! | [`chain`] | which records in the log are valid, what they mean, and when one is durable |
//! | [`planner`] | what the next epoch is |
//! | [`schedule`] | which executor runs which task |
//! | [`coordinator`] | what to do next, in which order |
//!
//! The `service` around it performs what it decides: [`Driver`].
mod bugs;
pub mod chain;
pub mod coordinator;
pub mod planner;
pub mod schedule;
mod service;
mod shape;
#[cfg(test)]
mod sim;

pub use service::{Driver, DriverError, DriverOptions, Progress, Status, Stopper};
pub use shape::{Millis, PipelineShape, SinkShape, SourceShape, TimerDomain};
