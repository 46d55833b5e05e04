//! Random queries as trees, and their text.
use super::expr::{Condition, Expr, named};

/// Types of columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Int,
    Double,
    Text,
    /// `DECIMAL(10, 2)`.
    Decimal,
    Time,
    Bool,
    Date,
}

/// What the planner knows of a column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    #[default]
    Plain,
    /// A live time attribute.
    Time,
    /// Of a window.
    Start,
    End,
    /// The last moment of a window, which is a live time attribute too.
    Last,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    pub of: Type,
    pub role: Role,
}

/// A window function with its lengths.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// `TUMBLE`, `HOP`, `CUMULATE`, `SESSION`.
    pub name: &'static str,
    /// In seconds.
    pub lengths: Vec<u32>,
}

/// How an aggregation finds its windows.
#[derive(Clone, Debug, PartialEq)]
pub enum Windowed {
    No,
    /// A window function over this time column.
    By(Window, usize),
    /// The rows have windows: start, end, and perhaps the last moment.
    Attached(usize, usize, Option<usize>),
}

/// A subquery in an expression. Its columns are those of the second input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Membership {
    In,
    NotIn,
    /// Neither side is ever null.
    NotInKnown,
    Exists,
    NotExists,
    /// Greater than the highest.
    Scalar,
    /// At least the number of rows that are equal in another column: correlated.
    Correlated,
    /// One of two conditions.
    Either,
}

/// The order of a partition: column, descending, nulls first.
pub type Order = Vec<(usize, bool, bool)>;

/// A table that is read. Its last column is its time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Source {
    pub name: &'static str,
    pub columns: &'static [&'static str],
    pub types: &'static [Type],
    pub append_only: bool,
}

/// A condition of a join: the right time is from `before` seconds before the left one to `after` seconds after it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Near {
    pub left: usize,
    pub right: usize,
    pub before: i32,
    pub after: i32,
}

/// A function over a frame: its text has `OVER` where that belongs.
#[derive(Clone, Debug, PartialEq)]
pub struct Framed {
    pub text: String,
    pub frame: &'static str,
    pub of: Type,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    Table(&'static Source),
    Filter(Condition),
    Project(Vec<Expr>),
    UnionAll,
    /// Rows with the windows that hold them: adds start, end and last moment.
    Assign(Window, usize),
    /// Columns: keys, aggregates, then start, end and last moment of the window if there is one.
    Aggregate {
        windowed: Windowed,
        keys: Vec<usize>,
        calls: Vec<Expr>,
        having: Option<Condition>,
        /// `ROLLUP`, `CUBE` or `SETS`.
        sets: Option<&'static str>,
    },
    /// Left, right: equal columns, and conditions over both.
    Join {
        kind: &'static str,
        on: Vec<(usize, usize)>,
        near: Option<Near>,
        residual: Option<Condition>,
    },
    /// The rows whose rank is in a range; the rank is the last column if it is shown.
    Rank {
        function: &'static str,
        partition: Vec<usize>,
        order: Order,
        from: usize,
        to: usize,
        shown: bool,
    },
    Limit {
        order: Order,
        limit: usize,
        skip: usize,
    },
    /// The first row of each value of a column.
    DistinctOn {
        key: usize,
        order: Order,
    },
    /// Adds a column per call, all over the same partitions and order.
    Over {
        calls: Vec<Framed>,
        partition: Vec<usize>,
        order: Order,
    },
    Distinct,
    /// `UNION`, `INTERSECT`, `EXCEPT`, with `ALL` or without.
    Set(&'static str),
    Member {
        column: usize,
        of: usize,
        how: Membership,
    },
    /// Adds a column: an aggregate over the rows of the second input that are equal in a column.
    Looked {
        column: usize,
        of: usize,
        call: &'static str,
    },
}

/// What has to be over before a row is emitted. Columns are the query's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closes {
    /// The window that ends in this column.
    Always(usize),
    /// The window that ends in either of two columns, of rows in which one of them is null.
    Unmatched(usize, usize),
}

/// A relation.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    pub op: Op,
    pub inputs: Vec<Query>,
    pub columns: Vec<Column>,
    pub closes: Option<Closes>,
    /// Tables whose watermarks time attributes and windows follow.
    pub domain: Vec<&'static str>,
    /// How many milliseconds behind them.
    pub behind: i64,
    /// Rows are only added.
    pub append_only: bool,
    /// Some rows come when it is certain that they stay: the stream has what the batch has in the end only.
    pub late: bool,
}

