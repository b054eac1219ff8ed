//! What this process remembers of Subscriptions between two passes. Nothing of it has to survive the process.

use super::blocked::Outcome;
use super::plan::Given;
use crate::api::{ROTATE_ANNOTATION, Subscription};
use crate::controller::PluginState;
use crate::controller::custody::Stored;
use kube::ResourceExt;
use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// The memory of all Subscriptions.
pub struct Memory {
    started: i64,
    subscriptions: Mutex<HashMap<Uuid, Remembered>>,
}

#[derive(Default)]
struct Remembered {
    looked: BTreeMap<Uuid, i64>,
    pause: Option<Pause>,
}

/// External systems are left alone for a while, whatever wakes the pass, unless what it works with has changed.
///
/// A pass that fails writes a status, and its own write wakes the next pass.
struct Pause {
    until: Instant,
    seen: u64,
    outcome: Outcome,
}

impl Memory {
    /// An empty memory. `now` is the time in milliseconds since the Unix epoch.
    pub fn new(now: i64) -> Self {
        Self { started: now, subscriptions: Mutex::default() }
    }

    /// When this process began.
    pub fn started(&self) -> i64 {
        self.started
    }

    /// When each webhook of a Subscription was looked at last, by attempt.
    pub fn looked(&self, uid: Uuid) -> BTreeMap<Uuid, i64> {
        self.lock().get(&uid).map(|remembered| remembered.looked.clone()).unwrap_or_default()
    }

    /// Notes that these webhooks of a Subscription were looked at.
    pub fn note_looks(&self, uid: Uuid, looked: BTreeMap<Uuid, i64>) {
        if !looked.is_empty() {
            self.lock().entry(uid).or_default().looked = looked;
        }
    }

    /// Leaves the external system alone for this long, as long as the pass would work with the same.
    pub fn pause(&self, uid: Uuid, pause: Duration, seen: u64, outcome: Outcome) {
        let until = Instant::now() + pause;
        self.lock().entry(uid).or_default().pause = Some(Pause { until, seen, outcome });
    }

    /// Whether the last pass has asked for a pause.
    pub fn is_paused(&self, uid: Uuid) -> bool {
        self.lock().get(&uid).is_some_and(|remembered| remembered.pause.is_some())
    }

    /// How the last pass has ended, and how long the external system is still left alone; nothing if it may be called.
    pub fn paused(&self, uid: Uuid, seen: u64) -> Option<(Outcome, Duration)> {
        let mut subscriptions = self.lock();
        let remembered = subscriptions.get_mut(&uid)?;
        let rest = remembered.pause.as_ref()?.until.saturating_duration_since(Instant::now());
        if rest.is_zero() || remembered.pause.as_ref()?.seen != seen {
            remembered.pause = None;
            return None;
        }
        Some((remembered.pause.as_ref()?.outcome.clone(), rest))
    }

    /// Forgets a Subscription.
    pub fn forget(&self, uid: Uuid) {
        self.lock().remove(&uid);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Remembered>> {
        self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Identifies what a pass works with: if it is the same, the external system will say the same.
pub fn seen(
    subscription: &Subscription,
    plugin: &PluginState,
    given: Option<&Given>,
    stored: Option<&Stored>,
    route_live: bool,
) -> u64 {
    let mut hasher = DefaultHasher::new();
    (subscription.uid(), subscription.metadata.generation, route_live).hash(&mut hasher);
    subscription.annotations().get(ROTATE_ANNOTATION).hash(&mut hasher);
    match plugin {
        PluginState::NotFound => 0.hash(&mut hasher),
        PluginState::Broken(mistakes) => mistakes.hash(&mut hasher),
        PluginState::Ready(plugin) => (Arc::as_ptr(plugin) as usize).hash(&mut hasher),
    }
    match given {
        None => 0.hash(&mut hasher),
        Some(Ok(values)) => values.hash(&mut hasher),
        Some(Err(blocked)) => (blocked.reason, &blocked.message).hash(&mut hasher),
    }
    stored.and_then(Stored::resource_version).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_ends_with_its_time_or_with_a_change() {
        let (memory, uid) = (Memory::new(0), Uuid::from_u128(7));
        let outcome = Outcome { unfinished: true, ..Outcome::default() };
        assert_eq!(memory.paused(uid, 1), None);
        memory.pause(uid, Duration::from_secs(60), 1, outcome.clone());
        let (same, rest) = memory.paused(uid, 1).unwrap();
        assert!(same == outcome && rest > Duration::from_secs(50));
        assert_eq!(memory.paused(uid, 2), None, "something has changed");
        assert_eq!(memory.paused(uid, 1), None, "and then it is over");
        memory.pause(uid, Duration::ZERO, 1, outcome);
        assert_eq!(memory.paused(uid, 1), None);
    }
}
