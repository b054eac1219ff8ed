//! When a pass is repeated, and after which pause.

use super::{Context, Failure, uid_of};
use kube::runtime::controller::Action;
use kube::{Resource, ResourceExt};
use std::sync::PoisonError;
use std::time::Duration;
use uuid::Uuid;

/// First and longest pause between two passes that fail.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// Pause before something is tried again that a person most likely has to mend first.
const SLOW: Duration = Duration::from_secs(600);

/// When a pass is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// When something that is watched changes.
    OnChange,
    /// With growing pauses.
    Backoff,
    /// After ten minutes, with jitter.
    Slow,
    /// After this pause, which the external system asks for, or a longer one.
    After(Duration),
    /// After this pause, at which something is due. Nothing has failed.
    At(Duration),
}

impl Context {
    /// The next pass for an object, after one that came to its end.
    pub(super) fn requeue(&self, uid: Uuid, retry: Option<Retry>) -> Action {
        self.next_pass(uid, retry).map_or_else(Action::await_change, Action::requeue)
    }

    /// The pause until the next pass for an object; nothing: until something that is watched changes.
    pub(super) fn next_pass(&self, uid: Uuid, retry: Option<Retry>) -> Option<Duration> {
        match retry {
            None | Some(Retry::OnChange) => {
                self.forget(uid);
                None
            }
            Some(Retry::At(pause)) => {
                self.forget(uid);
                Some(pause)
            }
            Some(Retry::Backoff) => Some(self.next_pause(uid)),
            Some(Retry::Slow) => Some(jittered(SLOW)),
            Some(Retry::After(pause)) => Some(pause.max(self.next_pause(uid))),
        }
    }

    /// The next pass for an object, after one that failed.
    pub(super) fn requeue_failed<K: Resource<DynamicType = ()>>(&self, object: &K, failure: &Failure) -> Action {
        let (kind, name) = (K::kind(&()), object.name_any());
        let namespace = object.namespace().unwrap_or_default();
        match failure {
            Failure::Conflict(_) | Failure::Blocked(_) | Failure::Unfinished => {
                tracing::debug!(%kind, namespace, name, %failure, "to be tried again");
            }
            _ => tracing::warn!(%kind, namespace, name, error = %failure, "a pass has failed"),
        }
        let Ok(uid) = uid_of(object) else { return Action::requeue(SLOW) };
        match failure {
            Failure::Blocked(blocked) => match Retry::from(&**blocked) {
                // A deletion is never left to chance: it has a deadline.
                Retry::OnChange => Action::requeue(self.next_pause(uid)),
                retry => self.requeue(uid, Some(retry)),
            },
            Failure::Unfinished => self.requeue(uid, Some(Retry::At(Duration::ZERO))),
            _ => Action::requeue(self.next_pause(uid)),
        }
    }

    fn next_pause(&self, uid: Uuid) -> Duration {
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = attempts.entry(uid).or_insert(0);
        *count += 1;
        backoff(*count)
    }

    pub(super) fn forget(&self, uid: Uuid) {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner).remove(&uid);
    }
}

/// The pause after `attempts` failures in a row: doubling from one second to five minutes, with jitter.
pub(super) fn backoff(attempts: u32) -> Duration {
    let (first, longest) = BACKOFF;
    jittered(first.saturating_mul(2u32.saturating_pow(attempts.saturating_sub(1))).min(longest))
}

/// Between half of `pause` and all of it, so that what failed together does not come back together.
pub(super) fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_five_minutes_and_are_jittered() {
        for (attempts, full) in [(1, 1.0), (2, 2.0), (5, 16.0), (30, 300.0), (u32::MAX, 300.0)] {
            for _ in 0..50 {
                let pause = backoff(attempts).as_secs_f64();
                assert!(pause >= full / 2.0 && pause <= full, "{attempts}: {pause}");
            }
        }
    }
}
