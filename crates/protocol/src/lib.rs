//! What driver and executors say to each other, and executors among themselves.
//!
//! Domain types are in [`messages`] (control) and [`shuffle`] (data); how they look on the wire is this crate's private matter.
//! Both directions of the control stream are ordered; a broken stream is a lost peer.
//!
//! Life of an executor: `Hello` → `Deploy` (era e) → `Ready` (era e) → `Run` … . Any loss or failure leads to the next `Deploy` with a
//! higher era; everything of a lower era is dropped by both sides.
//!
//! Peers are noticed to be lost within 3 s, also when they vanish or freeze without closing a socket ([`transport`]).
pub mod control;
#[cfg(test)]
mod freezing_proxy;
pub mod messages;
pub mod shuffle;
pub mod transport;
mod wire;
