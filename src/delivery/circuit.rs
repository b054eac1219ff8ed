//! Which runners are left alone for a while, because they do not answer. Plain and synchronous: the time is passed in.
//!
//! There is a circuit for each runner and workspace, so that a tenant whose path is broken does not cut another tenant
//! off from the same server. It opens after [`Rules::failures`] attempts in a row without an answer or with a 5xx. While
//! it is open, deliveries wait and their attempts are not used up. When its time is over, one delivery is let through as
//! a probe: if that fails, the circuit opens again for twice as long; any other answer closes it. One that nothing leads
//! through any more is [forgotten](Circuits::forget), because nothing would probe it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// What a circuit belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Way {
    /// The runner, by the origin of its URL; empty if it has none, which is never cut off.
    pub runner: Arc<str>,
    /// The workspace whose triggers call it.
    pub workspace: Arc<str>,
}

/// When circuits open, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Failures in a row that open a circuit.
    pub failures: u32,
    /// How long it stays open the first time, in milliseconds.
    pub first: u64,
    /// How long it stays open at most, in milliseconds.
    pub longest: u64,
}

impl Default for Rules {
    fn default() -> Self {
        Self { failures: 10, first: 5_000, longest: 300_000 }
    }
}

/// What an attempt says of its runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It answered, whatever: a runner that refuses an event is there.
    Answers,
    /// No answer, or 5xx.
    Fails,
    /// Nothing: it was not called.
    Unknown,
}

/// Whether an attempt may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Yes.
    Go,
    /// Not before this time, in Unix milliseconds.
    Until(u64),
    /// Not before the probe that is under way has ended.
    AfterProbe,
}

/// What has happened to a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It opened, or opened again, until this time.
    Opened {
        /// In Unix milliseconds.
        until: u64,
        /// Whether it was closed before.
        anew: bool,
    },
    /// It closed.
    Closed,
}

#[derive(Debug)]
enum Circuit {
    /// Closed, after so many failures in a row.
    Closed(u32),
    /// Open since the time `since`, for the `nth` time in a row.
    Open { since: u64, until: u64, nth: u32, probing: bool },
}

/// All circuits that are not simply closed.
#[derive(Debug)]
pub struct Circuits {
    rules: Rules,
    circuits: HashMap<Way, Circuit>,
}

impl Circuits {
    /// None, to begin with.
    pub fn new(rules: Rules) -> Self {
        Self { rules, circuits: HashMap::new() }
    }

    /// Asks whether an attempt may start now. An attempt that may, and finds the circuit's time over, is its probe:
    /// [`ended`](Self::ended) must be told of its end.
    pub fn admit(&mut self, way: &Way, now: u64) -> Admission {
        match self.circuits.get_mut(way) {
            None | Some(Circuit::Closed(_)) => Admission::Go,
            Some(Circuit::Open { probing: true, .. }) => Admission::AfterProbe,
            Some(Circuit::Open { until, .. }) if now < *until => Admission::Until(*until),
            Some(Circuit::Open { probing, .. }) => {
                *probing = true;
                Admission::Go
            }
        }
    }

    /// Whether an attempt may not start now, if it may be no probe.
    pub fn is_open(&self, way: &Way, now: u64) -> bool {
        match self.circuits.get(way) {
            None | Some(Circuit::Closed(_)) => false,
            Some(Circuit::Open { until, probing, .. }) => *probing || now < *until,
        }
    }

    /// Takes the end of an attempt that was admitted.
    pub fn ended(&mut self, way: &Way, health: Health, now: u64) -> Option<Change> {
        if way.runner.is_empty() {
            return None;
        }
        match health {
            Health::Answers => match self.circuits.remove(way) {
                Some(Circuit::Open { .. }) => Some(Change::Closed),
                _ => None,
            },
            Health::Unknown => {
                // The probe never reached the runner, so the next one may try.
                if let Some(Circuit::Open { probing, .. }) = self.circuits.get_mut(way) {
                    *probing = false;
                }
                None
            }
            Health::Fails => self.failed(way, now),
        }
    }

    fn failed(&mut self, way: &Way, now: u64) -> Option<Change> {
        let rules = self.rules;
        let circuit = self.circuits.entry(way.clone()).or_insert(Circuit::Closed(0));
        let (since, nth) = match circuit {
            Circuit::Closed(failures) => {
                *failures += 1;
                if *failures < rules.failures {
                    return None;
                }
                (now, 1)
            }
            // An attempt that began before the circuit opened says nothing new.
            Circuit::Open { probing: false, .. } => return None,
            Circuit::Open { since, nth, .. } => (*since, nth.saturating_add(1)),
        };
        let wait = rules.first.saturating_mul(2u64.saturating_pow(nth - 1)).min(rules.longest);
        let until = now.saturating_add(wait);
        *circuit = Circuit::Open { since, until, nth, probing: false };
        Some(Change::Opened { until, anew: nth == 1 })
    }

    /// Those that are open, and since when, in Unix milliseconds.
    pub fn open(&self) -> HashMap<Way, u64> {
        let open = self.circuits.iter().filter_map(|(way, circuit)| match circuit {
            Circuit::Open { since, .. } => Some((way.clone(), *since)),
            Circuit::Closed(_) => None,
        });
        open.collect()
    }

