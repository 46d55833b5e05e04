//! Sinks for looking and for measuring: `print` and `blackhole`.
mod blackhole;
mod print;

pub(crate) use blackhole::BLACKHOLE;
pub(crate) use print::PRINT;
