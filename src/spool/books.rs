//! Who holds how much: counts and bytes of every subscription, whether there is room for another
//! request, whose turn it is to be matched, and in what order things age.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use uuid::Uuid;

use super::{AppendError, Limits, Request, Status};

/// The least that a request counts for, whatever its size: bounds how many requests there can be,
/// and with them the memory of the index.
pub const MIN_CHARGE: u64 = 4096;
/// How many bytes of requests that wait for the matcher are kept in memory; the others are read
/// from disk when it is their turn.
const FRESH_BYTES: usize = 16 << 20;

/// What decides where a request is booked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    pub id: Uuid,
    pub subscription: Uuid,
    pub status: Status,
    pub charge: u64,
    /// Its number in the order of receipt.
    pub number: u64,
    pub received_at: u64,
    pub since: u64,
    pub touched: u64,
}

/// Counts and bytes by status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    count: [u64; 4],
    bytes: [u64; 4],
}

impl Totals {
    /// Requests with this status.
    pub fn count(&self, s: Status) -> u64 {
        self.count[s as usize]
    }

    /// What requests with this status are charged.
    pub fn bytes(&self, s: Status) -> u64 {
        self.bytes[s as usize]
    }

    /// What counts towards the limits: everything but finished requests, which make room.
    pub fn held(&self) -> u64 {
        self.bytes(Status::Unmatched) + self.bytes(Status::Pending) + self.bytes(Status::Dead)
    }

    fn add(&mut self, a: &Account) {
        self.count[a.status as usize] += 1;
        self.bytes[a.status as usize] += a.charge;
    }

    fn take(&mut self, a: &Account) {
        self.count[a.status as usize] -= 1;
        self.bytes[a.status as usize] -= a.charge;
    }
}

/// A request that waits for the matcher, with its content as long as that fits in memory.
type Waiting = (Uuid, Option<Arc<Request>>);

/// One subscription's part.
#[derive(Debug, Default)]
pub struct Share {
    pub totals: Totals,
    /// All its requests by time of receipt.
    pub log: BTreeSet<(u64, Uuid)>,
    /// Its dead letters by the time at which they ended.
    pub dead: BTreeSet<(u64, Uuid)>,
    /// Its finished requests by the time at which they finished.
    finished: BTreeSet<(u64, Uuid)>,
    /// What the subscription is called, and in which namespace.
    called: Option<(Arc<str>, Box<str>)>,
    /// Its requests without a match, by their number.
    unmatched: BTreeSet<(u64, Uuid)>,
    waiting: VecDeque<Waiting>,
}

/// The books of all subscriptions.
#[derive(Debug, Default)]
pub struct Books {
    pub totals: Totals,
    pub shares: HashMap<Uuid, Share>,
    /// Undelivered requests by the time from which their age counts.
    pub open: BTreeSet<(u64, Uuid)>,
    /// Finished requests by the time at which they finished.
    pub finished: BTreeSet<(u64, Uuid)>,
    /// Subscriptions that hold something, by their namespace.
    namespaces: HashMap<Arc<str>, BTreeSet<Uuid>>,
    /// Namespaces with requests that wait for the matcher, in the order of their turns.
    turns: VecDeque<Arc<str>>,
    /// Their subscriptions with such requests, in the order of theirs.
    turns_within: HashMap<Arc<str>, VecDeque<Uuid>>,
    fresh: usize,
}

impl Books {
    /// Books a request in.
    pub fn add(&mut self, a: &Account) {
        self.totals.add(a);
        let share = self.shares.entry(a.subscription).or_default();
        share.totals.add(a);
        share.log.insert((a.received_at, a.id));
        if a.status == Status::Unmatched {
            share.unmatched.insert((a.number, a.id));
        }
        match a.status {
            Status::Unmatched | Status::Pending => self.open.insert((a.since, a.id)),
            Status::Dead => share.dead.insert((a.touched, a.id)),
            Status::Finished => share.finished.insert((a.touched, a.id)) && self.finished.insert((a.touched, a.id)),
        };
    }

