//! What the ingress counts for each route; it outlives the route's changes.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What one route has under way.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Bytes of bodies that are being received or stored.
    pub body_bytes: AtomicUsize,
    /// Limits what is logged about refused requests.
    pub refusals: LogGate,
    /// Whether a secret that a handshake brought is being handed to the controller.
    pub capturing: AtomicBool,
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
    fn a_flood_writes_one_line_in_ten_seconds() {
        let gate = LogGate::default();
        let at = |seconds| gate.pass_at(Duration::from_secs(seconds));
        assert_eq!(
            [at(0), at(0), at(9), at(10), at(11), at(60), at(60)],
            [Some(0), None, None, Some(2), None, Some(1), None]
        );
    }
}
