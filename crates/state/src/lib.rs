//! Millstream: state.
