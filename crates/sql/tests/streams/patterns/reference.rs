//! Searches written down once more: as SQL, and as a matcher that tries every way in order of preference.
use crate::draws::Draws;

pub struct Row {
    pub id: i64,
    pub k: Option<i64>,
    pub v: Option<i64>,
    pub ts: i64,
}

#[derive(Clone, Debug)]
enum Pattern {
    Variable(usize),
    Concat(Vec<Pattern>),
    Either(Vec<Pattern>),
    Repeat(Box<Pattern>, u32, Option<u32>, bool),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Skip {
    PastLastRow,
    NextRow,
    First(usize),
    Last(usize),
}

/// What a row must be like to be mapped to a variable.
#[derive(Clone, Copy, Debug)]
enum Condition {
    None,
    Above(i64),
    Even,
    Rises,
    RisesInVariable,
    NotBelowA,
    SumBelow(i64),
    RowsUpTo(i64),
    NotFirst,
    NullOrAbove(i64),
    AboveAverageOfA,
    /// Of two rows before, whatever they are mapped to.
    AbovePrevious2,
    /// The row before the last of A.
    AboveBeforeA,
}

pub struct Query {
    pattern: Pattern,
    conditions: Vec<Condition>,
    skip: Skip,
    within_ms: Option<i64>,
}

const NAMES: [&str; 3] = ["A", "B", "C"];

/// (place of the row in the partition, variable)
type Mapping = Vec<(usize, usize)>;

impl Row {
    pub fn draw(draws: &mut Draws) -> Vec<Self> {
        let count = 20 + draws.below(25);
        let mut ts = 0;
        (0..count)
            .map(|id| {
                ts += *draws.pick(&[0, 0, 100, 400, 900, 3_000]);
                let k = if draws.chance(1, 8) { None } else { Some(draws.below(2) as i64) };
                let v = if draws.chance(1, 7) { None } else { Some(draws.below(9) as i64) };
                Self { id: id as i64, k, v, ts }
            })
            .collect()
    }
}

impl Pattern {
    fn draw(draws: &mut Draws, depth: usize) -> Self {
        if depth == 0 || draws.chance(1, 4) {
            return Self::Variable(draws.below(NAMES.len()));
        }
        let parts = |draws: &mut Draws| (0..2 + draws.below(2)).map(|_| Self::draw(draws, depth - 1)).collect();
        match draws.below(5) {
            0 | 1 => Self::Concat(parts(draws)),
            2 => Self::Either(parts(draws)),
            _ => {
                let inner = Self::draw(draws, depth - 1);
                let (from, to) = *draws.pick(&[
                    (0, None),
                    (1, None),
                    (0, Some(1)),
                    (2, Some(2)),
                    (2, None),
                    (1, Some(3)),
                    (0, Some(2)),
                ]);
                if to.is_none() && inner.is_nullable() {
                    return inner;
                }
                Self::Repeat(Box::new(inner), from, to, draws.chance(2, 3))
            }
        }
    }

    fn is_nullable(&self) -> bool {
        match self {
            Self::Variable(_) => false,
            Self::Concat(parts) => parts.iter().all(Self::is_nullable),
            Self::Either(parts) => parts.iter().any(Self::is_nullable),
            Self::Repeat(inner, from, ..) => *from == 0 || inner.is_nullable(),
        }
    }

    fn variables(&self) -> Vec<usize> {
        match self {
            Self::Variable(v) => vec![*v],
            Self::Concat(parts) | Self::Either(parts) => parts.iter().flat_map(Self::variables).collect(),
            Self::Repeat(inner, ..) => inner.variables(),
        }
    }

