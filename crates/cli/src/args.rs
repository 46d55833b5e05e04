//! The command line.
use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "millstream",
    version,
    about = "Streaming SQL: Kafka and S3 in, Kafka and S3 out, exactly once",
    after_help = "Examples:
  millstream run --demo                    generate events, aggregate them, print rows
  millstream validate -f orders.sql        check a pipeline without running it
  millstream explain -f orders.sql         show its graph, keys and what bounds its state
  millstream run -f orders.sql             run it in this process
  millstream run -f orders.sql --executors 3

Exit codes: 0 finished or drained, 1 the job failed, 2 wrong usage, 78 bad SQL or configuration."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a pipeline until its input ends or it is stopped
    Run(RunArgs),
    /// Check a pipeline: SQL, options, types
    Validate(ValidateArgs),
    /// Show a pipeline's graph: what is decoded, edges and keys, what bounds its state
    Explain(ExplainArgs),
    /// Write generated records to standard output or to a Kafka topic
    Generate(GenerateArgs),
    /// Measure the engine
    Bench(BenchArgs),
    /// Write the reference pages that are made from the tables of options
    #[command(hide = true)]
    Docs(DocsArgs),
}

/// How results are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    #[default]
    Text,
    Json,
}

/// Settings given from outside.
#[derive(Clone, Debug, Default, Args)]
pub struct SettingArgs {
    /// Override a setting of the pipeline; beats MILLSTREAM__… variables and SET in the file
    #[arg(long = "conf", short = 'D', value_name = "KEY=VALUE", value_parser = key_value)]
    pub conf: Vec<(String, String)>,
    /// Tasks per stage (the setting 'parallelism')
    #[arg(long, short = 'p', value_name = "N", value_parser = clap::value_parser!(u16).range(1..=128))]
    pub parallelism: Option<u16>,
}

/// A pipeline with its settings.
#[derive(Debug, Args)]
pub struct PipelineArgs {
    /// File of SQL statements; '-' is standard input
    #[arg(long, short = 'f', value_name = "FILE")]
    pub file: PathBuf,
    #[command(flatten)]
    pub settings: SettingArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  millstream run --demo
  millstream run -f orders.sql
  millstream run -f orders.sql -D checkpointLocation=s3://bucket/checkpoints/orders --executors 3
  millstream run -f backfill.sql -D trigger=availableNow -o json
  cat orders.sql | millstream run -f - --http 127.0.0.1:8080

Settings are taken from --conf, then MILLSTREAM__SECTION__KEY variables, then SET in the file, then defaults.
Ctrl-C or SIGTERM finishes what is planned, takes a checkpoint and ends with 0; a second one ends at once.")]
#[command(group(clap::ArgGroup::new("pipeline").required(true).args(["file", "demo"])))]
pub struct RunArgs {
    /// File of SQL statements; '-' is standard input
    #[arg(long, short = 'f', value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Run the built-in example, which needs nothing
    #[arg(long)]
    pub demo: bool,
    #[command(flatten)]
    pub settings: SettingArgs,
    /// Form of the progress lines on standard error
    #[arg(long, short = 'o', value_enum, default_value_t)]
    pub output: Output,
    /// Start N executor processes instead of running the tasks in this process
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub executors: Option<u16>,
    /// Where progress, metrics and health are served; port 0 takes a free one
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "MILLSTREAM__HTTP__LISTEN",
        hide_env_values = true,
        default_value = "127.0.0.1:0"
    )]
    pub http: String,
    /// Folder for the local state of tasks [default: a temporary one]
    #[arg(long, value_name = "DIR", env = "MILLSTREAM__STATE__DIR", hide_env_values = true)]
    pub state_dir: Option<PathBuf>,
    /// Print every setting with its value and where it comes from, and end
    #[arg(long)]
    pub show_config: bool,
}

/// Variables that stand for flags of `run` and not for settings of the pipeline.
pub const FLAG_VARIABLES: &[&str] = &["MILLSTREAM__HTTP__LISTEN", "MILLSTREAM__STATE__DIR"];

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  millstream validate -f orders.sql
  cat orders.sql | millstream validate -f - -o json

