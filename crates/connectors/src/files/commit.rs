//! Publishes files whose names say everything: (sink, task, epoch, sequence).
//!
//! A file is created at once and never replaced. If one of its name is there, it was written by an earlier owner of the task from
//! the same plans, so it must hold the same bytes: then it is published already, and otherwise something else writes here, and the pipeline stops.
//! So no marker is needed: every epoch after the restored checkpoint may be handed in again.
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use millstream_plan::Epoch;

use super::folder::{Created, Folder, PATIENT, Patience};
use crate::{ConnectorError, EncodedEpoch, OutputFile, Payload, SinkCommitter, SinkContext};

/// Files that are written at the same time.
const PARALLEL: usize = 8;

/// Publishes the files of one task below one folder.
pub struct FileCommitter {
    folder: Arc<dyn Folder>,
    /// What the names of the task's files begin with, if that tells them from those of others.
    own_prefix: Option<String>,
    patience: Patience,
}

impl FileCommitter {
    pub fn new(folder: Arc<dyn Folder>, own_prefix: Option<String>) -> Self {
        Self { folder, own_prefix, patience: PATIENT }
    }

    fn publish_file(&self, file: &OutputFile) -> Result<(), ConnectorError> {
        self.patience.retry(|| match self.folder.create(&file.path, &file.bytes)? {
            Created::New => Ok(()),
            Created::Exists => match self.folder.read(&file.path)? {
                Some(there) if there == file.bytes => Ok(()),
                Some(_) => Err(ConnectorError::Fatal(format!(
                    "file {} is there already with other content: another pipeline or an earlier run writes to this folder; \
                     give each its own 'path', or go on from that run's checkpoint",
                    self.folder.name_of(&file.path)
                ))),
                None => Err(ConnectorError::Retry(format!(
                    "file {} is being written by somebody else",
                    self.folder.name_of(&file.path)
                ))),
            },
        })
    }
}

impl SinkCommitter for FileCommitter {
    fn open(&mut self, context: &SinkContext) -> Result<Epoch, ConnectorError> {
        if let Some(prefix) = &self.own_prefix {
            self.patience.retry(|| self.folder.discard_unfinished(prefix))?;
        }
        Ok(context.restored)
    }

    fn publish(&mut self, epochs: Vec<EncodedEpoch>) -> Result<(), ConnectorError> {
        let mut files = Vec::new();
        for epoch in epochs {
            match epoch.payload {
                Payload::Empty => {}
                Payload::Files(more) => files.extend(more),
                other => {
                    let epoch = epoch.epoch;
                    return Err(ConnectorError::Fatal(format!("output of epoch {epoch} is not files but {other:?}")));
                }
            }
        }
        let threads = files.len().min(PARALLEL);
        if threads <= 1 {
            return files.iter().try_for_each(|f| self.publish_file(f));
        }
        let (next, committer, files) = (AtomicUsize::new(0), &*self, &files);
        let work = || -> Result<(), ConnectorError> {
            while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                committer.publish_file(file)?;
            }
            Ok(())
        };
        let outcomes = thread::scope(|scope| {
            let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            running.into_iter().map(thread::ScopedJoinHandle::join).collect::<Vec<_>>()
        });
        let lost = |_| Err(ConnectorError::Fatal("a thread that writes files has panicked".to_owned()));
        let mut errors: Vec<_> =
            outcomes.into_iter().filter_map(|outcome| outcome.unwrap_or_else(lost).err()).collect();
        // What cannot be tried again decides.
        errors.sort_by_key(|e| matches!(e, ConnectorError::Retry(_)));
        errors.into_iter().next().map_or(Ok(()), Err)
    }
}
