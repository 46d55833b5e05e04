//! Executors as processes of their own, started and restarted by `run --executors N`.
//!
//! Each has a thread that starts it, waits for it and starts it again with back-off when it dies. The thread is the one that the
//! kernel watches for the process: should this program be killed, its executors are killed too. They are ended by their pid alone.
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::failure::Failure;
use crate::logging::{FILTER, QUIET};

const PROGRAM: &str = "millstream-executor";
/// How often a thread looks whether its process lives.
const LOOK: Duration = Duration::from_millis(50);
/// Pause before the first restart; doubles with every one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A process that lived for this long is restarted as if it had never died.
const STEADY: Duration = Duration::from_secs(30);
/// How long a process may take to leave by itself, or after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);

/// The executor processes of a run. Dropping it ends them.
pub struct Executors {
    threads: Vec<(Sender<()>, JoinHandle<()>)>,
}

impl Executors {
    /// Starts `count` executors that connect to `driver` (`host:port`) and keep their state below `state_dir`.
    ///
    /// # Errors
    /// The program is not there.
    pub fn start(count: u16, driver: &str, slots: u16, state_dir: &Path) -> Result<Self, Failure> {
        let program = program()?;
        let mut threads = Vec::new();
        for index in 0..count {
            let id = format!("executor-{index}");
            let process = Process {
                program: program.clone(),
                arguments: vec![
                    "--driver".into(),
                    driver.to_owned(),
                    "--id".into(),
                    id.clone(),
                    "--slots".into(),
                    slots.to_string(),
                    "--state-dir".into(),
                    state_dir.join(&id).display().to_string(),
                ],
                id,
            };
            let (stop, stopped) = channel();
            let thread = std::thread::Builder::new()
                .name(process.id.clone())
                .spawn(move || process.keep_running(&stopped))
                .map_err(|e| Failure::job(format!("cannot start a thread for an executor: {e}")))?;
            threads.push((stop, thread));
        }
        Ok(Self { threads })
    }
}

impl Drop for Executors {
    fn drop(&mut self) {
        let threads = std::mem::take(&mut self.threads);
        let (stops, threads): (Vec<_>, Vec<_>) = threads.into_iter().unzip();
        // A thread hears that its sender is gone.
        drop(stops);
        for thread in threads {
            if thread.join().is_err() {
                warn!("a thread that watched an executor failed");
            }
        }
    }
}

/// The program beside this one.
fn program() -> Result<PathBuf, Failure> {
    let own = std::env::current_exe().map_err(|e| Failure::job(format!("cannot find this program's folder: {e}")))?;
    let program = own.with_file_name(PROGRAM);
    if program.is_file() {
        return Ok(program);
    }
    Err(Failure::usage(
        format!("--executors needs {}, which is not there", program.display()),
        "build all programs with 'make build', or run without --executors",
    ))
}

struct Process {
    program: PathBuf,
    arguments: Vec<String>,
    id: String,
}

impl Process {
    /// Until the sender of `stopped` is gone.
    fn keep_running(&self, stopped: &Receiver<()>) {
        let mut pause = FIRST_PAUSE;
        loop {
            let started = Instant::now();
            match self.spawn() {
                Ok(mut child) => {
                    info!(executor = self.id, pid = child.id(), "executor started");
                    match watch(&mut child, stopped) {
                        Some(status) => warn!(executor = self.id, %status, "executor ended; starting it again"),
                        None => return end(&mut child, &self.id),
                    }
                }
                Err(e) => warn!(executor = self.id, error = %e, "cannot start an executor"),
            }
            if started.elapsed() >= STEADY {
                pause = FIRST_PAUSE;
            }
            if is_stopped(stopped, pause) {
                return;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn spawn(&self) -> std::io::Result<Child> {
        let mut command = Command::new(&self.program);
        // A group of its own: Ctrl-C on the terminal reaches this program alone, which then drains.
        command.args(&self.arguments).stdin(Stdio::null()).process_group(0);
        if std::env::var_os(FILTER).is_none() {
            command.env(FILTER, QUIET);
        }
        let parent = std::process::id();
        // SAFETY: between fork and exec only prctl and getppid are called, which are async-signal-safe.
        unsafe {
            command.pre_exec(move || {
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
                // The parent may be gone already.
                match u32::try_from(libc::getppid()) {
                    Ok(now) if now == parent => Ok(()),
                    _ => Err(std::io::Error::from_raw_os_error(libc::ESRCH)),
                }
            });
        }
        command.spawn()
    }
}

/// Waits for the end of a process (its status), or for a stop (`None`).
fn watch(child: &mut Child, stopped: &Receiver<()>) -> Option<ExitStatus> {
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        if is_stopped(stopped, LOOK) {
            return None;
        }
    }
}

/// Waits at most `pause` for a stop.
fn is_stopped(stopped: &Receiver<()>, pause: Duration) -> bool {
    match stopped.recv_timeout(pause) {
        Err(RecvTimeoutError::Timeout) => false,
        Ok(()) | Err(RecvTimeoutError::Disconnected) => true,
    }
}

/// Ends a process: by itself, as the driver may have told it; then by SIGTERM; then by SIGKILL.
fn end(child: &mut Child, id: &str) {
    if is_gone(child, Duration::from_secs(1)) {
        return;
    }
    if let Ok(pid) = libc::pid_t::try_from(child.id()) {
        // SAFETY: kill takes two numbers; the pid is our child's, which has not been waited for.
        unsafe { libc::kill(pid, libc::SIGTERM) };
    }
    if !is_gone(child, GRACE) {
        warn!(executor = id, pid = child.id(), "the executor does not leave and is killed");
        if let Err(e) = child.kill().and_then(|()| child.wait()) {
            warn!(executor = id, error = %e, "cannot kill the executor");
        }
    }
}

fn is_gone(child: &mut Child, within: Duration) -> bool {
    let deadline = Instant::now() + within;
    loop {
        match child.try_wait() {
            Ok(Some(_)) => return true,
            _ if Instant::now() >= deadline => return false,
            _ => std::thread::sleep(LOOK),
        }
    }
}
