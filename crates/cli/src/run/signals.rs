//! Ctrl-C and SIGTERM: the first one asks for a drain, the second one ends the process at once.
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::failure::Failure;

/// Exit code of a process that was told twice.
const ABORTED: i32 = 1;

/// Becomes true with the first signal. Must be called inside a runtime, whose end ends the listening too.
///
/// # Errors
/// The system does not let this process listen.
pub fn listen() -> Result<watch::Receiver<bool>, Failure> {
    let open = |kind| signal(kind).map_err(|e| Failure::job(format!("cannot listen for signals: {e}")));
    let (mut interrupt, mut terminate) = (open(SignalKind::interrupt())?, open(SignalKind::terminate())?);
    let (asked, stop) = watch::channel(false);
    tokio::spawn(async move {
        either(&mut interrupt, &mut terminate).await;
        eprintln!("stopping: finishing what is planned, then a checkpoint; once more to end at once");
        asked.send_replace(true);
        either(&mut interrupt, &mut terminate).await;
        eprintln!("ended at once");
        // Executor processes die with this one.
        std::process::exit(ABORTED);
    });
    Ok(stop)
}

async fn either(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
