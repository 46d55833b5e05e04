#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
use millstream_connectors::SplitState;
use millstream_plan::StageId;

use super::*;
use crate::shape::{Side, SinkShape, SourceShape};

const FREE: Admission = Admission { in_flight: 0, checkpoint: true };

fn shape() -> PipelineShape {
    PipelineShape {
        name: "p".into(),
        parallelism: 2,
        sources: vec![SourceShape {
            id: SourceId(0),
            name: "t".into(),
            uses_watermark: true,
            ..SourceShape::default()
        }],
        stages: vec![StageId(0), StageId(1)],
        sinks: vec![SinkShape::default()],
        timers: [(OperatorId(1), TimerDomain::Event(vec![SourceId(0)])), (OperatorId(2), TimerDomain::Processing)]
            .into(),
        ..PipelineShape::default()
    }
}

fn planner(shape: PipelineShape, options: PlanOptions) -> Planner {
    Planner::new(shape, 2, options, History::default(), &SplitWatermarks::new(), Epoch(0), 0)
}

fn discovery(splits: &[(&str, u64)], complete: bool) -> Discovery {
    let splits = splits.iter().map(|(id, end)| SplitState {
        split: (*id).into(),
        start: 0,
        end: *end,
        tag: String::new(),
        closed: false,
    });
    Discovery { splits: splits.collect(), complete }
}

fn read(split: &str, records: u64, watermark: i64) -> SplitReport {
    SplitReport {
        source: SourceId(0),
        split: split.into(),
        records,
        bytes: records,
        watermark: Some(Watermark(watermark)),
        late: 0,
        bad: 0,
    }
}

fn plan(next: Next) -> EpochPlan {
    match next {
        Next::Plan(plan) => *plan,
        other => panic!("{other:?}"),
    }
}

fn ranges(plan: &EpochPlan) -> Vec<(&str, u16, u64, u64)> {
    plan.sources[0].ranges.iter().map(|r| (r.split.0.as_str(), r.task, r.from, r.to)).collect()
}

fn task(stage: u16) -> TaskId {
    TaskId { stage: StageId(stage), index: 0 }
}

#[test]
fn splits_share_the_budget_by_what_they_hold_and_keep_their_task() {
    let mut p = planner(shape(), PlanOptions { start_rows: 100, ..PlanOptions::default() });
    p.available(SourceId(0), &discovery(&[("a", 300), ("b", 100), ("c", 0)], false), 0);
    let first = plan(p.next(10, FREE));
    assert_eq!(ranges(&first), [("a", 0, 0, 75), ("b", 1, 0, 25)]);
    p.available(SourceId(0), &discovery(&[("a", 300), ("b", 100), ("c", 400), ("d", 1)], false), 0);
    let second = plan(p.next(20, FREE));
    assert_eq!(ranges(&second), [("a", 0, 75, 107), ("b", 1, 25, 35), ("c", 0, 0, 57), ("d", 1, 0, 1)]);
}

#[test]
fn a_limit_below_the_number_of_splits_goes_round() {
    let mut shape = shape();
    shape.sources[0].max_per_trigger = Some(2);
    let mut p = planner(shape, PlanOptions::default());
    p.available(SourceId(0), &discovery(&[("a", 9), ("b", 9), ("c", 9)], false), 0);
    let names = |p: &mut Planner, now| -> Vec<String> {
        plan(p.next(now, FREE)).sources[0].ranges.iter().map(|r| r.split.0.clone()).collect()
    };
    assert_eq!(names(&mut p, 10), ["a", "b"]);
    assert_eq!(names(&mut p, 20), ["a", "c"]);
    assert_eq!(names(&mut p, 30), ["b", "c"]);
}

#[test]
fn full_quick_epochs_grow_and_slow_ones_shrink() {
    let mut p = planner(shape(), PlanOptions { start_rows: 10_000, target_ms: 100, ..PlanOptions::default() });
    p.available(SourceId(0), &discovery(&[("a", 10_000_000)], false), 0);
    let mut sizes = Vec::new();
    for (i, service_ms) in [10, 10, 400, 100].into_iter().enumerate() {
        let plan = plan(p.next(10 * (i as i64 + 1), FREE));
        sizes.push(plan.positions());
        let splits = [read("a", plan.positions(), 0)];
        p.epoch_done(&EpochDone {
            plan: &plan,
            splits: &splits,
            service_ms,
            output_bytes: 0,
            unsealed_bytes: 0,
            executors: 1,
        });
    }
    assert_eq!(sizes, [10_000, 20_000, 40_000, 20_000]);
}