Ends with 0 if the pipeline is valid, with 78 and the place of the first mistake if it is not. Brokers and buckets are not
contacted.")]
pub struct ValidateArgs {
    #[command(flatten)]
    pub pipeline: PipelineArgs,
    /// Form of the answer
    #[arg(long, short = 'o', value_enum, default_value_t)]
    pub output: Output,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  millstream explain -f orders.sql
  millstream explain -f orders.sql -p 8")]
pub struct ExplainArgs {
    #[command(flatten)]
    pub pipeline: PipelineArgs,
}

#[derive(Debug, Args)]
pub struct GenerateArgs {
    #[command(subcommand)]
    pub what: Generate,
}

#[derive(Debug, Subcommand)]
pub enum Generate {
    /// Events of the Nexmark auction site, as JSON
    Nexmark(NexmarkArgs),
    /// Rows of random values and sequences, as JSON
    Datagen(DatagenArgs),
}

/// Where generated records go.
#[derive(Debug, Args)]
pub struct TargetArgs {
    /// Write to a topic of these brokers instead of standard output
    #[arg(long, value_name = "HOST:PORT", requires = "topic")]
    pub bootstrap_servers: Option<String>,
    /// The topic; record k goes to partition k mod partitions
    #[arg(long, value_name = "TOPIC", requires = "bootstrap_servers")]
    pub topic: Option<String>,
    /// Create the topic with so many partitions if it is not there
    #[arg(long, value_name = "PARTITIONS", requires = "topic", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub create_topic: Option<u16>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  millstream generate nexmark --events 1000 | head
  millstream generate nexmark --rate 10000 --bootstrap-servers localhost:9092 --topic nexmark
  millstream generate nexmark --events 10000000 --bootstrap-servers localhost:9092 --topic nexmark --create-topic 4

The same seed gives the same events, byte for byte.")]
pub struct NexmarkArgs {
    /// End after so many events [default: none, go on for ever]
    #[arg(long, value_name = "N")]
    pub events: Option<u64>,
    /// Events per second of the clock; event time is then the present [default: as fast as possible]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub rate: Option<u64>,
    /// Events per second of event time [default: the rate, or 10000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub event_rate: Option<u64>,
    /// Event time of the first event in milliseconds since 1970 [default: now with --rate, else 2015-07-15]
    #[arg(long, value_name = "MILLISECONDS")]
    pub base: Option<i64>,
    /// Another seed gives other events
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    #[command(flatten)]
    pub target: TargetArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  millstream generate datagen --columns 'id BIGINT, amount DOUBLE, at TIMESTAMP(3)' --rows 10
  millstream generate datagen --columns 'id BIGINT, city STRING' --option fields.id.kind=sequence \\
      --option fields.id.start=1 --option fields.id.end=100
  millstream generate datagen --columns 'id BIGINT' --option rows-per-second=10 \\
      --bootstrap-servers localhost:9092 --topic numbers

Options are those of connector 'datagen' (docs/connectors.md).")]
pub struct DatagenArgs {
    /// Columns as in CREATE TABLE
    #[arg(long, value_name = "COLUMNS")]
    pub columns: String,
    /// End after so many rows [default: none, go on for ever]
    #[arg(long, value_name = "N")]
    pub rows: Option<u64>,
    /// An option of connector 'datagen'
    #[arg(long = "option", value_name = "KEY=VALUE", value_parser = key_value)]
    pub options: Vec<(String, String)>,
    #[command(flatten)]
    pub target: TargetArgs,
}

#[derive(Debug, Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    pub what: Bench,
}

#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Nexmark queries into a sink that keeps nothing, one process per query
    Nexmark(BenchNexmarkArgs),
}

/// Where a benchmark reads from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BenchSource {
    /// A topic as `generate nexmark` fills it.
    Kafka,
    /// The generator inside the engine.
    Memory,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  millstream bench nexmark -q q0,q5 --source memory --events 10000000
  millstream bench nexmark -q q0,q5 --bootstrap-servers localhost:9092 --topic nexmark --events 10000000 -o json
  millstream bench nexmark -q q9,q20 --events 20000000 --conf state.memory=256mb

Seconds are from the first epoch's start to the end of the last; CPU is all that the query's process used, from its start to
its end; memory is the peak of what was resident; state is the most that there was after an epoch, and a checkpoint the largest.")]
pub struct BenchNexmarkArgs {
    /// Queries, separated by commas [default: all 24]
    #[arg(long = "query", short = 'q', value_name = "QUERIES", value_delimiter = ',',
        value_parser = crate::bench::query_names())]
    pub queries: Vec<String>,
    /// Where the events come from [default: kafka with --bootstrap-servers, else memory]
    #[arg(long, value_enum)]
    pub source: Option<BenchSource>,
    /// Brokers
    #[arg(long, value_name = "HOST:PORT", requires = "topic")]
    pub bootstrap_servers: Option<String>,
    /// Topic of Nexmark events
    #[arg(long, value_name = "TOPIC", requires = "bootstrap_servers")]
    pub topic: Option<String>,
    /// Events to read, taken evenly from the partitions [default: all of the topic, or 10000000 from memory]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub events: Option<u64>,
    #[command(flatten)]
    pub settings: SettingArgs,
    /// Form of the results: a table, or one JSON object per query
    #[arg(long, short = 'o', value_enum, default_value_t)]
    pub output: Output,
    /// Measure the one query in this process and print its JSON object
    #[arg(long, hide = true)]
    pub in_process: bool,
}

#[derive(Debug, Args)]
pub struct DocsArgs {
    /// Folder to write the pages to
    #[arg(value_name = "DIR", default_value = "docs")]
    pub folder: PathBuf,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE, such as checkpoint.interval=5s".to_owned()),
    }
}

/// The command line as clap knows it, for the reference page.
pub fn command() -> clap::Command {
    Cli::command()
}
