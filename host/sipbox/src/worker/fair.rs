//! Who is next: a line for each tenant, and the turns between them by the CPU time that
//! they used (start-time fair queuing).

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use sipbox_core::flow::TenantId;

/// Tasks of tenants. Of those who wait, the one that used least CPU time is next; who
/// comes after a rest is as good as the one who was served last, so that nobody saves
/// time up. How many tasks there can be is the caller's business.
#[derive(Debug)]
pub(super) struct Fair<T> {
    lines: HashMap<TenantId, Line<T>, foldhash::fast::RandomState>,
    /// Those who wait, by what they used.
    waiting: BTreeSet<(Duration, TenantId)>,
    /// What the one who was served last had used.
    level: Duration,
}

#[derive(Debug)]
struct Line<T> {
    tasks: VecDeque<T>,
    used: Duration,
}

impl<T> Default for Fair<T> {
    fn default() -> Self {
        Self {
            lines: HashMap::default(),
            waiting: BTreeSet::new(),
            level: Duration::ZERO,
        }
    }
}

impl<T> Fair<T> {
    /// Puts a task at the end of its tenant's line.
    pub(super) fn push(&mut self, tenant: TenantId, task: T) {
        let line = self.lines.entry(tenant).or_insert_with(|| Line {
            tasks: VecDeque::new(),
            used: Duration::ZERO,
        });
        if line.tasks.is_empty() {
            line.used = line.used.max(self.level);
            self.waiting.insert((line.used, tenant));
        }
        line.tasks.push_back(task);
    }

    /// The next task. What it uses is to be [charged](Self::charge) before the one after
    /// it is asked for.
    pub(super) fn next(&mut self) -> Option<(TenantId, T)> {
        let (used, tenant) = self.waiting.pop_first()?;
        self.level = used;
        let task = self.lines.get_mut(&tenant)?.tasks.pop_front()?;
        Some((tenant, task))
    }

    /// Notes what the last task of a tenant used.
    pub(super) fn charge(&mut self, tenant: TenantId, cpu: Duration) {
        let Some(line) = self.lines.get_mut(&tenant) else {
            return;
        };
        // It may wait again already.
        self.waiting.remove(&(line.used, tenant));
        line.used += cpu;
        if !line.tasks.is_empty() {
            self.waiting.insert((line.used, tenant));
        }
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Forgets what was used, if nobody waits.
    pub(super) fn forget(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const BAD: TenantId = TenantId(1);
    const WORSE: TenantId = TenantId(2);
    const GOOD: TenantId = TenantId(3);

    /// Serves this many tasks, which use what their tenants' do.
    fn serve(fair: &mut Fair<u32>, turns: usize) -> Vec<(u32, u32)> {
        std::iter::from_fn(|| {
            let (tenant, task) = fair.next()?;
            let cpu = match tenant {
                BAD => 5 * MS,
                WORSE => 20 * MS,
                _ => MS / 10,
            };
            fair.charge(tenant, cpu);
            Some((tenant.0, task))
        })
        .take(turns)
        .collect()
    }

    #[test]
    fn a_long_line_of_one_is_not_waited_for_by_another() {
        let mut fair = Fair::default();
        for task in 0..32 {
            fair.push(BAD, task);
        }
        assert_eq!(serve(&mut fair, 1), [(1, 0)]);
        for task in 0..3 {
            fair.push(GOOD, task);
        }
        assert_eq!(
            serve(&mut fair, 5),
            [(3, 0), (3, 1), (3, 2), (1, 1), (1, 2)],
            "each in its order, who used less first"
        );
        assert_eq!(serve(&mut fair, 100).len(), 29);
        assert!(fair.is_empty());
    }

    #[test]
    fn turns_go_by_cpu_time() {
        let mut fair = Fair::default();
        for task in 0..40 {
            fair.push(BAD, task);
            fair.push(WORSE, task);
        }
        let served = serve(&mut fair, 25);
        let of = |tenant: TenantId| served.iter().filter(|(who, _)| *who == tenant.0).count();
        assert_eq!((of(BAD), of(WORSE)), (20, 5), "{served:?}");
    }

    #[test]
    fn a_rest_saves_nothing_up_and_pays_nothing_off() {
        let mut fair = Fair::default();
        fair.push(GOOD, 0);
        for task in 0..40 {
            fair.push(BAD, task);
        }
        serve(&mut fair, 21);
        // 100 ms of the other's later, both have the same right.
        for task in 1..100 {
            fair.push(GOOD, task);
        }
        assert_eq!(
            serve(&mut fair, 60)
                .iter()
                .filter(|(who, _)| *who == 1)
                .count(),
            1
        );
        // What WORSE uses, it still has used when it comes again at once.
        fair.push(WORSE, 0);
        fair.push(WORSE, 1);
        while serve(&mut fair, 1) != [(2, 0)] {}
        let next: Vec<_> = serve(&mut fair, 4).iter().map(|(who, _)| *who).collect();
        assert!(!next.contains(&2), "{next:?}");
    }

    #[test]
    fn a_task_that_comes_while_another_runs_waits_its_turn() {
        let mut fair = Fair::default();
        fair.push(BAD, 0);
        let (tenant, _) = fair.next().unwrap();
        fair.push(BAD, 1);
        fair.push(GOOD, 0);
        fair.charge(tenant, 5 * MS);
        assert_eq!(serve(&mut fair, 3), [(3, 0), (1, 1)]);
        fair.forget();
        assert!(fair.lines.is_empty());
    }
}
