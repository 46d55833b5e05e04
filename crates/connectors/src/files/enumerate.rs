//! Which files there are to read.
//!
//! A split is a file, its name the path below the folder, and it is planned as a whole: `0..1`. A file is read once: it counts as read when it is planned,
//! and whoever replaces it afterwards is not heard. New files are found by listing the folder; those of one listing come in the order of
//! (time of change, path).
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use millstream_plan::SplitId;

use super::folder::{FileInfo, Folder};
use crate::{ConnectorError, Discovery, SplitEnumerator, SplitState};

/// Lists a folder.
pub struct FileEnumerator {
    folder: Arc<dyn Folder>,
    /// `None`: the first listing is all.
    monitor: Option<Duration>,
    listed_ms: Option<i64>,
    /// Files that were not planned at the last listing, those found earlier first. One that is planned since then stays here until
    /// the next one, should its plan be given up.
    waiting: Vec<FileInfo>,
}

impl FileEnumerator {
    pub fn new(folder: Arc<dyn Folder>, monitor: Option<Duration>) -> Self {
        Self { folder, monitor, listed_ms: None, waiting: Vec::new() }
    }

    fn is_due(&self, now_ms: i64) -> bool {
        match (self.listed_ms, self.monitor) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(at), Some(interval)) => u128::from(now_ms.abs_diff(at)) >= interval.as_millis(),
        }
    }

    fn list(&mut self, positions: &BTreeMap<SplitId, u64>) -> Result<(), ConnectorError> {
        let mut found: BTreeMap<String, FileInfo> =
            self.folder.list()?.into_iter().map(|file| (file.path.clone(), file)).collect();
        let is_planned = |file: &FileInfo| positions.contains_key(&SplitId::from(file.path.as_str()));
        // A file that is still there may have changed, which is no harm as long as it is not planned.
        self.waiting.retain_mut(|waiting| match found.remove(&waiting.path) {
            Some(file) if !is_planned(&file) => {
                *waiting = file;
                true
            }
            _ => false,
        });
        let mut new: Vec<FileInfo> = found.into_values().filter(|file| !is_planned(file)).collect();
        new.sort_by(|a, b| (a.modified_ms, &a.path).cmp(&(b.modified_ms, &b.path)));
        self.waiting.append(&mut new);
        Ok(())
    }
}

impl SplitEnumerator for FileEnumerator {
    fn discover(&mut self, positions: &BTreeMap<SplitId, u64>, now_ms: i64) -> Result<Discovery, ConnectorError> {
        if self.is_due(now_ms) {
            self.list(positions)?;
            self.listed_ms = Some(now_ms);
        }
        let splits = self.waiting.iter().filter_map(|file| {
            let split = SplitId(file.path.clone());
            let waits = !positions.contains_key(&split);
            waits.then(|| SplitState { split, start: 0, end: 1, tag: file.tag.clone(), closed: true })
        });
        Ok(Discovery { splits: splits.collect(), complete: self.monitor.is_none() })
    }
}
