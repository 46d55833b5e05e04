//! Draws a query.
use super::query::{Condition, Expr, Membership, Op, Query, Type, Window};
use crate::draws::Draws;

/// What queries may hold. Everything else is switched on when the engine has it.
#[derive(Clone, Copy, Debug)]
pub struct Features {
    pub unions: bool,
    pub windows: bool,
    /// Tables that lose rows.
    pub updating: bool,
    pub joins: bool,
    pub aggregates: bool,
    pub top_n: bool,
    pub sets: bool,
    pub subqueries: bool,
}

/// Name, columns, time column, whether rows are only added.
type Source = (&'static str, &'static [&'static str], &'static [Type], Option<usize>, bool);

const SOURCES: [Source; 3] = [
    (
        "a",
        &["k", "v", "s", "d", "ts"],
        &[Type::Int, Type::Double, Type::Text, Type::Decimal, Type::Time],
        Some(4),
        true,
    ),
    ("b", &["k", "s", "ts"], &[Type::Int, Type::Text, Type::Time], Some(2), true),
    ("u", &["id", "k", "v", "s"], &[Type::Int, Type::Int, Type::Double, Type::Text], None, false),
];

pub struct Generator {
    pub draws: Draws,
    pub features: Features,
}

impl Generator {
    /// A query of at most `depth` operators above its tables.
    pub fn query(&mut self, depth: usize) -> Query {
        if depth == 0 {
            return self.table();
        }
        let input = self.query(depth - 1);
        let f = self.features;
        match self.draws.below(12) {
            0 | 1 => self.filter(input),
            2 | 3 => self.project(input),
            4 if f.unions => self.union(input, depth),
            5 | 6 if f.windows => self.windowed(input),
            7 if f.joins => self.join(input, depth),
            8 | 9 if f.aggregates => self.aggregate(input),
            10 if f.top_n => self.top_n(input),
            11 if f.sets => self.set(input, depth),
            4 if f.subqueries => self.member(input, depth),
            _ => self.filter(input),
        }
    }

    fn table(&mut self) -> Query {
        let of = if self.features.updating { 3 } else { 2 };
        let (name, columns, types, time, append_only) = SOURCES[self.draws.below(of)];
        Query {
            op: Op::Table(name, columns),
            inputs: Vec::new(),
            columns: types.to_vec(),
            time,
            closes: None,
            append_only,
        }
    }

    fn filter(&mut self, input: Query) -> Query {
        let condition = self.condition(&input.columns, 2);
        self.over(Op::Filter(condition), input)
    }

    /// An operator that keeps the columns.
    fn over(&mut self, op: Op, input: Query) -> Query {
        Query { op, inputs: vec![input.clone()], ..input }
    }

    fn project(&mut self, input: Query) -> Query {
        let mut exprs = Vec::new();
        let (mut time, mut closes) = (None, None);
        for (i, of) in input.columns.iter().enumerate() {
            let keep = input.closes == Some(i) || input.time == Some(i) && self.draws.chance(4, 5);
            if keep {
                time = time.or((input.time == Some(i)).then_some(exprs.len()));
                closes = closes.or((input.closes == Some(i)).then_some(exprs.len()));
                exprs.push(Expr { text: format!("{{{i}}}"), of: *of });
            } else if self.draws.chance(3, 4) {
                let of = if self.draws.chance(1, 4) {
                    *self.draws.pick(&[Type::Int, Type::Double, Type::Text])
                } else {
                    *of
                };
                exprs.push(self.expr(of, &input.columns, 2));
            }
        }
        if exprs.is_empty() {
            exprs.push(self.expr(Type::Int, &input.columns, 2));
        }
        let columns = exprs.iter().map(|e| e.of).collect();
        let append_only = input.append_only;
        Query { op: Op::Project(exprs), inputs: vec![input], columns, time, closes, append_only }
    }

    /// A query with the same columns as `like`; its time and the end of its windows where `like` has them. None if it cannot be.
    fn like(&mut self, like: &Query, depth: usize) -> Option<Query> {
        let input = self.query(depth);
        if input.closes.is_some() != like.closes.is_some() {
            return None;
        }
        let exprs = like.columns.iter().enumerate().map(|(i, of)| match (input.time, input.closes) {
            (_, Some(closes)) if like.closes == Some(i) => Expr { text: format!("{{{closes}}}"), of: *of },
            (Some(time), _) if like.time == Some(i) => Expr { text: format!("{{{time}}}"), of: *of },
            _ => self.expr(*of, &input.columns, 1),
        });
        let exprs: Vec<Expr> = exprs.collect();
        let columns = like.columns.clone();
        let (time, closes) = (like.time.filter(|_| input.time.is_some()), like.closes);
        let append_only = input.append_only;
        Some(Query { op: Op::Project(exprs), inputs: vec![input], columns, time, closes, append_only })
    }

    fn union(&mut self, input: Query, depth: usize) -> Query {
        let Some(other) = self.like(&input, depth - 1) else { return self.filter(input) };
        let (columns, time, closes) = (input.columns.clone(), other.time, input.closes);
        let append_only = input.append_only && other.append_only;
        Query { op: Op::UnionAll, inputs: vec![input, other], columns, time, closes, append_only }
    }

    fn window(&mut self, sessions: bool) -> Window {
        let windows: [(&'static str, &[&[u32]]); 4] = [
            ("TUMBLE", &[&[1], &[4], &[7]]),
            ("HOP", &[&[2, 6], &[1, 3], &[5, 3]]),
            ("CUMULATE", &[&[1, 4], &[2, 6]]),
            ("SESSION", &[&[1], &[2]]),
        ];
        let (name, lengths) = windows[self.draws.below(if sessions { 4 } else { 3 })];
        Window { name, lengths: self.draws.pick(lengths).to_vec() }
    }

    fn windowed(&mut self, input: Query) -> Query {
        let Some(time) = input.time.filter(|_| input.append_only) else { return self.filter(input) };
        if self.draws.chance(1, 5) {
            let window = self.window(false);
            let mut columns = input.columns.clone();
            columns.extend([Type::Time; 3]);
            let (last, closes) = (Some(columns.len() - 1), input.closes);
            return Query {
                op: Op::Assign(window, time),
                inputs: vec![input],
                columns,
                time: last,
                closes,
                append_only: true,
            };
        }
        let window = self.window(true);
        let keys = self.keys(&input.columns, Some(time));
        let calls = self.calls(&input.columns);
        let mut columns: Vec<Type> = keys.iter().map(|k| input.columns[*k]).collect();
        columns.extend(calls.iter().map(|c| c.of));
        columns.extend([Type::Time; 3]);
        let (last, closes) = (Some(columns.len() - 1), Some(columns.len() - 2));
        let op = Op::Aggregate { window: Some((window, time)), keys, calls };
        Query { op, inputs: vec![input], columns, time: last, closes, append_only: true }
    }

    fn aggregate(&mut self, input: Query) -> Query {
        if input.closes.is_some() {
            return self.filter(input);
        }
        let keys = self.keys(&input.columns, None);
        let calls = self.calls(&input.columns);
        let columns = keys.iter().map(|k| input.columns[*k]).chain(calls.iter().map(|c| c.of)).collect();
        let op = Op::Aggregate { window: None, keys, calls };
        Query { op, inputs: vec![input], columns, time: None, closes: None, append_only: false }
    }

    fn keys(&mut self, columns: &[Type], but: Option<usize>) -> Vec<usize> {
        (0..columns.len()).filter(|i| Some(*i) != but && self.draws.chance(1, 4)).take(2).collect()
    }

    fn calls(&mut self, columns: &[Type]) -> Vec<Expr> {
        let count = 1 + self.draws.below(3);
        (0..count).map(|_| self.call(columns)).collect()
    }

    fn call(&mut self, columns: &[Type]) -> Expr {
        let column = self.draws.below(columns.len());
        let (name, of) = (format!("{{{column}}}"), columns[column]);
        let mut text = match (self.draws.below(6), of) {
            (0, _) => "count(*)".to_owned(),
            (1, _) => format!("count({name})"),
            (2, _) => format!("count(DISTINCT {name})"),
            (3, _) => format!("min({name})"),
            (4, _) => format!("max({name})"),
            (_, Type::Int | Type::Double | Type::Decimal) => {
                let call = *self.draws.pick(&["sum", "avg"]);
                format!("{call}({name})")
            }
            _ => format!("max({name})"),
        };
        let result = match &text {
            t if t.starts_with("count") => Type::Int,
            t if t.starts_with("avg") => Type::Double,
            _ => of,
        };
        if self.draws.chance(1, 4) {
            let condition = self.condition(columns, 0);
            let Condition::Atom(condition) = condition else { return Expr { text, of: result } };
            text = format!("{text} FILTER (WHERE {condition})");
        }
        // Sums have more digits than what is summed.
        if of == Type::Decimal && (text.starts_with("sum") || text.starts_with("avg")) {
            text = format!("CAST({text} AS {})", if text.starts_with("sum") { "DECIMAL(10, 2)" } else { "DOUBLE" });
        }
        Expr { text, of: result }
    }

    fn join(&mut self, input: Query, depth: usize) -> Query {
        let other = self.query(depth - 1);
        let pairs: Vec<(usize, usize)> = (0..input.columns.len())
            .flat_map(|l| (0..other.columns.len()).map(move |r| (l, r)))
            .filter(|(l, r)| input.columns[*l] == other.columns[*r] && input.columns[*l] != Type::Double)
            .collect();
        if pairs.is_empty() || input.closes.is_some() || other.closes.is_some() {
            return self.filter(input);
        }
        let kind = *self.draws.pick(&["INNER", "INNER", "LEFT", "RIGHT", "FULL", "LEFT SEMI", "LEFT ANTI"]);
        let on = (0..1 + self.draws.below(2)).map(|_| *self.draws.pick(&pairs)).collect();
        let both: Vec<Type> = input.columns.iter().chain(&other.columns).copied().collect();
        let residual = self.draws.chance(1, 3).then(|| self.condition(&both, 1));
        let columns = if kind.starts_with("LEFT ") { input.columns.clone() } else { both };
        let append_only = input.append_only && other.append_only && ["INNER", "LEFT SEMI"].contains(&kind);
        let op = Op::Join { kind, on, residual };
        Query { op, inputs: vec![input, other], columns, time: None, closes: None, append_only }
    }

    fn top_n(&mut self, input: Query) -> Query {
        if input.closes.is_some() {
            return self.filter(input);
        }
        let partition = self.keys(&input.columns, None);
        let order = vec![(self.draws.below(input.columns.len()), self.draws.chance(1, 2))];
        let limit = 1 + self.draws.below(4);
        Query { time: None, append_only: false, ..self.over(Op::TopN { partition, order, limit }, input) }
    }

    fn set(&mut self, input: Query, depth: usize) -> Query {
        if input.closes.is_some() {
            return self.filter(input);
        }
        if self.draws.chance(1, 3) {
            return Query { time: None, append_only: false, ..self.over(Op::Distinct, input) };
        }
        let Some(other) = self.like(&input, depth - 1) else { return self.filter(input) };
        let op = *self.draws.pick(&["UNION", "INTERSECT", "EXCEPT", "INTERSECT ALL", "EXCEPT ALL"]);
        let columns = input.columns.clone();
        Query { op: Op::Set(op), inputs: vec![input, other], columns, time: None, closes: None, append_only: false }
    }

    fn member(&mut self, input: Query, depth: usize) -> Query {
        let other = self.query(depth - 1);
        let place = |q: &Query| q.columns.iter().position(|t| *t == Type::Int);
        let (Some(column), Some(of), None, None) = (place(&input), place(&other), input.closes, other.closes) else {
            return self.filter(input);
        };
        let how = [Membership::In, Membership::NotIn, Membership::Exists, Membership::NotExists, Membership::Scalar];
        let how = *self.draws.pick(&how);
        let columns = input.columns.clone();
        let op = Op::Member { column, of, how };
        Query { op, inputs: vec![input, other], columns, time: None, closes: None, append_only: false }
    }

    fn column(&mut self, of: Type, columns: &[Type]) -> Option<String> {
        let fit: Vec<usize> = (0..columns.len()).filter(|i| columns[*i] == of).collect();
        if fit.is_empty() { None } else { Some(format!("{{{}}}", self.draws.pick(&fit))) }
    }

    fn literal(&mut self, of: Type) -> String {
        match of {
            Type::Int => self.draws.pick(&["0", "1", "3", "-2", "CAST(NULL AS BIGINT)"]),
            Type::Double => self.draws.pick(&["0.5", "2.0", "-0.0", "CAST('NaN' AS DOUBLE)", "CAST(NULL AS DOUBLE)"]),
            Type::Text => self.draws.pick(&["''", "'a'", "'Bc'", "'NULL'", "CAST(NULL AS STRING)"]),
            Type::Decimal => self.draws.pick(&["CAST(1.25 AS DECIMAL(10, 2))", "CAST(NULL AS DECIMAL(10, 2))"]),
            Type::Time => {
                self.draws.pick(&["CAST('2020-01-01 00:00:09' AS TIMESTAMP(3))", "CAST(NULL AS TIMESTAMP(3))"])
            }
        }
        .to_string()
    }

    /// An expression; values stay small, so that nothing overflows.
    pub fn expr(&mut self, of: Type, columns: &[Type], depth: usize) -> Expr {
        let text = self.expr_text(of, columns, depth);
        Expr { text, of }
    }

    fn expr_text(&mut self, of: Type, columns: &[Type], depth: usize) -> String {
        if depth == 0 || self.draws.chance(1, 3) {
            let column = if self.draws.chance(6, 7) { self.column(of, columns) } else { None };
            return column.unwrap_or_else(|| self.literal(of));
        }
        let mut part = |of: Type| self.expr_text(of, columns, depth - 1);
        let (a, b) = (part(of), part(of));
        match (self.draws.below(4), of) {
            (0, _) => {
                let condition = self.condition(columns, 0).text_of_atom();
                format!("CASE WHEN {condition} THEN {a} ELSE {b} END")
            }
            (1, _) => format!("coalesce({a}, {b})"),
            (2, _) => format!("nullif({a}, {b})"),
            (_, Type::Int) => match self.draws.below(3) {
                0 => format!("({a} + {b})"),
                1 => format!("({a} % 5)"),
                _ => {
                    let text = self.expr_text(Type::Text, columns, depth - 1);
                    format!("CAST(char_length({text}) AS BIGINT)")
                }
            },
            (_, Type::Double) => match self.draws.below(3) {
                0 => format!("({a} * 2.0)"),
                1 => format!("({a} - {b})"),
                _ => {
                    let int = self.expr_text(Type::Int, columns, depth - 1);
                    format!("CAST({int} AS DOUBLE)")
                }
            },
            (_, Type::Text) => match self.draws.below(3) {
                0 => format!("upper({a})"),
                // concat is another function in each dialect.
                1 => format!("({a} || {b})"),
                _ => format!("substr({a}, 1, 1)"),
            },
            (_, Type::Decimal) => format!("CAST({a} - {b} AS DECIMAL(10, 2))"),
            (_, Type::Time) => a,
        }
    }

    fn condition(&mut self, columns: &[Type], depth: usize) -> Condition {
        if depth > 0 && self.draws.chance(1, 2) {
            let a = Box::new(self.condition(columns, depth - 1));
            return match self.draws.below(3) {
                0 => Condition::And(a, Box::new(self.condition(columns, depth - 1))),
                1 => Condition::Or(a, Box::new(self.condition(columns, depth - 1))),
                _ => Condition::Not(a),
            };
        }
        let of = *self.draws.pick(columns);
        let a = self.expr_text(of, columns, depth.min(1));
        let b = self.expr_text(of, columns, 0);
        let literal = self.literal(of);
        let text = match self.draws.below(6) {
            0 => format!("{a} IS NULL"),
            1 => format!("{a} IS NOT NULL"),
            2 if of == Type::Text => format!("{a} LIKE 'a%'"),
            2 => format!("{a} BETWEEN {b} AND {literal}"),
            3 => format!("{a} IN ({literal}, {b})"),
            _ => format!("{a} {} {b}", self.draws.pick(&["=", "<>", "<", ">="])),
        };
        Condition::Atom(text)
    }
}

impl Condition {
    fn text_of_atom(self) -> String {
        match self {
            Self::Atom(text) => text,
            other => format!("{other:?}"),
        }
    }
}
