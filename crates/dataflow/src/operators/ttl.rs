//! `state.ttl`: entries of an operator's state that have not been touched for a while lapse.
//!
//! Time is the plan's, so that a replay sees the same. An entry (a group, a partition, the rows of a key) is **touched** when an epoch has input
//! for it, and **lapses** at the end of the first epoch whose time is at least `after_ms` past that: it is as if its rows had been
//! deleted. With [`TtlMode::Retract`] the operator emits that; with [`TtlMode::Freeze`] it emits nothing, and what it has emitted
//! stays with its readers. A retraction of a row that has lapsed is dropped and counted, which is why an operator under a ttl must know
//! which rows it still has.
//!
//! The operator numbers its entries (**slots**) and writes the time of each into its state entry: a touched entry is always a changed one.
use std::collections::BTreeMap;

use crate::graph::{Ttl, TtlMode};

/// When each slot was touched.
pub(super) struct Touched {
    ttl: Ttl,
    /// By slot; `NEVER` for slots that do not lapse.
    at: Vec<i64>,
    /// Slots by the time at which they were touched; those that were touched again later are there more than once.
    by_time: BTreeMap<i64, Vec<u32>>,
}

/// Time of slots that do not lapse.
pub(super) const NEVER: i64 = i64::MIN;

impl Touched {
    pub fn new(ttl: Ttl) -> Self {
        Self { ttl, at: Vec::new(), by_time: BTreeMap::new() }
    }

    /// The operator must emit what lapses.
    pub fn retracts(&self) -> bool {
        self.ttl.mode == TtlMode::Retract
    }

    /// Notes that an epoch at this time touched the slot.
    pub fn touch(&mut self, slot: u32, now_ms: i64) {
        let at = slot as usize;
        if self.at.len() <= at {
            self.at.resize(at + 1, NEVER);
        }
        if std::mem::replace(&mut self.at[at], now_ms) != now_ms {
            self.by_time.entry(now_ms).or_default().push(slot);
        }
    }

    /// The slot is another entry's from now on, or nobody's.
    pub fn forget(&mut self, slot: u32) {
        if let Some(at) = self.at.get_mut(slot as usize) {
            *at = NEVER;
        }
    }

    /// When the slot was touched, for its state entry.
    pub fn time(&self, slot: u32) -> i64 {
        self.at.get(slot as usize).copied().unwrap_or(NEVER)
    }

    /// Slots that lapse in an epoch at this time, in no order. They are forgotten.
    pub fn lapse(&mut self, now_ms: i64) -> Vec<u32> {
        let mut lapsed = Vec::new();
        let at = &mut self.at;
        while let Some(mut entry) = self.by_time.first_entry() {
            let time = *entry.key();
            if time.saturating_add(self.ttl.after_ms) <= now_ms {
                for slot in entry.remove() {
                    if at[slot as usize] == time {
                        at[slot as usize] = NEVER;
                        lapsed.push(slot);
                    }
                }
                continue;
            }
            // Slots that were touched again do not wait for this time.
            let slots = entry.get_mut();
            while slots.last().is_some_and(|s| at[*s as usize] != time) {
                slots.pop();
            }
            if !slots.is_empty() {
                break;
            }
            entry.remove();
        }
        lapsed
    }

    /// When the next entry lapses, if that must be noticed without input: in time of the plan.
    pub fn next_wake(&self) -> Option<i64> {
        let (time, _) = self.by_time.first_key_value().filter(|_| self.retracts())?;
        Some(time.saturating_add(self.ttl.after_ms))
    }

    pub fn bytes(&self) -> usize {
        self.at.capacity() * 8 + self.by_time.values().map(|s| s.capacity() * 4 + 32).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_lapse_when_they_have_not_been_touched() {
        let mut touched = Touched::new(Ttl { after_ms: 10, mode: TtlMode::Retract });
        touched.touch(0, 0);
        touched.touch(1, 0);
        touched.touch(3, 4);
        assert_eq!((touched.lapse(9), touched.next_wake()), (vec![], Some(10)));
        touched.touch(0, 9);
        touched.touch(0, 9);
        assert_eq!((touched.lapse(10), touched.next_wake()), (vec![1], Some(14)));
        touched.forget(3);
        // What nobody waits for wakes nobody.
        assert_eq!((touched.lapse(13), touched.next_wake()), (vec![], Some(19)));
        assert_eq!((touched.lapse(50), touched.next_wake()), (vec![0], None));
        touched.touch(1, 50);
        assert_eq!((touched.time(1), touched.time(0), touched.time(99)), (50, NEVER, NEVER));
        let mut frozen = Touched::new(Ttl { after_ms: 10, mode: TtlMode::Freeze });
        frozen.touch(0, 0);
        assert_eq!((frozen.next_wake(), frozen.lapse(10)), (None, vec![0]));
    }
}
