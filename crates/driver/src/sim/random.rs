//! SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): small, and the same everywhere.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// In `[from, to)`.
    pub(super) fn range(&mut self, from: i64, to: i64) -> i64 {
        from + (self.next() % (to - from).max(1) as u64) as i64
    }

    /// True in `percent` of the cases.
    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    /// Mostly short, sometimes long, seldom very long.
    pub(super) fn delay(&mut self) -> i64 {
        match self.next() % 100 {
            0..80 => self.range(1, 20),
            80..96 => self.range(20, 200),
            96..99 => self.range(200, 2_000),
            _ => self.range(2_000, 9_000),
        }
    }
}

pub(super) fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Depends on both and on their order.
pub(super) fn combine(a: u64, b: u64) -> u64 {
    mix(a.rotate_left(17) ^ mix(b.wrapping_add(0x1234_5678_9abc_def1)))
}