#[test]
fn the_watermark_follows_the_slowest_split_and_never_goes_back() {
    let mut p = planner(shape(), PlanOptions::default());
    p.available(SourceId(0), &discovery(&[("a", 10), ("b", 10)], false), 0);
    let first = plan(p.next(10, FREE));
    assert_eq!(first.watermark(SourceId(0)), Watermark::MIN);
    p.report(task(0), &[read("a", 10, 500)], &[], 11);
    p.available(SourceId(0), &discovery(&[("a", 20), ("b", 20)], false), 12);
    assert_eq!(plan(p.next(20, FREE)).watermark(SourceId(0)), Watermark::MIN, "b has not told");
    p.report(task(0), &[read("b", 10, 300), read("a", 10, 100)], &[], 21);
    p.available(SourceId(0), &discovery(&[("a", 30), ("b", 30)], false), 22);
    assert_eq!(plan(p.next(30, FREE)).watermark(SourceId(0)), Watermark(300));
}

#[test]
fn idle_and_closed_splits_do_not_hold_it_back() {
    let mut shape = shape();
    shape.sources[0].idle_timeout_ms = Some(1_000);
    let mut p = planner(shape, PlanOptions::default());
    let mut found = discovery(&[("a", 10), ("b", 0), ("f", 1)], false);
    found.splits[2].closed = true;
    p.available(SourceId(0), &found, 0);
    plan(p.next(10, FREE));
    p.report(task(0), &[read("a", 10, 500), read("f", 1, 7)], &[timer(1, Some(400))], 900);
    assert!(matches!(p.next(950, FREE), Next::Wait { .. }), "b holds it back");
    let due = plan(p.next(1_001, FREE));
    assert_eq!((due.watermark(SourceId(0)), due.positions()), (Watermark(500), 0));
}

fn timer(operator: u16, at: Option<i64>) -> OperatorReport {
    OperatorReport { operator: OperatorId(operator), keys: 0, bytes: 0, next_timer: at, next_wake: None, dropped: 0 }
}

#[test]
fn empty_epochs_only_for_timers_that_are_due() {
    let mut p = planner(shape(), PlanOptions::default());
    p.available(SourceId(0), &discovery(&[("a", 10)], false), 0);
    plan(p.next(10, FREE));
    p.report(task(0), &[read("a", 10, 500)], &[], 11);
    p.report(task(1), &[], &[timer(1, Some(501)), timer(2, Some(2_000))], 11);
    assert_eq!(p.next(20, FREE), Next::Wait { until: Some(2_000) });
    let due = plan(p.next(2_000, FREE));
    assert_eq!((due.positions(), due.now_ms, due.watermark(SourceId(0))), (0, 2_000, Watermark(500)));
    p.report(task(1), &[], &[timer(1, Some(501)), timer(2, None)], 2_001);
    assert!(matches!(p.next(2_100, FREE), Next::Wait { .. }));
}

#[test]
fn an_operator_of_event_time_can_wake_by_processing_time() {
    let mut p = planner(shape(), PlanOptions::default());
    p.available(SourceId(0), &discovery(&[("a", 10)], false), 0);
    plan(p.next(10, FREE));
    let report = |wake: Option<i64>| OperatorReport { next_wake: wake, ..timer(1, Some(501)) };
    p.report(task(0), &[read("a", 10, 500)], &[], 11);
    p.report(task(1), &[], &[report(Some(3_000))], 11);
    assert_eq!(p.next(20, FREE), Next::Wait { until: Some(3_000) });
    let due = plan(p.next(3_000, FREE));
    assert_eq!((due.positions(), due.now_ms, due.watermark(SourceId(0))), (0, 3_000, Watermark(500)));
    p.report(task(1), &[], &[report(None)], 3_001);
    assert!(matches!(p.next(3_100, FREE), Next::Wait { .. }));
}

#[test]
fn small_input_waits_for_company_until_the_longest_delay() {
    let mut shape = shape();
    shape.sources[0].min_per_trigger = Some(100);
    shape.sources[0].max_trigger_delay_ms = 500;
    let mut p = planner(shape, PlanOptions::default());
    p.available(SourceId(0), &discovery(&[("a", 100)], false), 0);
    plan(p.next(10, FREE));
    p.report(task(1), &[], &[], 11);
    p.available(SourceId(0), &discovery(&[("a", 150)], false), 20);
    assert_eq!(p.next(20, FREE), Next::Wait { until: Some(510) });
    assert_eq!(plan(p.next(510, FREE)).positions(), 50);
}

