//! Which rows of a column hold a value.
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer};

/// One bit per row; rows that were never touched hold none.
#[derive(Debug, Default)]
pub(crate) struct Bits {
    words: Vec<u64>,
}

impl Bits {
    /// Forgets everything and makes room for `rows`.
    pub(crate) fn reset(&mut self, rows: usize) {
        self.words = vec![0; rows.div_ceil(64)];
    }

    #[inline]
    pub(crate) fn set(&mut self, row: usize) {
        let word = row >> 6;
        if word >= self.words.len() {
            self.grow(word);
        }
        self.words[word] |= 1 << (row & 63);
    }

    #[cold]
    fn grow(&mut self, word: usize) {
        self.words.resize((word + 1).max(self.words.len() * 2), 0);
    }

    #[inline]
    pub(crate) fn unset(&mut self, row: usize) {
        if let Some(word) = self.words.get_mut(row >> 6) {
            *word &= !(1 << (row & 63));
        }
    }

    #[inline]
    pub(crate) fn get(&self, row: usize) -> bool {
        self.words.get(row >> 6).is_some_and(|w| w >> (row & 63) & 1 == 1)
    }

    /// Unsets rows `[from, to)`.
    pub(crate) fn unset_range(&mut self, from: usize, to: usize) {
        for row in from..to {
            self.unset(row);
        }
    }

    /// The first `rows` bits.
    pub(crate) fn finish(&mut self, rows: usize) -> BooleanBuffer {
        let mut words = std::mem::take(&mut self.words);
        words.resize(rows.div_ceil(64), 0);
        if cfg!(target_endian = "big") {
            words.iter_mut().for_each(|w| *w = w.to_le());
        }
        BooleanBuffer::new(Buffer::from_vec(words), 0, rows)
    }

    /// As [`Self::finish`]; `None` if all rows hold a value.
    pub(crate) fn finish_nulls(&mut self, rows: usize) -> Option<NullBuffer> {
        Some(NullBuffer::new(self.finish(rows))).filter(|n| n.null_count() > 0)
    }
}
