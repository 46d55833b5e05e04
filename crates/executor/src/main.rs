//! `millstream-executor`: runs tasks for a driver.
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{CommandFactory, FromArgMatches, Parser};
use millstream_executor::{Executor, ExecutorOptions, Served};
use millstream_plan::ExecutorId;
use millstream_plan::config_file::{ConfigFile, VARIABLE};
use millstream_protocol::control::ControlClient;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{error, info, warn};

/// An epoch's rows are made by one thread and freed by another, and state grows and shrinks: the system's allocator keeps much of that.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Runs tasks of a Millstream pipeline for a driver.
///
/// It connects to the driver, takes the tasks that are placed on it, and connects again when the driver is gone. SIGTERM makes it leave: the
/// driver moves its tasks elsewhere.
#[derive(Debug, Parser)]
#[command(name = "millstream-executor", version, after_help = EXAMPLES)]
struct Arguments {
    /// Configuration in TOML: these options under [executor]. The driver may read the same file.
    #[arg(long, env = "MILLSTREAM__CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address of the driver's control service.
    #[arg(long, env = "MILLSTREAM__EXECUTOR__DRIVER", value_name = "HOST:PORT", default_value = "127.0.0.1:7070")]
    driver: String,
    /// Name of this executor, the same after a restart. Default: the host's name.
    #[arg(long, env = "MILLSTREAM__EXECUTOR__ID")]
    id: Option<String>,
    /// Threads that run tasks. Default: the number of cores.
    #[arg(long, env = "MILLSTREAM__EXECUTOR__SLOTS")]
    slots: Option<u16>,
    /// Folder of local state, a cache of the checkpoint store.
    #[arg(long, env = "MILLSTREAM__EXECUTOR__STATE_DIR", default_value = "millstream-state")]
    state_dir: PathBuf,
    /// Address of the shuffle service; port 0 takes a free one.
    #[arg(long, env = "MILLSTREAM__EXECUTOR__LISTEN", value_name = "HOST:PORT", default_value = "127.0.0.1:0")]
    listen: String,
    /// Host, or host and port, under which the other executors reach the shuffle service.
    #[arg(long, env = "MILLSTREAM__EXECUTOR__ADVERTISE", value_name = "HOST[:PORT]")]
    advertise: Option<String>,
    /// Address of probes and metrics. Default: none.
    #[arg(long, env = "MILLSTREAM__EXECUTOR__HTTP", value_name = "HOST:PORT")]
    http: Option<String>,
    /// End when the driver is gone for this many seconds (0: never).
    #[arg(long, env = "MILLSTREAM__EXECUTOR__GIVE_UP_AFTER", default_value_t = 0)]
    give_up_after: u64,
}

const EXAMPLES: &str = "Examples:
  millstream-executor --driver 127.0.0.1:7070 --id executor-0 --state-dir /var/lib/millstream
  MILLSTREAM__EXECUTOR__DRIVER=driver:7070 millstream-executor --listen 0.0.0.0:7071 --advertise executor-0.executors
  millstream-executor --config millstream.toml

Flags win over MILLSTREAM__EXECUTOR__… variables, those over the file.";

/// Section of the file that holds this program's options.
const SECTION: &str = "MILLSTREAM__EXECUTOR__";

/// Pause before the next try to reach the driver.
const RETRY: Duration = Duration::from_millis(200);
/// Pauses double up to this while connections are lost as soon as they are made.
const LONGEST_RETRY: Duration = Duration::from_secs(5);
/// A connection that has lasted this long was a good one.
const STEADY: Duration = Duration::from_secs(10);

/// Flags, variables and the file, in this order of precedence.
fn configure() -> anyhow::Result<Arguments> {
    let mut file = ConfigFile::find(std::env::args_os(), std::env::var_os(VARIABLE), |p| std::fs::read_to_string(p))?;
    let mut command = Arguments::command();
    let flags = command.get_arguments().filter_map(|a| Some((a.get_id().clone(), a.get_env()?.to_str()?.to_owned())));
    for (id, value) in file.take_flags(SECTION, flags.collect::<Vec<_>>())? {
        // Once per start: clap keeps defaults by reference.
        command = command.mut_arg(id, |a| a.required(false).default_value(&*value.leak()));
    }
    Ok(Arguments::from_arg_matches(&command.get_matches())?)
}

/// Bad configuration.
const BAD_CONFIG: u8 = 78;

fn main() -> ExitCode {
    let configured = configure();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::IsTerminal::is_terminal(&std::io::stderr()) {
        log.init();
    } else {
        log.json().init();
    }
    let arguments = match configured {
        Ok(arguments) => arguments,
        Err(e) => {
            error!("{e:#}");
            return ExitCode::from(BAD_CONFIG);
        }
    };
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            error!(error = %e, "the executor ends");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(worker_threads = 2)]
async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u16);
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let executor = Executor::bind(ExecutorOptions {
        id: ExecutorId(arguments.id.unwrap_or_else(|| host.trim().to_owned())),
        slots: arguments.slots.unwrap_or(cores),
        state_dir: arguments.state_dir,
        listen: arguments.listen,
        advertise: arguments.advertise,
    })
    .await?;
    if let Some(address) = &arguments.http {
        millstream_executor::http::serve(address, executor.health()).await?;
        info!(%address, "HTTP");
    }
    let (stop_to, stop) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop_to.send_replace(true);
    });
    let patience = match arguments.give_up_after {
        0 => Duration::MAX,
        seconds => Duration::from_secs(seconds),
    };
    let mut alone = Duration::ZERO;
    let mut pause = RETRY;
    while !*stop.borrow() {
        match ControlClient::connect(&arguments.driver, executor.hello()).await {
            Ok((link, inbox)) => {
                info!(driver = %arguments.driver, "connected");
                alone = Duration::ZERO;
                let connected = Instant::now();
                match executor.serve(link, inbox, stop.clone()).await {
                    Served::Left => return Ok(()),
                    Served::ConnectionLost(reason) => warn!(%reason, "the driver is gone"),
                }
                // Two executors of one name push each other out: not thousands of times a second.
                pause = if connected.elapsed() >= STEADY { RETRY } else { (pause * 2).min(LONGEST_RETRY) };
                wait(pause, stop.clone()).await;
            }
            Err(e) if alone >= patience => return Err(e.into()),
            Err(e) => {
                if alone.is_zero() {
                    warn!(error = %e, "cannot reach the driver yet");
                }
                alone += RETRY;
                wait(RETRY, stop.clone()).await;
            }
        }
    }
    Ok(())
}

/// Waits, but not when the process is to end.
async fn wait(pause: Duration, mut stop: watch::Receiver<bool>) {
    let _over = tokio::time::timeout(pause, stop.wait_for(|stop| *stop)).await;
}
