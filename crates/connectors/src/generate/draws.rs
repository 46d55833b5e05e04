//! Random draws that depend on (seed, row) alone: SplitMix64, whose state is a counter, so that draws can be skipped in one step.

/// Distance between the states of successive draws.
const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;
/// What a row's number is multiplied with to get its first state.
const ROW: u64 = 0xD134_2543_DE82_EF95;
const OFFSET: u64 = 0x632B_E59B_D9B4_E019;

/// The draws of one row.
#[derive(Clone, Copy, Debug)]
pub struct Draws(u64);

impl Draws {
    /// The draws of row `row` under `seed`.
    #[inline]
    pub fn of(seed: u64, row: i64) -> Self {
        let seeded = seed.wrapping_mul(GAMMA).wrapping_add((row as u64).wrapping_mul(ROW));
        Self(mix(seeded.wrapping_add(OFFSET)))
    }

    /// The next 64 random bits.
    #[inline]
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GAMMA);
        mix(self.0)
    }

    /// A number in `[0, n)`; `n` must not be 0.
    #[inline]
    pub fn below(&mut self, n: u64) -> u64 {
        (self.bits() >> 1) % n
    }

    /// A number in `[0, 1)`.
    #[inline]
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Leaves `n` draws out.
    #[inline]
    pub fn skip(&mut self, n: usize) {
        self.0 = self.0.wrapping_add(GAMMA.wrapping_mul(n as u64));
    }
}

#[inline]
fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Letters of the alphabet in one draw.
const PER_DRAW: usize = 12;
const PAIRS: usize = 26 * 26;
/// 26⁶: half of a draw's letters.
const HALF: u64 = (PAIRS * PAIRS * PAIRS) as u64;

/// Digits 0 and 1 of a number in base 26, as letters.
static PAIR: [[u8; 2]; PAIRS] = {
    let mut pairs = [[0; 2]; PAIRS];
    let mut i = 0;
    while i < PAIRS {
        pairs[i] = [b'a' + (i % 26) as u8, b'a' + (i / 26) as u8];
        i += 1;
    }
    pairs
};

/// `len` lower-case letters that are not written yet.
#[derive(Clone, Copy, Debug)]
pub struct Letters {
    draws: Draws,
    pub len: usize,
}

impl Letters {
    /// The next `len` letters of `draws`, which are left behind them.
    #[inline]
    pub fn take(draws: &mut Draws, len: usize) -> Self {
        let letters = Self { draws: *draws, len };
        draws.skip(len.div_ceil(PER_DRAW));
        letters
    }

    /// Appends the letters: those of one draw are the digits of its upper 63 bits in base 26, lowest first.
    pub fn write(mut self, out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + self.len.next_multiple_of(PER_DRAW), 0);
        for twelve in out[start..].chunks_exact_mut(PER_DRAW) {
            let bits = self.draws.bits() >> 1;
            let (low, high) = ((bits % HALF) as u32, (bits / HALF % HALF) as u32);
            let (first, second) = twelve.split_at_mut(PER_DRAW / 2);
            six(first, low);
            six(second, high);
        }
        out.truncate(start + self.len);
    }
}

#[inline]
fn six(out: &mut [u8], number: u32) {
    let pairs = PAIRS as u32;
    let digits = [number % pairs, number / pairs % pairs, number / pairs / pairs];
    for (pair, digit) in out.chunks_exact_mut(2).zip(digits) {
        pair.copy_from_slice(&PAIR[digit as usize]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_the_digits_of_each_draw_and_leave_the_draws_behind_them() {
        for len in [0, 1, 11, 12, 13, 40] {
            let mut slow = Draws::of(3, 17);
            let mut expected = Vec::new();
            let mut left = 0;
            let mut bits = 0;
            for _ in 0..len {
                if left == 0 {
                    (bits, left) = (slow.bits() >> 1, 12);
                }
                expected.push(b'a' + (bits % 26) as u8);
                bits /= 26;
                left -= 1;
            }
            let mut fast = Draws::of(3, 17);
            let mut written = Vec::new();
            Letters::take(&mut fast, len).write(&mut written);
            assert_eq!(written, expected, "{len} letters");
            assert_eq!(fast.bits(), slow.bits(), "{len} letters");
        }
    }

    #[test]
    fn skipping_is_drawing_without_looking() {
        let (mut drawn, mut skipped) = (Draws::of(1, 2), Draws::of(1, 2));
        for _ in 0..5 {
            drawn.bits();
        }
        skipped.skip(5);
        assert_eq!(drawn.bits(), skipped.bits());
    }
}