pub fn plain(of: Type) -> Column {
    Column { of, role: Role::Plain }
}

impl Window {
    fn text(&self, input: &str, partition: &str, time: &str) -> String {
        let lengths: Vec<String> = self.lengths.iter().map(|l| format!("INTERVAL '{l}' SECOND")).collect();
        format!("TABLE({}(({input}){partition}, DESCRIPTOR({time}), {}))", self.name, lengths.join(", "))
    }
}

fn listed(names: &[String]) -> String {
    names.join(", ")
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Stream,
    /// Rows of windows that are not over are left out, by the watermarks in a table.
    Batch,
}

struct Writer {
    asked: Asked,
    next: usize,
}

impl Query {
    /// The place of the column with this role.
    pub fn place(&self, role: Role) -> Option<usize> {
        self.columns.iter().position(|c| c.role == role)
    }

    /// Start and end of a window.
    pub fn bounds(&self) -> Option<(usize, usize)> {
        self.place(Role::Start).zip(self.place(Role::End))
    }

    /// The query's text.
    pub fn sql(&self, asked: Asked) -> String {
        Writer { asked, next: 0 }.write(self).0
    }

    /// Operators, tables included.
    pub fn size(&self) -> usize {
        1 + self.inputs.iter().map(Self::size).sum::<usize>()
    }
}

impl Writer {
    fn write(&mut self, query: &Query) -> (String, Vec<String>) {
        let inputs: Vec<(String, Vec<String>)> = query.inputs.iter().map(|i| self.write(i)).collect();
        self.next += 1;
        let own: Vec<String> = (0..query.columns.len()).map(|i| format!("q{}_{i}", self.next)).collect();
        let mut sql = text(query, &inputs, &own);
        if let (Asked::Batch, Op::Aggregate { windowed: Windowed::No, keys, sets, .. }) = (self.asked, &query.op)
            && (keys.is_empty() || sets.is_some())
        {
            // DataFusion takes conditions without columns below an aggregation, which then has a row all the same; not below a limit.
            sql.push_str(" LIMIT 1000000");
        }
        let (Asked::Batch, Some(closes)) = (self.asked, query.closes) else { return (sql, own) };
        let watermark = match query.domain.as_slice() {
            [one] => (*one).to_owned(),
            several => format!("least({})", several.join(", ")),
        };
        let over =
            |end: &str| format!("CAST({end} AS BIGINT) + {} <= (SELECT {watermark} FROM __watermark)", query.behind);
        let condition = match closes {
            Closes::Always(end) => over(&own[end]),
            Closes::Unmatched(left, right) => {
                let (left, right) = (&own[left], &own[right]);
                let end = over(&format!("coalesce({left}, {right})"));
                format!("{left} IS NOT NULL AND {right} IS NOT NULL OR {end}")
            }
        };
        (format!("SELECT {} FROM ({sql}) AS closed WHERE {condition}", listed(&own)), own)
    }
}

fn picked(columns: &[usize], names: &[String]) -> Vec<String> {
    columns.iter().map(|c| names[*c].clone()).collect()
}

/// `ORDER BY` without the words, each column once; complete, so that ties are of rows that are the same.
fn ordered(order: &Order, names: &[String], complete: bool, but: Option<usize>) -> String {
    let mut done: Vec<usize> = but.into_iter().collect();
    let mut text = Vec::new();
    let all = (0..names.len()).filter(|_| complete).map(|i| (i, false, true));
    for (at, down, nulls_first) in order.iter().copied().chain(all) {
        if !done.contains(&at) {
            done.push(at);
            let (down, nulls) = (if down { " DESC" } else { "" }, if nulls_first { "FIRST" } else { "LAST" });
            text.push(format!("{}{down} NULLS {nulls}", names[at]));
        }
    }
    listed(&text)
}

