//! How often each trigger has fired since the controller was told.

use crate::api::Tally;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use uuid::Uuid;

/// Triggers that are counted for; more are not, which only happens if no controller takes the counts.
const MOST: usize = 100_000;

/// The tallies of all triggers.
#[derive(Debug, Default)]
pub struct Tallies(Mutex<HashMap<Uuid, Count>>);

#[derive(Debug, Default)]
struct Count {
    tally: Tally,
    /// When it was last taken, in Unix milliseconds.
    taken: u64,
}

impl Tallies {
    /// Counts what has happened to triggers.
    pub fn add(&self, happened: impl IntoIterator<Item = (Uuid, Tally)>) {
        let mut counts = self.lock();
        for (trigger, tally) in happened {
            if counts.len() < MOST || counts.contains_key(&trigger) {
                counts.entry(trigger).or_default().tally.add(&tally);
            }
        }
    }

    /// Takes what was counted, of `most` triggers at most, each once in `interval` (milliseconds).
    pub fn take(&self, now: u64, interval: u64, most: usize) -> Vec<(Uuid, Tally)> {
        let mut counts = self.lock();
        let rested = |count: &Count| now >= count.taken.saturating_add(interval);
        counts.retain(|_, count| count.tally != Tally::default() || !rested(count));
        let due = counts.iter_mut().filter(|(_, count)| count.tally != Tally::default() && rested(count));
        due.take(most)
            .map(|(trigger, count)| {
                count.taken = now;
                (*trigger, std::mem::take(&mut count.tally))
            })
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Count>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_trigger_is_told_of_once_in_an_interval_and_nothing_twice() {
        let tallies = Tallies::default();
        let trigger = Uuid::from_u128(1);
        let fired = |at| [(trigger, Tally { fired: 1, last_fired: at, ..Tally::default() })];
        tallies.add(fired(5));
        tallies.add(fired(3));
        tallies.add([(trigger, Tally { failed: 1, ..Tally::default() })]);
        let first = Tally { fired: 2, filtered: 0, failed: 1, last_fired: 5 };
        assert_eq!(tallies.take(100, 60, 10), [(trigger, first)]);
        tallies.add(fired(110));
        assert_eq!(tallies.take(159, 60, 10), []);
        assert_eq!(tallies.take(160, 60, 0), []);
        assert_eq!(tallies.take(160, 60, 10), [(trigger, Tally { fired: 1, last_fired: 110, ..Tally::default() })]);
        assert_eq!(tallies.take(1_000, 60, 10), []);
        assert!(tallies.lock().is_empty(), "nothing is kept of triggers that rest");
    }
}
