//! `millstream`: runs, checks and measures pipelines.
//!
//! | module | command |
//! |---|---|
//! | [`run`] | `run`: driver and executors in this process, or executors as processes of their own |
//! | [`inspect`] | `validate`, `explain`, `run --show-config` |
//! | [`generate`] | `generate nexmark`, `generate datagen` |
//! | `bench` | `bench nexmark` |
//! | `reference` | `docs` (hidden): the reference pages, from the tables in which options are declared |
//!
//! [`args`] is the command line, [`config`] what a pipeline gets from its text, the environment and the flags, and [`failure`] the
//! ways to fail with their exit codes.
mod args;
mod bench;
mod config;
mod failure;
mod generate;
mod inspect;
mod logging;
mod reference;
mod run;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};

/// An epoch's rows are made by one thread and freed by another, and state grows and shrinks: the system's allocator keeps much of that.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Validate(args) => inspect::validate(&args),
        Command::Explain(args) => inspect::explain(&args),
        Command::Generate(args) => generate::generate(&args.what),
        Command::Bench(args) => bench::bench(&args.what),
        Command::Docs(args) => reference::write(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            failure.exit_code()
        }
    }
}
