//! Literals in, literals out; and random upserts against a plain map, cut into epochs anyhow.
use std::collections::BTreeMap;

use super::*;
use crate::graph::NodeKind;
use crate::operators::ordered::testing::{Change, Fed, add_up, batch, random, schema, text};

fn keyed(input: KeyedInput) -> Fed {
    Fed::new(NodeKind::Keyed(Arc::new(Keyed { table: "t".to_owned(), keys: vec![0], input })), &[])
}

const fn row(k: i64, v: i64, s: &'static str) -> Change {
    (Some(k), Some(v), Some(s), 1)
}

const fn gone(k: i64) -> Change {
    (Some(k), None, None, -1)
}

#[test]
fn the_last_row_of_a_key_takes_the_place_of_the_one_before() {
    let mut table = keyed(KeyedInput::Upserts);
    assert_eq!(table.epoch(&[row(1, 5, "a"), row(2, 1, "a"), row(1, 7, "b")]), ["+1: 1 7 b", "+1: 2 1 a"]);
    assert_eq!(table.epoch(&[row(2, 2, "x"), row(1, 7, "b")]), ["-1: 2 1 a", "+1: 2 2 x"]);
    // Away and back; away; never there.
    assert_eq!(table.epoch(&[gone(1), row(1, 8, "c"), gone(2), gone(3)]), ["-1: 1 7 b", "+1: 1 8 c", "-1: 2 2 x"]);
    assert_eq!(table.epoch(&[row(3, 1, "z"), gone(3)]), [""; 0]);
    assert_eq!(table.epoch(&[(None, None, None, 1)]), ["+1: - - -"]);
    assert_eq!(table.keys(), 2);
}

#[test]
fn changes_leave_consolidated() {
    let mut table = keyed(KeyedInput::Changes);
    assert_eq!(table.epoch(&[row(1, 5, "a"), row(2, 5, "a")]), ["+1: 1 5 a", "+1: 2 5 a"]);
    // The new row may come before the old one goes.
    let moved = [row(1, 6, "b"), (Some(1), Some(5), Some("a"), -1)];
    assert_eq!(table.epoch(&moved), ["-1: 1 5 a", "+1: 1 6 b"]);
    let there_and_back = [(Some(1), Some(6), Some("b"), -1), row(1, 6, "b")];
    assert_eq!(table.epoch(&there_and_back), [""; 0]);
}

#[test]
fn two_rows_of_a_key_are_an_error_that_names_it_also_epochs_apart() {
    let mut table = keyed(KeyedInput::Changes);
    table.epoch(&[row(1, 5, "a"), row(2, 5, "a")]);
    table.seal();
    table.restore();
    let error = table.try_epoch(&[batch(&[row(2, 6, "b")])], i64::MIN).unwrap_err().to_string();
    assert!(
        error.starts_with("table 't': several rows for key (k) = (2): (6, b) and (5, a); make the query"),
        "{error}"
    );
    let mut table = keyed(KeyedInput::Changes);
    let twice = [row(7, 1, "x"), row(7, 1, "x")];
    let error = table.try_epoch(&[batch(&twice)], i64::MIN).unwrap_err().to_string();
    assert!(error.contains("(k) = (7): (1, x) and (1, x)"), "{error}");
    let mut table = keyed(KeyedInput::Changes);
    let error = table.try_epoch(&[batch(&[(Some(7), Some(1), None, -1)])], i64::MIN).unwrap_err();
    assert!(matches!(&error, DataflowError::Corrupt(m) if m.contains("key (7)") && m.contains("1, NULL")), "{error}");
}

/// Upserts by epoch; some keys go, some of them without having been there.
fn upserts(seed: u64) -> Vec<Vec<Change>> {
    let mut state = seed;
    let mut row = || {
        let draw = random(&mut state);
        let key = (!draw.is_multiple_of(9)).then_some((draw % 9) as i64);
        match (draw >> 32) % 4 {
            0 => (key, None, None, -1),
            _ => (key, Some((draw >> 8) as i64 % 3), [None, Some("a")][(draw >> 16) as usize % 2], 1),
        }
    };
    (0..12).map(|_| (0..10).map(|_| row()).collect()).collect()
}

#[test]
fn however_upserts_are_cut_the_table_is_the_same() {
    for seed in 0..20 {
        let all = upserts(seed);
        let expected = |epochs: &[Vec<Change>]| {
            let mut rows = BTreeMap::new();
            for (k, v, s, weight) in epochs.iter().flatten() {
                match weight {
                    -1 => rows.remove(k),
                    _ => rows.insert(*k, format!("{} {} {}", text(*k), text(*v), text(*s))),
                };
            }
            rows.into_values().map(|row| (row, 1)).collect::<BTreeMap<String, i64>>()
        };
        let run = |restores: bool, step: usize| {
            let mut table = keyed(KeyedInput::Upserts);
            let (mut held, mut outs) = (BTreeMap::new(), Vec::new());
            for (n, epoch) in all.chunks(step).enumerate() {
                let out = table.epoch(&epoch.concat());
                add_up(&mut held, &out);
                assert_eq!(held, expected(&all[..((n + 1) * step).min(all.len())]), "seed {seed}");
                outs.push(out);
                if restores && n % 2 == 0 {
                    table.seal();
                    table.restore();
                }
            }
            table.seal();
            (outs, table.store)
        };
        let (outs, store) = run(false, 1);
        assert!((outs, store.clone()) == run(true, 1), "a restore shows, seed {seed}");
        assert!(store == run(true, 3).1, "the state depends on the epochs, seed {seed}");
    }
}

#[test]
fn a_key_may_be_all_there_is() {
    let spec = Keyed { table: "t".to_owned(), keys: vec![2, 0, 1], input: KeyedInput::Upserts };
    assert_eq!(schema().fields().len(), spec.keys.len());
    let mut table = Fed::new(NodeKind::Keyed(Arc::new(spec)), &[]);
    let same = (Some(1), Some(2), Some("a"));
    assert_eq!(table.epoch(&[row(1, 2, "a"), row(1, 2, "a")]), ["+1: 1 2 a"]);
    table.seal();
    table.restore();
    assert_eq!(table.epoch(&[row(1, 2, "b"), (same.0, same.1, same.2, -1)]), ["+1: 1 2 b", "-1: 1 2 a"]);
}