    /// Notes what a subscription is called that is about to get a request.
    pub fn name(&mut self, subscription: Uuid, namespace: &str, name: &str) {
        let share = self.shares.entry(subscription).or_default();
        if share.called.is_some() {
            return;
        }
        let namespace: Arc<str> = match self.namespaces.get_key_value(namespace) {
            Some((known, _)) => known.clone(),
            None => namespace.into(),
        };
        share.called = Some((namespace.clone(), name.into()));
        self.namespaces.entry(namespace).or_default().insert(subscription);
    }

    /// The subscriptions of a namespace, or of all, that hold something, with their names.
    pub fn of_namespace(&self, namespace: Option<&str>) -> Vec<(Uuid, String)> {
        let all: Vec<&Uuid> = match namespace {
            Some(namespace) => self.namespaces.get(namespace).into_iter().flatten().collect(),
            None => self.namespaces.values().flatten().collect(),
        };
        let name = |share: &Share| share.called.as_ref().map(|called| called.1.to_string()).unwrap_or_default();
        all.into_iter().filter_map(|id| Some((*id, name(self.shares.get(id)?)))).collect()
    }

    /// The namespace of a subscription that holds something.
    pub fn namespace(&self, subscription: Uuid) -> Option<Arc<str>> {
        self.shares.get(&subscription)?.called.as_ref().map(|called| called.0.clone())
    }

    fn forget(&mut self, subscription: Uuid) {
        let Some((namespace, _)) = self.shares.remove(&subscription).and_then(|share| share.called) else { return };
        let Some(others) = self.namespaces.get_mut(&namespace) else { return };
        others.remove(&subscription);
        if others.is_empty() {
            self.namespaces.remove(&namespace);
        }
    }

    /// Books a request out.
    pub fn remove(&mut self, a: &Account) {
        self.take(a);
        let Some(share) = self.shares.get_mut(&a.subscription) else {
            return;
        };
        share.log.remove(&(a.received_at, a.id));
        if share.log.is_empty() && share.waiting.is_empty() {
            self.forget(a.subscription);
        }
    }

    /// Rebooks a request that changed. Its subscription and time of receipt never do.
    pub fn change(&mut self, from: &Account, to: &Account) {
        if from != to {
            self.take(from);
            self.add(to);
        }
    }

    fn take(&mut self, a: &Account) {
        self.totals.take(a);
        let Some(share) = self.shares.get_mut(&a.subscription) else {
            return;
        };
        share.totals.take(a);
        if a.status == Status::Unmatched {
            share.unmatched.remove(&(a.number, a.id));
        }
        match a.status {
            Status::Unmatched | Status::Pending => self.open.remove(&(a.since, a.id)),
            Status::Dead => share.dead.remove(&(a.touched, a.id)),
            Status::Finished => share.finished.remove(&(a.touched, a.id)) && self.finished.remove(&(a.touched, a.id)),
        };
    }

    /// Whether a request that is charged `charge` may come in, when `ahead_own` and `ahead_all`
    /// bytes are already on their way in for its subscription and for all.
    ///
    /// A subscription may hold at most its limit, and at most as much as is still free. The second
    /// rule leaves room for the others: a single flood fills half of the spool, two floods a third
    /// each, and a subscription that holds nothing is refused last.
    pub fn admit(&self, limits: &Limits, request: &Request, charge: u64, ahead: (u64, u64)) -> Result<(), AppendError> {
        let called = (request.namespace.as_str(), request.name.as_str());
        self.fits(limits, request.subscription, called, charge, ahead)
    }

    /// Whether a request that is here may count among what is undelivered (again), with `bytes` of records more: by the
    /// same rules, and only for what it adds to that.
    pub fn readmit(
        &self,
        limits: &Limits,
        account: &Account,
        bytes: u64,
        ahead: (u64, u64),
    ) -> Result<u64, AppendError> {
        let charge = match account.status {
            Status::Finished => account.charge + bytes,
            Status::Unmatched | Status::Pending | Status::Dead => bytes,
        };
        let called = self.shares.get(&account.subscription).and_then(|share| share.called.as_ref());
        let called = called.map_or(("", ""), |(namespace, name)| (&**namespace, &**name));
        self.fits(limits, account.subscription, called, charge, ahead).map(|()| charge)
    }

