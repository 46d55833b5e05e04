//! Simpler queries: one that fails is shrunk as long as it fails in the same way.
use super::expr::{Condition, Expr, column, null, renumbered};
use super::known;
use super::query::{Asked, Column, Op, Query, Role};

/// What shrinking makes smaller.
pub fn weight(query: &Query) -> usize {
    fn operators(query: &Query) -> usize {
        let own = match &query.op {
            Op::Table(_) => 1,
            Op::Project(_) => 2,
            Op::Filter(_) => 3,
            _ => 5,
        };
        own + query.inputs.iter().map(operators).sum::<usize>()
    }
    operators(query) * 200 + query.sql(Asked::Stream).len()
}

/// Simpler queries, the simplest first.
pub fn simpler(query: &Query) -> Vec<Query> {
    let mut all = parts(query);
    all.extend(variants(query));
    if let Op::Project(exprs) = &query.op {
        let fewer = (0..exprs.len()).filter(|_| exprs.len() > 1).map(|gone| Op::Project(without(exprs, gone)));
        all.extend(fewer.filter_map(|op| known::query(op, query.inputs.clone())));
    }
    let own = weight(query);
    let mut weighed: Vec<(usize, Query)> = all.into_iter().map(|q| (weight(&q), q)).filter(|(w, _)| *w < own).collect();
    weighed.sort_by_key(|(weight, _)| *weight);
    weighed.into_iter().map(|(_, query)| query).collect()
}

fn parts(query: &Query) -> Vec<Query> {
    query.inputs.iter().flat_map(|i| std::iter::once(i.clone()).chain(parts(i))).collect()
}

fn without<T: Clone>(items: &[T], gone: usize) -> Vec<T> {
    items.iter().enumerate().filter(|(i, _)| *i != gone).map(|(_, item)| item.clone()).collect()
}

/// Queries with columns of the same types.
fn variants(query: &Query) -> Vec<Query> {
    let mut all: Vec<Query> = query.inputs.iter().filter_map(|i| adapted(&query.columns, i)).collect();
    all.extend(operators(&query.op).into_iter().filter_map(|op| known::query(op, query.inputs.clone())));
    all.extend(fewer_columns(query));
    if let (Op::Project(exprs), [Query { op: Op::Project(inner), inputs, .. }]) = (&query.op, query.inputs.as_slice()) {
        let texts: Vec<String> = inner.iter().map(|e| e.text.clone()).collect();
        let merged = exprs.iter().map(|e| Expr { text: renumbered(&e.text, &texts), of: e.of });
        all.extend(known::query(Op::Project(merged.collect()), inputs.clone()));
    }
    for (at, input) in query.inputs.iter().enumerate() {
        for variant in variants(input) {
            let mut inputs = query.inputs.clone();
            inputs[at] = variant;
            all.extend(known::query(query.op.clone(), inputs));
        }
    }
    all
}

/// `from` with columns of these types, and of these roles where it can.
fn adapted(to: &[Column], from: &Query) -> Option<Query> {
    if to.len() == from.columns.len() && to.iter().zip(&from.columns).all(|(a, b)| a.of == b.of) {
        return Some(from.clone());
    }
    let mut used = Vec::new();
    let exprs = to.iter().map(|wanted| {
        let fits = |i: &usize| {
            let column = from.columns[*i];
            column.of == wanted.of && (wanted.role == Role::Plain || column.role == wanted.role) && !used.contains(i)
        };
        match (0..from.columns.len()).find(fits) {
            Some(i) => {
                used.push(i);
                column(i, wanted.of)
            }
            None => null(wanted.of),
        }
    });
    known::query(Op::Project(exprs.collect()), vec![from.clone()])
}

