//! Draws a query.
use super::expr::{self, Condition, Expr, column, literal, timeless};
use super::known::{self, is_bound};
use super::query::{Column, Framed, Membership, Near, Op, Order, Query, Role, Source, Type, Window, Windowed};
use crate::draws::Draws;

pub const SOURCES: [Source; 3] = [
    Source {
        name: "a",
        columns: &["k", "v", "s", "d", "b", "e", "ts"],
        types: &[Type::Int, Type::Double, Type::Text, Type::Decimal, Type::Bool, Type::Date, Type::Time],
        append_only: true,
    },
    Source { name: "b", columns: &["k", "s", "ts"], types: &[Type::Int, Type::Text, Type::Time], append_only: true },
    Source {
        name: "u",
        columns: &["id", "k", "v", "s", "b", "ts"],
        types: &[Type::Int, Type::Int, Type::Double, Type::Text, Type::Bool, Type::Time],
        append_only: false,
    },
];

const KINDS: [&str; 10] =
    ["INNER", "INNER", "INNER", "LEFT", "RIGHT", "FULL", "LEFT SEMI", "LEFT ANTI", "RIGHT SEMI", "RIGHT ANTI"];

const FRAMES: [&str; 7] = [
    "",
    "ROWS BETWEEN 2 PRECEDING AND CURRENT ROW",
    "ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING",
    "ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW",
    "ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING",
    "ROWS BETWEEN 3 PRECEDING AND 2 PRECEDING",
    "RANGE BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING",
];

/// A random query of at most `depth` operators above its tables, on each way down.
pub fn query(draws: &mut Draws, depth: usize) -> Query {
    if depth == 0 {
        let table = &SOURCES[draws.below(SOURCES.len())];
        return known::query(Op::Table(table), Vec::new()).unwrap();
    }
    let input = query(draws, depth - 1);
    let drawn = match draws.below(20) {
        0 | 1 => None,
        2 | 3 => project(draws, &input),
        4 => union(draws, &input, depth),
        5..=7 => windowed(draws, &input),
        8..=10 => join(draws, &input, depth),
        11 | 12 => aggregate(draws, &input),
        13 => rank(draws, &input),
        14 => limit(draws, &input),
        15 => over(draws, &input),
        16 => known::query(Op::Distinct, vec![input.clone()]),
        17 => set(draws, &input, depth),
        18 => member(draws, &input, depth),
        _ => looked(draws, &input, depth),
    };
    drawn.unwrap_or_else(|| {
        let condition = expr::condition(draws, &input.columns, 2);
        known::query(Op::Filter(condition), vec![input]).unwrap()
    })
}

fn over_one(op: Op, input: &Query) -> Option<Query> {
    known::query(op, vec![input.clone()])
}

fn project(draws: &mut Draws, input: &Query) -> Option<Query> {
    let mut exprs = Vec::new();
    for (i, of) in input.columns.iter().enumerate() {
        if of.role != Role::Plain && draws.chance(6, 7) {
            exprs.push(column(i, of.of));
        } else if draws.chance(3, 4) {
            let any = [Type::Int, Type::Double, Type::Text, Type::Bool, Type::Date];
            let of = if draws.chance(1, 4) { *draws.pick(&any) } else { of.of };
            exprs.push(expr::expr(draws, of, &input.columns, 2));
        }
    }
    if exprs.is_empty() {
        exprs.push(expr::expr(draws, Type::Int, &input.columns, 2));
    }
    over_one(Op::Project(exprs), input)
}

/// A query with columns of the same types as `like`, and of the same roles where it has such.
fn alike(draws: &mut Draws, like: &Query, depth: usize) -> Option<Query> {
    let input = query(draws, depth);
    let exprs = like.columns.iter().map(|c| match input.place(c.role).filter(|_| c.role != Role::Plain) {
        Some(place) => column(place, c.of),
        None => expr::expr(draws, c.of, &input.columns, 1),
    });
    over_one(Op::Project(exprs.collect()), &input)
}

fn union(draws: &mut Draws, input: &Query, depth: usize) -> Option<Query> {
    let other = alike(draws, input, depth - 1)?;
    known::query(Op::UnionAll, vec![input.clone(), other])
}

fn set(draws: &mut Draws, input: &Query, depth: usize) -> Option<Query> {
    let other = alike(draws, input, depth - 1)?;
    let op = *draws.pick(&["UNION", "UNION", "INTERSECT", "EXCEPT", "INTERSECT ALL", "EXCEPT ALL"]);
    known::query(Op::Set(op), vec![input.clone(), other])
}

