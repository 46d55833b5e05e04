//! Random queries as trees: their text, and simpler ones of the same kind.
use std::fmt::Write as _;

/// Types of columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Int,
    Double,
    Text,
    /// `DECIMAL(10, 2)`.
    Decimal,
    Time,
}

/// An expression over the columns of its input, which it names `{0}`, `{1}`, …
#[derive(Clone, Debug, PartialEq)]
pub struct Expr {
    pub text: String,
    pub of: Type,
}

/// A condition.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    Atom(String),
    And(Box<Condition>, Box<Condition>),
    Or(Box<Condition>, Box<Condition>),
    Not(Box<Condition>),
}

/// A window function with its lengths.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// `TUMBLE`, `HOP`, `CUMULATE`, `SESSION`.
    pub name: &'static str,
    /// In seconds.
    pub lengths: Vec<u32>,
}

/// What follows `WHERE column`: a subquery in a condition.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Membership {
    In,
    NotIn,
    Exists,
    NotExists,
    /// Greater than the highest.
    Scalar,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    Table(&'static str, &'static [&'static str]),
    Filter(Condition),
    Project(Vec<Expr>),
    UnionAll,
    /// Rows with the windows that hold them: adds start, end and last moment.
    Assign(Window, usize),
    /// Columns: keys, aggregates, start, end and last moment of the window.
    Aggregate {
        window: Option<(Window, usize)>,
        keys: Vec<usize>,
        calls: Vec<Expr>,
    },
    /// Left, right: equal columns, and a condition over both.
    Join {
        kind: &'static str,
        on: Vec<(usize, usize)>,
        residual: Option<Condition>,
    },
    TopN {
        partition: Vec<usize>,
        order: Vec<(usize, bool)>,
        limit: usize,
    },
    Distinct,
    /// `UNION`, `INTERSECT`, `EXCEPT`, with `ALL` or without.
    Set(&'static str),
    Member {
        column: usize,
        of: usize,
        how: Membership,
    },
}

/// A relation.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    pub op: Op,
    pub inputs: Vec<Query>,
    pub columns: Vec<Type>,
    /// A live time attribute.
    pub time: Option<usize>,
    /// The end of the window at which a row is emitted.
    pub closes: Option<usize>,
    /// Rows are only added.
    pub append_only: bool,
}

impl Condition {
    fn text(&self) -> String {
        match self {
            Self::Atom(text) => text.clone(),
            Self::And(a, b) => format!("({} AND {})", a.text(), b.text()),
            Self::Or(a, b) => format!("({} OR {})", a.text(), b.text()),
            Self::Not(a) => format!("NOT ({})", a.text()),
        }
    }

    fn parts(&self) -> Vec<Self> {
        match self {
            Self::Atom(_) => Vec::new(),
            Self::And(a, b) | Self::Or(a, b) => vec![(**a).clone(), (**b).clone()],
            Self::Not(a) => vec![(**a).clone()],
        }
    }
}

impl Window {
    fn text(&self, input: &str, partition: &str, time: &str) -> String {
        let lengths: Vec<String> = self.lengths.iter().map(|l| format!("INTERVAL '{l}' SECOND")).collect();
        format!("TABLE({}(({input}){partition}, DESCRIPTOR({time}), {}))", self.name, lengths.join(", "))
    }
}

/// Puts names in the place of `{0}`, `{1}`, …
fn named(text: &str, names: &[String]) -> String {
    names.iter().enumerate().fold(text.to_owned(), |text, (i, name)| text.replace(&format!("{{{i}}}"), name))
}

fn listed(names: &[String]) -> String {
    names.join(", ")
}

impl Query {
    /// The query's text and the names of its columns.
    pub fn sql(&self) -> (String, Vec<String>) {
        self.write(&mut 0)
    }

    fn write(&self, next: &mut usize) -> (String, Vec<String>) {
        let inputs: Vec<(String, Vec<String>)> = self.inputs.iter().map(|i| i.write(next)).collect();
        *next += 1;
        let own: Vec<String> = (0..self.columns.len()).map(|i| format!("q{next}_{i}")).collect();
        let (input, names) = inputs.first().cloned().unwrap_or_default();
        let renamed = |from: &[String]| {
            let items: Vec<String> = from.iter().zip(&own).map(|(f, o)| format!("{f} AS {o}")).collect();
            listed(&items)
        };
        let sql = match &self.op {
            Op::Table(name, columns) => {
                let columns: Vec<String> = columns.iter().map(|c| (*c).to_owned()).collect();
                format!("SELECT {} FROM {name}", renamed(&columns))
            }
            Op::Filter(condition) => {
                format!("SELECT {} FROM ({input}) AS i WHERE {}", renamed(&names), named(&condition.text(), &names))
            }
            Op::Project(exprs) => {
                let exprs: Vec<String> = exprs.iter().map(|e| named(&e.text, &names)).collect();
                format!("SELECT {} FROM ({input}) AS i", renamed(&exprs))
            }
            Op::UnionAll => {
                let parts = inputs.iter().map(|(sql, names)| format!("SELECT {} FROM ({sql}) AS i", renamed(names)));
                parts.collect::<Vec<_>>().join(" UNION ALL ")
            }
            Op::Assign(window, time) => {
                let mut from = names.clone();
                from.extend(["window_start", "window_end", "window_time"].map(str::to_owned));
                format!("SELECT {} FROM {} AS i", renamed(&from), window.text(&input, "", &names[*time]))
            }
            Op::Aggregate { window, keys, calls } => {
                let keys: Vec<String> = keys.iter().map(|k| names[*k].clone()).collect();
                let mut from = keys.clone();
                from.extend(calls.iter().map(|c| named(&c.text, &names)));
                match window {
                    None => {
                        let by = if keys.is_empty() { String::new() } else { format!(" GROUP BY {}", listed(&keys)) };
                        format!("SELECT {} FROM ({input}) AS i{by}", renamed(&from))
                    }
                    Some((window, time)) => {
                        let bounds = ["window_start", "window_end", "window_time"].map(str::to_owned);
                        from.extend(bounds.clone());
                        let by: Vec<String> = keys.iter().cloned().chain(bounds).collect();
                        let partition = match window.name {
                            "SESSION" if !keys.is_empty() => format!(" PARTITION BY ({})", listed(&keys)),
                            _ => String::new(),
                        };
                        let window = window.text(&input, &partition, &names[*time]);
                        format!("SELECT {} FROM {window} AS i GROUP BY {}", renamed(&from), listed(&by))
                    }
                }
            }
            Op::Join { kind, on, residual } => {
                let (other, others) = &inputs[1];
                let both: Vec<String> = names.iter().chain(others).cloned().collect();
                let mut condition: Vec<String> =
                    on.iter().map(|(l, r)| format!("{} = {}", names[*l], others[*r])).collect();
                condition.extend(residual.iter().map(|c| named(&c.text(), &both)));
                let from = if self.columns.len() == names.len() { &names } else { &both };
                format!(
                    "SELECT {} FROM ({input}) AS i {kind} JOIN ({other}) AS j ON {}",
                    renamed(from),
                    condition.join(" AND ")
                )
            }
            Op::TopN { partition, order, limit } => {
                let mut by = String::new();
                if !partition.is_empty() {
                    let partition: Vec<String> = partition.iter().map(|c| names[*c].clone()).collect();
                    let _ = write!(by, "PARTITION BY {} ", listed(&partition));
                }
                // Complete, so that ties are of rows that are the same.
                let mut order: Vec<String> = order
                    .iter()
                    .map(|(c, down)| format!("{}{}", names[*c], if *down { " DESC" } else { "" }))
                    .collect();
                order.extend(names.iter().cloned());
                format!(
                    "SELECT {} FROM (SELECT *, ROW_NUMBER() OVER ({by}ORDER BY {}) AS position FROM ({input}) AS i) AS r WHERE position <= {limit}",
                    renamed(&names),
                    listed(&order)
                )
            }
            Op::Distinct => format!("SELECT DISTINCT {} FROM ({input}) AS i", renamed(&names)),
            Op::Set(op) => {
                let (other, others) = &inputs[1];
                format!(
                    "SELECT {} FROM ({input}) AS i {op} SELECT {} FROM ({other}) AS j",
                    renamed(&names),
                    renamed(others)
                )
            }
            Op::Member { column, of, how } => {
                let (other, others) = &inputs[1];
                let (column, of) = (&names[*column], &others[*of]);
                let condition = match how {
                    Membership::In => format!("{column} IN (SELECT {of} FROM ({other}) AS j)"),
                    Membership::NotIn => {
                        format!("{column} NOT IN (SELECT {of} FROM ({other}) AS j WHERE {of} IS NOT NULL)")
                    }
                    Membership::Exists => format!("EXISTS (SELECT 1 FROM ({other}) AS j WHERE j.{of} = i.{column})"),
                    Membership::NotExists => {
                        format!("NOT EXISTS (SELECT 1 FROM ({other}) AS j WHERE j.{of} = i.{column})")
                    }
                    Membership::Scalar => format!("{column} > (SELECT max({of}) FROM ({other}) AS j)"),
                };
                format!("SELECT {} FROM ({input}) AS i WHERE {condition}", renamed(&names))
            }
        };
        (sql, own)
    }

    /// Queries with one thing less.
    pub fn simpler(&self) -> Vec<Self> {
        let mut all: Vec<Self> = self.inputs.clone();
        if let (Op::Project(exprs), true) = (&self.op, self.columns.len() > 1) {
            for gone in (0..exprs.len()).filter(|i| self.closes != Some(*i)) {
                let mut exprs = exprs.clone();
                exprs.remove(gone);
                let mut query = self.clone();
                query.columns.remove(gone);
                query.op = Op::Project(exprs);
                query.time = None;
                query.closes = self.closes.map(|c| if c > gone { c - 1 } else { c });
                all.push(query);
            }
        }
        all.extend(self.same_columns());
        all
    }

    /// The same with the same columns.
    fn same_columns(&self) -> Vec<Self> {
        let with = |op: Op| Self { op, ..self.clone() };
        let mut all = Vec::new();
        match &self.op {
            Op::Filter(condition) => {
                all.extend(self.inputs.clone());
                all.extend(condition.parts().into_iter().map(|c| with(Op::Filter(c))));
            }
            Op::UnionAll | Op::Set(_) | Op::Distinct | Op::TopN { .. } | Op::Member { .. } => {
                all.extend(self.inputs.iter().filter(|i| i.columns == self.columns).cloned());
            }
            Op::Join { kind, on, residual } => {
                let on = on.clone();
                let simpler = residual.iter().flat_map(|c| c.parts()).map(Some);
                let residuals = simpler.chain(residual.is_some().then_some(None));
                all.extend(residuals.map(|residual| with(Op::Join { kind, on: on.clone(), residual })));
            }
            Op::Table(..) | Op::Project(_) | Op::Assign(..) | Op::Aggregate { .. } => {}
        }
        for (at, input) in self.inputs.iter().enumerate() {
            for simpler in input.same_columns().into_iter().filter(|s| s.columns == input.columns) {
                let mut query = self.clone();
                query.inputs[at] = simpler;
                all.push(query);
            }
        }
        all
    }
}
