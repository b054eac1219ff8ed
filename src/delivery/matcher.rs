//! Takes accepted requests from the spool, matches them, and stores the match before anything is delivered.

use super::matching::match_request;
use crate::api::Tally;
use crate::ingress::{Waiting, now_millis};
use crate::routes::{Handle, Lookup, Route};
use crate::spool::{DeliveryKey, Matched, PendingDelivery, Request, Spool, SpoolError};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tracing::{debug, error, info, warn};
use uuid::Uuid;

/// Requests that are matched or stored at the same time; many share the cost of one write to disk. A request is taken when
/// a processor is free for it and no sooner: one that is taken cannot be overtaken by those whose turn comes first.
const TASKS: usize = 16;
/// When a failed use of the disk is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// Why a request is given up that meets a defect. It is not tried again by itself, because it would meet the same one.
const DEFECT: &str = "the request could not be held against the triggers because of a defect of Bellhop; \
    report the ingress' log, and replay the request when it is mended";

/// Holds a request against the triggers of its Subscription, at a time in Unix milliseconds.
pub type Matching = fn(&Route, &Request, u64) -> Matched;

/// Requests whose match is being stored and handed over, by Subscription and number: between the moment at which the
/// spool has the match and that at which the scheduler has its deliveries, nobody else knows of them.
#[derive(Debug, Default)]
pub struct Underway {
    numbers: Mutex<HashMap<Uuid, BTreeSet<u64>>>,
    moved: Notify,
}

impl Underway {
    /// Whether a request of the Subscription with a smaller number is among them.
    pub fn before(&self, subscription: Uuid, number: u64) -> bool {
        let numbers = self.lock();
        numbers.get(&subscription).and_then(BTreeSet::first).is_some_and(|first| *first < number)
    }

    /// Waits until one of them has been handed over, perhaps since the last time. Safe to cancel.
    pub async fn moved(&self) {
        self.moved.notified().await;
    }