#[test]
fn a_bounded_input_ends_with_an_empty_epoch_at_the_last_watermark() {
    let mut p = planner(shape(), PlanOptions::default());
    p.available(SourceId(0), &discovery(&[("a", 10)], true), 0);
    let first = plan(p.next(10, FREE));
    assert_eq!((first.positions(), first.last), (10, false));
    assert_ne!(first.watermark(SourceId(0)), Watermark::MAX, "its own rows must not be late");
    let last = plan(p.next(20, Admission { in_flight: 1, checkpoint: false }));
    assert_eq!((last.positions(), last.watermark(SourceId(0))), (0, Watermark::MAX));
    assert!(last.last && last.checkpoint && last.flush);
    assert_eq!(p.next(30, FREE), Next::Complete);
}

#[test]
fn available_now_reads_what_was_there_and_can_go_on_later() {
    let options = PlanOptions { trigger: Trigger::AvailableNow, ..PlanOptions::default() };
    let mut p = planner(shape(), options);
    p.available(SourceId(0), &discovery(&[("a", 10)], false), 0);
    p.available(SourceId(0), &discovery(&[("a", 99)], false), 5);
    assert_eq!(plan(p.next(10, FREE)).positions(), 10);
    let busy = Admission { in_flight: 1, checkpoint: true };
    assert!(matches!(p.next(20, busy), Next::Wait { .. }), "its timers are not known yet");
    p.report(task(0), &[read("a", 10, 500)], &[timer(1, Some(400))], 21);
    let closing = plan(p.next(30, FREE));
    assert_eq!((closing.watermark(SourceId(0)), closing.checkpoint), (Watermark(500), false));
    p.report(task(0), &[], &[timer(1, None)], 31);
    let end = plan(p.next(40, FREE));
    assert!(end.checkpoint && !end.last);
    assert_eq!(p.next(50, FREE), Next::Complete);
}

#[test]
fn files_are_flushed_and_state_is_saved_in_time_and_only_if_there_is_something() {
    let mut shape = shape();
    shape.sinks[0].commit_interval_ms = Some(1_000);
    let mut p = planner(shape, PlanOptions { checkpoint_interval_ms: 5_000, ..PlanOptions::default() });
    p.available(SourceId(0), &discovery(&[("a", 10)], false), 0);
    assert!(!plan(p.next(10, FREE)).flush);
    p.report(task(1), &[], &[], 11);
    assert_eq!(p.next(20, FREE), Next::Wait { until: Some(1_000) });
    let flush = plan(p.next(1_000, FREE));
    assert_eq!((flush.flush, flush.checkpoint), (true, false));
    assert_eq!(p.next(2_500, FREE), Next::Wait { until: Some(5_000) });
    let checkpoint = plan(p.next(5_000, FREE));
    assert_eq!((checkpoint.flush, checkpoint.checkpoint), (true, true));
    assert_eq!(p.next(60_000, FREE), Next::Wait { until: None });
}

#[test]
fn a_trigger_interval_falls_on_its_multiples() {
    let options = PlanOptions { trigger: Trigger::Interval { interval_ms: 500 }, ..PlanOptions::default() };
    let mut p = planner(shape(), options);
    p.available(SourceId(0), &discovery(&[("a", 10)], false), 0);
    plan(p.next(1_730, FREE));
    p.available(SourceId(0), &discovery(&[("a", 20)], false), 0);
    assert_eq!(p.next(1_740, FREE), Next::Wait { until: Some(2_000) });
    assert_eq!(plan(p.next(2_000, FREE)).positions(), 10);
}

#[test]
fn what_was_taken_out_is_read_again_from_where_it_began() {
    let mut p = planner(shape(), PlanOptions::default());
    p.available(SourceId(0), &discovery(&[("a", 10)], false), 0);
    let first = plan(p.next(10, FREE));
    p.rewind(History::default(), Epoch(0), 11);
    p.too_large(first.positions());
    let again = plan(p.next(20, FREE));
    assert_eq!((again.epoch, ranges(&again)), (Epoch(1), vec![("a", 0, 0, 5)]));
    assert_eq!(p.history().sources[&SourceId(0)].splits.get(&"a".into()).unwrap().next, 5);
}

