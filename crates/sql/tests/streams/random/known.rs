//! What the planner knows of a query: which columns are times or bounds of windows, whether rows are only added, and which rows wait for a
//! watermark.
//!
//! Times may be forgotten here although the planner knows them: no window is asked of them then. Bounds of windows may not, because a
//! grouping by them waits for the end of the window.
use super::query::{Closes, Column, Membership, Op, Query, Role, Type, Windowed, plain};

/// An operator over these inputs; nothing if no stream can be asked for it.
pub fn query(op: Op, inputs: Vec<Query>) -> Option<Query> {
    let first = inputs.first();
    let columns = first.map_or_else(Vec::new, |i| i.columns.clone());
    let append_only = inputs.iter().all(|i| i.append_only);
    match &op {
        Op::Table(source) => {
            let mut columns: Vec<Column> = source.types.iter().map(|t| plain(*t)).collect();
            columns.last_mut()?.role = Role::Time;
            let mut query = node(op.clone(), inputs, columns, source.append_only);
            query.domain = vec![source.name];
            Some(query)
        }
        Op::Filter(_) => Some(node(op, inputs, columns, append_only)),
        Op::Project(exprs) => {
            let of = |text: &str| (0..columns.len()).find(|i| text == format!("{{{i}}}")).map(|i| columns[i]);
            let columns = exprs.iter().map(|e| of(&e.text).unwrap_or(plain(e.of))).collect();
            Some(node(op, inputs, columns, append_only))
        }
        Op::UnionAll => {
            let other = inputs.get(1)?;
            let columns = columns.iter().zip(&other.columns).map(|(a, b)| common(*a, *b)).collect();
            Some(node(op, inputs, columns, append_only))
        }
        Op::Assign(_, time) => {
            is_time(&columns, *time).then_some(())?;
            let of = |c: &Column| Column { role: without_window(c.role), ..*c };
            let mut columns: Vec<Column> = columns.iter().map(of).collect();
            columns.extend([Role::Start, Role::End, Role::Last].map(bound));
            Some(node(op, inputs, columns, append_only))
        }
        Op::Aggregate { .. } => aggregate(op, inputs),
        Op::Join { .. } => join(op, inputs),
        Op::Rank { partition, shown, .. } => {
            let end = partition.iter().copied().find(|c| columns[*c].role == Role::End).filter(|_| append_only);
            let mut columns = if end.is_some() { columns } else { forgotten(&columns) };
            columns.extend(shown.then(|| plain(Type::Int)));
            let mut query = node(op, inputs, columns, end.is_some());
            query.closes = end.map(Closes::Always);
            Some(query)
        }
        Op::DistinctOn { key, .. } if is_bound(columns[*key]) => None,
        Op::Limit { .. } | Op::DistinctOn { .. } => Some(node(op, inputs, forgotten(&columns), false)),
        Op::Over { calls, .. } => {
            let mut columns = forgotten(&columns);
            columns.extend(calls.iter().map(|c| plain(c.of)));
            Some(node(op, inputs, columns, false))
        }
        Op::Distinct if append_only && columns.iter().any(|c| is_bound(*c)) => {
            // Grouped by windows: one bound alone is not always enough.
            let (_, end) = first?.bounds()?;
            let of = |c: &Column| if c.role == Role::Time { plain(c.of) } else { *c };
            let mut query = node(op, inputs, columns.iter().map(of).collect(), true);
            query.closes = Some(Closes::Always(end));
            Some(query)
        }
        Op::Distinct => {
            let columns = if append_only { columns } else { forgotten(&columns) };
            Some(node(op, inputs, columns, append_only))
        }
        Op::Set(_) if columns.iter().any(|c| is_bound(*c)) => None,
        Op::Set(set) => {
            let append_only = append_only && *set == "UNION";
            Some(node(op, inputs, forgotten(&columns), append_only))
        }
        Op::Member { how, .. } => {
            let append_only = append_only && matches!(how, Membership::In | Membership::Exists);
            Some(node(op, inputs, forgotten(&columns), append_only))
        }
        Op::Looked { .. } => {
            let mut columns = forgotten(&columns);
            columns.push(plain(Type::Int));
            Some(node(op, inputs, columns, false))
        }
    }
}

fn node(op: Op, inputs: Vec<Query>, columns: Vec<Column>, append_only: bool) -> Query {
    let mut domain: Vec<&'static str> = inputs.iter().flat_map(|i| i.domain.clone()).collect();
    domain.sort_unstable();
    domain.dedup();
    let behind = inputs.iter().map(|i| i.behind).max().unwrap_or(0);
    let late = inputs.iter().any(|i| i.late);
    Query { op, inputs, columns, closes: None, domain, behind, append_only, late }
}

fn bound(role: Role) -> Column {
    Column { of: Type::Time, role }
}

pub fn is_bound(column: Column) -> bool {
    matches!(column.role, Role::Start | Role::End | Role::Last)
}

fn is_time(columns: &[Column], i: usize) -> bool {
    columns.get(i).is_some_and(|c| matches!(c.role, Role::Time | Role::Last))
}

