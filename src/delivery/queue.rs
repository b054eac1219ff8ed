//! Which delivery is next. Plain and synchronous: no clock, no I/O.
//!
//! Deliveries that are due wait in one line per trigger; triggers take turns within their workspace, and workspaces take
//! turns among themselves. A workspace may use at most [`Limits::workspace`] slots, and a trigger at most
//! [`Limits::trigger`] of them. Beyond their first one, each of the two may use at most an equal share of the slots above it,
//! counted as if there were one more of its kind, at most as many as are left free, and none of the last quarter of them
//! ([`Room`]): so however many slow runners come one after the other, whoever has nothing under way starts at once. A runner
//! gets at most [`Limits::runner`] attempts at a time, and the triggers of one workspace at most as many of them as they
//! leave free.
//!
//! A line whose runner has no room, or is to be left alone, steps aside until there may be room again, and takes nobody's
//! turn meanwhile; so does one that has to leave room to the other lines of its workspace.

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

/// How many lines that have stepped aside are asked again when an attempt at their runner, or of their workspace, has ended.
const ASKED_AGAIN: usize = 16;

/// Slots that several share.
#[derive(Clone, Copy, Debug)]
struct Room {
    /// In all.
    total: usize,
    /// Used by all of them.
    active: usize,
    /// How many use them, or want to.
    users: usize,
}

impl Room {
    /// Whether one that uses `own` slots, and may use `limit`, may have another.
    fn allows(self, own: usize, limit: usize) -> bool {
        let free = self.total.saturating_sub(self.active);
        if own == 0 {
            return free > 0 && limit > 0;
        }
        let share = self.total / (self.users + 1);
        own < limit.min(free).min(share) && free > self.total / 4
    }
}

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
    /// Triggers that wait and leave room to others. Each has an attempt under way.
    crowded: VecDeque<Uuid>,
    /// Lines that have an attempt under way, or a turn.
    users: usize,
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
    /// Whether it leaves room to others of its workspace.
    crowded: bool,
}

impl<T> Line<T> {
    fn uses(&self) -> bool {
        self.active > 0 || self.has_turn
    }
}

impl<T> Queue<T> {
    /// An empty queue.
    pub fn new(limits: Limits) -> Self {
        Self { limits, active: 0, workspaces: HashMap::new(), runners: HashMap::new(), turns: VecDeque::new() }
    }

    /// Puts a delivery at the end of its line.
    pub fn push(&mut self, lane: &Lane, item: T) {
        self.line(lane).waiting.push_back(item);
        self.offer(lane);
    }

    /// Puts a delivery that was started, and did not begin, before all others of the line to which it belongs now.
    pub fn put_back(&mut self, started: &Lane, lane: &Lane, item: T) {
        self.done(started);
        self.line(lane).waiting.push_front(item);
        self.offer(lane);
    }

    /// The line of a lane, which leads from now on where the lane does.
    fn line(&mut self, lane: &Lane) -> &mut Line<T> {
        let workspace = self.workspaces.entry(lane.way.workspace.clone()).or_insert_with(|| Workspace {
            active: 0,
            lines: HashMap::new(),
            turns: VecDeque::new(),
            crowded: VecDeque::new(),
            users: 0,
        });
        let line = workspace.lines.entry(lane.trigger).or_insert_with(|| Line {
            runner: lane.way.runner.clone(),
            active: 0,
            waiting: VecDeque::new(),
            has_turn: false,
            aside: false,
            crowded: false,
        });
        if line.runner != lane.way.runner {
            // The trigger has another runner now, which may have room.
            line.runner = lane.way.runner.clone();
            line.aside = false;
        }
        line
    }

    /// Asks those of the lines that have stepped aside again that lead elsewhere by now; `way` says where a delivery goes.
    pub fn redirect(&mut self, way: impl Fn(&T) -> Way) {
        let mut elsewhere = Vec::new();
        for runner in self.runners.values_mut() {
            runner.aside.retain(|lane| {
                let line = self.workspaces.get(&lane.way.workspace).and_then(|found| found.lines.get(&lane.trigger));
                let Some(line) = line.filter(|line| line.runner == lane.way.runner) else { return false };
                let now = line.waiting.front().map(&way).filter(|now| *now != lane.way);
                let leads_here = now.is_none();
                elsewhere.extend(now.map(|now| (lane.clone(), now.runner)));
                leads_here
            });
        }
        self.runners.retain(|_, runner| runner.active > 0 || !runner.aside.is_empty());
        for (mut lane, runner) in elsewhere {
            lane.way.runner = runner;
            // Where the workspace is another one too, each delivery is put into its line when it is started.
            self.line(&lane).aside = false;
            self.offer(&lane);
        }
    }