/// The same with the same columns.
fn operators(op: &Op) -> Vec<Op> {
    let mut all = Vec::new();
    match op.clone() {
        Op::Filter(condition) => all.extend(condition.parts().into_iter().map(Op::Filter)),
        Op::Project(exprs) => {
            for (i, expr) in exprs.iter().enumerate().filter(|(_, e)| e.text.contains([' ', '('])) {
                let mut simple = exprs.clone();
                simple[i] = null(expr.of);
                all.push(Op::Project(simple));
            }
        }
        Op::Aggregate { windowed, keys, calls, having, sets } => {
            if having.is_some() {
                all.push(Op::Aggregate { windowed, keys, calls, having: None, sets });
            } else if sets.is_some() {
                all.push(Op::Aggregate { windowed, keys, calls, having, sets: None });
            }
        }
        Op::Join { kind, on, near, residual } => {
            let mut simple: Vec<Option<Condition>> = residual.iter().flat_map(Condition::parts).map(Some).collect();
            simple.extend(residual.is_some().then_some(None));
            all.extend(simple.into_iter().map(|residual| Op::Join { kind, on: on.clone(), near, residual }));
            let fewer = (0..on.len()).map(|gone| without(&on, gone));
            all.extend(fewer.map(|on| Op::Join { kind, on, near, residual: residual.clone() }));
            if near.is_some() {
                all.push(Op::Join { kind, on, near: None, residual });
            }
        }
        Op::Rank { function, partition, order, from, to, shown } => {
            let fewer = (0..partition.len()).map(|gone| without(&partition, gone));
            let order = order[..1].to_vec();
            all.extend(fewer.map(|partition| Op::Rank { function, partition, order: order.clone(), from, to, shown }));
            all.push(Op::Rank { function, partition, order, from, to, shown });
        }
        Op::Limit { order, limit, skip } => {
            all.push(Op::Limit { order: order[..1].to_vec(), limit, skip });
            all.push(Op::Limit { order, limit, skip: 0 });
        }
        Op::DistinctOn { key, order } => all.push(Op::DistinctOn { key, order: order[..1].to_vec() }),
        Op::Over { calls, partition, order } => {
            let fewer = (0..partition.len()).map(|gone| without(&partition, gone));
            let order = order[..1].to_vec();
            all.extend(fewer.map(|partition| Op::Over { calls: calls.clone(), partition, order: order.clone() }));
            all.push(Op::Over { calls, partition, order });
        }
        Op::Table(_)
        | Op::UnionAll
        | Op::Assign(..)
        | Op::Distinct
        | Op::Set(_)
        | Op::Member { .. }
        | Op::Looked { .. } => {}
    }
    all
}

/// The same without one column, which is null instead.
fn fewer_columns(query: &Query) -> Vec<Query> {
    let mut all = Vec::new();
    let mut add = |op: Op, gone: usize| {
        let Some(node) = known::query(op, query.inputs.clone()) else { return };
        let exprs = query.columns.iter().enumerate().map(|(i, c)| match i {
            i if i == gone => null(c.of),
            i => column(if i > gone { i - 1 } else { i }, c.of),
        });
        all.extend(known::query(Op::Project(exprs.collect()), vec![node]));
    };
    match &query.op {
        Op::Aggregate { windowed, keys, calls, having, sets } => {
            let with = |keys: Vec<usize>, calls: Vec<Expr>| Op::Aggregate {
                windowed: windowed.clone(),
                sets: sets.filter(|_| !keys.is_empty()),
                keys,
                calls,
                having: having.clone(),
            };
            for gone in 0..keys.len() {
                add(with(without(keys, gone), calls.clone()), gone);
            }
            for gone in (0..calls.len()).filter(|_| calls.len() > 1) {
                add(with(keys.clone(), without(calls, gone)), keys.len() + gone);
            }
        }
        Op::Over { calls, partition, order } if calls.len() > 1 => {
            let width = query.columns.len() - calls.len();
            for gone in 0..calls.len() {
                let calls = without(calls, gone);
                add(Op::Over { calls, partition: partition.clone(), order: order.clone() }, width + gone);
            }
        }
        _ => {}
    }
    all
}
