//! The crate's error: each variant says what the caller can do.
use std::io;
use std::path::{Path, PathBuf};

/// What went wrong, by what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The settings cannot work: show it to the user and exit.
    #[error("{message}")]
    Config {
        /// Names bucket, endpoint or path, and the cause.
        message: String,
        /// What to change.
        hint: Option<String>,
    },
    /// The outcome is unknown or the store was unavailable. The same call with the same arguments may be made again; a
    /// write may also still take effect without it.
    #[error("{what}: {cause}; trying again is safe")]
    Retry {
        /// The operation and its object.
        what: String,
        /// The last failure.
        cause: String,
    },
    /// Somebody else holds what was asked for: stop.
    #[error("{what} is held by {holder}")]
    Fenced {
        /// What was asked for.
        what: String,
        /// Who has it.
        holder: String,
    },
    /// Stored bytes are not what was written. Nothing of them was decoded.
    #[error("{what} is damaged: {why}")]
    Corrupt {
        /// File, object or slot.
        what: String,
        /// What does not fit.
        why: String,
    },
    /// The disk is full: the epoch fails; it can be run again after space is freed.
    #[error("no space left on the device of {}; free some space, the work then goes on", path.display())]
    NoSpace {
        /// A path on that device.
        path: PathBuf,
    },
    /// Any other failure of the local disk.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl StateError {
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace { path: path.to_owned() },
            _ => Self::Io { path: path.to_owned(), source },
        }
    }

    pub(crate) fn rocks(dir: &Path, error: rocksdb::Error) -> Self {
        let kind = error.kind();
        let text = error.into_string();
        if text.contains("No space left on device") || text.contains("Disk quota exceeded") {
            return Self::NoSpace { path: dir.to_owned() };
        }
        match kind {
            rocksdb::ErrorKind::Corruption => Self::Corrupt { what: dir.display().to_string(), why: text },
            _ => Self::Io { path: dir.to_owned(), source: io::Error::other(text) },
        }
    }

    pub(crate) fn corrupt(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Corrupt { what: what.into(), why: why.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_apart() {
        let full = StateError::io(Path::new("/data/x"), io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(full.to_string(), "no space left on the device of /data/x; free some space, the work then goes on");
        let denied = StateError::io(Path::new("/data/x"), io::Error::from(io::ErrorKind::PermissionDenied));
        assert!(matches!(denied, StateError::Io { .. }));
    }
}
