//! Requests whose senders wait for a runner's answer. No clock, no I/O.
//!
//! A request enters before it is stored, because it may be matched before whoever stored it hears of that. Then the matcher
//! says from which deliveries an answer may come, and the sender what came of the first attempt of each. The first answer
//! wins; when none can come any more, that is told at once. Nobody asks twice: the one who waits holds the other end of a
//! channel, and what nobody waits for costs a look at a counter.

use crate::spool::DeliveryKey;
use bytes::Bytes;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;
use tokio::time::Instant;
use uuid::Uuid;

/// How many requests may wait at the same time.
#[derive(Clone, Copy, Debug)]
pub struct WaitingLimits {
    /// In all. Each keeps a connection open.
    pub total: usize,
    /// Of one Subscription, so that a slow runner of one tenant keeps nobody else from waiting.
    pub subscription: usize,
}

impl Default for WaitingLimits {
    fn default() -> Self {
        Self { total: 1024, subscription: 64 }
    }
}

/// How a runner's answer is written. There is no other way to hand one on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `application/json`
    Json,
    /// `text/plain`, in UTF-8.
    Text,
}

/// The answer of a runner, to be handed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunnerAnswer {
    /// Name of the trigger whose runner gave it.
    pub trigger: String,
    /// How it is written.
    pub format: Format,
    /// The body; UTF-8.
    pub body: Bytes,
}

/// Why there is no answer of a runner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// No trigger fired whose runner's answer is wished.
    NotFired,
    /// The runner of this trigger did not take the event at the first attempt.
    Failed(String),
    /// The runner of this trigger is left alone for a while, because it has not answered for some time.
    Resting(String),
    /// The runner of this trigger answered what cannot be handed on, for this reason.
    Unusable(String, &'static str),
    /// None came in time.
    TooLate,
    /// Too many requests wait already.
    Full,
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFired => f.write_str("no trigger fired whose runner answers"),
            Self::Failed(trigger) => {
                write!(f, "the runner of the trigger {trigger} did not take the event at the first attempt")
            }
            Self::Resting(trigger) => {
                write!(f, "the runner of the trigger {trigger} is left alone, because it did not answer for some time")
            }
            Self::Unusable(trigger, why) => write!(f, "what the runner of the trigger {trigger} answered {why}"),
            Self::TooLate => f.write_str("no runner answered in time"),
            Self::Full => f.write_str("too many requests wait for their runners' answers already"),
        }
    }
}

type Told = Result<RunnerAnswer, NoAnswer>;

/// The requests that wait. Clones are the same.
#[derive(Clone, Default)]
pub struct Waiting(Arc<Inner>);

#[derive(Default)]
struct Inner {
    limits: WaitingLimits,
    count: AtomicUsize,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    requests: HashMap<Uuid, Waiter>,
    subscriptions: HashMap<Uuid, usize>,
}

struct Waiter {
    subscription: Uuid,
    /// Gone once something was told.
    tell: Option<oneshot::Sender<Told>>,
    /// The deliveries whose answers may still come.
    open: Vec<DeliveryKey>,
}

impl Waiting {
    /// Room for as many.
    pub fn new(limits: WaitingLimits) -> Self {
        Self(Arc::new(Inner { limits, ..Inner::default() }))
    }

    /// Lets a request wait; nothing if there is no room, or if the same one waits already.
    pub fn enter(&self, request: Uuid, subscription: Uuid) -> Option<Ticket> {
        let (tell, told) = oneshot::channel();
        let mut table = self.table();
        let of_it = table.subscriptions.get(&subscription).copied().unwrap_or(0);
        let full = table.requests.len() >= self.0.limits.total || of_it >= self.0.limits.subscription;
        if full || table.requests.contains_key(&request) {
            return None;
        }
        table.subscriptions.insert(subscription, of_it + 1);
        table.requests.insert(request, Waiter { subscription, tell: Some(tell), open: Vec::new() });
        self.0.count.store(table.requests.len(), Ordering::Release);
        Some(Ticket { waiting: self.clone(), request, told })
    }

    /// Whether any request waits. If not, there is nobody to be told of anything.
    pub fn any(&self) -> bool {
        self.count() > 0
    }

    /// How many requests wait.
    pub fn count(&self) -> usize {
        self.0.count.load(Ordering::Acquire)
    }

    /// Says from which deliveries of a request an answer may come, before any of them begins.
    pub fn matched(&self, request: Uuid, open: Vec<DeliveryKey>) {
        if !self.any() {
            return;
        }
        let mut table = self.table();
        let Some(waiter) = table.requests.get_mut(&request) else { return };
        if open.is_empty() {
            waiter.tell(Err(NoAnswer::NotFired));
        }
        waiter.open = open;
    }

