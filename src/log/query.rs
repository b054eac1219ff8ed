//! Finding requests of a namespace, newest first.

use super::Log;
use super::convert::{About, stored};
use super::mask::Mask;
use super::model::{Outcome, Page, Request, Version};
use crate::spool::{SpoolError, Status, Summary};
use serde::Deserialize;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use uuid::Uuid;

/// What is asked for in place of a namespace if all are meant. No namespace is called so.
pub const ALL: &str = "-";
/// Requests of a page, if the question does not say how many.
const USUAL: usize = 100;
/// Most requests of a page.
const MOST: usize = 500;
/// Stored requests that are taken from the index at once.
const BATCH: usize = 200;
/// Stored requests that are looked at for one page; the next page goes on from there.
const LOOKED_AT: usize = 20_000;
/// Stored requests that are read from disk for one page, …
const READ: usize = 2000;
/// … and bytes of them.
const READ_BYTES: u64 = 64 << 20;

/// Which requests of a namespace are wanted. What is left out does not matter.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Question {
    /// Name of the Subscription.
    pub subscription: Option<String>,
    /// What became of them.
    pub outcome: Option<Outcome>,
    /// Name of an event that they carry.
    pub event: Option<String>,
    /// Name of a trigger that an event of theirs (that event, if one is named) was held against or replayed to.
    pub trigger: Option<String>,
    /// How many; 100 if it is left out, 500 at most.
    pub limit: Option<usize>,
    /// Only those before this one: a resource version, or `next` of the page before.
    pub before: Option<String>,
    /// Whether changes are wanted instead of a page.
    pub watch: bool,
    /// With `watch`: what changed since is told first. A resource version of a request, or Unix milliseconds. Left out:
    /// nothing.
    pub since: Option<String>,
    /// With `watch` and `trigger`: that trigger, if it is a draft, listens as long as this lasts.
    pub listen: bool,
}

/// Whether a question about `asked` is one about `namespace`, too.
pub fn covers(asked: &str, namespace: &str) -> bool {
    asked == ALL || asked == namespace
}

impl Question {
    /// Whether the request is wanted.
    pub fn wants(&self, request: &Request) -> bool {
        let is = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|wanted| wanted == found);
        let mut events = request.events.iter().filter(|event| is(&self.event, &event.name));
        let held = match &self.trigger {
            None => self.event.is_none() || events.next().is_some(),
            Some(_) => events.any(|event| event.triggers.iter().any(|trigger| is(&self.trigger, &trigger.name))),
        };
        held && is(&self.subscription, &request.subscription.name)
            && self.outcome.is_none_or(|outcome| outcome == request.outcome)
    }

    /// Whether a stored request in this state may be wanted, so that it has to be read.
    fn may_want(&self, summary: &Summary) -> bool {
        match self.outcome {
            None => true,
            Some(Outcome::Received) => summary.status == Status::Unmatched,
            Some(Outcome::Pending) => summary.status == Status::Pending,
            Some(Outcome::DeadLettered) => summary.status == Status::Dead,
            Some(Outcome::Delivered) => summary.status == Status::Finished && summary.delivered > 0,
            Some(Outcome::Captured | Outcome::NotFired | Outcome::NotSubscribed | Outcome::NoEvent | Outcome::Ping) => {
                summary.status == Status::Finished && summary.delivered == 0
            }
            Some(Outcome::Handshake | Outcome::Duplicate | Outcome::Refused) => false,
        }
    }
}

/// Reads stored requests, and remembers what is known of their Subscriptions.
pub struct Reader<'a> {
    log: &'a Log,
    known: HashMap<Uuid, (Option<Arc<str>>, Option<Mask>)>,
}

impl<'a> Reader<'a> {
    /// A reader that knows nothing yet.
    pub fn new(log: &'a Log) -> Self {
        Self { log, known: HashMap::new() }
    }

    /// A stored request with all its content; `None` if there is none. Reads the disk.
    ///
    /// # Errors
    /// As [`crate::spool::Spool::entry`].
    pub fn read(&mut self, id: Uuid) -> Result<Option<Request>, SpoolError> {
        let Some(entry) = self.log.0.spool.entry(id)? else { return Ok(None) };
        let subscription = entry.request.subscription;
        let (plugin, mask) = self.known.entry(subscription).or_insert_with(|| self.log.about(subscription));
        let (plugin, replica) = (plugin.as_deref(), &self.log.0.replica);
        Ok(Some(match mask {
            Some(mask) => stored(&entry, &About { replica, plugin, mask }),
            // What would have to be masked in it is not known.
            None => stored(&entry, &About { replica, plugin, mask: &Mask::default() }).without_content(),
        }))
    }
}

