//! The one thread that changes the spool. It takes whatever has been asked since the last commit,
//! decides on it, writes all of it, makes it durable with one call, applies it to the index, and
//! only then answers.

use std::{
    collections::{HashMap, HashSet},
    io,
    sync::Arc,
};

use tokio::sync::{mpsc, oneshot};
use tracing::{error, info};
use uuid::Uuid;

use super::{
    AppendError, Appended, PendingDelivery, Shared, SpoolError,
    books::MIN_CHARGE,
    files::Files,
    frame::{AnswerRecord, EndedRecord, Frame, Kind, ReplayRecord, RequeueRecord},
    index::{Change, Index, Part, Received},
    record::{Changed, DeliveryKey, DeliveryState},
};

/// Most operations in one commit.
const BATCH: usize = 256;
/// Most bytes in one commit, roughly.
const BATCH_BYTES: u64 = 8 << 20;

type Answer<T, E> = oneshot::Sender<Result<T, E>>;

/// What is asked of the writer. Records are encoded by whoever asks, so that this thread need not.
pub enum Op {
    Append(Received, Frame, Answer<Appended, AppendError>),
    Match(Change, Uuid, Frame, Answer<Vec<PendingDelivery>, SpoolError>),
    /// An attempt.
    Attempt(Change, super::DeliveryKey, Frame, Answer<(), SpoolError>),
    Requeue(RequeueRecord, Answer<bool, SpoolError>),
    Replay(ReplayRecord, Answer<Vec<DeliveryKey>, SpoolError>),
    End(EndedRecord, Answer<(), SpoolError>),
    /// Nobody waits for this one.
    Answered(AnswerRecord),
    Sweep(u64, Answer<(), SpoolError>),
}

/// An answer that waits for the commit.
enum Reply {
    Append(Answer<Appended, AppendError>, Appended),
    Match(Answer<Vec<PendingDelivery>, SpoolError>, Uuid),
    Attempt(Answer<(), SpoolError>),
    Requeue(Answer<bool, SpoolError>),
    Replay(Answer<Vec<DeliveryKey>, SpoolError>, Vec<DeliveryKey>),
}

/// One commit in the making.
#[derive(Default)]
pub struct Batch {
    pub frames: Vec<Frame>,
    changes: Vec<Change>,
    replies: Vec<Reply>,
    pub bytes: u64,
    /// Requests that are being moved, and the segment that they leave.
    pub moving: Vec<(u64, Uuid)>,
    appended: HashSet<Uuid>,
    matched: HashSet<Uuid>,
    ahead: HashMap<Uuid, u64>,
    ahead_all: u64,
}

impl Batch {
    pub fn push(&mut self, frame: Frame, change: Change) {
        self.bytes += frame.len();
        self.frames.push(frame);
        self.changes.push(change);
    }
}

/// See the module's documentation.
pub struct Writer {
    pub shared: Arc<Shared>,
    pub files: Files,
    failing: bool,
}

impl Writer {
    pub fn new(shared: Arc<Shared>, files: Files) -> Self {
        Self { shared, files, failing: false }
    }

    /// Works until every sender is gone.
    pub fn run(mut self, mut ops: mpsc::Receiver<Op>) {
        let mut taken = Vec::with_capacity(BATCH);
        let most = BATCH_BYTES.min(self.shared.limits.segment_size());
        while ops.blocking_recv_many(&mut taken, BATCH) > 0 {
            let mut batch = self.begin();
            for op in taken.drain(..) {
                if let Op::Sweep(now, answer) = op {
                    self.commit(batch);
                    let _ = answer.send(self.sweep(now));
                    batch = self.begin();
                    continue;
                }
                batch.plan(op, &self.shared.index());
                if batch.bytes >= most {
                    self.commit(batch);
                    batch = self.begin();
                }
            }
            self.commit(batch);
        }
    }

    fn begin(&mut self) -> Batch {
        let mut batch = Batch::default();
        self.make_room(&mut batch);
        batch
    }

    /// Writes a batch, applies it and answers. Returns what failed.
    pub fn commit(&mut self, batch: Batch) -> Option<Arc<io::Error>> {
        let failed = if batch.frames.is_empty() {
            None
        } else {
            let size = self.shared.limits.segment_size();
            match self.files.write(&batch.frames, size) {
                Ok(written) => {
                    self.apply(batch.changes, written);
                    None
                }
                Err(e) => {
                    self.put_back(&batch.moving);
                    Some(Arc::new(e))
                }
            }
        };
        if let Some(e) = &failed {
            if !self.failing {
                error!(error = %e, "the disk of the spool fails: requests are refused until it works");
            }
            self.failing = true;
        } else if self.failing && !batch.frames.is_empty() {
            info!("the disk of the spool works again");
            self.failing = false;
        }
        for reply in batch.replies {
            reply.send(failed.clone(), &self.shared);
        }
        failed
    }

