//! Searching bytes 16 or 64 at a time. The search stays inside the message: its last bytes are looked at in a block
//! that overlaps the one before, so that no byte is read one by one unless the whole message is shorter than a block.

/// Bytes of a block.
const BLOCK: usize = 16;
/// Bytes of four blocks.
const WIDE: usize = 64;

/// A class of bytes, testable on a whole block. The mask has bit `i` set if byte `i` belongs to it.
trait Class {
    fn mask(block: &[u8; BLOCK]) -> u32;
    fn holds(byte: u8) -> bool;
}

/// What ends the plain part of a string: quote, backslash, control characters, and bytes of multi-byte characters.
struct NotPlain;
/// Quote and backslash.
struct Quote;
/// Quote and brackets.
struct Structure;

impl Block {
    /// Bytes equal to `byte` become ones, the others zeros.
    #[inline]
    fn equal(self, byte: u8) -> Self {
        self.same(Self::load(&[byte; BLOCK]))
    }
}

impl Class for NotPlain {
    #[inline]
    fn mask(block: &[u8; BLOCK]) -> u32 {
        let b = Block::load(block);
        // As signed numbers, control characters and all bytes from 0x80 on are less than a space.
        b.less(b' ').or(b.equal(b'"')).or(b.equal(b'\\')).mask()
    }

    fn holds(byte: u8) -> bool {
        !(b' '..0x80).contains(&byte) || Quote::holds(byte)
    }
}

impl Class for Quote {
    #[inline]
    fn mask(block: &[u8; BLOCK]) -> u32 {
        let b = Block::load(block);
        b.equal(b'"').or(b.equal(b'\\')).mask()
    }

    fn holds(byte: u8) -> bool {
        matches!(byte, b'"' | b'\\')
    }
}

impl Class for Structure {
    #[inline]
    fn mask(block: &[u8; BLOCK]) -> u32 {
        let b = Block::load(block);
        // Square and curly brackets differ in bit 5 alone.
        let folded = b.or(Block::load(&[0x20; BLOCK]));
        folded.equal(b'{').or(folded.equal(b'}')).or(b.equal(b'"')).mask()
    }

    fn holds(byte: u8) -> bool {
        matches!(byte, b'"' | b'{' | b'}' | b'[' | b']')
    }
}

#[cfg(target_arch = "x86_64")]
use sse2::Block;

/// SSE2, which every x86_64 has.
#[cfg(target_arch = "x86_64")]
mod sse2 {
    use std::arch::x86_64 as arch;

    use super::BLOCK;

    #[derive(Clone, Copy)]
    pub(super) struct Block(arch::__m128i);

    // SAFETY (of all calls here): SSE2 belongs to the baseline of x86_64, and only the load touches memory.
    impl Block {
        #[inline]
        pub(super) fn load(block: &[u8; BLOCK]) -> Self {
            // SAFETY: needs no alignment and reads the 16 bytes of the array.
            Self(unsafe { arch::_mm_loadu_si128(block.as_ptr().cast()) })
        }

        /// Bytes that are the same in both become ones, the others zeros.
        #[inline]
        pub(super) fn same(self, other: Self) -> Self {
            // SAFETY: see above.
            Self(unsafe { arch::_mm_cmpeq_epi8(self.0, other.0) })
        }

        /// Bytes less than `byte` as signed numbers become ones, the others zeros.
        #[inline]
        pub(super) fn less(self, byte: u8) -> Self {
            // SAFETY: see above.
            Self(unsafe { arch::_mm_cmplt_epi8(self.0, arch::_mm_set1_epi8(byte as i8)) })
        }

        #[inline]
        pub(super) fn or(self, other: Self) -> Self {
            // SAFETY: see above.
            Self(unsafe { arch::_mm_or_si128(self.0, other.0) })
        }