impl Log {
    /// The request of a namespace with this id. Reads the disk.
    ///
    /// # Errors
    /// If the disk fails, or what is on it is damaged.
    pub fn one(&self, namespace: &str, id: Uuid) -> Result<Option<Request>, SpoolError> {
        let passing = self.passing(namespace).into_iter().find(|request| request.metadata.uid == id);
        if let Some(request) = passing {
            return Ok(Some((*request).clone()));
        }
        let found = Reader::new(self).read(id)?;
        Ok(found.filter(|request| request.metadata.namespace == namespace))
    }

    /// The requests of a namespace that are wanted, newest first. Reads the disk.
    ///
    /// # Errors
    /// If the disk fails. A damaged request is left out.
    pub fn list(&self, namespace: &str, question: &Question) -> Result<Page, SpoolError> {
        let limit = question.limit.unwrap_or(USUAL).clamp(1, MOST);
        let mut place: Option<Version> = question.before.as_deref().and_then(|before| before.parse().ok());
        let mut passing: VecDeque<_> = self.passing(namespace).into();
        passing
            .retain(|r| question.wants(r) && place.is_none_or(|p| r.version() < p && !r.version().is_of_the_same(p)));
        let mut stored = Stored::new(self, namespace, question, place);
        let mut reader = Reader::new(self);
        let mut page = Page::default();
        let (mut looked_at, mut read, mut bytes) = (0, 0, 0);
        loop {
            stored.fill();
            let (next_stored, next_passing) = (stored.next_place(), passing.front().map(|r| r.version()));
            if next_stored.is_none() && next_passing.is_none() {
                return Ok(page);
            }
            if page.items.len() == limit || looked_at == LOOKED_AT || read == READ || bytes >= READ_BYTES {
                page.next = place.map(|place| place.to_string());
                return Ok(page);
            }
            place = next_stored.max(next_passing);
            if next_passing > next_stored {
                page.items.extend(passing.pop_front().map(|request| (*request).clone().without_content()));
                continue;
            }
            let Some(summary) = stored.ahead.pop_front() else { continue };
            looked_at += 1;
            if !question.may_want(&summary) {
                continue;
            }
            read += 1;
            bytes += summary.bytes;
            match reader.read(summary.id) {
                Ok(Some(request)) if question.wants(&request) => page.items.push(request.without_content()),
                Ok(_) => {}
                Err(error @ SpoolError::Damaged { .. }) => tracing::warn!(%error, "a request is left out of the log"),
                Err(error) => return Err(error),
            }
        }
    }
}

/// The stored requests of a namespace, newest first, in batches.
struct Stored<'a> {
    log: &'a Log,
    subscriptions: Vec<Uuid>,
    before: Option<(u64, Uuid)>,
    ahead: VecDeque<Summary>,
    more: bool,
}

impl<'a> Stored<'a> {
    fn new(log: &'a Log, namespace: &str, question: &Question, before: Option<Version>) -> Self {
        let all = log.0.spool.subscriptions(Some(namespace).filter(|asked| *asked != ALL)).into_iter();
        let wanted = all.filter(|(_, name)| question.subscription.as_ref().is_none_or(|wanted| wanted == name));
        let subscriptions = wanted.map(|(uid, _)| uid).collect();
        Self { log, subscriptions, before: before.map(Version::position), ahead: VecDeque::new(), more: true }
    }

    fn fill(&mut self) {
        if !self.ahead.is_empty() || !self.more {
            return;
        }
        self.ahead = self.log.0.spool.recent_of(&self.subscriptions, self.before, BATCH).into();
        self.more = self.ahead.len() == BATCH;
        if let Some(last) = self.ahead.back() {
            self.before = Some((last.received_at, last.id));
        }
    }

    fn next_place(&self) -> Option<Version> {
        self.ahead.front().map(|summary| Version::new(summary.received_at, summary.id, 0))
    }
}

/// What changed at or after `since` (Unix milliseconds), oldest first: the newest requests, as many as a page may have, of
/// those that were received last. Reads the disk.
pub fn changed_since(log: &Log, namespace: &str, question: &Question, since: u64) -> Vec<Request> {
    let mut stored = Stored::new(log, namespace, question, None);
    let mut reader = Reader::new(log);
    let passing = log.passing(namespace).into_iter();
    let passing = passing.filter(|request| question.wants(request) && request.version().touched() >= since);
    // Their content is not told, so it is not kept until all are found.
    let mut found: Vec<Request> = passing.map(|request| (*request).clone().without_content()).collect();
    let (mut looked_at, mut read, mut bytes) = (0, 0, 0);
    while looked_at < LOOKED_AT && read < READ && bytes < READ_BYTES && found.len() < MOST {
        stored.fill();
        let Some(summary) = stored.ahead.pop_front() else { break };
        looked_at += 1;
        if summary.touched < since || !question.may_want(&summary) {
            continue;
        }
        read += 1;
        bytes += summary.bytes;
        if let Ok(Some(request)) = reader.read(summary.id)
            && question.wants(&request)
        {
            found.push(request.without_content());
        }
    }
    found.sort_by_key(Request::version);
    found
}
