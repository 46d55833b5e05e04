//! `run`: a pipeline from its start to its end.
//!
//! | module | |
//! |---|---|
//! | [`engine`] | driver and executors, in this process or as processes of their own |
//! | `processes` | executors as processes, restarted when they die |
//! | `places` | the folder of local files, temporary if nobody names one |
//! | `show` | progress lines |
//! | `signals` | Ctrl-C and SIGTERM |
pub mod engine;
mod places;
mod processes;
pub mod show;
mod signals;

use std::time::Duration;

pub use places::Places;

use self::engine::{Engine, How, Observer};
use self::show::{JsonLines, Lines};
use crate::args::{Output, PipelineArgs, RunArgs, SettingArgs};
use crate::config::Job;
use crate::failure::Failure;
use crate::{inspect, logging};

/// What `--demo` runs.
const DEMO: &str = include_str!("demo.sql");

/// How long threads may take to end after the pipeline.
const GRACE: Duration = Duration::from_secs(2);

/// Runs the command.
///
/// # Errors
/// The pipeline is wrong, or it failed.
pub fn run(args: &RunArgs) -> Result<(), Failure> {
    let job = load(args)?;
    if args.show_config {
        return inspect::show_config(&job, args.output);
    }
    logging::start();
    let places = Places::prepare(args.state_dir.as_deref())?;
    let forgets = places.is_temporary() && job.settings.text("checkpointLocation").is_none();
    let engine = Engine {
        job,
        http: Some(args.http.clone()),
        executors: args.executors,
        state_dir: places.state_dir().to_owned(),
    };
    let mut observer: Box<dyn Observer> = match args.output {
        Output::Text => Box::new(Lines::new(args.demo, forgets)),
        Output::Json => Box::new(JsonLines),
    };
    let runtime = engine::runtime()?;
    let ended = runtime.block_on(async {
        let stop = signals::listen()?;
        engine.run(stop, &mut *observer).await
    });
    runtime.shutdown_timeout(GRACE);
    if let Some(letters) = places.close() {
        eprintln!("dead letters of this run are kept in {}", letters.display());
    }
    let ended = ended?;
    if args.output == Output::Text {
        let how = match ended.how {
            How::Finished => "finished",
            How::Drained => "drained",
        };
        eprintln!("{how}: {} rows in, {} rows out", show::thousands(ended.rows_in), show::thousands(ended.rows_out));
    }
    Ok(())
}

fn load(args: &RunArgs) -> Result<Job, Failure> {
    match &args.file {
        Some(file) => Job::load(&PipelineArgs { file: file.clone(), settings: args.settings.clone() }),
        None => {
            // One task per stage: the rows of a second then come as one table.
            let parallelism = args.settings.parallelism.or_else(|| args.settings.conf.is_empty().then_some(1));
            let settings = SettingArgs { conf: args.settings.conf.clone(), parallelism };
            Job::new(DEMO.to_owned(), Some("demo"), &settings, std::env::vars())
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn the_demo_is_valid() {
        let job = Job::new(DEMO.to_owned(), None, &SettingArgs::default(), std::iter::empty()).unwrap();
        assert_eq!(job.plan().unwrap().sinks.len(), 1);
    }
}
