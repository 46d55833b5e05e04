//! Sums of floats that do not depend on the order of additions and can be undone: (1e20 + 1) − 1e20 is 1.
//!
//! A fixed-point number wide enough for every finite double (a long accumulator: Kulisch, "Very fast and exact accumulation of
//! products", Computing 2011), in limbs of 32 bits that are kept only where they are not zero. Limbs are 64 bits wide, so carries may wait for
//! many additions. NaN and infinities are counted apart.

/// Weights are added in digits of this many bits.
const WEIGHT_BITS: u32 = 20;
/// Carries are resolved after additions of this weight in sum.
const MAX_PENDING: i64 = 1 << 30;
const LIMB_MASK: i64 = 0xffff_ffff;

/// The sum of weighted doubles.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ExactSum {
    /// Σ `limbs[i]` · 2^(32 · (`first` + i) − 1074)
    first: usize,
    limbs: Vec<i64>,
    pending: i64,
    nans: i64,
    /// +∞ and −∞
    infinities: [i64; 2],
}

impl ExactSum {
    /// Adds `value` `weight` times.
    pub fn add(&mut self, value: f64, weight: i64) {
        if value.is_nan() {
            self.nans += weight;
        } else if value.is_infinite() {
            self.infinities[usize::from(value < 0.0)] += weight;
        } else if value != 0.0 {
            let bits = value.to_bits();
            let exponent = ((bits >> 52) & 0x7ff) as u32;
            let fraction = bits & ((1 << 52) - 1);
            let (mantissa, shift) = if exponent == 0 { (fraction, 0) } else { (fraction | 1 << 52, exponent - 1) };
            let negative = (value < 0.0) != (weight < 0);
            let (mut rest, mut shift) = (weight.unsigned_abs(), shift);
            while rest != 0 {
                let digit = (rest & ((1 << WEIGHT_BITS) - 1)) as i64;
                self.add_shifted(mantissa, shift, if negative { -digit } else { digit });
                rest >>= WEIGHT_BITS;
                shift += WEIGHT_BITS;
            }
        }
    }

    fn add_shifted(&mut self, mantissa: u64, shift: u32, weight: i64) {
        if weight == 0 {
            return;
        }
        if self.pending > MAX_PENDING {
            self.normalise();
        }
        self.pending += weight.abs();
        let at = (shift / 32) as usize;
        if self.limbs.is_empty() {
            self.first = at;
        }
        if at < self.first {
            self.limbs.splice(0..0, std::iter::repeat_n(0, self.first - at));
            self.first = at;
        }
        let at = at - self.first;
        if self.limbs.len() < at + 3 {
            self.limbs.resize(at + 3, 0);
        }
        let wide = u128::from(mantissa) << (shift % 32);
        for (i, limb) in self.limbs[at..at + 3].iter_mut().enumerate() {
            *limb += ((wide >> (32 * i)) as i64 & LIMB_MASK) * weight;
        }
    }

    /// Gives equal sums equal limbs: all in [0, 2³²) but the last of a negative sum, which is −1; no zeros at the ends.
    pub fn normalise(&mut self) {
        self.pending = 0;
        let mut carry = 0;
        for limb in &mut self.limbs {
            let sum = *limb + carry;
            *limb = sum & LIMB_MASK;
            carry = sum >> 32;
        }
        while carry != 0 && carry != -1 {
            self.limbs.push(carry & LIMB_MASK);
            carry >>= 32;
        }
        if carry == -1 {
            self.limbs.push(-1);
            while let [.., below @ LIMB_MASK, _] = self.limbs.as_mut_slice() {
                *below = -1;
                self.limbs.pop();
            }
        } else {
            while self.limbs.last() == Some(&0) {
                self.limbs.pop();
            }
        }
        let zeros = self.limbs.iter().take_while(|l| **l == 0).count();
        self.limbs.drain(..zeros);
        self.first = if self.limbs.is_empty() { 0 } else { self.first + zeros };
    }

