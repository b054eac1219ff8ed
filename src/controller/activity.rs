//! When the last request came to each Subscription: the replicas of the ingress report it, the controller that holds the
//! Lease writes it into the statuses, seldom enough for the API server not to notice.

use super::{Context, Failure};
use crate::api::{Subscription, SubscriptionStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::Api;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// Field manager of what is written here. It has one of its own, so that it need not know the rest of the status.
const FIELD_MANAGER: &str = "bellhop-activity";
/// Subscriptions whose time waits to be written; beyond, reports are not taken and come again.
const MOST_WAITING: usize = 20_000;
/// How often it is looked whether something may be written.
const TICK: Duration = Duration::from_secs(1);
/// How long one write may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What an ingress reports at `/internal/activity`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The last request of each Subscription that has had one since the last report.
    pub requests: Vec<Seen>,
}

/// The last request of a Subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// UID of the Subscription.
    pub uid: Uuid,
    /// When it came, in Unix milliseconds.
    pub at: i64,
}

/// How much may be written.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// The shortest time between two writes to one Subscription.
    pub interval: Duration,
    /// Most writes a minute, to all Subscriptions together.
    pub per_minute: u32,
}

/// Where reports are taken: open while this process holds the Lease. Clones are the same.
#[derive(Clone, Default)]
pub struct Desk(Arc<Mutex<Option<Book>>>);

impl Desk {
    /// Takes a report; false if this process does not hold the Lease, or has no room.
    pub fn take(&self, report: &Report) -> bool {
        let mut book = self.lock();
        let Some(book) = book.as_mut() else { return false };
        report.requests.iter().all(|seen| book.note(*seen))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Book>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes the desk when it is dropped.
struct Open<'a>(&'a Desk);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}

/// What waits to be written, and what was written when.
struct Book {
    budget: Budget,
    waiting: HashMap<Uuid, i64>,
    written: HashMap<Uuid, Instant>,
    /// Writes that are allowed now; at most those of a minute.
    tokens: f64,
    filled: Instant,
}

impl Book {
    fn new(budget: Budget, now: Instant) -> Self {
        let tokens = f64::from(budget.per_minute);
        Self { budget, waiting: HashMap::new(), written: HashMap::new(), tokens, filled: now }
    }

    fn note(&mut self, seen: Seen) -> bool {
        if self.waiting.len() >= MOST_WAITING && !self.waiting.contains_key(&seen.uid) {
            return false;
        }
        let at = self.waiting.entry(seen.uid).or_insert(seen.at);
        *at = seen.at.max(*at);
        true
    }

    /// What may be written now; it counts as written. Those that have waited longest for a write come first.
    fn due(&mut self, now: Instant) -> Vec<Seen> {
        let most = f64::from(self.budget.per_minute);
        let gained = (now - self.filled).as_secs_f64() * most / 60.0;
        self.tokens = (self.tokens + gained).min(most);
        self.filled = now;
        let interval = self.budget.interval;
        self.written.retain(|_, written| now.duration_since(*written) < interval);
        let mut due: Vec<Seen> = self
            .waiting
            .iter()
            .filter(|(uid, _)| !self.written.contains_key(*uid))
            .map(|(uid, at)| Seen { uid: *uid, at: *at })
            .collect();
        due.sort_by_key(|seen| (seen.at, seen.uid));
        due.truncate(self.tokens as usize);
        self.tokens -= due.len() as f64;
        for seen in &due {
            self.waiting.remove(&seen.uid);
            self.written.insert(seen.uid, now);
        }
        due
    }
}

/// Writes what is reported, for ever; to stop it, drop it.
pub async fn run(context: &Context, desk: &Desk) {
    let budget = Budget { interval: context.common.activity_interval, per_minute: context.options.activity_writes };
    *desk.lock() = Some(Book::new(budget, Instant::now()));
    let _open = Open(desk);
    loop {
        tokio::time::sleep(TICK).await;
        let due = desk.lock().as_mut().map(|book| book.due(Instant::now())).unwrap_or_default();
        if due.is_empty() {
            continue;
        }
        let due: HashMap<String, i64> = due.iter().map(|seen| (seen.uid.to_string(), seen.at)).collect();
        for subscription in context.subscriptions.store().state_filter(|known| due.contains_key(uid(known))) {
            let Some(at) = due.get(uid(&subscription)) else { continue };
            let written = tokio::time::timeout(PATIENCE, write(context, &subscription, *at)).await;
            if let Err(failure) = written.unwrap_or(Err(Failure::TooLong(PATIENCE))) {
                // The next request brings the next time.
                tracing::debug!(name = subscription.name_any(), %failure, "the last request's time was not written");
            }
        }
    }
}

fn uid(subscription: &Subscription) -> &str {
    subscription.metadata.uid.as_deref().unwrap_or_default()
}

