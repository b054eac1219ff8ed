//! What an ingress reports to the controller, which shows it in statuses.

use super::RunnerGone;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What an ingress reports at `/internal/activity`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// The last request of each Subscription that has had one since the last report.
    pub requests: Vec<Seen>,
    /// What triggers have done since the last report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub triggers: Option<TriggerReport>,
    /// Triggers whose runner is gone, until that is seen in their status.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<Gone>,
    /// Triggers whose runner is left alone because it does not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub away: Option<AwayReport>,
    /// URLs of JWK Sets of which tokens name keys that are not known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missed_keys: Vec<String>,
}

/// The last request of a Subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// UID of the Subscription.
    pub uid: Uuid,
    /// When it came, in Unix milliseconds.
    pub at: i64,
}

/// What triggers have done. It must not be counted twice, so it says which report it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TriggerReport {
    /// The process that reports: a random UUID, made at its start.
    pub from: Uuid,
    /// Which of its reports it is, from 1. One whose answer was lost is sent again with the same number.
    pub number: u64,
    /// What there is to add, by UID.
    pub tallies: Vec<Told>,
}

/// What there is to add to the counts of one trigger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// UID of the WorkflowTrigger.
    pub uid: Uuid,
    /// What to add.
    #[serde(flatten)]
    pub tally: Tally,
}

/// A trigger whose runner has answered 410.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    /// UID of the WorkflowTrigger.
    pub uid: Uuid,
    /// The state that it was in.
    #[serde(flatten)]
    pub state: RunnerGone,
}

/// All triggers whose runner a process leaves alone for now, which takes the place of what it has reported before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AwayReport {
    /// The process that reports, as in [`TriggerReport`].
    pub from: Uuid,
    /// The triggers.
    pub triggers: Vec<Away>,
}

/// A trigger whose runner does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Away {
    /// UID of the WorkflowTrigger.
    pub uid: Uuid,
    /// Since when, in Unix milliseconds.
    pub since: u64,
}

/// What has happened to one trigger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Tally {
    /// Events that matched.
    pub fired: u64,
    /// Events that did not.
    pub filtered: u64,
    /// Deliveries that became dead letters.
    pub failed: u64,
    /// When an event last matched, in Unix milliseconds; 0 is never.
    pub last_fired: u64,
}

impl Tally {
    /// Adds what has happened besides.
    pub fn add(&mut self, other: &Tally) {
        self.fired = self.fired.saturating_add(other.fired);
        self.filtered = self.filtered.saturating_add(other.filtered);
        self.failed = self.failed.saturating_add(other.failed);
        self.last_fired = self.last_fired.max(other.last_fired);
    }
}
