//! A driver and its executors as real processes that are killed and started again under their old names.
//!
//! Everything that the processes say is kept: a failing test leaves the folder with their logs, their disks and the SQL behind and names it.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use tempfile::TempDir;

use crate::process::{Process, Program, free_ports};
use crate::temp_dir;

/// A process of a [`Cluster`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Member {
    Driver,
    Executor(usize),
}

/// One driver and some executors of one pipeline.
pub struct Cluster {
    folder: Option<TempDir>,
    programs: Vec<(Member, Program)>,
    running: Vec<(Member, Process)>,
    http: String,
}

impl Cluster {
    /// A cluster of the pipeline in `sql` with settings and environment of its own, on free ports, not started yet.
    pub fn new(sql: &str, conf: &[(&str, &str)], env: &[(String, String)], executors: usize) -> Self {
        let folder = temp_dir();
        let file = folder.path().join("pipeline.sql");
        std::fs::write(&file, sql).unwrap_or_else(|e| panic!("cannot write {}: {e}", file.display()));
        let port = free_ports(2);
        let (listen, http) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{}", port + 1));
        let settings = conf.iter().flat_map(|(name, value)| ["-D".to_owned(), format!("{name}={value}")]);
        let driver = Program::ours("millstream-driver")
            .arg("-f")
            .arg(&file)
            .args(["--listen", &listen, "--http", &http, "--executors", &executors.to_string(), "--state-dir"])
            .arg(disk(folder.path(), Member::Driver))
            .args(settings);
        let executor = |n: usize| {
            Program::ours("millstream-executor")
                .args(["--driver", &listen, "--id", &format!("e{n}"), "--slots", "2", "--state-dir"])
                .arg(disk(folder.path(), Member::Executor(n)))
        };
        let members = (0..executors).map(|n| (Member::Executor(n), executor(n)));
        let programs = std::iter::once((Member::Driver, driver)).chain(members);
        let programs = programs.map(|(member, program)| (member, program.envs(env.iter().cloned()))).collect();
        Self { folder: Some(folder), programs, running: Vec::new(), http }
    }

    /// What the driver's HTTP API answers at `path`; nothing when it does not answer or has nothing there.
    pub fn get(&self, path: &str) -> Option<serde_json::Value> {
        let mut connection = TcpStream::connect(&self.http).ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.http);
        connection.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.starts_with("HTTP/1.1 200").then(|| serde_json::from_str(body).ok())?
    }

    /// Every process that belongs to it, running or not.
    pub fn members(&self) -> Vec<Member> {
        self.programs.iter().map(|(member, _)| *member).collect()
    }

    /// Starts a process that does not run.
    pub fn start(&mut self, member: Member) {
        assert!(!self.running.iter().any(|(m, _)| *m == member), "{member:?} runs already");
        let (_, program) = self.programs.iter().find(|(m, _)| *m == member).unwrap_or_else(|| panic!("no {member:?}"));
        self.running.push((member, program.start()));
    }

    /// Starts all processes that do not run.
    pub fn start_all(&mut self) {
        for member in self.members() {
            if !self.running.iter().any(|(m, _)| *m == member) {
                self.start(member);
            }
        }
    }

    pub fn process(&mut self, member: Member) -> &mut Process {
        let found = self.running.iter_mut().find(|(m, _)| *m == member);
        found.map(|(_, process)| process).unwrap_or_else(|| panic!("{member:?} does not run"))
    }

    /// SIGKILL; panics when the process had ended by itself.
    pub fn kill(&mut self, member: Member) {
        let process = self.process(member);
        let alive = process.is_running();
        process.kill();
        self.bury(member);
        assert!(alive, "{member:?} had ended by itself");
    }

    /// Panics when a process that was started has ended by itself.
    pub fn assert_alive(&mut self) {
        for (member, process) in &mut self.running {
            assert!(process.is_running(), "{member:?} has ended by itself");
        }
    }

    /// SIGTERM to the driver, which finishes what is under way; then to the executors. All must end well.
    pub fn drain(&mut self, timeout: Duration) {
        for member in self.members() {
            self.process(member).terminate();
            let status = self.wait(member, timeout);
            assert!(status.success(), "{member:?} ended with {status} after SIGTERM");
        }
    }

    /// Waits until a process ends by itself.
    pub fn wait(&mut self, member: Member, timeout: Duration) -> ExitStatus {
        let status = self.process(member).wait(timeout);
        self.bury(member);
        status
    }

    /// Removes the local disks of all processes, none of which may run.
    pub fn wipe_disks(&self) {
        assert!(self.running.is_empty(), "a disk is wiped only when nobody uses it");
        for member in self.members() {
            let disk = disk(self.folder(), member);
            match std::fs::remove_dir_all(&disk) {
                // Everything that a driver with an object store keeps is there.
                Err(e) if e.kind() == ErrorKind::NotFound && member == Member::Driver => {}
                result => result.unwrap_or_else(|e| panic!("cannot wipe {}: {e}", disk.display())),
            }
        }
    }

    /// What a process has said on standard error, over all its lives.
    pub fn said(&self, member: Member) -> String {
        let earlier = std::fs::read_to_string(log(self.folder(), member)).unwrap_or_default();
        let now = self.running.iter().filter(|(m, _)| *m == member).map(|(_, process)| process.stderr());
        now.fold(earlier, |all, text| all + &text)
    }

    fn folder(&self) -> &Path {
        self.folder.as_ref().map(TempDir::path).expect("it lives as long as the cluster")
    }

    /// Keeps what a process has said and forgets it.
    fn bury(&mut self, member: Member) {
        let said = self.said(member);
        let file = log(self.folder(), member);
        std::fs::write(&file, said).unwrap_or_else(|e| panic!("cannot write {}: {e}", file.display()));
        self.running.retain(|(m, _)| *m != member);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for member in self.members() {
            // Already failing: a log that cannot be written must not hide why.
            let _ = std::fs::write(log(self.folder(), member), self.said(member));
        }
        if let Some(folder) = self.folder.take() {
            eprintln!("logs, disks and SQL of the cluster are kept in {}", folder.keep().display());
        }
    }
}

fn name(member: Member) -> String {
    match member {
        Member::Driver => "driver".to_owned(),
        Member::Executor(n) => format!("executor-{n}"),
    }
}

fn disk(folder: &Path, member: Member) -> PathBuf {
    folder.join(name(member))
}

fn log(folder: &Path, member: Member) -> PathBuf {
    folder.join(format!("{}.log", name(member)))
}