    fn enter(self: &Arc<Self>, subscription: Uuid, number: u64) -> Passage {
        self.lock().entry(subscription).or_default().insert(number);
        Passage { underway: self.clone(), subscription, number }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, BTreeSet<u64>>> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request that is being handed over, until it is dropped.
struct Passage {
    underway: Arc<Underway>,
    subscription: Uuid,
    number: u64,
}

impl Drop for Passage {
    fn drop(&mut self) {
        let mut numbers = self.underway.lock();
        if let Some(of_it) = numbers.get_mut(&self.subscription) {
            of_it.remove(&self.number);
            if of_it.is_empty() {
                numbers.remove(&self.subscription);
            }
        }
        drop(numbers);
        self.underway.moved.notify_one();
    }
}

/// See the module's documentation. Clones are the same.
#[derive(Clone)]
pub struct Matcher {
    routes: Handle,
    spool: Spool,
    deliveries: mpsc::Sender<PendingDelivery>,
    underway: Arc<Underway>,
    matching: Matching,
    /// Bounds how many requests are held in memory as values, which take many times their size on the wire.
    processors: Arc<Semaphore>,
    /// The same for those that were parked: `processors` are held by whoever waits for a request.
    for_parked: Arc<Semaphore>,
    /// Requests of Subscriptions whose plugin is missing or invalid for now, by Subscription.
    parked: Arc<Mutex<HashMap<Uuid, Vec<Uuid>>>>,
    waiting: Waiting,
}

impl Matcher {
    /// A matcher that hands what follows from matches to `deliveries`, and notes in `underway` what is between the two.
    pub fn new(
        routes: Handle,
        spool: Spool,
        deliveries: mpsc::Sender<PendingDelivery>,
        underway: Arc<Underway>,
    ) -> Self {
        Self::with(match_request, routes, spool, deliveries, underway)
    }

    /// One that matches in this way.
    pub fn with(
        matching: Matching,
        routes: Handle,
        spool: Spool,
        deliveries: mpsc::Sender<PendingDelivery>,
        underway: Arc<Underway>,
    ) -> Self {
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        let processors = Arc::new(Semaphore::new(processors));
        let for_parked = Arc::new(Semaphore::new(1));
        let (parked, waiting) = (Arc::default(), Waiting::default());
        Self { routes, spool, deliveries, underway, matching, processors, for_parked, parked, waiting }
    }

    /// Tells these senders from which deliveries an answer may come.
    pub fn with_waiting(self, waiting: Waiting) -> Self {
        Self { waiting, ..self }
    }

    /// Matches for ever; to stop it, drop it. What was taken and not stored is matched after the next start.
    pub async fn run(self) {
        self.routes.synced().await;
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..TASKS {
            let matcher = self.clone();
            tasks.spawn(async move {
                while let Ok(processor) = matcher.processors.clone().acquire_owned().await {
                    let request = matcher.spool.next_unmatched().await;
                    matcher.take(request, processor).await;
                }
            });
        }
        let parked = self.clone();
        tasks.spawn(async move { parked.unpark().await });
        while tasks.join_next().await.is_some() {}
    }

    /// Handles a request in a task of its own, so that a defect costs that one, and neither the matcher nor the requests that
    /// wait behind it.
    async fn take(&self, request: Arc<Request>, processor: OwnedSemaphorePermit) {
        let (id, subscription, one) = (request.id, request.subscription, self.clone());
        if tokio::spawn(async move { one.handle(request, processor).await }).await.is_err() {
            self.give_up(id, subscription).await;
        }
    }

    /// Makes a request that has met a defect a dead letter, which people see and can replay, and lets others go on.
    async fn give_up(&self, id: Uuid, subscription: Uuid) {
        error!(request = %id, %subscription, "a request becomes a dead letter because of a defect; the panic was reported above");
        // Ordered triggers may wait for it: they look again when it leaves.
        let _passage = self.spool.number(id).map(|number| self.underway.enter(subscription, number));
        if let Err(error) = self.spool.give_up(id, DEFECT, now_millis()).await {
            error!(request = %id, %error, "and that could not be stored: it is matched again after the next start");
        }
    }

    async fn handle(&self, request: Arc<Request>, processor: OwnedSemaphorePermit) {
        let (id, subscription) = (request.id, request.subscription);
        let matched = match self.routes.by_uid(subscription) {
            Lookup::Served(route) => {
                let matching = self.matching;
                let work = move || matching(&route, &request, now_millis());
                match tokio::task::spawn_blocking(work).await {
                    Ok(matched) => matched,
                    // A match is history; one with nothing in it could not be replayed.
                    Err(_) => return self.give_up(id, subscription).await,
                }
            }
            Lookup::Waits { reason, .. } => {
                debug!(request = %id, %subscription, %reason, "a request waits for its plugin");
                self.parked().entry(subscription).or_default().push(id);
                // It may have come back in between, and been looked for in vain.
                if matches!(self.routes.by_uid(subscription), Lookup::Waits { .. }) {
                    return;
                }
                if !self.unparked(subscription, id) {
                    return; // Somebody else has taken it up.
                }
                return Box::pin(self.handle(request, processor)).await;
            }
            Lookup::Gone => {
                Matched { at: now_millis(), events: Vec::new(), note: Some("the Subscription is gone".to_owned()) }
            }
        };
        drop(processor);
        self.store(id, subscription, matched).await;
    }

    fn parked(&self) -> MutexGuard<'_, HashMap<Uuid, Vec<Uuid>>> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a parked request out; whether it was there.
    fn unparked(&self, subscription: Uuid, id: Uuid) -> bool {
        let mut parked = self.parked();
        let Some(waiting) = parked.get_mut(&subscription) else { return false };
        let place = waiting.iter().position(|waits| *waits == id);
        place.map(|place| waiting.remove(place)).is_some()
    }

    async fn store(&self, id: Uuid, subscription: Uuid, matched: Matched) {
        // Noted before the spool has the match, and until the scheduler has what follows from it.
        let _passage = self.spool.number(id).map(|number| self.underway.enter(subscription, number));
        if let Some(note) = &matched.note {
            debug!(request = %id, note, "nothing to deliver");
        }
        loop {
            match self.spool.store_match(id, matched.clone()).await {
                Ok(deliveries) => {
                    self.routes.tallies().add(tallies(&matched));
                    if self.waiting.any() {
                        self.waiting.matched(id, self.answering(&deliveries));
                    }
                    for delivery in deliveries {
                        // Fails only at the end; the spool keeps it for the next start.
                        let _ = self.deliveries.send(delivery).await;
                    }
                    return;
                }
                Err(SpoolError::Unknown { .. }) => {
                    debug!(request = %id, "a request left the spool before it was matched");
                    return;
                }
                Err(error) => {
                    warn!(request = %id, %error, "a match could not be stored; it is tried again");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    /// Those of the deliveries whose runner's answer is wished.
    fn answering(&self, deliveries: &[PendingDelivery]) -> Vec<DeliveryKey> {
        let wished = |key: &DeliveryKey| self.routes.trigger(key.trigger).is_some_and(|t| t.spec.delivery.answer);
        deliveries.iter().map(|delivery| delivery.key).filter(wished).collect()
    }

    /// Takes up parked requests when their Subscription is served again, or gone.
    async fn unpark(&self) {
        let mut changes = self.routes.changes();
        loop {
            let ready: Vec<Uuid> = {
                let mut parked = self.parked();
                let waits = |uid: &Uuid| matches!(self.routes.by_uid(*uid), Lookup::Waits { .. });
                let subscriptions: Vec<Uuid> = parked.keys().filter(|uid| !waits(uid)).copied().collect();
                subscriptions.iter().filter_map(|uid| parked.remove(uid)).flatten().collect()
            };
            if !ready.is_empty() {
                info!(requests = ready.len(), "requests that waited for their plugin are matched");
            }
            for id in ready {
                let Ok(processor) = self.for_parked.clone().acquire_owned().await else { return };
                let spool = self.spool.clone();
                match tokio::task::spawn_blocking(move || spool.entry(id)).await {
                    Ok(Ok(Some(entry))) if entry.matched.is_none() && entry.dead.is_none() => {
                        self.take(Arc::new(entry.request), processor).await;
                    }
                    Ok(Err(error)) => error!(request = %id, %error, "a request that waited cannot be read"),
                    _ => {}
                }
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}

/// What a match means for the counts of its triggers.
fn tallies(matched: &Matched) -> impl Iterator<Item = (Uuid, Tally)> {
    let outcomes = matched.events.iter().flat_map(|event| &event.triggers).filter(|outcome| !outcome.captured);
    outcomes.map(|outcome| {
        let tally = match outcome.mismatch {
            None => Tally { fired: 1, last_fired: matched.at, ..Tally::default() },
            Some(_) => Tally { filtered: 1, ..Tally::default() },
        };
        (outcome.uid, tally)
    })
}
