//! Logs on standard error: text on a terminal, JSON lines otherwise.
use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Variable with the filter, such as `info` or `millstream_driver=debug`.
pub const FILTER: &str = "RUST_LOG";

/// Filter if nobody names one: what goes wrong. Kafka's client tells of every connection that breaks; what comes of it is told by us.
pub const QUIET: &str = "warn,kafka=error";

/// Starts logging.
pub fn start() {
    let filter = EnvFilter::try_from_env(FILTER).unwrap_or_else(|_| EnvFilter::new(QUIET));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        logs.compact().init();
    } else {
        logs.json().init();
    }
}