    /// Nothing has been added, or all of it taken away again. The sum must be normalised.
    pub fn is_zero(&self) -> bool {
        self.limbs.is_empty() && self.nans == 0 && self.infinities == [0, 0]
    }

    /// The double that is nearest to the sum (ties to even). The sum must be normalised.
    pub fn value(&self) -> f64 {
        match (self.nans, self.infinities) {
            (0, [0, 0]) => self.finite(),
            (0, [_, 0]) => f64::INFINITY,
            (0, [0, _]) => f64::NEG_INFINITY,
            _ => f64::NAN,
        }
    }

    fn finite(&self) -> f64 {
        if self.limbs.last().is_some_and(|l| *l < 0) {
            let mut opposite =
                Self { first: self.first, limbs: self.limbs.iter().map(|l| -l).collect(), ..Self::default() };
            opposite.normalise();
            return -opposite.finite();
        }
        let count = self.limbs.len();
        if count == 0 {
            return 0.0;
        }
        // The last three limbs, with zeros below if there are fewer: 65 to 96 bits.
        let limb = |from_end: usize| count.checked_sub(from_end).map_or(0, |i| self.limbs[i] as u128);
        let top = limb(1) << 64 | limb(2) << 32 | limb(3);
        let length = 128 - top.leading_zeros();
        // Exponent of the lowest bit of `top`, in units of 2^-1074.
        let base = 32 * (self.first as i64 + count as i64 - 3);
        if i64::from(length) + base <= 53 {
            return (top >> -base.min(0)) as f64 * f64::from_bits(1);
        }
        let dropped = length - 53;
        let (mut mantissa, rest) = ((top >> dropped) as u64, top & ((1 << dropped) - 1));
        let half = 1_u128 << (dropped - 1);
        let below = self.limbs[..count.saturating_sub(3)].iter().any(|l| *l != 0);
        if rest > half || rest == half && (below || mantissa & 1 == 1) {
            mantissa += 1;
        }
        let mut exponent = i64::from(dropped) + base + 1;
        if mantissa == 1 << 53 {
            mantissa >>= 1;
            exponent += 1;
        }
        if exponent >= 0x7ff {
            return f64::INFINITY;
        }
        f64::from_bits((exponent as u64) << 52 | mantissa & ((1 << 52) - 1))
    }

    /// Appends the sum, which must be normalised.
    pub fn save(&self, out: &mut Vec<u8>) {
        for count in [self.nans, self.infinities[0], self.infinities[1]] {
            out.extend(count.to_le_bytes());
        }
        out.extend((self.first as u16).to_le_bytes());
        out.extend((self.limbs.len() as u16).to_le_bytes());
        self.limbs.iter().for_each(|l| out.extend((*l as u32).to_le_bytes()));
        out.push(u8::from(self.limbs.last().is_some_and(|l| *l < 0)));
    }

    /// Takes what [`save`](Self::save) wrote from the front of `bytes`.
    pub fn load(bytes: &mut &[u8]) -> Option<Self> {
        let nans = take_i64(bytes)?;
        let infinities = [take_i64(bytes)?, take_i64(bytes)?];
        let first = usize::from(u16::from_le_bytes(take(bytes)?));
        let count = u16::from_le_bytes(take(bytes)?);
        let mut limbs =
            (0..count).map(|_| Some(i64::from(u32::from_le_bytes(take(bytes)?)))).collect::<Option<Vec<_>>>()?;
        let [negative] = take(bytes)?;
        if let (1, Some(last)) = (negative, limbs.last_mut()) {
            *last = -1;
        }
        Some(Self { first, limbs, pending: 0, nans, infinities })
    }
}

/// The next `N` bytes.
pub(super) fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}

