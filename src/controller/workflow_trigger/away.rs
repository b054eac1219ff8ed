//! Whose runner does not answer: what the replicas of the ingress tell, and what of it is written into statuses.
//!
//! Each replica has circuits of its own, and tells again and again which triggers they concern. What it has told holds until
//! it tells otherwise, or nothing for a while: then it is gone.

use crate::api::{AwayReport, RunnerAway, WorkflowTrigger, WorkflowTriggerStatus, reason};
use crate::controller::Context;
use crate::controller::seldom::{Book, Budget, News};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use std::collections::{HashMap, HashSet};
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// Field manager of what is written here. It has one of its own, so that it need not know the rest of the status.
const MANAGER: &str = "bellhop-runner-away";
/// Processes of the ingress whose reports are kept; those of more are not taken.
const MOST_REPORTERS: usize = 1000;
/// Triggers that are kept of one report.
const MOST: usize = 2000;
/// After so many intervals without a report, a process of the ingress is gone, …
const SILENCE: u32 = 3;
/// … and no earlier than this: it looks for something to report every few seconds.
const LEAST_SILENCE: Duration = Duration::from_secs(20);

/// That a status has to be written; what it says is found out then.
#[derive(Clone, Copy)]
struct Changed;

impl News for Changed {
    fn add(&mut self, _: Self) {}
}

/// What is told and not written yet. Plain and synchronous.
pub struct AwayBook {
    /// By process: when it told, and of which triggers, since when.
    told: HashMap<Uuid, (Instant, HashMap<Uuid, u64>)>,
    changed: Book<Changed>,
    silence: Duration,
    begun: Instant,
}

impl AwayBook {
    /// An empty one.
    pub fn new(budget: Budget, now: Instant) -> Self {
        let silence = budget.interval.saturating_mul(SILENCE).max(LEAST_SILENCE);
        Self { told: HashMap::new(), changed: Book::new(budget, now), silence, begun: now }
    }

    /// Takes what a process tells, in place of what it has told before.
    pub fn take(&mut self, report: &AwayReport, now: Instant) {
        if self.told.len() >= MOST_REPORTERS && !self.told.contains_key(&report.from) {
            return;
        }
        let triggers = report.triggers.iter().take(MOST).map(|away| (away.uid, away.since)).collect();
        self.told.insert(report.from, (now, triggers));
    }

    /// What may be written now: triggers, and since when their runner does not answer; nothing if it does. `shown` are those
    /// whose status says that it does not.
    pub fn due(&mut self, shown: &HashSet<Uuid>, now: Instant) -> Vec<(Uuid, Option<u64>)> {
        self.told.retain(|_, (at, _)| now.duration_since(*at) < self.silence);
        let mut away = HashMap::new();
        for (trigger, since) in self.told.values().flat_map(|(_, triggers)| triggers) {
            let earliest = away.entry(*trigger).or_insert(*since);
            *earliest = (*since).min(*earliest);
        }
        // Until every replica has had the time to tell, nothing is known of those that are told by none.
        let complete = now.duration_since(self.begun) >= self.silence;
        let is_wrong = |trigger: &Uuid| match shown.contains(trigger) {
            true => complete && !away.contains_key(trigger),
            false => away.contains_key(trigger),
        };
        for trigger in away.keys().chain(shown).filter(|trigger| is_wrong(trigger)) {
            // What has no room comes again.
            self.changed.note(*trigger, Changed);
        }
        let due = self.changed.due(now).into_iter().map(|(trigger, Changed)| trigger);
        // It may have come right by itself while it waited.
        due.filter(|trigger| is_wrong(trigger)).map(|trigger| (trigger, away.get(&trigger).copied())).collect()
    }
}

/// The triggers whose status says that their runner does not answer.
pub fn shown(context: &Context) -> HashSet<Uuid> {
    let says = |trigger: &WorkflowTrigger| trigger.status.as_ref().is_some_and(|status| status.runner_away.is_some());
    let shown = context.triggers.store().state_filter(says).into_iter();
    shown.filter_map(|trigger| trigger.metadata.uid.as_deref()?.parse().ok()).collect()
}

