//! Truncations and flipped bits of the local log's files: an error, or the records as they were, never others.
//!
//! RocksDB's block cache knows a table by an identity inside it, which the copies made here share: a scan must not fill it.
use std::fs;
use std::path::{Path, PathBuf};

use millstream_state::StateError;
use millstream_state::log::{LocalLog, LogEntry, LogStore};

use super::copy_dir;
use super::log::record;

/// A log of `slots` records as a crash leaves it: not closed.
async fn crashed_log(slots: u64, size: usize) -> (tempfile::TempDir, Vec<LogEntry>) {
    let dir = tempfile::tempdir().unwrap();
    let (open, left) = (dir.path().join("open"), dir.path().join("left"));
    let log = LocalLog::open(&open).unwrap();
    let mut written = Vec::new();
    for slot in 0..slots {
        let record = record(slot).repeat(size);
        log.append(slot, &record).await.unwrap();
        written.push(LogEntry { slot, record: record.into() });
    }
    copy_dir(&open, &left);
    (dir, written)
}

async fn recover(dir: &Path) -> Result<Vec<LogEntry>, StateError> {
    LocalLog::open(dir)?.scan(0).await
}

fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let found = fs::read_dir(dir.join("db")).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = found.filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
    found.sort();
    found
}

/// The only file with this extension that is not empty.
fn only_file(dir: &Path, extension: &str) -> PathBuf {
    let mut found = files(dir, extension);
    found.retain(|path| fs::metadata(path).unwrap().len() > 0);
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

fn damaged_copy(original: &Path, name: &Path, damage: impl FnOnce(&mut Vec<u8>)) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_dir(original, copy.path());
    let file = copy.path().join("db").join(name.file_name().unwrap());
    let mut bytes = fs::read(&file).unwrap();
    damage(&mut bytes);
    fs::write(&file, bytes).unwrap();
    copy
}

#[tokio::test]
async fn a_cut_tail_of_the_write_ahead_log_leaves_a_prefix() {
    let (dir, written) = crashed_log(30, 1).await;
    let left = dir.path().join("left");
    let wal = only_file(&left, "log");
    let length = fs::read(&wal).unwrap().len();
    let mut prefixes = std::collections::BTreeSet::new();
    for cut in (0..=length).rev().step_by(97) {
        let copy = damaged_copy(&left, &wal, |bytes| bytes.truncate(cut));
        let found = recover(copy.path()).await.unwrap();
        assert_eq!(found[..], written[..found.len()], "cut to {cut} of {length}");
        prefixes.insert(found.len());
    }
    assert!(prefixes.contains(&30) && prefixes.len() > 20, "{prefixes:?}");
}

#[tokio::test]
async fn a_flipped_bit_in_the_write_ahead_log_is_reported() {
    let (dir, written) = crashed_log(30, 1).await;
    let left = dir.path().join("left");
    let wal = only_file(&left, "log");
    let length = fs::read(&wal).unwrap().len();
    let mut reported = 0;
    for at in (0..length).step_by(61) {
        let copy = damaged_copy(&left, &wal, |bytes| bytes[at] ^= 1 << (at % 8));
        match recover(copy.path()).await {
            Err(error) => {
                assert!(matches!(error, StateError::Corrupt { .. }), "byte {at}: {error}");
                reported += 1;
            }
            // A length that reaches past the end looks like a write that was cut off: what is before it stands.
            Ok(found) => assert_eq!(found[..], written[..found.len()], "byte {at}"),
        }
    }
    assert!(reported > length / 61 / 2, "{reported} reported");
}

#[tokio::test]
async fn a_flipped_bit_in_a_table_is_reported_or_harmless() {
    // Enough for the memtable to be flushed; the reopening flushes the rest.
    let (dir, written) = crashed_log(300, 100).await;
    let left = dir.path().join("left");
    assert_eq!(recover(&left).await.unwrap(), written);
    let tables = files(&left, "sst");
    assert!(!tables.is_empty());
    let mut reported = 0;
    for table in &tables {
        let length = fs::read(table).unwrap().len();
        for at in (0..length).step_by(length / 40 + 1) {
            let copy = damaged_copy(&left, table, |bytes| bytes[at] ^= 1 << (at % 8));
            match recover(copy.path()).await {
                Err(error) => {
                    assert!(matches!(error, StateError::Corrupt { .. }), "byte {at}: {error}");
                    reported += 1;
                }
                Ok(found) => assert_eq!(found, written, "byte {at} of {}", table.display()),
            }
        }
        for cut in [0, length / 2, length - 1] {
            let copy = damaged_copy(&left, table, |bytes| bytes.truncate(cut));
            let error = recover(copy.path()).await.unwrap_err();
            assert!(matches!(error, StateError::Corrupt { .. }), "cut to {cut}: {error}");
        }
    }
    assert!(reported > 20, "{reported} reported");
}

#[tokio::test]
async fn a_missing_table_is_reported() {
    let (dir, _) = crashed_log(300, 100).await;
    let left = dir.path().join("left");
    recover(&left).await.unwrap();
    fs::remove_file(files(&left, "sst").first().unwrap()).unwrap();
    let error = recover(&left).await.unwrap_err();
    assert!(matches!(error, StateError::Corrupt { .. } | StateError::Io { .. }), "{error}");
}
