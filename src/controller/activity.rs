//! What the replicas of the ingress report: when the last request came to each Subscription, how often triggers have
//! fired, and which runners are gone or do not answer. The controller that holds the Lease writes it into the statuses.

use super::seldom::{Book, Budget, News};
use super::workflow_trigger::away::{self, AwayBook};
use super::workflow_trigger::tally;
use super::{Context, Failure};
use crate::api::{Report, RunnerGone, Subscription, SubscriptionStatus, Tally, TriggerReport};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::Api;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// Field manager of what is written here. It has one of its own, so that it need not know the rest of the status.
const FIELD_MANAGER: &str = "bellhop-activity";
/// Runners that are gone and have still to be written; beyond, reports are not taken and come again.
const MOST_GONE: usize = 10_000;
/// JWK Sets that are missing something and have still to be looked at; there is one for each plugin at most.
const MOST_PLACES: usize = 1000;
/// Processes of the ingress whose last report is remembered. There are as many as replicas, and some that have ended.
const MOST_REPORTERS: usize = 1000;
/// How often it is looked whether something may be written.
const TICK: Duration = Duration::from_secs(1);
/// How often the statuses are held against what is told of runners that do not answer.
const LOOK: Duration = Duration::from_secs(5);
/// How long one write may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The last request's time.
#[derive(Clone, Copy)]
struct At(i64);

impl News for At {
    fn add(&mut self, other: Self) {
        self.0 = other.0.max(self.0);
    }
}

impl News for Tally {
    fn add(&mut self, other: Self) {
        Tally::add(self, &other);
    }
}

/// Where reports are taken: open while this process holds the Lease. Clones are the same.
#[derive(Clone, Default)]
pub struct Desk(Arc<Mutex<Option<Books>>>);

/// What was reported and is not written yet.
struct Books {
    requests: Book<At>,
    triggers: Book<Tally>,
    gone: HashMap<Uuid, RunnerGone>,
    away: AwayBook,
    missed_keys: BTreeSet<String>,
    /// The number of the last report of each process.
    reporters: HashMap<Uuid, u64>,
}

impl Books {
    fn new(budget: Budget, now: Instant) -> Self {
        let (requests, triggers, away) = (Book::new(budget, now), Book::new(budget, now), AwayBook::new(budget, now));
        let (gone, missed_keys) = (HashMap::new(), BTreeSet::new());
        Self { requests, triggers, gone, away, missed_keys, reporters: HashMap::new() }
    }

    fn take(&mut self, report: &Report) -> bool {
        // What is said of requests and of runners may be taken twice.
        if !report.requests.iter().all(|seen| self.requests.note(seen.uid, At(seen.at))) {
            return false;
        }
        for gone in &report.gone {
            if self.gone.len() >= MOST_GONE && !self.gone.contains_key(&gone.uid) {
                return false;
            }
            self.gone.insert(gone.uid, gone.state.clone());
        }
        if let Some(away) = &report.away {
            self.away.take(away, Instant::now());
        }
        let room = MOST_PLACES.saturating_sub(self.missed_keys.len());
        self.missed_keys.extend(report.missed_keys.iter().take(room).cloned());
        report.triggers.as_ref().is_none_or(|triggers| self.count(triggers))
    }

    fn count(&mut self, report: &TriggerReport) -> bool {
        if self.reporters.get(&report.from).is_some_and(|last| *last >= report.number) {
            return true;
        }
        if !self.triggers.has_room(report.tallies.len()) {
            return false;
        }
        if self.reporters.len() >= MOST_REPORTERS {
            self.reporters.clear();
        }
        self.reporters.insert(report.from, report.number);
        report.tallies.iter().all(|told| self.triggers.note(told.uid, told.tally))
    }
}

impl Desk {
    /// Takes a report; false if this process does not hold the Lease, or has no room.
    pub fn take(&self, report: &Report) -> bool {
        self.lock().as_mut().is_some_and(|books| books.take(report))
    }