    fn apply(&mut self, changes: Vec<Change>, written: super::files::Written) {
        let mut index = self.shared.index();
        for (segment, size) in written.begun {
            let part = Part { segment: segment.clone(), size, homes: Default::default() };
            index.parts.insert(segment.sequence, part);
        }
        index.usage.commits += 1;
        index.usage.records += changes.len() as u64;
        // Moved requests are as they were. Without a reader, the writer does not lose time with this.
        let watched = self.shared.changes.receiver_count() > 0;
        for (change, loc) in changes.into_iter().zip(written.locs) {
            let told = (watched && !matches!(change, Change::Entry(_))).then(|| change.request());
            index.apply(change, loc);
            if let Some(request) = told
                && let Some(slot) = index.slots.get(&request)
            {
                // Fails only if the last reader went away just now.
                let _ = self.shared.changes.send(Changed { request, subscription: slot.subscription() });
            }
        }
        self.files.release(&mut index);
        drop(index);
        self.shared.waiting.notify_waiters();
    }

    /// Makes what is undelivered and too old dead letters, and forgets what ended long ago.
    fn sweep(&mut self, now: u64) -> Result<(), SpoolError> {
        let limits = self.shared.limits.clone();
        let expires = now.saturating_sub(limits.max_age.as_millis() as u64);
        let minutes = limits.max_age.as_secs() / 60;
        let reason = match minutes {
            0..120 => format!("not delivered within {minutes} minutes"),
            _ => format!("not delivered within {} hours", minutes / 60),
        };
        loop {
            let expired: Vec<Uuid> = {
                let index = self.shared.index();
                let end = (expires, Uuid::nil());
                index.books.open.range(..end).map(|o| o.1).take(BATCH).collect()
            };
            if expired.is_empty() {
                break;
            }
            let mut batch = self.begin();
            for request in expired {
                batch.end(EndedRecord { request, at: now, reason: reason.clone() });
            }
            if let Some(e) = self.commit(batch) {
                return Err(SpoolError::Failed(e));
            }
        }
        let mut index = self.shared.index();
        let end = (limits.oldest(now), Uuid::nil());
        let shares = index.books.shares.values();
        let mut old: Vec<Uuid> = (shares.flat_map(|s| s.dead.range(..end))).map(|d| d.1).collect();
        old.extend(index.books.finished.range(..end).map(|f| f.1));
        for id in old {
            index.remove(id);
        }
        self.files.reclaim_empty(&mut index);
        drop(index);
        self.files.trim(limits.max_bytes / 8);
        Ok(())
    }
}

impl Batch {
    fn plan(&mut self, op: Op, index: &Index) {
        match op {
            Op::Append(received, frame, answer) => self.append(received, frame, answer, index),
            Op::Match(change, id, frame, answer) => match index.slots.get(&id) {
                None => drop(answer.send(Err(SpoolError::Unknown { request: id }))),
                Some(slot) => {
                    // A match that is already stored is history and stays.
                    if !slot.matched && self.matched.insert(id) {
                        self.push(frame, change);
                    }
                    self.replies.push(Reply::Match(answer, id));
                }
            },
            Op::Attempt(change, key, frame, answer) => {
                let known = index.slots.get(&key.request).is_some_and(|s| {
                    let mut lines = s.lines.iter();
                    lines.any(|l| l.item == key.item && l.trigger == key.trigger)
                });
                if !known {
                    let request = key.request;
                    return drop(answer.send(Err(SpoolError::Unknown { request })));
                }
                self.push(frame, change);
                self.replies.push(Reply::Attempt(answer));
            }
            Op::Requeue(record, answer) => match index.slots.get(&record.request) {
                None => {
                    let request = record.request;
                    drop(answer.send(Err(SpoolError::Unknown { request })));
                }
                Some(slot) if !has_dead(slot) => drop(answer.send(Ok(false))),
                Some(_) => {
                    self.requeue(record);
                    self.replies.push(Reply::Requeue(answer));
                }
            },
            Op::Replay(record, answer) => self.replay(record, answer, index),
            Op::End(record, answer) => {
                self.end(record);
                self.replies.push(Reply::Attempt(answer));
            }
            Op::Answered(record) => {
                // The request is durable before it is answered; by now it may be forgotten.
                if index.slots.contains_key(&record.request) {
                    let frame = Frame::new(Kind::Answer, &record);
                    self.push(frame, Change::Answer(record));
                }
            }
            Op::Sweep(..) => unreachable!("the caller handles it between two batches"),
        }
    }