pub(super) fn take_i64(bytes: &mut &[u8]) -> Option<i64> {
    take(bytes).map(i64::from_le_bytes)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn sum(values: &[(f64, i64)]) -> ExactSum {
        let mut sum = ExactSum::default();
        values.iter().for_each(|(v, w)| sum.add(*v, *w));
        sum.normalise();
        sum
    }

    #[test]
    fn additions_can_be_undone() {
        assert_eq!(sum(&[(1e20, 1), (1.0, 1), (1e20, -1)]).value(), 1.0);
        assert_eq!(sum(&[(0.1, 3), (0.1, -3)]), ExactSum::default());
        assert_eq!(sum(&[(f64::MAX, 2), (f64::MAX, -1)]).value(), f64::MAX);
        assert_eq!(sum(&[(f64::MAX, 2)]).value(), f64::INFINITY);
        assert_eq!(sum(&[(5e-324, 1), (f64::MAX, 1), (f64::MAX, -1)]).value(), 5e-324);
        assert_eq!(sum(&[(-0.0, 1)]).value(), 0.0);
    }

    #[test]
    fn what_is_not_finite_is_counted() {
        let inf = f64::INFINITY;
        assert_eq!(sum(&[(inf, 1), (1.0, 1)]).value(), inf);
        assert!(sum(&[(inf, 1), (-inf, 1)]).value().is_nan());
        assert_eq!(sum(&[(inf, 1), (-inf, 1), (inf, -1)]).value(), -inf);
        assert_eq!(sum(&[(f64::NAN, 1), (2.0, 1), (f64::NAN, -1)]).value(), 2.0);
    }

    #[test]
    fn one_double_and_integers_come_back_exactly() {
        let mut state = 1_u64;
        for _ in 0..20_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let value = f64::from_bits(state);
            if value.is_finite() {
                assert_eq!(sum(&[(value, 1)]).value(), value);
                assert_eq!(sum(&[(value, -1)]).value(), -value);
                assert_eq!(sum(&[(value, 5), (value, -4)]).value(), value);
                // Twice a value is exact, and so is what is left of it in any order.
                assert_eq!(sum(&[(value, 1), (1.5, 1), (value, 1)]), sum(&[(1.5, 1), (value, 2)]));
            }
            // Integers: the sum of two is rounded once, as the conversion of the exact integer is.
            let (a, b) = ((state >> 11) as f64, (state >> 20) as f64 * -1024.0);
            assert_eq!(sum(&[(a, 1), (b, 3)]).value(), (a as i128 + 3 * (b as i128)) as f64);
        }
        assert_eq!(sum(&[(1.0, i64::MAX)]).value(), i64::MAX as f64);
        assert_eq!(sum(&[(3.0, i64::MIN + 1)]).value(), 3.0 * (i64::MIN + 1) as f64);
    }

    #[test]
    fn ties_go_to_even() {
        let two53 = 9_007_199_254_740_992.0;
        assert_eq!(sum(&[(two53, 1), (1.0, 1)]).value(), two53);
        assert_eq!(sum(&[(two53, 1), (1.0, 3)]).value(), two53 + 4.0);
        assert_eq!(sum(&[(two53, 1), (1.0, 1), (1e-300, 1)]).value(), two53 + 2.0);
        assert_eq!(sum(&[(-two53, 1), (1.0, -1), (1e-300, -1)]).value(), -two53 - 2.0);
    }

    #[test]
    fn sums_are_saved() {
        for values in
            [&[][..], &[(1e300, 1), (-1e-300, 2)], &[(-1.0, 1)], &[(f64::NAN, 1), (f64::INFINITY, 2), (3.5, 1)]]
        {
            let sum = sum(values);
            let mut bytes = Vec::new();
            sum.save(&mut bytes);
            bytes.push(7);
            let mut rest = &bytes[..];
            assert_eq!(ExactSum::load(&mut rest).unwrap(), sum);
            assert_eq!(rest, [7]);
        }
    }
}
