//! An ordered multiset of rows: few rows in a sorted vector, many in a B-tree.
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, btree_map};
use std::ops::Bound;
use std::slice;

/// A vector with more entries becomes a tree.
const SMALL: usize = 64;

/// An encoded row: `order columns ‖ other columns`. Its order is that of the bytes.
#[derive(Clone, Debug)]
pub(in crate::operators) struct Row {
    bytes: Box<[u8]>,
    /// Length of the order columns.
    order: u32,
}

impl Row {
    pub fn new(order: &[u8], rest: &[u8]) -> Self {
        Self { bytes: [order, rest].concat().into(), order: order.len() as u32 }
    }

    /// `None` if the order columns would be longer than the row.
    pub fn from_bytes(bytes: &[u8], order: u32) -> Option<Self> {
        (order as usize <= bytes.len()).then(|| Self { bytes: bytes.into(), order })
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn order(&self) -> &[u8] {
        &self.bytes[..self.order as usize]
    }

    pub fn rest(&self) -> &[u8] {
        &self.bytes[self.order as usize..]
    }
}

impl PartialEq for Row {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Row {}

impl PartialOrd for Row {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Row {
    fn cmp(&self, other: &Self) -> Ordering {
        self.bytes.cmp(&other.bytes)
    }
}

impl Borrow<[u8]> for Row {
    fn borrow(&self) -> &[u8] {
        &self.bytes
    }
}

/// Rows with weights above 0.
pub(in crate::operators) enum Multiset {
    Small(Vec<(Row, i64)>),
    Large(BTreeMap<Row, i64>),
}

impl Default for Multiset {
    fn default() -> Self {
        Self::Small(Vec::new())
    }
}

impl Multiset {
    /// Different rows.
    pub fn len(&self) -> usize {
        match self {
            Self::Small(rows) => rows.len(),
            Self::Large(rows) => rows.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How often the row is there.
    pub fn weight(&self, row: &[u8]) -> i64 {
        match self {
            Self::Small(rows) => rows.binary_search_by(|(r, _)| r.bytes().cmp(row)).map_or(0, |at| rows[at].1),
            Self::Large(rows) => rows.get(row).copied().unwrap_or(0),
        }
    }

    /// Adds a row `weight` times. Fails with the row if it would be there less than 0 times.
    pub fn add(&mut self, row: Row, weight: i64) -> Result<(), Row> {
        let now = self.weight(row.bytes()) + weight;
        if now < 0 {
            return Err(row);
        }
        match self {
            Self::Small(rows) => match rows.binary_search_by(|(r, _)| r.cmp(&row)) {
                Ok(at) if now == 0 => {
                    rows.remove(at);
                }
                Ok(at) => rows[at].1 = now,
                Err(at) if now > 0 => rows.insert(at, (row, now)),
                Err(_) => {}
            },
            Self::Large(rows) if now == 0 => {
                rows.remove(row.bytes());
            }
            Self::Large(rows) => {
                rows.insert(row, now);
            }
        }
        if let Self::Small(rows) = self
            && rows.len() > SMALL
        {
            *self = Self::Large(std::mem::take(rows).into_iter().collect());
        }
        Ok(())
    }

    /// Keeps the first `rows`, the last of them `weight` times.
    pub fn truncate(&mut self, keep: usize, weight: i64) {
        match self {
            Self::Small(rows) => {
                rows.truncate(keep);
                rows.last_mut().into_iter().for_each(|(_, w)| *w = weight);
            }
            Self::Large(rows) => {
                while rows.len() > keep {
                    rows.pop_last();
                }
                rows.last_entry().into_iter().for_each(|mut e| *e.get_mut() = weight);
            }
        }
    }

    pub fn last(&self) -> Option<&Row> {
        match self {
            Self::Small(rows) => rows.last().map(|(r, _)| r),
            Self::Large(rows) => rows.last_key_value().map(|(r, _)| r),
        }
    }

    pub fn iter(&self) -> Walk<'_> {
        self.from(&[])
    }

    /// Rows at or after `row`.
    pub fn from(&self, row: &[u8]) -> Walk<'_> {
        match self {
            Self::Small(rows) => Walk::Small(rows[rows.partition_point(|(r, _)| r.bytes() < row)..].iter()),
            Self::Large(rows) => Walk::Large(rows.range::<[u8], _>((Bound::Included(row), Bound::Unbounded))),
        }
    }

    /// Rows before `row`.
    pub fn before(&self, row: &[u8]) -> Walk<'_> {
        match self {
            Self::Small(rows) => Walk::Small(rows[..rows.partition_point(|(r, _)| r.bytes() < row)].iter()),
            Self::Large(rows) => Walk::Large(rows.range::<[u8], _>((Bound::Unbounded, Bound::Excluded(row)))),
        }
    }
}

/// Rows with their weights, in order.
#[derive(Clone)]
pub(in crate::operators) enum Walk<'a> {
    Small(slice::Iter<'a, (Row, i64)>),
    Large(btree_map::Range<'a, Row, i64>),
}

impl<'a> Iterator for Walk<'a> {
    type Item = (&'a Row, i64);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Small(rows) => rows.next().map(|(r, w)| (r, *w)),
            Self::Large(rows) => rows.next().map(|(r, w)| (r, *w)),
        }
    }
}

impl DoubleEndedIterator for Walk<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        match self {
            Self::Small(rows) => rows.next_back().map(|(r, w)| (r, *w)),
            Self::Large(rows) => rows.next_back().map(|(r, w)| (r, *w)),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn row(n: u8) -> Row {
        Row::new(&[n], &[0])
    }

    fn shown<'a>(rows: impl Iterator<Item = (&'a Row, i64)>) -> Vec<(u8, i64)> {
        rows.map(|(r, w)| (r.order()[0], w)).collect()
    }

    #[test]
    fn few_and_many_rows_are_the_same_to_the_caller() {
        for more in [0, 200] {
            let mut rows = Multiset::default();
            for n in [3, 1, 2, 1].into_iter().chain(40..40 + more) {
                rows.add(row(n), 1).unwrap();
            }
            assert_eq!(matches!(rows, Multiset::Large(_)), more > 0);
            assert_eq!(shown(rows.iter().take(3)), [(1, 2), (2, 1), (3, 1)]);
            assert_eq!(shown(rows.before(row(3).bytes()).rev()), [(2, 1), (1, 2)]);
            assert_eq!(shown(rows.from(row(2).bytes()).take(2)), [(2, 1), (3, 1)]);
            rows.add(row(2), -1).unwrap();
            assert_eq!(rows.add(row(2), -1).unwrap_err(), row(2));
            rows.truncate(1, 1);
            assert_eq!(shown(rows.iter()), [(1, 1)]);
            assert_eq!((rows.len(), rows.last()), (1, Some(&row(1))));
        }
    }
}
