//! The end-to-end tests, in one program so that they run beside each other: most of them wait most of the time.

mod changelog;
mod configuration;
mod dead_letters;
mod examples;
mod harness;
mod kills;
mod outages;
mod results;
mod two_drivers;
