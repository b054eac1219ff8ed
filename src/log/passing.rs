//! What is known of requests that are not stored: refused ones, handshakes, repetitions. In memory, bounded, and gone after a
//! restart, with their Subscription, and when they are too old.
//!
//! An attacker who knows a callback URL can send as many of them as they like. So few are kept, at a bounded rate, and those
//! of each kind and each Subscription push out only one another: nothing that is refused pushes out a handshake or a
//! repetition, nothing of one Subscription what is kept of another, beyond its small share, and nothing here what is stored.

use super::model::{Outcome, Request};
use super::query::covers;
use crate::external::{Rate, Schedule};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::broadcast;
use uuid::Uuid;

/// Requests of one kind and Subscription.
const KEPT: usize = 30;
/// Bytes of one Subscription's requests.
const SHARE: usize = 256 * 1024;
/// Bytes of all.
const ALL: usize = 16 * 1024 * 1024;
/// How many are taken of one kind and Subscription: ten at once, then one a second.
const RATE: Rate = Rate { interval: Duration::from_secs(1), burst: 10 };
/// Subscriptions of which nothing is kept any more are forgotten when there are more than this.
const SHARES: usize = 4096;
/// Requests that a watching reader may be behind.
const CHANGES: usize = 256;
/// What a request takes besides the text in it, roughly.
const OVERHEAD: usize = 1024;

/// What is kept; see the module's documentation.
pub struct Passing {
    all: Mutex<All>,
    changes: broadcast::Sender<Arc<Request>>,
}

#[derive(Default)]
struct All {
    shares: HashMap<Uuid, Share>,
    /// Everything by the order of its arrival.
    order: BTreeMap<u64, (Uuid, usize)>,
    next: u64,
    bytes: usize,
}

#[derive(Default)]
struct Share {
    rings: [Ring; 3],
    bytes: usize,
}

#[derive(Default)]
struct Ring {
    schedule: Option<Schedule>,
    left_out: u64,
    kept: VecDeque<Kept>,
}

struct Kept {
    number: u64,
    bytes: usize,
    request: Arc<Request>,
}

fn ring(outcome: Outcome) -> usize {
    match outcome {
        Outcome::Handshake => 1,
        Outcome::Duplicate => 2,
        _ => 0,
    }
}

impl Default for Passing {
    fn default() -> Self {
        Self { all: Mutex::default(), changes: broadcast::Sender::new(CHANGES) }
    }
}

impl Passing {
    /// Whether a request with this outcome is kept; if so, how many like it were not since the last one.
    pub fn admit(&self, subscription: Uuid, outcome: Outcome, now: Instant) -> Option<u64> {
        let mut all = self.lock();
        if all.shares.len() >= SHARES && !all.shares.contains_key(&subscription) {
            all.shares.retain(|_, share| share.is_of_use(now));
        }
        let ring = &mut all.shares.entry(subscription).or_default().rings[ring(outcome)];
        let schedule = ring.schedule.get_or_insert_with(|| Schedule::new(now));
        match schedule.reserve(RATE, Duration::ZERO, now) {
            Ok(_) => Some(std::mem::take(&mut ring.left_out)),
            Err(_) => {
                ring.left_out += 1;
                None
            }
        }
    }

    /// Keeps a request that was admitted.
    /// Those from before `oldest` (Unix milliseconds) are forgotten.
    pub fn keep(&self, request: Request, oldest: u64) {
        let bytes = serde_json::to_vec(&request).map_or(ALL, |json| json.len()) + OVERHEAD;
        let request = Arc::new(request);
        let mut all = self.lock();
        all.forget_before(oldest);
        all.keep(request.clone(), bytes);
        drop(all);
        // Fails if nobody watches.
        let _ = self.changes.send(request);
    }

    /// Forgets requests from before `oldest` (Unix milliseconds), and those of Subscriptions that are gone.
    pub fn forget(&self, oldest: u64, is_gone: impl Fn(Uuid) -> bool) {
        let mut all = self.lock();
        all.forget_before(oldest);
        let gone: Vec<Uuid> = all.shares.keys().filter(|uid| is_gone(**uid)).copied().collect();
        gone.into_iter().for_each(|uid| all.forget_all_of(uid));
    }

