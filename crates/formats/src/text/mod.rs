//! Values as text: what JSON strings and numbers, CSV fields and encoders have in common.
pub(crate) mod base64;
pub(crate) mod decimal;
pub(crate) mod number;
pub(crate) mod time;

/// Eight bytes from `at`, little-endian, if there are that many.
#[inline]
pub(crate) fn eight(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk::<8>().map(|c| u64::from_le_bytes(*c))
}

/// Bits 7 of the bytes of `word` that are not ASCII digits.
#[inline]
pub(crate) fn non_digits(word: u64) -> u64 {
    let t = word ^ 0x3030_3030_3030_3030;
    ((t & 0x7f7f_7f7f_7f7f_7f7f).wrapping_add(0x7676_7676_7676_7676) | t) & 0x8080_8080_8080_8080
}