    fn sql(&self) -> String {
        match self {
            Self::Variable(v) => NAMES[*v].to_owned(),
            Self::Concat(parts) => {
                format!("({})", parts.iter().map(Self::sql).collect::<Vec<_>>().join(" "))
            }
            Self::Either(parts) => format!("({})", parts.iter().map(Self::sql).collect::<Vec<_>>().join(" | ")),
            Self::Repeat(inner, from, to, greedy) => {
                let quantifier = match (from, to) {
                    (0, None) => "*".to_owned(),
                    (1, None) => "+".to_owned(),
                    (0, Some(1)) => "?".to_owned(),
                    (n, None) => format!("{{{n},}}"),
                    (n, Some(m)) if n == m => format!("{{{n}}}"),
                    (0, Some(m)) => format!("{{,{m}}}"),
                    (n, Some(m)) => format!("{{{n},{m}}}"),
                };
                // A quantifier behind another one would make it reluctant.
                format!("({}){quantifier}{}", inner.sql(), if *greedy { "" } else { "?" })
            }
        }
    }

    /// Calls `then` with every way to match from row `at` on, in order of preference, until it says that it is content.
    fn walk(
        &self,
        at: usize,
        mapping: &mut Mapping,
        fits: &dyn Fn(usize, usize, &Mapping) -> bool,
        then: &mut dyn FnMut(usize, &mut Mapping) -> bool,
    ) -> bool {
        match self {
            Self::Variable(variable) => {
                mapping.push((at, *variable));
                let content = fits(at, *variable, mapping) && then(at + 1, mapping);
                if !content {
                    mapping.pop();
                }
                content
            }
            Self::Concat(parts) => walk_all(parts, at, mapping, fits, then),
            Self::Either(parts) => parts.iter().any(|p| p.walk(at, mapping, fits, then)),
            Self::Repeat(inner, from, to, greedy) => {
                let another = |mapping: &mut Mapping, then: &mut dyn FnMut(usize, &mut Mapping) -> bool| {
                    if *to == Some(0) {
                        return false;
                    }
                    let rest = Self::Repeat(inner.clone(), from.saturating_sub(1), to.map(|n| n - 1), *greedy);
                    inner.walk(at, mapping, fits, &mut |next, mapping| rest.walk(next, mapping, fits, then))
                };
                match (*from > 0, greedy) {
                    (true, _) => another(mapping, then),
                    (false, true) => another(mapping, then) || then(at, mapping),
                    (false, false) => then(at, mapping) || another(mapping, then),
                }
            }
        }
    }
}

fn walk_all(
    parts: &[Pattern],
    at: usize,
    mapping: &mut Mapping,
    fits: &dyn Fn(usize, usize, &Mapping) -> bool,
    then: &mut dyn FnMut(usize, &mut Mapping) -> bool,
) -> bool {
    match parts.split_first() {
        None => then(at, mapping),
        Some((first, rest)) => {
            first.walk(at, mapping, fits, &mut |next, mapping| walk_all(rest, next, mapping, fits, then))
        }
    }
}

impl Condition {
    fn draw(draws: &mut Draws) -> Self {
        match draws.below(16) {
            0 => Self::None,
            1 | 2 => Self::Above(draws.below(6) as i64),
            3 => Self::Even,
            4 => Self::Rises,
            5 => Self::RisesInVariable,
            6 | 7 => Self::NotBelowA,
            8 => Self::SumBelow(10 + draws.below(15) as i64),
            9 => Self::RowsUpTo(2 + draws.below(4) as i64),
            10 => Self::NotFirst,
            11 | 12 => Self::NullOrAbove(draws.below(5) as i64),
            13 => Self::AboveAverageOfA,
            14 => Self::AbovePrevious2,
            _ => Self::AboveBeforeA,
        }
    }

