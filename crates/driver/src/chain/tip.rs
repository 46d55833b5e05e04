//! The end of the chain, and the rule that says which record may come next.
use millstream_plan::{ContentHash, Generation};
use serde::{Deserialize, Serialize};

use super::record::{Body, Record, Slot, WriterId};
use crate::bugs::{Bug, planted};

/// The end of a chain.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tip {
    /// Hash of the last valid record; all zeros before the first.
    pub hash: ContentHash,
    /// Its generation; 0 before the first.
    pub generation: Generation,
    /// Who wrote it.
    pub writer: WriterId,
    /// The slot after the last one read.
    pub next: Slot,
}

/// Whether a record continues the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Valid,
    Void(VoidReason),
}

/// Why a record does not continue the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoidReason {
    /// It names another predecessor.
    Predecessor,
    /// Its generation is lower than that of its predecessor.
    LowerGeneration,
    /// Its generation is higher, but it is no claim.
    Unclaimed,
    /// Another driver claimed this generation.
    OtherWriter,
    /// A second genesis, a claim before the genesis, or a second claim of a generation.
    Misplaced,
}

impl Tip {
    /// Whether `record` continues the chain that ends here.
    #[must_use]
    pub fn judge(&self, record: &Record) -> Verdict {
        if record.prev != self.hash && !planted(Bug::NoChainCheck) {
            return Verdict::Void(VoidReason::Predecessor);
        }
        let begins = self.generation == Generation(0);
        match &record.body {
            Body::Genesis(_) if begins => Verdict::Valid,
            Body::Genesis(_) => Verdict::Void(VoidReason::Misplaced),
            Body::Plan(_) | Body::Claim(_) | Body::Void { .. } if begins => Verdict::Void(VoidReason::Misplaced),
            Body::Claim(_) if record.generation > self.generation => Verdict::Valid,
            Body::Claim(_) if record.generation == self.generation => Verdict::Void(VoidReason::Misplaced),
            Body::Claim(_) => Verdict::Void(VoidReason::LowerGeneration),
            Body::Plan(_) | Body::Void { .. } if record.generation < self.generation => {
                Verdict::Void(VoidReason::LowerGeneration)
            }
            Body::Plan(_) | Body::Void { .. } if record.generation > self.generation => {
                Verdict::Void(VoidReason::Unclaimed)
            }
            Body::Plan(_) | Body::Void { .. } if record.writer != self.writer => Verdict::Void(VoidReason::OtherWriter),
            Body::Plan(_) | Body::Void { .. } => Verdict::Valid,
        }
    }

    /// The end after `record`, whose bytes have this hash and stand in this slot.
    #[must_use]
    pub fn after(&self, record: &Record, hash: ContentHash, slot: Slot) -> Self {
        Self {
            hash,
            generation: record.generation.max(self.generation),
            writer: record.writer.clone(),
            next: slot.next(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::{Claim, Genesis};
    use millstream_plan::Epoch;

    fn record(prev: ContentHash, generation: u64, writer: &str, body: Body) -> Record {
        Record { prev, generation: Generation(generation), writer: WriterId(writer.into()), body }
    }

    #[test]
    fn only_one_kind_of_record_may_follow() {
        let start = Tip::default();
        let genesis = record(ContentHash::default(), 1, "a", Body::Genesis(Genesis::default()));
        assert_eq!(start.judge(&genesis), Verdict::Valid);
        assert_eq!(
            start.judge(&record(ContentHash::default(), 1, "a", Body::Claim(Claim::default()))),
            Verdict::Void(VoidReason::Misplaced)
        );
        let hash = ContentHash::of(&genesis.encode());
        let tip = start.after(&genesis, hash, Slot(0));
        let void = || Body::Void { from: Epoch(1) };
        let claim = || Body::Claim(Claim::default());
        for (generation, writer, body, verdict) in [
            (1, "a", void(), Verdict::Valid),
            (1, "b", void(), Verdict::Void(VoidReason::OtherWriter)),
            (0, "a", void(), Verdict::Void(VoidReason::LowerGeneration)),
            (2, "b", void(), Verdict::Void(VoidReason::Unclaimed)),
            (2, "b", claim(), Verdict::Valid),
            (1, "b", claim(), Verdict::Void(VoidReason::Misplaced)),
            (0, "b", claim(), Verdict::Void(VoidReason::LowerGeneration)),
            (1, "a", Body::Genesis(Genesis::default()), Verdict::Void(VoidReason::Misplaced)),
        ] {
            assert_eq!(tip.judge(&record(hash, generation, writer, body)), verdict, "{generation} {writer}");
        }
        assert_eq!(tip.judge(&record(ContentHash::of(b"x"), 1, "a", void())), Verdict::Void(VoidReason::Predecessor));
    }
}
