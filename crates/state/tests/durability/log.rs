//! The local log: one holder, slots for ever, and what was acknowledged survives a SIGKILL.
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use millstream_state::StateError;
use millstream_state::log::{Append, LocalLog, LogEntry, LogStore};

const DIR: &str = "MILLSTREAM_TEST_LOG_DIR";

pub fn record(slot: u64) -> Vec<u8> {
    // Of changing size; every byte depends on the slot.
    let length = 40 + (slot * 7919 % 300) as usize;
    (0..length).map(|i| (slot as usize * 31 + i) as u8).collect()
}

#[tokio::test]
async fn a_slot_keeps_its_record() {
    let dir = tempfile::tempdir().unwrap();
    let log = LocalLog::open(dir.path()).unwrap();
    assert_eq!(log.append(5, b"five").await.unwrap(), Append::Appended);
    assert_eq!(log.append(5, b"five").await.unwrap(), Append::Appended);
    assert_eq!(log.append(5, b"other").await.unwrap(), Append::Occupied(Bytes::from_static(b"five")));
    assert_eq!(log.append(4, b"four").await.unwrap(), Append::Appended);
    assert_eq!(log.append(7, b"").await.unwrap(), Append::Appended);
    drop(log);

    let log = LocalLog::open(dir.path()).unwrap();
    assert_eq!(log.read(6).await.unwrap(), None);
    let entry = |slot, record: &'static [u8]| LogEntry { slot, record: Bytes::from_static(record) };
    assert_eq!(log.scan(0).await.unwrap(), vec![entry(4, b"four"), entry(5, b"five"), entry(7, b"")]);
    assert_eq!(log.scan(6).await.unwrap(), vec![entry(7, b"")]);
    log.truncate_before(5).await.unwrap();
    assert_eq!(log.read(4).await.unwrap(), None);
    assert_eq!(log.scan(0).await.unwrap(), vec![entry(5, b"five"), entry(7, b"")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_racing_appends_one_wins() {
    let dir = tempfile::tempdir().unwrap();
    let log = LocalLog::open(dir.path()).unwrap();
    let racers: Vec<_> = (0..16u8)
        .map(|racer| {
            let log = log.clone();
            tokio::spawn(async move { (racer, log.append(1, &[racer]).await.unwrap()) })
        })
        .collect();
    let mut winners = Vec::new();
    for racer in racers {
        if let (racer, Append::Appended) = racer.await.unwrap() {
            winners.push(racer);
        }
    }
    assert_eq!(winners.len(), 1);
    assert_eq!(*log.read(1).await.unwrap().unwrap(), winners[..]);
}

#[test]
fn a_second_opener_is_told_who_holds_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let (mut child, _) = start_appender(dir.path());
    let refused = LocalLog::open(dir.path()).err().expect("the child holds it");
    let message = refused.to_string();
    assert!(matches!(refused, StateError::Fenced { .. }));
    assert!(message.contains(&format!("another driver (pid {})", child.id())), "{message}");
    child.kill().unwrap();
    child.wait().unwrap();
    LocalLog::open(dir.path()).unwrap();
}

#[test]
fn a_log_is_held_against_its_own_process_too() {
    let dir = tempfile::tempdir().unwrap();
    let log = LocalLog::open(dir.path()).unwrap();
    assert!(matches!(LocalLog::open(dir.path()), Err(StateError::Fenced { .. })));
    drop(log);
    LocalLog::open(dir.path()).unwrap();
}

#[tokio::test]
async fn what_was_acknowledged_survives_sigkill() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = None::<u64>;
    for kill in 0..8u64 {
        let (mut child, mut lines) = start_appender(dir.path());
        for _ in 0..=kill * 13 {
            let line = lines.next().expect("the child appends until it is killed").unwrap();
            acknowledged = Some(line.parse().unwrap());
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // Lines that were on their way.
        for line in lines {
            acknowledged = line.unwrap().parse().ok().or(acknowledged);
        }
        let log = LocalLog::open(dir.path()).unwrap();
        let entries = log.scan(0).await.unwrap();
        for (slot, entry) in entries.iter().enumerate() {
            assert_eq!((entry.slot, &*entry.record), (slot as u64, &*record(slot as u64)));
        }
        let last = acknowledged.unwrap();
        assert!(entries.len() as u64 > last, "slot {last} was acknowledged, and {} are there", entries.len());
    }
}

/// Starts this test binary again as a process that appends slot after slot and prints each once it is acknowledged.
fn start_appender(dir: &Path) -> (Child, impl Iterator<Item = std::io::Result<String>> + use<>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "log::appends_until_killed", "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let begun = lines.by_ref().find(|line| line.as_ref().is_ok_and(|line| line == "begun"));
    assert!(begun.is_some(), "the child opened the log");
    (child, lines)
}

#[tokio::test]
#[ignore = "a child process of other tests"]
async fn appends_until_killed() {
    let dir = std::env::var(DIR).unwrap();
    let log = LocalLog::open(Path::new(&dir)).unwrap();
    let next = log.scan(0).await.unwrap().last().map_or(0, |entry| entry.slot + 1);
    let mut out = std::io::stdout();
    // The harness has printed "test … " without a line's end.
    writeln!(out, "\nbegun").unwrap();
    for slot in next.. {
        assert_eq!(log.append(slot, &record(slot)).await.unwrap(), Append::Appended);
        writeln!(out, "{slot}").unwrap();
    }
}