    fn fits(
        &self,
        limits: &Limits,
        subscription: Uuid,
        (namespace, name): (&str, &str),
        charge: u64,
        (ahead_own, ahead_all): (u64, u64),
    ) -> Result<(), AppendError> {
        let most = limits.max_bytes_per_subscription.min(limits.max_undelivered());
        if charge > most {
            return Err(AppendError::TooLarge { bytes: charge, limit: most });
        }
        let held = self.totals.held() + ahead_all;
        let free = limits.max_undelivered().saturating_sub(held);
        let own = self.shares.get(&subscription).map_or(0, |s| s.totals.held()) + ahead_own;
        if charge > free {
            return Err(AppendError::Full { held, limit: limits.max_undelivered() });
        }
        // The first request of a subscription fits wherever there is room at all.
        let fair = if own == 0 { u64::MAX } else { free };
        let limit = limits.max_bytes_per_subscription.min(fair);
        if own + charge > limit {
            let (namespace, name) = (namespace.to_owned(), name.to_owned());
            return Err(AppendError::SubscriptionFull { namespace, name, held: own, limit });
        }
        Ok(())
    }

    /// The dead letter to drop, if dead letters hold more than they may: the oldest of
    /// `subscription` if that one's hold more than half of its limit, else the oldest of whoever
    /// holds most, if they hold more than half of the room of all. The newest dead letter of a
    /// subscription always stays.
    pub fn surplus_dead(&self, limits: &Limits, subscription: Uuid) -> Option<Uuid> {
        let oldest = |s: &Share| (s.dead.len() > 1).then(|| s.dead.first().map(|d| d.1)).flatten();
        let dead = |s: &Share| s.totals.bytes(Status::Dead);
        if let Some(s) = self.shares.get(&subscription)
            && dead(s) > limits.max_bytes_per_subscription / 2
            && let Some(id) = oldest(s)
        {
            return Some(id);
        }
        if self.totals.bytes(Status::Dead) <= limits.max_undelivered() / 2 {
            return None;
        }
        oldest(self.shares.values().max_by_key(|s| dead(s))?)
    }

    /// The finished request of `subscription` to forget, if it has more of them than it may: the one that finished first.
    /// The newest one always stays.
    pub fn surplus_finished(&self, limits: &Limits, subscription: Uuid) -> Option<Uuid> {
        let share = self.shares.get(&subscription)?;
        let surplus = share.finished.len() > limits.max_finished_per_subscription
            || share.totals.bytes(Status::Finished) > limits.max_finished_bytes_per_subscription;
        (surplus && share.finished.len() > 1).then(|| share.finished.first().map(|f| f.1)).flatten()
    }

    /// Whether a request of the subscription that was received before `number` has no match yet.
    pub fn unmatched_before(&self, subscription: Uuid, number: u64) -> bool {
        let share = self.shares.get(&subscription);
        share.and_then(|share| share.unmatched.first()).is_some_and(|(first, _)| *first < number)
    }

    /// Lets a request wait for the matcher.
    pub fn wait(&mut self, subscription: Uuid, id: Uuid, content: Option<Arc<Request>>) {
        let content = content.filter(|r| self.fresh + r.body.len() <= FRESH_BYTES);
        self.fresh += content.as_ref().map_or(0, |r| r.body.len());
        let share = self.shares.entry(subscription).or_default();
        if share.waiting.is_empty() {
            let namespace = share.called.as_ref().map(|called| called.0.clone()).unwrap_or_default();
            let within = self.turns_within.entry(namespace.clone()).or_default();
            if within.is_empty() {
                self.turns.push_back(namespace);
            }
            within.push_back(subscription);
        }
        share.waiting.push_back((id, content));
    }

    /// The next request for the matcher: each namespace in turn, and in it each subscription.
    pub fn next_waiting(&mut self) -> Option<Waiting> {
        let namespace = self.turns.pop_front()?;
        let within = self.turns_within.get_mut(&namespace)?;
        let subscription = within.pop_front()?;
        let share = self.shares.get_mut(&subscription)?;
        let next = share.waiting.pop_front()?;
        let is_done = share.waiting.is_empty();
        if !is_done {
            within.push_back(subscription);
        }
        if within.is_empty() {
            self.turns_within.remove(&namespace);
        } else {
            self.turns.push_back(namespace);
        }
        if is_done && self.shares.get(&subscription).is_some_and(|share| share.log.is_empty()) {
            self.forget(subscription);
        }
        self.fresh -= next.1.as_ref().map_or(0, |r| r.body.len());
        Some(next)
    }
}