    /// Says what came of a delivery. Only the first thing that is said of each counts.
    pub fn ended(&self, delivery: &DeliveryKey, told: Told) {
        if !self.any() {
            return;
        }
        let mut table = self.table();
        let Some(waiter) = table.requests.get_mut(&delivery.request) else { return };
        let Some(place) = waiter.open.iter().position(|open| open == delivery) else { return };
        waiter.open.swap_remove(place);
        if told.is_ok() || waiter.open.is_empty() {
            waiter.tell(told);
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(&self, request: Uuid) {
        let mut table = self.table();
        let Some(waiter) = table.requests.remove(&request) else { return };
        if let Some(count) = table.subscriptions.get_mut(&waiter.subscription) {
            *count -= 1;
            if *count == 0 {
                table.subscriptions.remove(&waiter.subscription);
            }
        }
        self.0.count.store(table.requests.len(), Ordering::Release);
    }
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting").field("count", &self.0.count).finish_non_exhaustive()
    }
}

impl Waiter {
    fn tell(&mut self, told: Told) {
        if let Some(tell) = self.tell.take() {
            // Whoever waited may just have gone away.
            let _ = tell.send(told);
        }
    }
}

/// One request's place; given back when dropped, also if the sender goes away meanwhile.
#[derive(Debug)]
pub struct Ticket {
    waiting: Waiting,
    request: Uuid,
    told: oneshot::Receiver<Told>,
}

impl Ticket {
    /// Waits for an answer until this moment.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn wait(mut self, until: Instant) -> Told {
        match tokio::time::timeout_at(until, &mut self.told).await {
            Ok(Ok(told)) => told,
            // The place was lost, which only a defect could do.
            Ok(Err(_)) | Err(_) => Err(NoAnswer::TooLate),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.waiting.leave(self.request);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn id(n: u128) -> Uuid {
        Uuid::from_u128(n)
    }

    fn delivery(request: u128, trigger: u128) -> DeliveryKey {
        DeliveryKey { request: id(request), item: 0, trigger: id(trigger) }
    }

    fn answer(trigger: &str) -> RunnerAnswer {
        RunnerAnswer { trigger: trigger.to_owned(), format: Format::Text, body: Bytes::from_static(b"hello") }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(20)
    }

    fn failed(trigger: &str) -> Told {
        Err(NoAnswer::Failed(trigger.to_owned()))
    }

    #[tokio::test]
    async fn the_first_answer_wins_and_failures_are_waited_out() {
        let waiting = Waiting::default();
        let ticket = waiting.enter(id(1), id(9)).unwrap();
        waiting.matched(id(1), vec![delivery(1, 1), delivery(1, 2), delivery(1, 3)]);
        waiting.ended(&delivery(1, 1), failed("a"));
        // Twice the same, of one that is not waited for, and of another request: nothing of that counts.
        waiting.ended(&delivery(1, 1), Ok(answer("a")));
        waiting.ended(&delivery(1, 7), Ok(answer("g")));
        waiting.ended(&delivery(2, 2), Ok(answer("b")));
        waiting.ended(&delivery(1, 2), Ok(answer("b")));
        waiting.ended(&delivery(1, 3), Ok(answer("c")));
        assert_eq!(ticket.wait(soon()).await, Ok(answer("b")));
        assert!(!waiting.any());
    }

    #[tokio::test]
    async fn that_none_can_come_is_told_at_once() {
        let waiting = Waiting::default();
        // Whoever waited for that would not see the end of the test.
        let ever = Instant::now() + Duration::from_secs(3600);
        let ticket = waiting.enter(id(1), id(9)).unwrap();
        waiting.matched(id(1), vec![delivery(1, 1), delivery(1, 2)]);
        waiting.ended(&delivery(1, 1), failed("a"));
        waiting.ended(&delivery(1, 2), Err(NoAnswer::Resting("b".to_owned())));
        assert_eq!(ticket.wait(ever).await, Err(NoAnswer::Resting("b".to_owned())));
        let ticket = waiting.enter(id(2), id(9)).unwrap();
        waiting.matched(id(2), Vec::new());
        assert_eq!(ticket.wait(ever).await, Err(NoAnswer::NotFired));
    }

    #[tokio::test]
    async fn after_the_deadline_nobody_waits_any_more() {
        let waiting = Waiting::default();
        let ticket = waiting.enter(id(1), id(9)).unwrap();
        waiting.matched(id(1), vec![delivery(1, 1)]);
        let until = soon();
        assert_eq!(ticket.wait(until).await, Err(NoAnswer::TooLate));
        assert!(Instant::now() >= until);
        assert!(!waiting.any());
        waiting.ended(&delivery(1, 1), Ok(answer("a")));
        // What was told before it is asked for is there, also when the time is over.
        let ticket = waiting.enter(id(1), id(9)).unwrap();
        waiting.matched(id(1), vec![delivery(1, 1)]);
        waiting.ended(&delivery(1, 1), Ok(answer("a")));
        assert_eq!(ticket.wait(Instant::now()).await, Ok(answer("a")));
    }

    #[test]
    fn while_nobody_waits_no_lock_is_taken() {
        let waiting = Waiting::default();
        // With it taken here, whoever wanted it would wait for ever.
        let table = waiting.table();
        waiting.matched(id(1), vec![delivery(1, 1)]);
        waiting.ended(&delivery(1, 1), Ok(answer("a")));
        assert!(!waiting.any() && table.requests.is_empty());
    }

    #[test]
    fn places_are_bounded_and_given_back() {
        let waiting = Waiting::new(WaitingLimits { total: 3, subscription: 2 });
        let first = waiting.enter(id(1), id(9)).unwrap();
        assert!(waiting.enter(id(1), id(8)).is_none(), "the same request");
        let second = waiting.enter(id(2), id(9)).unwrap();
        assert!(waiting.enter(id(3), id(9)).is_none(), "of one Subscription");
        let other = waiting.enter(id(4), id(8)).unwrap();
        assert_eq!(waiting.count(), 3);
        assert!(waiting.enter(id(5), id(7)).is_none(), "in all");
        // The sender goes away: nothing is left of it, and an answer that comes now goes nowhere.
        waiting.matched(id(1), vec![delivery(1, 1)]);
        drop(first);
        waiting.ended(&delivery(1, 1), Ok(answer("a")));
        let again = waiting.enter(id(3), id(9)).unwrap();
        drop((second, other, again));
        let table = waiting.table();
        assert!(table.requests.is_empty() && table.subscriptions.is_empty() && !waiting.any());
    }
}
