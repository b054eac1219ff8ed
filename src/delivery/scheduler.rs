//! When each delivery is attempted.

use super::queue::{Lane, Limits, Queue};
use super::sender::After;
use crate::ingress::now_millis;
use crate::spool::{DeliveryKey, PendingDelivery};
use futures::FutureExt;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

/// How long attempts under way may go on after the end was announced.
const GRACE: Duration = Duration::from_secs(10);
/// The clock may be set while something waits for it, so no wait is longer.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// When a delivery is taken up again that met a defect, in milliseconds.
const AFTER_DEFECT: u64 = 60_000;

/// What the scheduler decides over.
pub trait Attempts: Send + Sync + 'static {
    /// The workspace that a delivery belongs to; an empty one if its trigger is gone.
    fn workspace(&self, delivery: &PendingDelivery) -> Arc<str>;

    /// Makes one attempt.
    fn attempt(&self, delivery: PendingDelivery) -> impl Future<Output = After> + Send;

    /// Waits for a delivery that was dead and is to be tried again. Must be safe to cancel.
    fn requeued(&self) -> impl Future<Output = PendingDelivery> + Send;
}

/// A delivery in the order in which deliveries are due.
struct Due(PendingDelivery);

impl Due {
    fn rank(&self) -> (u64, u64, DeliveryKey) {
        (self.0.due_at, self.0.received_at, self.0.key)
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank().cmp(&other.rank())
    }
}

type Finished = (Lane, PendingDelivery, After);

/// See the module's documentation.
pub struct Scheduler<A> {
    attempts: Arc<A>,
    waiting: BinaryHeap<Reverse<Due>>,
    due: Queue<PendingDelivery>,
    /// Every delivery that is in `waiting`, in `due` or under way, and whether it came again meanwhile.
    known: HashMap<DeliveryKey, bool>,
    running: JoinSet<Finished>,
}

impl<A: Attempts> Scheduler<A> {
    /// A scheduler with nothing to do.
    pub fn new(attempts: Arc<A>, limits: Limits) -> Self {
        Self {
            attempts,
            waiting: BinaryHeap::new(),
            due: Queue::new(limits),
            known: HashMap::new(),
            running: JoinSet::new(),
        }
    }

    /// Takes a delivery. One that it has already is not attempted twice at the same time.
    pub fn add(&mut self, delivery: PendingDelivery) {
        match self.known.get_mut(&delivery.key) {
            Some(again) => *again = true,
            None => {
                self.known.insert(delivery.key, false);
                self.waiting.push(Reverse(Due(delivery)));
            }
        }
    }

    /// Runs until `shutdown`, then waits for the attempts under way.
    pub async fn run(mut self, mut deliveries: mpsc::Receiver<PendingDelivery>, shutdown: CancellationToken) {
        loop {
            let sleep = self.start_due();
            let attempts = self.attempts.clone();
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(finished) = self.running.join_next() => self.finish(finished),
                Some(delivery) = deliveries.recv() => {
                    self.add(delivery);
                    // Whatever else is there comes along, so that the order is that of their times.
                    while let Ok(delivery) = deliveries.try_recv() {
                        self.add(delivery);
                    }
                }
                delivery = attempts.requeued() => self.add(delivery),
                () = tokio::time::sleep(sleep) => {}
            }
        }
        self.stop().await;
    }

    /// Starts what is due and may start; gives the time until something else is due.
    fn start_due(&mut self) -> Duration {
        let now = now_millis();
        let mut sleep = LONGEST_SLEEP;
        while let Some(Reverse(next)) = self.waiting.peek() {
            if next.0.due_at > now {
                sleep = sleep.min(Duration::from_millis(next.0.due_at - now));
                break;
            }
            let Some(Reverse(Due(delivery))) = self.waiting.pop() else { break };
            let lane = Lane { workspace: self.attempts.workspace(&delivery), trigger: delivery.key.trigger };
            self.due.push(&lane, delivery);
        }
        while let Some((lane, delivery)) = self.due.start() {
            let attempts = self.attempts.clone();
            self.running.spawn(async move {
                let attempt = AssertUnwindSafe(attempts.attempt(delivery.clone())).catch_unwind();
                let after = attempt.await.unwrap_or_else(|_| {
                    error!(?delivery.key, "an attempt hit a defect; the panic was reported above");
                    let due_at = now_millis().saturating_add(AFTER_DEFECT);
                    After::Again(PendingDelivery { due_at, ..delivery.clone() })
                });
                (lane, delivery, after)
            });
        }
        sleep
    }

    fn finish(&mut self, finished: Result<Finished, tokio::task::JoinError>) {
        // Panics were caught inside, and nothing is aborted before the end.
        let Ok((lane, delivery, after)) = finished else { return };
        self.due.done(&lane);
        let again = self.known.remove(&delivery.key).unwrap_or_default();
        match after {
            After::Again(next) => self.add(next),
            // It was requeued between the moment at which the attempt saw its end and this one.
            After::Ended if again => self.add(PendingDelivery { due_at: now_millis(), ..delivery }),
            After::Ended => {}
        }
    }

    async fn stop(mut self) {
        if self.running.is_empty() {
            return;
        }
        info!(under_way = self.running.len(), "waiting for deliveries under way");
        let rest = async { while self.running.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, rest).await.is_err() {
            info!(under_way = self.running.len(), "deliveries were cut off; they are repeated after the next start");
            self.running.shutdown().await;
        }
    }
}
