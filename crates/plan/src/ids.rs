//! One newtype per id, so that an epoch cannot be passed for a generation.
use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// The one after this.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(/// A micro-batch. The first epoch of a pipeline is 1; 0 stands for "before the first".
    Epoch(u64));
number!(/// One leadership of a driver.
    Generation(u64));
number!(/// One deployment of tasks inside a generation.
    Attempt(u32));
number!(/// A part of the graph between shuffles.
    StageId(u16));
number!(/// A source table of the pipeline.
    SourceId(u16));
number!(/// A sink (one INSERT) of the pipeline.
    SinkId(u16));
number!(/// An operator of the graph; unique in the pipeline and stable for the same SQL.
    OperatorId(u16));
number!(/// Hash of a key modulo [`KEY_GROUPS`].
    KeyGroup(u16));

/// Number of key groups of a pipeline, fixed for its life: part of the state's format.
pub const KEY_GROUPS: u16 = 128;

impl Epoch {
    /// The epoch before, or `None` for epoch 0.
    #[must_use]
    pub fn previous(self) -> Option<Self> {
        self.0.checked_sub(1).map(Self)
    }
}

/// (generation, attempt): which deployment a message belongs to. Lower eras are dropped by every receiver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Era {
    /// Compared first.
    pub generation: Generation,
    /// Compared second.
    pub attempt: Attempt,
}

impl fmt::Display for Era {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.generation, self.attempt)
    }
}

/// Task `index` of the `parallelism` tasks of a stage. Logical: which executor runs it never matters to results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskId {
    /// The stage.
    pub stage: StageId,
    /// 0-based index in the stage.
    pub index: u16,
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.stage, self.index)
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self(name.to_owned())
            }
        }
    };
}

name!(/// An executor's name: stable over restarts where its local state is worth finding again.
    ExecutorId);
name!(/// A split inside a source: `topic/partition`, a file's path, or a generator's shard number.
    SplitId);

/// The key groups that task `index` of `parallelism` owns: a contiguous range, sizes differ by at most one.
#[must_use]
pub fn key_groups_of(index: u16, parallelism: u16) -> Range<u16> {
    let bound = |i: u16| (u32::from(i) * u32::from(KEY_GROUPS)).div_ceil(u32::from(parallelism.max(1)));
    // At most KEY_GROUPS, which fits.
    bound(index) as u16..bound(index + 1) as u16
}

/// The task that owns `group` when a stage has `parallelism` tasks; inverse of [`key_groups_of`].
#[must_use]
pub fn owner_of(group: KeyGroup, parallelism: u16) -> u16 {
    (u32::from(group.0) * u32::from(parallelism) / u32::from(KEY_GROUPS)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_has_exactly_the_owner_whose_range_holds_it() {
        for parallelism in 1..=KEY_GROUPS {
            let mut seen = 0;
            for index in 0..parallelism {
                for group in key_groups_of(index, parallelism) {
                    assert_eq!(owner_of(KeyGroup(group), parallelism), index, "{group} of {parallelism}");
                    seen += 1;
                }
            }
            assert_eq!(seen, KEY_GROUPS);
        }
    }
}
