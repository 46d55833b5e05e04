//! A pattern as an automaton: one state per place of a variable, with the places that may follow in order of preference.
//!
//! Greedy quantifiers prefer another round, reluctant ones the way out; of alternatives the first is preferred. Repetitions are written out:
//! `A{2,3}` is `A A A?`.
use crate::graph::Pattern;

/// What may follow a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A row for this state.
    Row(usize),
    /// The match ends.
    End,
}

#[derive(Clone, Debug)]
pub(super) struct State {
    pub variable: usize,
    /// In order of preference; nothing follows [`Next::End`], which is always possible.
    pub next: Vec<Next>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Automaton {
    pub states: Vec<State>,
    pub start: Vec<Next>,
}

/// Steps of the pattern as a program, with steps that take no row.
enum Step {
    Row(usize),
    /// Go on at either, the first preferred.
    Fork(usize, usize),
    Jump(usize),
    End,
}

/// More states than this are refused.
pub const MAX_STATES: usize = 2_000;

impl Automaton {
    /// `None` if it is too large.
    pub fn new(pattern: &Pattern) -> Option<Self> {
        let mut steps = Vec::new();
        compile(pattern, &mut steps)?;
        steps.push(Step::End);
        let mut number = vec![0; steps.len()];
        let mut rows = 0;
        for (at, step) in steps.iter().enumerate() {
            if let Step::Row(_) = step {
                number[at] = rows;
                rows += 1;
            }
        }
        let states = steps.iter().enumerate().filter_map(|(at, step)| match step {
            Step::Row(variable) => Some(State { variable: *variable, next: reachable(&steps, &number, at + 1) }),
            Step::Fork(..) | Step::Jump(_) | Step::End => None,
        });
        let states = states.collect();
        Some(Self { states, start: reachable(&steps, &number, 0) })
    }
}

fn compile(pattern: &Pattern, steps: &mut Vec<Step>) -> Option<()> {
    if steps.len() > 4 * MAX_STATES {
        return None;
    }
    match pattern {
        Pattern::Variable(variable) => steps.push(Step::Row(*variable)),
        Pattern::Concat(parts) => parts.iter().try_for_each(|p| compile(p, steps))?,
        Pattern::Either(parts) => {
            let mut ends = Vec::new();
            for (i, part) in parts.iter().enumerate() {
                let last = i + 1 == parts.len();
                let fork = steps.len();
                if !last {
                    steps.push(Step::Fork(fork + 1, 0));
                }
                compile(part, steps)?;
                if !last {
                    ends.push(steps.len());
                    steps.push(Step::Jump(0));
                    steps[fork] = Step::Fork(fork + 1, steps.len());
                }
            }
            let end = steps.len();
            ends.into_iter().for_each(|at| steps[at] = Step::Jump(end));
        }
        Pattern::Repeat { pattern, from, to, greedy } => {
            (0..*from).try_for_each(|_| compile(pattern, steps))?;
            let fork = |into: usize, past: usize| if *greedy { Step::Fork(into, past) } else { Step::Fork(past, into) };
            match to {
                None => {
                    let at = steps.len();
                    steps.push(Step::Jump(0));
                    compile(pattern, steps)?;
                    steps.push(Step::Jump(at));
                    steps[at] = fork(at + 1, steps.len());
                }
                Some(to) => {
                    let mut forks = Vec::new();
                    for _ in *from..*to {
                        forks.push(steps.len());
                        steps.push(Step::Jump(0));
                        compile(pattern, steps)?;
                    }
                    let past = steps.len();
                    forks.into_iter().for_each(|at| steps[at] = fork(at + 1, past));
                }
            }
        }
    }
    (steps.len() <= 4 * MAX_STATES).then_some(())
}

/// What follows step `at`, in order of preference.
fn reachable(steps: &[Step], number: &[usize], at: usize) -> Vec<Next> {
    let mut seen = vec![false; steps.len()];
    let mut found = Vec::new();
    let mut open = vec![at];
    while let Some(at) = open.pop() {
        if std::mem::replace(&mut seen[at], true) {
            continue;
        }
        match &steps[at] {
            Step::Row(_) => found.push(Next::Row(number[at])),
            Step::Jump(to) => open.push(*to),
            Step::Fork(first, second) => open.extend([*second, *first]),
            Step::End => {
                found.push(Next::End);
                break;
            }
        }
    }
    found
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn repeat(pattern: Pattern, from: u32, to: Option<u32>, greedy: bool) -> Pattern {
        Pattern::Repeat { pattern: Box::new(pattern), from, to, greedy }
    }

    /// `start; variable: next; …`, ends as `.`
    fn shown(pattern: &Pattern) -> String {
        let automaton = Automaton::new(pattern).unwrap();
        let next = |next: &[Next]| {
            let next = next.iter().map(|n| match n {
                Next::Row(state) => state.to_string(),
                Next::End => ".".to_owned(),
            });
            next.collect::<Vec<_>>().join(" ")
        };
        let mut text = next(&automaton.start);
        automaton.states.iter().for_each(|s| text += &format!("; {}: {}", s.variable, next(&s.next)));
        text
    }

    #[test]
    fn what_is_preferred_comes_first() {
        let [a, b, c] = [0, 1, 2].map(Pattern::Variable);
        let concat = |parts: &[&Pattern]| Pattern::Concat(parts.iter().map(|p| (*p).clone()).collect());
        let star = |p: &Pattern, greedy| repeat(p.clone(), 0, None, greedy);
        assert_eq!(shown(&concat(&[&a, &b])), "0; 0: 1; 1: .");
        assert_eq!(shown(&concat(&[&a, &star(&b, true), &c])), "0; 0: 1 2; 1: 1 2; 2: .");
        assert_eq!(shown(&concat(&[&a, &star(&b, false), &c])), "0; 0: 2 1; 1: 2 1; 2: .");
        assert_eq!(shown(&concat(&[&a, &star(&b, true)])), "0; 0: 1 .; 1: 1 .");
        // A reluctant end never takes a row.
        assert_eq!(shown(&concat(&[&a, &star(&b, false)])), "0; 0: .; 1: .");
        assert_eq!(shown(&Pattern::Either(vec![a.clone(), b.clone(), c.clone()])), "0 1 2; 0: .; 1: .; 2: .");
        assert_eq!(shown(&repeat(a.clone(), 2, Some(3), true)), "0; 0: 1; 0: 2 .; 0: .");
        assert_eq!(shown(&repeat(a.clone(), 1, None, true)), "0; 0: 1 .; 0: 1 .");
        let group = repeat(concat(&[&a, &repeat(b, 0, Some(1), true)]), 1, None, true);
        assert_eq!(shown(&concat(&[&group, &c])), "0; 0: 1 2 4; 1: 2 4; 0: 3 2 4; 1: 2 4; 2: .");
    }

    #[test]
    fn what_is_too_large_is_refused() {
        let inner = repeat(Pattern::Variable(0), 1000, Some(1000), true);
        assert!(Automaton::new(&inner).is_some());
        assert!(Automaton::new(&repeat(inner, 1000, Some(1000), true)).is_none());
    }
}
