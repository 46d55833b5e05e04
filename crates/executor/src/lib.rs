//! Millstream: executor.