    /// All that something is known of.
    pub fn ways(&self) -> HashSet<Way> {
        self.circuits.keys().cloned().collect()
    }

    /// Forgets what is known of a runner that nothing leads to any more; says whether it was left alone.
    pub fn forget(&mut self, way: &Way) -> bool {
        matches!(self.circuits.remove(way), Some(Circuit::Open { .. }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(runner: &str, workspace: &str) -> Way {
        Way { runner: runner.into(), workspace: workspace.into() }
    }

    fn circuits() -> Circuits {
        Circuits::new(Rules { failures: 3, first: 5_000, longest: 30_000 })
    }

    fn fail(circuits: &mut Circuits, way: &Way, now: u64) -> Option<Change> {
        assert_eq!(circuits.admit(way, now), Admission::Go, "at {now}");
        circuits.ended(way, Health::Fails, now)
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_probes_ever_more_seldom() {
        let (mut circuits, way) = (circuits(), way("http://a", "team"));
        assert_eq!(fail(&mut circuits, &way, 1), None);
        assert_eq!(fail(&mut circuits, &way, 2), None);
        assert_eq!(circuits.ended(&way, Health::Answers, 3), None, "which begins the count anew");
        assert_eq!([fail(&mut circuits, &way, 4), fail(&mut circuits, &way, 5)], [None, None]);
        assert_eq!(fail(&mut circuits, &way, 6), Some(Change::Opened { until: 5_006, anew: true }));
        assert_eq!(circuits.admit(&way, 5_005), Admission::Until(5_006));
        let mut now = 5_006;
        for wait in [10_000, 20_000, 30_000, 30_000] {
            assert_eq!(circuits.admit(&way, now), Admission::Go, "the probe");
            assert_eq!(circuits.admit(&way, now), Admission::AfterProbe, "one at a time");
            let opened = Change::Opened { until: now + 7 + wait, anew: false };
            assert_eq!(circuits.ended(&way, Health::Fails, now + 7), Some(opened));
            now += 7 + wait;
            assert_eq!(circuits.admit(&way, now - 1), Admission::Until(now));
        }
        assert_eq!((circuits.admit(&way, now), circuits.open()), (Admission::Go, HashMap::from([(way.clone(), 6)])));
        assert_eq!(circuits.ended(&way, Health::Answers, now), Some(Change::Closed));
        assert_eq!((circuits.admit(&way, now), circuits.open().len()), (Admission::Go, 0));
        assert_eq!(circuits.admit(&way, now), Admission::Go);
        assert!(circuits.circuits.is_empty(), "nothing is kept of runners that answer");
    }

    #[test]
    fn a_tenant_with_a_broken_path_cuts_off_nobody_else() {
        let mut circuits = circuits();
        let (broken, other) = (way("http://shared", "a"), way("http://shared", "b"));
        (0..3).for_each(|n| assert_eq!(fail(&mut circuits, &broken, n).is_some(), n == 2));
        assert!(matches!(circuits.admit(&broken, 9), Admission::Until(_)));
        assert_eq!(circuits.admit(&other, 9), Admission::Go);
        assert_eq!(circuits.admit(&way("http://b", "a"), 9), Admission::Go);
    }

    #[test]
    fn attempts_that_began_before_it_opened_count_once() {
        let (mut circuits, way) = (circuits(), way("http://a", "team"));
        (0..16).for_each(|_| assert_eq!(circuits.admit(&way, 0), Admission::Go));
        let changes: Vec<_> = (0..15).filter_map(|n| circuits.ended(&way, Health::Fails, n)).collect();
        assert_eq!(changes, [Change::Opened { until: 5_002, anew: true }]);
        // One of them was answered after all, so the runner is there.
        assert_eq!(circuits.ended(&way, Health::Answers, 20), Some(Change::Closed));
    }

    #[test]
    fn a_probe_that_called_nobody_leaves_the_next_one_free() {
        let (mut circuits, way) = (circuits(), way("http://a", "team"));
        (0..3).for_each(|n| assert_eq!(fail(&mut circuits, &way, n).is_some(), n == 2));
        assert_eq!(circuits.admit(&way, 9_000), Admission::Go);
        assert_eq!(circuits.ended(&way, Health::Unknown, 9_001), None);
        assert_eq!(circuits.admit(&way, 9_001), Admission::Go);
    }

    #[test]
    fn nothing_is_kept_of_a_runner_that_is_forgotten() {
        let (mut circuits, way, other) = (circuits(), way("http://a", "team"), way("http://b", "team"));
        (0..3).for_each(|n| assert_eq!(fail(&mut circuits, &way, n).is_some(), n == 2));
        assert_eq!(fail(&mut circuits, &other, 3), None);
        assert_eq!(circuits.admit(&way, 9_000), Admission::Go, "the probe");
        assert_eq!(circuits.ways().len(), 2);
        assert!(circuits.forget(&way) && !circuits.forget(&other) && circuits.circuits.is_empty());
        // It ends after all, which is the first that is known of the runner.
        assert_eq!(circuits.ended(&way, Health::Fails, 9_001), None);
        assert_eq!(circuits.admit(&way, 9_002), Admission::Go);
    }

    #[test]
    fn what_has_no_runner_is_never_cut_off() {
        let (mut circuits, way) = (circuits(), way("", "team"));
        (0..50).for_each(|n| assert_eq!(fail(&mut circuits, &way, n), None));
    }
}
