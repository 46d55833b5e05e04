//! Which field a key names: predicted from the row before.
//!
//! Producers write the keys of an object in one order. So the decoder remembers the order in which keys came and
//! compares the bytes at the cursor with the next one, `"key":`, in one go of 16 bytes. Optional keys that are missing
//! are passed over, new ones are learned where they come. Only a key that is nowhere near is unescaped and looked up by
//! name.
use std::collections::HashMap;

use super::cursor::Cursor;
use super::fault::Parsed;
use super::scan::same_bytes;

/// Longest order that is remembered; objects with more keys are decoded by look-ups from there on.
const MOST_KEYS: usize = 256;
/// How many remembered keys are compared before a key is looked up.
const LOOK_AHEAD: usize = 8;

/// A remembered key.
#[derive(Debug)]
struct Known {
    /// First 16 bytes of `"key":`, zeros after it.
    head: [u8; 16],
    /// One bit for each byte of `head` that counts.
    mask: u32,
    /// All of `"key":`.
    quoted: Box<[u8]>,
    field: Option<u32>,
}

impl Known {
    fn new(key: &[u8], field: Option<u32>) -> Self {
        let quoted = [b"\"", key, b"\":"].concat().into_boxed_slice();
        let mut head = [0; 16];
        let shown = quoted.len().min(16);
        head[..shown].copy_from_slice(&quoted[..shown]);
        Self { head, mask: (1 << shown) - 1, quoted, field }
    }

    #[inline]
    fn is_at(&self, cursor: &Cursor<'_>) -> bool {
        let Some(rest) = cursor.bytes.get(cursor.at..) else { return false };
        match rest.first_chunk::<16>() {
            Some(head) => {
                same_bytes(head, &self.head) & self.mask == self.mask
                    && (self.quoted.len() <= 16 || rest.starts_with(&self.quoted))
            }
            None => rest.starts_with(&self.quoted),
        }
    }
}

/// The keys of one object of the schema.
#[derive(Debug)]
pub(crate) struct Keys {
    fields: HashMap<Box<[u8]>, u32>,
    order: Vec<Known>,
    /// A key that had to be unescaped.
    scratch: Vec<u8>,
}

impl Keys {
    pub(crate) fn new<'n>(names: impl Iterator<Item = &'n str>) -> Self {
        let fields = (0..).zip(names).map(|(i, name)| (name.as_bytes().into(), i)).collect();
        Self { fields, order: Vec::new(), scratch: Vec::new() }
    }

    /// Takes a key and its colon. `slot` is the place of the key in the order: 0 at the beginning of an object, moved
    /// along by this function. Returns the field, or `None` if no column uses the value.
    #[inline]
    pub(crate) fn take(&mut self, cursor: &mut Cursor<'_>, slot: &mut usize) -> Parsed<Option<u32>> {
        if let Some(known) = self.order.get(*slot)
            && known.is_at(cursor)
        {
            cursor.at += known.quoted.len();
            *slot += 1;
            return Ok(known.field);
        }
        self.search(cursor, slot)
    }

    #[inline(never)]
    fn search(&mut self, cursor: &mut Cursor<'_>, slot: &mut usize) -> Parsed<Option<u32>> {
        let ahead = self.order.iter().enumerate().skip(*slot + 1).take(LOOK_AHEAD);
        if let Some((place, known)) = ahead.into_iter().find(|(_, k)| k.is_at(cursor)) {
            cursor.at += known.quoted.len();
            *slot = place + 1;
            return Ok(known.field);
        }
        if cursor.peek() != b'"' {
            return Err(cursor.unexpected("a key"));
        }
        cursor.at += 1;
        // Only a key that stands there as it is can be remembered by its bytes.
        let plain = cursor.take_plain();
        let key = match plain {
            Some(key) => key,
            None => {
                self.scratch.clear();
                cursor.take_string(&mut self.scratch)?;
                &self.scratch
            }
        };
        let field = self.fields.get(key).copied();
        let colon_follows = cursor.peek() == b':';
        cursor.skip_space();
        if cursor.peek() != b':' {
            return Err(cursor.unexpected("a colon"));
        }
        cursor.at += 1;
        if let (Some(key), true) = (plain, colon_follows) {
            let known = Known::new(key, field);
            if self.order.len() < MOST_KEYS {
                self.order.insert((*slot).min(self.order.len()), known);
            } else if let Some(place) = self.order.get_mut(*slot) {
                *place = known;
            }
            *slot += 1;
        }
        Ok(field)
    }
}
