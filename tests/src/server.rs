//! A server that a script under `dev/` starts, with a folder and ports of its own.

use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::wait::wait_for;
use crate::{process, repository, temp_dir};

/// One test server. Dropping it kills it; a watcher in the script does so when the test program dies without dropping.
pub(crate) struct Server {
    script: &'static str,
    prefix: &'static str,
    port: u16,
    dir: TempDir,
}

impl Server {
    /// Starts `dev/<script>`, whose variables begin with `prefix`, on the first of `ports` neighbouring free ports.
    pub(crate) fn start(script: &'static str, prefix: &'static str, ports: u16) -> Self {
        let server = Self { script, prefix, port: free_ports(ports), dir: temp_dir() };
        server.run("start", &[]);
        server
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Runs one command of the script and panics with its output when it fails.
    pub(crate) fn run(&self, command: &str, arguments: &[&str]) {
        run_script(
            self.script,
            &[
                (format!("{}_PORT", self.prefix), self.port.to_string()),
                (format!("{}_DIR", self.prefix), self.dir.path().display().to_string()),
                ("MILLSTREAM_OWNER".into(), std::process::id().to_string()),
            ],
            command,
            arguments,
        );
    }

    pub(crate) fn signal(&self, signal: i32) {
        let file = self.dir.path().join("pid");
        let pid = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{} is not running: {e}", self.script));
        process::signal(pid.trim().parse().expect("the script writes a number"), signal);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.run("kill", &[]);
    }
}

pub(crate) fn run_script(script: &str, env: &[(String, String)], command: &str, arguments: &[&str]) {
    let path = repository().join("dev").join(script);
    let output = Command::new(&path)
        .arg(command)
        .args(arguments)
        .envs(env.iter().cloned())
        .output()
        .unwrap_or_else(|e| panic!("cannot run {}: {e}", path.display()));
    assert!(
        output.status.success(),
        "{script} {command} {arguments:?} failed:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The first of `count` neighbouring ports on which nothing listens.
///
/// They lie below the range that the kernel takes outgoing connections from, and tests that run at the same time start to
/// look at different places, so that a port is still free when the server takes it.
pub fn free_ports(count: u16) -> u16 {
    const FIRST: u32 = 20_000;
    const SPAN: u32 = 10_000;
    let place: u32 = rand::random_range(0..SPAN);
    let mut tried = 0;
    wait_for("free ports", Duration::from_secs(10), || {
        let port = (FIRST + (place + tried) % SPAN) as u16;
        tried += u32::from(count);
        let taken: Vec<_> = (port..port + count).map_while(|p| TcpListener::bind(("127.0.0.1", p)).ok()).collect();
        (taken.len() == usize::from(count)).then_some(port)
    })
}