async fn write(context: &Context, subscription: &Subscription, at: i64) -> Result<(), Failure> {
    // The API has seconds.
    let Ok(time) = Timestamp::from_second(at / 1000) else { return Ok(()) };
    let before = subscription.status.as_ref().and_then(|status| status.last_request_time.as_ref());
    if before.is_some_and(|before| before.0 >= time) {
        return Ok(());
    }
    let status = SubscriptionStatus { last_request_time: Some(Time(time)), ..SubscriptionStatus::default() };
    let api = Api::<Subscription>::namespaced(context.client.clone(), &subscription.namespace().unwrap_or_default());
    context.apply_status(FIELD_MANAGER, &api, subscription, &status).await
}

/// What of a Subscription is worth a pass: everything but the time of the last request, and what the API server keeps
/// about who has written what. Without this, each write here would wake controllers that then have nothing to do.
pub fn worth_a_pass(subscription: &Subscription) -> Vec<u8> {
    let mut relevant = subscription.clone();
    relevant.metadata.managed_fields = None;
    relevant.metadata.resource_version = None;
    if let Some(status) = &mut relevant.status {
        status.last_request_time = None;
    }
    serde_json::to_vec(&relevant).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(n: u128, at: i64) -> Seen {
        Seen { uid: Uuid::from_u128(n), at }
    }

    fn uids(due: &[Seen]) -> Vec<u128> {
        due.iter().map(|seen| seen.uid.as_u128()).collect()
    }

    #[test]
    fn one_subscription_is_written_once_a_minute_with_the_newest_time() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut book = Book::new(Budget { interval: Duration::from_secs(60), per_minute: 600 }, start);
        book.note(seen(1, 1_000));
        assert_eq!(book.due(at(1)), [seen(1, 1_000)]);
        assert_eq!(book.due(at(2)), []);
        for time in [5_000, 9_000, 7_000] {
            book.note(seen(1, time));
        }
        assert_eq!(book.due(at(60)), []);
        assert_eq!(book.due(at(61)), [seen(1, 9_000)]);
    }

    #[test]
    fn all_together_keep_to_the_budget_and_nobody_starves() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut book = Book::new(Budget { interval: Duration::from_secs(60), per_minute: 6 }, start);
        (1..=20).for_each(|n| assert!(book.note(seen(n, n as i64))));
        assert_eq!(uids(&book.due(at(0))), [1, 2, 3, 4, 5, 6]);
        assert_eq!(uids(&book.due(at(9))), []);
        assert_eq!(uids(&book.due(at(10))), [7]);
        assert_eq!(uids(&book.due(at(40))), [8, 9, 10]);
        // One that is busy does not push the others back.
        book.note(seen(1, 100));
        assert_eq!(uids(&book.due(at(100))), [11, 12, 13, 14, 15, 16]);
        assert_eq!(uids(&book.due(at(1_000))), [17, 18, 19, 20, 1]);
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut book = Book::new(Budget { interval: Duration::from_secs(60), per_minute: 0 }, Instant::now());
        (0..MOST_WAITING as u128).for_each(|n| assert!(book.note(seen(n, 1))));
        assert!(!book.note(seen(u128::MAX, 1)) && book.note(seen(5, 2)));
        assert!(book.due(Instant::now() + Duration::from_secs(3600)).is_empty());
    }

    #[test]
    fn a_desk_is_open_only_while_somebody_works_at_it() {
        let (desk, report) = (Desk::default(), Report { requests: vec![seen(1, 1)] });
        assert!(!desk.take(&report));
        let budget = Budget { interval: Duration::from_secs(60), per_minute: 600 };
        *desk.lock() = Some(Book::new(budget, Instant::now()));
        let open = Open(&desk);
        assert!(desk.take(&report));
        drop(open);
        assert!(!desk.take(&report));
    }

    #[test]
    fn the_time_of_a_request_is_not_worth_a_pass() {
        let subscription = |version: &str, time: Option<i64>, events: &[&str]| {
            let mut subscription: Subscription = serde_json::from_value(serde_json::json!({
                "apiVersion": "bellhop.dev/v1alpha1", "kind": "Subscription",
                "metadata": {"name": "x", "resourceVersion": version},
                "spec": {"pluginRef": {"name": "p"}, "authorization": {"manual": {}}},
                "status": {"events": events},
            }))
            .unwrap();
            let time = time.map(|time| Time(Timestamp::from_second(time).unwrap()));
            subscription.status.as_mut().unwrap().last_request_time = time;
            worth_a_pass(&subscription)
        };
        assert_eq!(subscription("1", None, &["a"]), subscription("2", Some(5), &["a"]));
        assert_ne!(subscription("1", None, &["a"]), subscription("2", None, &["b"]));
    }
}
