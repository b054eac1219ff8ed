//! What is known without reading the disk: where every request's records lie, and where each of its
//! deliveries stands. The same changes, applied in the same order, make it from the log at start and
//! keep it up to date afterwards.

use std::{
    collections::{BTreeMap, BinaryHeap, HashMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use tracing::warn;
use uuid::Uuid;

use super::{
    Limits, Usage,
    books::{Account, Books, MIN_CHARGE},
    frame::{AnswerRecord, EndedRecord, ReplayRecord, RequeueRecord},
    record::{
        ATTEMPTS_KEPT, Answered, Delivery, DeliveryKey, DeliveryState, Entry, Matched, Next, PendingDelivery, Request,
        Status, Summary, cut,
    },
    segment::{Loc, Segment},
};

/// Longest reason that is kept, in bytes.
const REASON: usize = 512;

/// One delivery, without what can be read from disk.
#[derive(Debug)]
pub struct Line {
    pub item: u32,
    pub trigger: Uuid,
    pub state: DeliveryState,
    /// Where the records of its last attempts lie; older ones are in the request's base record.
    pub attempts: VecDeque<Loc>,
    /// Where the record of its last replay lies, if that is not in the base.
    pub replayed_at: Option<Loc>,
    /// Where the record lies that added it to the match, if one did and it is not in the base.
    pub added_at: Option<Loc>,
}

impl Line {
    fn new(item: u32, trigger: Uuid, state: DeliveryState) -> Self {
        Self { item, trigger, state, attempts: VecDeque::new(), replayed_at: None, added_at: None }
    }
}

/// One request, without what can be read from disk.
#[derive(Debug)]
pub struct Slot {
    account: Account,
    bytes: u64,
    /// The record with the request, and with all that had happened when it was written.
    pub base: Loc,
    /// The record of its match, if that is not in the base.
    pub matched_at: Option<Loc>,
    pub matched: bool,
    pub dead: Option<Box<str>>,
    /// See [`Entry::answered_after`].
    pub answered_after: Option<u32>,
    /// See [`Entry::answered`].
    pub answered: Option<Box<Answered>>,
    pub lines: Vec<Line>,
}

impl Slot {
    fn new(request: &Request, number: u64, base: Loc) -> Self {
        Self {
            account: Account {
                id: request.id,
                subscription: request.subscription,
                status: Status::Unmatched,
                charge: 0,
                number,
                received_at: request.received_at,
                since: request.received_at,
                touched: request.received_at,
            },
            bytes: 0,
            base,
            matched_at: None,
            matched: false,
            dead: None,
            answered_after: None,
            answered: None,
            lines: Vec::new(),
        }
    }

    fn moved(entry: Entry, base: Loc) -> (Self, Request) {
        let mut slot = Self::new(&entry.request, entry.number, base);
        (slot.account.since, slot.account.touched) = (entry.since, entry.touched);
        slot.matched = entry.matched.is_some();
        slot.dead = entry.dead.map(Into::into);
        slot.answered_after = entry.answered_after;
        slot.answered = entry.answered;
        let line = |d: Delivery| Line::new(d.key.item, d.key.trigger, d.state);
        slot.lines = entry.deliveries.into_iter().map(line).collect();
        (slot, entry.request)
    }

    /// Bytes of its records.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn status(&self) -> Status {
        self.account.status
    }

    pub fn subscription(&self) -> Uuid {
        self.account.subscription
    }

    pub fn account(&self) -> &Account {
        &self.account
    }

    pub fn number(&self) -> u64 {
        self.account.number
    }

    pub fn since(&self) -> u64 {
        self.account.since
    }

    pub fn touched(&self) -> u64 {
        self.account.touched
    }

    pub fn line(&mut self, key: &DeliveryKey) -> Option<&mut Line> {
        self.lines.iter_mut().find(|l| l.item == key.item && l.trigger == key.trigger)
    }

    fn key(&self, line: &Line) -> DeliveryKey {
        DeliveryKey { request: self.account.id, item: line.item, trigger: line.trigger }
    }

    /// Its deliveries that are waiting.
    pub fn pending(&self) -> impl Iterator<Item = PendingDelivery> {
        self.lines.iter().filter_map(|l| match l.state {
            DeliveryState::Pending { attempts, due_at } => Some(PendingDelivery {
                key: self.key(l),
                subscription: self.account.subscription,
                number: self.account.number,
                received_at: self.account.received_at,
                attempts,
                due_at,
            }),
            _ => None,
        })
    }

    fn count(&self, which: impl Fn(&DeliveryState) -> bool) -> u32 {
        self.lines.iter().filter(|l| which(&l.state)).count() as u32
    }

    /// Brings the account in line with the deliveries.
    fn settle(&mut self, bytes: u64, at: u64) {
        let pending = |s: &DeliveryState| matches!(s, DeliveryState::Pending { .. });
        let dead = |s: &DeliveryState| matches!(s, DeliveryState::Dead { .. });
        self.account.status = if self.lines.iter().any(|l| pending(&l.state)) {
            Status::Pending
        } else if self.dead.is_some() || self.lines.iter().any(|l| dead(&l.state)) {
            Status::Dead
        } else if self.matched {
            Status::Finished
        } else {
            Status::Unmatched
        };
        self.bytes += bytes;
        self.account.charge = self.bytes.max(MIN_CHARGE);
        self.account.touched = self.account.touched.max(at);
    }

    /// The delivery's full state with its base attempts, for [`super::reader`].
    pub fn delivery(&self, line: &Line) -> Delivery {
        Delivery { key: self.key(line), state: line.state.clone(), attempts: Vec::new(), replayed: None, added: None }
    }

    fn summary(&self) -> Summary {
        Summary {
            id: self.account.id,
            subscription: self.account.subscription,
            received_at: self.account.received_at,
            touched: self.account.touched,
            status: self.status(),
            bytes: self.bytes,
            delivered: self.count(|d| matches!(d, DeliveryState::Delivered { .. })),
            pending: self.count(|d| matches!(d, DeliveryState::Pending { .. })),
            dead: self.count(|d| matches!(d, DeliveryState::Dead { .. })),
        }
    }
}

/// A request that was just received.
#[derive(Debug)]
pub struct Received {
    pub request: Arc<Request>,
    /// Its place in the order of receipt.
    pub number: u64,
    /// When it began.
    pub begun: Instant,
}

/// A change that is on disk, or about to be.
#[derive(Debug)]
pub enum Change {
    /// A request that was just received; it waits for the matcher.
    New(Received),
    /// A request with all that happened to it, moved or read at start. Its body is not needed.
    Entry(Box<Entry>),
    Match(Uuid, Vec<(u32, Uuid)>, u64, Option<u32>),
    Attempt(DeliveryKey, u64, Next),
    Ended(EndedRecord),
    Requeue(RequeueRecord),
    Replay(ReplayRecord),
    Answer(AnswerRecord),
}

impl Change {
    /// The request that is changed.
    pub fn request(&self) -> Uuid {
        match self {
            Self::New(received) => received.request.id,
            Self::Entry(entry) => entry.request.id,
            Self::Match(request, ..) => *request,
            Self::Attempt(key, ..) => key.request,
            Self::Ended(ended) => ended.request,
            Self::Requeue(requeue) => requeue.request,
            Self::Replay(replay) => replay.request,
            Self::Answer(answer) => answer.request,
        }
    }

    /// The change that a match makes: every trigger without a mismatch becomes a delivery, unless it is only captured.
    pub fn matched(request: Uuid, m: &Matched, answered_after: Option<u32>) -> Self {
        let mut lines: Vec<_> = (m.events.iter().filter(|e| e.skipped.is_none()))
            .flat_map(|e| {
                let matching = e.triggers.iter().filter(|t| t.mismatch.is_none() && !t.captured);
                matching.map(|t| (e.item, t.uid))
            })
            .collect();
        lines.sort_unstable();
        lines.dedup();
        Self::Match(request, lines, m.at, answered_after)
    }
}

/// A segment that is in use.
#[derive(Debug)]
pub struct Part {
    pub segment: Arc<Segment>,
    pub size: u64,
    /// The requests whose base record was written here; some may since have gone or moved.
    pub homes: VecDeque<Uuid>,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Index {
    pub limits: Limits,
    pub slots: HashMap<Uuid, Slot>,
    pub books: Books,
    pub parts: BTreeMap<u64, Part>,
    /// Deliveries that a requeue made pending and that nobody has fetched yet.
    pub requeued: VecDeque<DeliveryKey>,
    pub usage: Usage,
    /// Whether changes come from the log, at start: then nothing is announced.
    pub replaying: bool,
}

impl Index {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            slots: HashMap::new(),
            books: Books::default(),
            parts: BTreeMap::new(),
            requeued: VecDeque::new(),
            usage: Usage::default(),
            replaying: true,
        }
    }

    /// Applies one change whose record lies at `loc`. What it refers to may be gone: then it has no
    /// effect.
    pub fn apply(&mut self, change: Change, loc: Loc) {
        let bytes = u64::from(loc.len);
        match change {
            Change::New(Received { request, number, begun }) => {
                let mut slot = Slot::new(&request, number, loc);
                slot.answered_after = Some(begun.elapsed().as_millis().try_into().unwrap_or(u32::MAX));
                self.insert(slot, &request);
                self.books.wait(request.subscription, request.id, Some(request));
            }
            Change::Entry(entry) => {
                let (slot, entry) = Slot::moved(*entry, loc);
                self.insert(slot, &entry);
            }
            Change::Match(id, lines, at, answered_after) => self.update(id, |slot| {
                slot.answered_after = slot.answered_after.or(answered_after);
                slot.matched = true;
                slot.matched_at = Some(loc);
                slot.dead = None;
                let state = DeliveryState::Pending { attempts: 0, due_at: at };
                // A second match can only follow one whose commit failed, so the last one counts.
                slot.lines = lines.into_iter().map(|(item, trigger)| Line::new(item, trigger, state.clone())).collect();
                (bytes, at)
            }),
            Change::Attempt(key, at, next) => self.update(key.request, |slot| {
                if let Some(line) = slot.line(&key) {
                    line.state = advance(&line.state, at, next);
                    line.attempts.push_back(loc);
                    if line.attempts.len() > ATTEMPTS_KEPT {
                        line.attempts.pop_front();
                    }
                }
                (bytes, at)
            }),
            Change::Ended(ended) => self.update(ended.request, |slot| {
                let reason = cut(&ended.reason, REASON);
                for line in &mut slot.lines {
                    if let DeliveryState::Pending { attempts, .. } = line.state {
                        line.state = DeliveryState::Dead { attempts, at: ended.at, reason: reason.to_owned() };
                    }
                }
                if !slot.matched {
                    slot.dead = Some(reason.into());
                }
                (bytes, ended.at)
            }),
            Change::Requeue(r) => self.requeue(&r, bytes),
            Change::Replay(r) => self.replay(&r, loc),
            Change::Answer(r) => self.update(r.request, |slot| {
                slot.answered = Some(Box::new(r.answered));
                (bytes, r.at)
            }),
        }
    }

    fn insert(&mut self, mut slot: Slot, request: &Request) {
        let (id, loc, subscription) = (slot.account.id, slot.base, slot.account.subscription);
        // A record of a request starts it afresh: it was moved, or it had been dropped before.
        self.remove(id);
        slot.settle(loc.len.into(), 0);
        self.books.name(subscription, &request.namespace, &request.name);
        self.books.add(&slot.account);
        if let Some(part) = self.parts.get_mut(&loc.segment) {
            part.homes.push_back(id);
        }
        self.slots.insert(id, slot);
        let most = (self.limits.max_bytes / MIN_CHARGE) as usize;
        while self.slots.len() > most
            && let Some(&(_, oldest)) = self.books.finished.first()
        {
            self.remove(oldest);
            self.usage.evicted += 1;
        }
        self.trim(subscription);
    }

    /// Forgets the oldest finished requests of a subscription that has more of them than it may.
    fn trim(&mut self, subscription: Uuid) {
        while let Some(id) = self.books.surplus_finished(&self.limits, subscription) {
            self.remove(id);
            self.usage.evicted += 1;
        }
    }

    fn update(&mut self, id: Uuid, change: impl FnOnce(&mut Slot) -> (u64, u64)) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        let before = slot.account;
        let (bytes, at) = change(slot);
        slot.settle(bytes, at);
        let after = slot.account;
        self.books.change(&before, &after);
        if after.status == Status::Dead {
            while let Some(id) = self.books.surplus_dead(&self.limits, after.subscription) {
                self.drop_dead(id);
            }
        }
        if after.status == Status::Finished {
            self.trim(after.subscription);
        }
    }

    fn drop_dead(&mut self, id: Uuid) {
        let Some(slot) = self.remove(id) else { return };
        self.usage.dead_dropped += 1;
        if !self.replaying {
            warn!(
                request = %id,
                subscription = %slot.account.subscription,
                received_at = slot.account.received_at,
                "dropped the oldest dead letter: dead letters fill their part of the spool"
            );
        }
    }

    fn requeue(&mut self, r: &RequeueRecord, bytes: u64) {
        let (mut again, mut waits) = (Vec::new(), None);
        self.update(r.request, |slot| {
            slot.account.since = r.at;
            for i in 0..slot.lines.len() {
                if matches!(slot.lines[i].state, DeliveryState::Dead { .. }) {
                    slot.lines[i].state = DeliveryState::Pending { attempts: 0, due_at: r.at };
                    again.push(slot.key(&slot.lines[i]));
                }
            }
            if slot.dead.take().is_some() {
                waits = Some(slot.account.subscription);
            }
            (bytes, r.at)
        });
        if !self.replaying {
            self.requeued.extend(again);
            if let Some(subscription) = waits {
                self.books.wait(subscription, r.request, None);
            }
        }
    }

    fn replay(&mut self, r: &ReplayRecord, loc: Loc) {
        let mut again = Vec::new();
        self.update(r.request, |slot| {
            slot.account.since = r.replayed.at;
            for wish in &r.lines {
                let key = DeliveryKey { request: r.request, item: wish.item, trigger: wish.trigger };
                let state = DeliveryState::Pending { attempts: 0, due_at: r.replayed.at };
                let line = match slot.lines.iter_mut().position(|l| l.item == wish.item && l.trigger == wish.trigger) {
                    Some(at) => &mut slot.lines[at],
                    None => {
                        slot.lines.push(Line::new(wish.item, wish.trigger, state.clone()));
                        slot.lines.last_mut().expect("just pushed")
                    }
                };
                line.state = state;
                line.replayed_at = Some(loc);
                if wish.added.is_some() {
                    line.added_at = Some(loc);
                }
                again.push(key);
            }
            (loc.len.into(), r.replayed.at)
        });
        if !self.replaying {
            self.requeued.extend(again);
        }
    }

    /// Forgets a request.
    pub fn remove(&mut self, id: Uuid) -> Option<Slot> {
        let slot = self.slots.remove(&id)?;
        self.books.remove(&slot.account);
        Some(slot)
    }

    /// The newest requests of a subscription before `before`.
    pub fn recent(&self, subscription: Uuid, before: Option<(u64, Uuid)>, limit: usize) -> Vec<Summary> {
        let Some(share) = self.books.shares.get(&subscription) else {
            return Vec::new();
        };
        let end = before.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let newest = share.log.range((std::ops::Bound::Unbounded, end)).rev();
        newest.take(limit).filter_map(|(_, id)| self.slots.get(id)).map(Slot::summary).collect()
    }

    /// The newest requests of several subscriptions before `before`.
    pub fn recent_of(&self, subscriptions: &[Uuid], before: Option<(u64, Uuid)>, limit: usize) -> Vec<Summary> {
        let end = before.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let mut logs: Vec<_> = subscriptions
            .iter()
            .filter_map(|s| self.books.shares.get(s))
            .map(|share| share.log.range((std::ops::Bound::Unbounded, end)).rev())
            .collect();
        // The next one of each, the newest on top.
        let mut heads: BinaryHeap<(&(u64, Uuid), usize)> =
            logs.iter_mut().enumerate().filter_map(|(i, log)| Some((log.next()?, i))).collect();
        let mut found = Vec::new();
        while found.len() < limit
            && let Some(((_, id), i)) = heads.pop()
        {
            found.extend(self.slots.get(id).map(Slot::summary));
            heads.extend(logs[i].next().map(|next| (next, i)));
        }
        found
    }

    /// Lets all requests that are not matched wait for the matcher, oldest first.
    pub fn announce_unmatched(&mut self) {
        self.replaying = false;
        let slots = self.slots.values();
        let mut all: Vec<Account> = slots.map(|s| s.account).filter(|a| a.status == Status::Unmatched).collect();
        all.sort_unstable_by_key(|a| (a.number, a.received_at, a.id));
        for a in all {
            self.books.wait(a.subscription, a.id, None);
        }
    }
}

/// The state that follows `from` after an attempt. A delivery that a runner took stays delivered; one
/// that ended while it was being tried stays dead, unless the runner took it.
fn advance(from: &DeliveryState, at: u64, next: Next) -> DeliveryState {
    use DeliveryState::{Dead, Delivered, Pending};
    let attempts = match from {
        Pending { attempts, .. } | Dead { attempts, .. } => attempts.saturating_add(1),
        Delivered { .. } => return from.clone(),
    };
    match (next, from) {
        (Next::Delivered, _) => Delivered { attempts, at },
        (_, Dead { at, reason, .. }) => Dead { attempts, at: *at, reason: reason.clone() },
        (Next::Retry { due_at }, _) => Pending { attempts, due_at },
        (Next::Dead { reason }, _) => Dead { attempts, at, reason: cut(&reason, REASON).to_owned() },
    }
}
