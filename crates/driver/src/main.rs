//! `millstream-driver`: plans the epochs of one pipeline and leads its executors.
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser};
use millstream_driver::coordinator::Exit;
use millstream_driver::{Driver, DriverOptions};
use millstream_plan::config_file::{ConfigFile, VARIABLE};
use millstream_sql::{from_variables, setting};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};

/// An epoch's rows are made by one thread and freed by another, and state grows and shrinks: the system's allocator keeps much of that.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Plans the epochs of one pipeline and leads its executors.
///
/// SIGTERM drains: no new input, a last checkpoint, everything published, exit 0.
#[derive(Debug, Parser)]
#[command(name = "millstream-driver", version, after_help = EXAMPLES)]
struct Arguments {
    /// Configuration in TOML: these options under [driver], settings of the pipeline under their names.
    #[arg(long, env = "MILLSTREAM__CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The pipeline: a file of SQL statements.
    #[arg(short, long, env = "MILLSTREAM__DRIVER__FILE", value_name = "FILE")]
    file: PathBuf,
    /// Override a setting of the file.
    #[arg(long = "conf", short = 'D', value_name = "KEY=VALUE", value_parser = pair)]
    conf: Vec<(String, String)>,
    /// Address for executors.
    #[arg(long, env = "MILLSTREAM__DRIVER__LISTEN", value_name = "HOST:PORT", default_value = "127.0.0.1:7070")]
    listen: String,
    /// Address of metrics, probes and the API.
    #[arg(long, env = "MILLSTREAM__DRIVER__HTTP", value_name = "HOST:PORT", default_value = "127.0.0.1:8080")]
    http: String,
    /// Folder of local files.
    #[arg(long, env = "MILLSTREAM__DRIVER__STATE_DIR", default_value = "millstream-driver-state")]
    state_dir: PathBuf,
    /// Start as soon as so many executors have joined.
    #[arg(long, env = "MILLSTREAM__DRIVER__EXECUTORS", default_value_t = 1)]
    executors: usize,
    /// Tasks per stage at the first start, if the file sets no parallelism. Default: the number of cores.
    #[arg(short, long, env = "MILLSTREAM__DRIVER__PARALLELISM")]
    parallelism: Option<u16>,
}

const EXAMPLES: &str = "Examples:
  millstream-driver -f orders.sql --executors 3
  MILLSTREAM__DRIVER__LISTEN=0.0.0.0:7070 millstream-driver -f orders.sql -D checkpointLocation=s3://bucket/orders
  millstream-driver --config millstream.toml

Flags win over MILLSTREAM__SECTION__KEY variables, those over the file, and all of them over SET in the SQL.";

/// Section of the file that holds this program's options.
const SECTION: &str = "MILLSTREAM__DRIVER__";

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("'{text}' is not KEY=VALUE"))?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

/// Bad SQL or configuration.
const BAD_CONFIG: u8 = 78;

/// Flags, variables and the file, in this order of precedence, and the settings of the pipeline that they give.
fn configure() -> anyhow::Result<(Arguments, BTreeMap<String, String>)> {
    let mut file = ConfigFile::find(std::env::args_os(), std::env::var_os(VARIABLE), |p| std::fs::read_to_string(p))?;
    let mut command = Arguments::command();
    let flags = command.get_arguments().filter_map(|a| Some((a.get_id().clone(), a.get_env()?.to_str()?.to_owned())));
    for (id, value) in file.take_flags(SECTION, flags.collect::<Vec<_>>())? {
        // Once per start: clap keeps defaults by reference.
        command = command.mut_arg(id, |a| a.required(false).default_value(&*value.leak()));
    }
    let arguments = Arguments::from_arg_matches(&command.get_matches())?;
    let mut settings = BTreeMap::new();
    for given in from_variables(file.into_variables().into_iter(), &[])?
        .into_iter()
        .chain(from_variables(std::env::vars(), &[])?)
    {
        settings.insert(given.name.to_owned(), given.value);
    }
    for (key, value) in &arguments.conf {
        if let Some(spec) = setting(key) {
            settings.remove(spec.name);
        }
        settings.insert(key.clone(), value.clone());
    }
    Ok((arguments, settings))
}

fn main() -> ExitCode {
    let configured = configure();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::IsTerminal::is_terminal(&std::io::stderr()) {
        log.init();
    } else {
        log.json().init();
    }
    match configured {
        Ok((arguments, settings)) => run(arguments, settings),
        Err(e) => {
            error!("{e:#}");
            ExitCode::from(BAD_CONFIG)
        }
    }
}

#[tokio::main(worker_threads = 2)]
async fn run(arguments: Arguments, conf: BTreeMap<String, String>) -> ExitCode {
    let sql = match std::fs::read_to_string(&arguments.file) {
        Ok(sql) => sql,
        Err(e) => {
            error!(file = %arguments.file.display(), error = %e, "cannot read the pipeline");
            return ExitCode::from(BAD_CONFIG);
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u16);
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let options = DriverOptions {
        sql,
        conf,
        default_name: arguments
            .file
            .file_stem()
            .map_or_else(|| "pipeline".to_owned(), |s| s.to_string_lossy().into_owned()),
        parallelism: arguments.parallelism.unwrap_or(cores),
        state_dir: arguments.state_dir,
        control: Some(arguments.listen),
        http: Some(arguments.http),
        executors: arguments.executors,
        host: host.trim().to_owned(),
    };
    let driver = match Driver::start(options).await {
        Ok(driver) => driver,
        Err(e) => {
            let users = e.is_users();
            error!(hint = e.hint(), "{e}");
            return if users { ExitCode::from(BAD_CONFIG) } else { ExitCode::FAILURE };
        }
    };
    info!(control = ?driver.control_address(), http = ?driver.http_address(), "driver started");
    let stopper = driver.stopper();
    if let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            info!("draining");
            stopper.stop();
        });
    }
    match driver.wait().await {
        exit @ (Exit::Finished | Exit::Drained | Exit::Abandoned) => {
            info!(?exit, "the driver ends");
            ExitCode::SUCCESS
        }
        Exit::Failed(reason) | Exit::Fenced(reason) => {
            error!("{reason}");
            ExitCode::FAILURE
        }
    }
}
