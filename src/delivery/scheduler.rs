//! When each delivery is attempted.

use super::circuit::{Admission, Change, Circuits, Health, Rules, Way};
use super::order::Lines;
use super::queue::{Lane, Limits, Queue};
use super::sender::After;
use crate::ingress::now_millis;
use crate::spool::{DeliveryKey, PendingDelivery};
use futures::FutureExt;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use uuid::Uuid;

/// How long attempts under way may go on after the end was announced.
const GRACE: Duration = Duration::from_secs(10);
/// The clock may be set while something waits for it, so no wait is longer.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// How often it is looked whether a trigger whose deliveries are held is ordered still.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// How often it is looked whether a trigger leads still to a runner that does not answer, in milliseconds.
const LOOK_AT_CIRCUITS: u64 = 60_000;
/// When a delivery is taken up again that met a defect, in milliseconds.
const AFTER_DEFECT: u64 = 60_000;

/// What the scheduler decides over.
pub trait Attempts: Send + Sync + 'static {
    /// The workspace that a delivery belongs to (an empty one if its trigger is gone), and the runner that it would go to.
    fn way(&self, delivery: &PendingDelivery) -> Way;

    /// Whether the deliveries of this trigger keep the order in which their requests were received.
    fn ordered(&self, trigger: Uuid) -> bool;

    /// Whether a request of the same Subscription, received earlier, may still become a delivery. What has become one when
    /// this says no is in the channel that [`Scheduler::run`] takes from.
    fn behind(&self, delivery: &PendingDelivery) -> bool;

    /// Whether anybody waits to be told of [`rests`](Self::rests).
    fn is_awaited(&self) -> bool {
        false
    }

    /// Is told that a new delivery has to wait, because its runner is left alone for a while.
    fn rests(&self, _delivery: &PendingDelivery) {}

    /// Waits until the answer of [`behind`](Self::behind) may have changed. Must be safe to cancel.
    fn moved(&self) -> impl Future<Output = ()> + Send;

    /// Waits until the answer of [`way`](Self::way) may have changed. Must be safe to cancel.
    fn rerouted(&self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }

    /// Makes one attempt, and says what follows from it, also for the runner.
    fn attempt(&self, delivery: PendingDelivery) -> impl Future<Output = (After, Health)> + Send;

    /// Waits for a delivery that was dead and is to be tried again. Must be safe to cancel.
    fn requeued(&self) -> impl Future<Output = PendingDelivery> + Send;

    /// Is told which circuits are open, and since when (Unix milliseconds): when that has changed, and from time to time.
    fn circuits(&self, open: &HashMap<Way, u64>);

    /// Those of these ways that no trigger's deliveries go any more.
    fn unused(&self, ways: HashSet<Way>) -> HashSet<Way>;

    /// The time, in Unix milliseconds.
    fn now(&self) -> u64 {
        now_millis()
    }

    /// Waits. Must be safe to cancel.
    fn sleep(&self, time: Duration) -> impl Future<Output = ()> + Send {
        tokio::time::sleep(time)
    }
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

type Finished = (Lane, PendingDelivery, After, Health);

/// See the module's documentation.
pub struct Scheduler<A> {
    attempts: Arc<A>,
    waiting: BinaryHeap<Reverse<Due>>,
    due: Queue<PendingDelivery>,
    /// Every delivery that is in `waiting`, held, in `due` or under way.
    lines: Lines,
    /// Ordered triggers of which a delivery may be able to start.
    stirred: HashSet<Uuid>,
    /// Ordered triggers whose next delivery waits for the match of an earlier request.
    behind: HashSet<Uuid>,
    circuits: Circuits,
    /// When it was last looked at the circuits, in Unix milliseconds.
    looked: u64,
    /// When runners that are left alone may be asked again.
    again: HashMap<Arc<str>, u64>,
    running: JoinSet<Finished>,
}

impl<A: Attempts> Scheduler<A> {
    /// A scheduler with nothing to do.
    pub fn new(attempts: Arc<A>, limits: Limits) -> Self {
        Self {
            looked: attempts.now(),
            attempts,
            waiting: BinaryHeap::new(),
            due: Queue::new(limits),
            lines: Lines::default(),
            stirred: HashSet::new(),
            behind: HashSet::new(),
            circuits: Circuits::new(Rules::default()),
            again: HashMap::new(),
            running: JoinSet::new(),
        }
    }

    /// Takes a delivery. One that it has already is not attempted twice at the same time.
    pub fn add(&mut self, delivery: PendingDelivery) {
        if self.lines.enter(&delivery) {
            self.waiting.push(Reverse(Due(delivery)));
        }
    }