fn window(draws: &mut Draws, sessions: bool) -> Window {
    let windows: [(&'static str, &[&[u32]]); 4] = [
        ("TUMBLE", &[&[1], &[4], &[7]]),
        ("HOP", &[&[2, 6], &[1, 3], &[5, 3]]),
        ("CUMULATE", &[&[1, 4], &[2, 6]]),
        ("SESSION", &[&[1], &[2]]),
    ];
    let (name, lengths) = windows[draws.below(if sessions { 4 } else { 3 })];
    Window { name, lengths: draws.pick(lengths).to_vec() }
}

fn windowed(draws: &mut Draws, input: &Query) -> Option<Query> {
    let windowed = match input.bounds() {
        Some((start, end)) if draws.chance(2, 3) => Windowed::Attached(start, end, input.place(Role::Last)),
        _ => {
            let time = input.place(Role::Time).or(input.place(Role::Last))?;
            if draws.chance(1, 4) {
                return over_one(Op::Assign(window(draws, false), time), input);
            }
            // Sessions of rows that go away again are refused.
            let sessions = input.append_only || draws.chance(1, 20);
            Windowed::By(window(draws, sessions), time)
        }
    };
    let keys = some_of(draws, &input.columns);
    let is_session = matches!(&windowed, Windowed::By(window, _) if window.name == "SESSION");
    let sets = (!keys.is_empty() && !is_session && draws.chance(1, 12)).then_some("SETS");
    let (calls, having) = calls(draws, &input.columns);
    over_one(Op::Aggregate { windowed, keys, calls, having, sets }, input)
}

fn aggregate(draws: &mut Draws, input: &Query) -> Option<Query> {
    let keys = some_of(draws, &input.columns);
    let sets = (!keys.is_empty() && draws.chance(1, 5)).then(|| *draws.pick(&["ROLLUP", "CUBE", "SETS"]));
    let (calls, having) = calls(draws, &input.columns);
    over_one(Op::Aggregate { windowed: Windowed::No, keys, calls, having, sets }, input)
}

/// At most two columns that are no bounds of windows.
fn some_of(draws: &mut Draws, columns: &[Column]) -> Vec<usize> {
    (0..columns.len()).filter(|i| !is_bound(columns[*i]) && draws.chance(1, 4)).take(2).collect()
}

fn calls(draws: &mut Draws, columns: &[Column]) -> (Vec<Expr>, Option<Condition>) {
    let calls: Vec<Expr> = (0..1 + draws.below(3)).map(|_| expr::call(draws, columns, false)).collect();
    let having = draws.chance(1, 5).then(|| {
        let call = draws.pick(&calls).clone();
        let other = literal(draws, call.of);
        let op = *draws.pick(&["<", ">=", "<>"]);
        Condition::Atom(format!("{} {op} {other}", call.text))
    });
    (calls, having)
}

fn join(draws: &mut Draws, input: &Query, depth: usize) -> Option<Query> {
    let below = draws.below(depth);
    let other = query(draws, below);
    let kind = *draws.pick(&KINDS);
    let (left, right) = (&input.columns, &other.columns);
    let pairs = (0..left.len()).flat_map(|l| (0..right.len()).map(move |r| (l, r)));
    let pairs: Vec<(usize, usize)> =
        pairs.filter(|(l, r)| left[*l].of == right[*r].of && left[*l].of != Type::Time).collect();
    let mut on: Vec<(usize, usize)> = Vec::new();
    if !pairs.is_empty() {
        on.extend((0..1 + draws.below(2)).map(|_| *draws.pick(&pairs)));
    }
    let append_only = input.append_only && other.append_only;
    let (mut near, mut residual) = (None, None);
    let windows = input.bounds().zip(other.bounds()).filter(|_| append_only && draws.chance(3, 4));
    let times = input.place(Role::Time).zip(other.place(Role::Time)).filter(|_| append_only && draws.chance(1, 2));
    match (windows, times) {
        (Some((l, r)), _) => {
            on.truncate(draws.below(2));
            on.extend([(l.0, r.0), (l.1, r.1)]);
        }
        (None, Some((left, right))) => {
            let (before, after) = *draws.pick(&[(2, 1), (0, 2), (1, 0), (0, 0), (3, -1)]);
            near = Some(Near { left, right, before, after });
        }
        // Rows of all tasks meet in one: small inputs only.
        (None, None) if on.is_empty() && input.size() + other.size() > 3 => return None,
        (None, None) => {
            let both: Vec<Column> = left.iter().chain(right).copied().collect();
            residual = if on.is_empty() || draws.chance(1, 3) { timeless(draws, &both, 1) } else { None };
            if on.is_empty() && residual.is_none() {
                return None;
            }
        }
    }
    known::query(Op::Join { kind, on, near, residual }, vec![input.clone(), other])
}

fn order(draws: &mut Draws, columns: &[Column]) -> Order {
    (0..1 + draws.below(2)).map(|_| (draws.below(columns.len()), draws.chance(1, 2), draws.chance(1, 2))).collect()
}

fn rank(draws: &mut Draws, input: &Query) -> Option<Query> {
    let mut partition = some_of(draws, &input.columns);
    let window = input.bounds().filter(|_| input.append_only && draws.chance(2, 3));
    partition.extend(window.into_iter().flat_map(|(start, end)| [start, end]));
    let order = order(draws, &input.columns);
    let function = *draws.pick(&["ROW_NUMBER", "ROW_NUMBER", "RANK", "DENSE_RANK"]);
    let (from, to) = *draws.pick(&[(1, 1), (1, 3), (1, 2), (2, 4), (1, 100)]);
    let shown = draws.chance(1, 2);
    over_one(Op::Rank { function, partition, order, from, to, shown }, input)
}

fn limit(draws: &mut Draws, input: &Query) -> Option<Query> {
    let order = order(draws, &input.columns);
    let op = match draws.chance(2, 3) {
        true => Op::Limit { order, limit: 1 + draws.below(9), skip: *draws.pick(&[0, 0, 0, 2]) },
        false => Op::DistinctOn { key: draws.below(input.columns.len()), order },
    };
    over_one(op, input)
}

fn over(draws: &mut Draws, input: &Query) -> Option<Query> {
    let partition = some_of(draws, &input.columns);
    let order = order(draws, &input.columns);
    let calls = (0..1 + draws.below(2)).map(|_| framed(draws, &input.columns)).collect();
    over_one(Op::Over { calls, partition, order }, input)
}

fn framed(draws: &mut Draws, columns: &[Column]) -> Framed {
    // The batch takes NaN out of a moving frame by subtraction.
    let fit: Vec<usize> = (0..columns.len()).filter(|i| columns[*i].of != Type::Double).collect();
    let exact: Vec<Column> = fit.iter().map(|i| columns[*i]).collect();
    let places: Vec<String> = fit.iter().map(|i| format!("{{{i}}}")).collect();
    let at = draws.below(columns.len());
    let (value, of) = (format!("{{{at}}}"), columns[at].of);
    let (text, of, has_frame) = match draws.below(12) {
        0 => ("CAST(ROW_NUMBER() OVER AS BIGINT)".to_owned(), Type::Int, false),
        1 => ("CAST(RANK() OVER AS BIGINT)".to_owned(), Type::Int, false),
        2 => ("CAST(NTILE(3) OVER AS BIGINT)".to_owned(), Type::Int, false),
        3 => ("CUME_DIST() OVER".to_owned(), Type::Double, false),
        4 => (format!("LAG({value}) OVER"), of, false),
        5 => (format!("LEAD({value}, 2) OVER"), of, false),
        6 => (format!("FIRST_VALUE({value}) OVER"), of, true),
        7 => (format!("LAST_VALUE({value}) OVER"), of, true),
        8 => (format!("NTH_VALUE({value}, 2) OVER"), of, true),
        _ if exact.is_empty() => ("count(*) OVER".to_owned(), Type::Int, true),
        _ => {
            let call = expr::call(draws, &exact, true);
            (expr::renumbered(&call.text, &places), call.of, true)
        }
    };
    let frame: usize = if has_frame { draws.below(FRAMES.len()) } else { 0 };
    Framed { text, frame: FRAMES[frame], of }
}

fn whole(draws: &mut Draws, query: &Query) -> Option<usize> {
    let fit: Vec<usize> = (0..query.columns.len()).filter(|i| query.columns[*i].of == Type::Int).collect();
    if fit.is_empty() { None } else { Some(*draws.pick(&fit)) }
}

fn member(draws: &mut Draws, input: &Query, depth: usize) -> Option<Query> {
    use Membership::{Correlated, Either, Exists, In, NotExists, NotIn, NotInKnown, Scalar};
    let below = draws.below(depth);
    let other = query(draws, below);
    let (column, of) = (whole(draws, input)?, whole(draws, &other)?);
    let how =
        *draws.pick(&[In, In, NotInKnown, Exists, Exists, NotExists, NotExists, Scalar, Correlated, NotIn, Either]);
    known::query(Op::Member { column, of, how }, vec![input.clone(), other])
}

fn looked(draws: &mut Draws, input: &Query, depth: usize) -> Option<Query> {
    let below = draws.below(depth);
    let other = query(draws, below);
    let (column, of) = (whole(draws, input)?, whole(draws, &other)?);
    let call = *draws.pick(&["count(*)", "max({})", "sum({})", "count({})"]);
    known::query(Op::Looked { column, of, call }, vec![input.clone(), other])
}
