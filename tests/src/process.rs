//! Our programs as real processes: `millstream`, `millstream-driver`, `millstream-executor`.
//!
//! They are taken from the folder in which cargo put them (`target/release`), beside the test program. Each process has
//! a process group of its own, so that what it starts itself ends with it. Nothing is left behind: dropping a [`Process`]
//! kills its group, and a watcher does so when the test program itself dies.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use tempfile::TempDir;

use crate::temp_dir;
use crate::wait::poll;

pub use crate::server::free_ports;

/// A program with its arguments, not started yet.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
    env: BTreeMap<OsString, OsString>,
    dir: Option<PathBuf>,
}

impl Program {
    /// A program of this workspace by its name.
    pub fn ours(name: &str) -> Self {
        let test = std::env::current_exe().expect("a test program has a path");
        let folder = test.ancestors().nth(2).expect("a test program lies in target/release/deps");
        let path = folder.join(name);
        assert!(path.is_file(), "{} is not built; run: cargo build --release --workspace --bins", path.display());
        Self::at(path)
    }

    /// Any program by its path or by its name on `PATH`.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), arguments: Vec::new(), env: BTreeMap::new(), dir: None }
    }

    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    pub fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.insert(name.as_ref().to_owned(), value.as_ref().to_owned());
        self
    }

    pub fn envs(self, pairs: impl IntoIterator<Item = (impl AsRef<OsStr>, impl AsRef<OsStr>)>) -> Self {
        pairs.into_iter().fold(self, |program, (name, value)| program.env(name, value))
    }

    /// The folder to run in; by default a fresh one.
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    pub fn start(&self) -> Process {
        let scratch = temp_dir();
        let (stdout, stderr) = (scratch.path().join("stdout"), scratch.path().join("stderr"));
        let file = |path: &Path| File::create(path).unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
        let child = Command::new(&self.path)
            .args(&self.arguments)
            .envs(&self.env)
            .current_dir(self.dir.as_deref().unwrap_or(scratch.path()))
            .stdin(Stdio::null())
            .stdout(file(&stdout))
            .stderr(file(&stderr))
            .process_group(0)
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {}: {e}", self.path.display()));
        WATCHER.tell('+', child.id());
        let name = self.path.file_name().unwrap_or(self.path.as_os_str()).to_string_lossy().into_owned();
        Process { name, child, stdout, stderr, _scratch: scratch }
    }

    /// Runs the program to its end, at most `timeout`.
    pub fn run(&self, timeout: Duration) -> Finished {
        let mut process = self.start();
        let status = process.wait(timeout);
        Finished { status, stdout: process.stdout(), stderr: process.stderr() }
    }
}

/// What a program that ended has left.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    /// The exit code; panics when a signal ended the program.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| panic!("ended by signal {:?}:\n{}", self.status.signal(), self.stderr))
    }
}

/// A running program. Its output goes to files, so that it never waits for a reader.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    _scratch: TempDir,
}

impl Process {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn stdout(&self) -> String {
        read(&self.stdout)
    }

    pub fn stderr(&self) -> String {
        read(&self.stderr)
    }

    /// Waits for a complete line of standard output or standard error that holds `text`, and returns it.
    ///
    /// Panics with both outputs when the time is over or the program ends without that line.
    pub fn wait_for_line(&mut self, text: &str, timeout: Duration) -> String {
        let what = format!("the line {text:?} of {} (pid {})", self.name, self.pid());
        let found = poll(timeout, || {
            // The status first: what was written before the end is then seen below.
            let ended = !self.is_running();
            let line = [&self.stdout, &self.stderr].into_iter().find_map(|path| line_with(&read(path), text));
            line.map(Ok).or_else(|| ended.then_some(Err(())))
        });
        match found {
            Some(Ok(line)) => line,
            Some(Err(())) => panic!("{what}: the program ended\n{}", self.output()),
            None => panic!("{what}: nothing in {timeout:?}\n{}", self.output()),
        }
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child can be waited for").is_none()
    }

    /// Waits for the program's end; panics with its output when it takes longer.
    pub fn wait(&mut self, timeout: Duration) -> ExitStatus {
        match poll(timeout, || self.child.try_wait().expect("a child can be waited for")) {
            Some(status) => status,
            None => panic!("{} (pid {}) still runs after {timeout:?}\n{}", self.name, self.pid(), self.output()),
        }
    }

    /// SIGKILL to this process alone; what it started lives on.
    pub fn kill(&mut self) {
        signal(self.pid(), libc::SIGKILL);
        self.child.wait().expect("a child can be waited for");
    }

    /// SIGTERM: asks the program to drain and end.
    pub fn terminate(&self) {
        signal(self.pid(), libc::SIGTERM);
    }

    /// SIGSTOP: freezes the process with everything it has in flight.
    pub fn freeze(&self) {
        signal(self.pid(), libc::SIGSTOP);
    }

    /// SIGCONT: lets a frozen process go on.
    pub fn thaw(&self) {
        signal(self.pid(), libc::SIGCONT);
    }

    /// The processes that this one started and that still run, such as the executors of `run --executors N`.
    pub fn children(&self) -> Vec<u32> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).into_iter().flatten().flatten();
        let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
        let mut pids: Vec<u32> = lists
            .flat_map(|l| l.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
            .filter_map(|pid| pid.parse().ok())
            .collect();
        pids.sort_unstable();
        pids
    }

    /// Resident memory in bytes; zero when the process is gone.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|l| l.trim().strip_suffix(" kB")).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
    }

    fn output(&self) -> String {
        format!("--- stdout\n{}\n--- stderr\n{}", tail(&self.stdout()), tail(&self.stderr()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{} (pid {}) when the test failed:\n{}", self.name, self.pid(), self.output());
        }
        // The group outlives its first process as long as something that it started runs, and its number with it.
        let group = -i64::from(self.pid()) as libc::pid_t;
        // SAFETY: kill takes two numbers and touches no memory of ours.
        unsafe { libc::kill(group, libc::SIGKILL) };
        let _ = self.child.wait();
        WATCHER.tell('-', self.pid());
    }
}

/// Sends a signal to a process; one that is gone already is no error.
pub fn signal(pid: u32, signal: i32) {
    let pid = libc::pid_t::try_from(pid).expect("a pid fits");
    // SAFETY: kill takes two numbers and touches no memory of ours.
    unsafe { libc::kill(pid, signal) };
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

fn line_with(output: &str, text: &str) -> Option<String> {
    let complete = &output[..output.rfind('\n')?];
    complete.lines().find(|line| line.contains(text)).map(str::to_owned)
}

fn tail(output: &str) -> String {
    let lines: Vec<&str> = output.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

/// A shell that knows our process groups and kills those that are left when its input ends, which is when we are gone.
struct Watcher(Mutex<Child>);

static WATCHER: LazyLock<Watcher> = LazyLock::new(|| {
    const SCRIPT: &str = r#"
        declare -A groups
        while read -r what group; do
          if [ "$what" = + ]; then groups[$group]=1; else unset "groups[$group]"; fi
        done
        for group in "${!groups[@]}"; do kill -KILL -- "-$group"; done"#;
    let shell = Command::new("bash")
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("cannot start bash");
    Watcher(Mutex::new(shell))
});

impl Watcher {
    fn tell(&self, what: char, group: u32) {
        let mut shell = self.0.lock().expect("nobody panics while holding the shell");
        let pipe = shell.stdin.as_mut().expect("its input is a pipe");
        writeln!(pipe, "{what} {group}").expect("the watcher reads until we end");
    }
}
