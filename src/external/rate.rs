//! So many things a second, and some at once after a time without any: the generic cell rate algorithm (ITU-T I.371).

use std::time::{Duration, Instant};

/// What is allowed.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// The pause between two things, in the long run.
    pub interval: Duration,
    /// How many may happen at once; 1 at least.
    pub burst: u32,
}

/// When the next thing would happen, were there no burst (the "theoretical arrival time" of the algorithm).
#[derive(Clone, Copy, Debug)]
pub struct Schedule(Instant);

impl Schedule {
    /// One in which nothing has happened yet.
    pub fn new(now: Instant) -> Self {
        Self(now)
    }

    /// Takes the next free place in time, and says how far away it is.
    ///
    /// # Errors
    /// It is farther away than `patience`: how far. Then nothing is taken.
    pub fn reserve(&mut self, rate: Rate, patience: Duration, now: Instant) -> Result<Duration, Duration> {
        let next = self.0.max(now);
        let ahead = rate.interval * rate.burst.saturating_sub(1);
        let wait = (next - now).saturating_sub(ahead);
        if wait > patience {
            return Err(wait);
        }
        self.0 = next + rate.interval;
        Ok(wait)
    }

    /// Whether all places that were taken are in the past.
    pub fn is_idle(&self, now: Instant) -> bool {
        self.0 <= now
    }
}
