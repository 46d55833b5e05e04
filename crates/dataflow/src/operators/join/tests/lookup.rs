//! Joins in which the sides differ: with what is known when a row comes, and with the version that is valid at its time.
use super::*;

fn lookup(kind: JoinKind, replaces: &[usize], left_appends: bool) -> Join {
    Join { meets: Meets::Known { replaces: replaces.to_vec() }, ..spec(kind, [left_appends, true]) }
}

fn version(kind: JoinKind) -> Join {
    let mut spec = spec(kind, [true, true]);
    spec.bound = Some(TimeDomain::Event(vec![SourceId(0)]));
    spec.inputs[0].retention = Some(Retention { column: 2, hold_ms: 0 });
    Join { meets: Meets::Version { time: 2 }, ..spec }
}

#[test]
fn a_row_meets_what_has_come_before_it() {
    let mut join = Fixture::new(lookup(JoinKind::Inner, &[], true));
    assert_eq!(join.left(&[(r(1, 10, 0), 1)]), []);
    assert_eq!(join.right(&[(r(1, 5, 0), 1), (r(1, 6, 0), 1), ((None, 7, 0), 1)]), []);
    let out = join.left(&[(r(2, 20, 0), 1), (r(1, 11, 0), 1), ((None, 30, 0), 1)]);
    assert_eq!(out, outs(&[("1 11 0 | 1 6 0", 1), ("1 11 0 | 1 5 0", 1)]));
    join.checkpoint();
    join.restore();
    assert_eq!(join.right(&[(r(2, 8, 0), 1)]), []);
    let out = join.left(&[(r(1, 12, 0), 1), (r(2, 21, 0), 1)]);
    assert_eq!(out, outs(&[("1 12 0 | 1 6 0", 1), ("1 12 0 | 1 5 0", 1), ("2 21 0 | 2 8 0", 1)]));
    assert_eq!(join.join.core.sides[0].end(), 0, "no left row is kept");
}

#[test]
fn rows_without_a_match_leave_alone_at_once() {
    let rows = [(r(1, 1, 0), 1), (r(2, 2, 0), 1), ((None, 3, 0), 1), (r(1, 9, 0), 1)];
    let cases = [
        (JoinKind::Left, vec!["1 1 0 | 1 5 0", "2 2 0 | - - -", "- 3 0 | - - -", "1 9 0 | - - -"]),
        (JoinKind::Semi, vec!["1 1 0"]),
        (JoinKind::Anti, vec!["2 2 0", "- 3 0", "1 9 0"]),
    ];
    for (kind, expected) in cases {
        let mut join = Fixture::new(Join { residual: Some(smaller()), ..lookup(kind, &[], true) });
        join.right(&[(r(1, 5, 0), 1)]);
        let expected: Vec<Out> = expected.into_iter().map(|row| (row.to_owned(), 1)).collect();
        assert_eq!(join.left(&rows), expected, "{kind:?}");
    }
    let mut semi = Fixture::new(lookup(JoinKind::Semi, &[], true));
    semi.right(&[(r(1, 5, 0), 1), (r(1, 6, 0), 1)]);
    assert_eq!(semi.left(&rows), outs(&[("1 1 0", 1), ("1 9 0", 1)]));
}

#[test]
fn weights_pass_through_a_lookup() {
    let mut join = Fixture::new(lookup(JoinKind::Left, &[], false));
    join.right(&[(r(1, 5, 0), 1), (r(1, 6, 0), 1)]);
    let out = join.left(&[(r(1, 1, 0), 2), (r(2, 2, 0), 3)]);
    assert_eq!(out, outs(&[("1 1 0 | 1 6 0", 2), ("1 1 0 | 1 5 0", 2), ("2 2 0 | - - -", 3)]));
    let out = join.left(&[(r(1, 1, 0), -1), (r(2, 2, 0), -3)]);
    assert_eq!(out, outs(&[("1 1 0 | 1 6 0", -1), ("1 1 0 | 1 5 0", -1), ("2 2 0 | - - -", -3)]));
}

