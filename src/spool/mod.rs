//! What makes a 2xx true: requests are here, durable, before they are answered, and stay here with
//! their matches and deliveries until nothing is left to be done and for a while after that.
//!
//! The engine is a log of segment files on a local disk. One thread writes it (`writer`): it takes
//! everything that was asked since its last commit, appends it, makes it durable with a single
//! `fdatasync`, and only then answers, so that many requests share the cost of one. An index in
//! memory says where each request's records lie and where each delivery stands; bodies stay on disk.
//! The index is rebuilt from the log at start.
//!
//! Segments are filled one after the other and freed oldest first (`room`): what is finished there
//! is forgotten, what is not is moved to the end of the log. This order is what makes the log safe
//! without tombstones: the records of a request lie in the segment of its base record or in later
//! ones, so that whenever the base record is found again, everything that followed it is found too.
//!
//! Limits are per subscription as well as for all, so that one flood, or one runner that does not
//! answer, leaves room for the others; see [`Limits`].
//!
//! Times are Unix milliseconds that the caller passes in. Nothing here looks at a clock, but for how long a request took.

mod books;
mod error;
mod files;
mod frame;
mod index;
mod limits;
mod reader;
mod record;
mod recovery;
mod room;
mod segment;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use tokio::{
    sync::{Notify, broadcast, mpsc, oneshot},
    task::spawn_blocking,
};
use tracing::error;
use uuid::Uuid;

pub use self::{
    error::{AppendError, OpenError, SpoolError},
    limits::{Limits, SubscriptionUsage, Usage},
    record::{
        ANSWER_KEPT, ATTEMPTS_KEPT, Answered, Appended, Attempt, Changed, Delivery, DeliveryEvent, DeliveryKey,
        DeliveryState, Entry, EventOutcome, Matched, Next, PendingDelivery, ReplayLine, Replayed, Request, SentBy,
        Status, Summary, TriggerOutcome,
    },
};
use self::{
    frame::{AnswerRecord, AttemptRecord, EndedRecord, Frame, Kind, MatchRecord, ReplayRecord, RequeueRecord},
    index::{Change, Index, Received},
    writer::{Op, Writer},
};

/// Most operations that wait for the writer; whoever comes then waits to be let in.
const QUEUE: usize = 1024;
/// Changes that a reader of the log may be behind.
const CHANGES: usize = 4096;
/// Longest name of a user that is kept, in bytes.
const USER: usize = 256;

/// What the writer and the readers share.
struct Shared {
    limits: Limits,
    index: Mutex<Index>,
    /// The number of the newest request.
    number: AtomicU64,
    /// Something may wait for the matcher or for delivery.
    waiting: Notify,
    /// Tells readers of the log what changed.
    changes: broadcast::Sender<Changed>,
}

impl Shared {
    fn index(&self) -> MutexGuard<'_, Index> {
        // A panic elsewhere must not stop the readers: the log, not the index, is the truth.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The spool. Clones are the same spool; it is closed when the last one is dropped, after everything
/// that was asked of it has been written.
#[derive(Clone)]
pub struct Spool {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    ops: Option<mpsc::Sender<Op>>,
    writer: Option<thread::JoinHandle<()>>,
    #[cfg(test)]
    fault: Arc<Mutex<Option<tests::Fault>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Without a sender the writer finishes what it was asked; with it goes the lock.
        self.ops = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

/// A disk that does nothing as long as this is kept.
#[cfg(test)]
pub struct Stall<'a> {
    _fault: MutexGuard<'a, Option<tests::Fault>>,
}

impl Spool {
    /// Opens the spool in the directory `dir`, which is made if it is missing, and reads all of it.
    /// Blocks meanwhile. Damage is logged with its position, counted in [`Usage`], and skipped.
    ///
    /// # Errors
    /// If another process has it open, if a newer version wrote it, if the limits make no sense, or
    /// if the disk fails.
    pub fn open(dir: &Path, limits: Limits) -> Result<Self, OpenError> {
        let (index, files) = recovery::open(dir, limits.clone())?;
        let newest = index.slots.values().map(|s| s.number()).max().unwrap_or(0);
        let shared = Arc::new(Shared {
            limits,
            index: Mutex::new(index),
            number: AtomicU64::new(newest),
            waiting: Notify::new(),
            changes: broadcast::Sender::new(CHANGES),
        });
        #[cfg(test)]
        let fault = files.fault.clone();
        let (ops, taken) = mpsc::channel(QUEUE);
        let writer = Writer::new(shared.clone(), files);
        let writer = thread::Builder::new()
            .name("spool-writer".to_owned())
            .spawn(move || writer.run(taken))
            .map_err(|e| OpenError::io(dir, e))?;
        let inner = Inner {
            shared,
            ops: Some(ops),
            writer: Some(writer),
            #[cfg(test)]
            fault,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// When the oldest finished requests that are still kept at `now` may have ended; both in Unix milliseconds.
    pub fn oldest(&self, now: u64) -> u64 {
        self.inner.shared.limits.oldest(now)
    }

    /// Lets the disk stand still: what is asked to be written waits.
    #[cfg(test)]
    pub fn stall(&self) -> Stall<'_> {
        Stall { _fault: self.inner.fault.lock().unwrap_or_else(PoisonError::into_inner) }
    }

    /// Stores a verified request. Returns only when it is durable, or when what it repeats is. A
    /// request whose predecessor has dead letters makes those pending again; they then come out of
    /// [`Self::requeued`] (or of [`Self::next_unmatched`], if it had never been matched).
    ///
    /// # Errors
    /// If there is no room for it, or if the disk fails. Nothing was promised then, and the sender
    /// must be told so: [`AppendError::TooLarge`] with status 413, the others with 503.
    pub async fn append(&self, request: Request) -> Result<Appended, AppendError> {
        self.append_begun(request, Instant::now()).await
    }

    /// The same, for a request that began at `begun`: the log then says how long it took until it was durable.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub async fn append_begun(&self, request: Request, begun: Instant) -> Result<Appended, AppendError> {
        let request = Arc::new(request);
        let number = self.inner.shared.number.fetch_add(1, Ordering::Relaxed) + 1;
        let frame = Frame::request(&request, number);
        if frame.len() > u64::from(u32::MAX) {
            return Err(AppendError::TooLarge { bytes: frame.len(), limit: u32::MAX.into() });
        }
        let received = Received { request, number, begun };
        self.ask(|answer| Op::Append(received, frame, answer)).await.unwrap_or(Err(AppendError::Stopped))
    }