        /// The highest bit of each byte.
        #[inline]
        pub(super) fn mask(self) -> u32 {
            // SAFETY: see above.
            unsafe { arch::_mm_movemask_epi8(self.0) as u32 }
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
use plain::Block;

/// The same with loops that the compiler can turn into what vectors there are.
#[cfg(not(target_arch = "x86_64"))]
mod plain {
    use super::BLOCK;

    #[derive(Clone, Copy)]
    pub(super) struct Block([u8; BLOCK]);

    impl Block {
        #[inline]
        pub(super) fn load(block: &[u8; BLOCK]) -> Self {
            Self(*block)
        }

        #[inline]
        pub(super) fn same(self, other: Self) -> Self {
            Self(std::array::from_fn(|i| if self.0[i] == other.0[i] { 0xff } else { 0 }))
        }

        #[inline]
        pub(super) fn less(self, byte: u8) -> Self {
            Self(self.0.map(|b| if (b as i8) < byte as i8 { 0xff } else { 0 }))
        }

        #[inline]
        pub(super) fn or(self, other: Self) -> Self {
            Self(std::array::from_fn(|i| self.0[i] | other.0[i]))
        }

        #[inline]
        pub(super) fn mask(self) -> u32 {
            self.0.iter().enumerate().fold(0, |mask, (i, b)| mask | u32::from(b >> 7) << i)
        }
    }
}

#[inline]
fn find<C: Class>(bytes: &[u8], at: usize) -> Option<usize> {
    // Short strings end in the first block. Longer ones are searched 64 bytes at a time: a loop over blocks would end
    // after a number of rounds that no branch predictor foresees.
    let Some(block) = bytes.get(at..).and_then(|rest| rest.first_chunk::<BLOCK>()) else {
        return find_in_tail::<C>(bytes, at);
    };
    let mask = C::mask(block);
    if mask != 0 {
        return Some(at + mask.trailing_zeros() as usize);
    }
    find_far::<C>(bytes, at + BLOCK)
}

#[inline]
fn find_far<C: Class>(bytes: &[u8], mut at: usize) -> Option<usize> {
    while let Some(wide) = bytes.get(at..).and_then(|rest| rest.first_chunk::<WIDE>()) {
        let mask = wide_mask::<C>(wide);
        if mask != 0 {
            return Some(at + mask.trailing_zeros() as usize);
        }
        at += WIDE;
    }
    if let Some(wide) = bytes.last_chunk::<WIDE>() {
        let mask = wide_mask::<C>(wide).checked_shr((at + WIDE - bytes.len()) as u32).unwrap_or(0);
        return (mask != 0).then(|| at + mask.trailing_zeros() as usize);
    }
    while let Some(block) = bytes.get(at..).and_then(|rest| rest.first_chunk::<BLOCK>()) {
        let mask = C::mask(block);
        if mask != 0 {
            return Some(at + mask.trailing_zeros() as usize);
        }
        at += BLOCK;
    }
    find_in_tail::<C>(bytes, at)
}

#[inline]
fn wide_mask<C: Class>(wide: &[u8; WIDE]) -> u64 {
    let (blocks, _) = wide.as_chunks::<BLOCK>();
    (0..).zip(blocks).fold(0, |mask, (i, block)| mask | u64::from(C::mask(block)) << (16 * i))
}

/// The rest from `at` is shorter than a block.
#[inline]
fn find_in_tail<C: Class>(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.last_chunk::<BLOCK>() {
        Some(block) => {
            // `at` may be past the end, after a backslash that was the last byte.
            let mask = C::mask(block).checked_shr((at + BLOCK - bytes.len()) as u32).unwrap_or(0);
            (mask != 0).then(|| at + mask.trailing_zeros() as usize)
        }
        None => bytes.get(at..)?.iter().position(|b| C::holds(*b)).map(|i| at + i),
    }
}

/// Bit `i` is set if byte `i` of the two is the same.
#[inline]
pub(super) fn same_bytes(a: &[u8; BLOCK], b: &[u8; BLOCK]) -> u32 {
    Block::load(a).same(Block::load(b)).mask()
}

/// The first byte from `at` on that is not plain text inside a string.
#[inline]
pub(crate) fn find_not_plain(bytes: &[u8], at: usize) -> Option<usize> {
    find::<NotPlain>(bytes, at)
}

/// The first quote or backslash from `at` on.
#[inline]
pub(crate) fn find_quote(bytes: &[u8], at: usize) -> Option<usize> {
    find::<Quote>(bytes, at)
}

/// The first quote or bracket from `at` on.
#[inline]
pub(crate) fn find_structure(bytes: &[u8], at: usize) -> Option<usize> {
    find::<Structure>(bytes, at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_at_every_place() {
        for length in (0..40).chain([63, 64, 65, 79, 80, 81, 96, 130, 150]) {
            for start in (0..=length + 1).step_by(1 + length / 40) {
                for place in 0..length {
                    for byte in [b'"', b'\\', b'{', b'}', b'[', b']', 0x1f, 0x80, 0xff, b'\n', b'z', 0x7f, b';', b' '] {
                        let mut bytes = vec![b'a'; length];
                        bytes[place] = byte;
                        let expect = |holds: bool| (holds && place >= start).then_some(place);
                        let quote = matches!(byte, b'"' | b'\\');
                        assert_eq!(find_quote(&bytes, start), expect(quote));
                        assert_eq!(
                            find_not_plain(&bytes, start),
                            expect(quote || !(0x20..0x80).contains(&byte)),
                            "{length} {start} {place} {byte}"
                        );
                        let structure = matches!(byte, b'"' | b'{' | b'}' | b'[' | b']');
                        assert_eq!(find_structure(&bytes, start), expect(structure));
                    }
                }
            }
        }
    }
}
