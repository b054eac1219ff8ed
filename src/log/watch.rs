//! Telling what changes in a namespace.

use super::Log;
use super::model::{Change, ChangeKind, Request, Version};
use super::places::Place;
use super::query::{ALL, Question, Reader, changed_since, covers};
use crate::api::LONGEST_LISTENING;
use crate::routes::Following;
use crate::spool::Changed;
use async_stream::stream;
use futures::Stream;
use k8s_openapi::jiff::Timestamp;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::time::Duration;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use uuid::Uuid;

/// How often it is said that nothing happened.
const QUIET: Duration = Duration::from_secs(30);
/// Requests of which a watch remembers that it has told them.
const REMEMBERED: usize = 10_000;
/// Changed requests that are read together.
const TOGETHER: usize = 200;

impl Log {
    /// What changes in a namespace from now on, and before that, if the question says since when, what has changed already.
    /// Ends with `Expired` if the reader falls behind.
    ///
    /// Requests that leave the log by their age or number are not told.
    ///
    /// # Errors
    /// Too many watch already; a line for people.
    pub fn watch(&self, namespace: String, question: Question) -> Result<impl Stream<Item = Change> + use<>, String> {
        let place = self.0.watches.enter(&namespace)?;
        let following = question.trigger.as_ref().filter(|_| question.listen && namespace != ALL).map(|trigger| {
            let until = Timestamp::now().checked_add(LONGEST_LISTENING).unwrap_or(Timestamp::MAX);
            self.0.routes.follow(&namespace, trigger, until)
        });
        Ok(changes(self.clone(), namespace, question, place, following))
    }
}

fn changes(
    log: Log,
    namespace: String,
    question: Question,
    place: Place,
    following: Option<Following>,
) -> impl Stream<Item = Change> {
    // Before anything is looked at, so that nothing is missed.
    let (mut stored, mut passing) = (log.0.spool.changes(), log.0.passing.changes());
    stream! {
        let (_place, _following) = (place, following);
        let mut told = Told::default();
        if let Some(since) = question.since.as_deref().and_then(since) {
            let (namespace, question) = (namespace.clone(), question.clone());
            let before = log.reading(move |log| Ok(changed_since(log, &namespace, &question, since))).await;
            for request in before.unwrap_or_default() {
                if let Some(change) = told.tell(request, true) {
                    yield change;
                }
            }
        }
        yield bare(ChangeKind::Bookmark);
        loop {
            tokio::select! {
                change = stored.recv() => match next_changes(change, &mut stored, &log, &namespace) {
                    Err(Behind) => break,
                    Ok(ids) if ids.is_empty() => {}
                    Ok(ids) => {
                        let wants = question.clone();
                        let read = log.reading(move |log| {
                            let mut reader = Reader::new(log);
                            let read = ids.into_iter().filter_map(|id| reader.read(id).ok().flatten());
                            let judged = read.map(|request| (wants.wants(&request), request.without_content()));
                            Ok(judged.collect::<Vec<_>>())
                        });
                        for (wanted, request) in read.await.unwrap_or_default() {
                            if let Some(change) = told.tell(request, wanted) {
                                yield change;
                            }
                        }
                    }
                },
                request = passing.recv() => match request {
                    Ok(request) if covers(&namespace, &request.metadata.namespace) && question.wants(&request) => {
                        if let Some(change) = told.tell((*request).clone().without_content(), true) {
                            yield change;
                        }
                    }
                    Ok(_) => {}
                    Err(_) => break,
                },
                () = tokio::time::sleep(QUIET) => yield bare(ChangeKind::Bookmark),
            }
        }
        yield bare(ChangeKind::Expired);
    }
}

/// The reader has to list again.
struct Behind;

/// The requests of the namespace that changed, each once, of the changes that are there.
fn next_changes(
    first: Result<Changed, RecvError>,
    stored: &mut Receiver<Changed>,
    log: &Log,
    namespace: &str,
) -> Result<Vec<Uuid>, Behind> {
    let (mut ids, mut seen) = (Vec::new(), BTreeSet::new());
    let mut next = Some(first.map_err(|_| Behind)?);
    while let Some(changed) = next {
        let here = log.0.spool.namespace(changed.subscription).is_some_and(|found| covers(namespace, &found));
        if here && seen.insert(changed.request) {
            ids.push(changed.request);
        }
        next = match ids.len() < TOGETHER {
            true => match stored.try_recv() {
                Ok(changed) => Some(changed),
                Err(TryRecvError::Empty | TryRecvError::Closed) => None,
                Err(TryRecvError::Lagged(_)) => return Err(Behind),
            },
            false => None,
        };
    }
    Ok(ids)
}

/// What a watch has told: of which requests, and a hash of it. Versions would not do: much happens in a millisecond.
#[derive(Default)]
struct Told {
    hashes: HashMap<Uuid, u64>,
    order: VecDeque<Uuid>,
}

impl Told {
    /// What there is to tell of a request that may have changed.
    fn tell(&mut self, request: Request, wanted: bool) -> Option<Change> {
        let (id, hash) = (request.metadata.uid, hash(&request));
        let kind = match (self.hashes.get(&id), wanted) {
            (None, false) => return None,
            (None, true) => ChangeKind::Added,
            (Some(_), false) => ChangeKind::Deleted,
            (Some(known), true) if *known == hash => return None,
            (Some(_), true) => ChangeKind::Modified,
        };
        match kind {
            ChangeKind::Deleted => {
                self.hashes.remove(&id);
                self.order.retain(|known| *known != id);
            }
            _ => {
                if self.hashes.insert(id, hash).is_none() {
                    self.order.push_back(id);
                }
                if self.order.len() > REMEMBERED
                    && let Some(oldest) = self.order.pop_front()
                {
                    self.hashes.remove(&oldest);
                }
            }
        }
        Some(Change { kind, object: Some(request) })
    }
}

fn hash(request: &Request) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    serde_json::to_vec(request).unwrap_or_default().hash(&mut hasher);
    hasher.finish()
}

fn bare(kind: ChangeKind) -> Change {
    Change { kind, object: None }
}

/// A time in Unix milliseconds, or the version of a request, which says when it changed.
fn since(text: &str) -> Option<u64> {
    match text.parse::<u64>() {
        Ok(millis) => Some(millis),
        Err(_) => text.parse::<Version>().ok().map(Version::touched),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_and_a_version_say_since_when() {
        let version = Version::new(1_700_000_000_000, Uuid::max(), 1_700_000_000_005).to_string();
        assert_eq!((since("17"), since(&version), since("x")), (Some(17), Some(1_700_000_000_005), None));
    }
}
