//! Millstream: driver.