#[test]
fn the_last_row_of_a_key_takes_the_place_of_the_others() {
    // By another column than that of the join, and by both.
    for replaces in [vec![1], vec![0, 1]] {
        let mut join = Fixture::new(lookup(JoinKind::Inner, &replaces, true));
        join.right(&[(r(1, 5, 0), 1), (r(1, 6, 1), 1), (r(1, 5, 2), 1)]);
        assert_eq!(join.left(&[(r(1, 0, 0), 1)]), outs(&[("1 0 0 | 1 5 2", 1), ("1 0 0 | 1 6 1", 1)]));
        join.checkpoint();
        join.restore();
        join.right(&[(r(1, 6, 3), 1)]);
        assert_eq!(join.left(&[(r(1, 0, 0), 1)]), outs(&[("1 0 0 | 1 6 3", 1), ("1 0 0 | 1 5 2", 1)]));
        join.checkpoint();
        join.restore();
        assert_eq!(join.left(&[(r(1, 0, 0), 1)]), outs(&[("1 0 0 | 1 6 3", 1), ("1 0 0 | 1 5 2", 1)]));
    }
    // It goes to another key of the join, or to none.
    let mut join = Fixture::new(lookup(JoinKind::Inner, &[1], true));
    join.right(&[(r(1, 5, 0), 1), (r(1, 6, 0), 1)]);
    join.right(&[(r(2, 5, 1), 1), ((None, 6, 1), 1)]);
    assert_eq!(join.left(&[(r(1, 0, 0), 1), (r(2, 0, 0), 1)]), outs(&[("2 0 0 | 2 5 1", 1)]));
}

#[test]
fn a_million_matches_leave_in_batches() {
    let mut join = Fixture::new(lookup(JoinKind::Inner, &[], true));
    let rows: Vec<(Row, i64)> = (0..3 * BATCH_ROWS as i64 + 7).map(|v| (r(1, v, 0), 1)).collect();
    join.right(&rows);
    // The fixture checks that no batch is larger than BATCH_ROWS.
    assert_eq!(join.left(&[(r(1, 0, 0), 1), (r(1, 1, 0), 1)]).len(), 2 * rows.len());
}

#[test]
fn keys_that_only_look_up_are_forgotten() {
    let mut join = Fixture::new(lookup(JoinKind::Inner, &[1], true));
    join.right(&[(r(1, 5, 0), 1)]);
    let rows: Vec<(Row, i64)> = (0..70_000).map(|k| (r(k, 0, 0), 1)).collect();
    assert_eq!(join.left(&rows).len(), 1);
    join.checkpoint();
    assert_eq!(join.join.core.keys.len(), 1);
    join.right(&[(r(1, 5, 1), 1)]);
    assert_eq!(join.left(&[(r(1, 0, 0), 1)]), outs(&[("1 0 0 | 1 5 1", 1)]));
}

#[test]
fn the_version_of_a_rows_time_is_known_when_the_watermark_has_passed_it() {
    let mut join = Fixture::new(version(JoinKind::Left));
    // Out of order: the row before its version, versions before older ones.
    assert_eq!(join.epoch(0, &[(0, vec![(r(1, 1, 15), 1), (r(1, 2, 5), 1)]), (1, vec![(r(1, 20, 20), 1)])]), []);
    assert_eq!(join.epoch(10, &[(1, vec![(r(1, 12, 12), 1), (r(2, 3, 1), 1)])]), outs(&[("1 2 5 | - - -", 1)]));
    join.checkpoint();
    join.restore();
    // At 15 the watermark has not passed 15.
    assert_eq!(join.epoch(15, &[(1, vec![(r(1, 10, 10), 1)])]), []);
    let out = join.epoch(25, &[(0, vec![(r(1, 3, 20), 1), (r(1, 4, 19), 1), (r(2, 5, 17), 1), ((None, 6, 18), 1)])]);
    let expected = [
        ("1 1 15 | 1 12 12", 1),
        ("1 3 20 | 1 20 20", 1),
        ("1 4 19 | 1 12 12", 1),
        ("2 5 17 | 2 3 1", 1),
        ("- 6 18 | - - -", 1),
    ];
    assert_eq!(out, outs(&expected));
    join.checkpoint();
    join.restore();
    // Of each key the version that is valid at the watermark is left.
    assert_eq!(join.state()[0], []);
    let rows: Vec<String> = join.state().swap_remove(1).into_iter().map(|(row, ..)| row).collect();
    assert_eq!(rows, ["1 20 20", "2 3 1"]);
    assert_eq!(join.epoch(100, &[(0, vec![(r(1, 7, 30), 1)])]), outs(&[("1 7 30 | 1 20 20", 1)]));
}