#[test]
fn a_quiet_split_that_does_not_start_at_0_is_written_down_once() {
    let mut p = planner(shape(), PlanOptions::default());
    let mut found = discovery(&[("busy", 10), ("quiet", 7)], false);
    found.splits[1].start = 7;
    p.available(SourceId(0), &found, 0);
    assert_eq!(ranges(&plan(p.next(10, FREE))), [("busy", 0, 0, 10), ("quiet", 1, 7, 7)]);
    found.splits[0].end = 20;
    p.available(SourceId(0), &found, 20);
    assert_eq!(ranges(&plan(p.next(30, FREE))), [("busy", 0, 10, 20)]);
    found.splits[1].end = 9;
    p.available(SourceId(0), &found, 40);
    assert_eq!(ranges(&plan(p.next(50, FREE))), [("quiet", 1, 7, 9)]);
}

fn with_side(side: Side) -> PipelineShape {
    let table = SourceShape { id: SourceId(1), name: "side".into(), side: Some(side), ..SourceShape::default() };
    PipelineShape { sources: [shape().sources, vec![table]].concat(), ..shape() }
}

/// Ranges of the table, and of its side table.
fn both(plan: &EpochPlan) -> [Vec<&str>; 2] {
    [0, 1].map(|source: usize| plan.sources[source].ranges.iter().map(|r| r.split.0.as_str()).collect())
}

#[test]
fn side_tables_are_read_first_and_in_epochs_of_their_own() {
    let mut p = planner(with_side(Side::Refreshed), PlanOptions::default());
    p.available(SourceId(0), &discovery(&[("a", 10)], false), 0);
    assert!(matches!(p.next(10, FREE), Next::Wait { .. }), "the side table is not listed");
    p.available(SourceId(1), &discovery(&[("x", 1), ("y", 1)], false), 11);
    assert_eq!(both(&plan(p.next(20, FREE))), [vec![], vec!["x", "y"]]);
    assert_eq!(both(&plan(p.next(30, FREE))), [vec!["a"], vec![]]);
    p.available(SourceId(0), &discovery(&[("a", 20)], false), 31);
    p.available(SourceId(1), &discovery(&[("z", 1)], false), 31);
    assert_eq!(both(&plan(p.next(40, FREE))), [vec![], vec!["z"]], "what is new is read before any further row");
    assert_eq!(both(&plan(p.next(50, FREE))), [vec!["a"], vec![]]);
}

#[test]
fn a_refreshed_side_table_ends_with_the_others() {
    let mut p = planner(with_side(Side::Refreshed), PlanOptions::default());
    p.available(SourceId(0), &discovery(&[("a", 10)], true), 0);
    p.available(SourceId(1), &discovery(&[("x", 1)], false), 0);
    assert_eq!(both(&plan(p.next(10, FREE))), [vec![], vec!["x"]]);
    assert_eq!(both(&plan(p.next(20, FREE))), [vec!["a"], vec![]]);
    let last = plan(p.next(30, FREE));
    assert!(last.last && last.sources.iter().all(|s| s.watermark == Watermark::MAX), "{last:?}");
}

#[test]
fn an_empty_side_table_holds_nothing_up() {
    let mut p = planner(with_side(Side::Whole), PlanOptions { trigger: Trigger::Once, ..PlanOptions::default() });
    p.available(SourceId(0), &discovery(&[("a", 10)], false), 0);
    p.available(SourceId(1), &discovery(&[], true), 0);
    assert_eq!(both(&plan(p.next(10, FREE))), [vec!["a"], vec![]]);
}

#[test]
fn a_whole_side_table_is_closed_with_the_first_row_that_is_read() {
    for (side, expected) in [(Side::Whole, [vec!["a"], vec![]]), (Side::Refreshed, [vec![], vec!["y"]])] {
        let options = PlanOptions { trigger: Trigger::Once, ..PlanOptions::default() };
        let mut p = planner(with_side(side), options);
        p.available(SourceId(1), &discovery(&[("x", 1)], true), 0);
        p.available(SourceId(0), &discovery(&[("a", 10)], false), 0);
        assert_eq!(both(&plan(p.next(10, FREE))), [vec![], vec!["x"]]);
        assert_eq!(both(&plan(p.next(20, FREE))), [vec!["a"], vec![]], "one epoch more, for the table itself");
        let history = p.history().clone();
        let mut p =
            Planner::new(with_side(side), 2, PlanOptions::default(), history, &SplitWatermarks::new(), Epoch(2), 30);
        p.available(SourceId(1), &discovery(&[("y", 1)], true), 30);
        p.available(SourceId(0), &discovery(&[("a", 20)], false), 30);
        assert_eq!(both(&plan(p.next(40, FREE))), expected);
    }
}
