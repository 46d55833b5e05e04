//! A server that a script under `dev/` starts, with a folder and ports of its own.

use std::fs::File;
use std::net::TcpListener;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tempfile::TempDir;

use crate::wait::wait_for;
use crate::{cache_dir, process, repository, temp_dir};

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

/// The first of `count` neighbouring ports on which nothing listens, and which no other test is given while this process lives.
///
/// A port that is free when it is chosen may be chosen again before its owner listens on it, or while its owner is down: each
/// is held by a lock on a file until the process ends. They lie below the range that the kernel takes outgoing connections from.
pub fn free_ports(count: u16) -> u16 {
    const FIRST: u32 = 20_000;
    const SPAN: u32 = 10_000;
    let place: u32 = rand::random_range(0..SPAN);
    let mut tried = 0;
    wait_for("free ports", Duration::from_secs(10), || {
        let port = (FIRST + (place + tried) % SPAN) as u16;
        tried += u32::from(count);
        let held: Vec<File> = (port..port + count).map_while(hold_port).collect();
        let taken: Vec<_> = (port..port + count).map_while(|p| TcpListener::bind(("127.0.0.1", p)).ok()).collect();
        let all = usize::from(count);
        (held.len() == all && taken.len() == all).then(|| {
            HELD.lock().unwrap_or_else(PoisonError::into_inner).extend(held);
            port
        })
    })
}

/// Locks of the ports that this process has been given.
static HELD: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// The lock of a port, unless a test has it.
fn hold_port(port: u16) -> Option<File> {
    let folder = cache_dir().join("locks");
    std::fs::create_dir_all(&folder).unwrap_or_else(|e| panic!("cannot make the folder {}: {e}", folder.display()));
    let path = folder.join(format!("port-{port}"));
    let file = File::create(&path).unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
    file.try_lock().is_ok().then_some(file)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_port_is_given_twice() {
        let given: Vec<u16> = (0..200).map(|_| free_ports(2)).collect();
        let ports: BTreeSet<u16> = given.iter().flat_map(|first| [*first, first + 1]).collect();
        assert_eq!(ports.len(), 400);
    }

    #[test]
    fn a_port_that_a_test_has_is_not_given() {
        let port = free_ports(1);
        assert!(hold_port(port).is_none(), "nobody listens on {port}, and yet it is taken");
    }
}