pub fn forgotten(columns: &[Column]) -> Vec<Column> {
    columns.iter().map(|c| plain(c.of)).collect()
}

fn without_window(role: Role) -> Role {
    match role {
        Role::Start | Role::End | Role::Plain => Role::Plain,
        Role::Time | Role::Last => Role::Time,
    }
}

fn common(a: Column, b: Column) -> Column {
    match (a.role, b.role) {
        (of_a, of_b) if of_a == of_b => a,
        (Role::Time | Role::Last, Role::Time | Role::Last) => Column { role: Role::Time, ..a },
        _ => plain(a.of),
    }
}

fn aggregate(op: Op, inputs: Vec<Query>) -> Option<Query> {
    let Op::Aggregate { windowed, keys, calls, sets, .. } = &op else { return None };
    let input = inputs.first()?;
    let mut columns: Vec<Column> = keys.iter().map(|k| plain(input.columns[*k].of)).collect();
    columns.extend(calls.iter().map(|c| plain(c.of)));
    let is_session = match windowed {
        Windowed::By(window, time) => {
            is_time(&input.columns, *time).then_some(())?;
            columns.extend([Role::Start, Role::End, Role::Last].map(bound));
            window.name == "SESSION"
        }
        Windowed::Attached(start, end, last) => {
            let roles = [(Some(*start), Role::Start), (Some(*end), Role::End), (*last, Role::Last)];
            for (place, role) in roles {
                let Some(place) = place else { continue };
                (input.columns.get(place)?.role == role).then_some(())?;
                columns.push(bound(role));
            }
            false
        }
        Windowed::No => false,
    };
    if !matches!(windowed, Windowed::By(..)) && keys.iter().any(|k| is_bound(input.columns[*k])) {
        return None;
    }
    let closes = input.append_only && sets.is_none() && *windowed != Windowed::No;
    if !closes {
        columns = forgotten(&columns);
    }
    let end = columns.iter().position(|c| c.role == Role::End);
    let mut query = node(op, inputs, columns, closes);
    query.closes = end.map(Closes::Always);
    query.behind += i64::from(is_session);
    Some(query)
}

fn joined(kind: &str, left: &[Column], right: &[Column]) -> Vec<Column> {
    // Columns of a side whose rows may be padded with nulls are nothing but columns.
    let (left_may, right_may) = (matches!(kind, "RIGHT" | "FULL"), matches!(kind, "LEFT" | "FULL"));
    let of = |may: bool, columns: &[Column]| if may { forgotten(columns) } else { columns.to_vec() };
    let (left, right) = (of(left_may, left), of(right_may, right));
    match kind {
        "LEFT SEMI" | "LEFT ANTI" => left,
        "RIGHT SEMI" | "RIGHT ANTI" => right,
        _ => left.into_iter().chain(right).collect(),
    }
}

fn join(op: Op, inputs: Vec<Query>) -> Option<Query> {
    let Op::Join { kind, on, near, .. } = &op else { return None };
    let kind = *kind;
    let [left, right] = inputs.as_slice() else { return None };
    let append_only = left.append_only && right.append_only;
    let on_bounds: Vec<(Role, Role)> = on
        .iter()
        .map(|(l, r)| (left.columns[*l].role, right.columns[*r].role))
        .filter(|r| r.0 != Role::Plain)
        .collect();
    let never_padded = matches!(kind, "INNER" | "LEFT SEMI" | "RIGHT SEMI");
    if let Some(near) = near {
        let times = is_time(&left.columns, near.left) && is_time(&right.columns, near.right);
        (times && append_only && on_bounds.is_empty()).then_some(())?;
        let (mut of_left, mut of_right) = (forgotten(&left.columns), forgotten(&right.columns));
        // The time of a row that has met one that cannot be older.
        if near.after <= 0 {
            of_left[near.left].role = Role::Time;
        }
        if near.before <= 0 {
            of_right[near.right].role = Role::Time;
        }
        let columns = joined(kind, &of_left, &of_right);
        let mut query = node(op, inputs, columns, true);
        query.late |= !never_padded;
        return Some(query);
    }
    if on_bounds.is_empty() {
        let columns = forgotten(&joined(kind, &left.columns, &right.columns));
        return Some(node(op, inputs, columns, append_only && never_padded));
    }
    (append_only && on_bounds == [(Role::Start, Role::Start), (Role::End, Role::End)]).then_some(())?;
    let end = |side: &Query| side.place(Role::End);
    let of_windows = |columns: &[Column]| -> Vec<Column> {
        columns.iter().map(|c| if c.role == Role::Time { plain(c.of) } else { *c }).collect()
    };
    let closes = match kind {
        "LEFT" | "RIGHT" | "FULL" => Some(Closes::Unmatched(end(left)?, left.columns.len() + end(right)?)),
        "LEFT ANTI" => Some(Closes::Always(end(left)?)),
        "RIGHT ANTI" => Some(Closes::Always(end(right)?)),
        _ => None,
    };
    let columns = joined(kind, &of_windows(&left.columns), &of_windows(&right.columns));
    let mut query = node(op, inputs, columns, true);
    query.closes = closes;
    Some(query)
}
