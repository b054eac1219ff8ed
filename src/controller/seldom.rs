//! What is written into statuses again and again, seldom enough for the API server not to notice. Plain and synchronous.

use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// Objects that wait to be written; beyond, what is reported is not taken and comes again.
const MOST_WAITING: usize = 20_000;

/// How much may be written.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// The shortest time between two writes to one object.
    pub interval: Duration,
    /// Most writes a minute, to all objects of a kind together.
    pub per_minute: u32,
}

/// What can wait: several reports of one object become one.
pub trait News: Copy {
    /// Adds what was reported later, or earlier.
    fn add(&mut self, other: Self);
}

/// What waits to be written to the objects of one kind, by UID, and what was written when.
pub struct Book<N> {
    budget: Budget,
    /// With the place in the order in which objects began to wait. What is news may have no time of its own, as events that
    /// did not match, and must neither come before what has one nor after it.
    waiting: HashMap<Uuid, (u64, N)>,
    /// The next place.
    next: u64,
    written: HashMap<Uuid, Instant>,
    /// Writes that are allowed now; at most those of a minute.
    tokens: f64,
    filled: Instant,
}

impl<N: News> Book<N> {
    /// An empty one.
    pub fn new(budget: Budget, now: Instant) -> Self {
        let tokens = f64::from(budget.per_minute);
        Self { budget, waiting: HashMap::new(), next: 0, written: HashMap::new(), tokens, filled: now }
    }

    /// Whether so many more objects may wait.
    pub fn has_room(&self, more: usize) -> bool {
        self.waiting.len() + more <= MOST_WAITING
    }

    /// Takes what was reported of an object; false if there is no room.
    pub fn note(&mut self, uid: Uuid, news: N) -> bool {
        if let Some((_, waiting)) = self.waiting.get_mut(&uid) {
            waiting.add(news);
            return true;
        }
        let has_room = self.has_room(1);
        if has_room {
            self.waiting.insert(uid, (self.next, news));
            self.next += 1;
        }
        has_room
    }

    /// What may be written now; it counts as written. Those that have waited longest for a write come first.
    pub fn due(&mut self, now: Instant) -> Vec<(Uuid, N)> {
        let most = f64::from(self.budget.per_minute);
        let gained = (now - self.filled).as_secs_f64() * most / 60.0;
        self.tokens = (self.tokens + gained).min(most);
        self.filled = now;
        let interval = self.budget.interval;
        self.written.retain(|_, written| now.duration_since(*written) < interval);
        let waiting = self.waiting.iter().filter(|(uid, _)| !self.written.contains_key(*uid));
        let mut due: Vec<(u64, Uuid, N)> = waiting.map(|(uid, (place, news))| (*place, *uid, *news)).collect();
        due.sort_by_key(|(place, ..)| *place);
        due.truncate(self.tokens as usize);
        self.tokens -= due.len() as f64;
        for (_, uid, _) in &due {
            self.waiting.remove(uid);
            self.written.insert(*uid, now);
        }
        due.into_iter().map(|(_, uid, news)| (uid, news)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl News for i64 {
        fn add(&mut self, other: Self) {
            *self = other.max(*self);
        }
    }

    fn seen(n: u128, at: i64) -> (Uuid, i64) {
        (Uuid::from_u128(n), at)
    }

    fn uids(due: &[(Uuid, i64)]) -> Vec<u128> {
        due.iter().map(|(uid, _)| uid.as_u128()).collect()
    }

    #[test]
    fn one_object_is_written_once_a_minute_with_the_newest_time() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut book = Book::<i64>::new(Budget { interval: Duration::from_secs(60), per_minute: 600 }, start);
        book.note(Uuid::from_u128(1), 1_000);
        assert_eq!(book.due(at(1)), [seen(1, 1_000)]);
        assert_eq!(book.due(at(2)), []);
        for time in [5_000, 9_000, 7_000] {
            book.note(Uuid::from_u128(1), time);
        }
        assert_eq!(book.due(at(60)), []);
        assert_eq!(book.due(at(61)), [seen(1, 9_000)]);
    }

    #[test]
    fn all_together_keep_to_the_budget_and_nobody_starves() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut book = Book::<i64>::new(Budget { interval: Duration::from_secs(60), per_minute: 6 }, start);
        (1..=20).for_each(|n| assert!(book.note(Uuid::from_u128(n), n as i64)));
        assert_eq!(uids(&book.due(at(0))), [1, 2, 3, 4, 5, 6]);
        assert_eq!(uids(&book.due(at(9))), []);
        assert_eq!(uids(&book.due(at(10))), [7]);
        assert_eq!(uids(&book.due(at(40))), [8, 9, 10]);
        // One that is busy does not push the others back.
        book.note(Uuid::from_u128(1), 100);
        assert_eq!(uids(&book.due(at(100))), [11, 12, 13, 14, 15, 16]);
        assert_eq!(uids(&book.due(at(1_000))), [17, 18, 19, 20, 1]);
    }

    #[test]
    fn what_has_no_time_takes_nobodys_turn() {
        let start = Instant::now();
        let mut book = Book::<i64>::new(Budget { interval: Duration::from_secs(1), per_minute: 60 }, start);
        assert_eq!(book.tokens as u32, 60);
        // Events that did not match have no time of firing, and there are more of them than may be written.
        let mut written = Vec::new();
        for second in 0..300 {
            (1..=100).for_each(|n| assert!(book.note(Uuid::from_u128(n), 0)));
            assert!(book.note(Uuid::from_u128(1_000), 1_700_000_000_000 + second));
            written.extend(uids(&book.due(start + Duration::from_secs(second.unsigned_abs()))));
        }
        let count = |n: u128| written.iter().filter(|uid| **uid == n).count();
        let fair = written.len() / 101;
        assert!(count(1_000) >= fair && count(1) >= fair && count(100) >= fair, "{} {fair}", count(1_000));
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut book = Book::<i64>::new(Budget { interval: Duration::from_secs(60), per_minute: 0 }, Instant::now());
        (0..MOST_WAITING as u128).for_each(|n| assert!(book.note(Uuid::from_u128(n), 1)));
        assert!(!book.note(Uuid::from_u128(u128::MAX), 1) && book.note(Uuid::from_u128(5), 2));
        assert!(book.due(Instant::now() + Duration::from_secs(3600)).is_empty());
    }
}
