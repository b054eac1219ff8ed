//! What the steps of one pass work with, and how much of it one pass may take.

use crate::controller::Context;
use crate::plugin::Plugin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Most calls to the external system after which a pass begins no further step.
const MOST_CALLS: usize = 20;
/// Longest time after which a pass begins no further step. A step may take a list of webhooks and two calls more.
const LONGEST: Duration = Duration::from_secs(45);

/// How much a pass has done.
pub struct Tally {
    begun: Instant,
    calls: AtomicUsize,
    published: AtomicBool,
}

impl Default for Tally {
    fn default() -> Self {
        Self { begun: Instant::now(), calls: AtomicUsize::new(0), published: AtomicBool::new(false) }
    }
}

impl Tally {
    /// Whether further calls are left to the next pass, which follows at once: others want to be looked after as well.
    pub fn is_full(&self) -> bool {
        self.calls.load(Ordering::Relaxed) >= MOST_CALLS || self.begun.elapsed() >= LONGEST
    }

    /// Whether the external system was called.
    pub fn has_called(&self) -> bool {
        self.calls.load(Ordering::Relaxed) > 0
    }

    /// Whether a step has published a route of its own since this was asked last.
    pub fn take_publication(&self) -> bool {
        self.published.swap(false, Ordering::Relaxed)
    }
}

/// What the steps of one pass work with.
#[derive(Clone, Copy)]
pub struct Desk<'a> {
    /// What every controller works with.
    pub context: &'a Context,
    /// The Subscription's plugin.
    pub plugin: &'a Plugin,
    /// What the pass has done so far.
    pub tally: &'a Tally,
    /// The time at which the step began, in milliseconds since the Unix epoch.
    pub now: i64,
}

impl Desk<'_> {
    /// Counts a call to the external system.
    pub fn count(&self) {
        self.tally.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that the step publishes a route, which may not be that of what is stored afterwards.
    pub fn note_publication(&self) {
        self.tally.published.store(true, Ordering::Relaxed);
    }

    /// The time, in milliseconds since the Unix epoch. A step can take a while.
    pub fn time(&self) -> i64 {
        crate::controller::now()
    }
}