    /// What waits in a workspace for this runner.
    pub fn waiting<'a>(&'a self, way: &'a Way) -> impl Iterator<Item = &'a T> {
        let lines = self.workspaces.get(&way.workspace).into_iter().flat_map(|workspace| workspace.lines.values());
        lines.filter(|line| line.runner == way.runner).flat_map(|line| &line.waiting)
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
        let room = Room { total: self.limits.total, active: self.active, users };
        let share = self.limits.workspace.min(self.limits.total / (users + 1)).max(1);
        // One of the workspaces that wait may be at its limit while another is not.
        let mut skipped = 0;
        while skipped < self.turns.len() {
            let name = self.turns.pop_front()?;
            let Some(workspace) = self.workspaces.get_mut(&name) else { continue };
            if !room.allows(workspace.active, self.limits.workspace) {
                self.turns.push_back(name);
                skipped += 1;
                continue;
            }
            let Some(trigger) = workspace.turns.pop_front() else { continue };
            if !workspace.turns.is_empty() {
                self.turns.push_back(name.clone());
            }
            let own =
                Room { total: share.min(workspace.active + free), active: workspace.active, users: workspace.users };
            let Some(line) = workspace.lines.get_mut(&trigger) else { continue };
            line.has_turn = false;
            if !own.allows(line.active, self.limits.trigger) {
                line.crowded = true;
                workspace.crowded.push_back(trigger);
                continue;
            }
            let lane = Lane { way: Way { runner: line.runner.clone(), workspace: name }, trigger };
            let runner = self.runners.entry(lane.way.runner.clone()).or_default();
            if !runner.has_room(&lane.way, self.limits.runner) || !admits(&lane.way) {
                line.aside = true;
                if !line.uses() {
                    workspace.users -= 1;
                }
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
        if !line.uses() {
            workspace.users -= 1;
        }
        if line.active == 0 && line.waiting.is_empty() {
            workspace.lines.remove(&lane.trigger);
            if workspace.lines.is_empty() {
                self.workspaces.remove(&lane.way.workspace);
                return;
            }
        } else {
            self.offer(lane);
        }
        self.uncrowd(&lane.way.workspace);
    }

    /// Asks lines of a workspace again that have left room to others; the last attempt to end asks all, for after it nobody
    /// would.
    fn uncrowd(&mut self, name: &Arc<str>) {
        let Some(workspace) = self.workspaces.get_mut(name) else { return };
        let most = if workspace.active == 0 { usize::MAX } else { ASKED_AGAIN };
        let triggers: Vec<Uuid> = workspace.crowded.drain(..most.min(workspace.crowded.len())).collect();
        for trigger in triggers {
            let workspace = self.workspaces.get_mut(name);
            if let Some(line) = workspace.and_then(|workspace| workspace.lines.get_mut(&trigger)) {
                line.crowded = false;
                let way = Way { runner: line.runner.clone(), workspace: name.clone() };
                self.offer(&Lane { way, trigger });
            }
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
            let line = workspace.and_then(|workspace| workspace.lines.get_mut(&lane.trigger));
            // One that leads elsewhere by now has stepped aside there, or not at all.
            if let Some(line) = line.filter(|line| line.runner == lane.way.runner) {
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
        let rests = line.has_turn || line.aside || line.crowded;
        if rests || line.waiting.is_empty() || line.active >= self.limits.trigger {
            return;
        }
        if !line.uses() {
            workspace.users += 1;
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
        assert_eq!(start_all(&mut queue).len(), 48 - 16, "a quarter is left to those that have nothing under way");
        for trigger in 20..100 {
            queue.push(&lane("a", trigger), 0);
        }
        assert_eq!(start_all(&mut queue).len(), 64 - 48);
        assert_eq!(queue.active, 64);
    }

    #[test]
    fn slow_runners_that_come_one_after_the_other_leave_room_for_another_trigger_and_workspace() {
        let mut queue = Queue::new(Limits::default());
        let mut under_way = Vec::new();
        for slow in 0..16 {
            (0..60).for_each(|n| queue.push(&at(&format!("http://slow-{slow}"), "a", slow), n));
            under_way.extend(start_all(&mut queue));
        }
        assert!((40..64).contains(&queue.active), "{}", queue.active);
        for n in 0..20 {
            queue.push(&at("http://well", "a", 100), n);
            let (lane, item) = queue.start(|_| true).expect("it starts at once");
            assert_eq!((&*lane.way.runner, item), ("http://well", n));
            queue.done(&lane);
        }
        // They have equal shares as soon as something has ended, and the one that is well may do more at a time.
        for (lane, _) in under_way {
            queue.done(&lane);
            start_all(&mut queue);
        }
        for slow in 1..40 {
            for n in 0..200 {
                queue.push(
                    &at(&format!("http://slow-{slow}"), &format!("w-{slow}"), 200 + slow * 20 + n % 20),
                    n as u32,
                );
            }
            start_all(&mut queue);
        }
        assert!(queue.active < 256);
        queue.push(&at("http://well", "calm", 1_000_000), 0);
        assert!(queue.start(|_| true).is_some_and(|(lane, _)| &*lane.way.workspace == "calm"));
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
        assert_eq!(started.len(), 192, "a quarter is left to those that have nothing under way");
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
        let mut queue = Queue::new(Limits { total: 64, workspace: 16, runner: 16, trigger: 16 });
        for trigger in 1..=3 {
            for n in 0..10 {
                queue.push(&lane("a", trigger), n);
            }
        }
        let started = start_all(&mut queue);
        for trigger in 1..=3 {
            assert_eq!(started.iter().filter(|(l, _)| l.trigger == Uuid::from_u128(trigger)).count(), 4);
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