    /// Runs until `shutdown`, then waits for the attempts under way.
    pub async fn run(mut self, mut deliveries: mpsc::Receiver<PendingDelivery>, shutdown: CancellationToken) {
        loop {
            let sleep = self.start_due(&mut deliveries);
            let attempts = self.attempts.clone();
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(finished) = self.running.join_next() => self.finish(finished),
                Some(delivery) = deliveries.recv() => {
                    self.add(delivery);
                    // Whatever else is there comes along, so that the order is that of their times.
                    self.drain(&mut deliveries);
                }
                delivery = attempts.requeued() => self.add(delivery),
                () = attempts.moved() => self.stirred.extend(self.behind.drain()),
                () = attempts.rerouted() => self.due.redirect(|delivery| attempts.way(delivery)),
                () = attempts.sleep(sleep) => self.stirred.extend(self.lines.holding()),
            }
        }
        self.stop().await;
    }

    fn drain(&mut self, deliveries: &mut mpsc::Receiver<PendingDelivery>) -> bool {
        let mut any = false;
        while let Ok(delivery) = deliveries.try_recv() {
            self.add(delivery);
            any = true;
        }
        any
    }

    /// Starts what is due and may start; gives the time until something else is due.
    fn start_due(&mut self, deliveries: &mut mpsc::Receiver<PendingDelivery>) -> Duration {
        let now = self.attempts.now();
        let mut sleep = loop {
            let sleep = self.take_due(now);
            let came = self.release(deliveries);
            if !came && self.stirred.is_empty() {
                break sleep;
            }
        };
        if !self.lines.holding().is_empty() {
            sleep = sleep.min(LOOK_AGAIN);
        }
        self.look_at_circuits(now);
        let reopened: Vec<Arc<str>> =
            self.again.iter().filter(|(_, at)| **at <= now).map(|(runner, _)| runner.clone()).collect();
        for runner in reopened {
            self.again.remove(&runner);
            self.due.reopen(&runner);
        }
        self.start(now);
        let next = self.again.values().map(|at| Duration::from_millis(at.saturating_sub(now).max(1))).min();
        sleep.min(next.unwrap_or(LONGEST_SLEEP))
    }

    /// Forgets circuits that nothing leads through any more: nothing would ever close them.
    fn look_at_circuits(&mut self, now: u64) {
        let ways = self.circuits.ways();
        if ways.is_empty() || now < self.looked.saturating_add(LOOK_AT_CIRCUITS) {
            return;
        }
        self.looked = now;
        let mut changed = false;
        for way in self.attempts.unused(ways) {
            if self.circuits.forget(&way) {
                changed = true;
                let Way { runner, workspace } = &way;
                info!(%workspace, %runner, "no trigger leads any more to a runner that did not answer");
                // What is left of deliveries ends now.
                self.due.reopen(runner);
            }
        }
        let open = self.circuits.open();
        // Triggers may have come that lead there, too.
        if changed || !open.is_empty() {
            self.attempts.circuits(&open);
        }
    }

    /// Takes what is due out of what waits.
    fn take_due(&mut self, now: u64) -> Duration {
        while let Some(Reverse(next)) = self.waiting.peek() {
            if next.0.due_at > now {
                return LONGEST_SLEEP.min(Duration::from_millis(next.0.due_at - now));
            }
            let Some(Reverse(Due(delivery))) = self.waiting.pop() else { break };
            if self.attempts.ordered(delivery.key.trigger) {
                self.stirred.insert(delivery.key.trigger);
                self.lines.hold(delivery);
            } else {
                self.let_go(delivery);
            }
        }
        LONGEST_SLEEP
    }

    /// Lets go what may go of the triggers that were stirred; says whether deliveries came meanwhile.
    fn release(&mut self, deliveries: &mut mpsc::Receiver<PendingDelivery>) -> bool {
        let mut came = false;
        for trigger in std::mem::take(&mut self.stirred) {
            if !self.attempts.ordered(trigger) {
                while let Some(delivery) = self.lines.take_any(trigger) {
                    self.let_go(delivery);
                }
                continue;
            }
            let Some(head) = self.lines.head(trigger) else { continue };
            if self.attempts.behind(head) {
                self.behind.insert(trigger);
                continue;
            }
            // What an earlier request has become by now is in the channel, and takes its place before this one.
            came |= self.drain(deliveries);
            if let Some(delivery) = self.lines.take_head(trigger) {
                self.let_go(delivery);
            }
        }
        came
    }

    fn let_go(&mut self, delivery: PendingDelivery) {
        self.lines.start(&delivery);
        let lane = self.lane(&delivery);
        self.due.push(&lane, delivery);
    }

    /// The line that a delivery waits in from now on.
    fn lane(&self, delivery: &PendingDelivery) -> Lane {
        let lane = Lane { way: self.attempts.way(delivery), trigger: delivery.key.trigger };
        if delivery.attempts == 0 && self.circuits.is_open(&lane.way, self.attempts.now()) {
            self.attempts.rests(delivery);
        }
        lane
    }

    /// Takes the next delivery that may start.
    fn next(&mut self, now: u64) -> Option<(Lane, PendingDelivery)> {
        let (circuits, again) = (&mut self.circuits, &mut self.again);
        self.due.start(|way| match circuits.admit(way, now) {
            Admission::Go => true,
            Admission::Until(at) => {
                let known = again.entry(way.runner.clone()).or_insert(at);
                *known = at.min(*known);
                false
            }
            Admission::AfterProbe => false,
        })
    }

    fn start(&mut self, now: u64) {
        while let Some((lane, delivery)) = self.next(now) {
            if self.attempts.way(&delivery) != lane.way {
                // The attempt would go to another runner than the one that was asked about.
                let other = self.lane(&delivery);
                self.due.put_back(&lane, &other, delivery);
                self.judge(&lane.way, Health::Unknown);
                continue;
            }
            let attempts = self.attempts.clone();
            self.running.spawn(async move {
                let attempt = AssertUnwindSafe(attempts.attempt(delivery.clone())).catch_unwind();
                let (after, health) = attempt.await.unwrap_or_else(|_| {
                    error!(?delivery.key, "an attempt hit a defect; the panic was reported above");
                    let due_at = attempts.now().saturating_add(AFTER_DEFECT);
                    (After::Again(PendingDelivery { due_at, ..delivery.clone() }), Health::Unknown)
                });
                (lane, delivery, after, health)
            });
        }
    }

    fn finish(&mut self, finished: Result<Finished, tokio::task::JoinError>) {
        // Panics were caught inside, and nothing is aborted before the end.
        let Ok((lane, delivery, after, health)) = finished else { return };
        self.due.done(&lane);
        // Where the trigger has another runner by now, it is not known which of them was called.
        let was_sent_there = self.attempts.way(&delivery) == lane.way;
        self.judge(&lane.way, if was_sent_there { health } else { Health::Unknown });
        let again = self.lines.end(&delivery);
        self.stirred.insert(delivery.key.trigger);
        match after {
            After::Again(next) => self.add(next),
            // It was requeued between the moment at which the attempt saw its end and this one.
            After::Ended if again => self.add(PendingDelivery { due_at: self.attempts.now(), ..delivery }),
            After::Ended => {}
        }
    }

    /// What an attempt's end means for its runner's circuit.
    fn judge(&mut self, way: &Way, health: Health) {
        let change = self.circuits.ended(way, health, self.attempts.now());
        let Way { runner, workspace } = way;
        match change {
            Some(Change::Opened { until, anew }) => {
                let seconds = until.saturating_sub(self.attempts.now()) / 1000;
                if anew {
                    self.tell_who_waits(way);
                    warn!(%workspace, %runner, seconds, "a runner does not answer; its deliveries wait");
                } else {
                    info!(%workspace, %runner, seconds, "a runner does not answer yet");
                }
                let known = self.again.entry(runner.clone()).or_insert(until);
                *known = until.min(*known);
            }
            Some(Change::Closed) => info!(%workspace, %runner, "a runner answers again"),
            // A probe may have called nobody.
            None if health != Health::Unknown => return,
            None => {}
        }
        if !matches!(change, Some(Change::Opened { .. })) {
            self.due.reopen(runner);
        }
        if change.is_some() {
            self.attempts.circuits(&self.circuits.open());
        }
    }

    /// Tells of those that were about to be attempted for the first time when their runner began to be left alone.
    fn tell_who_waits(&self, way: &Way) {
        if !self.attempts.is_awaited() {
            return;
        }
        // All of a trigger go the same way.
        let leads_there = |delivery: Option<&PendingDelivery>| delivery.is_some_and(|it| self.attempts.way(it) == *way);
        let held = self.lines.held().filter(|held| leads_there(held.clone().next())).flatten();
        let new = self.due.waiting(way).chain(held).filter(|delivery| delivery.attempts == 0);
        new.for_each(|delivery| self.attempts.rests(delivery));
    }

    async fn stop(mut self) {
        if self.running.is_empty() {
            return;
        }
        info!(under_way = self.running.len(), "waiting for deliveries under way");
        let is_over = tokio::select! {
            () = async { while self.running.join_next().await.is_some() {} } => false,
            () = self.attempts.sleep(GRACE) => true,
        };
        if is_over {
            info!(under_way = self.running.len(), "deliveries were cut off; they are repeated after the next start");
            self.running.shutdown().await;
        }
    }
}
