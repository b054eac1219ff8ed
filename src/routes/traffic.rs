//! What the ingress counts for each route; it outlives the route's changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// What one route has under way.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Bytes of bodies that are being received or stored.
    pub body_bytes: AtomicUsize,
    /// Limits what is logged about refused requests.
    pub refusals: LogGate,
    /// Whether a secret that a handshake brought is being handed to the controller.
    pub capturing: AtomicBool,
    /// When the last request came.
    pub activity: Activity,
}

/// When the last request came that was proven, and of which one the controller has been told. Unix milliseconds; 0 is
/// never.
#[derive(Debug, Default)]
pub struct Activity {
    last: AtomicU64,
    told: AtomicU64,
}

impl Activity {
    /// Nobody needs it more exactly, in milliseconds: what is shown has seconds.
    const STEP: u64 = 1000;

    /// Notes a request.
    pub fn note(&self, now: u64) {
        // Mostly read: under a flood, writing each time would make the processors contend for it.
        if now >= self.last.load(Ordering::Relaxed).saturating_add(Self::STEP) {
            self.last.store(now, Ordering::Relaxed);
        }
    }

    /// The time of the last request, if the controller has not been told of it and that of which it was told is as old as
    /// `interval` (milliseconds).
    pub fn untold(&self, now: u64, interval: u64) -> Option<u64> {
        let (last, told) = (self.last.load(Ordering::Relaxed), self.told.load(Ordering::Relaxed));
        (last > told && now >= told.saturating_add(interval)).then_some(last)
    }
}

/// A request of which the controller has not been told.
#[derive(Debug)]
pub struct Untold {
    /// UID of the Subscription.
    pub uid: Uuid,
    /// When it came, in Unix milliseconds.
    pub at: u64,
    pub(super) traffic: Arc<Traffic>,
}

impl Untold {
    /// Notes that the controller has been told.
    pub fn told(&self) {
        self.traffic.activity.told.fetch_max(self.at, Ordering::Relaxed);
    }
}

/// Lets one log line through in ten seconds, so that a flood cannot fill the disk.
#[derive(Debug)]
pub struct LogGate {
    epoch: Instant,
    /// Milliseconds after `epoch` from which a line may pass.
    open_at: AtomicU64,
    suppressed: AtomicU64,
}

impl LogGate {
    const INTERVAL: Duration = Duration::from_secs(10);

    /// Whether a line may be written now; if so, how many were suppressed since the last one.
    pub fn pass(&self) -> Option<u64> {
        self.pass_at(self.epoch.elapsed())
    }

    fn pass_at(&self, now: Duration) -> Option<u64> {
        let now = now.as_millis() as u64;
        let open_at = self.open_at.load(Ordering::Relaxed);
        let next = now + Self::INTERVAL.as_millis() as u64;
        // Of several threads at the same moment one may write.
        if now >= open_at && self.open_at.compare_exchange(open_at, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            return Some(self.suppressed.swap(0, Ordering::Relaxed));
        }
        self.suppressed.fetch_add(1, Ordering::Relaxed);
        None
    }
}

impl Default for LogGate {
    fn default() -> Self {
        Self { epoch: Instant::now(), open_at: AtomicU64::new(0), suppressed: AtomicU64::new(0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_told_once() {
        let traffic = Arc::new(Traffic::default());
        assert_eq!(traffic.activity.untold(70_000, 60_000), None);
        traffic.activity.note(5_000);
        traffic.activity.note(5_900);
        assert_eq!(traffic.activity.untold(70_000, 60_000), Some(5_000));
        let untold = Untold { uid: Uuid::nil(), at: 5_000, traffic: traffic.clone() };
        traffic.activity.note(9_000);
        untold.told();
        assert_eq!(traffic.activity.untold(64_999, 60_000), None);
        assert_eq!(traffic.activity.untold(65_000, 60_000), Some(9_000));
        Untold { at: 9_000, ..untold }.told();
        assert_eq!(traffic.activity.untold(u64::MAX, 60_000), None);
    }

    #[test]
    fn a_flood_writes_one_line_in_ten_seconds() {
        let gate = LogGate::default();
        let at = |seconds| gate.pass_at(Duration::from_secs(seconds));
        assert_eq!(
            [at(0), at(0), at(9), at(10), at(11), at(60), at(60)],
            [Some(0), None, None, Some(2), None, Some(1), None]
        );
    }
}
