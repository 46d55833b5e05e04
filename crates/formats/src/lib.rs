//! Millstream: formats.
