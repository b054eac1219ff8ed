//! How many pages are made in a second.
//!
//! Whoever reaches the public listener can ask for pages with links that he made up, and each is looked for at the API
//! server, which the controller needs for its own work.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Pause between two pages, in the long run: 25 a second.
const INTERVAL: Duration = Duration::from_millis(40);
/// How far ahead of that they may be: 50 pages at once. A person needs three.
const BURST: Duration = Duration::from_secs(2);

/// Says whether one more page may be made.
#[derive(Default)]
pub struct Limit {
    /// When the next page would be made, were there no burst (the generic cell rate algorithm, ITU-T I.371).
    next: Mutex<Option<Instant>>,
}

impl Limit {
    /// Whether one more page may be made at this moment.
    pub fn take(&self, now: Instant) -> bool {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let at = next.map_or(now, |next| next.max(now));
        let allowed = at < now + BURST;
        if allowed {
            *next = Some(at + INTERVAL);
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_a_rate() {
        let (limit, now) = (Limit::default(), Instant::now());
        let taken = |now, tries: usize| (0..tries).filter(|_| limit.take(now)).count();
        assert_eq!(taken(now, 1000), 50);
        assert_eq!(taken(now + Duration::from_secs(1), 1000), 25);
        assert_eq!(taken(now + Duration::from_secs(60), 1000), 50);
    }
}
