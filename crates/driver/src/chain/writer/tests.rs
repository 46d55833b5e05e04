#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
use millstream_plan::EpochPlan;

use super::*;
use crate::chain::{Claim, Genesis};

fn plan(epoch: u64) -> Body {
    Body::Plan(EpochPlan {
        epoch: Epoch(epoch),
        now_ms: 0,
        sources: Vec::new(),
        checkpoint: false,
        flush: false,
        last: false,
    })
}

struct Case {
    writer: Writer,
    out: Vec<WriterCommand>,
}

impl Case {
    /// A writer whose genesis is durable in slot 0, at time 0.
    fn new() -> Self {
        let mut case =
            Self { writer: Writer::new(Tip::default(), Generation(1), WriterId("w".into())), out: Vec::new() };
        case.append(0, Body::Genesis(Genesis::default()));
        let (slot, hash, _) = case.sent();
        assert_eq!(case.reply(0, Reply::Appended { slot, hash }), Outcome::Durable { epoch: None });
        case
    }

    fn append(&mut self, now: Millis, body: Body) -> Tip {
        self.writer.append(now, body, &mut self.out)
    }

    fn reply(&mut self, now: Millis, reply: Reply) -> Outcome {
        self.writer.reply(now, reply, &mut self.out).unwrap()
    }

    /// The oldest append that was sent and not yet taken.
    fn sent(&mut self) -> (Slot, ContentHash, Vec<u8>) {
        match self.out.remove(0) {
            WriterCommand::Append { slot, hash, bytes } => (slot, hash, bytes),
            WriterCommand::Look { slot } => panic!("a look at {slot}"),
        }
    }
}

#[test]
fn durable_needs_everything_before_it() {
    let mut case = Case::new();
    case.append(0, plan(1));
    case.append(0, plan(2));
    let ((s1, h1, _), (s2, h2, _)) = (case.sent(), case.sent());
    assert_eq!(case.reply(1, Reply::Appended { slot: s2, hash: h2 }), Outcome::Nothing);
    assert_eq!(case.reply(1, Reply::Appended { slot: s1, hash: h1 }), Outcome::Durable { epoch: Some(Epoch(2)) });
}

#[test]
fn our_own_record_is_a_lost_reply() {
    let mut case = Case::new();
    case.append(0, plan(1));
    let (slot, hash, bytes) = case.sent();
    assert_eq!(case.reply(1, Reply::Refused { slot, hash, found: bytes }), Outcome::Durable { epoch: Some(Epoch(1)) });
}

#[test]
fn a_void_record_in_the_way_is_skipped_by_all() {
    let mut case = Case::new();
    case.append(0, plan(1));
    case.append(0, plan(2));
    let ((s1, h1, b1), (s2, h2, b2)) = (case.sent(), case.sent());
    let trash = Record {
        prev: ContentHash::of(b"other"),
        generation: Generation(1),
        writer: WriterId("old".into()),
        body: plan(1),
    };
    assert_eq!(case.reply(1, Reply::Appended { slot: s2, hash: h2 }), Outcome::Nothing);
    assert_eq!(case.reply(1, Reply::Refused { slot: s1, hash: h1, found: trash.encode() }), Outcome::Nothing);
    // Plan 1 takes slot 2, where plan 2 stands (void there), then 3; plan 2 waits until 1 is in its place.
    assert_eq!(case.sent(), (s2, h1, b1.clone()));
    assert_eq!(case.out, []);
    assert_eq!(case.reply(2, Reply::Refused { slot: s2, hash: h1, found: b2.clone() }), Outcome::Nothing);
    assert_eq!(case.sent(), (Slot(3), h1, b1));
    assert_eq!(case.reply(3, Reply::Appended { slot: s2, hash: h2 }), Outcome::Nothing, "a reply of before");
    assert_eq!(case.reply(3, Reply::Appended { slot: Slot(3), hash: h1 }), Outcome::Durable { epoch: Some(Epoch(1)) });
    assert_eq!(case.sent(), (Slot(4), h2, b2));
    assert_eq!(case.reply(4, Reply::Appended { slot: Slot(4), hash: h2 }), Outcome::Durable { epoch: Some(Epoch(2)) });
    assert_eq!(case.append(4, plan(3)).next, Slot(6));
}

#[test]
fn a_claim_in_the_way_overtakes() {
    let mut case = Case::new();
    let before = case.writer.tip.clone();
    case.append(0, plan(1));
    let (slot, hash, _) = case.sent();
    let claim = Record {
        prev: before.hash,
        generation: Generation(2),
        writer: WriterId("new".into()),
        body: Body::Claim(Claim::default()),
    };
    let outcome = case.reply(1, Reply::Refused { slot, hash, found: claim.encode() });
    assert!(matches!(outcome, Outcome::Overtaken { record, .. } if *record == claim));
}

#[test]
fn a_late_success_counts_only_after_a_look() {
    for (claimed, newest) in [(false, 1), (true, 1), (false, 2)] {
        let mut case = Case::new();
        let after = case.append(0, plan(1));
        let (slot, hash, _) = case.sent();
        assert_eq!(case.reply(60_000, Reply::Appended { slot, hash }), Outcome::Nothing);
        assert_eq!(case.out, [WriterCommand::Look { slot: Slot(2) }]);
        let claim = Record {
            prev: after.hash,
            generation: Generation(2),
            writer: WriterId("new".into()),
            body: Body::Claim(Claim::default()),
        };
        let found = claimed.then(|| claim.encode());
        let outcome = case.reply(60_005, Reply::Looked { slot: Slot(2), found, newest: Generation(newest) });
        match (claimed, newest) {
            (true, _) => assert!(matches!(outcome, Outcome::Overtaken { .. })),
            (false, 1) => assert_eq!(outcome, Outcome::Durable { epoch: Some(Epoch(1)) }),
            (false, _) => assert_eq!(outcome, Outcome::Replaced { generation: Generation(newest) }),
        }
    }
}

#[test]
fn what_is_taken_out_never_counts_as_durable() {
    let mut case = Case::new();
    case.append(0, plan(1));
    case.append(0, plan(2));
    case.append(0, Body::Void { from: Epoch(2) });
    let mut outcomes = Vec::new();
    while !case.out.is_empty() {
        let (slot, hash, _) = case.sent();
        outcomes.push(case.reply(1, Reply::Appended { slot, hash }));
    }
    assert_eq!(
        outcomes,
        [
            Outcome::Durable { epoch: Some(Epoch(1)) },
            Outcome::Durable { epoch: None },
            Outcome::Durable { epoch: None }
        ]
    );
}