    /// Notes at `now` how the sender of a request was answered, if not at once and as usual. It is for the log alone, so
    /// nobody waits for the disk, and it is left out if the writer has more to do than it can.
    pub fn note_answer(&self, request: Uuid, answered: Answered, now: u64) {
        if let Some(ops) = &self.inner.ops {
            let _ = ops.try_send(Op::Answered(AnswerRecord { request, at: now, answered }));
        }
    }

    /// Waits for a request that is to be matched. Each is handed out once in the life of the process,
    /// and again after a restart, until its match is stored. Subscriptions take turns, so that one
    /// that is flooded holds up no other. Safe to cancel; many may wait at the same time.
    ///
    /// A request whose record turns out to be damaged becomes a dead letter and is not handed out.
    pub async fn next_unmatched(&self) -> Arc<Request> {
        loop {
            let waiting = self.wait_for(|i| {
                loop {
                    let (id, content) = i.books.next_waiting()?;
                    let slot = i.slots.get(&id);
                    if slot.is_some_and(|s| s.status() == Status::Unmatched) {
                        return Some((id, content));
                    }
                }
            });
            let (id, content) = waiting.await;
            if let Some(request) = content {
                return request;
            }
            // If the caller goes away while the disk is read, somebody else must get the request.
            let mut guard = HandBack(self, Some(id));
            let shared = self.inner.shared.clone();
            let read = spawn_blocking(move || reader::load(&shared, id)).await;
            guard.1 = None;
            match read {
                Ok(Ok(Some(entry))) => return Arc::new(entry.request),
                Ok(Ok(None)) => {}
                Ok(Err(e @ SpoolError::Damaged { .. })) => {
                    error!(request = %id, error = %e, "a stored request cannot be matched");
                    let at = self.inner.shared.index().slots.get(&id).map(|s| s.touched());
                    if let Err(e) = self.give_up(id, &e.to_string(), at.unwrap_or(0)).await {
                        error!(request = %id, error = %e, "that it cannot be matched was not stored");
                    }
                }
                other => {
                    error!(request = %id, error = ?other.err(), "cannot read a stored request; it is tried again");
                    self.hand_back(id);
                    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                }
            }
        }
    }

    /// Stores what a request matched, durably, and returns the deliveries that follow from it. The
    /// first match of a request is history: a later one is ignored, and what is still pending from
    /// the first one is returned.
    ///
    /// # Errors
    /// If the request is not in the spool, or if the disk fails; then it may be tried again.
    pub async fn store_match(&self, request: Uuid, matched: Matched) -> Result<Vec<PendingDelivery>, SpoolError> {
        let answered_after = self.inner.shared.index().slots.get(&request).and_then(|slot| slot.answered_after);
        let record = MatchRecord { request, matched, answered_after };
        let frame = Frame::new(Kind::Match, &record);
        let change = Change::matched(request, &record.matched, answered_after);
        self.ask(|answer| Op::Match(change, request, frame, answer)).await.unwrap_or(Err(SpoolError::Stopped))
    }

