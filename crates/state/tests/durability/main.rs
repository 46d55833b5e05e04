//! Real RocksDB and real files in temporary folders: races, lost replies, kills, damage, restores.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod checkpoint;
mod create;
mod full_disk;
mod log;
mod log_damage;

use std::fs;
use std::path::Path;

/// Copies a folder, without regard for locks and open files: what a crash would leave.
fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