    /// The JWK Sets of which keys were missed since it was asked last.
    pub fn take_missed_keys(&self) -> BTreeSet<String> {
        self.lock().as_mut().map(|books| std::mem::take(&mut books.missed_keys)).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Books>> {
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

/// Writes what is reported, for ever; to stop it, drop it.
pub async fn run(context: &Context, desk: &Desk) {
    let budget = Budget { interval: context.common.activity_interval, per_minute: context.options.activity_writes };
    *desk.lock() = Some(Books::new(budget, Instant::now()));
    let _open = Open(desk);
    let (mut totals, mut looked) = (tally::Totals::default(), Instant::now());
    loop {
        tokio::time::sleep(TICK).await;
        let now = Instant::now();
        if now.duration_since(looked) >= LOOK {
            looked = now;
            let shown = away::shown(context);
            let due = desk.lock().as_mut().map(|books| books.away.due(&shown, now));
            away::write(context, due.unwrap_or_default()).await;
        }
        let due = desk
            .lock()
            .as_mut()
            .map(|books| (books.requests.due(now), books.triggers.due(now), std::mem::take(&mut books.gone)));
        let Some((requests, triggers, gone)) = due else { continue };
        if !gone.is_empty() {
            tally::write_gone(context, &gone).await;
        }
        if !requests.is_empty() {
            write_requests(context, &requests).await;
        }
        if !triggers.is_empty() {
            for (uid, unwritten) in totals.write(context, triggers).await {
                if let Some(books) = desk.lock().as_mut() {
                    books.triggers.note(uid, unwritten);
                }
            }
        }
    }
}

async fn write_requests(context: &Context, due: &[(Uuid, At)]) {
    for (uid, at) in due {
        let Some(subscription) = context.subscriptions.by_uid(*uid) else { continue };
        let written = tokio::time::timeout(PATIENCE, write(context, &subscription, at.0)).await;
        if let Err(failure) = written.unwrap_or(Err(Failure::TooLong(PATIENCE))) {
            // The next request brings the next time.
            tracing::debug!(name = subscription.name_any(), %failure, "the last request's time was not written");
        }
    }
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
    use crate::api::{Seen, Told};

    fn open(desk: &Desk) -> Open<'_> {
        let budget = Budget { interval: Duration::from_secs(60), per_minute: 600 };
        *desk.lock() = Some(Books::new(budget, Instant::now()));
        Open(desk)
    }

    #[test]
    fn a_desk_is_open_only_while_somebody_works_at_it() {
        let report = Report { requests: vec![Seen { uid: Uuid::from_u128(1), at: 1 }], ..Report::default() };
        let desk = Desk::default();
        assert!(!desk.take(&report));
        let opened = open(&desk);
        assert!(desk.take(&report));
        drop(opened);
        assert!(!desk.take(&report));
    }

    #[test]
    fn what_is_reported_twice_is_counted_once() {
        let report = |from: u128, number: u64| {
            let tally = Tally { fired: 2, last_fired: 7, ..Tally::default() };
            let tallies = vec![Told { uid: Uuid::from_u128(1), tally }];
            let triggers = TriggerReport { from: Uuid::from_u128(from), number, tallies };
            let report = Report { triggers: Some(triggers), ..Report::default() };
            // As it comes over the wire.
            serde_json::from_value::<Report>(serde_json::to_value(report).unwrap()).unwrap()
        };
        let desk = Desk::default();
        let _open = open(&desk);
        for (from, number) in [(1, 1), (1, 1), (2, 1), (1, 2), (1, 1), (1, 2)] {
            assert!(desk.take(&report(from, number)));
        }
        let due = desk.lock().as_mut().unwrap().triggers.due(Instant::now());
        let tally = Tally { fired: 6, last_fired: 7, ..Tally::default() };
        assert_eq!(due, [(Uuid::from_u128(1), tally)]);
    }

    #[test]
    fn keys_that_are_missed_are_told_once() {
        let desk = Desk::default();
        let report = Report { missed_keys: vec!["https://a.example".to_owned(); 3], ..Report::default() };
        assert!(!desk.take(&report) && desk.take_missed_keys().is_empty());
        let _open = open(&desk);
        assert!(desk.take(&report));
        assert_eq!(desk.take_missed_keys().len(), 1);
        assert!(desk.take_missed_keys().is_empty());
    }

    #[test]
    fn reports_of_earlier_versions_are_read() {
        let old = serde_json::json!({"requests": [{"uid": Uuid::nil(), "at": 5}]});
        let report: Report = serde_json::from_value(old).unwrap();
        assert_eq!((report.requests.len(), report.triggers, report.gone.len()), (1, None, 0));
        assert!(report.missed_keys.is_empty());
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