    fn append(&mut self, received: Received, frame: Frame, answer: Answer<Appended, AppendError>, index: &Index) {
        let request = &received.request;
        let id = request.id;
        if self.appended.contains(&id) {
            // Of what this one repeats, nothing is durable yet either.
            return self.replies.push(Reply::Append(answer, Appended::Duplicate));
        }
        if let Some(slot) = index.slots.get(&id) {
            if !has_dead(slot) {
                return drop(answer.send(Ok(Appended::Duplicate)));
            }
            self.appended.insert(id);
            self.requeue(RequeueRecord { request: id, at: request.received_at });
            return self.replies.push(Reply::Append(answer, Appended::Requeued));
        }
        let charge = frame.len().max(MIN_CHARGE);
        let own = self.ahead.entry(request.subscription).or_default();
        let ahead = (*own, self.ahead_all);
        if let Err(e) = index.books.admit(&index.limits, request, charge, ahead) {
            return drop(answer.send(Err(e)));
        }
        *own += charge;
        self.ahead_all += charge;
        self.appended.insert(id);
        self.push(frame, Change::New(received));
        self.replies.push(Reply::Append(answer, Appended::Stored));
    }

    /// What is pending meanwhile is left out.
    fn replay(&mut self, mut record: ReplayRecord, answer: Answer<Vec<DeliveryKey>, SpoolError>, index: &Index) {
        let request = record.request;
        let Some(slot) = index.slots.get(&request) else {
            return drop(answer.send(Err(SpoolError::Unknown { request })));
        };
        let pending: HashSet<DeliveryKey> = slot.pending().map(|p| p.key).collect();
        let key = |item, trigger| DeliveryKey { request, item, trigger };
        record.lines.retain(|line| !pending.contains(&key(line.item, line.trigger)));
        if record.lines.is_empty() {
            return drop(answer.send(Ok(Vec::new())));
        }
        let keys = record.lines.iter().map(|line| key(line.item, line.trigger)).collect();
        let frame = Frame::new(Kind::Replay, &record);
        // What is finished makes room for others, and must not take it back from them without being asked for.
        let own = self.ahead.entry(slot.subscription()).or_default();
        match index.books.readmit(&index.limits, slot.account(), frame.len(), (*own, self.ahead_all)) {
            Ok(charge) => {
                *own += charge;
                self.ahead_all += charge;
            }
            Err(e) => return drop(answer.send(Err(SpoolError::NoRoom(e)))),
        }
        self.push(frame, Change::Replay(record));
        self.replies.push(Reply::Replay(answer, keys));
    }

    fn requeue(&mut self, record: RequeueRecord) {
        let frame = Frame::new(Kind::Requeue, &record);
        self.push(frame, Change::Requeue(record));
    }

    fn end(&mut self, record: EndedRecord) {
        let frame = Frame::new(Kind::Ended, &record);
        self.push(frame, Change::Ended(record));
    }
}

fn has_dead(slot: &super::index::Slot) -> bool {
    let dead = |s: &DeliveryState| matches!(s, DeliveryState::Dead { .. });
    slot.dead.is_some() || slot.lines.iter().any(|l| dead(&l.state))
}

impl Reply {
    fn send(self, failed: Option<Arc<io::Error>>, shared: &Shared) {
        // Whoever asked may have gone away; what was written stays written.
        match self {
            Self::Append(answer, done) => {
                let _ = answer.send(failed.map_or(Ok(done), |e| Err(AppendError::Failed(e))));
            }
            Self::Match(answer, id) => {
                let _ = answer.send(match failed {
                    Some(e) => Err(SpoolError::Failed(e)),
                    None => {
                        let index = shared.index();
                        let slot = index.slots.get(&id);
                        Ok(slot.map(|s| s.pending().collect()).unwrap_or_default())
                    }
                });
            }
            Self::Attempt(answer) => {
                let _ = answer.send(failed.map_or(Ok(()), |e| Err(SpoolError::Failed(e))));
            }
            Self::Requeue(answer) => {
                let _ = answer.send(failed.map_or(Ok(true), |e| Err(SpoolError::Failed(e))));
            }
            Self::Replay(answer, keys) => {
                let _ = answer.send(failed.map_or(Ok(keys), |e| Err(SpoolError::Failed(e))));
            }
        }
    }
}
