//! Which delivery is next. Plain and synchronous: no clock, no I/O.
//!
//! Deliveries that are due wait in one line per trigger; triggers take turns within their workspace, and workspaces take
//! turns among themselves. A workspace may use at most [`Limits::workspace`] slots, at most as many as it leaves free,
//! and at most an equal share, counted as if there were one workspace more: so slow runners do not use up the slots, and
//! a workspace that had nothing under way starts at once. The same holds for runners: one runner gets at most
//! [`Limits::runner`] attempts at a time, and the triggers of one workspace at most as many of them as they leave free.
//!
//! A line whose runner has no room, or is to be left alone, steps aside until there may be room again, and takes nobody's
//! turn meanwhile.

use super::circuit::Way;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use uuid::Uuid;

/// How many attempts may be under way at the same time.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// In all.
    pub total: usize,
    /// For the triggers of one workspace.
    pub workspace: usize,
    /// For one runner.
    pub runner: usize,
    /// For one trigger.
    pub trigger: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { total: 256, workspace: 64, runner: 64, trigger: 16 }
    }
}

/// How many lines that have stepped aside are asked again when an attempt at their runner has ended.
const ASKED_AGAIN: usize = 16;

/// The line that a delivery waits in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lane {
    /// The workspace, and the runner that it calls.
    pub way: Way,
    /// UID of the WorkflowTrigger.
    pub trigger: Uuid,
}

/// Deliveries that are due.
#[derive(Debug)]
pub struct Queue<T> {
    limits: Limits,
    active: usize,
    workspaces: HashMap<Arc<str>, Workspace<T>>,
    runners: HashMap<Arc<str>, Runner>,
    /// Workspaces in which a trigger could start something, in the order of their turns.
    turns: VecDeque<Arc<str>>,
}

#[derive(Debug)]
struct Workspace<T> {
    active: usize,
    lines: HashMap<Uuid, Line<T>>,
    /// Triggers that wait and are below their limit, in the order of their turns.
    turns: VecDeque<Uuid>,
}

impl<T> Workspace<T> {
    fn uses(&self) -> bool {
        self.active > 0 || !self.turns.is_empty()
    }
}

/// What is under way at one runner.
#[derive(Debug, Default)]
struct Runner {
    active: usize,
    workspaces: HashMap<Arc<str>, usize>,
    /// Lines that have stepped aside.
    aside: VecDeque<Lane>,
}

#[derive(Debug)]
struct Line<T> {
    runner: Arc<str>,
    active: usize,
    waiting: VecDeque<T>,
    /// Whether the trigger is in the turns of its workspace.
    has_turn: bool,
    /// Whether it has stepped aside.
    aside: bool,
}

impl<T> Queue<T> {
    /// An empty queue.
    pub fn new(limits: Limits) -> Self {
        Self { limits, active: 0, workspaces: HashMap::new(), runners: HashMap::new(), turns: VecDeque::new() }
    }

    /// Puts a delivery at the end of its line.
    pub fn push(&mut self, lane: &Lane, item: T) {
        let workspace = self.workspaces.entry(lane.way.workspace.clone()).or_insert_with(|| Workspace {
            active: 0,
            lines: HashMap::new(),
            turns: VecDeque::new(),
        });
        let line = workspace.lines.entry(lane.trigger).or_insert_with(|| Line {
            runner: lane.way.runner.clone(),
            active: 0,
            waiting: VecDeque::new(),
            has_turn: false,
            aside: false,
        });
        if line.runner != lane.way.runner {
            // The trigger has another runner now, which may have room.
            line.runner = lane.way.runner.clone();
            line.aside = false;
        }
        line.waiting.push_back(item);
        self.offer(lane);
    }

    /// Takes the next delivery that may start; [`done`](Self::done) must be told when it has ended. `admits` is asked last
    /// whether the runner may be called now; if not, [`reopen`](Self::reopen) must be told when it may be asked again.
    pub fn start(&mut self, mut admits: impl FnMut(&Way) -> bool) -> Option<(Lane, T)> {
        let free = self.limits.total.saturating_sub(self.active);
        if free == 0 {
            return None;
        }
        // Those whose runners are left alone use nothing.
        let users = self.workspaces.values().filter(|workspace| workspace.uses()).count();
        let share = (self.limits.total / (users + 1)).max(1);
        // One of the workspaces that wait may be at its limit while another is not.
        let mut skipped = 0;
        while skipped < self.turns.len() {
            let name = self.turns.pop_front()?;
            let Some(workspace) = self.workspaces.get_mut(&name) else { continue };
            if workspace.active >= self.limits.workspace.min(free).min(share) {
                self.turns.push_back(name);
                skipped += 1;
                continue;
            }
            let Some(trigger) = workspace.turns.pop_front() else { continue };
            if !workspace.turns.is_empty() {
                self.turns.push_back(name.clone());
            }
            let Some(line) = workspace.lines.get_mut(&trigger) else { continue };
            line.has_turn = false;
            let lane = Lane { way: Way { runner: line.runner.clone(), workspace: name }, trigger };
            let runner = self.runners.entry(lane.way.runner.clone()).or_default();
            if !runner.has_room(&lane.way, self.limits.runner) || !admits(&lane.way) {
                line.aside = true;
                runner.aside.push_back(lane);
                continue;
            }
            let Some(item) = line.waiting.pop_front() else { continue };
            runner.active += 1;
            *runner.workspaces.entry(lane.way.workspace.clone()).or_default() += 1;
            line.active += 1;
            workspace.active += 1;
            self.active += 1;
            self.offer(&lane);
            return Some((lane, item));
        }
        None
    }

