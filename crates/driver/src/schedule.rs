//! Which executor runs which task: balanced by slots, with as few moves as possible, the same answer for the same question.
//!
//! Placement never influences results. It matters for time only: a task that stays finds its state on the local disk.
use std::collections::BTreeMap;

use millstream_plan::{ExecutorId, TaskId};

/// Places `tasks` on executors with these numbers of slots; `previous` is where tasks were. Empty if there is no executor.
///
/// The load of an executor is tasks per slot. Every executor gets its share of the tasks, rounded; tasks stay where they are as
/// long as their executor is within its share.
#[must_use]
pub fn place(
    tasks: &[TaskId],
    slots: &BTreeMap<ExecutorId, u16>,
    previous: &BTreeMap<TaskId, ExecutorId>,
) -> BTreeMap<TaskId, ExecutorId> {
    let mut placement = BTreeMap::new();
    if slots.is_empty() {
        return placement;
    }
    // Stage by stage, so that the tasks of every stage are spread.
    let mut by_stage: BTreeMap<_, Vec<TaskId>> = BTreeMap::new();
    for task in tasks {
        by_stage.entry(task.stage).or_default().push(*task);
    }
    let mut total: BTreeMap<&ExecutorId, usize> = slots.keys().map(|e| (e, 0)).collect();
    for tasks in by_stage.values() {
        let quota = quotas(tasks.len(), slots, &total);
        let mut used: BTreeMap<&ExecutorId, usize> = BTreeMap::new();
        let mut homeless = Vec::new();
        for task in tasks {
            match previous.get(task).and_then(|e| slots.get_key_value(e)).map(|(e, _)| e) {
                Some(home) if used.get(home).copied().unwrap_or(0) < quota.get(home).copied().unwrap_or(0) => {
                    *used.entry(home).or_default() += 1;
                    placement.insert(*task, home.clone());
                }
                Some(_) | None => homeless.push(*task),
            }
        }
        let free = quota.iter().flat_map(|(e, q)| {
            let free = q - used.get(e).copied().unwrap_or(0);
            std::iter::repeat_n((*e).clone(), free)
        });
        placement.extend(homeless.into_iter().zip(free));
        for (executor, quota) in quota {
            *total.entry(executor).or_default() += quota;
        }
    }
    placement
}

/// How many of `count` tasks each executor gets: one after the other to the one with the lowest load.
fn quotas<'a>(
    count: usize,
    slots: &'a BTreeMap<ExecutorId, u16>,
    total: &BTreeMap<&'a ExecutorId, usize>,
) -> BTreeMap<&'a ExecutorId, usize> {
    let mut quota: BTreeMap<&ExecutorId, usize> = slots.keys().map(|e| (e, 0)).collect();
    for _ in 0..count {
        // Loads (stage + total + 1) / slots are compared without division.
        let lowest = slots.iter().min_by(|(a, sa), (b, sb)| {
            let load = |e: &ExecutorId| {
                let (q, t) = (quota.get(e).copied().unwrap_or(0), total.get(e).copied().unwrap_or(0));
                (q as u64 + 1, (q + t) as u64 + 1)
            };
            let ((qa, ta), (qb, tb)) = (load(a), load(b));
            let (sa, sb) = (u64::from(**sa).max(1), u64::from(**sb).max(1));
            (qa * sb).cmp(&(qb * sa)).then((ta * sb).cmp(&(tb * sa))).then(a.cmp(b))
        });
        if let Some((executor, _)) = lowest {
            *quota.entry(executor).or_default() += 1;
        }
    }
    quota
}

/// Tasks whose executor would change.
#[must_use]
pub fn moves(from: &BTreeMap<TaskId, ExecutorId>, to: &BTreeMap<TaskId, ExecutorId>) -> usize {
    to.iter().filter(|(task, executor)| from.get(task) != Some(executor)).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_plan::StageId;

    fn tasks(stages: u16, parallelism: u16) -> Vec<TaskId> {
        (0..stages).flat_map(|s| (0..parallelism).map(move |index| TaskId { stage: StageId(s), index })).collect()
    }

    fn slots(of: &[(&str, u16)]) -> BTreeMap<ExecutorId, u16> {
        of.iter().map(|(e, s)| ((*e).into(), *s)).collect()
    }

    fn loads(placement: &BTreeMap<TaskId, ExecutorId>) -> BTreeMap<String, usize> {
        let mut loads = BTreeMap::new();
        placement.values().for_each(|e| *loads.entry(e.0.clone()).or_default() += 1);
        loads
    }

    #[test]
    fn shares_follow_slots() {
        let placement = place(&tasks(2, 8), &slots(&[("a", 2), ("b", 2), ("c", 4)]), &BTreeMap::new());
        assert_eq!(loads(&placement), [("a".into(), 4), ("b".into(), 4), ("c".into(), 8)].into());
    }

    #[test]
    fn one_task_per_stage_does_not_pile_up() {
        let placement = place(&tasks(4, 1), &slots(&[("a", 2), ("b", 2)]), &BTreeMap::new());
        assert_eq!(loads(&placement), [("a".into(), 2), ("b".into(), 2)].into());
    }

    #[test]
    fn a_loss_moves_only_what_was_lost_and_a_return_only_what_balance_asks() {
        let all = tasks(3, 6);
        let three = slots(&[("a", 2), ("b", 2), ("c", 2)]);
        let before = place(&all, &three, &BTreeMap::new());
        let lost = before.values().filter(|e| e.0 == "b").count();
        let after = place(&all, &slots(&[("a", 2), ("c", 2)]), &before);
        assert_eq!(moves(&before, &after), lost);
        let back = place(&all, &three, &after);
        assert_eq!(moves(&after, &back), lost);
        assert_eq!(place(&all, &three, &back), back);
    }

    #[test]
    fn without_executors_nothing_is_placed() {
        assert!(place(&tasks(1, 1), &BTreeMap::new(), &BTreeMap::new()).is_empty());
    }
}