    /// Every delivery that is neither delivered nor dead, in no order: where delivery starts from.
    pub fn pending(&self) -> Vec<PendingDelivery> {
        let index = self.inner.shared.index();
        index.slots.values().flat_map(|s| s.pending()).collect()
    }

    /// Whether the delivery waits still: it is in the spool, and neither delivered nor dead. Does not read the disk.
    pub fn is_pending(&self, key: &DeliveryKey) -> bool {
        let index = self.inner.shared.index();
        index.slots.get(&key.request).is_some_and(|slot| slot.pending().any(|pending| pending.key == *key))
    }

    /// Makes a request that has no match a dead letter, durably, for this reason; whatever of it is pending, too. One that is
    /// not in the spool needs nothing.
    ///
    /// # Errors
    /// If the disk fails.
    pub async fn give_up(&self, request: Uuid, reason: &str, now: u64) -> Result<(), SpoolError> {
        let end = EndedRecord { request, at: now, reason: reason.to_owned() };
        self.ask(|answer| Op::End(end, answer)).await.unwrap_or(Err(SpoolError::Stopped))
    }

    /// Whether a request of the subscription that was received before the one with this number waits for its match still.
    pub fn unmatched_before(&self, subscription: Uuid, number: u64) -> bool {
        self.inner.shared.index().books.unmatched_before(subscription, number)
    }

    /// The number of a request in the order of receipt; `None` if it is not in the spool.
    pub fn number(&self, request: Uuid) -> Option<u64> {
        self.inner.shared.index().slots.get(&request).map(|s| s.number())
    }

    /// Waits for a delivery that was dead and is pending again. Each is handed out once. Safe to
    /// cancel.
    pub async fn requeued(&self) -> PendingDelivery {
        self.wait_for(|i| {
            loop {
                let key = i.requeued.pop_front()?;
                let slot = i.slots.get(&key.request);
                if let Some(p) = slot.and_then(|s| s.pending().find(|p| p.key == key)) {
                    return Some(p);
                }
            }
        })
        .await
    }

    /// Stores an attempt and what follows from it, durably. A delivery that a runner took stays
    /// delivered whatever comes later; one that became a dead letter during the attempt stays dead
    /// unless the runner took it.
    ///
    /// # Errors
    /// If the delivery is not in the spool, or if the disk fails; then it may be tried again.
    pub async fn record_attempt(&self, key: DeliveryKey, attempt: Attempt, next: Next) -> Result<(), SpoolError> {
        let record = AttemptRecord { key, attempt, next };
        let frame = Frame::new(Kind::Attempt, &record);
        let change = Change::Attempt(key, record.attempt.at, record.next);
        self.ask(|answer| Op::Attempt(change, key, frame, answer)).await.unwrap_or(Err(SpoolError::Stopped))
    }

    /// Makes whatever of a request is dead pending again, as from `now`; `false` if nothing was.
    ///
    /// # Errors
    /// If the request is not in the spool, or if the disk fails.
    pub async fn requeue(&self, request: Uuid, now: u64) -> Result<bool, SpoolError> {
        let record = RequeueRecord { request, at: now };
        self.ask(|answer| Op::Requeue(record, answer)).await.unwrap_or(Err(SpoolError::Stopped))
    }

    /// At the wish of the user `by`, makes deliveries of a request pending, as from `now`, whether a runner took them,
    /// they were given up, or there was none of them. They come out of [`Self::requeued`] with the ids that they had
    /// before. Gives those that it made pending; what is pending already is left as it is. The match stays as it was.
    ///
    /// # Errors
    /// If the request is not in the spool, if there is no room for it among what is undelivered (by the rules for new
    /// requests), or if the disk fails.
    pub async fn replay(
        &self,
        request: Uuid,
        lines: Vec<ReplayLine>,
        by: Option<&str>,
        now: u64,
    ) -> Result<Vec<DeliveryKey>, SpoolError> {
        let by = by.map(|by| record::cut(by, USER).to_owned());
        let record = ReplayRecord { request, replayed: Replayed { at: now, by }, lines };
        self.ask(|answer| Op::Replay(record, answer)).await.unwrap_or(Err(SpoolError::Stopped))
    }

    /// What changes from now on. A reader that falls behind by more than some thousand changes is told so.
    pub fn changes(&self) -> broadcast::Receiver<Changed> {
        self.inner.shared.changes.subscribe()
    }

