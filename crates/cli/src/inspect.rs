//! Looking at a pipeline without running it.
use std::io::Write;

use serde_json::json;

use crate::args::{ExplainArgs, Output, ValidateArgs};
use crate::config::Job;
use crate::failure::Failure;

/// `validate`.
///
/// # Errors
/// The first mistake.
pub fn validate(args: &ValidateArgs) -> Result<(), Failure> {
    let planned = Job::load(&args.pipeline).and_then(|job| {
        let pipeline = job.plan()?;
        Ok((job, pipeline))
    });
    let (job, pipeline) = match (planned, args.output) {
        (Ok(planned), _) => planned,
        (Err(Failure::Config(error)), Output::Json) => {
            print(&format!(
                "{}\n",
                json!({
                    "valid": false, "message": error.message, "hint": error.hint,
                    "line": error.line, "column": error.column, "source_line": error.source_line,
                })
            ))?;
            return Err(Failure::Config(error));
        }
        (Err(failure), _) => return Err(failure),
    };
    let name = job.settings.text("pipeline.name").unwrap_or("pipeline");
    let (sources, sinks) = (pipeline.sources.len(), pipeline.sinks.len());
    let (stages, operators) = (pipeline.graph.stages.len(), pipeline.graph.nodes.len());
    print(&match args.output {
        Output::Text => format!(
            "valid: pipeline '{name}', {}, {}, {} in {}\n",
            counted(sources, "source"),
            counted(sinks, "sink"),
            counted(operators, "operator"),
            counted(stages, "stage"),
        ),
        Output::Json => format!(
            "{}\n",
            json!({
                "valid": true, "pipeline": name, "sources": sources, "sinks": sinks, "operators": operators,
                "stages": stages, "fingerprint": pipeline.graph.fingerprint.to_string(),
            })
        ),
    })
}

fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// `explain`.
///
/// # Errors
/// The first mistake.
pub fn explain(args: &ExplainArgs) -> Result<(), Failure> {
    let pipeline = Job::load(&args.pipeline)?.plan()?;
    print(&millstream_sql::explain(&pipeline))
}

/// `run --show-config`.
///
/// # Errors
/// Standard output does not take it.
pub fn show_config(job: &Job, output: Output) -> Result<(), Failure> {
    let table = job.table();
    let text: String = match output {
        Output::Json => {
            let rows = table.iter().map(|(name, value, origin)| {
                format!("{}\n", json!({"setting": name, "value": value, "origin": origin}))
            });
            rows.collect()
        }
        Output::Text => {
            let width = |cells: &mut dyn Iterator<Item = usize>| cells.max().unwrap_or(0);
            let names = width(&mut table.iter().map(|(n, ..)| n.chars().count()));
            let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
            let values = width(&mut table.iter().map(|(_, v, _)| shown(v).chars().count()));
            let rows = table
                .iter()
                .map(|(name, value, origin)| format!("{name:names$}  {:values$}  {origin}\n", shown(value)));
            rows.collect()
        }
    };
    print(&text)
}

/// Writes to standard output; a reader that has seen enough is no failure.
///
/// # Errors
/// Standard output does not take it.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::job(format!("cannot write to standard output: {e}")))
        }
        _ => Ok(()),
    }
}
