//! The Kafka connector against a real broker: `dev/kafka.sh` starts one for the whole run, or `MILLSTREAM_TEST_KAFKA` names one.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
mod broker;
mod exactly_once;
mod restart;
mod sink;
mod source;
mod starts;
mod transactions;
mod upserts;