    /// Frees the slot of a delivery that was started.
    pub fn done(&mut self, lane: &Lane) {
        self.leave(&lane.way);
        let Some(workspace) = self.workspaces.get_mut(&lane.way.workspace) else { return };
        let Some(line) = workspace.lines.get_mut(&lane.trigger) else { return };
        self.active -= 1;
        workspace.active -= 1;
        line.active -= 1;
        if line.active == 0 && line.waiting.is_empty() {
            workspace.lines.remove(&lane.trigger);
            if workspace.lines.is_empty() {
                self.workspaces.remove(&lane.way.workspace);
            }
        } else {
            self.offer(lane);
        }
    }

    /// Asks the lines again that have stepped aside at this runner.
    pub fn reopen(&mut self, runner: &str) {
        self.ask_again(runner, usize::MAX);
    }

    fn ask_again(&mut self, runner: &str, most: usize) {
        let Some(state) = self.runners.get_mut(runner) else { return };
        let lanes: Vec<Lane> = state.aside.drain(..most.min(state.aside.len())).collect();
        if state.active == 0 && state.aside.is_empty() {
            self.runners.remove(runner);
        }
        for lane in lanes {
            let workspace = self.workspaces.get_mut(&lane.way.workspace);
            if let Some(line) = workspace.and_then(|workspace| workspace.lines.get_mut(&lane.trigger)) {
                line.aside = false;
                self.offer(&lane);
            }
        }
    }

    /// Frees a place at a runner.
    fn leave(&mut self, way: &Way) {
        let Some(runner) = self.runners.get_mut(&way.runner) else { return };
        runner.active -= 1;
        if let Some(active) = runner.workspaces.get_mut(&way.workspace) {
            *active -= 1;
            if *active == 0 {
                runner.workspaces.remove(&way.workspace);
            }
        }
        // The last one asks all: after it nobody would. Otherwise a few are enough, and each comes to its turn.
        let most = if runner.active == 0 { usize::MAX } else { ASKED_AGAIN };
        self.ask_again(&way.runner, most);
    }

    /// Gives a trigger its turn, and its workspace too, unless they have one or nothing to start.
    fn offer(&mut self, lane: &Lane) {
        let Some(workspace) = self.workspaces.get_mut(&lane.way.workspace) else { return };
        let Some(line) = workspace.lines.get_mut(&lane.trigger) else { return };
        if line.has_turn || line.aside || line.waiting.is_empty() || line.active >= self.limits.trigger {
            return;
        }
        line.has_turn = true;
        if workspace.turns.is_empty() {
            self.turns.push_back(lane.way.workspace.clone());
        }
        workspace.turns.push_back(lane.trigger);
    }
}

