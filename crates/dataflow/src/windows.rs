//! Window arithmetic. All times are milliseconds; windows are half open `[start, end)`.
//!
//! Rows are aggregated per **pane**, the largest interval that no window boundary cuts (Li et al., "No pane, no gain", SIGMOD Record
//! 2005): a row is counted once however many windows hold it, and a window is the merge of its panes.
use crate::graph::WindowKind;

/// A half-open interval of time, ordered by end, then start: the order in which windows close.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    pub start: i64,
    pub end: i64,
}

impl Ord for Span {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.end, self.start).cmp(&(other.end, other.start))
    }
}

impl PartialOrd for Span {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Panes and windows of a [`WindowKind`] that is not a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Panes {
    width: i64,
    offset: i64,
    kind: WindowKind,
}

impl Panes {
    /// `None` for sessions, whose windows depend on the rows, and for widths that are not positive.
    #[must_use]
    pub fn of(kind: WindowKind) -> Option<Self> {
        let (width, offset, valid) = match kind {
            WindowKind::Tumble { size, offset } => (size, offset, size > 0),
            WindowKind::Hop { size, slide, offset } => (gcd(size, slide), offset, size > 0 && slide > 0),
            WindowKind::Cumulate { size, step, offset } => (step, offset, step > 0 && size > 0 && size % step == 0),
            WindowKind::Session { .. } => return None,
        };
        valid.then_some(Self { width, offset, kind })
    }

    /// Length of a pane.
    #[must_use]
    pub fn width(&self) -> i64 {
        self.width
    }

    /// What the panes are of.
    #[must_use]
    pub fn kind(&self) -> WindowKind {
        self.kind
    }

    /// Start of the pane that holds `time`.
    #[inline]
    #[must_use]
    pub fn start_of(&self, time: i64) -> i64 {
        time - (time - self.offset).rem_euclid(self.width)
    }

    /// The pane that holds `time`.
    #[must_use]
    pub fn pane_of(&self, time: i64) -> Span {
        let start = self.start_of(time);
        Span { start, end: start + self.width }
    }

    /// True if every pane is exactly one window.
    #[must_use]
    pub fn is_window(&self) -> bool {
        matches!(self.kind, WindowKind::Tumble { .. })
    }

    /// The windows that hold `pane`, ascending by end. A hop with `slide > size` has panes in no window.
    pub fn windows_of(&self, pane: Span) -> impl Iterator<Item = Span> + use<> {
        let (first_start, start_step, first_end, end_step, count) = match self.kind {
            WindowKind::Tumble { .. } | WindowKind::Session { .. } => (pane.start, 0, pane.end, 0, 1),
            WindowKind::Hop { size, slide, offset } => {
                // Windows start at multiples of `slide`: the last start at or before the pane, and those before it that still reach it.
                let last = pane.start - (pane.start - offset).rem_euclid(slide);
                let count = if last + size < pane.end { 0 } else { (last + size - pane.end) / slide + 1 };
                let first = last - (count - 1) * slide;
                (first, slide, first + size, slide, count)
            }
            WindowKind::Cumulate { size, step, offset } => {
                let start = pane.start - (pane.start - offset).rem_euclid(size);
                (start, 0, pane.end, step, (start + size - pane.end) / step + 1)
            }
        };
        (0..count).map(move |i| Span { start: first_start + i * start_step, end: first_end + i * end_step })
    }

    /// End of the last window that holds `pane`: when the pane can be forgotten.
    #[must_use]
    pub fn last_end(&self, pane: Span) -> i64 {
        self.windows_of(pane).last().map_or(pane.end, |w| w.end)
    }
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a.max(1) } else { gcd(b, a % b) }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    /// The windows of a time by definition, without panes.
    fn by_definition(kind: WindowKind, t: i64) -> Vec<Span> {
        let mut spans = Vec::new();
        let (size, step, offset) = match kind {
            WindowKind::Tumble { size, offset } => (size, size, offset),
            WindowKind::Hop { size, slide, offset } => (size, slide, offset),
            WindowKind::Cumulate { size, step, offset } => (size, step, offset),
            WindowKind::Session { .. } => unreachable!(),
        };
        for n in -100..100 {
            match kind {
                WindowKind::Cumulate { .. } => {
                    let start = offset + n * size;
                    for k in 1..=size / step {
                        spans.push(Span { start, end: start + k * step });
                    }
                }
                _ => spans.push(Span { start: offset + n * step, end: offset + n * step + size }),
            }
        }
        spans.retain(|w| w.start <= t && t < w.end);
        spans.sort();
        spans
    }

    #[test]
    fn windows_of_a_pane_are_the_windows_of_each_of_its_times() {
        let kinds = [
            WindowKind::Tumble { size: 10, offset: 3 },
            WindowKind::Hop { size: 10, slide: 2, offset: 0 },
            WindowKind::Hop { size: 10, slide: 4, offset: 1 },
            WindowKind::Hop { size: 3, slide: 10, offset: 0 },
            WindowKind::Cumulate { size: 12, step: 4, offset: 2 },
        ];
        for kind in kinds {
            let panes = Panes::of(kind).unwrap();
            for t in -40..40 {
                let pane = panes.pane_of(t);
                assert!(pane.start <= t && t < pane.end);
                assert_eq!(panes.windows_of(pane).collect::<Vec<_>>(), by_definition(kind, t), "{kind:?} at {t}");
            }
        }
    }

    #[test]
    fn widths_that_make_no_window_are_refused() {
        assert_eq!(Panes::of(WindowKind::Tumble { size: 0, offset: 0 }), None);
        assert_eq!(Panes::of(WindowKind::Cumulate { size: 10, step: 3, offset: 0 }), None);
        assert_eq!(Panes::of(WindowKind::Session { gap: 5 }), None);
    }
}
