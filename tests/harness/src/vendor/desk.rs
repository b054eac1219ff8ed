//! What a vendor has of webhooks: those that exist, those that existed and when, and the calls that came.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Now, in milliseconds since the Unix epoch.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    i64::try_from(since.as_millis()).expect("the clock is before the year 292 million")
}

/// A webhook that a vendor has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// The vendor's id.
    pub id: String,
    /// Where deliveries go.
    pub url: String,
    /// Names of the events that are delivered, as the vendor writes them; empty: all.
    pub events: Vec<String>,
    /// What deliveries are signed with; empty: nothing.
    pub secret: String,
    /// When the vendor forgets it, in milliseconds since the Unix epoch.
    pub expires_at: Option<i64>,
    /// Whether deliveries are sent.
    pub enabled: bool,
    /// Whether it is somebody else's: it fills lists and gets no deliveries.
    pub foreign: bool,
    /// Whatever else the vendor remembers of it.
    pub values: BTreeMap<String, String>,
}

impl Webhook {
    /// An enabled webhook for all events, without a secret and without an end.
    pub fn new(id: impl Into<String>, url: impl Into<String>) -> Webhook {
        Webhook {
            id: id.into(),
            url: url.into(),
            events: Vec::new(),
            secret: String::new(),
            expires_at: None,
            enabled: true,
            foreign: false,
            values: BTreeMap::new(),
        }
    }

    /// Sets the events.
    pub fn events<S: Into<String>>(mut self, events: impl IntoIterator<Item = S>) -> Webhook {
        self.events = events.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the secret.
    pub fn secret(mut self, secret: impl Into<String>) -> Webhook {
        self.secret = secret.into();
        self
    }

    /// Lets it end after `life`.
    pub fn lives(mut self, life: Duration) -> Webhook {
        self.expires_at = Some(now() + millis(life));
        self
    }

    /// Remembers something else.
    pub fn value(mut self, name: &str, value: impl Into<String>) -> Webhook {
        self.values.insert(name.to_owned(), value.into());
        self
    }

    /// Whether this event is delivered to it.
    pub fn wants(&self, event: &str) -> bool {
        self.enabled && !self.foreign && (self.events.is_empty() || self.events.iter().any(|wanted| wanted == event))
    }
}

/// A duration in milliseconds.
pub fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).expect("tests do not take that long")
}

/// A webhook, from its creation on.
#[derive(Debug)]
struct Record {
    webhook: Webhook,
    from: i64,
    removed: Option<i64>,
}

impl Record {
    /// When it ended or will end.
    fn until(&self) -> Option<i64> {
        match (self.removed, self.webhook.expires_at) {
            (Some(removed), Some(expires)) => Some(removed.min(expires)),
            (removed, expires) => removed.or(expires),
        }
    }

    fn lives(&self, at: i64) -> bool {
        self.from <= at && self.until().is_none_or(|until| at < until)
    }
}

/// When a webhook existed, in milliseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Life {
    /// The webhook's id.
    pub id: String,
    /// Its first moment.
    pub from: i64,
    /// The first moment without it: it was deleted, or it expired. Nothing, if no end is set.
    pub until: Option<i64>,
}

#[derive(Debug, Default)]
struct State {
    records: Vec<Record>,
    calls: Vec<(String, String)>,
    numbers: u64,
    /// What happens to the next calls: with which status they fail, if at all.
    failures: VecDeque<(String, String, Option<u16>)>,
    /// For how long the answers to the next calls are held back.
    holds: VecDeque<(String, String, Duration)>,
}

/// The books of one vendor.
#[derive(Debug, Default)]
pub struct Desk {
    state: Mutex<State>,
}

