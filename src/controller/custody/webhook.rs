//! What is known of one webhook in the external system, and which of several a Subscription lives on.

use super::Custody;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use uuid::Uuid;

/// How far a webhook is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum WebhookState {
    /// A create call was or is about to be made; whether it arrived is not known.
    Creating,
    /// The webhook exists; calls after its creation are still to be made.
    Created {
        /// The external system's id of the webhook.
        id: String,
    },
    /// The webhook exists, with this Subscription's callback URL and secret.
    Registered {
        /// The external system's id of the webhook.
        id: String,
    },
    /// The webhook exists and has to be deleted: another one has taken its place, or its creation was not completed.
    Retiring {
        /// The external system's id of the webhook.
        id: String,
    },
}

/// What is known of one webhook.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WebhookRecord {
    /// The event that it is for, where the external system needs one webhook for each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// Names the create call, which may choose the webhook's id by it.
    pub attempt: Uuid,
    /// How far it is.
    pub state: WebhookState,
    /// What the create call, and those after it, have captured.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, String>,
    /// The callback secret that the external system has chosen for this webhook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// Number of the callback secret that the webhook has.
    #[serde(default)]
    pub secret_version: u32,
    /// How many of the calls after its creation were made.
    #[serde(default)]
    pub completed: usize,
    /// When it was created or adopted.
    #[serde(default)]
    pub created_at: i64,
    /// When its life began: at the creation or the last renewal.
    #[serde(default)]
    pub renewed_at: i64,
    /// When the external system forgets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<i64>,
    /// When it may be deleted, if it has to be. What it has still to deliver may be lost with it.
    #[serde(default)]
    pub retire_at: i64,
    /// Whether it has to make room: it is in use until it is deleted, and only then the one that takes its place is
    /// created, because the external system refuses two with the same URL.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub making_room: bool,
}

impl fmt::Debug for WebhookRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookRecord")
            .field("event", &self.event)
            .field("state", &self.state)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

impl WebhookRecord {
    /// One whose create call is about to be made.
    pub fn creating(event: Option<String>) -> Self {
        Self {
            event,
            attempt: Uuid::new_v4(),
            state: WebhookState::Creating,
            values: BTreeMap::new(),
            secret: None,
            secret_version: 0,
            completed: 0,
            created_at: 0,
            renewed_at: 0,
            expires_at: None,
            retire_at: 0,
            making_room: false,
        }
    }

    /// The external system's id, once there is one.
    pub fn id(&self) -> Option<&str> {
        match &self.state {
            WebhookState::Creating => None,
            WebhookState::Created { id } | WebhookState::Registered { id } | WebhookState::Retiring { id } => Some(id),
        }
    }

    /// Whether it is complete and in use.
    pub fn is_registered(&self) -> bool {
        matches!(self.state, WebhookState::Registered { .. })
    }

    /// Whether it has to be deleted.
    pub fn is_retiring(&self) -> bool {
        matches!(self.state, WebhookState::Retiring { .. })
    }

    /// From the begin of its life to its end, in milliseconds.
    pub fn life(&self) -> Option<i64> {
        self.expires_at.map(|end| (end - self.renewed_at).max(0))
    }
}

impl Custody {
    /// The record of the webhook that this attempt has made.
    pub fn webhook(&self, attempt: Uuid) -> Option<&WebhookRecord> {
        self.webhooks.iter().find(|record| record.attempt == attempt)
    }

    /// The same, to be changed.
    pub fn webhook_mut(&mut self, attempt: Uuid) -> Option<&mut WebhookRecord> {
        self.webhooks.iter_mut().find(|record| record.attempt == attempt)
    }

    /// The records of webhooks for this event.
    pub fn of_event<'a>(&'a self, event: Option<&'a str>) -> impl Iterator<Item = &'a WebhookRecord> {
        self.webhooks.iter().filter(move |record| record.event.as_deref() == event)
    }

    /// Whether every one of `events` has a complete webhook.
    pub fn is_registered(&self, events: &[Option<String>]) -> bool {
        events.iter().all(|event| self.of_event(event.as_deref()).any(WebhookRecord::is_registered))
    }

    /// Notes that the webhook is complete. What it replaces has to be deleted at `retire_at`; where the create call has
    /// changed the webhook that was there, and so gave the same id, there is nothing to delete.
    pub fn complete(&mut self, attempt: Uuid, retire_at: i64) {
        let Some(record) = self.webhook_mut(attempt) else { return };
        let (event, id) = (record.event.clone(), record.id().map(str::to_owned));
        let Some(id) = id else { return };
        record.state = WebhookState::Registered { id: id.clone() };
        let is_same =
            |other: &WebhookRecord| other.attempt != attempt && other.event == event && other.id() == Some(id.as_str());
        let secrets = self.webhooks.iter().filter(|other| is_same(other)).filter_map(|other| other.secret.clone());
        for secret in secrets.collect::<Vec<_>>() {
            self.retire(secret, None);
        }
        self.webhooks.retain(|other| !is_same(other));
        for other in &mut self.webhooks {
            if other.attempt != attempt
                && other.event == event
                && let WebhookState::Registered { id } = &other.state
            {
                other.state = WebhookState::Retiring { id: id.clone() };
                other.retire_at = retire_at;
            }
        }
    }

    /// Notes that a webhook is in use until it is deleted, which has to be before another one is created.
    pub fn make_room(&mut self, attempt: Uuid) {
        if let Some(record) = self.webhook_mut(attempt) {
            record.making_room = true;
        }
    }

    /// Forgets a webhook that is gone. A secret of its own is accepted until `until`, for what is still under way.
    pub fn forget(&mut self, attempt: Uuid, until: Option<i64>) {
        let Some(at) = self.webhooks.iter().position(|record| record.attempt == attempt) else { return };
        let record = self.webhooks.remove(at);
        if let (Some(secret), Some(until)) = (record.secret, until) {
            self.retire(secret, Some(until));
        }
    }
}

impl Custody {
    /// Notes that a webhook cannot be used and has to be deleted.
    pub fn reject(&mut self, attempt: Uuid) {
        if let Some(record) = self.webhook_mut(attempt)
            && let Some(id) = record.id().map(str::to_owned)
        {
            record.state = WebhookState::Retiring { id };
        }
    }

    /// Notes what was found wrong with a webhook, to be told once it is mended.
    pub fn note_repair(&mut self, note: &str) {
        match &mut self.repaired {
            Some(notes) if notes.contains(note) => {}
            // An event has no room for more.
            Some(notes) if notes.len() > 1000 => {}
            Some(notes) => *notes = format!("{notes}; {note}"),
            None => self.repaired = Some(note.to_owned()),
        }
    }
}