    fn sql(self, v: &str) -> Option<String> {
        Some(match self {
            Self::None => return None,
            Self::Above(n) => format!("{v}.v > {n}"),
            Self::Even => "v % 2 = 0".to_owned(),
            Self::Rises => format!("{v}.v > PREV({v}.v)"),
            Self::RisesInVariable => format!("{v}.v > LAST({v}.v, 1) OR LAST({v}.v, 1) IS NULL"),
            Self::NotBelowA => format!("{v}.v >= LAST(A.v)"),
            Self::SumBelow(n) => format!("SUM({v}.v) < {n}"),
            Self::RowsUpTo(n) => format!("COUNT(*) <= {n}"),
            Self::NotFirst => format!("{v}.v <> FIRST(v)"),
            Self::NullOrAbove(n) => format!("{v}.v IS NULL OR {v}.v > {n}"),
            Self::AboveAverageOfA => format!("AVG(A.v) < {v}.v"),
            Self::AbovePrevious2 => format!("{v}.v > PREV({v}.v, 2)"),
            Self::AboveBeforeA => format!("{v}.v > PREV(LAST(A.v), 1)"),
        })
    }

    /// Whether the last row of a mapping meets it.
    fn holds(self, rows: &[&Row], mapping: &Mapping) -> bool {
        let (at, variable) = mapping[mapping.len() - 1];
        let v = rows[at].v;
        let of = |wanted: usize| mapping.iter().filter(move |(_, v)| *v == wanted).map(|(row, _)| *row);
        let before = |at: Option<usize>, n: usize| at.and_then(|at| at.checked_sub(n)).and_then(|at| rows[at].v);
        let above = |a: Option<i64>, b: Option<i64>| a.zip(b).is_some_and(|(a, b)| a > b);
        match self {
            Self::None => true,
            Self::Above(n) => above(v, Some(n)),
            Self::Even => v.is_some_and(|v| v % 2 == 0),
            Self::Rises => above(v, before(Some(at), 1)),
            Self::RisesInVariable => {
                let last = of(variable).rev().nth(1).and_then(|row| rows[row].v);
                last.is_none() || above(v, last)
            }
            Self::NotBelowA => {
                let last = of(0).next_back().and_then(|row| rows[row].v);
                v.zip(last).is_some_and(|(v, last)| v >= last)
            }
            Self::SumBelow(n) => {
                let values: Vec<i64> = of(variable).filter_map(|row| rows[row].v).collect();
                !values.is_empty() && values.iter().sum::<i64>() < n
            }
            Self::RowsUpTo(n) => mapping.len() as i64 <= n,
            Self::NotFirst => {
                let first = rows[mapping[0].0].v;
                v.zip(first).is_some_and(|(v, first)| v != first)
            }
            Self::NullOrAbove(n) => v.is_none_or(|v| v > n),
            Self::AboveAverageOfA => {
                let values: Vec<i64> = of(0).filter_map(|row| rows[row].v).collect();
                let mean = values.iter().sum::<i64>() as f64 / values.len() as f64;
                !values.is_empty() && v.is_some_and(|v| mean < v as f64)
            }
            Self::AbovePrevious2 => above(v, before(Some(at), 2)),
            Self::AboveBeforeA => above(v, before(of(0).next_back(), 1)),
        }
    }
}

impl Query {
    pub fn draw(draws: &mut Draws) -> Self {
        let pattern = loop {
            let pattern = Pattern::draw(draws, 3);
            let variables = pattern.variables();
            // All three are named in the measures.
            if !pattern.is_nullable() && (0..NAMES.len() - 1).all(|v| variables.contains(&v)) {
                break pattern;
            }
        };
        let conditions = (0..NAMES.len()).map(|_| Condition::draw(draws)).collect();
        let skip = match draws.below(4) {
            0 => Skip::PastLastRow,
            1 => Skip::NextRow,
            2 => Skip::First(draws.below(2)),
            _ => Skip::Last(draws.below(2)),
        };
        let within_ms = if draws.chance(1, 2) { Some(*draws.pick(&[1, 500, 1_000, 4_000])) } else { None };
        Self { pattern, conditions, skip, within_ms }
    }

