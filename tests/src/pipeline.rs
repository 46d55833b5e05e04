//! Running a pipeline to its end: in one process, or with a driver and executors.

use std::time::Duration;

use tempfile::TempDir;

use crate::cluster::{Cluster, Member};
use crate::process::{Finished, Program};
use crate::{temp_dir, unique};

/// How long a bounded pipeline may take on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Where the tasks run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `millstream run`: all in one process.
    Embedded,
    /// `millstream run --executors`: a process that starts so many executors.
    Spawned(usize),
    /// `millstream-driver` and so many `millstream-executor`s.
    Cluster(usize),
}

/// A pipeline that is to run: SQL, settings, variables, and a folder for its files, which goes when it is dropped.
pub struct Pipeline {
    name: String,
    sql: String,
    conf: Vec<(String, String)>,
    env: Vec<(String, String)>,
    dir: TempDir,
}

impl Pipeline {
    /// A pipeline of a unique name that begins with `name`, with its checkpoints in a local folder.
    pub fn new(name: &str, sql: impl Into<String>) -> Self {
        let dir = temp_dir();
        let location = dir.path().join("checkpoints").display().to_string();
        let conf = vec![("checkpointLocation".to_owned(), location)];
        Self { name: unique(name), sql: sql.into(), conf, env: Vec::new(), dir }
    }

    /// Overrides a setting.
    pub fn conf(mut self, name: &str, value: impl Into<String>) -> Self {
        self.conf.retain(|(n, _)| n != name);
        self.conf.push((name.to_owned(), value.into()));
        self
    }

    /// Adds variables, such as those of [`S3::env`](crate::s3::S3::env).
    pub fn env(mut self, variables: Vec<(String, String)>) -> Self {
        self.env.extend(variables);
        self
    }

    /// Runs until its input has ended; panics with what the processes said when it takes too long or fails.
    pub fn run(&self, layout: Layout) {
        let finished = self.attempt(layout);
        assert!(finished.status.success(), "{layout:?}: {}\n{}", finished.stdout, finished.stderr);
    }

    /// Runs until the program that leads it has ended, well or not.
    pub fn attempt(&self, layout: Layout) -> Finished {
        let file = self.dir.path().join("pipeline.sql");
        let sql = format!("SET 'pipeline.name' = '{}';\n{}", self.name, self.sql);
        std::fs::write(&file, &sql).unwrap_or_else(|e| panic!("cannot write {}: {e}", file.display()));
        match layout {
            Layout::Embedded | Layout::Spawned(_) => {
                let conf = self.conf.iter().flat_map(|(name, value)| ["-D".to_owned(), format!("{name}={value}")]);
                let run = Program::ours("millstream").envs(self.env.iter().cloned()).arg("run").arg("-f").arg(&file);
                let run = run.args(conf).arg("--state-dir").arg(self.dir.path().join("state"));
                match layout {
                    Layout::Spawned(executors) => run.args(["--executors", &executors.to_string()]).run(TIMEOUT),
                    _ => run.run(TIMEOUT),
                }
            }
            Layout::Cluster(executors) => {
                let conf: Vec<(&str, &str)> = self.conf.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
                let mut cluster = Cluster::new(&sql, &conf, &self.env, executors);
                cluster.start_all();
                let status = cluster.wait(Member::Driver, TIMEOUT);
                Finished { status, stdout: String::new(), stderr: cluster.said(Member::Driver) }
            }
        }
    }
}