impl Desk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while the lock is held")
    }

    /// A number that was not given before, for an id.
    pub fn number(&self) -> u64 {
        let mut state = self.state();
        state.numbers += 1;
        1000 + state.numbers
    }

    /// A webhook begins to exist.
    pub fn add(&self, webhook: Webhook) {
        self.state().records.push(Record { webhook, from: now(), removed: None });
    }

    /// Adds webhooks that are somebody else's, so that lists have more than one page.
    pub fn add_foreign(&self, count: usize) {
        for _ in 0..count {
            let number = self.number();
            let mut webhook = Webhook::new(number.to_string(), format!("https://elsewhere.example/{number}"));
            webhook.foreign = true;
            self.add(webhook);
        }
    }

    /// Changes a webhook that exists; whether there is one with this id.
    pub fn change(&self, id: &str, change: impl FnOnce(&mut Webhook)) -> bool {
        let at = now();
        let mut state = self.state();
        let found = state.records.iter_mut().find(|record| record.webhook.id == id && record.lives(at));
        found.map(|record| change(&mut record.webhook)).is_some()
    }

    /// Ends a webhook that exists; whether there was one with this id.
    pub fn remove(&self, id: &str) -> bool {
        let at = now();
        let mut state = self.state();
        let found = state.records.iter_mut().find(|record| record.webhook.id == id && record.lives(at));
        found.map(|record| record.removed = Some(at)).is_some()
    }

    /// Every webhook that exists, the foreign ones among them, oldest first.
    pub fn all(&self) -> Vec<Webhook> {
        let at = now();
        self.state().records.iter().filter(|record| record.lives(at)).map(|record| record.webhook.clone()).collect()
    }

    /// The webhook with this id, if it exists.
    pub fn get(&self, id: &str) -> Option<Webhook> {
        self.all().into_iter().find(|webhook| webhook.id == id)
    }

    /// Every webhook that exists and is not somebody else's, oldest first.
    pub fn webhooks(&self) -> Vec<Webhook> {
        self.all().into_iter().filter(|webhook| !webhook.foreign).collect()
    }

    /// When each webhook existed that is or was not somebody else's, in the order of their creation.
    pub fn timeline(&self) -> Vec<Life> {
        let state = self.state();
        let own = state.records.iter().filter(|record| !record.webhook.foreign);
        own.map(|record| Life { id: record.webhook.id.clone(), from: record.from, until: record.until() }).collect()
    }

    /// The moments between `from` and `to` in which no webhook existed, as pairs of first moment and end, in
    /// milliseconds since the Unix epoch.
    pub fn gaps(&self, from: i64, to: i64) -> Vec<(i64, i64)> {
        let mut lives = self.timeline();
        lives.sort_by_key(|life| life.from);
        let mut covered = from;
        let mut gaps = Vec::new();
        for life in lives {
            if life.from > covered && covered < to {
                gaps.push((covered, life.from.min(to)));
            }
            covered = covered.max(life.until.unwrap_or(i64::MAX));
        }
        if covered < to {
            gaps.push((covered, to));
        }
        gaps
    }

    /// Notes a call, and says with which status it is to fail, if it is to fail.
    pub fn note(&self, method: &str, path: &str) -> Option<u16> {
        let mut state = self.state();
        state.calls.push((method.to_owned(), path.to_owned()));
        let fits = |failure: &(String, String, Option<u16>)| failure.0 == method && path.contains(&failure.1);
        let at = state.failures.iter().position(fits)?;
        state.failures.remove(at).and_then(|(_, _, status)| status)
    }

    /// Lets the next `times` calls with this method and this text in their path fail with this status.
    pub fn fail_next(&self, times: usize, method: &str, path: &str, status: u16) {
        let mut state = self.state();
        for _ in 0..times {
            state.failures.push_back((method.to_owned(), path.to_owned(), Some(status)));
        }
    }

    /// Lets the next call with this method and this text in its path pass, before what [`Desk::fail_next`] orders later.
    pub fn pass_next(&self, method: &str, path: &str) {
        self.state().failures.push_back((method.to_owned(), path.to_owned(), None));
    }

    /// Lets the answers to the next `times` calls with this method and this text in their path come so much later than what
    /// they tell of, so that a test can look at the moment in between.
    pub fn hold_next(&self, times: usize, method: &str, path: &str, time: Duration) {
        let mut state = self.state();
        for _ in 0..times {
            state.holds.push_back((method.to_owned(), path.to_owned(), time));
        }
    }

    /// For how long the answer to this call is to be held back.
    pub fn held(&self, method: &str, path: &str) -> Duration {
        let mut state = self.state();
        let at = state.holds.iter().position(|hold| hold.0 == method && path.contains(&hold.1));
        at.and_then(|at| state.holds.remove(at)).map(|(_, _, time)| time).unwrap_or_default()
    }

    /// Takes back what [`Desk::fail_next`] has ordered.
    pub fn fail_no_more(&self) {
        self.state().failures.clear();
    }

    /// How many calls with this method and this text in their path have come.
    pub fn count(&self, method: &str, path: &str) -> usize {
        self.state().calls.iter().filter(|call| call.0 == method && call.1.contains(path)).count()
    }

    /// Every call, as method and path with query, in the order of arrival.
    pub fn calls(&self) -> Vec<(String, String)> {
        self.state().calls.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_expired_is_gone_and_what_is_prolonged_is_not() {
        let desk = Desk::default();
        let mut old = Webhook::new("old", "http://a");
        old.expires_at = Some(now() - 1);
        desk.add(old);
        desk.add(Webhook::new("new", "http://a").lives(Duration::from_millis(1)));
        assert!(!desk.change("old", |webhook| webhook.expires_at = None), "what has expired cannot be prolonged");
        assert!(desk.change("new", |webhook| webhook.expires_at = Some(now() + 60_000)));
        std::thread::sleep(Duration::from_millis(5));
        let ids: Vec<String> = desk.webhooks().into_iter().map(|webhook| webhook.id).collect();
        assert_eq!(ids, ["new"]);
        assert!(desk.remove("new") && !desk.remove("new"));
    }

    #[test]
    fn gaps_are_the_moments_without_any_webhook() {
        let desk = Desk::default();
        let life = |id: &str, from: i64, until: Option<i64>| Record {
            webhook: Webhook::new(id, "http://a"),
            from,
            removed: until,
        };
        desk.state().records.extend([life("a", 10, Some(20)), life("b", 18, Some(30)), life("c", 35, None)]);
        assert_eq!(desk.gaps(10, 30), []);
        assert_eq!(desk.gaps(10, 40), [(30, 35)]);
        assert_eq!(desk.gaps(5, 33), [(5, 10), (30, 33)]);
    }

    #[test]
    fn a_call_fails_as_often_as_ordered() {
        let desk = Desk::default();
        desk.pass_next("GET", "/secret");
        desk.fail_next(1, "GET", "/secret", 503);
        assert_eq!(desk.note("POST", "/secret"), None);
        assert_eq!(desk.note("GET", "/a/secret?b"), None);
        assert_eq!(desk.note("GET", "/a/secret?b"), Some(503));
        assert_eq!(desk.note("GET", "/a/secret?b"), None);
        assert_eq!(desk.count("GET", "/secret"), 3);
    }
}
