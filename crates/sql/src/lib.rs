//! Millstream: sql.
