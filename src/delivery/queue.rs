//! Which delivery is next. Plain and synchronous: no clock, no I/O.
//!
//! Deliveries that are due wait in one line per trigger; triggers take turns within their workspace, and workspaces take
//! turns among themselves. A workspace may use at most [`Limits::workspace`] slots, at most as many as it leaves free,
//! and at most an equal share, counted as if there were one workspace more: so slow runners do not use up the slots, and
//! a workspace that had nothing under way starts at once.

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
    /// For one trigger.
    pub trigger: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { total: 256, workspace: 64, trigger: 16 }
    }
}

/// The line that a delivery waits in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lane {
    /// The workspace.
    pub workspace: Arc<str>,
    /// UID of the WorkflowTrigger.
    pub trigger: Uuid,
}

/// Deliveries that are due.
#[derive(Debug)]
pub struct Queue<T> {
    limits: Limits,
    active: usize,
    workspaces: HashMap<Arc<str>, Workspace<T>>,
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

#[derive(Debug)]
struct Line<T> {
    active: usize,
    waiting: VecDeque<T>,
    /// Whether the trigger is in the turns of its workspace.
    has_turn: bool,
}

impl<T> Queue<T> {
    /// An empty queue.
    pub fn new(limits: Limits) -> Self {
        Self { limits, active: 0, workspaces: HashMap::new(), turns: VecDeque::new() }
    }

    /// Puts a delivery at the end of its line.
    pub fn push(&mut self, lane: &Lane, item: T) {
        let workspace = self.workspaces.entry(lane.workspace.clone()).or_insert_with(|| Workspace {
            active: 0,
            lines: HashMap::new(),
            turns: VecDeque::new(),
        });
        let line = workspace.lines.entry(lane.trigger).or_insert_with(|| Line {
            active: 0,
            waiting: VecDeque::new(),
            has_turn: false,
        });
        line.waiting.push_back(item);
        self.offer(lane);
    }

    /// Takes the next delivery that may start; [`done`](Self::done) must be told when it has ended.
    pub fn start(&mut self) -> Option<(Lane, T)> {
        let free = self.limits.total.saturating_sub(self.active);
        // One of the workspaces that wait may be at its limit while another is not.
        for _ in 0..self.turns.len() {
            if free == 0 {
                return None;
            }
            let name = self.turns.pop_front()?;
            let share = (self.limits.total / (self.workspaces.len() + 1)).max(1);
            let Some(workspace) = self.workspaces.get_mut(&name) else { continue };
            if workspace.active >= self.limits.workspace.min(free).min(share) {
                self.turns.push_back(name);
                continue;
            }
            let Some(trigger) = workspace.turns.pop_front() else { continue };
            if !workspace.turns.is_empty() {
                self.turns.push_back(name.clone());
            }
            let Some(line) = workspace.lines.get_mut(&trigger) else { continue };
            line.has_turn = false;
            let Some(item) = line.waiting.pop_front() else { continue };
            line.active += 1;
            workspace.active += 1;
            self.active += 1;
            let lane = Lane { workspace: name, trigger };
            self.offer(&lane);
            return Some((lane, item));
        }
        None
    }

    /// Frees the slot of a delivery that was started.
    pub fn done(&mut self, lane: &Lane) {
        let Some(workspace) = self.workspaces.get_mut(&lane.workspace) else { return };
        let Some(line) = workspace.lines.get_mut(&lane.trigger) else { return };
        self.active -= 1;
        workspace.active -= 1;
        line.active -= 1;
        if line.active == 0 && line.waiting.is_empty() {
            workspace.lines.remove(&lane.trigger);
            if workspace.lines.is_empty() {
                self.workspaces.remove(&lane.workspace);
            }
        } else {
            self.offer(lane);
        }
    }

    /// Gives a trigger its turn, and its workspace too, unless they have one or nothing to start.
    fn offer(&mut self, lane: &Lane) {
        let Some(workspace) = self.workspaces.get_mut(&lane.workspace) else { return };
        let Some(line) = workspace.lines.get_mut(&lane.trigger) else { return };
        if line.has_turn || line.waiting.is_empty() || line.active >= self.limits.trigger {
            return;
        }
        line.has_turn = true;
        if workspace.turns.is_empty() {
            self.turns.push_back(lane.workspace.clone());
        }
        workspace.turns.push_back(lane.trigger);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(workspace: &str, trigger: u128) -> Lane {
        Lane { workspace: workspace.into(), trigger: Uuid::from_u128(trigger) }
    }

    fn start_all(queue: &mut Queue<u32>) -> Vec<(Lane, u32)> {
        std::iter::from_fn(|| queue.start()).collect()
    }

    fn count(started: &[(Lane, u32)], workspace: &str) -> usize {
        started.iter().filter(|(lane, _)| &*lane.workspace == workspace).count()
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
        assert_eq!(queue.start().map(|(lane, _)| lane), Some(lane("quick", 7)));
    }

    #[test]
    fn workspaces_take_turns_whatever_the_length_of_their_lines() {
        let mut queue = Queue::new(Limits { total: 8, workspace: 8, trigger: 8 });
        for n in 0..1000 {
            queue.push(&lane("flood", 1), n);
        }
        queue.push(&lane("calm", 2), 0);
        let first = [queue.start(), queue.start()].map(|started| started.unwrap().0);
        assert!(first.contains(&lane("calm", 2)), "{first:?}");
    }

    #[test]
    fn triggers_of_a_workspace_take_turns() {
        let mut queue = Queue::new(Limits { total: 64, workspace: 6, trigger: 6 });
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
    fn everything_is_started_once_in_the_order_of_its_line() {
        let mut queue = Queue::new(Limits { total: 5, workspace: 3, trigger: 2 });
        for n in 0..300_u32 {
            let workspace = ["a", "b", "c"][n as usize % 3];
            queue.push(&lane(workspace, u128::from(n % 7)), n);
        }
        let (mut running, mut seen) = (VecDeque::new(), Vec::new());
        loop {
            while let Some(started) = queue.start() {
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
