//! Millstream: cli.