fn over(partition: &[usize], order: &str, names: &[String]) -> String {
    match partition.is_empty() {
        true => format!("ORDER BY {order}"),
        false => format!("PARTITION BY {} ORDER BY {order}", listed(&picked(partition, names))),
    }
}

fn text(query: &Query, inputs: &[(String, Vec<String>)], own: &[String]) -> String {
    let (input, names) = inputs.first().cloned().unwrap_or_default();
    let (other, others) = inputs.get(1).cloned().unwrap_or_default();
    let renamed = |from: &[String]| {
        let items: Vec<String> = from.iter().zip(own).map(|(f, o)| format!("{f} AS {o}")).collect();
        listed(&items)
    };
    let all = renamed(&names);
    match &query.op {
        Op::Table(source) => {
            let columns: Vec<String> = source.columns.iter().map(|c| (*c).to_owned()).collect();
            format!("SELECT {} FROM {}", renamed(&columns), source.name)
        }
        Op::Filter(condition) => format!("SELECT {all} FROM ({input}) AS i WHERE {}", condition.text(&names)),
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
        Op::Aggregate { windowed, keys, calls, having, sets } => {
            let keys = picked(keys, &names);
            let mut from = keys.clone();
            from.extend(calls.iter().map(|c| named(&c.text, &names)));
            let (table, bounds) = match windowed {
                Windowed::No => (format!("({input})"), Vec::new()),
                Windowed::Attached(start, end, last) => {
                    let bounds = [Some(*start), Some(*end), *last].into_iter().flatten().collect::<Vec<_>>();
                    (format!("({input})"), picked(&bounds, &names))
                }
                Windowed::By(window, time) => {
                    let partition = match window.name {
                        "SESSION" if !keys.is_empty() => format!(" PARTITION BY ({})", listed(&keys)),
                        _ => String::new(),
                    };
                    let bounds = ["window_start", "window_end", "window_time"].map(str::to_owned).to_vec();
                    (window.text(&input, &partition, &names[*time]), bounds)
                }
            };
            from.extend(bounds.clone());
            let by: Vec<String> = keys.iter().cloned().chain(bounds.clone()).collect();
            let by = match sets {
                Some(sets) => format!(" GROUP BY {}", grouping(sets, &keys, &bounds)),
                None if by.is_empty() => String::new(),
                None => format!(" GROUP BY {}", listed(&by)),
            };
            let having = having.as_ref().map_or_else(String::new, |h| format!(" HAVING {}", h.text(&names)));
            format!("SELECT {} FROM {table} AS i{by}{having}", renamed(&from))
        }
        Op::Join { kind, on, near, residual } => {
            let both: Vec<String> = names.iter().chain(&others).cloned().collect();
            let mut condition: Vec<String> =
                on.iter().map(|(l, r)| format!("{} = {}", names[*l], others[*r])).collect();
            condition.extend(near.map(|near| {
                let (left, right) = (&names[near.left], &others[near.right]);
                let (before, after) = (near.before, near.after);
                format!("{right} BETWEEN {left} - INTERVAL '{before}' SECOND AND {left} + INTERVAL '{after}' SECOND")
            }));
            condition.extend(residual.iter().map(|c| format!("({})", c.text(&both))));
            let from = match *kind {
                k if k.starts_with("LEFT ") => &names,
                k if k.starts_with("RIGHT ") => &others,
                _ => &both,
            };
            let on = if condition.is_empty() { String::new() } else { format!(" ON {}", condition.join(" AND ")) };
            format!("SELECT {} FROM ({input}) AS i {kind} JOIN ({other}) AS j{on}", renamed(from))
        }
        Op::Rank { function, partition, order, from, to, shown } => {
            let order = ordered(order, &names, *function == "ROW_NUMBER", None);
            let mut columns = names.clone();
            columns.extend(shown.then(|| "CAST(place AS BIGINT)".to_owned()));
            format!(
                "SELECT {} FROM (SELECT *, {function}() OVER ({}) AS place FROM ({input}) AS i) AS r WHERE place >= {from} AND place <= {to}",
                renamed(&columns),
                over(partition, &order, &names)
            )
        }
        Op::Limit { order, limit, skip } => {
            let order = ordered(order, &names, true, None);
            let skip = if *skip > 0 { format!(" OFFSET {skip}") } else { String::new() };
            format!("SELECT {all} FROM (SELECT * FROM ({input}) AS i ORDER BY {order} LIMIT {limit}{skip}) AS l")
        }
        Op::DistinctOn { key, order } => {
            let order = ordered(order, &names, true, Some(*key));
            let order = [names[*key].clone(), order].into_iter().filter(|o| !o.is_empty()).collect::<Vec<_>>();
            let (key, order) = (&names[*key], listed(&order));
            format!("SELECT {all} FROM (SELECT DISTINCT ON ({key}) * FROM ({input}) AS i ORDER BY {order}) AS d")
        }
        Op::Over { calls, partition, order } => {
            let over = over(partition, &ordered(order, &names, true, None), &names);
            let mut columns = names.clone();
            columns.extend(calls.iter().map(|call| {
                let text = named(&call.text, &names);
                let (before, after) = text.split_once("OVER").unwrap_or((&text, ""));
                format!("{before}OVER ({over} {}){after}", call.frame)
            }));
            format!("SELECT {} FROM ({input}) AS i", renamed(&columns))
        }
        Op::Distinct => format!("SELECT DISTINCT {all} FROM ({input}) AS i"),
        Op::Set(op) => format!("SELECT {all} FROM ({input}) AS i {op} SELECT {} FROM ({other}) AS j", renamed(&others)),
        Op::Member { column, of, how } => {
            let condition = membership(*how, &names[*column], &others[*of], &other);
            format!("SELECT {all} FROM ({input}) AS i WHERE {condition}")
        }
        Op::Looked { column, of, call } => {
            let mut columns = names.clone();
            let (column, of) = (&names[*column], &others[*of]);
            columns.push(format!("(SELECT {} FROM ({other}) AS j WHERE {of} = {column})", call.replace("{}", of)));
            format!("SELECT {} FROM ({input}) AS i", renamed(&columns))
        }
    }
}