#[test]
fn of_versions_with_one_time_the_last_is_valid() {
    for cut in [false, true] {
        let mut join = Fixture::new(version(JoinKind::Inner));
        join.epoch(0, &[(1, vec![(r(1, 1, 5), 1), (r(1, 2, 5), 1)])]);
        if cut {
            join.checkpoint();
            join.restore();
        }
        join.epoch(0, &[(1, vec![(r(1, 3, 5), 1)]), (0, vec![(r(1, 9, 5), 1)])]);
        assert_eq!(join.epoch(6, &[]), outs(&[("1 9 5 | 1 3 5", 1)]));
        assert_eq!(join.state()[1].len(), 1);
    }
}

#[test]
fn a_condition_holds_for_the_valid_version_or_for_none() {
    for (kind, expected) in [(JoinKind::Inner, vec![]), (JoinKind::Left, vec![("1 7 30 | - - -", 1)])] {
        let mut join = Fixture::new(Join { residual: Some(smaller()), ..version(kind) });
        // The older version would do.
        join.epoch(0, &[(1, vec![(r(1, 9, 10), 1), (r(1, 1, 20), 1)]), (0, vec![(r(1, 7, 30), 1)])]);
        assert_eq!(join.epoch(31, &[]), outs(&expected));
    }
}

#[test]
fn rows_that_wait_say_when_they_are_due() {
    let mut join = Fixture::new(version(JoinKind::Inner));
    assert_eq!(join.join.report().next_timer, None);
    join.epoch(0, &[(1, vec![(r(1, 9, 10), 1)]), (0, vec![(r(1, 7, 30), 1), (r(1, 7, 25), 1)])]);
    assert_eq!(join.join.report().next_timer, Some(26));
    join.epoch(26, &[]);
    // Of rows that came together, a bound.
    assert!(join.join.report().next_timer.is_some_and(|at| (27..=31).contains(&at)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn versions_equal_nested_loops(
        // Side, key, value, time since the watermark; watermark's step and whether a restore follows.
        epochs in prop::collection::vec(
            (prop::collection::vec((0..2_usize, prop::option::weighted(0.9, 0..4_i64), 0..5_i64, 0..30_i64), 0..12), 0..15_i64, any::<bool>()),
            1..12,
        ),
        is_left in any::<bool>(),
        has_residual in any::<bool>(),
    ) {
        let kind = if is_left { JoinKind::Left } else { JoinKind::Inner };
        let residual = has_residual.then(smaller);
        let mut join = Fixture::new(Join { residual, ..version(kind) });
        let mut sides: [Vec<Row>; 2] = [Vec::new(), Vec::new()];
        let mut found: Vec<String> = Vec::new();
        let mut watermark = 0;
        for (rows, step, restores) in epochs {
            let input: Vec<(usize, Vec<(Row, i64)>)> =
                rows.iter().map(|(side, k, v, t)| (*side, vec![((*k, *v, watermark + t), 1)])).collect();
            input.iter().for_each(|(side, rows)| sides[*side].push(rows[0].0));
            watermark += step;
            found.extend(join.epoch(watermark, &input).into_iter().map(|(row, _)| row));
            if restores {
                join.checkpoint();
                join.restore();
            }
            let passed = sides[0].iter().filter(|(.., t)| *t < watermark);
            let mut expected: Vec<String> = passed
                .filter_map(|(k, v, t)| {
                    let versions = sides[1].iter().filter(|(own, _, from)| k.is_some() && own == k && from <= t);
                    let valid = versions.max_by_key(|(.., from)| *from).filter(|(_, w, _)| !has_residual || v < w);
                    let show = |(k, v, t): &Row| format!("{} {v} {t}", k.map_or("-".to_owned(), |k| k.to_string()));
                    match valid {
                        Some(version) => Some(format!("{} | {}", show(&(*k, *v, *t)), show(version))),
                        None => is_left.then(|| format!("{} | - - -", show(&(*k, *v, *t)))),
                    }
                })
                .collect();
            expected.sort();
            let mut sorted = found.clone();
            sorted.sort();
            prop_assert_eq!(sorted, expected);
        }
    }
}