    pub fn sql(&self) -> String {
        let used = self.pattern.variables();
        let define: Vec<String> = (0..NAMES.len())
            .filter(|v| used.contains(v))
            .map(|v| {
                format!("{} AS {}", NAMES[v], self.conditions[v].sql(NAMES[v]).unwrap_or_else(|| "TRUE".to_owned()))
            })
            .collect();
        let skip = match self.skip {
            Skip::PastLastRow => "PAST LAST ROW".to_owned(),
            Skip::NextRow => "TO NEXT ROW".to_owned(),
            Skip::First(v) => format!("TO FIRST {}", NAMES[v]),
            Skip::Last(v) => format!("TO LAST {}", NAMES[v]),
        };
        let within = match self.within_ms {
            Some(ms) if ms % 1000 == 0 => format!("WITHIN INTERVAL '{}' SECOND", ms / 1000),
            Some(ms) => format!("WITHIN INTERVAL '{ms}' MILLISECOND"),
            None => String::new(),
        };
        format!(
            "SELECT k, f, l, n, na, sb, la, p FROM a MATCH_RECOGNIZE (
               PARTITION BY k ORDER BY ts, id
               MEASURES FIRST(id) AS f, FINAL LAST(id) AS l, COUNT(*) AS n, COUNT(A.id) AS na, SUM(B.v) AS sb, LAST(A.id) + 0 AS la, PREV(FIRST(id), 1) AS p
               ONE ROW PER MATCH AFTER MATCH SKIP {skip}
               PATTERN ({}) {within}
               DEFINE {})",
            self.pattern.sql(),
            define.join(", ")
        )
    }

    /// The result, as text.
    pub fn matches(&self, rows: &[Row]) -> Vec<Vec<String>> {
        let mut keys: Vec<Option<i64>> = rows.iter().map(|r| r.k).collect();
        keys.sort_unstable();
        keys.dedup();
        let partitions = keys.into_iter().map(|k| rows.iter().filter(|r| r.k == k).collect::<Vec<_>>());
        partitions
            .flat_map(|mut rows| {
                rows.sort_by_key(|r| (r.ts, r.id));
                self.in_partition(&rows)
            })
            .collect()
    }

    fn in_partition(&self, rows: &[&Row]) -> Vec<Vec<String>> {
        let mut found = Vec::new();
        let mut start = 0;
        while start < rows.len() {
            let fits = |at: usize, variable: usize, mapping: &Mapping| {
                at < rows.len()
                    && self.within_ms.is_none_or(|ms| rows[at].ts - rows[start].ts < ms)
                    && self.conditions[variable].holds(rows, mapping)
            };
            let mut mapping = Mapping::new();
            if !self.pattern.walk(start, &mut mapping, &fits, &mut |_, _| true) {
                start += 1;
                continue;
            }
            found.push(self.measures(rows, &mapping));
            let last_of = |wanted: usize| mapping.iter().filter(move |(_, v)| *v == wanted).map(|(row, _)| *row);
            let next = match self.skip {
                Skip::PastLastRow => mapping.last().map(|(row, _)| row + 1),
                Skip::NextRow => None,
                Skip::First(v) => last_of(v).next(),
                Skip::Last(v) => last_of(v).next_back(),
            };
            start = next.filter(|next| *next > start).unwrap_or(start + 1);
        }
        found
    }

    fn measures(&self, rows: &[&Row], mapping: &Mapping) -> Vec<String> {
        let text = |n: Option<i64>| n.map_or_else(|| "NULL".to_owned(), |n| n.to_string());
        let of = |wanted: usize| mapping.iter().filter(move |(_, v)| *v == wanted).map(|(row, _)| *row);
        let (first, last) = (mapping[0].0, mapping[mapping.len() - 1].0);
        let sums: Vec<i64> = of(1).filter_map(|row| rows[row].v).collect();
        vec![
            text(rows[first].k),
            text(Some(rows[first].id)),
            text(Some(rows[last].id)),
            mapping.len().to_string(),
            of(0).count().to_string(),
            text((!sums.is_empty()).then(|| sums.iter().sum())),
            text(of(0).next_back().map(|row| rows[row].id)),
            text(first.checked_sub(1).map(|row| rows[row].id)),
        ]
    }
}