    /// Everything that is known about a request; `None` if it is not in the spool. Reads the disk.
    ///
    /// # Errors
    /// If the disk fails, or what is on it is damaged.
    pub fn entry(&self, request: Uuid) -> Result<Option<Entry>, SpoolError> {
        reader::load(&self.inner.shared, request)
    }

    /// What one delivery needs; `None` if it is not in the spool. Reads the disk.
    ///
    /// # Errors
    /// If the disk fails, or what is on it is damaged.
    pub fn event(&self, key: &DeliveryKey) -> Result<Option<DeliveryEvent>, SpoolError> {
        let Some(entry) = self.entry(key.request)? else {
            return Ok(None);
        };
        let mut deliveries = entry.deliveries.into_iter();
        let Some(delivery) = deliveries.find(|d| d.key == *key) else {
            return Ok(None);
        };
        let mut events = entry.matched.map_or(Vec::new(), |m| m.events).into_iter();
        let Some(event) = events.find(|e| e.item == key.item) else {
            return Ok(None);
        };
        let matched = event.triggers.iter().find(|t| t.uid == key.trigger);
        // One that was added later, by a replay, is not part of the match.
        let trigger = delivery.added.as_ref().or(matched).cloned();
        Ok(trigger.map(|trigger| DeliveryEvent { request: entry.request, event, trigger, delivery }))
    }

    /// The requests of a subscription, newest first, at most `limit`. `before` is the time of receipt
    /// and the id of the last one that the reader has seen. Does not read the disk.
    pub fn recent(&self, subscription: Uuid, before: Option<(u64, Uuid)>, limit: usize) -> Vec<Summary> {
        let index = self.inner.shared.index();
        index.recent(subscription, before, limit)
    }

    /// The same of several subscriptions together.
    pub fn recent_of(&self, subscriptions: &[Uuid], before: Option<(u64, Uuid)>, limit: usize) -> Vec<Summary> {
        self.inner.shared.index().recent_of(subscriptions, before, limit)
    }

    /// The subscriptions of a namespace, or of all, of which there are requests, with their names; those that were deleted since
    /// are among them. Does not read the disk.
    pub fn subscriptions(&self, namespace: Option<&str>) -> Vec<(Uuid, String)> {
        self.inner.shared.index().books.of_namespace(namespace)
    }

    /// The namespace of a subscription; `None` if there are no requests of it.
    pub fn namespace(&self, subscription: Uuid) -> Option<Arc<str>> {
        self.inner.shared.index().books.namespace(subscription)
    }

    /// To be called every minute or so with the time. What is undelivered and older than
    /// [`Limits::max_age`] becomes dead letters, what ended longer than [`Limits::retention`] ago is
    /// forgotten, and disk space is given back.
    ///
    /// # Errors
    /// If the disk fails; the next sweep does what this one could not.
    pub async fn sweep(&self, now: u64) -> Result<(), SpoolError> {
        self.ask(|answer| Op::Sweep(now, answer)).await.unwrap_or(Err(SpoolError::Stopped))
    }

    /// How full the spool is.
    pub fn usage(&self) -> Usage {
        Usage::of(&self.inner.shared.index())
    }

    /// How much one subscription holds; all zero if it holds nothing.
    pub fn subscription_usage(&self, subscription: Uuid) -> SubscriptionUsage {
        let index = self.inner.shared.index();
        let share = index.books.shares.get(&subscription);
        share.map(|s| (&s.totals).into()).unwrap_or_default()
    }

    /// `None` if the writer has stopped, which only a defect can make it do.
    async fn ask<T>(&self, op: impl FnOnce(oneshot::Sender<T>) -> Op) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let ops = self.inner.ops.as_ref()?;
        ops.send(op(answer)).await.ok()?;
        answered.await.ok()
    }

    async fn wait_for<T>(&self, mut take: impl FnMut(&mut Index) -> Option<T>) -> T {
        loop {
            let notified = self.inner.shared.waiting.notified();
            tokio::pin!(notified);
            // Enabled before looking, so that what comes between the two is not missed.
            notified.as_mut().enable();
            if let Some(found) = take(&mut self.inner.shared.index()) {
                return found;
            }
            notified.await;
        }
    }

    fn hand_back(&self, request: Uuid) {
        let mut index = self.inner.shared.index();
        if let Some(subscription) = index.slots.get(&request).map(|s| s.subscription()) {
            index.books.wait(subscription, request, None);
        }
        drop(index);
        self.inner.shared.waiting.notify_waiters();
    }
}

/// Hands a request back when it is dropped with one.
struct HandBack<'a>(&'a Spool, Option<Uuid>);

impl Drop for HandBack<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.1 {
            self.0.hand_back(id);
        }
    }
}