fn membership(how: Membership, column: &str, of: &str, other: &str) -> String {
    let exists = format!("EXISTS (SELECT 1 FROM ({other}) AS j WHERE {of} = {column})");
    match how {
        Membership::In => format!("{column} IN (SELECT {of} FROM ({other}) AS j)"),
        Membership::NotIn => format!("{column} NOT IN (SELECT {of} FROM ({other}) AS j)"),
        Membership::NotInKnown => {
            format!("coalesce({column}, 0) NOT IN (SELECT coalesce({of}, 0) FROM ({other}) AS j)")
        }
        Membership::Exists => exists,
        Membership::NotExists => format!("NOT {exists}"),
        Membership::Scalar => format!("{column} > (SELECT min({of}) FROM ({other}) AS j)"),
        Membership::Correlated => format!("{column} >= (SELECT count(*) FROM ({other}) AS j WHERE {of} = {column})"),
        Membership::Either => format!("({column} > 2 OR {exists})"),
    }
}

/// `ROLLUP`, `CUBE` or one of two sets over the keys; a window's bounds are in every set.
fn grouping(sets: &str, keys: &[String], bounds: &[String]) -> String {
    if sets != "SETS" {
        return format!("{sets} ({})", listed(keys));
    }
    let set = |keys: &[String]| format!("({})", listed(&keys.iter().chain(bounds).cloned().collect::<Vec<_>>()));
    format!("GROUPING SETS ({}, {}, {})", set(keys), set(&keys[..1]), set(&[]))
}
