//! What a driver is told at its start.
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What a driver is told at its start.
#[derive(Clone, Debug)]
pub struct DriverOptions {
    /// The pipeline.
    pub sql: String,
    /// Overrides of its `SET` statements.
    pub conf: BTreeMap<String, String>,
    /// Name of the pipeline if the text sets none.
    pub default_name: String,
    /// Tasks per stage at the first start, if `parallelism` is not set.
    pub parallelism: u16,
    /// Folder of local files; a pipeline without `checkpointLocation` is kept below it.
    pub state_dir: PathBuf,
    /// `host:port` for executors of other processes; `None`: only those of this process.
    pub control: Option<String>,
    /// `host:port` of metrics, probes and the API.
    pub http: Option<String>,
    /// Start as soon as so many executors have joined (or, with fewer, after 5 s).
    pub executors: usize,
    /// Where this driver runs, for people.
    pub host: String,
}