/// Writes what [`AwayBook::due`] has given. What cannot be written is found wrong again.
pub async fn write(context: &Context, due: Vec<(Uuid, Option<u64>)>) {
    for (uid, since) in due {
        let Some(trigger) = context.triggers.by_uid(uid) else { continue };
        let runner_away = since.map(|since| RunnerAway { since: seconds(since) });
        let status = WorkflowTriggerStatus { runner_away, ..Default::default() };
        if let Err(failure) = super::tally::write(context, MANAGER, &trigger, &status).await {
            tracing::debug!(name = trigger.name_any(), %failure, "whether a runner answers was not written yet");
        }
    }
}

/// Unix milliseconds, as the API has times: in seconds.
fn seconds(millis: u64) -> Time {
    let seconds = i64::try_from(millis / 1000).unwrap_or(i64::MAX);
    Time(Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX))
}

/// The reason and the message of the condition.
pub fn condition(away: &RunnerAway) -> (&'static str, String) {
    let message = format!(
        "the runner has given no answer, or none but 5xx, since {}; what is to be delivered waits, and one attempt in five \
         minutes at least finds out whether it is back",
        away.since.0
    );
    (reason::RUNNER_NOT_ANSWERING, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Away;

    const INTERVAL: Duration = Duration::from_secs(60);

    struct Desk {
        book: AwayBook,
        begun: Instant,
    }

    impl Desk {
        fn new(per_minute: u32) -> Self {
            let begun = Instant::now();
            Self { book: AwayBook::new(Budget { interval: INTERVAL, per_minute }, begun), begun }
        }

        fn told(&mut self, from: u128, triggers: &[(u128, u64)], second: u64) {
            let triggers = triggers.iter().map(|(uid, since)| Away { uid: Uuid::from_u128(*uid), since: *since });
            let report = AwayReport { from: Uuid::from_u128(from), triggers: triggers.collect() };
            self.book.take(&report, self.begun + Duration::from_secs(second));
        }

        fn due(&mut self, shown: &[u128], second: u64) -> Vec<(u128, Option<u64>)> {
            let shown = shown.iter().map(|uid| Uuid::from_u128(*uid)).collect();
            let due = self.book.due(&shown, self.begun + Duration::from_secs(second));
            let mut due: Vec<_> = due.into_iter().map(|(uid, since)| (uid.as_u128(), since)).collect();
            due.sort();
            due
        }
    }

    #[test]
    fn a_runner_is_away_as_long_as_a_replica_says_so() {
        let mut desk = Desk::new(600);
        desk.told(1, &[(7, 5_000), (8, 9_000)], 0);
        desk.told(2, &[(7, 3_000)], 1);
        assert_eq!(desk.due(&[], 1), [(7, Some(3_000)), (8, Some(9_000))]);
        assert_eq!(desk.due(&[], 2), [], "the cache is behind, and nothing is written twice in a minute");
        assert_eq!(desk.due(&[7, 8], 60), []);
        // One is back for the first replica, the other for one of two.
        desk.told(1, &[], 170);
        desk.told(2, &[(7, 3_000)], 170);
        assert_eq!(desk.due(&[7, 8], 200), [(8, None)]);
        assert_eq!(desk.due(&[7], 201), []);
        // The other replica is gone.
        assert_eq!(desk.due(&[7], 349), []);
        assert_eq!(desk.due(&[7], 350), [(7, None)]);
    }

    #[test]
    fn who_has_just_begun_waits_until_all_have_told() {
        let mut desk = Desk::new(600);
        desk.told(1, &[(7, 5_000)], 0);
        assert_eq!(desk.due(&[7, 8], 10), [], "another replica may say so of it");
        desk.told(1, &[(7, 5_000)], 100);
        assert_eq!(desk.due(&[7, 8], 179), []);
        assert_eq!(desk.due(&[7, 8], 180), [(8, None)]);
    }

    #[test]
    fn what_comes_and_goes_is_written_at_a_bounded_rate() {
        let mut desk = Desk::new(6);
        let all: Vec<(u128, u64)> = (1..=20).map(|uid| (uid, 1_000)).collect();
        desk.told(1, &all, 0);
        assert_eq!(desk.due(&[], 0).len(), 6);
        // The rest is back before it was written.
        desk.told(1, &all[..0], 1);
        assert_eq!(desk.due(&[], 120), []);
    }
}