    /// What is kept of a namespace, newest first.
    pub fn of_namespace(&self, namespace: &str) -> Vec<Arc<Request>> {
        let all = self.lock();
        let kept = all.shares.values().flat_map(|share| &share.rings).flat_map(|ring| &ring.kept);
        let own = kept.filter(|kept| covers(namespace, &kept.request.metadata.namespace));
        let mut own: Vec<Arc<Request>> = own.map(|kept| kept.request.clone()).collect();
        drop(all);
        own.sort_by_key(|request| std::cmp::Reverse(request.version()));
        own
    }

    /// What is kept from now on.
    pub fn changes(&self) -> broadcast::Receiver<Arc<Request>> {
        self.changes.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl All {
    fn keep(&mut self, request: Arc<Request>, bytes: usize) {
        let (subscription, ring) = (request.subscription.uid, ring(request.outcome));
        let number = self.next;
        self.next += 1;
        let share = self.shares.entry(subscription).or_default();
        share.rings[ring].kept.push_back(Kept { number, bytes, request });
        share.bytes += bytes;
        self.bytes += bytes;
        self.order.insert(number, (subscription, ring));
        if self.shares[&subscription].rings[ring].kept.len() > KEPT {
            self.drop_oldest(subscription, ring);
        }
        // The largest ring gives way, so that a flood of one kind does not cost the others.
        while self.shares[&subscription].bytes > SHARE {
            let rings = &self.shares[&subscription].rings;
            let size = |ring: &Ring| ring.kept.iter().map(|kept| kept.bytes).sum::<usize>();
            let largest = (0..rings.len()).max_by_key(|ring| size(&rings[*ring])).unwrap_or(ring);
            self.drop_oldest(subscription, largest);
        }
        while self.bytes > ALL {
            let Some((_, &(subscription, ring))) = self.order.first_key_value() else { return };
            self.drop_oldest(subscription, ring);
        }
    }

    fn forget_before(&mut self, oldest: u64) {
        while let Some((_, &(subscription, ring))) = self.order.first_key_value() {
            let kept = self.shares.get(&subscription).and_then(|share| share.rings[ring].kept.front());
            if kept.is_none_or(|kept| kept.request.version().position().0 >= oldest) {
                return;
            }
            self.drop_oldest(subscription, ring);
        }
    }

    fn forget_all_of(&mut self, subscription: Uuid) {
        let Some(share) = self.shares.remove(&subscription) else { return };
        self.bytes -= share.bytes;
        for kept in share.rings.iter().flat_map(|ring| &ring.kept) {
            self.order.remove(&kept.number);
        }
    }

    fn drop_oldest(&mut self, subscription: Uuid, ring: usize) {
        let Some(share) = self.shares.get_mut(&subscription) else { return };
        let Some(kept) = share.rings[ring].kept.pop_front() else { return };
        share.bytes -= kept.bytes;
        self.bytes -= kept.bytes;
        self.order.remove(&kept.number);
    }
}

impl Share {
    fn is_of_use(&self, now: Instant) -> bool {
        let idle = |ring: &Ring| ring.schedule.is_none_or(|schedule| schedule.is_idle(now));
        self.bytes > 0 || !self.rings.iter().all(idle)
    }
}

#[cfg(test)]
mod tests {
    use super::super::convert::{About, Passed, passing};
    use super::super::mask::Mask;
    use super::super::model::Answer;
    use super::*;

    /// The `n`th request of a Subscription, with a body of `size` bytes.
    fn request(subscription: u128, n: u64, outcome: Outcome, size: usize) -> Request {
        let (head, ()) = http::Request::post("/hooks/x").body(()).unwrap().into_parts();
        let body = vec![b'x'; size];
        let passed = Passed {
            id: Uuid::from_u128(u128::from(n) << 96),
            at: 1_700_000_000_000 + n,
            subscription: ("team-a", "acme", Uuid::from_u128(subscription)),
            outcome,
            head: &head,
            body: Some(&body),
            delivery_id: None,
            answer: Answer { status: 401, after_millis: Some(1), reason: "Unverified".into(), ..Answer::default() },
            verification: None,
            note: None,
        };
        passing(passed, &About { replica: "0", plugin: Some("gitea"), mask: &Mask::default() })
    }

    fn kept(passing: &Passing, outcome: Outcome) -> Vec<Arc<Request>> {
        passing.of_namespace("team-a").into_iter().filter(|r| r.outcome == outcome).collect()
    }

    #[test]
    fn a_flood_of_one_kind_costs_only_its_own() {
        let passing = Passing::default();
        passing.keep(request(1, 0, Outcome::Duplicate, 10), 0);
        passing.keep(request(1, 1, Outcome::Handshake, 10), 0);
        passing.keep(request(2, 2, Outcome::Refused, 10), 0);
        (3..1000).for_each(|n| passing.keep(request(1, n, Outcome::Refused, 4096), 0));
        assert_eq!((kept(&passing, Outcome::Duplicate).len(), kept(&passing, Outcome::Handshake).len()), (1, 1));
        let refused = kept(&passing, Outcome::Refused);
        assert_eq!(refused.len(), KEPT + 1);
        assert!(refused[0].received.time > refused[1].received.time, "newest first");
        assert!(passing.of_namespace("team-b").is_empty());
    }

    #[test]
    fn what_is_too_old_is_forgotten_when_something_comes() {
        let passing = Passing::default();
        passing.keep(request(1, 0, Outcome::Refused, 10), 0);
        passing.keep(request(2, 1, Outcome::Duplicate, 10), 0);
        passing.keep(request(1, 2, Outcome::Refused, 10), 1_700_000_000_001);
        let left: Vec<u64> = passing.of_namespace("team-a").iter().map(|r| r.version().position().0).collect();
        assert_eq!(left, [1_700_000_000_002, 1_700_000_000_001]);
        let mut all = passing.lock();
        all.forget_all_of(Uuid::from_u128(1));
        assert_eq!((all.order.len(), all.shares.len()), (1, 1));
        all.forget_before(u64::MAX);
        assert_eq!((all.order.len(), all.bytes), (0, 0));
    }

    #[test]
    fn memory_is_bounded_for_each_and_for_all() {
        let passing = Passing::default();
        for subscription in 0..400 {
            for n in 0..60 {
                let outcome = [Outcome::Refused, Outcome::Handshake, Outcome::Duplicate][n as usize % 3];
                passing.keep(request(subscription, n, outcome, 4096), 0);
            }
        }
        let all = passing.lock();
        assert!(all.bytes <= ALL && all.bytes > ALL / 2, "{}", all.bytes);
        assert!(all.shares.values().all(|share| share.bytes <= SHARE));
        let sum: usize = all.shares.values().flat_map(|s| &s.rings).flat_map(|r| &r.kept).map(|k| k.bytes).sum();
        let count = all.shares.values().flat_map(|s| &s.rings).map(|r| r.kept.len()).sum::<usize>();
        assert_eq!((all.bytes, all.order.len()), (sum, count));
    }

    #[test]
    fn what_comes_too_often_is_counted_and_left_out() {
        let (passing, start) = (Passing::default(), Instant::now());
        let admit = |outcome, after| passing.admit(Uuid::nil(), outcome, start + Duration::from_secs(after));
        let first: Vec<_> = (0..15).map(|_| admit(Outcome::Refused, 0)).collect();
        assert_eq!(first.iter().flatten().count(), 10);
        assert_eq!(admit(Outcome::Duplicate, 0), Some(0), "another kind has a rate of its own");
        assert_eq!(admit(Outcome::Refused, 1), Some(5));
        assert_eq!(admit(Outcome::Refused, 1), None);
    }

    #[test]
    fn subscriptions_of_which_nothing_is_kept_are_forgotten() {
        let (passing, start) = (Passing::default(), Instant::now());
        for n in 0..3 * SHARES as u128 {
            passing.admit(Uuid::from_u128(n), Outcome::Refused, start + Duration::from_secs(n as u64));
        }
        assert!(passing.lock().shares.len() <= SHARES + 1);
    }
}