impl Runner {
    /// Whether a workspace may start another attempt. What has no runner has no limit.
    fn has_room(&self, way: &Way, limit: usize) -> bool {
        let own = self.workspaces.get(&way.workspace).copied().unwrap_or_default();
        way.runner.is_empty() || own < limit.saturating_sub(self.active)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(workspace: &str, trigger: u128) -> Lane {
        at("", workspace, trigger)
    }

    fn at(runner: &str, workspace: &str, trigger: u128) -> Lane {
        Lane { way: Way { runner: runner.into(), workspace: workspace.into() }, trigger: Uuid::from_u128(trigger) }
    }

    fn start_all(queue: &mut Queue<u32>) -> Vec<(Lane, u32)> {
        std::iter::from_fn(|| queue.start(|_| true)).collect()
    }

    fn count(started: &[(Lane, u32)], workspace: &str) -> usize {
        started.iter().filter(|(lane, _)| &*lane.way.workspace == workspace).count()
    }

    #[test]
    fn limits_hold_for_triggers_and_workspaces() {
        let mut queue = Queue::new(Limits::default());
        for n in 0..100 {
            queue.push(&lane("a", 1), n);
        }
        assert_eq!(start_all(&mut queue).len(), 16);
        for trigger in 2..20 {
            for n in 0..100 {
                queue.push(&lane("a", trigger), n);
            }
        }
        assert_eq!(start_all(&mut queue).len(), 64 - 16);
        assert_eq!(queue.active, 64);
    }

    #[test]
    fn any_number_of_slow_workspaces_leaves_room_for_another() {
        let mut queue = Queue::new(Limits::default());
        for workspace in 0..100 {
            for trigger in 0..10 {
                for n in 0..50 {
                    queue.push(&lane(&format!("slow-{workspace}"), workspace * 100 + trigger), n);
                }
            }
        }
        let started = start_all(&mut queue);
        assert!((200..256).contains(&started.len()), "{}", started.len());
        queue.push(&lane("quick", 7), 1);
        assert_eq!(queue.start(|_| true).map(|(lane, _)| lane), Some(lane("quick", 7)));
    }

    #[test]
    fn workspaces_take_turns_whatever_the_length_of_their_lines() {
        let mut queue = Queue::new(Limits { total: 8, workspace: 8, runner: 8, trigger: 8 });
        for n in 0..1000 {
            queue.push(&lane("flood", 1), n);
        }
        queue.push(&lane("calm", 2), 0);
        let first = [queue.start(|_| true), queue.start(|_| true)].map(|started| started.unwrap().0);
        assert!(first.contains(&lane("calm", 2)), "{first:?}");
    }

    #[test]
    fn triggers_of_a_workspace_take_turns() {
        let mut queue = Queue::new(Limits { total: 64, workspace: 6, runner: 6, trigger: 6 });
        for trigger in 1..=3 {
            for n in 0..10 {
                queue.push(&lane("a", trigger), n);
            }
        }
        let started = start_all(&mut queue);
        for trigger in 1..=3 {
            assert_eq!(started.iter().filter(|(l, _)| l.trigger == Uuid::from_u128(trigger)).count(), 2);
        }
    }

    #[test]
    fn a_runner_has_a_limit_and_leaves_room_for_another_workspace() {
        let mut queue = Queue::new(Limits { runner: 16, ..Limits::default() });
        for trigger in 0..10 {
            (0..10).for_each(|n| queue.push(&at("http://r", "a", trigger), n));
        }
        assert_eq!(start_all(&mut queue).len(), 8, "half of the runner's places");
        queue.push(&at("http://other", "a", 50), 0);
        queue.push(&at("http://r", "b", 51), 0);
        let started = start_all(&mut queue);
        assert_eq!((started.len(), count(&started, "b")), (2, 1), "{started:?}");
    }

    #[test]
    fn a_runner_that_is_left_alone_takes_nobodys_turn() {
        let mut queue = Queue::new(Limits { total: 4, workspace: 4, runner: 8, trigger: 2 });
        for n in 0..50 {
            queue.push(&at("http://dead", "a", u128::from(n % 5)), n);
        }
        queue.push(&at("http://well", "a", 7), 100);
        let only_well = |queue: &mut Queue<u32>| queue.start(|way| &*way.runner == "http://well");
        let (lane, item) = only_well(&mut queue).unwrap();
        assert_eq!(item, 100);
        assert!(only_well(&mut queue).is_none());
        queue.push(&at("http://dead", "a", 1), 51);
        assert!(only_well(&mut queue).is_none());
        queue.done(&lane);
        assert!(queue.start(|_| panic!("nobody asks before the runner may be called again")).is_none());
        queue.reopen("http://dead");
        let mut seen = 0;
        while let Some((lane, _)) = queue.start(|_| true) {
            seen += 1;
            queue.done(&lane);
        }
        assert_eq!(seen, 51);
        assert!(queue.workspaces.is_empty() && queue.runners.is_empty() && queue.turns.is_empty());
    }

    #[test]
    fn many_triggers_of_one_runner_all_come_to_their_turn() {
        let mut queue = Queue::new(Limits { runner: 4, ..Limits::default() });
        (0..1000).for_each(|n| queue.push(&at("http://r", ["a", "b"][n % 2], n as u128), n as u32));
        let (mut running, mut seen) = (VecDeque::new(), 0);
        loop {
            while let Some((lane, _)) = queue.start(|_| true) {
                running.push_back(lane);
                assert!(running.len() <= 4);
            }
            let Some(lane) = running.pop_front() else { break };
            seen += 1;
            queue.done(&lane);
        }
        assert_eq!(seen, 1000);
    }

    #[test]
    fn everything_is_started_once_in_the_order_of_its_line() {
        let mut queue = Queue::new(Limits { total: 5, workspace: 3, runner: 5, trigger: 2 });
        for n in 0..300_u32 {
            let workspace = ["a", "b", "c"][n as usize % 3];
            queue.push(&lane(workspace, u128::from(n % 7)), n);
        }
        let (mut running, mut seen) = (VecDeque::new(), Vec::new());
        loop {
            while let Some(started) = queue.start(|_| true) {
                assert!(queue.active <= 5);
                running.push_back(started);
            }
            let Some((lane, n)) = running.pop_front() else { break };
            seen.push((lane.clone(), n));
            queue.done(&lane);
        }
        assert_eq!((seen.len(), queue.active), (300, 0));
        assert!(queue.workspaces.is_empty() && queue.turns.is_empty());
        for (lane, n) in &seen {
            let later = seen.iter().filter(|(l, m)| l == lane && m > n).count();
            let after = seen.iter().skip_while(|(l, m)| (l, m) != (lane, n)).skip(1).filter(|(l, _)| l == lane).count();
            assert_eq!(later, after);
        }
        assert_eq!(count(&seen, "a"), 100);
    }
}
