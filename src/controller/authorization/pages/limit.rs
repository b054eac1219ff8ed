//! How many pages are made in a second.
//!
//! Whoever reaches the public listener can ask for pages with links that he made up, and each is looked for at the API
//! server, which the controller needs for its own work.

use crate::external::{Rate, Schedule};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// 25 pages a second, and 50 at once. A person needs three.
const RATE: Rate = Rate { interval: Duration::from_millis(40), burst: 50 };

/// Says whether one more page may be made.
#[derive(Default)]
pub struct Limit {
    /// Nothing before the first page.
    schedule: Mutex<Option<Schedule>>,
}

impl Limit {
    /// Whether one more page may be made at this moment.
    pub fn take(&self, now: Instant) -> bool {
        let mut schedule = self.schedule.lock().unwrap_or_else(PoisonError::into_inner);
        schedule.get_or_insert_with(|| Schedule::new(now)).reserve(RATE, Duration::ZERO, now).is_ok()
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
